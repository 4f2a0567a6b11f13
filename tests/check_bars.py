#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks samples/bars.py, and bars_data.py, bars_counts.py and bars_tables.py beside it.

    check_bars.py               on made-up results, and on programs and peers that are fakes
    check_bars.py BUILD_DIR     what is counted, on BUILD_DIR/samples, with few operations

The first measures nothing, and nothing has to be built. The second needs valgrind for all but the
metadata; it is skipped where there is none. Exit code: 0 well, 1 a check failed.
"""

import contextlib
import copy
import io
import json
import os
import sys
import tempfile
from unittest import mock

from tools import Checks, run

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SAMPLES = os.path.join(ROOT, "samples")
sys.dont_write_bytecode = True
sys.path.insert(0, SAMPLES)

import bars  # noqa: E402 (the path comes first)
import bars_counts  # noqa: E402
import bars_data  # noqa: E402
import bars_tables  # noqa: E402
import bench  # noqa: E402
import peers  # noqa: E402
import profile  # noqa: E402
from bars_data import BEHIND, MET, NOT_SHOWN, SHIPPED  # noqa: E402

SIDES = ("hakmem", *SHIPPED)
COUNTERS = {**dict.fromkeys(bars_data.RMW, 0), "depot_swap": 20000, "magazine_to_depot": 20000,
            "lock_acquired": 1000}  # 82000 to hand over a million: 1 in 12
CACHE = {**dict.fromkeys(SHIPPED, 0.5), "hakmem": 0.4}
CPU = {"processor": "Some CPU", "processors": 2, "memory_bytes": 1 << 34, "kernel": "6.1",
       "system": "Some Linux"}

# Prints the file for its first argument, FAKE_SIDE and --seed, and notes the three.
FAKE = """#!/bin/sh
name=${{1##*/}} side=${{FAKE_SIDE:-hakmem}} seed=0 last=
name=${{name%.hkt}}
for word; do
    [ "$last" = --seed ] && seed=$word
    last=$word
done
[ "${{0##*/}}" = trace-cut ] && {{ : >"$2"; exit 0; }}
echo "$name $side $seed" >>"{0}/log"
file="{0}/$name.$side.$seed"
[ -f "$file" ] || file="{0}/$name.$side.0"
[ -s "$file" ] || {{ echo "out of luck" >&2; exit 3; }}
cat "$file"
"""


# Made-up results: hakmem is twice as fast as all peers, and takes half as much


def row_of(name, kind="workload", workers=1, **factors):
    """A row in which a peer's measures are hakmem's by @factors; default: half the speed."""
    def side(speed, memory):
        made = {"speed": [2e6 * speed] * 21, "peak_bytes": [10e6 * memory] * 21}
        return {**made, "first_speed": [1e6 * speed] * 21} if kind == "trace" else made

    made = {"name": name, "kind": kind, "workers": workers, "unit": "operations",
            "command": f"workload {name}", "sides": {"hakmem": side(1, 1)}}
    for peer in (*SHIPPED, *(name for name in factors if name not in SHIPPED)):
        made["sides"][peer] = side(*factors.get(peer, (0.5, 2)))
    if name in bars_data.HANDED:
        made["sides"]["hakmem"].update(blocks_per_rmw_at_least=[8.0] * 21,
                                       blocks_per_rmw_at_most=[9.0] * 21)
    return made


def results_of(*rows, **more):
    """The Results of these rows; @more keys take the place of others."""
    names = list(dict.fromkeys(name for row in rows for name in row["sides"]))
    data = {
        "format": 1, "quick": False, "kind": "bars", "rounds": 21, "seconds": 3000.0,
        "date": "2026-11-27", "machine": CPU, "compiler": "gcc 12.2.0", "flags": "-O2",
        "commit": "533c3bc+", "sides": [{"name": name, "version": "1.0", "how": "-"}
                                        for name in names],
        "missing": [], "rows": list(rows), "seeds": [1, 2, 3], "only": [], "failed": [],
        "own": [name for name in names if name not in SIDES], "command": "bars.py x",
        "below_depot": [], "cache": [], "metadata": [],
    }
    return bars_data.Results({**data, **more})


def finding_in(results, key, at=0):
    bar = next(bar for bar in bars_data.judge(results) if bar.key == key)
    return bar.findings[at]


def verdict_in(results, key, at=0):
    return finding_in(results, key, at).verdict


def spread(row, key, peer, factors):
    """Gives a peer's measures another factor of hakmem's in each round, in turn."""
    mine = row["sides"]["hakmem"][key]
    row["sides"][peer][key] = [value * factors[at % len(factors)]
                               for at, value in enumerate(mine)]
    return row


def expect(checks, found, wanted, what):
    checks.check(found == wanted, f"{what}: {found!r}, not {wanted!r}")


def check_speed(checks):
    expect(checks, verdict_in(results_of(row_of("burst")), "speed"), MET, "twice as fast")
    behind = finding_in(results_of(row_of("burst", jemalloc=(1 / 0.9, 2))), "speed")
    expect(checks, (behind.verdict, behind.peer, round(behind.by, 3)), (BEHIND, "jemalloc", 0.1),
           "a tenth slower")
    level = spread(row_of("burst"), "speed", "glibc", (0.97, 1.0, 1.03))
    found = finding_in(results_of(level), "speed")
    checks.check(found.low < 1 < found.high, f"the interval has 1 in it: {found}")
    expect(checks, (found.verdict, found.peer), (MET, "glibc"), "no difference shown: not behind")
    near = spread(row_of("burst"), "speed", "glibc", (1.04, 1.01, 1.02))
    expect(checks, verdict_in(results_of(near), "speed"), BEHIND, "all of the interval below 1")
    # one peer looks best but for its noise, another is surely ahead by less
    noisy = spread(row_of("burst", tcmalloc=(1 / 0.98, 2)), "speed", "glibc", (0.7, 1.1, 1.4))
    found = finding_in(results_of(noisy), "speed")
    expect(checks, (found.verdict, found.peer), (BEHIND, "tcmalloc"), "behind one of them")
    gone = row_of("burst")
    del gone["sides"]["tbbmalloc"]
    found = finding_in(results_of(gone), "speed")
    expect(checks, found.verdict, NOT_SHOWN, "a shipped peer is not there")
    checks.check("tbbmalloc" in found.note, f"it is named: {found.note}")
    short = row_of("burst")
    for side in short["sides"].values():
        side.update((key, values[:1]) for key, values in side.items())
    expect(checks, verdict_in(results_of(short, rounds=1), "speed"), NOT_SHOWN, "one round")
    own = finding_in(results_of(row_of("burst", strong=(1.2, 2))), "speed")
    expect(checks, (own.verdict, own.peer), (BEHIND, "strong"), "one that --peer added")


def check_means(checks):
    def rows(*ratios, **more):
        return [row_of(name, mimalloc=(1 / ratio, 2), **more)
                for name, ratio in zip(("burst", "storm", "churn"), ratios)]

    for ratios, wanted in (((1.5, 1.5), MET), ((1.49, 1.5), BEHIND), ((1.125, 2), MET),
                           ((1.1, 2), BEHIND)):
        found = finding_in(results_of(*rows(*ratios)), "speed, mean")
        expect(checks, found.verdict, wanted, f"mean of {ratios}: {found.value}")
    for ratio, wanted in ((1.3, MET), (1.29, BEHIND)):
        results = results_of(*rows(1.6, 1.6, strong=(1 / ratio, 2)))
        expect(checks, verdict_in(results, "speed, mean"), MET, "of shipped peers alone")
        expect(checks, verdict_in(results, "speed, mean", 1), wanted, f"of all: {ratio}")
    only = results_of(*rows(1.1, 1.1), only=["burst", "storm"])
    keys = [bar.key for bar in bars_data.judge(only)]
    checks.check("speed, mean" not in keys, f"of chosen rows there is no mean: {keys}")
    gone = rows(2, 2)
    del gone[1]["sides"]["glibc"]
    expect(checks, verdict_in(results_of(*gone), "speed, mean"), NOT_SHOWN, "a row lacks a peer")


def check_memory(checks):
    for name, kind, factor, wanted in (
        ("lifetime", "workload", 1.02, MET), ("lifetime", "workload", 1.03, BEHIND),
        ("pairs", "workload", 1.03, BEHIND), ("pinned", "workload", 1.021, BEHIND),
        ("frames", "workload", 1.03, BEHIND), ("frames, no reset", "workload", 1.03, BEHIND),
        ("godot", "trace", 1.02, MET), ("godot", "trace", 1.03, BEHIND),
    ):
        results = results_of(row_of(name, kind, jemalloc=(0.5, 1 / factor)))
        expect(checks, verdict_in(results, "peak memory"), wanted, f"{name}: {factor}")
    keys = [bar.key for bar in bars_data.judge(results_of(row_of("churn", glibc=(0.5, 0.3))))]
    checks.check("peak memory" not in keys, "churn has no such bar")
    near = spread(row_of("lifetime"), "peak_bytes", "glibc", [1 / r for r in (1.01, 1.03, 1.04)])
    expect(checks, verdict_in(results_of(near), "peak memory"), NOT_SHOWN, "limit in the interval")
    unknown = row_of("lifetime")
    unknown["sides"]["glibc"]["peak_bytes"] = [None] * 21
    expect(checks, verdict_in(results_of(unknown), "peak memory"), NOT_SHOWN, "an unknown peak")


def check_first_pass(checks):
    def found_with(speed, memory):
        row = row_of("godot", "trace", tcmalloc=(1, memory))
        row["sides"]["tcmalloc"]["first_speed"] = [1e6 * speed] * 21
        return finding_in(results_of(row), "first pass")

    found = found_with(1.2, 1.26)
    expect(checks, (found.verdict, "tcmalloc" in found.peers), (MET, False), "too large: ignored")
    checks.check("tcmalloc" in found.note, f"and named: {found.note}")
    found = found_with(1.2, 1.25)
    expect(checks, (found.verdict, found.peer), (BEHIND, "tcmalloc"), "1.25 is not too large")
    expect(checks, found_with(1.2, 0.5).verdict, BEHIND, "one that takes less")
    expect(checks, found_with(0.9, 1).verdict, MET, "slower at the first pass")
    row = row_of("godot", "trace", tcmalloc=(1.2, 2))
    row["sides"]["tcmalloc"]["peak_bytes"] = [None] * 21
    expect(checks, verdict_in(results_of(row), "first pass"), BEHIND, "memory not known: compared")


def check_handing(checks):
    for ratio, wanted in ((1.5, MET), (1.49, BEHIND)):
        results = results_of(row_of("handoff", workers=2, glibc=(1 / ratio, 2)))
        expect(checks, verdict_in(results, "handing over, speed"), wanted, f"handoff: {ratio}")
    key = "handing over, exchanges"
    for least, most, wanted in ((7, 9, MET), (6.9, 6.95, BEHIND), (6.9, 7.1, NOT_SHOWN)):
        row = row_of("mesh", workers=8)
        row["sides"]["hakmem"].update(blocks_per_rmw_at_least=[least] * 21,
                                      blocks_per_rmw_at_most=[most] * 21)
        expect(checks, verdict_in(results_of(row), key), wanted, f"{least} to {most} blocks")
    del row["sides"]["hakmem"]["blocks_per_rmw_at_least"]
    expect(checks, verdict_in(results_of(row), key), NOT_SHOWN, "no counters")
    least, most = bars_data.blocks_per_rmw(COUNTERS, 1000000)
    expect(checks, (round(least, 3), round(most, 3)), (12.195, 12.195), "exchanges and locks")
    for name in bars_data.RMW:
        less, _ = bars_data.blocks_per_rmw({**COUNTERS, name: COUNTERS[name] + 9000}, 1000000)
        checks.check(less < least, f"{name} counts")
    for counters, blocks in ((None, 5), ({}, 5), ({**COUNTERS, "depot_swap": None}, 5),
                             (COUNTERS, None)):
        expect(checks, bars_data.blocks_per_rmw(counters, blocks), (None, None), "not known")


def check_counts(checks):
    row = row_of("burst")
    for shares, why, wanted in (([0.0999], None, MET), ([0.1], None, BEHIND),
                                ([0.05, 0.11, 0.05], None, BEHIND), ([], "x", NOT_SHOWN),
                                ([0.05], "x", NOT_SHOWN)):
        entry = {"name": "burst", "shares": shares, "why": why}
        expect(checks, verdict_in(results_of(row, below_depot=[entry]), "below the depot"),
               wanted, f"below the depot: {shares} {why}")
    for misses, wanted in (({}, MET), ({"hakmem": 0.5}, MET), ({"hakmem": 0.51}, BEHIND),
                           ({"glibc": 0.39}, BEHIND), ({"hakmem": None}, NOT_SHOWN),
                           ({"glibc": None}, NOT_SHOWN), ({"glibc": 0}, BEHIND)):
        entry = {"name": "larson", "misses": {**CACHE, **misses}}
        expect(checks, verdict_in(results_of(row, cache=[entry]), "L1d misses"), wanted,
               f"misses: {misses}")
    for own, wanted in ((20, MET), (21, BEHIND), (None, NOT_SHOWN)):
        entry = {"name": "godot", "metadata_bytes": own, "committed_bytes": 1000}
        expect(checks, verdict_in(results_of(row, metadata=[entry]), "metadata"), wanted,
               f"metadata: {own}")


def check_all(checks):
    """What it comes to."""
    good = results_of(row_of("burst"), row_of("godot", "trace"))
    checks.check(bars_data.is_met(good, bars_data.judge(good)), "all is met")
    checks.check(good.is_claim, "21 rounds, three seeds")
    failed = [{"row": "burst", "side": "glibc", "why": "no reason"}]
    for what, more in (("a run failed", {"failed": failed}), ("rounds", {"rounds": 21})):
        results = results_of(row_of("burst"), **more)
        expect(checks, bars_data.is_met(results, bars_data.judge(results)), not more.get("failed"),
               what)
    expect(checks, results_of(row_of("burst"), seeds=[1]).is_claim, False, "one seed is no claim")
    for what, more in (("kind", {"kind": "bench"}), ("seeds", {"seeds": 3}),
                       ("own", {"own": ["nobody"]}), ("cache 0", {"cache": [{"name": "x"}]}),
                       ("metadata 0", {"metadata": [{}]}), ("failed 0", {"failed": [{}]}),
                       ("rounds", {"rounds": 20})):
        try:
            results_of(row_of("burst"), **more)
            told = "it was taken"
        except ValueError as why:
            told = str(why)
        checks.check(what in told, f"a bad file: {told}, not {what}")


def check_tables(checks, folder):
    row = row_of("burst", jemalloc=(1 / 0.9, 2))
    results = results_of(row, row_of("mesh", workers=8, glibc=(1 / 1.4996, 2)))
    part = "\n".join(bars_tables.md_part(results))
    for what in ("2026-11-27", "533c3bc+", "`bars.py x`", "Some CPU", "gcc 12.2.0", "rounds: 21",
                 "seeds 1, 2, 3", "| speed | burst | jemalloc | **0.90** <sub>[0.90, 0.90]</sub> |"
                 " behind by 10 % |", "**1.4996** <sub>", "Bars met: 1 of 4."):
        checks.check(what in part, f"the README's part has {what!r}: {part}")
    checks.check("INDICATION" not in part, "21 rounds are a claim")
    few = results_of(*(cut(row_of("burst"), 3),), rounds=3)
    checks.check("**AN INDICATION, NO CLAIM: 3 rounds" in bars_tables.md_part(few)[0], "3 are not")
    told = io.StringIO()
    bars_tables.print_terminal(results, bars_data.judge(results), told, 80)
    text = told.getvalue()
    for what in ("burst", "jemalloc", "0.90 [0.90, 0.90]", "BEHIND BY 10 %", "NOT MET speed: burst",
                 "NOT ALL BARS ARE MET"):
        checks.check(what in text, f"the terminal's table has {what!r}: {text}")
    checks.check(max(map(len, text.split("\n"))) <= 80, f"80 columns: {text}")
    source = os.path.join(folder, "bars.json")
    path = os.path.join(folder, "README.md")
    with open(source, "w", encoding="utf-8") as out:
        json.dump(results.data, out)
    program = [sys.executable, os.path.join(SAMPLES, "bars_tables.py"), source]
    with open(path, "w", encoding="utf-8") as out:
        out.write(f"# top\n{bars_tables.BEGIN}\nstale\n{bars_tables.END}\nrest\n")
    for option, code in (("--check", 1), ("--readme", 0), ("--check", 0)):
        done = run([*program, option, path])
        expect(checks, done.returncode, code, f"{option}: {done.stderr}")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    checks.check(part in text and "stale" not in text and text.endswith("rest\n"), "the part is in")
    with open(path, "w", encoding="utf-8") as out:
        out.write("# no marks\n")
    done = run([*program, "--readme", path])
    checks.check(done.returncode == 1 and "bars: begin" in done.stderr, f"no marks: {done.stderr}")
    expect(checks, run(program).returncode, 0, "the terminal's table")
    with open(source, "w", encoding="utf-8") as out:
        out.write("[]")
    checks.check(run(program).returncode == 1, "a bad file")


def cut(row, rounds):
    """A row with fewer rounds."""
    row = copy.deepcopy(row)
    for side in row["sides"].values():
        side.update((key, values[:rounds]) for key, values in side.items())
    return row


class Fakes:
    """Programs and peers that print what they are told to, and note their calls."""

    def __init__(self, folder):
        self.folder = folder
        self.samples = os.path.join(folder, "release", "samples")
        os.makedirs(self.samples)
        for name in ("workload", "replay", "trace-cut"):
            path = os.path.join(self.samples, name)
            with open(path, "w", encoding="utf-8") as out:
                out.write(FAKE.format(folder))
            os.chmod(path, 0o755)
        self.sides = [peers.Side(name, "1.0", "-", environment=(("FAKE_SIDE", name),),
                                 allocator="hakmem" if name == "hakmem" else "libc")
                      for name in SIDES]
        self.reset()

    def write(self, name, side, seed=0, **data):
        with open(os.path.join(self.folder, f"{name}.{side}.{seed}"), "w", encoding="utf-8") as out:
            json.dump(data, out)

    def reset(self):
        """All as it should be; nothing is noted."""
        for name in os.listdir(self.folder):
            if os.path.isfile(os.path.join(self.folder, name)):
                os.remove(os.path.join(self.folder, name))
        names = dict.fromkeys(row.name for row in bench.ROWS)
        self.write("--list", "hakmem", workloads=[{"name": name, "ops": 1000} for name in names])
        for side in (*SIDES, "strong", "weak"):
            for name in names:
                self.workload(name, side)
            for name in (*bench.TRACES, "longer", "cut"):
                self.trace(name, side)

    def workload(self, name, side, speed=None, memory=None, seed=0, **counters):
        mine = side == "hakmem"
        self.write(name, side, seed, ops=1000000, ops_per_second=speed or (2e6 if mine else 1e6),
                   peak_bytes=memory or (1000000 if mine else 2000000),
                   counters={**COUNTERS, **counters} if mine else None)

    def trace(self, name, side, first=None, memory=None, metadata=10000,
              speed=None):
        mine = side == "hakmem"
        self.write(name, side, events=1000,
                   events_per_second=speed or (2e6 if mine else 1e6),
                   first_pass_events_per_second=first or (2e6 if mine else 1e6),
                   peak_bytes=memory or (1000000 if mine else 2000000), live_bytes=500000,
                   live_bytes_events=900, committed_bytes=1000000, metadata_bytes=metadata)

    def run(self, arguments, missing=()):
        """bars.py on the fakes: (exit code, its results or None, stdout, stderr)."""
        out, error = io.StringIO(), io.StringIO()
        path = os.path.join(self.folder, "out")
        there = [side for side in self.sides if side.name not in missing]
        data = None

        def misses(side, *_):
            count = {"null": 100000, "hakmem": 400000}.get(side.name, 500000)
            return count, {"ops": 1000000, "events": 1000000}

        with mock.patch.object(peers, "sides", lambda: (list(there), list(missing))), \
                mock.patch.object(bars_counts, "cachegrind", misses), \
                mock.patch.object(bars_counts.Counts, "share_below", lambda *_: 0.05), \
                contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            try:
                code = bars.main([*arguments, "--out", path, self.samples])
            except SystemExit as end:
                code = end.code
        written = os.path.join(path, "bars.json")
        if os.path.exists(written):
            with open(written, encoding="utf-8") as file:
                data = json.load(file)
            os.remove(written)
        return code, data, out.getvalue(), error.getvalue()

    def calls(self):
        """(name, side, seed) of each call."""
        with open(os.path.join(self.folder, "log"), encoding="utf-8") as log:
            return [tuple(line.split()) for line in log]


def check_program(checks, fakes):
    """All rows, all ahead; then what one row changes."""
    code, data, out, error = fakes.run(["--rounds", "3"])
    expect(checks, code, 0, f"all bars are met: {out} {error}")
    checks.check("All bars are met" in out, f"and it is said: {out[-500:]}")
    expect(checks, out.count("AN INDICATION, NO CLAIM: 3 rounds"), 2, "few rounds: first and last")
    expect(checks, (data["claim"], data["met"], data["rounds"]), (False, True, 3), "in the results")
    keys = [bar["bar"] for bar in data["bars"]]
    expect(checks, len(keys), 9, f"all bars: {keys}")
    counts = [len(bar["findings"]) for bar in data["bars"]]
    rows = len(bench.ROWS) + len(bench.TRACES)
    expect(checks, counts, [rows, 1, 7, 2, 2, 2, 7, 3, 2], "rows of each bar")
    for key in ("machine", "compiler", "flags", "commit", "command", "date", "seeds", "sides"):
        checks.check(data.get(key), f"the results have {key}")
    expect(checks, bars_data.Results(data).rounds, 3, "the results can be read")
    checks.check("\r" not in error, "no progress in a pipe")
    three = ["--rounds", "3"]
    for what, spoil, arguments, wanted in (
        ("burst is behind", lambda: fakes.workload("burst", "glibc", 2.2e6), ["burst"], 1),
        ("burst is not", lambda: None, ["burst"], 0),
        ("memory 1.03", lambda: fakes.workload("lifetime", "glibc", memory=1e6 / 1.03),
         ["lifetime"], 1),
        ("memory 1.02", lambda: fakes.workload("lifetime", "glibc", memory=1e6 / 1.02),
         ["lifetime"], 0),
        ("first pass", lambda: fakes.trace("godot", "tcmalloc", 3e6, 1250000), ["godot"], 1),
        ("of one too large", lambda: fakes.trace("godot", "tcmalloc", 3e6, 1260000), ["godot"], 0),
        ("exchanges", lambda: fakes.workload("mesh", "hakmem", depot_swap=60000), ["mesh"], 1),
        ("locks", lambda: fakes.workload("handoff", "hakmem", lock_acquired=40000),
         ["handoff"], 1),
        ("few enough", lambda: fakes.workload("handoff", "hakmem", depot_swap=50000),
         ["handoff"], 0),
        ("metadata", lambda: fakes.trace("cut", "hakmem", metadata=20001), ["godot"], 1),
        ("a run fails", lambda: os.truncate(os.path.join(fakes.folder, "churn.jemalloc.0"), 0),
         ["churn"], 1),
    ):
        fakes.reset()
        spoil()
        code, data, out, _ = fakes.run([*three, "--only", *arguments])
        expect(checks, code, wanted, f"{what}: exit code: {out}")
        expect(checks, data["met"], not wanted, f"{what}: in the results")
        if what == "a run fails":
            checks.check("FAILED churn on jemalloc: exit code 3: out of luck" in out, out)


def check_seeds(checks, fakes):
    """Order and seeds; an interval that has 1 in it."""
    fakes.reset()
    for seed, factor in zip((1, 2, 3), (0.97, 1, 1.03)):
        fakes.workload("storm", "glibc", 2e6 * factor, seed=seed)
    code, data, out, _ = fakes.run(["--only", "storm"])
    expect(checks, code, 0, f"an interval with 1 in it: {out}")
    finding = data["bars"][0]["findings"][0]
    checks.check(finding["low"] < 1 < finding["high"], f"the interval: {finding}")
    expect(checks, (data["claim"], data["rounds"]), (True, 21), "21 rounds are a claim")
    checks.check("INDICATION" not in out, "no warning then")
    there = [("storm", side) for side in SIDES]
    wanted = [(*call, str(1 + number % 3)) for number in range(21)
              for call in (there if number % 2 == 0 else reversed(there))]
    expect(checks, fakes.calls(), wanted, "there and back, each round the next seed")
    speeds = data["rows"][0]["sides"]["glibc"]["speed"]
    expect(checks, speeds, [2e6 * factor for factor in (0.97, 1, 1.03)] * 7, "and what it gave")


def check_race(checks, fakes):
    """Who is surely not the best runs no more; who might be, or has the best memory, does."""
    fakes.reset()
    for side, speed in (("jemalloc", 1.9e6), ("mimalloc", 1.85e6), ("strong", 1.95e6),
                        ("weak", 1.2e6)):
        fakes.workload("pinned", side, speed)
        fakes.workload("handoff", side, speed / 1.5)
    fakes.workload("pinned", "glibc", 1e6, 1500000)
    for seed, factor in zip((1, 2, 3), (0.97, 1, 1.03)):
        fakes.workload("pinned", "mimalloc", 1.9e6 * factor, seed=seed)
    fakes.trace("godot", "weak", memory=3000000, speed=5e5)
    added = [word for name in ("strong", "weak")
             for word in ("--peer", f"{name}=FAKE_SIDE={name}")]
    rows = ["--only", "pinned", "--only", "handoff", "--only", "godot"]
    code, data, out, _ = fakes.run(["--race", *added, *rows])
    expect(checks, (code, data["race"]), (0, 6), f"a race: {out}")
    checks.check("as far as 6 or more rounds tell" in out, f"which is said: {out[:500]}")
    found = {row["name"]: {name: len([1 for value in side["speed"] if value])
                           for name, side in row["sides"].items()} for row in data["rows"]}
    all_of = dict.fromkeys((*SIDES, "strong", "weak"), 21)
    # the smallest, the two fastest shipped ones, the fastest of all
    beaten = dict.fromkeys(("tcmalloc", "tbbmalloc", "weak"), 6)
    expect(checks, found["pinned"], {**all_of, **beaten}, "rounds")
    beaten.update(glibc=6, mimalloc=6)
    expect(checks, found["handoff"], {**all_of, **beaten}, "rounds where 1.5 is wanted")
    expect(checks, found["godot"], all_of, "a trace has no race")
    fakes.workload("handoff", "jemalloc", 2.2e6 / 1.5)
    fakes.workload("handoff", "strong", 2.1e6 / 1.5)
    _, data, _, _ = fakes.run(["--race", *added, *rows[2:4]])
    speeds = data["rows"][0]["sides"]["strong"]["speed"]
    expect(checks, len([1 for value in speeds if value]), 21, "who may be behind the bar")
    code, data, _, _ = fakes.run([*added, *rows[:2], "--rounds", "8"])
    expect(checks, (data["race"], data["rows"][0]["sides"]["weak"]["speed"]),
           (0, [1.2e6] * 8), "no race unless it is asked for")


def check_sides(checks, fakes):
    """Peers that are missing or added, and traces."""
    fakes.reset()
    three = ["--rounds", "3"]
    code, data, out, _ = fakes.run([*three, "--only", "burst"], ["tcmalloc"])
    expect(checks, (code, data["missing"]), (1, ["tcmalloc"]), "a missing peer")
    expect(checks, out.count("MISSING tcmalloc"), 2, f"said first and last: {out}")
    checks.check("apt-get install libtcmalloc-minimal4" in out, "with its package")
    strong = ["--peer", "strong=FAKE_SIDE=strong"]
    code, data, out, _ = fakes.run([*three, *strong])
    expect(checks, (code, data["own"]), (0, ["strong"]), f"a peer that is added: {out[-900:]}")
    means = next(bar for bar in data["bars"] if bar["bar"] == "speed, mean")["findings"]
    expect(checks, [finding["limit"] for finding in means], [1.5, 1.3], "two means")
    checks.check("strong" in data["cache"][0]["misses"], "it is counted too")
    for row in bench.ROWS:
        fakes.workload(row.name, "strong", 2e6 / 1.22)
    code, data, out, _ = fakes.run([*three, *strong])
    expect(checks, code, 1, "one too strong for the mean")
    checks.check("NOT MET speed, mean: all, 21 rows" in out, f"which is told: {out[-900:]}")
    longer = os.path.join(fakes.folder, "longer.hkt")
    with open(longer, "wb"):
        pass
    code, data, out, _ = fakes.run([*three, "--trace", longer, "--only", "longer"])
    expect(checks, (code, [row["name"] for row in data["rows"]]), (0, ["longer"]), "a trace more")
    expect(checks, [len(data[key]) for key in ("below_depot", "cache", "metadata")], [2, 1, 1],
           "which is counted, too")
    code, _, out, error = fakes.run([*three, "--only", "burst", "--json"], ["glibc"])
    expect(checks, (code, json.loads(out)["met"]), (1, False), "--json")
    checks.check("MISSING glibc" in error, "what is missing is on stderr then")


def check_usage(checks, fakes):
    for arguments in (["--rounds", "0"], ["--rounds", "x"], ["--only", "nobody"], ["--wrong"],
                      ["--trace", "no such file"], ["--peer", "x"], ["--peer", "glibc=x"],
                      ["--timeout", "0"], ["extra"]):
        code, data, out, error = fakes.run(arguments)
        expect(checks, (code, data, out), (2, None, ""), f"{arguments}: exit code")
        checks.check("bars.py: error: " in error, f"{arguments}: {error}")
    code, _, out, _ = fakes.run(["--help"])
    expect(checks, code, 0, "--help")
    for option in "--rounds --race --peer --trace --only --out --json".split():
        checks.check(option in out, f"--help names {option}")
    code, _, _, error = fakes.run(["--peer", "x=LD_PRELOAD=./no-such.so"])
    checks.check(code == 1 and "no-such.so" in error, f"what cannot be preloaded: {error}")


def check_real(checks, build):
    """The counts, on the real programs."""
    folder = os.path.abspath(build)
    trace = bench.trace_path("godot")
    steps = []
    sides = [side for side in peers.sides()[0] if side.name in ("hakmem", "glibc")]
    counts = bars_counts.Counts(folder, sides, (1,), lambda: steps.append(1))
    found = counts.metadata({"godot": trace})[0]
    checks.check(found["why"] is None, f"metadata: {found['why']}")
    checks.check(0 < found["metadata_bytes"] < found["committed_bytes"] / 10, f"metadata: {found}")
    checks.check(found["committed_bytes"] > found["live_bytes"] > 1 << 20, f"committed: {found}")
    found = counts.metadata({"none": "no such trace"})[0]
    checks.check(found["why"], "a trace that is not there")
    if not checks.has("valgrind", "instructions and misses"):
        return
    with mock.patch.object(profile, "SHARE_OF_OPS", 2000), \
            mock.patch.object(bars_counts, "CACHE_PASSES", 2):
        below = counts.below_depot(("burst",), {"godot": trace})
        cache = counts.cache(("larson",), {"godot": trace})
    expect(checks, [entry["name"] for entry in below],
           ["burst", "godot, first pass", "godot, later passes"], "below the depot")
    for entry in below:
        checks.check(entry["why"] is None and 0 < entry["shares"][0] < 1, f"shares: {entry}")
    for entry in cache:
        checks.check(not entry["why"] and set(entry["misses"]) == {"hakmem", "glibc"},
                     f"misses: {entry}")
        checks.check(all(0 < count < 20 for count in entry["misses"].values()), f"few: {entry}")
    expect(checks, len(steps) - 1, counts.steps(("burst",), ("larson",), ["godot"]), "steps")
    bad = bars_counts.Counts(folder, sides, (1,)).cache(("no-such-workload",), {})[0]
    checks.check(bad["why"] and not bad["misses"], f"a row that is not there: {bad}")


def main():
    if len(sys.argv) > 2 or "--help" in sys.argv:
        print(__doc__.strip(), file=sys.stdout if "--help" in sys.argv else sys.stderr)
        return 0 if "--help" in sys.argv else 2
    os.environ.pop("LD_PRELOAD", None)
    checks = Checks("bars")
    if len(sys.argv) == 2:
        check_real(checks, sys.argv[1])
        return checks.status()
    for part in (check_speed, check_means, check_memory, check_first_pass, check_handing,
                 check_counts, check_all):
        part(checks)
    with tempfile.TemporaryDirectory() as folder:
        check_tables(checks, folder)
        fakes = Fakes(os.path.join(folder, "fakes"))
        for part in (check_program, check_seeds, check_race, check_sides, check_usage):
            part(checks, fakes)
    return checks.status()


if __name__ == "__main__":
    sys.exit(main())
