#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Holds the binary interface against tests/abi.txt.

    check_abi.py [--cc CC] [--include DIR] [--write] LIBRARY...

Each LIBRARY, an ELF shared library or a DLL, must export the functions of the list and no other.
The public headers in DIR (default: the repository) must give the structs, fields, enumerators and
numbers that are listed. This part of the list is that of 64-bit Unix on x86-64, and is skipped
where CC compiles for another system. What differs is printed as a diff.

--write brings the list up to date, but takes no function from it.
"""

import argparse
import difflib
import os
import re
import sys
import tempfile

from tools import Checks

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIST = os.path.join(ROOT, "tests", "abi.txt")
HEADERS = [
    "hakmem/types.h",
    "hakmem/budget.h",
    "hakmem/maintain.h",
    "hakmem/hakmem.h",
    "platform/platform.h",
]
SKIPPED_NUMBERS = re.compile(r"HK_(VERSION.*|DEBUG)$")  # they differ from build to build

STRUCT = re.compile(r"^struct (\w+) \{\n(.*?)^\};", re.M | re.S)
FIELD = re.compile(r"(?:\(\*(\w+)\)\(.*\)|(\w+)(?:\[\w+\])?);$", re.M)
ENUM = re.compile(r"^enum \w+ \{\n(.*?)^\};", re.M | re.S)
NUMBER = re.compile(r"^#define (HK_\w+) -?\d+u?\s*$", re.M)


def exported_by(checks, library):
    """The functions that a library exports; None where there is no tool to tell."""
    if library.lower().endswith(".dll"):
        if not checks.has("objdump", f"exports of {library}"):
            return None
        output = checks.run(f"exports of {library}", ["objdump", "-p", library]) or ""
        table = output.partition("[Ordinal/Name Pointer] Table")[2].partition("\n\n")[0]
        return {line.split()[-1] for line in table.splitlines() if line.startswith("\t[")}
    if not checks.has("nm", f"exports of {library}"):
        return None
    command = ["nm", "-D", "-P", "--defined-only", library]
    output = checks.run(f"exports of {library}", command) or ""
    names = {line.split()[0].split("@")[0] for line in output.splitlines() if line}
    return {name for name in names if not name.startswith("_")}  # those of the tool chain


def layout_program():
    """A C program that prints the layout, as the list has it."""
    expressions = []
    for path in HEADERS:
        with open(os.path.join(ROOT, path), encoding="utf-8") as header:
            text = re.sub(r"[ \t]*/\*.*?\*/", "", header.read(), flags=re.S)
        for name, body in STRUCT.findall(text):
            expressions.append((f"struct {name}", f"sizeof(struct {name})"))
            for names in FIELD.findall(body):
                field = "".join(names)
                expressions.append(
                    (f"offset {name}.{field}", f"offsetof(struct {name}, {field})")
                )
        for body in ENUM.findall(text):
            for name in re.findall(r"^\t(HK_\w+)", body, re.M):
                expressions.append((f"number {name}", name))
        for name in NUMBER.findall(text):
            if not SKIPPED_NUMBERS.match(name):
                expressions.append((f"number {name}", name))
    prints = [f'\tprintf("{key} %ld\\n", (long)({value}));' for key, value in expressions]
    includes = ["hakmem/hakmem.h", "platform/platform.h", "stddef.h", "stdio.h"]
    lines = [f"#include <{name}>" for name in includes]
    return "\n".join([*lines, "int main(void)", "{", *prints, "\treturn 0;", "}", ""])


def layout(checks, compiler, include):
    """The lines of the layout; None where it cannot be had."""
    macros = checks.run("layout", [*compiler, "-E", "-dM", "-x", "c", "-"]) or ""
    if not all(f"#define {name} 1\n" in macros for name in ("__x86_64__", "__LP64__")):
        checks.skip("layout", f"the list is that of x86-64; {compiler[0]} compiles for another")
        return None
    with tempfile.TemporaryDirectory() as temp:
        program = os.path.join(temp, "layout")
        command = [*compiler, "-std=c11", "-I", include, "-x", "c", "-", "-o", program]
        if checks.run("layout", command, layout_program()) is None:
            return None
        output = checks.run("layout", [program])
    return output.splitlines() if output else None


def read_list():
    """The list: (its head, its functions, its layout)."""
    with open(LIST, encoding="utf-8") as text:
        lines = text.read().splitlines()
    head = [line for line in lines if line.startswith("#")]
    functions = [line for line in lines if re.fullmatch(r"\w+", line)]
    rest = [line for line in lines if re.fullmatch(r"(struct|offset|number) \S+ -?\d+", line)]
    unknown = set(lines) - set(head) - set(functions) - set(rest) - {""}
    if unknown:
        sys.exit(f"abi: tests/abi.txt: what is this: {sorted(unknown)[0]!r}")
    return head, functions, rest


def compare(checks, what, listed, found):
    """Prints what differs."""
    if not checks.check(listed == found, f"{what}: not as listed in tests/abi.txt:"):
        for line in list(difflib.unified_diff(listed, found, lineterm="", n=0))[2:]:
            if not line.startswith("@@"):
                print(f"    {line}", flush=True)


def main():
    """Returns the exit status: 0 all well, 1 not; wrong usage ends in 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cc", default="cc")
    parser.add_argument("--include", action="append", help="where the public headers are")
    parser.add_argument("--write", action="store_true", help="bring the list up to date")
    parser.add_argument("library", nargs="+")
    options = parser.parse_args()

    checks = Checks("abi")
    head, functions, rest = read_list()
    if options.write:
        for library in options.library:
            functions = sorted(set(functions) | (exported_by(checks, library) or set()))
        for include in options.include or [ROOT]:
            rest = layout(checks, options.cc.split(), include) or rest
        if not checks.failed:
            with open(LIST, "w", encoding="utf-8", newline="\n") as out:
                out.write("\n".join([*head, "", *functions, "", *rest, ""]))
        return checks.status()

    checks.check(functions == sorted(set(functions)), "the functions are not sorted")
    for library in options.library:
        found = exported_by(checks, library)
        if found is not None:
            compare(checks, library, functions, sorted(found))
    for include in options.include or [ROOT]:
        found = layout(checks, options.cc.split(), include)
        if found is not None:
            compare(checks, f"the headers in {include}", rest, found)
    return checks.status()


if __name__ == "__main__":
    sys.exit(main())
