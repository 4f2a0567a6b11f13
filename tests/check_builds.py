#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Builds selfcheck with the library in ways that a host may, and runs it.

    check_builds.py AMALGAM_DIR

-O0, -Os and -O3 -flto, by gcc and by clang, of the library's files; -O3 -flto of the amalgam.
"""

import argparse
import os
import re
import sys
import tempfile

from tools import Checks

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
sys.dont_write_bytecode = True

import configure  # noqa: E402  pylint: disable=wrong-import-position

COMPILERS = ["gcc", "clang"]
OPTIONS = [["-O0"], ["-Os"], ["-O3", "-flto"]]
OPERATIONS = 2000  # of each thread, a tenth of what selfcheck does by itself


def compiled(checks, temp, sources, command):
    """Compiles sources; returns the objects, or nothing where that failed."""
    objects = {source: os.path.join(temp, source.replace("/", "_") + ".o") for source in sources}
    jobs = [
        (" ".join([*command, source]), [*command, "-I.", "-c", source, "-o", output])
        for source, output in objects.items()
    ]
    return [] if None in checks.run_all(jobs) else list(objects.values())


def check_selfcheck(checks, program, what):
    output = checks.run(what, [program, "--operations", str(OPERATIONS)])
    if output is not None:
        # A program that did nothing would return 0, too.
        count = re.search(r"^(\d+) passed, 0 failed$", output, re.M)
        checks.check(count and int(count[1]) > 1000, f"{what}: prints no count")


def main():
    """Returns the exit status: 0 all well, 1 not; wrong usage ends in 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("amalgam_dir")
    amalgam_dir = os.path.abspath(parser.parse_args().amalgam_dir)
    os.chdir(ROOT)

    checks = Checks("builds")
    platform = configure.PLATFORMS["posix"]
    library = configure.LIBRARY + platform["library"]
    program = configure.SAMPLES["selfcheck"] + platform["samples"]
    amalgam = [os.path.relpath(os.path.join(amalgam_dir, "hakmem.c"))]
    for compiler in COMPILERS:
        if not checks.has(compiler, f"builds by {compiler}"):
            continue
        for options in OPTIONS:
            command = [compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", *options]
            with tempfile.TemporaryDirectory() as temp:
                of_program = compiled(checks, temp, program, command)
                for name, sources in (("the library", library), ("the amalgam", amalgam)):
                    if name == "the amalgam" and "-flto" not in options:
                        continue
                    of_library = compiled(checks, temp, sources, command)
                    if not of_program or not of_library:
                        continue
                    what = f"selfcheck with {name}: {' '.join([compiler, *options])}"
                    selfcheck = os.path.join(temp, "selfcheck")
                    link = [compiler, *options, "-pthread", "-o", selfcheck]
                    if checks.run(f"link {what}", link + of_program + of_library) is not None:
                        check_selfcheck(checks, selfcheck, what)
    return checks.status()


if __name__ == "__main__":
    sys.exit(main())
