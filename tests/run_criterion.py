#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the Criterion program and looks at more than its exit code.

    run_criterion.py PROGRAM [ARGUMENT...]

Criterion runs each test in a process of its own, and a sanitizer that complains there (a leak
above all) does not make the test fail. So the sanitizers write into a folder next to the
program, and any file in it is a failure. The exception: what the first process leaks is
Criterion's own (some bytes for each test with a timeout), for it runs no test. Criterion's
summary is the last line.
"""

import os
import shutil
import subprocess
import sys


def main(program, arguments):
    program = os.path.abspath(program)
    logs = program + ".logs"
    shutil.rmtree(logs, ignore_errors=True)
    os.makedirs(logs)
    environment = dict(os.environ)
    # Tests that expect a trap or a fault must die of the signal, not of the sanitizer. The exit
    # code is Criterion's alone: what a sanitizer has to say stands in the logs.
    signals = ":handle_segv=0:handle_sigbus=0:handle_sigill=0"
    for name, more in (("ASAN", signals + ":exitcode=0"), ("UBSAN", "")):
        before = environment.get(f"{name}_OPTIONS", "")
        own = f"log_path='{logs}/{name.lower()}'{more}:print_stacktrace=1"
        environment[f"{name}_OPTIONS"] = f"{before}:{own}".lstrip(":")

    with subprocess.Popen(
        [program, *arguments], env=environment, stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, errors="replace",
    ) as run:
        summary = []
        for line in run.stdout:
            if "Synthesis:" in line:
                summary.append(line.rstrip())
            else:
                print(line, end="", flush=True)
    complaints = 0
    for name in sorted(os.listdir(logs)):
        with open(os.path.join(logs, name), encoding="utf-8", errors="replace") as log:
            text = log.read()
        if name.endswith(f".{run.pid}") and "LeakSanitizer" in text:
            continue
        complaints += 1
        if complaints <= 5:
            print(f"--- a sanitizer complained: {logs}/{name}")
            print(text[:4000])
    for line in summary:
        print(line)
    if not summary:
        print("the test program died before its summary")
    if run.returncode < 0:
        print(f"the test program died of signal {-run.returncode}")
    failed = run.returncode != 0 or not summary or " Tested: 0 " in summary[-1]
    return 1 if failed or complaints else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: run_criterion.py PROGRAM [ARGUMENT...]")
    sys.exit(main(sys.argv[1], sys.argv[2:]))
