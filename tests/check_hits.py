#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Counts the instructions of the hits, as a host's compiler makes them.

    check_hits.py [--cc CC]

Callers of the inline functions are compiled with -O2 and disassembled (x86-64 only). Of all ways
through a caller that neither call nor jump to another function, which is what a miss does, the
longest is counted, with its return; none may have a locked instruction, a fence, a system call
or anything thread-local. The machine code is what counts: a bar that is missed here is missed.
"""

import argparse
import os
import platform
import re
import shlex
import sys
import tempfile

from tools import Checks

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

CALLERS = """
#include <hakmem/hakmem.h>
void *alloc_64(struct hk_cache *cache) { return hk_alloc(cache, 64); }
void *alloc_3000(struct hk_cache *cache) { return hk_alloc(cache, 3000); }
void *alloc_any(struct hk_cache *cache, size_t size) { return hk_alloc(cache, size); }
void free_any(struct hk_cache *cache, void *ptr) { hk_free(cache, ptr); }
void free_64(struct hk_cache *cache, void *ptr) { hk_free_sized(cache, ptr, 64); }
void free_3000(struct hk_cache *cache, void *ptr) { hk_free_sized(cache, ptr, 3000); }
"""

# Instructions of the longest hit, the return included.
BARS = {
    "alloc_64": 7, "alloc_3000": 7, "alloc_any": 13, "free_any": 14, "free_64": 12, "free_3000": 12,
}

FORBIDDEN = re.compile(
    r"\block\b|\b[lms]fence\b|\bsyscall\b|\bint\b|\bxchg\b|%[fg]s:|\bcpuid\b|\brdtsc"
)


def functions(text):
    """{name: [(address, instruction, whether it leaves the function)]} of objdump's text."""
    found, name = {}, ""
    for line in text.splitlines():
        head = re.match(r"^[0-9a-f]+ <(\w+)>:$", line)
        code = re.match(r"^\s*([0-9a-f]+):\s+(\S.*?)\s*$", line)
        if head:
            name = head[1]
            found[name] = []
        elif re.match(r"^\s+[0-9a-f]+: R_X86_64_", line):
            if found.get(name):
                address, instruction, _ = found[name][-1]
                found[name][-1] = (address, instruction, True)
        elif code and name:
            found[name].append((int(code[1], 16), code[2], False))
    return found


def hits(instructions):
    """All ways from the first instruction to a return within the function, as lists."""
    index = {address: number for number, (address, _, _) in enumerate(instructions)}
    ways, open_ways = [], [(0, [])]
    while open_ways:
        number, way = open_ways.pop()
        if number >= len(instructions) or number in way:
            raise ValueError("a way leads out of the function, or round in a circle")
        _, text, leaves = instructions[number]
        way = way + [number]
        word = text.split()[0]
        target = re.search(r"\s([0-9a-f]+) <", text)
        if word.startswith("ret"):
            ways.append([instructions[step][1] for step in way])
        elif word.startswith("j"):
            if not leaves and target and int(target[1], 16) in index:
                open_ways.append((index[int(target[1], 16)], way))
            elif not leaves:
                raise ValueError(f"where does this lead: {text}")
            if word != "jmp":
                open_ways.append((number + 1, way))
        elif not word.startswith("call"):
            open_ways.append((number + 1, way))
    return ways


def check_callers(checks, compiler, text):
    found = functions(text)
    for name, bar in BARS.items():
        what = f"{compiler}: {name}"
        try:
            ways = hits(found.get(name, []))
        except ValueError as error:
            checks.fail(f"{what}: {error}")
            continue
        if not checks.check(bool(ways), f"{what}: no way is a hit"):
            continue
        longest = max(ways, key=len)
        lines = "\n    ".join(longest)
        checks.check(len(longest) <= bar, f"{what}: {len(longest)}, not {bar}:\n    {lines}")
        for way in ways:
            for line in way:
                checks.check(not FORBIDDEN.search(line), f"{what}: {line}")
        print(f"{what}: {len(longest)} instructions")


def check_itself(checks):
    """It tells a hit from a miss, and sees what may not be there."""
    text = """
0000000000000000 <one>:
   0:\tmov    (%rdi),%rax
   3:\ttest   %rax,%rax
   6:\tje     c <one+0xc>
   8:\tlock incl (%rdi)
   b:\tret
   c:\tjmp    11 <one+0x11>
\t\t\td: R_X86_64_PLT32\thk_alloc_slow-0x4
"""
    ways = hits(functions(text)["one"])
    checks.check(ways == [["mov    (%rdi),%rax", "test   %rax,%rax", "je     c <one+0xc>",
                           "lock incl (%rdi)", "ret"]], f"the ways of a sample: {ways}")
    checks.check(bool(FORBIDDEN.search(ways[0][3])), "a locked instruction is not seen")
    for line in ("mfence", "mov    %fs:0x28,%rax", "syscall", "xchg   %rax,(%rdi)"):
        checks.check(bool(FORBIDDEN.search(line)), f"not seen: {line}")
    for line in ("mov    %rsi,(%rdx)", "lea    0x8(%rdx),%rcx", "ret"):
        checks.check(not FORBIDDEN.search(line), f"seen wrongly: {line}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cc", default="cc", help="the C compiler, with flags if need be")
    options = parser.parse_args()
    checks = Checks("hits")
    check_itself(checks)
    if platform.machine() not in ("x86_64", "AMD64"):
        checks.skip("bars", f"they are for x86-64, and this is {platform.machine()}")
        return checks.status()
    compilers = [options.cc] + [name for name in ("gcc", "clang") if name != options.cc]
    if not checks.has("objdump", "the hits' instructions"):
        return checks.status()
    with tempfile.TemporaryDirectory(prefix="hits-") as folder:
        source = os.path.join(folder, "callers.c")
        with open(source, "w", encoding="utf-8") as out:
            out.write(CALLERS)
        for number, compiler in enumerate(compilers):
            if not checks.has(shlex.split(compiler)[0], f"the hits by {compiler}"):
                continue
            made = os.path.join(folder, f"{number}.o")
            command = [*shlex.split(compiler), "-std=c11", "-O2", "-I", ROOT, "-c", source, "-o", made]
            if checks.run(f"callers by {compiler}", command) is None:
                continue
            text = checks.run("objdump", ["objdump", "-dr", "--no-show-raw-insn", made])
            check_callers(checks, compiler, text or "")
    return checks.status()


if __name__ == "__main__":
    sys.exit(main())
