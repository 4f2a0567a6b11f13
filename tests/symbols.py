#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Holds the functions that selfcheck exercises against those the shared library exports.

A function that is exported and not exercised fails, and so does one that is listed and not
exported, one that is listed as inline and exported, and any other name that the library would
put into a host's name space.
"""

import argparse
import os
import subprocess
import sys

PREFIX = "hk_"


def output_of(command):
    """What a command prints; ends the program where it cannot be run."""
    try:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"symbols: {error}")
    return done.stdout.decode()


def exported_by(library, nm):
    """Names the library defines, without those of the tool chain, which begin with "_"."""
    lines = output_of([nm, "-D", "-P", "--defined-only", library]).splitlines()
    names = {line.split()[0].split("@")[0] for line in lines if line.strip()}
    return {name for name in names if not name.startswith("_")}


def listed_by(selfcheck):
    """Two sets: functions of the library, and inline functions of the header."""
    symbols, inline = set(), set()
    for line in output_of([selfcheck, "--list"]).splitlines():
        name, *kind = line.split()
        if kind not in ([], ["inline"]):
            sys.exit(f"symbols: cannot read \"{line}\" of selfcheck --list")
        listed = inline if kind else symbols
        if name in symbols | inline:
            sys.exit(f"symbols: {name} is listed twice")
        listed.add(name)
    return symbols, inline


def faults(exported, symbols, inline):
    """One line for every name that is in one place and not in the other."""
    for name in sorted(exported):
        if not name.startswith(PREFIX):
            yield f"{name}: exported, but no name of this library"
        elif name in inline:
            yield f"{name}: exported, but listed as inline"
        elif name not in symbols:
            yield f"{name}: exported, but not exercised by selfcheck"
    for name in sorted(symbols - exported):
        yield f"{name}: listed by selfcheck, but not exported"


def main():
    """Returns the exit status: 0 in agreement, 1 not; usage errors end in 2."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", help="the shared library, build/release/libhakmem.so")
    parser.add_argument("selfcheck", help="the program, build/release/samples/selfcheck")
    parser.add_argument("--nm", default=os.environ.get("NM", "nm"), help="the nm to use")
    options = parser.parse_args()

    exported = exported_by(options.library, options.nm)
    symbols, inline = listed_by(os.path.abspath(options.selfcheck))
    if not exported or not symbols:
        print("symbols: nothing is exported or nothing listed")
        return 1
    bad = list(faults(exported, symbols, inline))
    for line in bad:
        print(line)
    print(f"{len(exported)} functions exported, {len(symbols)} and {len(inline)} inline ones "
          f"exercised, {len(bad)} at odds")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
