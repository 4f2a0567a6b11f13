#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The demo: a game engine's frames, then recorded programs on hakmem and on libc's malloc.

    demo.py SAMPLES_DIR TRACE...

Both allocators replay the same trace in turn, round by round, so that whatever else the machine
does hits both; the table shows medians. Exit code 1 when a program fails.
"""

import json
import os
import statistics
import subprocess
import sys

ROUNDS = 5
ALLOCATORS = ["hakmem", "libc"]
MIB = 1 << 20

# label, key of replay --json, divisor, digits
ROWS = [
    ("million events a second", "events_per_second", 1e6, 1),
    ("  in the first pass", "first_pass_events_per_second", 1e6, 1),
    ("peak memory, MiB", "peak_bytes", MIB, 1),
    ("page faults", "page_faults", 1, 0),
]


def call(command):
    """Runs a program and returns its JSON; ends the demo if it fails."""
    run = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False)
    if run.returncode:
        sys.exit(f"demo.py: exit code {run.returncode}: {' '.join(command)}")
    return json.loads(run.stdout)


def median(results, key):
    values = [result[key] for result in results]
    return None if None in values else statistics.median(values)


def number(value, divisor, digits):
    return "-" if value is None else f"{value / divisor:,.{digits}f}"


def compare(replay, trace, options):
    """Prints one trace's table."""
    results = {allocator: [] for allocator in ALLOCATORS}
    for _ in range(ROUNDS):
        for allocator in ALLOCATORS:
            command = [replay, "--json", "--allocator", allocator, *options, trace]
            results[allocator].append(call(command))
    events = results["hakmem"][0]["events"]
    name = os.path.splitext(os.path.basename(trace))[0]
    threads = "recorded threads" if "--threads" in options else "one thread"
    print(f"  {f'{name}: {events:,} events, {threads}':44}{'hakmem':>10}{'libc':>10}")
    for label, key, divisor, digits in ROWS:
        cells = [number(median(results[name], key), divisor, digits) for name in ALLOCATORS]
        print(f"    {label:42}{cells[0]:>10}{cells[1]:>10}")
    print(flush=True)


def main(folder, traces):
    engine, replay = os.path.join(folder, "engine"), os.path.join(folder, "replay")
    print("A game engine: one arena for each subsystem, one cache for each worker and arena\n")
    sys.stdout.flush()
    run = subprocess.run([engine], stdin=subprocess.DEVNULL, check=False)
    if run.returncode:
        sys.exit(f"demo.py: exit code {run.returncode}: {engine}")
    print("\nHeap calls of real programs, recorded and replayed: medians of"
          f" {ROUNDS} interleaved rounds\n", flush=True)
    for trace in traces:
        compare(replay, trace, ["--repeat", "20"])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: demo.py SAMPLES_DIR TRACE... (what `ninja demo` calls)")
    main(sys.argv[1], sys.argv[2:])
