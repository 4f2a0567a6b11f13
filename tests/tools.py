# SPDX-License-Identifier: MIT
"""What checks have in common that need compilers which not every machine has.

A check that cannot run says so on a line of its own and is not counted. With HK_REQUIRE_TOOLS=1
in the environment, the want of a tool is a failure.
"""

import concurrent.futures
import os
import re
import shutil
import subprocess

WARNINGS = "-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror".split()

PACKAGES = {
    "gcc": "gcc",
    "g++": "g++",
    "clang": "clang",
    "clang++": "clang",
    "nm": "binutils",
    "objdump": "binutils",
    "strace": "strace",
    "valgrind": "valgrind",
    "x86_64-w64-mingw32-gcc": "gcc-mingw-w64-x86-64",
    "x86_64-w64-mingw32-g++": "g++-mingw-w64-x86-64",
}

# "# 12 "file.h" 1 3": a line that the preprocessor leaves; 3 is for system headers.
MARKER = re.compile(r'# \d+ "(.*)"((?: \d)*)$')


class Checks:
    """Counts what was checked, and tells of what failed and of what could not be checked."""

    def __init__(self, name):
        self.name = name
        self.done = self.failed = 0
        self.skipped = {}

    def fail(self, text):
        self.failed += 1
        print(f"{self.name}: {text}", flush=True)

    def check(self, good, text):
        """Counts a check, and tells @text where it failed."""
        self.done += 1
        if not good:
            self.fail(text)
        return good

    def skip(self, what, why, is_tool=False):
        """Tells once what cannot be checked here, and whether for want of a tool."""
        line = f"SKIPPED {self.name}: {what}: {why}"
        if line not in self.skipped:
            self.skipped[line] = is_tool
            print(line, flush=True)

    def has(self, program, what):
        """Is there such a program? Where not, @what is skipped."""
        if shutil.which(program):
            return True
        self.skip(what, f"there is no {program}; apt-get install {PACKAGES[program]}", True)
        return False

    def run(self, what, command, text="", timeout=300, **more):
        """Runs a command that must succeed; returns its output, None where it failed."""
        return self.output_of(what, command, run(command, text, timeout, **more))

    def run_all(self, jobs):
        """Runs jobs, (what, command) or (what, command, input), on all processors, as run()."""
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            done = [pool.submit(run, *job[1:]) for job in jobs]
        return [self.output_of(*job[:2], future.result()) for job, future in zip(jobs, done)]

    def output_of(self, what, command, done):
        """Checks a command that has run; returns its output, None where it failed."""
        shown = " ".join(command)
        if self.check(done.returncode == 0, f"{what}: exit {done.returncode}: {shown}"):
            return done.stdout
        print((done.stderr or done.stdout)[:3000], flush=True)
        return None

    def status(self):
        """Prints the outcome and returns the exit status."""
        if any(self.skipped.values()) and os.environ.get("HK_REQUIRE_TOOLS") == "1":
            self.fail("HK_REQUIRE_TOOLS is set, and a tool is missing")
        skipped = f", {len(self.skipped)} SKIPPED" if self.skipped else ""
        print(f"{self.name}: {self.done} checked, {self.failed} failed{skipped}", flush=True)
        return 1 if self.failed or not self.done else 0


def run(command, text="", timeout=300, **more):
    """Runs a command with @text as its input; a timeout is exit code 124."""
    try:
        return subprocess.run(
            command, input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
            check=False, encoding="utf-8", errors="replace", **more,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"took more than {timeout} s\n")


def own_part(output):
    """Of what `cc -E -dD` prints: (files that are no system headers, macros that these leave)."""
    files, macros = set(), set()
    own = False
    for line in output.splitlines():
        marker = MARKER.match(line)
        if marker:
            own = "3" not in marker[2].split() and not marker[1].startswith("<")
            if own:
                files.add(marker[1])
        elif own and line.startswith("#define "):
            macros.add(re.match(r"#define (\w+)", line)[1])
        elif own and line.startswith("#undef "):
            macros.discard(line.split()[1])
    return files, macros
