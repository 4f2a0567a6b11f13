#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compiles what the README shows as C, and runs its complete programs.

    check_readme.py [--cc CC] README LIBRARY

Of the blocks marked ```c, one with a main() is a program: built against the static library with
warnings as errors, and run; it must exit 0. One with an #include stands alone and is compiled.
The rest are fragments, not looked at. At least one program is required.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile

FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-I."]


def blocks(path):
    """Yields (line number, text) of each C block."""
    with open(path, encoding="utf-8") as lines:
        start, inside = 0, None
        for number, line in enumerate(lines, 1):
            if inside is None and re.fullmatch(r"```c\s*", line):
                start, inside = number + 1, []
            elif inside is not None and line.startswith("```"):
                yield start, "".join(inside)
                inside = None
            elif inside is not None:
                inside.append(line)
        if inside is not None:
            sys.exit(f"{path}:{start - 1}: block without an end")


def main():
    parser = argparse.ArgumentParser(description="Compiles the README's C, runs its programs.")
    parser.add_argument("--cc", default="cc")
    parser.add_argument("readme")
    parser.add_argument("library")
    options = parser.parse_args()
    programs = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        source, program = os.path.join(folder, "block.c"), os.path.join(folder, "block")
        for line, text in blocks(options.readme):
            is_program = re.search(r"^int main\(", text, re.M)
            if not is_program and "#include" not in text:
                continue
            with open(source, "w", encoding="utf-8") as out:
                out.write(f'#line {line} "{options.readme}"\n{text}')
            command = options.cc.split() + FLAGS
            if is_program:
                programs += 1
                command += [source, options.library, "-pthread", "-o", program]
            else:
                command += ["-fsyntax-only", source]
            if subprocess.run(command, check=False).returncode:
                failed += 1
                continue
            if is_program:
                run = subprocess.run([program], check=False, timeout=60)
                if run.returncode:
                    print(f"{options.readme}:{line}: the program's exit code: {run.returncode}")
                    failed += 1
    if not programs:
        print(f"{options.readme}: no ```c block with a main()")
    return 1 if failed or not programs else 0


if __name__ == "__main__":
    sys.exit(main())
