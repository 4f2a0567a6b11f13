#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The frames of samples/engine, watched from outside: what happens within a frame?

    check_frames.py SAMPLES_DIR [--frames N]

Runs the engine under strace. Each worker's part of a frame lies between two calls of getrusage()
(`engine --faults`), so that whatever else its thread calls in between is seen. After memory was
made ready nothing may be: no system call and no page fault, from the first frame on, with four
workers. What is not traced is what the engine itself waits by between frames, sched_yield() and
nanosleep(), neither of which the library calls on Linux.

One thing may come between that is not the allocator's doing: a worker is taken off its processor
while it holds a lock, four of them being more than there may be processors, and one that wants it
parks, which is a futex. So a run with nothing but a few of these is done again, up to three times
in all: what the allocator does by itself it does each time.

A control run without memory made ready shows that calls and faults would be seen.
"""

import argparse
import collections
import json
import os
import re
import sys
import tempfile

from tools import Checks, run

MARK = "getrusage"
WORKERS = 4
UNTRACED = "!sched_yield,nanosleep,clock_nanosleep"
TIMEOUT = 600
RUNS = 3
FEW = 20  # futexes that may be a lock's holder off its processor
# "1234 call(..." or "1234 <... call resumed>": a thread and its call; the second is the same call.
CALL = re.compile(r"(\d+) +(?:(\w+)\(|<\.\.\. )")


def within_frames(lines):
    """Marks, and what lies between a thread's first and second, third and fourth mark."""
    marks, inside, found = 0, collections.defaultdict(bool), collections.Counter()
    for line in lines:
        match = CALL.match(line)
        if not match or not match.group(2):
            continue
        thread, call = match.groups()
        if call == MARK:
            inside[thread] = not inside[thread]
            marks += 1
        elif inside[thread]:
            found[call] += 1
    return marks, found


def watch(checks, engine, frames, *options):
    """What the engine says of itself, marks, and calls within frames; None: it cannot be run."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "calls")
        command = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", f"trace={UNTRACED}",
                   "-e", "signal=none", "-o", path, engine, "--frames", str(frames),
                   "--workers", str(WORKERS), "--faults", "--json", *options]
        done = run(command, timeout=TIMEOUT)
        if not checks.check(done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"):
            return None
        with open(path, encoding="utf-8", errors="replace") as file:
            marks, found = within_frames(file)
    return json.loads(done.stdout), marks, found


def is_parking(found):
    """Whether what was called may be a lock that was waited for, and no more."""
    return set(found) == {"futex"} and found["futex"] <= FEW


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samples", metavar="SAMPLES_DIR")
    parser.add_argument("--frames", type=int, default=10000, metavar="N", help="(10000)")
    options = parser.parse_args()
    checks = Checks("frames")
    engine = os.path.join(options.samples, "engine")
    if not sys.platform.startswith("linux"):
        checks.skip("system calls within frames", "strace is for Linux")
        return checks.status()
    if not checks.has("strace", "system calls within frames"):
        return checks.status()
    if run(["strace", "-f", "-qq", "-o", os.devnull, "true"]).returncode:
        checks.skip("system calls within frames", "strace may not trace here", True)
        return checks.status()
    for runs in range(1, RUNS + 1):
        seen = watch(checks, engine, options.frames)
        if not seen or not is_parking(seen[2]) or runs == RUNS:
            break
        print(f"frames: a lock was waited for, once more: {dict(seen[2])}")
    if seen:
        told, marks, found = seen
        checks.check(marks == 2 * WORKERS * options.frames, f"{marks} marks")
        checks.check(not found, f"system calls within {options.frames} frames: {dict(found)}")
        checks.check(told["page_faults"] == 0,
                     f"page faults within {options.frames} frames: {told['page_faults']}")
    seen = watch(checks, engine, 20, "--cold")
    if seen:
        told, _, found = seen
        checks.check(sum(found.values()) > 20, f"a cold engine's calls are seen: {dict(found)}")
        checks.check(told["page_faults"] > 1000,
                     f"a cold engine's page faults are seen: {told['page_faults']}")
    return checks.status()


if __name__ == "__main__":
    sys.exit(main())
