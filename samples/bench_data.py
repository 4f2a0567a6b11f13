#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the benchmark measured, and the figures that follow from it: for the programs that show it.

    results = bench_data.load("results.json")

A file that is not what bench.py writes is refused with a ValueError that names the place. All
figures that the reports show are made here, the statistics behind them in paired.py.
"""

import json
import math
from collections import namedtuple

import paired

SUBJECT = "hakmem"
KINDS = ("workload", "trace")
MIB = 1 << 20

# Keys of the file that must be there, and what each must be. A list is of objects throughout.
TOP = {
    "quick": bool, "rounds": int, "seconds": float, "date": str, "machine": dict, "compiler": str,
    "flags": str, "commit": str, "sides": list, "missing": list, "rows": list,
}
ROW = {"name": str, "kind": str, "workers": int, "unit": str, "command": str, "sides": dict}
MEASURES = ("speed", "first_speed", "null_speed", "peak_bytes", "fragmentation")
POSITIVE = ("speed", "first_speed", "null_speed")
PERCENTILES = ("p50_ns", "p99_ns", "p99_9_ns", "p99_99_ns", "max_ns")
PERCENTILE_NAMES = ("p50", "p99", "p99.9", "p99.99", "max")
CALLS = ("alloc", "free", "frame")
WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string",
         dict: "an object", list: "a list"}

# low and high are None where one round alone has both sides: it has no interval.
Ratio = namedtuple("Ratio", "value low high verdict")
Tally = namedtuple("Tally", "ahead same behind mean")


def expect(value, kind, where):
    """@value, if it is of @kind."""
    kinds = (int, float) if kind is float else kind
    # true is an int to Python, not to whoever wrote the file
    fits = isinstance(value, kinds) and (kind is bool or not isinstance(value, bool))
    if not fits or (kind is float and not math.isfinite(value)):
        raise ValueError(f"{where}: not {WORDS[kind]}: {json.dumps(value)[:60]}")
    return value


def member(owner, key, kind, where):
    if key not in owner:
        raise ValueError(f"{where}: no {key}")
    return expect(owner[key], kind, f"{where}: {key}")


def members(owner, spec, where):
    expect(owner, dict, where)
    for key, kind in spec.items():
        member(owner, key, kind, where)


def number_or_null(value, where):
    if value is not None:
        expect(value, float, where)


def check_measures(side, rounds, where):
    """What one side did in one row: lists with a number, or null, for each round."""
    expect(side, dict, where)
    for key in MEASURES:
        values = side.get(key)
        if values is None:
            continue
        expect(values, list, f"{where}: {key}")
        if len(values) != rounds:
            raise ValueError(f"{where}: {key}: {len(values)} values, but {rounds} rounds")
        for value in values:
            number_or_null(value, f"{where}: {key}")
            if value is not None and key in POSITIVE and value <= 0:
                raise ValueError(f"{where}: {key}: not above 0: {value}")


def check_percentiles(side, _rounds, where):
    """A latency object: for each kind of call, and each stage of it, a distribution."""
    expect(side, dict, where)
    number_or_null(side.get("timer_ns"), f"{where}: timer_ns")
    for call in CALLS:
        for stage, part in parts_of(side, call, where).items():
            place = f"{where}: {call} {stage}"
            for key in ("count", *PERCENTILES) if part is not None else ():
                value = expect(part, dict, place).get(key)
                number_or_null(value, f"{place}: {key}")
                if value is not None and value < 0:
                    raise ValueError(f"{place}: {key}: below 0: {value}")


def parts_of(side, call, where=""):
    """The distributions of one kind of call by their stage: "all" and others."""
    parts = (side or {}).get(call) or {}
    # what a frame takes has no stages
    return {"all": parts} if call == "frame" and parts else expect(parts, dict, f"{where}: {call}")


def check_points(side, _rounds, where):
    """Checkpoints of the memory in use."""
    expect(side, list, where)
    for index, point in enumerate(side):
        expect(point, dict, f"{where}: checkpoint {index}")
        for key in ("ops", "seconds", "resident_bytes", "live_bytes", "committed_bytes"):
            number_or_null(point.get(key), f"{where}: checkpoint {index}: {key}")


def check_sides(sides, names, rounds, check, where):
    for name, side in sides.items():
        if name not in names:
            raise ValueError(f"{where}: side {name} is not among the sides of the file")
        if side is not None:
            check(side, rounds, f"{where}: {name}")


def check_rows(data, names):
    seen = set()
    for index, row in enumerate(data["rows"]):
        members(row, ROW, f"row {index}")
        where = f"row {row['name']}"
        if row["kind"] not in KINDS:
            raise ValueError(f"{where}: kind is neither workload nor trace: {row['kind']}")
        if (row["name"], row["workers"]) in seen:
            raise ValueError(f"{where}: there twice with workers {row['workers']}")
        seen.add((row["name"], row["workers"]))
        check_sides(row["sides"], names, data["rounds"], check_measures, where)
    if not seen:
        raise ValueError("no rows")


def check_names(data):
    """The names of the sides, hakmem among them."""
    names = []
    for index, side in enumerate(data["sides"]):
        members(side, {"name": str, "how": str}, f"side {index}")
        if side.get("version") is not None:
            expect(side["version"], str, f"side {side['name']}: version")
        if side["name"] in names:
            raise ValueError(f"side {side['name']}: there twice")
        names.append(side["name"])
    if SUBJECT not in names:
        raise ValueError(f"no side {SUBJECT}")
    for name in data["missing"]:
        expect(name, str, "missing")
    return names


def check(data):
    """Raises a ValueError that names what is wrong with @data; returns the names of the sides."""
    expect(data, dict, "the file")
    if data.get("format") != 1:
        raise ValueError(f"format is not 1: {json.dumps(data.get('format'))[:60]}")
    members(data, TOP, "the file")
    if data["rounds"] < 1:
        raise ValueError(f"rounds: not above 0: {data['rounds']}")
    for key, value in data["machine"].items():
        if key in ("processors", "memory_bytes"):
            number_or_null(value, f"machine: {key}")
        elif value is not None:
            expect(value, str, f"machine: {key}")
    names = check_names(data)
    check_rows(data, names)
    extras = {"latency": check_percentiles, "memory": check_points, "soak": check_points}
    for key, test in extras.items():
        for index, entry in enumerate(expect(data.get(key) or [], list, key)):
            members(entry, {"name": str, "sides": dict}, f"{key} {index}")
            for optional, kind in (("workers", int), ("seconds", float), ("command", str)):
                if entry.get(optional) is not None:
                    expect(entry[optional], kind, f"{key} {entry['name']}: {optional}")
            # "null", no allocator at all, is measured here but is no side
            sides = {**dict.fromkeys(names), "null": None}
            check_sides(entry["sides"], sides, 0, test, f"{key} {entry['name']}")
    return names


def known(values):
    return [value for value in values or [] if value is not None]


def median(values):
    """None for none: a report shows a dash."""
    values = known(values)
    return paired.median(values) if values else None


def interval(logs):
    """The median of logarithms with its interval, as factors: (value, low, high)."""
    value = math.exp(paired.median(logs))
    if len(logs) < 2:
        return value, None, None
    low, high = paired.bootstrap_interval(logs)
    return value, math.exp(low), math.exp(high)


def label_of(entry):
    """The name, with the workers where there are several."""
    workers = entry.get("workers") or 1
    return f"{entry['name']} x{workers}" if workers > 1 else entry["name"]


class Line:
    """One measure of one row, of all sides; @better is 1 where more is better, -1 where less."""

    def __init__(self, row, key, better, label):
        self.row, self.key, self.better, self.label = row, key, better, label
        self.ratios = {}

    def values(self, side):
        """One a round, None where there is none."""
        return (self.row["sides"].get(side) or {}).get(self.key) or []

    def median(self, side):
        return median(self.values(side))

    def spread(self, side):
        """The interval of the side's own median, (low, high), or None."""
        logs = [math.log(value) for value in known(self.values(side)) if value > 0]
        return interval(logs)[1:] if len(logs) > 1 else None

    def ratio(self, peer):
        """hakmem over the peer, or None."""
        if peer not in self.ratios:
            self.ratios[peer] = self.make_ratio(peer)
        return self.ratios[peer]

    def make_ratio(self, peer):
        rounds = zip(self.values(SUBJECT), self.values(peer))
        # What is not above 0 has no ratio: a peak can be that of the null allocator.
        logs = [math.log(a / b) for a, b in rounds if a and b and a > 0 and b > 0]
        if not logs:
            return None
        value, low, high = interval(logs)
        if low is None or low <= 1 <= high:
            return Ratio(value, low, high, "same")
        return Ratio(value, low, high, "ahead" if (low > 1) == (self.better > 0) else "behind")

    def best(self, peers):
        """The peer that hakmem does worst against, or None."""
        there = [peer for peer in peers if self.ratio(peer)]
        return min(there, key=lambda peer: self.better * self.ratio(peer).value, default=None)


class Results:
    """A results.json that is known to be well, and what follows from it."""

    def __init__(self, data):
        self.data = data
        self.sides = check(data)
        self.peers = [name for name in self.sides if name != SUBJECT]
        self.about = {side["name"]: side for side in data["sides"]}
        self.quick, self.rounds = data["quick"], data["rounds"]
        self.speed, self.memory = [], []
        for row in data["rows"]:
            label = label_of(row)
            self.speed.append(Line(row, "speed", 1, label))
            if any((side or {}).get("first_speed") for side in row["sides"].values()):
                self.speed.append(Line(row, "first_speed", 1, f"{label} first pass"))
            self.memory.append(Line(row, "peak_bytes", -1, label))
        self.latency = data.get("latency") or []
        self.checkpoints = data.get("memory") or []
        self.soak = data.get("soak") or []

    def full_name(self, side):
        """The name with the version where it is known."""
        version = self.about[side].get("version")
        return f"{side} {version}" if version else side

    def facts(self):
        """What the reader has to know of how the figures came about: {what: text}."""
        data, machine = self.data, self.data["machine"]
        parts = [machine.get("processor"),
                 machine.get("processors") and f"{machine['processors']} processors",
                 machine.get("memory_bytes") and f"{bytes_text(machine['memory_bytes'])} of memory",
                 machine.get("system"), machine.get("kernel")]
        quick = " (quick)" if self.quick else ""
        return {
            "machine": ", ".join(str(part) for part in parts if part),
            "compiler": f"{data['compiler']}, {data['flags']}",
            "commit": data["commit"],
            "date": data["date"],
            "rounds": f"{self.rounds}{quick}, in {duration_text(data['seconds'])}",
            "sides": ", ".join(map(self.full_name, self.sides)),
        }

    def commands(self):
        """(label, command) of all that was run."""
        kinds = {"": self.data["rows"], ", latency": self.latency, ", memory": self.checkpoints,
                 ", soak": self.soak}
        return [(label_of(entry) + kind, entry["command"]) for kind, entries in kinds.items()
                for entry in entries if entry.get("command")]

    def fragmentation(self):
        """[(label, [median of each side])...] of the rows that have any."""
        rows = [(line.label, [median((line.row["sides"].get(side) or {}).get("fragmentation"))
                              for side in self.sides]) for line in self.memory]
        return [(label, values) for label, values in rows if known(values)]

    def null_speed(self, row):
        """The same loop over no allocator: the median over all sides, that run the same loop."""
        sides = [side for side in row["sides"].values() if side]
        return median([value for side in sides for value in known(side.get("null_speed"))])

    def tally(self, lines, peer):
        """Lines ahead, without a difference and behind a peer, and the mean of the ratios."""
        return tally([line.ratio(peer) for line in lines])

    def tally_best(self, lines):
        """The same against the best peer of each line."""
        return tally([line.ratio(line.best(self.peers)) for line in lines if line.best(self.peers)])

    def listed(self, lines, verdict):
        """(line, [(peer, ratio)...]) of the lines that have peers with this verdict."""
        found = []
        for line in lines:
            ratios = [(peer, line.ratio(peer)) for peer in self.peers]
            ratios = [(peer, ratio) for peer, ratio in ratios if ratio and ratio.verdict == verdict]
            if ratios:
                found.append((line, ratios))
        return found


def tally(ratios):
    ratios = [ratio for ratio in ratios if ratio]
    verdicts = [ratio.verdict for ratio in ratios]
    mean = paired.geometric_mean([ratio.value for ratio in ratios]) if ratios else None
    return Tally(*(verdicts.count(verdict) for verdict in ("ahead", "same", "behind")), mean)


def latency_parts(entry):
    """(call, side, stage, distribution) of all that an entry has; stage "all" is all of a call."""
    return [(call, name, stage, part) for call in CALLS for name, side in entry["sides"].items()
            for stage, part in parts_of(side, call).items() if part]


def decades(entries):
    """The powers of ten between which all latencies lie, so that all charts have one axis."""
    found = [part[key] for entry in entries for *_, part in latency_parts(entry)
             for key in PERCENTILES if part.get(key)]
    low = math.floor(math.log10(min(found, default=1)))
    return low, max(math.ceil(math.log10(max(found, default=1))), low + 1)


def series(entry, by):
    """[(side, [(at, bytes)...])...] of resident memory; last, as None, the program's live bytes."""
    found = [(name, points or [], "resident_bytes") for name, points in entry["sides"].items()]
    # the program is the same on all sides
    found.append((None, next((points for _, points, _ in found if points), []), "live_bytes"))
    made = [(name, [(point[by], point[key]) for point in points
                    if point.get(by) is not None and point.get(key) is not None])
            for name, points, key in found]
    return [(name, points) for name, points in made if points]


def round_steps(top):
    """Round numbers from 0 to @top or above, for an axis: at most six of them."""
    base = 10.0 ** math.floor(math.log10(max(top, 1e-9) / 4))
    step = next(base * factor for factor in (1, 2, 2.5, 5, 10) if top <= 5 * base * factor)
    return [step * index for index in range(max(math.ceil(top / step), 1) + 1)]


def drift(points, key="resident_bytes"):
    """Growth over a long run: the last quarter's median over the second's, less 1; or None.

    The first quarter is left out: there the program itself still fills its memory.
    """
    quarter = len(points) // 4
    early = median([point.get(key) for point in points[quarter : 2 * quarter]])
    late = median([point.get(key) for point in points[len(points) - quarter :]])
    return late / early - 1 if early and late is not None else None


def speed_drift(points):
    """The same of the operations a second."""
    quarter, speeds = len(points) // 4, []
    for part in (points[quarter : 2 * quarter], points[len(points) - quarter :]):
        ends = [(point.get("ops"), point.get("seconds")) for point in (part[:1] + part[-1:])]
        if len(ends) < 2 or None in ends[0] + ends[1] or ends[1][1] <= ends[0][1]:
            return None
        speeds.append((ends[1][0] - ends[0][0]) / (ends[1][1] - ends[0][1]))
    return speeds[1] / speeds[0] - 1 if speeds[0] else None


def load(path):
    """Reads and checks a results.json; OSError or ValueError, with the path, where it is bad."""
    with open(path, encoding="utf-8") as source:
        try:
            return Results(json.load(source))
        except ValueError as why:  # undecodable text and broken JSON are ValueErrors too
            raise ValueError(f"{path}: {why}") from None


# How figures are written, the same everywhere. None is a dash.


def significant(value, digits=3):
    """@value with so many significant digits and no exponent: 179, 63.1, 0.0512."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")  # 9.996 has one decimal less than 9.99
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:.{max(decimals, 0)}f}"


def scaled(value, units, base=1):
    """@value in the largest of units, (factor, name) from the smallest, in which it is over 1."""
    if value is None:
        return "-"
    factor, name = units[0]
    for larger, unit in units[1:]:
        if abs(value) >= larger * base * 0.9995:
            factor, name = larger, unit
    return f"{significant(value / factor)} {name}"


def speed_text(value):
    return scaled(value, [(1, "/s"), (1e3, "k/s"), (1e6, "M/s")])


def count_text(value):
    """For an axis: without zeros behind the point."""
    number, _, unit = scaled(value, [(1, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")]).partition(" ")
    return f"{float(number):g} {unit}".strip()


def bytes_text(value):
    return scaled(value, [(1, "B"), (1 << 10, "KiB"), (MIB, "MiB"), (1 << 30, "GiB")])


def time_text(value):
    """Of nanoseconds."""
    return scaled(value, [(1, "ns"), (1e3, "us"), (1e6, "ms"), (1e9, "s")])


def duration_text(seconds):
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else (
        f"{rest} s")


def percent_text(share):
    return "-" if share is None else f"{100 * share:+.1f} %"


def percentile_text(part):
    return ", ".join(f"{name} {time_text(part.get(key))}"
                     for name, key in zip(PERCENTILE_NAMES, PERCENTILES))


def drift_text(entry):
    """Of each side of a soak, and of the live bytes in it."""
    told = [f"{name} {percent_text(drift(points))}"
            f" (live {percent_text(drift(points, 'live_bytes'))})"
            for name, points in entry["sides"].items() if points]
    return f"; drift: {', '.join(told)}"


def ratio_texts(ratio):
    """(value, interval): as many decimals as show on which side of 1 the interval lies."""
    if ratio is None:
        return "-", ""
    figures = [figure for figure in ratio[:3] if figure is not None]
    decimals = 2
    if ratio.verdict != "same":
        while decimals < 5 and any(float(f"{figure:.{decimals}f}") == 1 for figure in figures):
            decimals += 1
    texts = [f"{figure:.{decimals}f}" if figure < 10 else significant(figure)
             for figure in figures]
    return texts[0], f"[{texts[1]}, {texts[2]}]" if len(texts) > 1 else ""


def mean_text(mean):
    if mean is None:
        return "-"
    # 1.00 would hide on which side of 1 it lies
    return significant(mean) if mean >= 10 else f"{mean:.{3 if abs(mean - 1) < 0.005 else 2}f}"
