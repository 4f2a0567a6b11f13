#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every bar of performance, against the allocators that Debian packages: is it met?

    bars.py [options] SAMPLES_DIR            what `ninja bars` calls

Runs the rows of bench.py on all sides: A B C, in the next round C B A, each run a process of its
own, and round r with seed 1 + r % 3. Then it counts what does not depend on the machine's speed,
under valgrind: instructions below the depot, simulated cache misses of all sides; and metadata.
Prints each bar with its rows, and writes DIR/bars.json (--out). bars_data.py says what the bars
demand and what "met", "behind" and "not shown" are; bars_tables.py prints results again.

With --race a workload's peer is left out of it after 6 rounds, or a later one, if it is surely not
the best one: if its whole interval lies beyond that of another peer, in all that is judged. What
the bars tell is of peers that ran to the end.

All shipped peers are wanted (peers.py lists them): where one is missing, no bar that compares is
met. Those that --peer adds are compared in the same way, on every row.

Exit code: 0 all bars are met; 1 one is not, or a run failed; 2 usage.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import time

sys.dont_write_bytecode = True

import bars_counts  # noqa: E402
import bars_data  # noqa: E402
import bars_tables  # noqa: E402
import bench  # noqa: E402
import bench_data  # noqa: E402
import compare  # noqa: E402
import peers  # noqa: E402

SEEDS = (1, 2, 3)
ROUNDS = 21  # seven of each seed
RACE_ROUNDS = 6  # two of each seed
BELOW_ROWS = ("larson", "churn", "burst")
CACHE_ROWS = ("larson",)


def judged_lines(row):
    """(Line, limit) of all that a workload's row is judged by."""
    speed = bars_data.HANDED_SPEED if row["name"] in bars_data.HANDED else 1
    lines = [(bench_data.Line(row, "speed", 1, ""), speed),
             (bench_data.Line(row, "peak_bytes", -1, ""), bars_data.MEMORY_LIMIT)]
    return lines if bars_data.has_memory_bar(lines[1][0]) else lines[:1]


def is_beaten(line, limit, peer, pool):
    """Is another one of @pool surely harder to beat than @peer, which is surely beaten?"""
    def ends(name):  # hakmem's ratio, the more the better: (worst, best)
        ratio = line.ratio(name)
        if ratio is None or ratio.low is None:
            return None
        return sorted(line.better * end for end in (ratio.low, ratio.high))

    mine = ends(peer)
    others = [ends(name) for name in pool if name != peer and ends(name)]
    return bool(mine) and mine[0] > line.better * limit and any(
        mine[0] > other[1] for other in others)


class Bars(bench.Bench):
    """The benchmark's rows, with what hakmem's counters say of blocks handed over."""

    title = "bars"

    def left_out(self, row):
        """Who lost the race: a shipped peer to another such, one that was added to any."""
        out = row.setdefault("left_out", set())
        rounds = min((len(side["speed"]) for side in row["sides"].values()), default=0)
        if not self.options.race or row["kind"] != "workload" or rounds < RACE_ROUNDS:
            return out
        there = [side.name for side in self.sides if side.name != bars_data.SUBJECT
                 and side.name not in out and (row["name"], side.name) not in self.failed]
        lines = judged_lines(row)
        for peer in there:
            pool = there if peer in self.options.own else [
                name for name in there if name in bars_data.SHIPPED]
            if all(is_beaten(line, limit, peer, pool) for line, limit in lines):
                out.add(peer)
        return out

    def note(self, row, side, number, data):
        super().note(row, side, number, data)
        if side != bars_data.SUBJECT or row["name"] not in bars_data.HANDED:
            return
        found = bars_data.blocks_per_rmw(data.get("counters"), data.get("ops"))
        for end, value in zip(("at_least", "at_most"), found):
            row["sides"][side].setdefault(f"blocks_per_rmw_{end}", []).append(value)

    def chosen(self, names):
        return [name for name in names if not self.options.only or name in self.options.only]

    def counts(self):
        """{what: entries} of all that is counted."""
        traces = {name: path for name, path in self.trace_paths().items()
                  if name in self.chosen([name])}
        folder = os.path.dirname(os.path.abspath(self.options.samples))
        below, cached = self.chosen(BELOW_ROWS), self.chosen(CACHE_ROWS)
        counts = bars_counts.Counts(folder, self.sides, self.seeds)
        progress = compare.Progress("bars: counts", counts.steps(below, cached, traces))
        counts.step = progress.step
        try:
            return {"below_depot": counts.below_depot(below, traces),
                    "cache": counts.cache(cached, traces), "metadata": counts.metadata(traces)}
        finally:
            progress.finish()

    def trace_paths(self):
        return {**{name: bench.trace_path(name) for name in bench.TRACES}, **self.options.traces}


def failures(bench_failed, counts):
    """[{row, side, why}] of all that failed."""
    told = [{"row": row, "side": side, "why": why} for (row, side), why in bench_failed.items()]
    for what, entries in counts.items():
        for entry in entries:
            reasons = entry["why"] or {}
            if isinstance(reasons, str):
                reasons = {"hakmem": reasons}
            told += [{"row": f"{entry['name']}, {what.replace('_', ' ')}", "side": side,
                      "why": why} for side, why in reasons.items()]
    return told


def measure(options, sides, own, missing, command):
    """All of it; returns the results, with the bars in them."""
    begin = time.monotonic()
    bars = Bars(options, sides, options.samples, SEEDS, options.traces)
    rounds = bars.run()
    counts = bars.counts()
    data = {**bars.results(rounds, begin, [], missing), "kind": "bars", "seeds": list(SEEDS),
            "own": own, "only": options.only, "race": RACE_ROUNDS if options.race else 0,
            "command": command, "failed": failures(bars.failed, counts), **counts}
    results = bars_data.Results(data)
    judged = bars_data.judge(results)
    data["claim"] = results.is_claim
    data["bars"] = [bar.data() for bar in judged]
    data["met"] = bars_data.is_met(results, judged)
    return results, judged


def write(data, folder):
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "bars.json")
    with open(path + ".new", "w", encoding="utf-8") as out:
        json.dump(data, out, separators=(",", ":"))
        out.write("\n")
    os.replace(path + ".new", path)


def named_traces(parser, paths):
    """{name: path} of --trace: the file's name, or where that is taken, its whole path."""
    taken, made = {row.name for row in bench.ROWS} | set(bench.TRACES), {}
    for path in paths:
        if not os.path.isfile(path):
            parser.error(f"--trace: there is no file {path}")
        whole = path[: -len(".hkt")] if path.endswith(".hkt") else path
        name = next((name for name in (os.path.basename(whole), whole)
                     if name not in taken and name not in made), None)
        if name is None:
            parser.error(f"--trace: {path} is a row already")
        made[name] = path
    return made


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="bars.py", allow_abbrev=False, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="bars.py [options] SAMPLES_DIR",
    )
    add = parser.add_argument
    add("samples", metavar="SAMPLES_DIR")
    add("--rounds", type=int, default=ROUNDS, metavar="N",
        help=f"{ROUNDS}, seven of each seed; fewer than {bars_data.ROUNDS_CLAIM} are no claim")
    add("--peer", action="append", default=[], metavar="NAME=COMMAND",
        help="another allocator, compared like the others; see compare.py --help")
    add("--trace", action="append", default=[], metavar="FILE",
        help="another recording; may be given again")
    add("--race", action="store_true",
        help=f"after {RACE_ROUNDS} rounds, leave out peers that are surely not the best of a row")
    add("--only", action="append", default=[], metavar="ROW",
        help="this row alone; may be given again; no mean over rows is told then")
    add("--out", default=os.path.join("build", "bars"), metavar="DIR",
        help="where bars.json is written (build/bars)")
    add("--timeout", type=float, default=300, metavar="S", help="of a run (300)")
    add("--json", action="store_true", help="one JSON object on stdout, as in bars.json")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    if not options.timeout > 0:
        parser.error("--timeout: above 0")
    options.traces = named_traces(parser, options.trace)
    known = {row.name for row in bench.ROWS} | set(bench.TRACES) | set(options.traces)
    for name in options.only:
        if name not in known:
            parser.error(f"--only: there is no row {name}")
    options.sides, options.missing = peers.sides()
    options.own = []
    for text in options.peer:
        try:
            side = peers.own_side(text)
        except ValueError as why:
            parser.error(f"--peer: {why}")
        if side.name in [*(other.name for other in options.sides), *options.missing]:
            parser.error(f"--peer: there is a side {side.name} already")
        options.sides.append(side)
        options.own.append(side.name)
    options.quick = False
    return options


def main(arguments):
    options = parse(arguments)
    out = sys.stderr if options.json else sys.stdout
    try:
        for side in options.sides:
            peers.check_preload(side, os.path.join(options.samples, "workload"))
    except peers.PreloadError as why:
        print(f"bars.py: {why}", file=sys.stderr)
        return 1
    for text in bars_tables.missing_texts(options.missing):
        print(text, file=out)
    out.flush()
    try:
        results, judged = measure(options, options.sides, options.own, options.missing,
                                  shlex.join(["bars.py", *arguments]))
    except KeyboardInterrupt:
        print("bars.py: interrupted", file=sys.stderr)
        return 1
    write(results.data, options.out)
    if options.json:
        print(json.dumps(results.data, indent=2))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 80
        bars_tables.print_terminal(results, judged, sys.stdout, width)
        print(f"\n{os.path.join(options.out, 'bars.json')} has every number")
    return 0 if results.data["met"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
