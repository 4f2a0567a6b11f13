#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks samples/profile.py.

    check_profile.py BUILD_DIR

Its reader is checked against a small file of callgrind's format whose sums are known; then it is
run on BUILD_DIR/samples/workload and replay, with few operations. What needs valgrind is skipped
where there is none; a perf with counters is a fake one.
"""

import contextlib
import importlib.util
import io
import json
import os
import shutil
import sys
import tempfile
from unittest import mock

from tools import Checks, run

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROFILE = os.path.join(ROOT, "samples", "profile.py")
TRACE = os.path.join(ROOT, "samples", "traces", "godot.hkt")
LARSON = ["larson", "--ops", "200000", "--handover", "1G"]

# Own cost: recipe 100 + 7 + 20 (a hit, inlined) = 127; cache 30 + 4 (size_class.h in it) = 34;
# slab 50 + 2 + 5 + 4 (types.h, in which a function of it begins) = 61; lock 5, inlined there;
# platform 11 and mmap with what that calls, 10 + 50; memset 40 for the cache. Not counted are the
# runner's 13 + 3, and the 6 of a memset that the recipe calls. The sum is 360.
SMALL = """# callgrind format
version: 1
creator: callgrind-3.19.0
cmd: workload larson: ops=5
part: 2
desc: I1 cache:
desc: Timerange: Basic block 1 - 2
desc: Trigger: --dump-before=workload_end

positions: line
events: Ir Dr D1mr
summary: 360 21 3

ob=(1) /src/build/release/samples/workload
fl=(1) /src/samples/workloads/recipes_replace.h
fn=(1) larson_turn
10 100 20 2
+2 7
fi=(2) /src/hakmem/hakmem.h
* 20 1
cfi=(3) /src/hakmem/alloc.c
cfn=(2) hk_alloc_slow
calls=3 40
-2 206
fe=(1)
cob=(2) /lib/libc.so.6
cfi=(4) ./string/memset.S
cfn=(3) memset
calls=1 1
11 6
cfi=(10) /src/samples/workloads/run.c
cfn=(9) workload_meet
calls=1 0
12 3

fl=(3)
fn=(2)
40 30
fi=(5) ./hakmem/size_class.h
7 4
fe=(3)
cfi=(6) /src/hakmem/slab.c
cfn=(4) hk_slab_take
calls=2 20
+1 66
cob=(2)
cfi=(4)
cfn=(3)
calls=1 1
+0 40
cfi=(7) /src/platform/posix.c
cfn=(5) posix_map
calls=1 50
+3 71

fl=(6)
fn=(4)
20 50 0 1
fi=(8) /src/hakmem/lock.h
33 5
fe=(6)
+1 2
jump=2 3
20

fl=(9) /src/hakmem/types.h
fn=(6) take_word'2
5 4
fi=(6)
90 5

fl=(7)
fn=(5)
50 11
cob=(2)
cfi=(11) ./misc/mmap.c
cfn=(7) mmap
calls=1 0
51 60

fl=(10)
fn=(8) workload_look
1 13
fn=(9)
2 3

ob=(2)
fl=(4)
fn=(3)
1 46
fl=(11)
fn=(7)
2 10
cfn=(10) syscall
calls=1 0
3 50
fn=(10)
4 50
"""
CLASSES = {"recipe": 127, "cache": 34, "slab": 61, "lock": 5, "platform": 71, "other": 40}
RUNNER = 22

BROKEN = {
    "a sum that is not": SMALL.replace("summary: 360", "summary: 371"),
    "no sum": SMALL.replace("summary: 360 21 3\n", ""),
    "a name that stands for nothing": SMALL.replace("fe=(6)", "fe=(66)"),
    "a cost that is no number": SMALL.replace("\n20 50 0 1", "\n20 fifty 0 1"),
    "a line of no kind": SMALL.replace("jump=2 3", "hop=2 3"),
    "its end is missing": SMALL[: SMALL.index("\n2 10")],
}

WRONG = (
    [], ["--sweep", "larson"], ["no-such-workload"], ["no/such/trace.hkt"], ["--no-such", "larson"],
    ["larson", "--json"], ["larson", "--workers", "2"], ["larson", "--allocator=libc"],
    ["larson", "--no-such"], ["larson", "--seconds", "1"], ["--allocator", "null", "larson"],
    ["--preload", "x.so", "larson"], ["--passes", "0", TRACE], [TRACE, "--threads"],
    ["--sweep", "--rounds", "0"], ["--sweep", "--allocator", "libc"], ["--rounds", "x", "--sweep"],
)

# Notes nothing: writes what perf stat would, more where the allocator is not null, and runs it.
PERF = """
import os, sys
words = sys.argv[1:]
out, command = words[words.index("-o") + 1], words[words.index("--") + 1:]
counts = [0] if {lame} else [100, 200, 10, 4] if "null" in command else [1100, 3200, 60, 24]
events = words[words.index("-e") + 1].split(",")
with open(out, "w") as file:
    file.write("# started on\\n\\n")
    for event, count in zip(events, counts * 4 if {lame} else counts):
        file.write(f"{{count or '<not supported>'}},,{{event}},1,100.00,,\\n")
os.execv(command[0], command)
"""


def load():
    """samples/profile.py as a module; by its path, as the standard library has one of that name."""
    sys.path.insert(0, os.path.dirname(PROFILE))
    spec = importlib.util.spec_from_file_location("hakmem_profile", PROFILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_reader(checks, profile):
    dump = profile.Dump(SMALL)
    good = checks.check
    good(dump.trigger == "--dump-before=workload_end", f"reader: trigger {dump.trigger}")
    program, slab = "/src/build/release/samples/workload", "/src/hakmem/slab.c"
    lock = dump.own[program, "hk_slab_take", slab, "/src/hakmem/lock.h"]
    good(lock["Ir"] == 5, f"reader: the lock's inlined line costs {lock}")
    back = dump.own[program, "hk_slab_take", slab, slab]
    good(back["Ir"] == 52 and back["D1mr"] == 1, f"reader: behind fe= the cost is {back}")
    recipe = "/src/samples/workloads/recipes_replace.h"
    hit = dump.own[program, "larson_turn", recipe, "/src/hakmem/hakmem.h"]
    good(hit["Ir"] == 20 and hit["Dr"] == 1, f"reader: a hit costs {hit}")
    call = dump.calls[(program, "larson_turn", recipe, "/src/hakmem/hakmem.h"),
                      (program, "hk_alloc_slow", "/src/hakmem/alloc.c")]
    good(call["calls"] == 3 and call["Ir"] == 206, f"reader: a call costs {call}")
    # without cfi= the callee is in the file at hand, without cob= in the function's object
    # neither the object nor the file is that of the call before
    call = dump.calls[(program, "larson_turn", recipe, recipe),
                      (program, "workload_meet", "/src/samples/workloads/run.c")]
    good(call["Ir"] == 3, f"reader: a callee without object: {call}")
    libc, file = "/lib/libc.so.6", "./misc/mmap.c"
    call = dump.calls[(libc, "mmap", file, file), (libc, "syscall", file)]
    good(call["Ir"] == 50, f"reader: a callee without file and object: {call}")
    for what, text in BROKEN.items():
        try:
            profile.Dump(text)
            checks.check(False, f"reader: takes a file with {what}")
        except profile.ProfileError:
            checks.check(True, "")


def check_classes(checks, profile):
    part = profile.Part()
    part.add(profile.Dump(SMALL))
    got = {name: cost["Ir"] for name, cost in part.costs.items()}
    for name, cost in CLASSES.items():
        checks.check(got.get(name) == cost, f"classes: {name} is {got.get(name)}, not {cost}")
    counted = part.counted()["Ir"]
    checks.check(counted == sum(CLASSES.values()), f"classes: {counted} are counted")
    checks.check(got["runner"] == RUNNER, f"classes: the runner's are {got['runner']}")
    checks.check(part.entries == 3, f"classes: {part.entries} calls into the library")
    part = profile.Part()
    part.add(profile.Dump(SMALL), libc=True)
    checks.check(part.entries == 3 + 1, f"classes: {part.entries} calls, one of them memset")
    checks.check(part.costs["other"]["Ir"] == 46, f"classes: {part.costs['other']} of it")
    low = profile.misses({"D1mr": 2, "D1mw": 3, "DLmr": 1})
    checks.check(low == 5, f"classes: {low} misses")
    for path, name in (
        ("/a/hakmem/superslab_trim.c", "superslab"), ("./hakmem/map.h", "superslab"),
        ("/a/hakmem/run.c", "superslab"), ("hakmem/kept.h", "superslab"),
        ("hakmem/memory.c", "platform"), ("/a/platform/posix.c", "platform"),
        ("/a/hakmem/types.h", "shared"), ("/a/samples/replay_loop.h", "recipe"),
        ("/a/samples/heap_null.h", "recipe"), ("/a/samples/workloads/on_null.c", "recipe"),
        ("/a/samples/replay_run.c", "runner"), ("/a/malloc/malloc.c", None), ("???", None),
    ):
        checks.check(profile.class_of(path) == name, f"classes: {path} is {profile.class_of(path)}")
    every = {os.path.splitext(name)[0] for name in os.listdir(os.path.join(ROOT, "hakmem"))
             if name.endswith(".c")}
    missing = every - set(profile.STAGE_OF) - {"size_class"}
    checks.check(not missing, f"classes: no stage has {sorted(missing)}")


def check_hardware(checks, profile, folder, build):
    """A perf without counters, and one with: 1000 cycles, 3000 instructions, 50 and 20 misses."""
    perf = os.path.join(folder, "perf")
    target = profile.Target(os.path.join(build, "samples", "replay"), (TRACE,), 1)
    path = os.environ["PATH"]
    os.environ["PATH"] = folder + os.pathsep + path
    try:
        for lame in (True, False):
            with open(perf, "w", encoding="utf-8") as out:
                out.write(f"#!{sys.executable} -SE\n{PERF.format(lame=lame)}")
            os.chmod(perf, 0o755)
            told = profile.hardware_of(target, "hakmem", None)
            checks.check(bool(told["why_not"]) == lame, f"perf: {told}")
        events = 214978
        checks.check(
            told["instructions_per_cycle"] == 3.0 and told["l1d_misses_per_op"] == 50 / events
            and told["branch_misses_per_op"] == 20 / events, f"perf: {told}"
        )
        os.environ["PATH"] = os.path.join(folder, "nothing")
        told = profile.hardware_of(target, "hakmem", None)
        checks.check("not installed" in told["why_not"], f"no perf: {told}")
    finally:
        os.environ["PATH"] = path


def check_clock(checks, profile, folder, build):
    """A clock that ticks once a call is made, and given to the program."""
    if not shutil.which(os.environ.get("CC", "cc")):
        checks.skip("the clock", "there is no compiler", True)
        return
    library = profile.quiet_clock(folder)
    if not checks.check(library and os.path.isfile(library), "clock: it is not made"):
        return
    code = "import time; now = time.clock_gettime_ns; print([now(1) for _ in range(3)])"
    out = checks.run("clock", [sys.executable, "-SE", "-c", code], env={"LD_PRELOAD": library})
    ticks = json.loads(out or "[0, 0, 0]")
    checks.check([at - ticks[0] for at in ticks] == [0, 1000, 2000], f"clock: it tells {ticks}")
    if not shutil.which("valgrind"):
        return
    target = profile.Target(os.path.join(build, "samples", "workload"), tuple(LARSON))
    with mock.patch.object(profile, "run", return_value={}) as program:
        profile.callgrind(target, "hakmem", "peer.so")
    given = program.call_args[1].get("LD_PRELOAD", "")
    checks.check(given.endswith("/clock.so:peer.so"), f"clock: preloaded is {given}")


def check_table(checks, profile):
    """The sweep's table, of figures that are made up."""
    told = {"per_second": 12.34e6, "instructions_per_op": 50.04, "peak_bytes": 3 * 2**20,
            "below_depot": {"share": 0.0321}, "cache": {"l1d_misses_per_op_above_null": 1.5}}
    table = [{"name": "larson", "slots": dict.fromkeys(profile.SWEEP_SLOTS, told)}]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        profile.print_sweep(table)
    lines = out.getvalue().splitlines()
    checks.check(len({line.count("|") for line in lines}) == 1, f"table: {lines}")
    for index, cell in enumerate(("12.3", "50.0", "3.2", "1500", "3.0")):
        checks.check(lines[2 + index].endswith(f" {cell} |"), f"table: {lines[2 + index]}")


class Program:
    """profile.py, and how its runs are checked."""

    def __init__(self, checks, build):
        self.checks = checks
        self.command = [sys.executable, PROFILE, "--build", build]

    def run(self, *arguments, **more):
        return run([*self.command, *arguments], cwd=ROOT, **more)

    def object(self, *arguments, **more):
        """The JSON of a run that must be well, {} where it is not."""
        done = self.run("--json", *arguments, **more)
        out = self.checks.output_of(" ".join(arguments), ["profile.py", *arguments], done)
        self.checks.check(not done.stderr, f"{arguments}: on stderr: {done.stderr[:200]!r}")
        try:
            return json.loads(out or "{}")
        except ValueError:
            self.checks.fail(f"{arguments}: no JSON: {out[:200]}")
            return {}

    def check_usage(self):
        for wrong in WRONG:
            if wrong == ["larson", "--no-such"] and not shutil.which("valgrind"):
                continue  # it is the workload that refuses, under valgrind
            done = self.run(*wrong)
            self.checks.check(done.returncode == 2, f"{wrong}: exit {done.returncode}")
            self.checks.check(not done.stdout and "profile.py" in done.stderr,
                              f"{wrong}: {done.stdout[:100]!r} {done.stderr[:300]!r}")
        done = self.run("--help")
        self.checks.check(done.returncode == 0 and done.stdout.startswith("usage: profile.py"),
                          f"--help: exit {done.returncode}: {done.stdout[:100]}")

    def check_failures(self, folder):
        """No valgrind, no program, no library, a trace that is none: told, exit code 1."""
        os.symlink(shutil.which("env"), os.path.join(folder, "env"))
        alone = dict(os.environ, PATH=folder)
        for arguments, word, more in (
            (LARSON, "no valgrind", {"env": alone}),
            (["--build", folder, *LARSON], "ninja", {}),
            (["--allocator", "libc", "--preload", "no/such.so", *LARSON], "no/such.so", {}),
            (["README.md"], "HKTRACE1", {}),
        ):
            if word == "HKTRACE1" and not shutil.which("valgrind"):
                continue
            done = self.run(*arguments, **more)
            self.checks.check(done.returncode == 1, f"{arguments}: exit {done.returncode}")
            self.checks.check(word in done.stderr, f"{arguments}: {done.stderr[:300]}")

    def check_sums(self, told, what):
        """The stages come to the whole, and what is below the depot to its part."""
        good = self.checks.check
        stages = {row["name"]: row for row in told.get("stages") or []}
        names = ["recipe", "hit path", "cache", "depot", "slab", "superslab", "large", "platform",
                 "lock", "other"]
        if not good(list(stages) == names, f"{what}: stages {list(stages)}"):
            return
        counts = {name: row["instructions"] for name, row in stages.items()}
        total = sum(counts.values())
        good(total == told["instructions"], f"{what}: {total} are not {told['instructions']}")
        good(told["own_instructions"] == total - counts["recipe"], f"{what}: hakmem's own")
        below = told["below_depot"]
        parts = sum(counts[name] for name in ("slab", "superslab", "large", "platform", "lock"))
        good(below["instructions"] == parts, f"{what}: below the depot {below}, not {parts}")
        good(abs(below["share"] - parts / total) < 1e-9, f"{what}: share {below}")
        good(below["under_limit"] == (below["share"] < 0.1), f"{what}: limit {below}")
        for name in ("recipe", "hit path", "cache", "slab", "superslab", "lock"):
            good(counts[name] > 0, f"{what}: nothing for {name}")
        cache = told["cache"]
        low = sum(row["l1d_misses_per_op"] for row in stages.values())
        good(abs(low - cache["l1d_misses_per_op"]) < 1e-6, f"{what}: L1d misses {low}, {cache}")
        rate = cache["l1d_misses_per_op"] / cache["accesses_per_op"]
        good(abs(rate - cache["l1d_miss_rate"]) < 1e-9, f"{what}: miss rate {cache}")

    def check_workload(self):
        noise = dict(os.environ, HK_NOISE="x" * 5000)  # does not reach the program
        told, again = self.object(*LARSON), self.object(*LARSON, env=noise)
        good = self.checks.check
        self.check_sums(told, "larson")
        if shutil.which(os.environ.get("CC", "cc")):
            good(told == again, "larson: two runs differ")
        good(told.get("ops") == 200000, f"larson: {told.get('ops')} operations")
        # a hit is some ten instructions each way; the thousand blocks of the filling are not in it
        good(20 < told.get("own_instructions_per_op", 0) < 100, f"larson: {told}")
        good(0.001 < told.get("calls_per_op", 0) < 0.3, f"larson: {told.get('calls_per_op')} calls")
        # neither the clock nor a checkpoint is in it
        good(told.get("runner_instructions", 9999) < 1000,
             f"larson: the runner's are {told.get('runner_instructions')}")
        for key in ("program", "arguments", "allocator", "passes", "instructions_per_op",
                    "own_instructions_per_op", "hardware"):
            good(key in told, f"larson: no {key} in the JSON")
        done = self.run(*LARSON)
        for line in ("hit path ", "superslab refill", "simulated L1d", "hardware"):
            good(f"\n{line}" in done.stdout, f"larson: no line {line!r}: {done.stdout}")

    def check_trace(self, folder, build):
        """The second pass needs less than the first, which gets all memory."""
        short = os.path.join(folder, "short.hkt")
        cut = os.path.join(build, "samples", "trace-cut")
        if self.checks.run("trace-cut", [cut, TRACE, short, "--events", "30000"]) is None:
            return
        first, later = self.object(short), self.object("--passes", "3", short)
        self.check_sums(first, "first pass")
        self.check_sums(later, "later passes")
        good = self.checks.check
        good(first.get("ops") == 30000 and later.get("ops") == 60000, "trace: events")
        good(later.get("passes") == 3, f"trace: passes {later.get('passes')}")
        each = [told["below_depot"]["per_op"] for told in (first, later) if told]
        good(len(each) == 2 and each[1] < each[0] / 1.2, f"trace: below the depot {each}")
        recipes = [told["stages"][0]["per_op"] for told in (first, later) if told]
        good(recipes[0] == recipes[1], f"trace: the recipe costs {recipes}")

    def check_libc(self):
        told = self.object("--allocator", "libc", *LARSON)
        good = self.checks.check
        good(told.get("stages") is None and told.get("below_depot") is None, "libc has stages")
        good(told.get("calls_per_op") == 2, f"libc: {told.get('calls_per_op')} calls an operation")
        good(30 < told.get("own_instructions_per_op", 0) < 1000, f"libc: {told}")


def main():
    if len(sys.argv) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    build = os.path.abspath(sys.argv[1])
    checks = Checks("profile")
    profile = load()
    check_reader(checks, profile)
    check_classes(checks, profile)
    check_table(checks, profile)
    program = Program(checks, build)
    program.check_usage()
    with tempfile.TemporaryDirectory() as folder:
        program.check_failures(folder)
        check_hardware(checks, profile, folder, build)
        check_clock(checks, profile, folder, build)
        if checks.has("valgrind", "profiles of real runs"):
            program.check_workload()
            program.check_trace(folder, build)
            program.check_libc()
    return checks.status()


if __name__ == "__main__":
    sys.exit(main())
