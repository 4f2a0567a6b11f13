#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the bars count instead of timing it: instructions, simulated misses, metadata. For bars.py.

    Counts(folder, sides, seeds, step).below_depot(names, traces), .cache(...), .metadata(...)

@folder is a build's, with samples/ in it; @traces are {name: path}; step() is called after each
run. Each gives what stands in bars.json under its name; what failed has its reason there in "why".
None of it depends on the machine's speed, so nothing is done in rounds; of workloads, each seed.
"""

import glob
import os
import re
import shutil
import tempfile

import compare
import paired
import peers
import profile

# of a trace: instructions in the first pass, and in the two behind it
PASSES = (("first pass", 1), ("later passes", profile.SWEEP_PASSES))
CACHE_PASSES = 15  # of a trace, as for its speed
NULL = peers.Side("null", None, "--allocator null", allocator="null")


def misses_in(text):
    """Misses of L1d, loads and stores, in what cachegrind wrote."""
    lines = {key: re.search(rf"^{key}: (.*)$", text, re.M) for key in ("events", "summary")}
    if not all(lines.values()):
        raise profile.ProfileError("cachegrind's file: no events or no summary")
    cost = dict(zip(lines["events"][1].split(), map(int, lines["summary"][1].split())))
    if "D1mr" not in cost or "D1mw" not in cost:
        raise profile.ProfileError("cachegrind's file: no misses in it")
    return cost["D1mr"] + cost["D1mw"]


def cachegrind(side, program, arguments):
    """(misses of L1d in the whole run of a side, the JSON object that it printed)."""
    valgrind = shutil.which("valgrind")
    if not valgrind:
        raise profile.ProfileError("there is no valgrind; apt-get install valgrind"
                                   " (Debian, Ubuntu)")
    argv, _ = side.command(program, arguments)
    environment = dict(side.environment)
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out.")
        loaded = [profile.quiet_clock(folder), environment.pop("LD_PRELOAD", None)]
        sizes = [f"--{name}={size}" for name, size in profile.CACHES.items()]
        words = [valgrind, "-q", "--tool=cachegrind", "--cache-sim=yes", *sizes,
                 "--trace-children=yes", f"--cachegrind-out-file={out}%p", *argv]
        data = profile.run(words, LD_PRELOAD=":".join(filter(None, loaded)), LD_BIND_NOW="1",
                           PATH=os.environ.get("PATH"), **environment)
        counted = []
        for path in glob.glob(glob.escape(out) + "*"):
            with open(path, encoding="utf-8", errors="replace") as file:
                counted.append(misses_in(file.read()))
    if not counted:
        raise profile.ProfileError("cachegrind wrote nothing")
    return max(counted), data  # of a shell, and of what it started


class Counts:
    """Runs what is counted."""

    def __init__(self, folder, sides, seeds, step=lambda: None):
        self.folder, self.sides, self.seeds, self.step = folder, sides, seeds, step

    def seeded(self, name):
        return [[name, "--seed", str(seed)] for seed in self.seeds]

    def below_depot(self, names, traces):
        """Shares of instructions that are spent below the depot, of each seed."""
        jobs = [(name, self.seeded(name), None) for name in names]
        jobs += [(f"{name}, {part}", [[path]], passes) for name, path in traces.items()
                 for part, passes in PASSES]
        made = []
        for name, runs, passes in jobs:
            entry = {"name": name, "shares": [], "why": None}
            for words in runs:
                try:
                    entry["shares"].append(self.share_below(words, passes or 1))
                except (profile.ProfileError, ValueError) as why:
                    entry["why"] = str(why)
                self.step()
            made.append(entry)
        return made

    def share_below(self, words, passes):
        target = profile.target_of(self.folder, words, passes)
        told = profile.report(target, "hakmem", *profile.measure(target, "hakmem"))
        return told["below_depot"]["share"]

    def cache(self, names, traces):
        """Simulated misses of L1d an operation above no allocator, on each side."""
        made = []
        for name, runs in [*((name, self.seeded(name)) for name in names),
                           *((name, [[path]]) for name, path in traces.items())]:
            entry = {"name": name, "misses": {}, "why": {}}
            found = {side.name: [] for side in self.sides}
            for words in runs:
                self.cache_run(words, found, entry["why"])
            entry["misses"] = {name: paired.median(values) for name, values in found.items()
                               if len(values) == len(runs)}
            made.append(entry)
        return made

    def cache_run(self, words, found, failed):
        """One command line on no allocator and on all sides; adds to @found, or to @failed."""
        null = None
        for side in (NULL, *self.sides):
            try:
                target = profile.target_of(self.folder, words, CACHE_PASSES)
                more = ["--workers", "1"]
                if target.passes:
                    more = ["--repeat", str(target.passes)]
                misses, data = cachegrind(side, target.program,
                                          [*target.arguments, *more, "--json"])
                if side is NULL:
                    null = misses
                elif null is not None:
                    ops = data["events"] * target.passes if target.passes else data["ops"]
                    found[side.name].append((misses - null) / ops)
            except (profile.ProfileError, ValueError, LookupError) as why:
                failed[side.name] = str(why)
            self.step()

    def metadata(self, traces):
        """What an arena has for itself when most of a trace is live: the trace is cut there."""
        made = []
        for name, path in traces.items():
            entry = {"name": name, "why": None}
            try:
                entry.update(self.metadata_of(path))
            except (compare.RunError, LookupError) as why:
                entry["why"] = f"no {why}" if isinstance(why, LookupError) else str(why)
            self.step()
            made.append(entry)
        return made

    def metadata_of(self, path):
        with tempfile.TemporaryDirectory() as folder:
            cut = os.path.join(folder, "cut.hkt")
            events = self.run("replay", path, "--json")["live_bytes_events"]
            self.run("trace-cut", path, cut, "--events", str(events))
            data = self.run("replay", cut, "--json")
        return {"events": events, **{key: data[key] for key in (
            "live_bytes", "committed_bytes", "metadata_bytes")}}

    def run(self, name, *arguments):
        words = (os.path.join(self.folder, "samples", name), *arguments)
        return compare.Runner().run(peers.Side("", None, "", words, literal=True)).data

    def steps(self, below, cached, traces):
        """How often all three call step()."""
        runs = len(below) * len(self.seeds) + len(PASSES) * len(traces)
        return (runs + (len(cached) * len(self.seeds) + len(traces)) * (len(self.sides) + 1)
                + len(traces))
