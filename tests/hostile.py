#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the samples where memory is short: limits of the process, and settings of the system.

Whatever the limit, a program either does its work, or ends with exit code 1 and a message that
names the cause. It never crashes, hangs or damages a block.

Limits are set for the child only. Two parts change settings of the whole machine for some
seconds, and are done only with --set-system (or HK_SET_SYSTEM=1 in the environment), by root:
vm.overcommit_memory=2, and transparent large pages for all. A guard process restores them when
this script ends, however it ends. Without that, mode 2 is simulated by those Criterion tests
whose platform refuses to commit, and large pages are skipped, loudly. With HK_REQUIRE_TOOLS=1
in the environment, a missing Criterion program is a failure. Linux only.

Exit code: 0: well, 1: a check failed, 2: usage.
"""

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MINETEST = os.path.join(ROOT, "samples", "traces", "minetest.hkt")
GODOT = os.path.join(ROOT, "samples", "traces", "godot.hkt")
MIB = 1 << 20
TIMEOUT = 120

RUNS = {
    "selfcheck": ["selfcheck"],
    "selfcheck, small ranges": ["selfcheck", "--address-space", str(32 * MIB)],
    "engine": ["engine", "--frames", "60"],
    "replay minetest": ["replay", MINETEST, "--verify"],
    "replay minetest, threads": ["replay", MINETEST, "--verify", "--threads"],
    "replay godot": ["replay", GODOT, "--verify"],
}
REPLAYS = tuple(name for name in RUNS if name.startswith("replay"))

# Limit, MiB, and the runs that must do their work all the same.
LIMITS = [
    ("RLIMIT_AS", 128, REPLAYS),
    ("RLIMIT_AS", 64, ()),
    ("RLIMIT_AS", 32, ()),
    ("RLIMIT_AS", 12, ()),
    ("RLIMIT_DATA", 128, tuple(name for name in RUNS if name != "engine")),
    ("RLIMIT_DATA", 64, tuple(name for name in RUNS if name != "engine")),
    ("RLIMIT_DATA", 32, ()),
    ("RLIMIT_DATA", 16, ()),
    ("RLIMIT_DATA", 4, ()),
    ("RLIMIT_STACK", 1 / 16, tuple(RUNS)),
]

CAUSE = re.compile(
    r"no address space|would not commit memory|refused a commit|not enough memory|no memory for|"
    r"found no memory|cannot be started|a call of the platform for memory failed"
)
DAMAGE = re.compile(
    r"checks failed|changed by someone else|did not keep|is not zero|not aligned|invariant|"
    r"(double free|foreign pointer|interior pointer|leak): |"
    r"failed: (damaged|hk_arena_check)|statistics say"
)

# Mode 2 simulated: commits that are refused, once, for good, and while threads are at it.
SIMULATION = "@(faults/all_fails_*|host/*|posix/*mode*)"

OVERCOMMIT = "/proc/sys/vm/overcommit_memory"
KBYTES = "/proc/sys/vm/overcommit_kbytes"
RATIO = "/proc/sys/vm/overcommit_ratio"
LARGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"

# Writes what it is told when its input ends, be it that the script that holds the other end
# was killed. In its own session, so that what kills a process group does not reach it.
GUARD = """
import sys
files = [(open(sys.argv[i], "w"), sys.argv[i + 1]) for i in range(1, len(sys.argv), 2)]
print("ready", flush=True)
sys.stdin.read()
for file, text in files:
    file.write(text)
    file.flush()
"""


class Checks:
    """Counts checks; a failed one is told."""

    def __init__(self, samples):
        self.samples = samples
        self.passed = 0
        self.failed = 0

    def check(self, good, text):
        print(("" if good else "FAILED: ") + text, flush=True)
        self.passed += bool(good)
        self.failed += not good

    def start(self, name, limit=None):
        """Return: exit code (None: it hangs), all its output."""
        arguments = RUNS[name]
        command = [os.path.join(self.samples, arguments[0]), *arguments[1:]]

        def set_limit():
            resource.setrlimit(getattr(resource, limit[0]), (int(limit[1] * MIB),) * 2)

        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=TIMEOUT, check=False,
                preexec_fn=set_limit if limit else None,
            )
        except subprocess.TimeoutExpired:
            return None, ""
        return done.returncode, done.stdout.decode("utf-8", "replace")

    def judge(self, where, name, code, output, must_work):
        told = f"{where}: {name}: "
        needs_cause = not name.startswith("selfcheck")  # it lists what failed, not why
        cause = CAUSE.search(output)
        damage = DAMAGE.search(output)
        if code is None:
            self.check(False, told + f"does not end within {TIMEOUT} s")
        elif code not in (0, 1):
            self.check(False, told + f"exit code {code}: {output[-300:]}")
        elif damage:
            line = next(line for line in output.splitlines() if DAMAGE.search(line))
            self.check(False, told + f"damage: {line}")
        elif code == 0:
            self.check(True, told + "works")
        elif must_work:
            self.check(False, told + f"should work: {output[-300:]}")
        elif cause or not needs_cause:
            self.check(True, told + f"ends: {cause.group() if cause else 'failed checks'}")
        else:
            self.check(False, told + f"ends without naming the cause: {output[-300:]}")


def check_limits(checks):
    for limit, mib, works in LIMITS:
        size = f"{mib} MiB" if mib >= 1 else f"{mib * 1024:g} KiB"
        for name in RUNS:
            code, output = checks.start(name, (limit, mib))
            checks.judge(f"{limit} {size}", name, code, output, name in works)


class System:
    """Settings of the machine, changed within a with statement."""

    def __init__(self, *restore):
        arguments = [text for pair in restore for text in pair]
        self.restore = restore
        self.guard = subprocess.Popen(
            [sys.executable, "-c", GUARD, *arguments], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, start_new_session=True,
        )
        if self.guard.stdout.readline() != b"ready\n":
            raise OSError("the guard process cannot write the settings")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.guard.stdin.close()
        self.guard.wait()
        self.guard.stdout.close()
        for path, text in self.restore:
            if text not in (read(path).strip(), chosen(path)):
                raise OSError(f"{path} is {read(path).strip()}, it was {text}")


def read(path):
    with open(path, encoding="ascii") as file:
        return file.read()


def chosen(path):
    """The word in brackets, or None."""
    found = re.search(r"\[(\w+)\]", read(path))
    return found and found.group(1)


def write(path, value):
    with open(path, "w", encoding="ascii") as file:
        file.write(str(value))


def meminfo(key):
    """In KiB."""
    return int(re.search(rf"^{key}: +(\d+) kB$", read("/proc/meminfo"), re.M).group(1))


def can_write(*paths):
    return all(os.path.exists(path) and os.access(path, os.W_OK) for path in paths)


def leave(kib):
    """Lets all processes together commit this much more than they have."""
    write(KBYTES, meminfo("Committed_AS") + kib - meminfo("SwapTotal"))


def check_overcommit(checks):
    """
    The kernel keeps up to 128 MiB of what is left from a process with much address space (see
    vm.user_reserve_kbytes), so that the arenas' share is that much less.
    """
    kbytes, ratio = read(KBYTES).strip(), read(RATIO).strip()
    restore = [(OVERCOMMIT, read(OVERCOMMIT).strip())]
    restore.append((KBYTES, kbytes) if kbytes != "0" else (RATIO, ratio))
    for mib in (4096, 160, 140, 135, 130):
        with System(*restore):
            leave(mib * 1024)
            write(OVERCOMMIT, 2)
            outcomes = [(name, *checks.start(name)) for name in RUNS]
        for name, code, output in outcomes:
            where = f"overcommit mode 2, {mib} MiB left"
            checks.judge(where, name, code, output, mib == 4096)


def simulate_overcommit(checks, criterion):
    if not criterion or not os.path.exists(criterion):
        print("SKIPPED overcommit mode 2: neither set (--set-system, as root) nor simulated"
              " (--criterion PROGRAM; apt package libcriterion-dev)")
        checks.failed += os.environ.get("HK_REQUIRE_TOOLS") == "1"
        return
    done = subprocess.run(
        [criterion, "--filter", SIMULATION], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL, timeout=4 * TIMEOUT, check=False,
    )
    output = done.stdout.decode("utf-8", "replace")
    found = re.search(r"Tested: \S*?(\d+)", re.sub("\x1b\\[[0-9;]*m", "", output))
    count = int(found.group(1)) if found else 0
    good = done.returncode == 0 and count > 0
    checks.check(good, f"overcommit mode 2, simulated: {count} tests" + ("" if good else output))


def peak(checks, trace):
    replay = os.path.join(checks.samples, "replay")
    done = subprocess.run([replay, trace, "--json"], stdout=subprocess.PIPE, timeout=TIMEOUT)
    return json.loads(done.stdout)["peak_bytes"] if done.returncode == 0 else None


def check_large_pages(checks):
    """The arenas' resident memory must not depend on large pages that nobody asked for."""
    peaks = {}
    with System((LARGE_PAGES, chosen(LARGE_PAGES))):
        for mode in ("madvise", "always"):
            write(LARGE_PAGES, mode)
            for trace in (MINETEST, GODOT):
                peaks[mode, trace] = peak(checks, trace)
    for trace in (MINETEST, GODOT):
        advised, always = peaks["madvise", trace], peaks["always", trace]
        good = advised and always and always <= advised + advised // 20
        name = os.path.basename(trace)
        checks.check(good, f"large pages for all: {name}: peak {always} bytes, else {advised}")


def stop(number, _):
    sys.exit(128 + number)


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("build", metavar="BUILD_DIR", help="has samples/selfcheck and so on")
    parser.add_argument(
        "--set-system", action="store_true", default=os.environ.get("HK_SET_SYSTEM") == "1",
        help="change settings of the machine, and restore them",
    )
    parser.add_argument("--criterion", metavar="PROGRAM", help="for what is simulated")
    return parser.parse_args(arguments)


def main(arguments):
    options = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, stop)
    checks = Checks(os.path.join(options.build, "samples"))
    for name in ("selfcheck", "engine", "replay"):
        if not os.path.exists(os.path.join(checks.samples, name)):
            print(f"hostile: {checks.samples} has no {name}", file=sys.stderr)
            return 2
    check_limits(checks)
    if options.set_system and can_write(OVERCOMMIT, KBYTES, RATIO):
        check_overcommit(checks)
    else:
        simulate_overcommit(checks, options.criterion)
    if options.set_system and can_write(LARGE_PAGES):
        check_large_pages(checks)
    else:
        why = "cannot be written" if options.set_system else "is not to be set (--set-system)"
        print(f"SKIPPED large pages for all: {LARGE_PAGES} {why}")
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
