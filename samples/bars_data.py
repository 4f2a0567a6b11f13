#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The bars: what each demands, and whether what bars.py measured meets it.

    results = bars_data.load("bars.json")
    bars = bars_data.judge(results)

A ratio is the median of the rounds' ratios, with its bootstrap 95 % interval (paired.py). Of a
bar that says "not behind", a row is behind when all of the interval is below 1. Of one that sets a
limit, it is met when the ratio keeps it, behind when all of the interval is beyond it, and "not
shown" when the ratio is beyond it and the interval is not. Not shown is also what has no figure or
no interval, and what lacks a peer: all of the shipped ones are wanted, and those that were added.
Only what is met counts as met.

Where several peers are compared, the one told is the one that hakmem does worst against.
"""

import dataclasses
import json
import math
import typing

import bench_data
import paired
import peers
from bench_data import SUBJECT, expect, members

SHIPPED = ("glibc", *peers.PRELOADS)
ROUNDS_CLAIM = 20  # fewer are no claim

MET, BEHIND, NOT_SHOWN = "met", "behind", "not shown"
SEVERITY = (MET, NOT_SHOWN, BEHIND)
SLACK = 1e-9  # what logarithms there and back make of a value that keeps its limit

MEAN_SHIPPED, MEAN_ALL = 1.5, 1.3
MEMORY_LIMIT = 1.02
MEMORY_ROWS = ("lifetime", "pairs", "pinned", "frames")  # and the traces
FIRST_PASS_MEMORY = 1.25  # of hakmem's: a peer that takes more is not compared
HANDED = ("handoff", "mesh")
HANDED_SPEED, HANDED_BLOCKS = 1.5, 7
BELOW_LIMIT, METADATA_LIMIT = 0.10, 0.02

# Successful read-modify-writes that one of a counter stands for, as far as is sure and at most.
# Not in them are a cache's first and last magazines, two of each class.
RMW = {
    "depot_swap": (2, 2),  # a filled magazine from the depot, an empty one to it
    "magazine_to_depot": (2, 2),  # and the other way round
    "lock_acquired": (2, 2),  # taken, given back
    "lock_waited": (0, 2),
    "depot_to_slab": (0, 3),  # of a magazine turned away: an empty one got and put back, a count
    "slab_batch": (0, 1),  # a class's first magazine
    "new_slab": (2, 4),
    "slab_emptied": (1, 1),
    "new_superslab": (1, 1),
    "platform_call": (1, 8),
    "large_alloc": (2, 8),
    "large_free": (2, 8),
    "arena_alloc": (1, 1),
    "arena_free": (1, 1),
}

TOP = {"kind": str, "seeds": list, "own": list, "only": list, "failed": list, "command": str,
       "below_depot": list, "cache": list, "metadata": list}


@dataclasses.dataclass
class Finding:
    """Whether a row meets a bar; @better is 1 where more is better, -1 where less.

    @unit says what value, low, high and limit are. @peers: (value, low, high, verdict) of each.
    """

    row: str
    verdict: str
    limit: float
    better: int
    unit: str = "ratio"
    peer: typing.Optional[str] = None
    value: typing.Optional[float] = None
    low: typing.Optional[float] = None
    high: typing.Optional[float] = None
    note: str = ""
    peers: dict = dataclasses.field(default_factory=dict)

    @property
    def by(self):
        """By which share of the limit it is behind; None where it is not."""
        if self.verdict != BEHIND or self.value is None or not self.limit:
            return None
        return abs(self.value / self.limit - 1)


@dataclasses.dataclass
class Bar:
    """One bar with the Findings of its rows."""

    key: str
    demand: str
    findings: list

    @property
    def met(self):
        return all(finding.verdict == MET for finding in self.findings)

    def data(self):
        """As it stands in the results."""
        told = [{**dataclasses.asdict(finding), "by": finding.by} for finding in self.findings]
        return {"bar": self.key, "demand": self.demand, "met": self.met, "findings": told}


def blocks_per_rmw(counters, blocks):
    """(at least, at most) so many blocks a read-modify-write; None where it is not known."""
    if not counters or not blocks or any(counters.get(name) is None for name in RMW):
        return None, None
    sure, most = (sum(counters[name] * weights[end] for name, weights in RMW.items())
                  for end in (0, 1))
    # none at all is no number: as if there had been one
    return blocks / max(most, 1), blocks / max(sure, 1)


def keeps(value, limit, better):
    """Is @value on the good side of @limit?"""
    return better * (value - limit) >= -SLACK * abs(limit)


def verdict_of(ratio, limit, better, lenient=False):
    """The rule at the top; @lenient: of a bar that says "not behind"."""
    if ratio is None or ratio.low is None:
        return NOT_SHOWN
    if not keeps(ratio.high if better > 0 else ratio.low, limit, better):
        return BEHIND
    return MET if lenient or keeps(ratio.value, limit, better) else NOT_SHOWN


def worst(verdicts):
    return max(verdicts, key=SEVERITY.index, default=MET)


def lacking_text(names):
    return f"no figure of {', '.join(names)}" if names else ""


def against(line, wanted, limit, lenient=False):
    """The Finding of a bench_data.Line against the peers that are wanted."""
    ratios = {peer: line.ratio(peer) for peer in wanted}
    told = {peer: verdict_of(ratio, limit, line.better, lenient)
            for peer, ratio in ratios.items()}
    lacking = [peer for peer in wanted if not ratios[peer]]
    finding = Finding(line.label, worst(told.values()), limit, line.better)
    finding.note = lacking_text(lacking)
    for peer, ratio in ratios.items():
        finding.peers[peer] = (*ratio[:3], told[peer]) if ratio else (None,) * 3 + (NOT_SHOWN,)
    there = [peer for peer in wanted if ratios[peer]]
    if there:
        # the worst verdict first: a noisy ratio may be below that of a peer it is behind of
        finding.peer = min(there, key=lambda peer: (-SEVERITY.index(told[peer]),
                                                    line.better * ratios[peer].value))
        finding.value, finding.low, finding.high = ratios[finding.peer][:3]
    return finding


class Results(bench_data.Results):
    """What bars.py wrote: the rows as bench.py has them, and counts."""

    def __init__(self, data):
        super().__init__(data)
        members(data, TOP, "the file")
        if data["kind"] != "bars":
            raise ValueError(f"kind is not bars: {json.dumps(data['kind'])[:60]}")
        for key, spec in (("below_depot", {"name": str, "shares": list}),
                          ("cache", {"name": str, "misses": dict}), ("metadata", {"name": str})):
            for index, entry in enumerate(data[key]):
                members(entry, spec, f"{key} {index}")
        for index, entry in enumerate(data["failed"]):
            members(entry, {"row": str, "side": str, "why": str}, f"failed {index}")
        for name in data["own"]:
            if expect(name, str, "own") not in self.sides:
                raise ValueError(f"own: no side {name}")
        self.wanted = [*SHIPPED, *data["own"]]
        self.missing = [name for name in SHIPPED if name not in self.sides]
        self.is_claim = self.rounds >= ROUNDS_CLAIM and len(data["seeds"]) >= 3

    def facts(self):
        found, race = super().facts(), self.data.get("race")
        if race:
            found["rounds"] += (f" (of a workload's peers that are not its best, as far as {race}"
                                " or more rounds tell: no more of them)")
        return found

    def lines(self, key):
        return [line for line in self.speed + self.memory if line.key == key]


def mean_finding(lines, wanted, limit, name):
    """Of the geometric mean over rows, against the best of the peers of each."""
    values, lacking = [], []
    for line in lines:
        ratios = [line.ratio(peer) for peer in wanted]
        if None in ratios:
            lacking.append(line.label)
        else:
            values.append(min(ratio.value for ratio in ratios))
    finding = Finding(f"{name}, {len(lines)} rows", NOT_SHOWN, limit, 1)
    if values:
        finding.value = paired.geometric_mean(values)
    if lacking:
        finding.note = f"no figure of all peers in {', '.join(lacking)}"
    elif values:
        finding.verdict = MET if keeps(finding.value, limit, 1) else BEHIND
    return finding


def judge_means(results):
    if results.data["only"]:
        return []  # a mean of chosen rows is none
    lines = results.lines("speed")
    found = [mean_finding(lines, SHIPPED, MEAN_SHIPPED, "shipped")]
    if results.data["own"]:
        found.append(mean_finding(lines, results.wanted, MEAN_ALL, "all"))
    return found


def has_memory_bar(line):
    name = line.row["name"].partition(",")[0]  # frames without reset are frames
    return line.row["kind"] == "trace" or name in MEMORY_ROWS


def judge_first_passes(results):
    """A peer that takes more memory is left out; one whose memory is not known is not."""
    memory = {id(line.row): line for line in results.lines("peak_bytes")}
    for line in results.lines("first_speed"):
        peaks = memory[id(line.row)]
        wanted = [peer for peer in results.wanted if not peaks.ratio(peer)
                  or keeps(1 / peaks.ratio(peer).value, FIRST_PASS_MEMORY, -1)]
        finding = against(line, wanted, 1, lenient=True)
        away = [peer for peer in results.wanted if peer not in wanted]
        if away:
            finding.note = "; ".join(filter(None, (
                finding.note, f"more memory than {FIRST_PASS_MEMORY} of hakmem's:"
                f" {', '.join(away)}")))
        yield finding


def judge_exchanges(line):
    """Blocks handed over for each read-modify-write: what is sure to be must be enough."""
    mine = line.row["sides"].get(SUBJECT) or {}
    least, most = (bench_data.known(mine.get(f"blocks_per_rmw_{end}"))
                   for end in ("at_least", "at_most"))
    finding = Finding(line.label, NOT_SHOWN, HANDED_BLOCKS, 1, "blocks")
    if not least or not most:
        finding.note = "no counters"
        return finding
    finding.value, finding.low, finding.high = bench_data.interval([*map(math.log, least)])
    best = paired.median(most)
    if keeps(finding.value, HANDED_BLOCKS, 1):
        finding.verdict = MET
    elif not keeps(best, HANDED_BLOCKS, 1):
        finding.verdict = BEHIND
    finding.note = f"an upper bound of the counters; at best {best:.2f} blocks"
    return finding


def judge_below(results):
    for entry in results.data["below_depot"]:
        shares = bench_data.known(entry["shares"])
        finding = Finding(entry["name"], NOT_SHOWN, BELOW_LIMIT, -1, "share",
                          note=entry.get("why") or "")
        if shares:
            finding.value = max(shares)
        if shares and not entry.get("why"):
            finding.verdict = MET if finding.value < BELOW_LIMIT else BEHIND
        yield finding


def judge_cache(results):
    """Misses an operation, against the peer that has the fewest."""
    for entry in results.data["cache"]:
        misses, mine = entry["misses"], entry["misses"].get(SUBJECT)
        theirs = {peer: misses[peer] for peer in results.wanted if misses.get(peer) is not None}
        lacking = [peer for peer in results.wanted if peer not in theirs]
        finding = Finding(entry["name"], NOT_SHOWN, 1, -1, note=lacking_text(lacking))
        finding.peer = min(theirs, key=theirs.get, default=None)
        if mine is None or not theirs:
            finding.note = lacking_text([*([SUBJECT] if mine is None else []), *lacking])
        else:
            best = theirs[finding.peer]
            if best > 0:
                finding.value = mine / best
            finding.peers = {peer: (mine / count if count > 0 else None, None, None,
                                    MET if keeps(mine, count, -1) else BEHIND)
                             for peer, count in theirs.items()}
            finding.verdict = worst([verdict for *_, verdict in finding.peers.values()]
                                    + [NOT_SHOWN] * bool(lacking))
            finding.note = "; ".join(filter(None, (
                f"{mine * 1000:.1f} in 1000 operations, {best * 1000:.1f}", finding.note)))
        yield finding


def judge_metadata(results):
    for entry in results.data["metadata"]:
        own, committed = entry.get("metadata_bytes"), entry.get("committed_bytes")
        finding = Finding(entry["name"], NOT_SHOWN, METADATA_LIMIT, -1, "share",
                          note=entry.get("why") or "")
        if own is not None and committed:
            finding.value = own / committed
            finding.verdict = MET if keeps(finding.value, METADATA_LIMIT, -1) else BEHIND
        yield finding


def judge(results):
    """The Bars; one that none of the chosen rows has is left out."""
    speed, wanted = results.lines("speed"), results.wanted
    handed = [line for line in speed if line.row["name"] in HANDED]
    bars = [
        Bar("speed", "behind the best peer in no row",
            [against(line, wanted, 1, lenient=True) for line in speed]),
        Bar("speed, mean", "geometric mean over rows, against the best peer of each, at least"
            f" {MEAN_SHIPPED} (shipped peers), {MEAN_ALL} (with those added)",
            judge_means(results)),
        Bar("peak memory", f"at most {MEMORY_LIMIT} of the smallest peer's",
            [against(line, wanted, MEMORY_LIMIT) for line in results.lines("peak_bytes")
             if has_memory_bar(line)]),
        Bar("first pass", "not behind the best peer whose peak memory is at most"
            f" {FIRST_PASS_MEMORY} of hakmem's", [*judge_first_passes(results)]),
        Bar("handing over, speed", f"at least {HANDED_SPEED} of the best peer's",
            [against(line, wanted, HANDED_SPEED) for line in handed]),
        Bar("handing over, exchanges", f"at least {HANDED_BLOCKS} blocks handed over for each"
            " successful read-modify-write, locks included", [*map(judge_exchanges, handed)]),
        Bar("below the depot", f"under {BELOW_LIMIT:.0%} of instructions",
            [*judge_below(results)]),
        Bar("L1d misses", "simulated, above no allocator: at most the best peer's",
            [*judge_cache(results)]),
        Bar("metadata", f"at most {METADATA_LIMIT:.0%} of what is committed where the most is"
            " live", [*judge_metadata(results)]),
    ]
    return [bar for bar in bars if bar.findings]


def is_met(results, bars):
    """All bars, of all peers, and no run failed."""
    return all(bar.met for bar in bars) and not results.missing and not results.data["failed"]


def load(path):
    """Reads and checks a bars.json; OSError or ValueError, with the path, where it is bad."""
    with open(path, encoding="utf-8") as source:
        try:
            return Results(json.load(source))
        except ValueError as why:  # undecodable text and broken JSON are ValueErrors too
            raise ValueError(f"{path}: {why}") from None
