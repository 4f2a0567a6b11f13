#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks what stands in the built libraries, by readelf and nm.

    check_library.py [--cc CC] BUILD_DIR

- No member of libhakmem.a has thread-local storage, a constructor or a writable global; nor has
  a shared library linked from it without the compiler's start files.
- Every global symbol, of the archive and exported, begins with hk_; what hakmem.h and platform.h
  declare HK_API is exported and nothing else is.
- Only the functions of ALLOWED are called: no stdio, no malloc, no environment, no exit.
- The shared library's soname carries the full version.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile

HEADERS = ["hakmem/hakmem.h", "hakmem/budget.h", "hakmem/maintain.h", "platform/platform.h"]

ALLOWED = set(
    # plain code that needs no state
    "memcpy memset memmove memcmp strlen "
    # platform/posix.c
    "mmap munmap mprotect madvise mremap sysconf syscall clock_gettime open read close "
    "sched_yield __errno_location "
    # what compilers and distributions put in by themselves
    "__memcpy_chk __memset_chk __memmove_chk __read_chk __open_2 __stack_chk_fail "
    "_GLOBAL_OFFSET_TABLE_ "
    # arithmetic from the compiler's own runtime
    "__popcountdi2 __popcountsi2 __ctzdi2 __clzdi2 __udivdi3 __umoddi3 __udivti3 __multi3 "
    "__aeabi_uidiv __aeabi_uidivmod __aeabi_idiv __aeabi_uldivmod ".split()
)

# Open in every shared library, from the compiler's start files.
START_FILES = {
    "__cxa_finalize",
    "__gmon_start__",
    "_ITM_deregisterTMCloneTable",
    "_ITM_registerTMCloneTable",
}

CONSTRUCTORS = re.compile(r"\.(init_array|fini_array|preinit_array|ctors|dtors|init|fini)\b")
# Written by the dynamic linker alone, then read-only.
RELOCATED = re.compile(r"\.(data\.rel\.ro.*|got|got\.plt|dynamic|relro_padding)$")


def output(*command):
    env = dict(os.environ, LC_ALL="C")
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=env, text=True
    ).stdout


def sections(path):
    """Yields (member, section, size, flags) of an archive or a library."""
    member = os.path.basename(path)
    # "[ 4] .bss NOBITS 0000 000040 000010 00 WA 0 0 32": address, offset, size, entry, flags
    row = re.compile(r"\s*\[ *\d+\] (\S+)\s+\S+\s+(?:[0-9a-f]+ ){2}([0-9a-f]+) [0-9a-f]+ +(\w*) ")
    for line in output("readelf", "-SW", path).splitlines():
        if line.startswith("File: "):
            member = line[6:]
        found = row.match(line)
        if found:
            yield member, found[1], int(found[2], 16), found[3]


def check_state(path, what):
    """Sections and symbols that mean state: returns faults."""
    faults = []
    count = 0
    for member, name, size, flags in sections(path):
        count += 1
        if "T" in flags:
            faults.append(f"{what}: {member}: thread-local storage in {name}")
        elif CONSTRUCTORS.match(name):
            faults.append(f"{what}: {member}: constructor or destructor in {name}")
        elif "W" in flags and size and not RELOCATED.match(name):
            faults.append(f"{what}: {member}: {size} writable bytes in {name}")
    if not count:
        faults.append(f"{what}: readelf shows no section")
    for line in output("readelf", "-sW", path).splitlines():
        words = line.split()
        if len(words) >= 8 and words[3] == "TLS":
            faults.append(f"{what}: thread-local symbol {words[7]}")
    return faults


def symbols(path, *options):
    """The names that nm lists, with their types."""
    found = set()
    for line in output("nm", "-P", *options, path).splitlines():
        words = line.split()
        if len(words) >= 2 and not line.endswith(":"):
            found.add((words[0].split("@")[0], words[1]))
    return found


def declared():
    """The functions that the public headers declare HK_API."""
    names = set()
    for path in HEADERS:
        with open(path, encoding="utf-8") as header:
            text = re.sub(r"/\*.*?\*/", "", header.read(), flags=re.S)
        names |= set(re.findall(r"^HK_API\b[^;{(]*?\b(hk_\w+)\(", text, re.M))
    return names


def check_symbols(archive, shared):
    faults = []
    everything = symbols(archive, "-g")
    own = {name for name, kind in everything if kind not in "Uwv"}
    for name, kind in sorted(everything):
        if name in own:
            if not name.startswith("hk_"):
                faults.append(f"libhakmem.a: global symbol {name} does not begin with hk_")
            if kind in "CBDGSu":
                faults.append(f"libhakmem.a: global variable {name} ({kind})")
        elif name not in ALLOWED:
            faults.append(f"libhakmem.a: calls {name}, which is not on the list")
    if not own:
        faults.append("libhakmem.a: no symbols")

    dynamic = symbols(shared, "-D")
    exported = {name for name, kind in dynamic if kind not in "Uwv"}
    for name in sorted({name for name, kind in dynamic if kind in "Uwv"}):
        if name not in ALLOWED | START_FILES:
            faults.append(f"libhakmem.so: calls {name}, which is not on the list")
    public = declared()
    for name in sorted(exported - public):
        faults.append(f"libhakmem.so: exports {name}, which no public header declares")
    for name in sorted(public - exported):
        faults.append(f"libhakmem.so: {name} is declared HK_API and not exported")
    return faults


def check_soname(shared):
    with open(HEADERS[0], encoding="utf-8") as header:
        version = ".".join(
            re.findall(r"^#define HK_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", header.read(), re.M)
        )
    found = re.search(r"\(SONAME\).*\[(.*)\]", output("readelf", "-dW", shared))
    soname = found[1] if found else "nothing"
    if soname != f"libhakmem.so.{version}":
        return [f"libhakmem.so: soname is {soname}, not libhakmem.so.{version}"]
    return []


def main():
    parser = argparse.ArgumentParser(description="Checks what stands in the built libraries.")
    parser.add_argument("--cc", default="cc")
    parser.add_argument("build_dir")
    options = parser.parse_args()
    archive = os.path.join(options.build_dir, "libhakmem.a")
    shared = os.path.join(options.build_dir, "libhakmem.so")

    faults = check_state(archive, "libhakmem.a")
    with tempfile.TemporaryDirectory() as folder:
        bare = os.path.join(folder, "libbare.so")
        output(
            *options.cc.split(), "-shared", "-nostartfiles", "-Wl,-z,now", "-o", bare,
            "-Wl,--whole-archive", archive, "-Wl,--no-whole-archive",
        )
        faults += check_state(bare, "linked without start files")
    faults += check_symbols(archive, shared)
    faults += check_soname(shared)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
