#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks the pair of files that `ninja amalgam` writes.

    check_amalgam.py AMALGAM_DIR

- Every file of the library is in it once, and it includes no other file of the repository.
- Writing it again, elsewhere, gives the same bytes.
- It compiles by itself, in a folder that holds nothing else: without flags, and with the warnings
  of the library as errors; by gcc and clang, and by mingw-w64 where there is a Windows platform.
- Its global symbols begin with hk_, and it leaves no macro defined that does not begin with HK_.
- An #include that names no file, or that stands under a condition, is an error of the script.

What its header brings into a host is for check_headers.py and check_abi.py to look at.
"""

import argparse
import glob
import os
import re
import shutil
import sys
import tempfile

from tools import WARNINGS, Checks, own_part, run

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
sys.dont_write_bytecode = True

import configure  # noqa: E402  pylint: disable=wrong-import-position

MINGW = "x86_64-w64-mingw32-gcc"
NAMES = ["hakmem.c", "hakmem.h"]


def read(path):
    with open(path, encoding="utf-8") as text:
        return text.read()


def check_parts(checks, folder):
    """Every file is in it once."""
    expected = set(configure.LIBRARY)
    for table in configure.PLATFORMS.values():
        expected |= set(table["library"])
    expected |= set(glob.glob("hakmem/*.h") + glob.glob("platform/*.h"))
    parts = []
    for name in NAMES:
        text = read(os.path.join(folder, name))
        parts += re.findall(r"^/\* ==== (\S+) ==== \*/$", text, re.M)
        for include in re.findall(r'^\s*#\s*include\s*(.*)$', text, re.M):
            folders = include.strip('<>"').split("/")[:-1]
            own = include == '"hakmem.h"' and name == "hakmem.c"
            system = include.startswith("<") and not (folders and os.path.isdir(folders[0]))
            checks.check(own or system, f"{name}: includes {include}")
        checks.check(text.startswith("/* SPDX"), f"{name}: does not begin with the license")
        checks.check(f" * hakmem {configure.read_version()}, " in text, f"{name}: no version")
    for part in sorted(expected | set(parts)):
        count = parts.count(part) if part in expected else -1
        checks.check(count == 1, f"{part} is in it {parts.count(part)} times")


def check_again(checks, folder, temp):
    """The same bytes from another folder, with another order of Python's sets."""
    for seed in ("1", "2"):
        again = os.path.join(temp, f"again {seed}")
        environment = dict(os.environ, PYTHONHASHSEED=seed)
        command = [sys.executable, os.path.join(ROOT, "hakmem", "amalgam.py"), again]
        if checks.run("writing it again", command, cwd=temp, env=environment) is None:
            return
        for name in NAMES:
            same = read(os.path.join(again, name)) == read(os.path.join(folder, name))
            checks.check(same, f"{name}: not what hakmem/amalgam.py writes now")


def check_alone(checks, folder, temp):
    """Compiles the pair in a folder of its own, without and with flags; returns the objects."""
    alone = os.path.join(temp, "a folder")
    os.mkdir(alone)
    for name in NAMES:
        shutil.copy(os.path.join(folder, name), alone)
    compilers = ["gcc", "clang"]
    if "windows" in configure.PLATFORMS:
        compilers.append(MINGW)
    jobs, objects = [], []
    for compiler in compilers:
        if not checks.has(compiler, f"the amalgam by {compiler}"):
            continue
        plain = os.path.join(alone, f"{compiler}.o")
        objects.append(plain)
        for what, flags, output in (
            ("no flags", [], plain),
            ("C11", ["-std=c11", "-O2", "-DNDEBUG", *WARNINGS], os.devnull),
            ("C17, a debug build", ["-std=gnu17", "-O0", "-DHK_DEBUG=1", *WARNINGS], os.devnull),
        ):
            command = [compiler, *flags, "-c", os.path.join(alone, "hakmem.c"), "-o", output]
            jobs.append((f"the amalgam by {compiler}, {what}", command))
    checks.run_all(jobs)
    return objects


def check_symbols(checks, objects):
    """All global symbols of the amalgam are the library's."""
    if not checks.has("nm", "global symbols"):
        return
    for path in objects:
        output = checks.run("symbols", ["nm", "-g", "-P", "--defined-only", path]) or ""
        # Compilers for Windows put in ".refptr.NAME" by themselves, which no C name can be.
        names = {line.split()[0] for line in output.splitlines() if not line.startswith(".")}
        checks.check("hk_version" in names, f"{os.path.basename(path)}: hk_version is not there")
        for name in sorted(names):
            if not name.startswith("hk_"):
                checks.fail(f"{os.path.basename(path)}: defines {name}, not a name of the library")


def check_macros(checks, folder):
    """What its files define for themselves is no longer defined at its end."""
    source = os.path.join(folder, "hakmem.c")
    text = read(source)
    for compiler in ("gcc", "clang"):
        if not checks.has(compiler, f"macros by {compiler}"):
            continue
        output = checks.run("macros", [compiler, "-E", "-dD", source]) or ""
        macros = own_part(output)[1]
        # What stands before the first #include is for the system's headers.
        before = re.findall(r"^#define (\w+)", text[: text.index("#include")], re.M)
        checks.check("HK_ARENA_H" in macros, f"hakmem.c: the macros by {compiler} are not found")
        for name in sorted(macros.difference(before)):
            if not name.startswith("HK_"):
                checks.fail(f"hakmem.c: leaves {name} defined ({compiler})")


def check_faults(checks, temp):
    """Sources of which no amalgam can be made are told, not passed over."""
    tree = os.path.join(temp, "tree")
    for name in ("hakmem", "platform"):
        shutil.copytree(name, os.path.join(tree, name))
    for name in ("configure.py", "LICENSE"):
        shutil.copy(name, tree)
    path = os.path.join(tree, "hakmem", "map.c")
    before = read(path)
    for what, lines in (
        ("nothing.h, which is not there", "#include <hakmem/nothing.h>"),
        ("nothing.h, which is not there", '#include "nothing.h"'),
        ("hakmem/report.h under a condition", "#ifdef X\n#include <hakmem/report.h>\n#endif"),
    ):
        with open(path, "w", encoding="utf-8") as out:
            out.write(before.replace("#include", f"{lines}\n#include", 1))
        output = os.path.join(temp, "of a fault")
        done = run([sys.executable, os.path.join(tree, "hakmem", "amalgam.py"), output])
        told = done.returncode == 1 and done.stderr.count("\n") == 1 and what in done.stderr
        checks.check(told, f"not told by exit code 1 and a line: {lines!r}: {done.stderr[-500:]}")
        checks.check(not os.path.exists(output), "an amalgam of faulty sources is written")


def main():
    """Returns the exit status: 0 all well, 1 not; wrong usage ends in 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("amalgam_dir")
    folder = os.path.abspath(parser.parse_args().amalgam_dir)
    os.chdir(ROOT)
    checks = Checks("amalgam")
    for name in NAMES:
        if not os.path.isfile(os.path.join(folder, name)):
            parser.error(f"{folder} has no {name}: ninja amalgam")
    check_parts(checks, folder)
    check_macros(checks, folder)
    with tempfile.TemporaryDirectory() as temp:
        check_again(checks, folder, temp)
        check_symbols(checks, check_alone(checks, folder, temp))
        check_faults(checks, temp)
    return checks.status()


if __name__ == "__main__":
    sys.exit(main())
