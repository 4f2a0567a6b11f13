#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Where the time of a refill goes: instructions per operation, by the parts of the library.

    profile.py [options] WORKLOAD-OR-TRACE [the options of workload or replay...]
    profile.py [options] --sweep            a table in Markdown, by slots of a magazine

The program runs on one worker under valgrind's callgrind, in an empty environment and, where there
is a C compiler, with a clock that ticks once a call, so that counts repeat to the instruction.
(Not quite so of recipes that hand over to a thread of their own, as larson does: which of two
threads is first is up to the system. `larson --handover 1G` repeats.) The kernel is not counted.

Counted is the timed part: of a workload without filling and draining, of a trace the first pass,
or with --passes N the N - 1 after it. The benchmark's own clock, checkpoints and threads are left
out. The same part on no allocator is what the recipe costs; what the recipe costs more on hakmem
is the hit path, inlined into it. All else goes by the source file that an instruction is of,
inlined or not; files that serve all parts, as types.h, by the function that they are inlined into.

"Below the depot" is what is done once no magazine is to be had: slab, superslab, large, memory
and platform, locks. Caches (L1d 32 KiB, last level 8 MiB) are simulated, the same on any machine.
--allocator libc, with a peer by --preload, has only sums, without what it does at a thread's end.

Exit code: 0 well; 1 a run failed, or there is no valgrind; 2 usage.
"""

import argparse
import collections
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import typing

sys.dont_write_bytecode = True

import compare  # noqa: E402
import paired  # noqa: E402
import peers  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHES = {"I1": "32768,8,64", "D1": "32768,8,64", "LL": "8388608,16,64"}
LIMIT = 10  # % that what is below the depot should stay under

# name: its files in hakmem/, and what that is
STAGES = {
    "cache": ("cache alloc", "the miss's own dispatch"),
    "depot": ("depot stash stock stack stack_locked", "whole magazines"),
    "slab": ("slab slab_check", "blocks and bitmaps"),
    "superslab": ("superslab run kept superslab_kept superslab_trim superslab_warm map",
                  "runs of slabs"),
    "large": ("large", "blocks that are runs"),
    "platform": ("memory budget", "memory and platform, with the C library's part"),
    "lock": ("lock", "taken and given back"),
    "other": ("arena maintain oom report stats check version", "arena, report, memset and memcpy"),
}
BELOW = ("slab", "superslab", "large", "platform", "lock")
STAGE_OF = {file: name for name, (files, _) in STAGES.items() for file in files.split()}
SHARED, RECIPE, RUNNER = "shared", "recipe", "runner"  # classes of files beside the stages
RECIPE_FILE = re.compile(r"(recipes|cells|random|on_|heap_|replay_loop)")

SHARE_OF_OPS = 20  # of a workload's usual operations, one in so many; but of these:
FEWER = {"mesh": "--ops 250000", "large": "--ops 4000", "scratch": "--rounds 20 --writes 20000",
         "workers": "--rounds 20", "grow": "--rounds 1 --vectors 50 --alone-last 8M",
         "pairs": "--rounds 1 --bytes 64M", "pinned": "--rounds 10", "replay": "--passes 3",
         "frames": "--frames 150 --level-frames 50"}
# Of the program's options, those set here, and those by which its parts are others.
TAKEN = ("--allocator", "--workers", "--seconds", "--repeat", "--profile", "--verify", "--latency",
         "--slowdown", "--list", "--help", "--threads", "--marks", "--json")
CLOCK = """#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now)
{
    static long ticks;
    long at = __atomic_add_fetch(&ticks, 1, __ATOMIC_RELAXED);
    *now = (struct timespec){ 1 + at / 1000000, at % 1000000 * 1000 };
    return 0;
}
"""
EVENTS = ("cycles:u", "instructions:u", "L1-dcache-load-misses:u", "branch-misses:u")

SWEEP_SLOTS = (8, 16, 32, 64, 128)
SWEEP_PASSES, SWEEP_REPEAT = 3, "101"  # of a trace, for counts and for speed
SWEEP_ROWS = ("larson", "burst", "lifetime", "minetest.hkt", "godot.hkt")


class ProfileError(Exception):
    """A run that failed, or what it left cannot be read; says why."""


class Dump:
    """One of callgrind's files: own cost by place, inclusive cost and "calls" by (place, callee).

    A place is (object, function, the file in which that begins, the file of the instruction), a
    callee the first three; costs are Counters by the names of events.
    """

    def __init__(self, text):
        self.trigger, self.events, self.positions, self.declared = "", [], 1, None
        self.own = collections.defaultdict(collections.Counter)
        self.calls = collections.defaultdict(collections.Counter)
        self.names = {}  # (kind, "(12)"): what that is short for
        self.at = {"ob": "", "fn": "", "home": "", "file": ""}
        self.callee = {}
        lines = iter(text.splitlines())
        for line in lines:
            try:
                self.take(line, lines)
            except (ValueError, LookupError) as why:
                raise ProfileError(f"callgrind's file: not understood: {line[:80]}") from why
        total = sum(self.own.values(), collections.Counter())
        if self.declared is None or [total[event] for event in self.events] != self.declared:
            raise ProfileError("callgrind's file: its costs do not come to the sum that it gives")

    def take(self, line, lines):
        if not line or line[0] == "#":
            return
        if line[0] in "0123456789+-*":
            self.own[tuple(self.at.values())].update(self.cost(line))
            return
        key, sign, value = re.match(r"(\w*)([:=]?) *(.*)", line).groups()
        if key == "events":
            self.events = value.split()
        elif key == "positions":
            self.positions = len(value.split())
        elif key in ("summary", "totals"):
            numbers = [int(number) for number in value.split()]
            self.declared = numbers + [0] * (len(self.events) - len(numbers))
        elif sign == ":":
            if value.startswith("Trigger: "):
                self.trigger = value.partition(": ")[2]
        elif key in ("fl", "fi", "fe"):  # a function's file; an inlined one; back again
            self.at["file"] = self.name("file", value)
        elif key == "fn":
            self.at.update(fn=self.name("fn", value), home=self.at["file"])
        elif key == "ob":
            self.at["ob"] = self.name("ob", value)
        elif key in ("cob", "cfi", "cfl", "cfn"):
            kind = key[1:] if key in ("cob", "cfn") else "file"
            self.callee[kind] = self.name(kind, value)
        elif key == "calls":  # the next line is where from, and what all of it cost
            callee = tuple(self.callee.get(kind, self.at[kind]) for kind in ("ob", "fn", "file"))
            self.callee = {}
            cost = self.cost(next(lines, ""))
            cost["calls"] = int(value.split()[0])
            self.calls[tuple(self.at.values()), callee].update(cost)
        elif key not in ("jump", "jcnd"):  # the line behind these has no cost
            raise ValueError(key)

    def name(self, kind, value):
        """What "(12) name", and "(12)" from then on, stands for."""
        short, name = re.fullmatch(r"(\(\d+\))? ?(.*)", value).groups()
        if short and name:
            self.names[kind, short] = name
        return self.names[kind, short] if short else name

    def cost(self, line):
        numbers = line.split()[self.positions :]  # zeros at the end may be missing
        return collections.Counter(dict(zip(self.events, map(int, numbers))))


def class_of(path):
    """Whose a file is: a stage, or SHARED, RECIPE, RUNNER; None: not of this project."""
    folder, name = ("/" + path).split("/")[-2:]
    if folder == "hakmem":
        return STAGE_OF.get(name.partition(".")[0], SHARED)
    if folder in ("samples", "workloads"):
        return RECIPE if RECIPE_FILE.match(name) else RUNNER
    return "platform" if folder == "platform" else None


def homes_of(dump):
    """{function: class}: of the file that it begins in, or where that is SHARED, of the first
    other: it may begin with instructions that are inlined from a header."""
    homes = {}
    for place in dump.own:
        for path in place[2:]:
            if homes.get(place[:3]) in (None, SHARED):
                homes[place[:3]] = class_of(path) or homes.get(place[:3])
    return homes


def class_at(place, homes):
    """The class of an instruction. In a recipe's function all is the recipe's: hits, too."""
    home = homes.get(place[:3]) or class_of(place[2]) or RUNNER
    if home in (RECIPE, RUNNER):
        return home
    return next((name for name in (class_of(place[-1]), home) if name in STAGES), "other")


class Part:
    """Costs by class; @entries: calls from the recipe into the allocator."""

    def __init__(self):
        self.costs = collections.defaultdict(collections.Counter)
        self.entries = 0

    def add(self, dump, libc=False):
        """Adds a Dump. With @libc the allocator is whatever the recipe calls outside."""
        homes = homes_of(dump)
        for place, cost in dump.own.items():
            self.costs[class_at(place, homes)].update(cost)
        for (caller, callee), cost in dump.calls.items():
            owner, called = class_at(caller, homes), class_at(callee, homes)
            outside = not homes.get(callee) and not class_of(callee[2])
            if outside or callee[1] == "os_malloc_aligned":  # the runner's, but it allocates
                if owner in STAGES:  # memset, mmap, and what they call
                    owner = "platform" if owner == "platform" else "other"
                elif owner == RECIPE and libc:
                    owner = "other"
                    self.entries += cost["calls"]
                else:
                    continue
                inclusive = {event: cost[event] for event in dump.events}
                self.costs[owner].update(inclusive)
                self.costs[RUNNER].subtract(inclusive)
            elif owner == RECIPE and called in STAGES:
                self.entries += cost["calls"]

    def counted(self):
        """All but the runner's."""
        costs = (cost for name, cost in self.costs.items() if name != RUNNER)
        return sum(costs, collections.Counter())


class Target(typing.NamedTuple):
    """A program and its arguments; @passes: of a trace, None for a workload."""

    program: str
    arguments: tuple
    passes: typing.Optional[int] = None

    def command(self, allocator):
        more = ("--repeat", str(self.passes)) if self.passes else ("--workers", "1")
        return [self.program, *self.arguments, *more, "--allocator", allocator, "--json"]


def quiet_clock(folder):
    """A library whose clock ticks once a call; None where there is no compiler to make it."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    library = os.path.join(folder, "clock.so")
    words = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", library]
    done = compiler and subprocess.run(words, input=CLOCK, text=True, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL, check=False)
    return library if done and done.returncode == 0 else None


def run(words, **environment):
    """The JSON object that a command prints; ProfileError where it fails."""
    argv = [shutil.which("env") or "env", "-i"]
    argv += [f"{name}={value}" for name, value in environment.items() if value]
    try:
        return compare.Runner().run(peers.Side("", None, "", (*argv, *words), literal=True)).data
    except compare.RunError as why:
        raise ProfileError(f"{os.path.basename(words[0])}: {why}") from why


def callgrind(target, allocator, preload=None):
    """Runs a target under callgrind: (Dumps in order, its JSON object)."""
    valgrind = shutil.which("valgrind")
    if not valgrind:
        raise ProfileError("there is no valgrind; apt-get install valgrind (Debian, Ubuntu)")
    cuts = ["--dump-before=os_now_ns"]
    if not target.passes:
        cuts = ["--dump-after=workload_start", "--dump-before=workload_end",
                "--toggle-collect=workload_look", "--toggle-collect=workload_last_checkpoint",
                "--collect-atstart=yes"]  # behind the toggles, which make it no
    cuts += ["--cache-sim=yes", *(f"--{name}={size}" for name, size in CACHES.items())]
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out")
        loaded = ":".join(filter(None, (quiet_clock(folder), preload)))
        words = [valgrind, "-q", "--tool=callgrind", f"--callgrind-out-file={out}",
                 "--dump-instr=no", *cuts, *target.command(allocator)]
        # bound at once, else the first call of each function has the loader's work
        data = run(words, LD_PRELOAD=loaded, LD_BIND_NOW="1")
        files = sorted(pathlib.Path(folder).glob("out.*"), key=lambda file: int(file.suffix[1:]))
        return [Dump(file.read_text("utf-8", "replace")) for file in files], data


def measure(target, allocator, preload=None):
    """(Part on the allocator, Part on none, operations) of the timed part."""
    dumps, data = callgrind(target, allocator, preload)
    if target.passes:  # os_now_ns() begins and ends each; between two, what is left is freed
        nothing, _ = callgrind(target, "null")
        pairs = list(zip(dumps[1::2], nothing[1::2]))
        complete = len(pairs) == target.passes
        pairs = pairs[1:] or pairs
    else:
        timed = [dump for dump in dumps if dump.trigger == "--dump-before=workload_end"]
        pairs, complete = [timed[:2]], len(timed) >= 2
    if not complete:
        raise ProfileError("the timed part was not found: has the program its symbols?")
    real, null = Part(), Part()
    for dump, nothing in pairs:
        real.add(dump, allocator == "libc")
        null.add(nothing)
    return real, null, data["events"] * len(pairs) if target.passes else data["ops"]


def misses(cost, level="D1"):
    return cost[f"{level}mr"] + cost[f"{level}mw"]


def cache_report(cost, null, ops):
    accesses = cost["Dr"] + cost["Dw"]
    return {
        "simulated": CACHES, "accesses_per_op": accesses / ops,
        "l1d_miss_rate": misses(cost) / accesses, "l1d_misses_per_op": misses(cost) / ops,
        "l1d_misses_per_op_above_null": (misses(cost) - misses(null)) / ops,
        "last_level_misses_per_op_above_null": (misses(cost, "DL") - misses(null, "DL")) / ops,
    }


def report(target, allocator, real, null, ops):
    """What --json prints, but for the hardware's counts."""
    hit, cost = collections.Counter(real.costs[RECIPE]), real.counted()
    hit.subtract(null.costs[RECIPE])
    stages = {"recipe": null.costs[RECIPE], "hit path": hit}
    stages.update((name, real.costs[name]) for name in STAGES)  # they come to all of @cost
    total, recipe = cost["Ir"], stages["recipe"]["Ir"]
    below = sum(stages[name]["Ir"] for name in BELOW)
    own = total - recipe
    told = {
        "program": os.path.basename(target.program), "arguments": list(target.arguments),
        "allocator": allocator, "passes": target.passes, "ops": ops, "instructions": total,
        "instructions_per_op": total / ops, "own_instructions": own,
        "own_instructions_per_op": own / ops,
        "runner_instructions": real.costs[RUNNER]["Ir"], "calls_per_op": real.entries / ops,
        "stages": None, "below_depot": None, "cache": cache_report(cost, null.counted(), ops),
    }
    if allocator == "hakmem":
        told["stages"] = [
            {"name": name, "instructions": part["Ir"], "per_op": part["Ir"] / ops,
             "share": part["Ir"] / total,
             "share_of_own": None if name == "recipe" else part["Ir"] / own,
             "l1d_misses_per_op": misses(part) / ops}
            for name, part in stages.items()
        ]
        told["below_depot"] = {"instructions": below, "per_op": below / ops, "share": below / total,
                               "share_of_own": below / own,
                               "under_limit": below / total * 100 < LIMIT}
    return told


def number(value, factor=100, digits=2):
    return "-" if value is None else f"{value * factor:.{digits}f}"


def print_stages(told):
    about = {"recipe": "the benchmark itself, on no allocator",
             "hit path": "inlined into it; touches the blocks"}
    about.update((name, text) for name, (_, text) in STAGES.items())
    line = "{:10}{:>14}{:>10}{:>10}{:>13}  {}"
    print(line.format("per event" if told["passes"] else "per op", "instructions", "% of all",
                      "% of own", "L1d, 1/1000", "").rstrip())
    for row in told["stages"]:
        print(line.format(row["name"], number(row["per_op"], 1, 3), number(row["share"]),
                          number(row["share_of_own"]), number(row["l1d_misses_per_op"], 1000),
                          about[row["name"]]))
    print(line.format("all", number(told["instructions_per_op"], 1, 3), "100.00", "", "", "")
          + f"hakmem's own: {told['own_instructions_per_op']:.3f}")
    below = told["below_depot"]
    print(f"superslab refill, all below the depot ({', '.join(BELOW)}):")
    for key, text in (("share", "of all instructions, the recipe's included"),
                      ("share_of_own", "of hakmem's own")):
        verdict = "under" if below[key] * 100 < LIMIT else "NOT under"
        print(f"  {number(below[key])} % {text}: {verdict} {LIMIT} %")
    print("  28.56 % of the processor in the report that the project starts from")
    print(f"calls that are no hits, in 1000: {number(told['calls_per_op'], 1000)}")


def print_report(told):
    passes = told["passes"]
    part = {None: "the timed part, without filling and draining", 1: "the first pass"}
    print(f"{' '.join([told['program'], *told['arguments']])} on {told['allocator']}, one worker: "
          f"{told['ops']:,} {'events' if passes else 'operations'}, "
          + part.get(passes, f"passes 2 to {passes}"))
    if told["stages"]:
        print_stages(told)
    else:
        print(f"instructions per operation: {told['instructions_per_op']:.3f}, the allocator's own "
              f"{told['own_instructions_per_op']:.3f}; its calls: {told['calls_per_op']:.2f}")
    cache, hardware = told["cache"], told["hardware"]
    print(f"simulated L1d: {number(cache['l1d_miss_rate'])} % of {cache['accesses_per_op']:.2f} "
          "accesses per operation miss (that report: 12.88, 14.12, 16.08 % with 32, 64, 128 "
          "slots)\n  misses per 1000 operations above no allocator: L1d "
          f"{number(cache['l1d_misses_per_op_above_null'], 1000)}, last level "
          f"{number(cache['last_level_misses_per_op_above_null'], 1000)}")
    ipc, low, branches, why = hardware.values()
    print(f"hardware counters: none: {why}" if why else
          f"hardware, above no allocator: {ipc:.2f} instructions per cycle; misses per 1000 "
          f"operations: L1d {number(low, 1000)}, branches {number(branches, 1000)}")


def perf_stat(perf, words, preload=None):
    """[count of each of EVENTS] of a run, and the JSON object that it printed."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "stat")
        data = run([perf, "stat", "-x", ",", "-e", ",".join(EVENTS), "-o", out, "--", *words],
                   LD_PRELOAD=preload)
        rows = [line.split(",") for line in pathlib.Path(out).read_text("utf-8").splitlines()]
    counts = {row[2]: int(row[0]) for row in rows if len(row) > 2 and row[0].isdecimal()}
    if not all(counts.get(event) for event in EVENTS):
        raise ProfileError("perf stat has none on this machine")
    return [counts[event] for event in EVENTS], data


def hardware_of(target, allocator, preload):
    """What the processor counted above no allocator: the whole program, less the same on null."""
    keys = "instructions_per_cycle", "l1d_misses_per_op", "branch_misses_per_op", "why_not"
    perf = shutil.which("perf")
    try:
        if not perf:
            raise ProfileError("perf is not installed")
        perf_stat(perf, [sys.executable, "-SE", "-c", "print({})"])
        real, data = perf_stat(perf, target.command(allocator), preload)
        null, _ = perf_stat(perf, target.command("null"))
    except ProfileError as why:
        return dict(zip(keys, (None, None, None, str(why))))
    cycles, instructions, low, branches = (count - less for count, less in zip(real, null))
    ops = data["events"] * target.passes if target.passes else data["ops"]
    return dict(zip(keys, (instructions / max(cycles, 1), low / ops, branches / ops, None)))


def build(slots, progress):
    """Builds the programs for magazines of so many slots; the folder in which samples/ is."""
    path = f"build/mag{slots}"
    progress.say(f"sweep: build {path}")
    programs = [f"{path}/release/samples/{name}" for name in ("workload", "replay")]
    for words in (
        (sys.executable, os.path.join(ROOT, "configure.py"), "--name", f"mag{slots}",
         f"--cflags=-DHK_MAGAZINE_SLOTS={slots}"),
        ("ninja", "-C", ROOT, "-f", f"{path}/build.ninja", *programs),
    ):
        try:
            compare.Runner().run(peers.Side("", None, "", words, literal=True))
        except compare.RunError as why:
            raise ProfileError(f"{' '.join(words)}: {why}") from why
    return os.path.join(ROOT, path, "release")


def wall_speeds(builds, words, rounds, progress):
    """{slots: median speed of a round}: all sizes in turn, there and back."""
    runner = compare.Runner(cpus=compare.choose_cpus([1])[0])
    program, key, more = "samples/workload", "ops_per_second", ()
    if words[0].endswith(".hkt"):
        program, key, more = "samples/replay", "events_per_second", ("--repeat", SWEEP_REPEAT)
    sides = [peers.Side(slots, None, "", (os.path.join(folder, program), *words, *more, "--json"),
                        literal=True) for slots, folder in builds.items()]
    speeds, failed = collections.defaultdict(list), {}
    for index in range(2 * rounds):
        for slots, done in compare.run_round(runner, sides, index, failed, progress).items():
            speeds[slots].append(compare.number_of(done, key))
        if failed:
            raise ProfileError("; ".join(f"{slots} slots: {why}" for slots, why in failed.items()))
    return {slots: math.exp(paired.median(compare.rounds_of(values, 2)))
            for slots, values in speeds.items()}


def sweep(options):
    """[{"name", "slots": {slots: figures}}]"""
    size = len(SWEEP_ROWS) * len(SWEEP_SLOTS)
    progress = compare.Progress("sweep", size * (2 * options.rounds + 1))
    table = []
    try:
        builds = {slots: build(slots, progress) for slots in SWEEP_SLOTS}
        for name in SWEEP_ROWS:
            words = [os.path.join(ROOT, "samples", "traces", name) if "." in name else name]
            speeds = wall_speeds(builds, words, options.rounds, progress)
            table.append({"name": name.partition(".")[0], "slots": {}})
            for slots, folder in builds.items():
                target = target_of(folder, words, SWEEP_PASSES)
                peak = run([target.program, *words, "--json"])["peak_bytes"]  # of one pass
                told = report(target, "hakmem", *measure(target, "hakmem"))
                told.update(per_second=speeds[slots], peak_bytes=peak)
                table[-1]["slots"][slots] = told
                progress.step()
    finally:
        progress.finish()
    return table


def print_sweep(table):
    print("| slots of a magazine | |" + "".join(f" {slots} |" for slots in SWEEP_SLOTS))
    print("|---|---|" + "---:|" * len(SWEEP_SLOTS))
    for row in table:
        name = row["name"]
        for text, part, key, factor, digits in (
            ("million operations/s", None, "per_second", 1e-6, 1),
            ("instructions an operation", None, "instructions_per_op", 1, 1),
            ("of them below the depot, %", "below_depot", "share", 100, 1),
            ("L1d misses in 1000, above none", "cache", "l1d_misses_per_op_above_null", 1000, 0),
            ("peak, MiB", None, "peak_bytes", 2**-20, 1),
        ):
            told = [row["slots"][slots] for slots in SWEEP_SLOTS]
            cells = (number((it[part] if part else it)[key], factor, digits) for it in told)
            print(f"| {name} | {text} |" + "".join(f" {cell} |" for cell in cells))
            name = ""


def target_of(folder, words, passes):
    """The Target of a command line; ValueError where it is none."""
    first, *more = words
    given = {word.partition("=")[0] for word in more}
    if given & set(TAKEN):
        raise ValueError(f"{min(given & set(TAKEN))} is no option behind {first}; "
                         "those of profile.py come before it")
    trace = os.path.isfile(first)
    program = os.path.join(folder, "samples", "replay" if trace else "workload")
    if not os.path.isfile(program):
        raise ProfileError(f"there is no {program}; ninja builds it, --build says where it is")
    if trace:
        return Target(program, (first, *more), passes)
    listed = run([program, "--list", "--json"]).get("workloads", [])
    usual = {entry["name"]: entry["ops"] for entry in listed}
    if first not in usual:
        raise ValueError(f"{first} is neither a workload nor a file")
    if "--ops" not in given:
        fewer = FEWER.get(first) or f"--ops {usual[first] // SHARE_OF_OPS}"
        more = fewer.split() + more  # what is told last holds
    return Target(program, (first, *more))


def library_of(name, program):
    """The path of what is to be preloaded, given as such or by a name that peers.py knows."""
    path = name
    if name in peers.PRELOADS:
        path = peers.find_library(name, peers.loader_cache())
    if not path or not os.path.isfile(path):
        raise ProfileError(f"there is no library {name}")
    path = os.path.abspath(path)
    peers.check_preload(peers.Side(name, None, "", environment=(("LD_PRELOAD", path),)), program)
    return path


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="profile.py", allow_abbrev=False, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="profile.py [options] WORKLOAD-OR-TRACE [the program's options...] | --sweep",
    )
    add = parser.add_argument
    add("words", nargs=argparse.REMAINDER, metavar="WORKLOAD-OR-TRACE ...",
        help="as for workload and replay; without --ops, a twentieth of the usual operations")
    add("--build", metavar="DIR", default=os.path.join(ROOT, "build", "release"),
        help="where samples/workload and samples/replay are (default: build/release)")
    add("--allocator", choices=("hakmem", "libc"), default="hakmem")
    add("--preload", metavar="LIB", help="with --allocator libc: a library, or a peer's name")
    add("--passes", type=int, default=1, metavar="N",
        help="of a trace: those after the first are counted (default: 1, the first is)")
    add("--sweep", action="store_true",
        help="a table, built into build/magN; of traces, the peak is of one pass, all else later")
    add("--rounds", type=int, default=5, metavar="N", help="of --sweep, for speed (default: 5)")
    add("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.sweep == bool(options.words) or (options.sweep and options.allocator != "hakmem"):
        parser.error("either a workload or a trace, or --sweep, which is of hakmem")
    if options.preload and options.allocator != "libc":
        parser.error("--preload goes with --allocator libc")
    if min(options.rounds, options.passes) < 1:
        parser.error("--rounds and --passes are numbers from 1")
    return parser, options


def profile(options):
    target = target_of(options.build, options.words, options.passes)
    preload = options.preload and library_of(options.preload, target.program)
    progress = compare.Progress("", 1)
    progress.say(f"{options.words[0]} under callgrind")
    try:
        parts = measure(target, options.allocator, preload)
    finally:
        progress.finish()
    told = report(target, options.allocator, *parts)
    return {**told, "hardware": hardware_of(target, options.allocator, preload)}


def main(arguments):
    parser, options = parse(arguments)
    try:
        told = sweep(options) if options.sweep else profile(options)
    except ValueError as why:
        parser.error(str(why))
    except (ProfileError, peers.PreloadError, compare.RunError) as why:
        print(f"profile.py: {why}", file=sys.stderr)
        return 2 if ": exit code 2: " in str(why) else 1  # the program's usage
    if options.json:
        print(json.dumps({"sweep": told} if options.sweep else told, indent=2))
    else:
        (print_sweep if options.sweep else print_report)(told)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
