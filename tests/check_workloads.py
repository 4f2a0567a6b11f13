#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs every workload at a small size, each block verified, and looks at what it prints.

    check_workloads.py [--brief] SAMPLES_DIR [PREFIX...]

With 1, 2 and 8 workers on hakmem and on libc; then with --latency, and the numbers of --json. The
words of PREFIX are put before the program. Where it is built with ThreadSanitizer or
AddressSanitizer, what these find makes the exit code another; for such builds, which are slow,
--brief runs each workload on hakmem alone, with 2 workers, verified and timed.
"""

import json
import os
import sys

from tools import Checks, run

# What makes each small: the recipe's shape stays.
SMALL = {
    "larson": ["--ops", "60000"],
    "larson-wide": ["--ops", "60000"],
    "churn": ["--ops", "40000"],
    "burst": ["--ops", "60000"],
    "storm": ["--ops", "20000", "--blocks", "5000"],
    "lifetime": ["--ops", "60000"],
    "varsize": ["--ops", "4000"],
    "handoff": ["--ops", "140000"],
    "mesh": ["--ops", "60000"],
    "scratch": ["--rounds", "5", "--writes", "1000"],
    "workers": ["--rounds", "4"],
    "large": ["--ops", "20"],
    "grow": ["--rounds", "1", "--vectors", "100", "--last", "64K", "--alone-last", "4M"],
    "pairs": ["--rounds", "1", "--bytes", "8M"],
    "pinned": ["--rounds", "2", "--blocks", "3000"],
    "frames": ["--frames", "40", "--level-frames", "20", "--level-blocks", "100"],
    "replay": ["--passes", "1"],
}
WORKERS = (1, 2, 8)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PERCENTILES = ("p50_ns", "p99_ns", "p99_9_ns", "p99_99_ns", "max_ns")
STAGES = {"hit", "spare_swap", "depot_swap", "slab_batch", "new_slab", "new_superslab", "large",
          "platform_call"}


class Workloads:
    """The program, and how its runs are checked."""

    def __init__(self, checks, samples, prefix):
        self.checks = checks
        self.command = [*prefix, os.path.join(samples, "workload")]

    def object(self, *arguments):
        """The JSON of a run that must be well, {} where it is not."""
        command = [*self.command, *arguments, "--json"]
        out = self.checks.run(" ".join(arguments), command, cwd=ROOT)
        if out is None:
            return {}
        try:
            return json.loads(out)
        except ValueError:
            self.checks.fail(f"{arguments}: no JSON: {out[:200]}")
            return {}

    def check_listed(self):
        listed = [entry["name"] for entry in self.object("--list").get("workloads", [])]
        self.checks.check(listed == list(SMALL), f"--list names {listed}")

    def check_verified(self, name, allocator, workers):
        data = self.object(name, "--allocator", allocator, "--workers", str(workers), "--verify",
                           *SMALL[name])
        told = f"{name} on {allocator}, {workers} workers"
        for key in ("failed_allocations", "failed_checks"):
            self.checks.check(data.get(key) == 0, f"{told}: {key} is {data.get(key)}")
        self.checks.check(data.get("reports") in (0, None), f"{told}: {data.get('reports')}")
        self.check_numbers(data, told)

    def check_numbers(self, data, told):
        """What holds of every run's numbers."""
        good = self.checks.check
        good(data.get("ops", 0) > 0 and data.get("seconds", 0) > 0, f"{told}: it did something")
        rate = data.get("ops", 0) / (data.get("seconds") or 1)
        said = data.get("ops_per_second") or 0
        good(abs(said - rate) <= rate / 1000 + 1, f"{told}: ops a second: {said}, not {rate}")
        good((data.get("null_ops_per_second") or 0) > 0, f"{told}: the null allocator's speed")
        known = data.get("allocator") == "hakmem"
        for key in ("committed_bytes", "platform_calls", "counters"):
            good((data.get(key) is not None) == known, f"{told}: {key} is {data.get(key)}")
        for key in ("peak_bytes", "live_bytes", "resident_bytes", "page_faults"):
            value = data.get(key, "missing")
            good(value is None or (isinstance(value, int) and value >= 0), f"{told}: {key}: {value}")

    def check_memory(self, name):
        """32 checkpoints, in order; what is live is at most what is committed."""
        data = self.object(name, "--memory", *SMALL[name])
        points = data.get("checkpoints", [])
        good = self.checks.check
        good(len(points) == 32, f"{name} --memory: {len(points)} checkpoints")
        for key in ("ops", "seconds"):
            values = [point[key] for point in points]
            good(values == sorted(values), f"{name} --memory: {key} fall: {values}")
        good(points and points[-1]["ops"] <= data["ops"], f"{name}: the last is beyond the end")
        for point in points:
            good(point["committed_bytes"] > 0, f"{name}: nothing committed: {point}")
        # blocks under way between workers are not those of the null allocator's run
        if name not in ("handoff", "mesh", "workers", "scratch"):
            good(all(0 <= point["live_bytes"] <= point["committed_bytes"] for point in points),
                 f"{name}: live bytes beyond what is committed")

    def check_latency(self, name, allocator, *more):
        """Every call is counted once, and percentiles rise."""
        data = self.object(name, "--latency", "--allocator", allocator, *SMALL[name], *more)
        latency = data.get("latency", {})
        told, good = f"{name} --latency on {allocator}", self.checks.check
        for call in ("alloc", "free"):
            stages = latency.get(call, {})
            good(stages.get("all", {}).get("count", 0) > 0, f"{told}: no {call}")
            parts = sum(part["count"] for stage, part in stages.items() if stage != "all")
            whole = stages.get("all", {}).get("count")
            good(parts == (whole if allocator == "hakmem" else 0), f"{told}: {call}: {parts}")
            good(set(stages) <= STAGES | {"all"}, f"{told}: stages {sorted(stages)}")
            for stage, part in stages.items():
                values = [part[key] for key in PERCENTILES]
                good(values == sorted(values), f"{told}: {call} {stage}: {values}")
        good(("frame" in latency and latency["frame"] is not None) == (name == "frames"),
             f"{told}: frame")
        good(data.get("p50_ns", -1) >= 0 and latency.get("timer_ns", 0) > 0, f"{told}: a timer")

    def check_repeats(self):
        """The same seed does the same; another does not; counts are what was asked for."""
        one, same, other = (
            self.object("churn", "--ops", "50000", "--seed", seed)
            for seed in ("7", "7", "8")
        )
        good = self.checks.check
        good(one.get("ops") == 50000, f"churn --ops 50000 did {one.get('ops')}")
        counters = [it.get("counters", {}).get("slab_batch") for it in (one, same, other)]
        good(counters[0] == counters[1], f"the same seed, other counters: {counters}")
        good(one.get("live_bytes") == same.get("live_bytes"), "the same seed, other live bytes")
        good(one.get("live_bytes") != other.get("live_bytes"), "another seed, the same bytes")
        for workers in ("2", "3"):
            ops = self.object("larson", "--ops", "50001", "--workers", workers).get("ops")
            good(ops == 50001, f"larson on {workers} workers: {ops} of 50001")

    def check_profiles(self):
        data = self.object("larson", "--profile", "seed", "--ops", "30000")
        workers = [entry["workers"] for entry in data.get("runs", [])]
        self.checks.check(workers == [1, 2, 4], f"--profile seed runs {workers}")
        data = self.object("churn", "--profile", "full", "--ops", "30000")
        count = len(data.get("runs", []))
        self.checks.check(count == 5, f"--profile full: {count} runs")
        data = self.object("storm", "--profile", "soak", "--seconds", "1", "--blocks", "1000")
        points = len(data.get("checkpoints", []))
        self.checks.check(points == 32, f"--profile soak: {points} checkpoints")
        seconds = data.get("seconds", 0)
        # not a moment less, but for what sampling took
        self.checks.check(seconds > 0.9, f"--seconds 1 took {seconds}")

    def check_slowdown(self):
        """Time is wasted, nothing else: the operations are the same."""
        plain = self.object("churn", "--ops", "200000")
        slow = self.object("churn", "--ops", "200000", "--slowdown", "900")
        same = plain.get("counters", {}).get("slab_batch") == slow.get("counters", {}).get(
            "slab_batch"
        )
        self.checks.check(same, "--slowdown changes what is done")

    def check_large_pages(self):
        """They are asked for, once for the arena; without the option nothing is."""
        without, more = (
            self.object("churn", "--ops", "2000", *option).get("platform_calls", -1)
            for option in ((), ("--large-pages",))
        )
        self.checks.check(more == without + 1, f"--large-pages: {more} calls, {without} without")

    def check_failures(self):
        """No memory, no trace: told, exit code 1, nothing lost."""
        for arguments, words in (
            (["storm", "--limit", "1M", "--ops", "2000"], "allocations failed"),
            (["storm", "--limit", "1M", "--ops", "2000", "--verify"], "allocations failed"),
            (["larson", "--limit", "1"], "limit"),
            (["replay", "--trace", "/no/such/file"], "/no/such/file"),
            (["replay", "--trace", "README.md"], "HKTRACE1"),
        ):
            done = run([*self.command, *arguments], cwd=ROOT)
            self.checks.check(done.returncode == 1, f"{arguments}: exit {done.returncode}")
            self.checks.check(words in done.stderr, f"{arguments}: {done.stderr[:300]}")


def check_all(runs):
    runs.check_listed()
    for name in SMALL:
        for workers in WORKERS:
            for allocator in ("hakmem", "libc"):
                runs.check_verified(name, allocator, workers)
        runs.check_memory(name)
        for allocator in ("hakmem", "libc"):
            runs.check_latency(name, allocator)
    runs.check_repeats()
    runs.check_profiles()
    runs.check_slowdown()
    runs.check_large_pages()
    runs.check_failures()


def main():
    arguments = sys.argv[1:]
    brief = arguments[:1] == ["--brief"]
    arguments = arguments[brief:]
    if not arguments:
        sys.exit(__doc__.strip())
    checks = Checks("workloads")
    runs = Workloads(checks, arguments[0], arguments[1:])
    if not brief:
        check_all(runs)
    for name in SMALL if brief else ():
        runs.check_verified(name, "hakmem", 2)
        runs.check_latency(name, "hakmem", "--workers", "2")
    return checks.status()


if __name__ == "__main__":
    sys.exit(main())
