#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The benchmark: all workloads and the bundled traces, hakmem against every allocator found.

    bench.py [options] SAMPLES_DIR OUT_DIR        what `ninja bench` calls

Writes OUT_DIR/results.json, results.csv and report.html, and prints a table. A round runs every
row on all sides, one after the other, and the next round backwards (A B C, C B A), each run a
process of its own. Rows with one worker are pinned to the last processor. There are at least 7
rounds, and more while 20 minutes last; with --quick 3 short ones in 3 minutes, which show what is
an order of magnitude apart and nothing else.

Then the time of single calls, which is never measured in the same run as throughput. --soak runs
frames and lifetime on hakmem for 10 minutes each and adds them to the results that are there.

The programs are this project's; a peer is preloaded into them (peers.py), or is whatever
--peer name=command says. Exit code: 0 well; 1 a run failed; 2 usage.
"""

import argparse
import dataclasses
import datetime
import json
import os
import re
import shutil
import sys
import time

sys.dont_write_bytecode = True

import bench_data  # noqa: E402
import bench_html  # noqa: E402
import bench_tables  # noqa: E402
import compare  # noqa: E402
import peers  # noqa: E402

ROUNDS = 7
ROUNDS_MOST = 31
SECONDS = 1200.0
QUICK_ROUNDS = 3
SOAK_SECONDS = 600
TRACES = ("minetest", "godot")


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: a workload, with what is added to its defaults; @quick stands in their place."""

    name: str
    workers: int = 1
    more: tuple = ()
    quick: tuple = ("--profile", "quick")
    label: str = ""

    def arguments(self, quick):
        more = self.quick if quick else self.more
        return [self.name, "--workers", str(self.workers), *more]


# What takes a second or less by its defaults runs by them, the rest is cut to that.
ROWS = (
    Row("larson"),
    Row("larson", 2),
    Row("larson-wide"),
    Row("churn"),
    Row("churn", 2),
    Row("burst"),
    Row("storm", more=("--ops", "2000000"), quick=("--ops", "400000", "--blocks", "30000")),
    Row("lifetime"),
    Row("varsize"),
    Row("handoff", 2, ("--ops", "8000000")),
    Row("mesh", 8),
    Row("scratch", 2, quick=("--rounds", "20")),
    Row("workers", 10, ("--rounds", "250"), ("--rounds", "30")),
    Row("large"),
    Row("grow", more=("--rounds", "1"), quick=("--rounds", "1", "--vectors", "100")),
    Row("pairs", more=("--rounds", "5"), quick=("--rounds", "1")),
    Row("pinned", quick=("--rounds", "10")),
    Row("frames", 2, quick=("--frames", "300")),
    Row("frames", 2, ("--no-reset",), ("--no-reset", "--frames", "300"), "frames, no reset"),
)

# Calls are timed one by one in these, so many operations of each.
LATENCY = (
    ("larson", 1, ()),
    ("churn", 1, ()),
    ("burst", 1, ()),
    ("varsize", 1, ()),
    ("handoff", 2, ()),
    ("frames", 2, ()),
)
LATENCY_OPS = 4000000
# And of the sample engine's frames.
ENGINE_WORKERS, ENGINE_FRAMES = 4, 10000

# Resident memory over time is shown of these.
MEMORY = ("storm", "lifetime", "varsize", "grow", "pairs", "pinned", "frames")
SOAK = (("frames", 2), ("lifetime", 1))

# Of the results, by the programs' names.
KEYS = {
    "workload": {"speed": "ops_per_second", "null_speed": "null_ops_per_second",
                 "peak_bytes": "peak_bytes", "fragmentation": "fragmentation"},
    "trace": {"speed": "events_per_second", "first_speed": "first_pass_events_per_second",
              "peak_bytes": "peak_bytes"},
}


def git(*words):
    return peers.output_of(["git", "-C", peers.ROOT, *words]).strip()


def commit():
    """The commit, with a plus behind where the tree differs; "unknown" outside a clone."""
    name = git("rev-parse", "--short=7", "HEAD")
    return name + ("+" if name and git("status", "--porcelain", "-uno") else "") or "unknown"


def compiler():
    """(the compiler's name and version, the release flags), as build.ninja has them."""
    with open(os.path.join(peers.ROOT, "build.ninja"), encoding="utf-8") as lines:
        text = lines.read()
    name = re.search(r"^cc = (.*)$", text, re.M)[1]
    flags = re.search(r"^release_cflags = (.*)$", text, re.M)[1]
    return peers.output_of([*name.split(), "--version"]).partition("\n")[0] or name, flags


def trace_path(name):
    """Where a bundled trace is, from here."""
    return os.path.relpath(os.path.join(peers.ROOT, "samples", "traces", name + ".hkt"))


def shown_path(path):
    """A trace's path as in this repository, or where it is not of it, as it was given."""
    inside = os.path.relpath(path, peers.ROOT)
    return path if inside.startswith(os.pardir) else inside


class Bench:
    """Runs rows and keeps what they measured.

    Of several @seeds, each round of a workload has the next; @traces are more of them, by name.
    """

    title = "bench"

    def __init__(self, options, sides, samples, seeds=(), traces=None):
        self.options = options
        self.seeds = seeds
        self.sides = sides
        self.workload = os.path.join(samples, "workload")
        self.replay = os.path.join(samples, "replay")
        self.engine = os.path.join(samples, "engine")
        self.failed = {}  # (row's label, side): why
        self.rows = []
        self.memory = {}
        self.progress = None
        for row in ROWS:
            if not options.only or row.name in options.only:
                self.rows.append(self.workload_row(row))
        bundled = {name: trace_path(name) for name in TRACES}
        for name, path in {**bundled, **(traces or {})}.items():
            if not options.only or name in options.only:
                self.rows.append(self.trace_row(name, path))

    def workload_row(self, row):
        arguments = row.arguments(self.options.quick)
        seeds = [["--seed", str(seed)] for seed in self.seeds] or [[]]
        return {
            "name": row.label or row.name, "kind": "workload", "workers": row.workers,
            "unit": "operations", "command": "workload " + " ".join(arguments), "sides": {},
            "runners": [self.runner(self.workload, [*arguments, *seed, "--memory", "--json"],
                                    row.workers) for seed in seeds],
        }

    def trace_row(self, name, path):
        passes = "3" if self.options.quick else "15"
        return {
            "name": name, "kind": "trace", "workers": 1, "unit": "events",
            "command": f"replay {shown_path(path)} --repeat {passes}", "sides": {},
            "runners": [self.runner(self.replay, [path, "--repeat", passes, "--json"], 1)],
            # the peak of one pass: what a program needs that runs once
            "single": self.runner(self.replay, [path, "--json"], 1),
        }

    def runner(self, program, arguments, workers):
        cpus, _ = compare.choose_cpus([workers])
        return compare.Runner(program, arguments, self.options.timeout, cpus)

    def run(self):
        """All rounds; returns how many."""
        options = self.options
        begin = time.monotonic()
        runs = len(self.rows) * len(self.sides)
        self.progress = compare.Progress(self.title, runs * (options.rounds or ROUNDS))
        number = 0
        while not self.enough(number, begin):
            for row in self.rows:
                self.run_row(row, number)
            number += 1
            if not options.rounds and number >= ROUNDS:
                self.progress.total = max(self.progress.total, self.progress.done + runs)
        self.progress.finish()
        return number

    def enough(self, number, begin):
        """Is there no time for another round?"""
        if self.options.rounds:
            return number >= self.options.rounds
        took = time.monotonic() - begin
        return number >= ROUNDS and (
            number >= ROUNDS_MOST or took + took / number > self.options.seconds
        )

    def left_out(self, row):
        """Names of sides that need not be run on a row any more."""
        return ()

    def run_row(self, row, number):
        left_out = self.left_out(row)
        failed = {side: why for (name, side), why in self.failed.items() if name == row["name"]}
        failed.update(dict.fromkeys(left_out, ""))
        runner = row["runners"][number % len(row["runners"])]
        found = compare.run_round(runner, self.sides, number, failed, self.progress)
        single = {}
        if "single" in row:
            single = compare.run_round(row["single"], self.sides, number, failed)
        for side, why in failed.items():
            if side not in left_out:
                self.failed[row["name"], side] = why
        for side in [side.name for side in self.sides]:
            data = dict(found[side].data) if side in found else {}
            if "single" in row:
                data["peak_bytes"] = single[side].data["peak_bytes"] if side in single else None
            self.note(row, side, number, data)

    def note(self, row, side, number, data):
        """Adds a run to its row: a number, or null, for each round."""
        measures = row["sides"].setdefault(side, {})
        for key, source in KEYS[row["kind"]].items():
            measures.setdefault(key, [None] * number).append(data.get(source))
        if row["name"] in MEMORY and data.get("checkpoints"):
            entry = self.memory.setdefault(row["name"], {
                "name": row["name"], "workers": row["workers"], "command": row["command"],
                "sides": {},
            })
            entry["sides"][side] = data["checkpoints"]

    def latency(self):
        """The time of single calls and of frames, of all sides and of the null allocator."""
        null = peers.Side("null", None, "--allocator null", allocator="null")
        quick = 10 if self.options.quick else 1
        wanted = [(self.workload, "workload", name, workers,
                   [name, "--workers", str(workers), "--ops", str(LATENCY_OPS // quick), *more,
                    "--latency"], [*self.sides, null]) for name, workers, more in LATENCY]
        wanted.append((self.engine, "", "engine", ENGINE_WORKERS,
                       ["--workers", str(ENGINE_WORKERS), "--frames",
                        str(ENGINE_FRAMES // quick)], self.sides))
        wanted = [job for job in wanted if not self.options.only or job[2] in self.options.only]
        progress = compare.Progress("latency", sum(len(job[-1]) for job in wanted))
        entries = []
        for program, typed, name, workers, arguments, sides in wanted:
            runner = self.runner(program, [*arguments, "--json"], workers)
            command = " ".join([*([typed] if typed else [name]), *arguments])
            entry = {"name": name, "workers": workers, "command": command, "sides": {}}
            for side in sides:
                try:
                    entry["sides"][side.name] = runner.run(side).data.get("latency")
                except compare.RunError as why:
                    self.failed[name + " --latency", side.name] = str(why)
                progress.step()
            entries.append(entry)
        progress.finish()
        return entries

    def results(self, rounds, begin, latency, missing):
        name, flags = compiler()
        keys = ("name", "kind", "workers", "unit", "command", "sides")
        return {
            "format": 1, "quick": self.options.quick, "rounds": rounds,
            "seconds": round(time.monotonic() - begin, 1),
            "date": datetime.date.today().isoformat(), "machine": peers.machine(),
            "compiler": name, "flags": flags, "commit": commit(),
            "sides": [{"name": side.name, "version": side.version, "how": side.how}
                      for side in self.sides],
            "missing": missing,
            "rows": [{key: row[key] for key in keys} for row in self.rows],
            "latency": latency, "memory": list(self.memory.values()), "soak": [],
        }


def soak(options, samples, path):
    """Adds two long runs to the results at @path."""
    with open(path, encoding="utf-8") as file:
        results = json.load(file)
    side = peers.sides()[0][0]
    progress = compare.Progress("soak", len(SOAK))
    results["soak"] = []
    for name, workers in SOAK:
        arguments = [name, "--workers", str(workers), "--seconds", str(options.soak_seconds)]
        cpus, _ = compare.choose_cpus([workers])
        runner = compare.Runner(
            os.path.join(samples, "workload"), [*arguments, "--memory", "--json"],
            options.soak_seconds * 3 + 60, cpus,
        )
        data = runner.run(side).data
        results["soak"].append({
            "name": name, "workers": workers, "seconds": data["seconds"],
            "command": "workload " + " ".join(arguments), "sides": {"hakmem": data["checkpoints"]},
            # the rest of the results may be of another day
            "commit": commit(), "processor": peers.machine()["processor"],
        })
        progress.step()
    progress.finish()
    return results


def write(results, folder):
    """All forms of the results; prints the table."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "results.json")
    with open(path + ".new", "w", encoding="utf-8") as out:
        # a line for each value or list would be 20,000 lines
        json.dump(results, out, separators=(",", ":"))
        out.write("\n")
    os.replace(path + ".new", path)
    loaded = bench_data.load(path)
    bench_tables.write_csv(loaded, os.path.join(folder, "results.csv"))
    bench_html.write(loaded, os.path.join(folder, "report.html"))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 80
    bench_tables.print_terminal(loaded, sys.stdout, width)
    print(f"\n{folder}/report.html shows it all; results.json and results.csv have every number")


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="bench.py [options] SAMPLES_DIR OUT_DIR",
    )
    parser.add_argument("samples", metavar="SAMPLES_DIR")
    parser.add_argument("out", metavar="OUT_DIR")
    parser.add_argument("--quick", action="store_true", help="3 rounds of short runs")
    parser.add_argument("--rounds", type=int, help="so many, however long they take")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="more rounds while so long"
                        " is not over (default 1200)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND",
                        help="another allocator; see compare.py --help")
    parser.add_argument("--only", action="append", default=[], metavar="ROW",
                        help="this row alone; may be given again")
    parser.add_argument("--require-all", action="store_true", help="a missing peer is a failure")
    parser.add_argument("--soak", action="store_true", help="two runs of 10 minutes, added to"
                        " the results in OUT_DIR")
    parser.add_argument("--soak-seconds", type=int, default=SOAK_SECONDS, metavar="S")
    parser.add_argument("--timeout", type=float, default=300, help="seconds, for each run")
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least 1")
    known = {row.name for row in ROWS} | set(TRACES)
    for name in options.only:
        if name not in known:
            parser.error(f"--only: there is no row {name}")
    if options.quick and not options.rounds:
        options.rounds = QUICK_ROUNDS
    return options


def main(arguments):
    options = parse(arguments)
    if options.soak:
        try:
            path = os.path.join(options.out, "results.json")
            write(soak(options, options.samples, path), options.out)
            return 0
        except (OSError, ValueError, compare.RunError) as why:
            print(f"bench.py: {why}", file=sys.stderr)
            return 1
    sides, missing = peers.sides()
    try:
        sides += [peers.own_side(text) for text in options.peer]
        for side in sides:
            peers.check_preload(side, os.path.join(options.samples, "workload"))
    except (ValueError, peers.PreloadError) as why:
        print(f"bench.py: {why}", file=sys.stderr)
        return 2
    for name in missing:
        print(f"{name} is missing: Debian has it in {peers.PRELOADS[name][2]}")
    sys.stdout.flush()
    if missing and options.require_all:
        return 1
    begin = time.monotonic()
    bench = Bench(options, sides, options.samples)
    latency = bench.latency()
    # what the latencies took is not there for the rounds
    options.seconds -= time.monotonic() - begin
    rounds = bench.run()
    write(bench.results(rounds, begin, latency, missing), options.out)
    for (row, side), why in bench.failed.items():
        print(f"FAILED {row} on {side}: {why}")
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
