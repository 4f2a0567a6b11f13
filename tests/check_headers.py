#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compiles every header by itself, and looks at the names that it brings.

    check_headers.py [AMALGAM_DIR]

- Public headers, that of the amalgam too, as C11, C17 and C++17, by gcc and clang, for Windows by
  mingw-w64, and as Microsoft's compiler would take them, by clang; internal headers as C11.
- A public header defines no macro that does not begin with HK_, and declares nothing at file
  scope (functions, types, tags, enumerators) that does not begin with hk_ or HK_.
"""

import argparse
import glob
import json
import os
import re
import sys

from tools import WARNINGS, Checks, own_part, run

PUBLIC = [
    "hakmem/hakmem.h",
    "hakmem/types.h",
    "hakmem/budget.h",
    "hakmem/maintain.h",
    "platform/platform.h",
]

C_STANDARDS = ["c11", "c17"]
CXX_STANDARDS = ["c++17"]
COMPILERS = [("gcc", "g++"), ("clang", "clang++")]
MINGW = ("x86_64-w64-mingw32-gcc", "x86_64-w64-mingw32-g++")
# The system's own headers are not there; those of the compiler will do. What only Microsoft's
# compiler understands is then no fault.
MSVC = ["-fms-extensions", "-fms-compatibility", "-ffreestanding", "-Wno-language-extension-token"]
MSVC_TARGETS = ["x86_64-pc-windows-msvc", "i686-pc-windows-msvc"]

TAGS = ("RecordDecl", "CXXRecordDecl", "EnumDecl")


def twice(header):
    """A program of nothing but the header; a second time, to see its guard."""
    return f"#include <{header}>\n" * 2


def compile_jobs(checks, headers, compilers):
    """One job for each (header, folder) and standard, by compilers for C and for C++."""
    jobs = []
    for compiler, language, standards in (
        (compilers[0], "c", C_STANDARDS), (compilers[1], "c++", CXX_STANDARDS)
    ):
        if not checks.has(compiler, f"headers by {compiler}"):
            continue
        for header, folder in headers:
            for standard in standards:
                what = f"{folder}/{header} as {standard} by {compiler}"
                command = [compiler, f"-std={standard}", *WARNINGS, "-I", folder, "-fsyntax-only"]
                jobs.append((what, [*command, "-x", language, "-"], twice(header)))
    return jobs


def microsoft_jobs(headers):
    jobs = []
    for target in MSVC_TARGETS:
        for header, folder in headers:
            for language, standard in (("c", "c11"), ("c++", "c++17")):
                what = f"{folder}/{header} as {standard} for {target}"
                command = ["clang", f"--target={target}", f"-std={standard}", *WARNINGS, *MSVC]
                command += ["-I", folder, "-fsyntax-only", "-x", language, "-"]
                jobs.append((what, command, twice(header)))
    return jobs


def check_macros(checks, header, folder, compiler, language):
    """Returns the system headers that the header includes."""
    what = f"{folder}/{header}: macros by {compiler}"
    command = [compiler, "-I", folder, "-E", "-dD", "-x", language, "-"]
    output = checks.run(what, command, f"#include <{header}>\n")
    files, macros = own_part(output or "")
    checks.check(any(name.startswith("HK_") for name in macros), f"{what}: none found")
    for name in sorted(macros):
        if not name.startswith("HK_"):
            checks.fail(f"{what}: defines {name}, which does not begin with HK_")
    system = []
    for path in sorted(files):
        if not os.path.isfile(path):
            continue  # standard input
        with open(path, encoding="utf-8") as text:
            for name in re.findall(r"^\s*#\s*include\s*<([^>]+)>", text.read(), re.M):
                if not os.path.isfile(os.path.join(folder, name)) and name not in system:
                    system.append(name)
    return system


def declared(node):
    """Yields (kind, name) of all that a node of clang's syntax tree declares at file scope."""
    for inner in node.get("inner", ()):
        kind = inner.get("kind", "")
        if kind == "LinkageSpecDecl":
            yield from declared(inner)
        elif kind.endswith("Decl"):
            if "name" in inner and not inner.get("isImplicit"):
                yield kind, inner["name"]
            if kind in TAGS:
                # In C, tags and enumerators within a struct have file scope as well.
                yield from (x for x in declared(inner) if x[0] in TAGS + ("EnumConstantDecl",))


def tree_of(includes, folder, language):
    """The names declared by a program of includes, by clang; None where it does not compile."""
    command = ["clang", "-I", folder, "-fsyntax-only", "-Xclang", "-ast-dump=json", "-x", language]
    done = run([*command, "-"], "".join(f"#include <{name}>\n" for name in includes))
    return set(declared(json.loads(done.stdout))) if done.returncode == 0 else None


def check_identifiers(checks, header, folder, language, system):
    what = f"{folder}/{header}: names in {language}"
    names = tree_of([header], folder, language)
    others = tree_of(system, folder, language)
    if not checks.check(names is not None and others is not None, f"{what}: clang fails"):
        return
    names -= others
    checks.check(any(name.startswith("hk_") for _, name in names), f"{what}: none found")
    for kind, name in sorted(names):
        if not name.startswith("HK_" if kind == "EnumConstantDecl" else "hk_"):
            checks.fail(f"{what}: declares {name} ({kind})")


def main():
    """Returns the exit status: 0 all well, 1 not; wrong usage ends in 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("amalgam_dir", nargs="?", help="where ninja amalgam wrote to")
    options = parser.parse_args()
    os.chdir(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    checks = Checks("headers")
    public = [(header, ".") for header in PUBLIC]
    if options.amalgam_dir:
        public.append(("hakmem.h", options.amalgam_dir))
    internal = sorted(set(glob.glob("hakmem/*.h") + glob.glob("platform/*.h")) - set(PUBLIC))

    jobs = []
    for compilers in COMPILERS + [MINGW]:
        jobs += compile_jobs(checks, public, compilers)
    for compiler, _ in COMPILERS:
        if not checks.has(compiler, f"internal headers by {compiler}"):
            continue
        for header in internal:
            command = [compiler, "-std=c11", *WARNINGS, "-I.", "-fsyntax-only", "-x", "c", "-"]
            jobs.append((f"{header} by {compiler}", command, twice(header)))
    clang = checks.has("clang", "headers as Microsoft's compiler takes them, names")
    if clang:
        jobs += microsoft_jobs(public)
    checks.run_all(jobs)

    for header, folder in public:
        for compilers in COMPILERS:
            for compiler, language in zip(compilers, ("c", "c++")):
                if not checks.has(compiler, f"macros by {compiler}"):
                    continue
                system = check_macros(checks, header, folder, compiler, language)
                if compiler.startswith("clang"):
                    check_identifiers(checks, header, folder, language, system)
    return checks.status()


if __name__ == "__main__":
    sys.exit(main())
