#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks what the benchmark's reports make of made-up results.

    check_report.py

Looks at the figures (bench_data.py), the page (bench_html.py), the tables, the CSV and the
README's part (bench_tables.py), and at what is said of files that are not well. Nothing is
measured and nothing has to be built.
"""

import copy
import csv
import html.parser
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SAMPLES = os.path.join(ROOT, "samples")
sys.dont_write_bytecode = True
sys.path.insert(0, SAMPLES)

import bench_data  # noqa: E402 (the path comes first)
import bench_html  # noqa: E402
import bench_tables  # noqa: E402

WORKLOADS = """larson larson-wide churn burst storm lifetime varsize handoff mesh scratch workers
large grow pairs pinned frames replay""".split()
TRACES = ["minetest", "godot"]
SIDES = {"hakmem": "0.1.0", "glibc": "2.36", "mimalloc": "2.0.9", "jemalloc": "5.3.0",
         "tcmalloc": "2.10", "snmalloc": None}
STAGES = ("hit", "spare_swap", "depot_swap", "slab_batch", "new_slab", "large", "platform_call")
README = "# top\n\n{}\nold\n{}\n\nrest\n"
VOID = {"meta", "br", "link", "img", "hr", "input"}


class Checks:
    """Counts what holds and tells what does not."""

    def __init__(self, folder):
        self.folder = folder
        self.passed = self.failed = 0

    def check(self, holds, what):
        if holds:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED: {what}")

    def equal(self, found, expected, what):
        self.check(found == expected, f"{what}: {found!r}, not {expected!r}")

    def file(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8", newline="") as out:
            out.write(content if isinstance(content, str) else json.dumps(content))
        return path

    def read(self, name):
        with open(os.path.join(self.folder, name), encoding="utf-8", newline="") as source:
            return source.read()

    def run(self, program, arguments, code):
        """Runs a report's program, checks its exit code, returns (stdout, stderr)."""
        command = [sys.executable, os.path.join(SAMPLES, program), *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=False, timeout=120, encoding="utf-8")
        told = " ".join([program, *arguments])
        self.equal(done.returncode, code, f"{told}: exit code, {done.stderr[-500:]}")
        self.check("Traceback" not in done.stderr, f"{told}: {done.stderr[-500:]}")
        return done.stdout, done.stderr


# Made-up results


def distribution(chance, base, count):
    values = [round(base * factor * chance.uniform(0.8, 1.3)) for factor in (1, 1.6, 6, 40, 4000)]
    return {"count": count, **dict(zip(bench_data.PERCENTILES, values))}


def latency(chance, side):
    """A latency object: libc and nothing have no stages."""
    made = {"timer_ns": 21, "frame": distribution(chance, 40000, 2000)}
    for call, known in (("alloc", STAGES), ("free", STAGES[:4])):
        made[call] = {"all": distribution(chance, 2 if side == "null" else 12, 1000000)}
        for index, stage in enumerate(known if side == "hakmem" else ()):
            made[call][stage] = distribution(chance, 11 * 4**index, 900000 // 9**index)
    return made


def checkpoints(chance, side):
    """32 of them, of memory that grows and then stays."""
    made = []
    for index in range(32):
        live = round(60e6 * min(1, (index + 1) / 8))
        made.append({"ops": (index + 1) * 250000, "seconds": (index + 1) * 18.75,
                     "resident_bytes": round(live * chance.uniform(1.1, 1.2)), "live_bytes": live,
                     "committed_bytes": live * 2 if side == "hakmem" else None})
    return made


def measures(chance, kind, speed, memory, rounds):
    """One side of a row."""
    def series(middle, spread):
        return [middle * chance.uniform(1 - spread, 1 + spread) for _ in range(rounds)]

    made = {"speed": series(speed, 0.02), "peak_bytes": [round(n) for n in series(memory, 0.004)]}
    if kind == "trace":
        return {**made, "first_speed": series(speed / 3, 0.02)}
    fragmentation = None if chance.random() < 0.2 else series(1.2, 0.02)
    return {**made, "null_speed": series(speed * 3.4, 0.01), "fragmentation": fragmentation}


def make_rows(chance, rounds):
    rows = []
    for name in WORKLOADS + TRACES:
        kind = "trace" if name in TRACES else "workload"
        base, memory = 10 ** chance.uniform(4.6, 8), 10 ** chance.uniform(6, 8.6)
        workers = 2 if name in ("handoff", "workers", "larson-wide") else 1
        sides = {"hakmem": measures(chance, kind, base, memory, rounds)}
        for side in list(SIDES)[1:]:
            speed = base * chance.choice((0.55, 0.75, 0.9, 0.97, 1, 1, 1.04, 1.2, 1.5))
            peak = memory * chance.choice((0.8, 0.95, 1, 1.03, 1.1, 1.4))
            sides[side] = measures(chance, kind, speed, peak, rounds)
        rows.append({"name": name, "kind": kind, "workers": workers, "sides": sides,
                     "unit": "events" if kind == "trace" else "operations",
                     "command": f"workload {name} --workers {workers}"})
    return rows


def make(seed=1, rounds=7, quick=False, soak=True):
    """A results.json with all that there can be: sides that are missing, nulls, losses."""
    chance = random.Random(seed)
    rows = make_rows(chance, rounds)
    rows[11]["sides"]["snmalloc"] = None
    del rows[12]["sides"]["snmalloc"]
    rows[13]["sides"]["tcmalloc"]["speed"][-1] = None
    data = {
        "format": 1, "quick": quick, "rounds": rounds, "seconds": 1150.2, "date": "2026-11-26",
        "machine": {"processor": "Some CPU", "processors": 2, "memory_bytes": 25e9,
                    "kernel": "6.1.0", "system": "Debian GNU/Linux 12"},
        "compiler": "gcc 12.2.0", "flags": "-O2", "commit": "533c3bc+", "missing": ["tbbmalloc"],
        "sides": [{"name": name, "version": version, "how": f"--allocator {name}"}
                  for name, version in SIDES.items()],
        "rows": rows,
        "latency": [{"name": "larson", "workers": 1, "command": "workload larson --latency",
                     "sides": {side: latency(chance, side) for side in [*SIDES, "null"]}}],
        "memory": [{"name": "lifetime", "workers": 1, "command": "workload lifetime --memory",
                    "sides": {side: checkpoints(chance, side) for side in SIDES}}],
    }
    data["latency"][0]["sides"]["glibc"] = None
    data["memory"][0]["sides"]["jemalloc"] = None
    if soak:
        data["soak"] = [{"name": "frames", "command": "workload frames", "seconds": 600,
                         "sides": {"hakmem": checkpoints(chance, "hakmem")}}]
    return data


def small(speeds, peaks, rounds=5):
    """One row, each side with the same figure in each round."""
    data = make(rounds=rounds, soak=False)
    data.update(sides=[{"name": name, "version": None, "how": "-"} for name in speeds],
                latency=[], memory=[], missing=[], commit="533c3bc")
    sides = {name: {"speed": [speeds[name]] * rounds, "peak_bytes": [peaks[name]] * rounds}
             for name in speeds}
    data["rows"] = [{**data["rows"][0], "sides": sides}]
    return data


# The checks


def check_figures(checks):
    results = bench_data.Results(small({"hakmem": 3e6, "a": 2e6, "b": 4e6, "c": 3e6},
                                       {"hakmem": 8 << 20, "a": 4 << 20, "b": 16 << 20, "c": 0}))
    speed, memory = results.speed[0], results.memory[0]
    found = {peer: (*bench_data.ratio_texts(speed.ratio(peer)), speed.ratio(peer).verdict)
             for peer in results.peers}
    checks.equal(found, {"a": ("1.50", "[1.50, 1.50]", "ahead"),
                         "b": ("0.75", "[0.75, 0.75]", "behind"),
                         "c": ("1.00", "[1.00, 1.00]", "same")}, "ratios of speed")
    checks.equal(memory.ratio("a").verdict, "behind", "twice the memory")
    checks.equal(round(memory.ratio("a").value, 9), 2.0, "twice the memory, as a ratio")
    checks.equal(memory.ratio("b").verdict, "ahead", "half the memory")
    checks.equal(memory.ratio("c"), None, "a peak of 0 has no ratio")
    checks.equal((speed.best(results.peers), memory.best(results.peers)), ("b", "a"), "best peers")
    checks.equal(results.tally_best(results.speed)[:3], (0, 0, 1), "behind the best peer")
    checks.equal(round(results.tally_best(results.speed).mean, 9), 0.75, "its mean")


def check_pairs(checks):
    """Ratios are of the same round, the median's, and null rounds are left out."""
    data = small({"hakmem": 1e6, "a": 1e6}, {"hakmem": 1, "a": 1})
    sides = data["rows"][0]["sides"]
    sides["hakmem"]["speed"] = [2e6, 20e6, 200e6, 2000e6, None]
    sides["a"]["speed"] = [1e6, 10e6, 100e6, 500e6, 1]
    ratio = bench_data.Results(data).speed[0].ratio("a")
    checks.equal(bench_data.ratio_texts(ratio), ("2.00", "[2.00, 4.00]"), "pairs of a round")
    sides["a"]["speed"] = [None, 10e6, None, None, 1]
    ratio = bench_data.Results(data).speed[0].ratio("a")
    checks.equal((ratio.low, ratio.verdict), (None, "same"), "one round alone shows nothing")
    sides["a"]["speed"] = [None] * 5
    checks.equal(bench_data.Results(data).speed[0].ratio("a"), None, "no round, no ratio")
    sides["hakmem"] = None
    results = bench_data.Results(data)
    checks.equal(results.speed[0].median("hakmem"), None, "hakmem itself missing")
    checks.check("| - |" in "\n".join(bench_tables.md_part(results)), "and a dash for it")


def check_means(checks):
    data = small({"hakmem": 4e6, "a": 1e6}, {"hakmem": 9, "a": 1})
    data["rows"].append(copy.deepcopy(data["rows"][0]))
    data["rows"][1].update(name="second", kind="trace")
    data["rows"][1]["sides"]["hakmem"].update(speed=[1e6] * 5, first_speed=[1e6] * 5)
    data["rows"][1]["sides"]["a"]["first_speed"] = [2e6] * 5
    results = bench_data.Results(data)
    one = results.tally(results.speed, "a")
    checks.equal(one[:3], (1, 1, 1), "ahead, the same and behind, the first pass too")
    checks.equal(round(one.mean, 9), round(2 ** (1 / 3), 9), "geometric mean of 4, 1 and 1/2")
    checks.equal(round(results.tally(results.memory, "a").mean, 9), 9.0, "of memory")


def check_texts(checks):
    checks.equal([bench_data.significant(value) for value in (179.4, 63.14, 9.996, 0.05123, 0)],
                 ["179", "63.1", "10.0", "0.0512", "0"], "three digits")
    checks.equal(bench_data.time_text(1234), "1.23 us", "microseconds")
    checks.equal(bench_data.time_text(999.9), "1.00 us", "no 1000 ns")
    checks.equal(bench_data.bytes_text(3 << 19), "1.50 MiB", "MiB")
    checks.equal(bench_data.speed_text(None), "-", "a dash")
    near = bench_data.Ratio(0.9985, 0.997, 0.9991, "behind")
    checks.equal(bench_data.ratio_texts(near), ("0.999", "[0.997, 0.999]"), "on which side of 1")
    points = [{"resident_bytes": value} for value in [1] * 8 + [100] * 16 + [110] * 8]
    checks.equal(bench_data.percent_text(bench_data.drift(points)), "+10.0 %", "drift")


class Balance(html.parser.HTMLParser):
    """Every element is ended, in order; collects what is needed of the page."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.classes, self.ids, self.targets = [], [], [], [], []
        self.text, self.tables = [], []

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.classes.append(known.get("class", ""))
        if tag == "table":
            self.tables.append([])
        self.ids += [known["id"]] if "id" in known else []
        for name in ("aria-labelledby", "href"):
            self.targets += [part.lstrip("#") for part in known.get(name, "").split()]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"{tag} at {self.getpos()}")

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)
            if "th" in self.open and self.tables:
                self.tables[-1].append(data)


def parsed(text):
    page = Balance()
    page.feed(text)
    page.close()
    return page


def check_page(checks, data, name):
    path = os.path.join(checks.folder, "page.html")
    bench_html.write(data, path)
    text = checks.read("page.html")
    page = parsed(text)
    checks.equal((page.wrong, page.open), ([], []), f"{name}: every element ends in its place")
    checks.equal(len(page.ids), len(set(page.ids)), f"{name}: ids are there once")
    checks.equal(set(page.targets) - set(page.ids), set(), f"{name}: references lead somewhere")
    for link in re.findall(r"(?:\w+:)?//[^\s\"'<)]+", text):
        checks.equal(link, "http://www.w3.org/2000/svg", f"{name}: nothing from elsewhere")
    checks.check("<script" not in text and "url(" not in text, f"{name}: no script, no image")
    words = " ".join(page.text)
    for bad in ("None", "nan", "NaN", "inf ", "null"):
        checks.check(not re.search(rf"\b{bad}\b", words), f"{name}: no {bad!r} in the text")
    return text, page


def check_html(checks):
    data = make()
    results = bench_data.Results(copy.deepcopy(data))
    text, page = check_page(checks, data, "full")
    heads = [set(part.strip() for part in table) for table in page.tables]
    heat = [head for head in heads if "workload" in head and "hakmem" in head]
    checks.check(len(heat) >= 2, "two heat tables")
    for line in results.speed:
        checks.check(line.label in heat[0], f"{line.label} in the table of speed")
        checks.check(f"Speed of {line.label}<" in text, f"{line.label} has bars")
    for line in results.memory:
        checks.check(line.label in heat[1], f"{line.label} in the table of memory")
    for side in SIDES:
        checks.check(all(side in head for head in heat[:2]), f"{side} in the heat tables")
    lines = results.speed + results.memory
    for verdict in ("ahead", "same", "behind"):
        count = sum(len(ratios) for _, ratios in results.listed(lines, verdict))
        found = sum(css.split()[:1] == [verdict] for css in page.classes)
        checks.equal(found, count, f"cells of class {verdict}")
        checks.check(count > 3, f"the made-up results have {verdict}")
    for what in ("tbbmalloc", "handoff x2", "godot first pass", "The tree differed", "Soak",
                 "platform call", "p99.99", "live", "no allocator", "533c3bc+",
                 "Some CPU", "gcc 12.2.0", "geometric mean"):
        checks.check(what in text, f"the page says {what}")
    checks.check("uick run" not in text, "a full run is not called quick")
    check_order(checks, text)
    again = os.path.join(checks.folder, "again.html")
    bench_html.write(bench_data.Results(data), again)
    checks.check(checks.read("again.html") == text, "the same results make the same page")


def check_order(checks, text):
    found = re.findall(r'<h2 id="(\w+)"', text)
    checks.equal(found, ["summary", "speed", "peak", "throughput", "latency", "memory", "soak",
                         "method"], "the page's order")


def check_html_variants(checks):
    text, _ = check_page(checks, make(2, rounds=1, quick=True, soak=False), "quick")
    checks.check("<h1>hakmem: benchmark (quick run)" in text, "quick is in the heading")
    checks.check('class="banner"><b>Quick run (--quick)' in text, "and in a banner")
    checks.check('id="soak"' not in text, "no soak, no section of it")
    _, page = check_page(checks, small({"hakmem": 1e6, "a": 2e6}, {"hakmem": 2, "a": 1}), "behind")
    checks.equal([css for css in page.classes if css.startswith(("ahead", "behind"))],
                 ["behind k4", "behind k4"], "a loss has the strongest colour of losses")
    odd = 'a<b>&"\'x'
    data = small({"hakmem": 1e6, odd: 2e6}, {"hakmem": 2, odd: 1})
    data["rows"][0]["name"] = data["missing"] = odd
    data.update(missing=[odd], commit=odd, compiler=odd, flags=odd)
    data["sides"][1].update(version="<i>", how="<script>")
    text, page = check_page(checks, data, "odd names")
    checks.check("<b>&\"" not in text and "a&lt;b&gt;&amp;" in text, "odd names are escaped")
    checks.check(odd in page.text, "and read as they are")
    data = small({"hakmem": 1e6}, {"hakmem": 1})
    one = {"alloc": {"all": {"count": 1, "p50_ns": 0, "max_ns": 100}}}
    data["latency"] = [{"name": "one", "sides": {"hakmem": one}}]
    check_page(checks, data, "no peers at all, and one latency")


def check_missing(checks):
    """Absent and null values are dashes everywhere."""
    data = make(3)
    for side in data["rows"][0]["sides"].values():
        side.update(speed=None, null_speed=None, fragmentation=None, peak_bytes=[None] * 7)
    data["rows"][1]["sides"]["hakmem"] = None
    data["latency"][0]["sides"]["hakmem"]["alloc"]["hit"] = None
    data["latency"][0]["sides"]["mimalloc"]["alloc"]["all"].update(p99_9_ns=None, count=None)
    data["latency"][0]["sides"]["jemalloc"].update(timer_ns=None, frame=None, free=None)
    data["memory"][0]["sides"]["hakmem"][5]["resident_bytes"] = None
    data["memory"].append({"name": "empty", "sides": {"hakmem": None, "glibc": []}})
    data["soak"][0]["sides"]["hakmem"] = data["soak"][0]["sides"]["hakmem"][:2]
    data["machine"] = {}
    _, page = check_page(checks, data, "missing values")
    checks.check("-" in page.text, "a dash in the page")
    checks.check("not measured" in "".join(page.text), "a chart without data says so")
    results = bench_data.Results(data)
    told = io.StringIO()
    bench_tables.print_terminal(results, told, 80)
    for name, text in (("README", "\n".join(bench_tables.md_part(results))),
                       ("terminal", told.getvalue())):
        checks.check(not re.search(r"\b(None|nan|null)\b", text), f"{name}: no None, no nan")
    checks.check("| larson | - | - | - | - | - | - |" in "\n".join(bench_tables.md_part(results)),
                 "a row without values is dashes")


def check_csv(checks):
    data = make()
    source, target = checks.file("results.json", data), os.path.join(checks.folder, "out.csv")
    checks.run("bench_tables.py", [source, "--csv", target], 0)
    with open(target, encoding="utf-8", newline="") as table:
        lines = list(csv.DictReader(table))
    sides = sum(bool(side) for row in data["rows"] for side in row["sides"].values())
    checks.equal(sides, 19 * 6 - 2, "sides that were measured")
    checks.equal(len(lines), sides * 7, "a line for each row, side and round")
    rows = {row["name"]: row for row in data["rows"]}
    wrong = []
    for line in lines:
        side = rows[line["row"]]["sides"][line["side"]]
        for key in bench_data.MEASURES:
            value = (side.get(key) or [None] * 7)[int(line["round"]) - 1]
            if (float(line[key]) if line[key] else None) != value:
                wrong.append((line["row"], line["side"], line["round"], key))
    checks.equal(wrong, [], "the numbers come back")
    checks.equal(lines[0]["version"], "0.1.0", "versions")


def check_readme(checks):
    source = checks.file("results.json", make())
    begin, end = bench_tables.BEGIN, bench_tables.END
    path = checks.file("README.md", README.format(begin, end))
    out, _ = checks.run("bench_tables.py", [source, "--check", path], 1)
    checks.check("-old" in out.split("\n"), "--check tells what differs")
    checks.check(out.count("\n") < 30, "and not at length")
    checks.run("bench_tables.py", [source, "--readme", path], 0)
    first = checks.read("README.md")
    checks.check(first.startswith(f"# top\n\n{begin}\n"), "what is before stays")
    checks.check(first.endswith(f"\n{end}\n\nrest\n"), "what is behind stays")
    checks.run("bench_tables.py", [source, "--readme", path], 0)
    checks.check(checks.read("README.md") == first, "written again, nothing changes")
    checks.run("bench_tables.py", [source, "--check", path], 0)
    places = [place.start() for place in re.finditer(r"\d", first)]
    for place in places[:: max(1, len(places) // 6)]:
        digit = str((int(first[place]) + 1) % 10)
        checks.file("README.md", first[:place] + digit + first[place + 1 :])
        checks.run("bench_tables.py", [source, "--check", path], 1)
    head = "\n".join((bench_tables.HEAD_BEGIN, "stale", bench_tables.HEAD_END, ""))
    path = checks.file("README.md", head + README.format(begin, end))
    checks.run("bench_tables.py", [source, "--readme", path], 0)
    text = checks.read("README.md")
    checks.check("stale" not in text and "| speed, mean of" in text, "the short table is written")
    checks.file("README.md", text.replace("| speed, mean of", "| speed, means of", 1))
    checks.run("bench_tables.py", [source, "--check", path], 1)
    checks.file("README.md", text.replace(bench_tables.HEAD_END, "", 1))
    checks.run("bench_tables.py", [source, "--check", path], 1)
    for name, text in (("no marks", "# top\n"), ("no end", f"{begin}\n"),
                       ("twice", f"{begin}\n{begin}\n{end}\n"), ("reversed", f"{end}\n{begin}\n")):
        checks.file("README.md", text)
        for option in ("--readme", "--check"):
            _, error = checks.run("bench_tables.py", [source, option, path], 1)
            checks.check("README.md" in error and "bench:" in error, f"{name}: {error!r}")
        checks.equal(checks.read("README.md"), text, f"{name}: nothing written")


def check_readme_part(checks):
    results = bench_data.Results(make())
    part = "\n".join(bench_tables.md_part(results))
    for what in ("`ninja bench`", "2026-11-26", "533c3bc+", "Some CPU", "gcc 12.2.0", "rounds: 7"):
        checks.check(what in part, f"the part says {what}")
    for line, ratios in results.listed(results.speed + results.memory, "behind"):
        item = next((text for text in part.split("\n") if text.startswith(
            f"- {line.label}, {'speed' if line.better > 0 else 'peak memory'}:")), "")
        for peer, ratio in ratios:
            value, interval = bench_data.ratio_texts(ratio)
            checks.check(f"{peer} {value} {interval}" in item, f"{line.label}, {peer}: in the list")
            cell = f"**{value}** <sub>{interval}</sub>"
            checks.check(cell in part, f"{line.label}, {peer}: bold")
    for _, lines in bench_tables.kinds(results):
        for line, ratios in results.listed(lines, "same"):
            told = f"{line.label} ({', '.join(peer for peer, _ in ratios)})"
            checks.check(told in part, f"no difference shown is told: {told}")
    every = bench_data.Results(small({"hakmem": 1e6, "a": 2e6}, {"hakmem": 2, "a": 1}))
    part = "\n".join(bench_tables.md_part(every))
    for what in ("ahead in 0, behind in 1, no difference is shown in 0; geometric mean 0.50",
                 "- larson, speed: a 0.50 [0.50, 0.50]",
                 "- larson, peak memory: a 2.00 [2.00, 2.00]"):
        checks.check(what in part, f"losing everywhere is told: {what}")
    never = bench_data.Results(small({"hakmem": 2e6, "a": 1e6}, {"hakmem": 1, "a": 2}))
    part = "\n".join(bench_tables.md_part(never))
    checks.check("behind: nowhere in these tables" in part and "**" not in part.replace(
        "**Bold**", ""), "ahead everywhere, nothing is bold")
    checks.check("| larson | 2.00 | 2.00 <sub>" in part, "hakmem's own speed, in M/s")
    points = [{"ops": at * at, "seconds": at, "resident_bytes": 100 + (at >= 24) * 5,
               "live_bytes": 50, "committed_bytes": 200} for at in range(1, 33)]
    checks.equal(bench_tables.md_drift(points), "resident memory +5.0 %, speed +128.0 %,"
                 " the program's live bytes +0.0 %", "drift of a run that gets faster")
    quick = bench_data.Results(make(quick=True))
    checks.check("**A quick run" in bench_tables.md_part(quick)[0], "quick is told first")
    odd = "\n".join(bench_tables.md_part(bench_data.Results(
        small({"hakmem": 1, "x|y": 2}, {"hakmem": 1, "x|y": 2}))))
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in odd.split("\n") if line[:1] == "|"}
    checks.equal(widths, {4}, "a name with a bar keeps the columns")


def check_terminal(checks):
    source = checks.file("results.json", make())
    out, _ = checks.run("bench_tables.py", [source], 0)
    longest = max(out.split("\n"), key=len)
    checks.check(len(longest) <= 80, f"no terminal, 80 columns: {longest!r}")
    results = bench_data.Results(make())
    for width in (40, 60, 80, 200):
        told = io.StringIO()
        bench_tables.print_terminal(results, told, width)
        text = told.getvalue()
        checks.check(max(map(len, text.split("\n"))) <= width, f"{width} columns are kept")
        for name in [*SIDES, *WORKLOADS, *TRACES]:
            checks.check(name in text, f"{width} columns: {name} is there")
        checks.equal("[" in text, width == 200, f"{width} columns: intervals where there is room")
        value = bench_data.ratio_texts(results.speed[0].ratio("glibc"))[0]
        mark = {"ahead": "+", "behind": "-", "same": ""}[results.speed[0].ratio("glibc").verdict]
        checks.check(value + mark in text, f"{width} columns: the first ratio and its mark")


def spoiled():
    """(what the message must say, how the data is spoiled)."""
    def first(data):
        return data["rows"][0]

    return [
        ("format is not 1", lambda d: d.update(format=2)),
        ("no rounds", lambda d: d.pop("rounds")),
        ("quick: not true or false", lambda d: d.update(quick=1)),
        ("rounds: not above 0", lambda d: d.update(rounds=0)),
        ("rounds: not an integer", lambda d: d.update(rounds=True)),
        ("machine: not an object", lambda d: d.update(machine=[])),
        ("machine: memory_bytes: not a number", lambda d: d["machine"].update(memory_bytes="1")),
        ("machine: kernel: not a string", lambda d: d["machine"].update(kernel=6)),
        ("no side hakmem", lambda d: d["sides"].pop(0)),
        ("side glibc: there twice", lambda d: d["sides"].append(d["sides"][1])),
        ("side 1: no how", lambda d: d["sides"][1].pop("how")),
        ("no rows", lambda d: d.update(rows=[])),
        ("row 0: no sides", lambda d: first(d).pop("sides")),
        ("row larson: kind", lambda d: first(d).update(kind="other")),
        ("row larson: there twice", lambda d: d["rows"].append(first(d))),
        ("row larson: side other", lambda d: first(d)["sides"].update(other={})),
        ("row larson: glibc: not an object", lambda d: first(d)["sides"].update(glibc=3)),
        ("row larson: hakmem: speed: 6 values, but 7 rounds",
         lambda d: first(d)["sides"]["hakmem"]["speed"].pop()),
        ("row larson: hakmem: speed: not a number",
         lambda d: first(d)["sides"]["hakmem"]["speed"].__setitem__(0, "fast")),
        ("row larson: hakmem: speed: not above 0",
         lambda d: first(d)["sides"]["hakmem"]["speed"].__setitem__(0, 0)),
        ("latency larson: hakmem: alloc hit: p99_ns: not a number",
         lambda d: d["latency"][0]["sides"]["hakmem"]["alloc"]["hit"].update(p99_ns="x")),
        ("latency larson: hakmem: free all: max_ns: below 0",
         lambda d: d["latency"][0]["sides"]["hakmem"]["free"]["all"].update(max_ns=-1)),
        ("latency larson: side other", lambda d: d["latency"][0]["sides"].update(other={})),
        ("memory lifetime: glibc: checkpoint 3: live_bytes",
         lambda d: d["memory"][0]["sides"]["glibc"][3].update(live_bytes="x")),
        ("soak frames: hakmem: not a list", lambda d: d["soak"][0]["sides"].update(hakmem={})),
    ]


def check_refusals(checks):
    for message, spoil in spoiled():
        data = make()
        spoil(data)
        try:
            bench_data.Results(data)
            told = "it was taken"
        except ValueError as why:
            told = str(why)
        checks.check(message in told, f"a bad file: {told!r}, not {message!r}")
    target = os.path.join(checks.folder, "never.html")
    text = json.dumps(make())
    bad = {"cut.json": text[:-9], "list.json": "[]", "nan.json": text.replace("1150.2", "NaN"),
           "where.json": text.replace("25000000000.0", "NaN"), "empty.json": "",
           "huge.json": text.replace("1150.2", "1e999")}
    for name, content in bad.items():
        path = checks.file(name, content)
        for program, rest in (("bench_html.py", [target]), ("bench_tables.py", [])):
            out, error = checks.run(program, [path, *rest], 1)
            checks.check(error.startswith(f"{program}: ") and name in error,
                         f"{program}, {name}: the message names the file: {error!r}")
            checks.equal(out, "", f"{program}, {name}: nothing on stdout")
    checks.check(not os.path.exists(target), "no page of a bad file")
    missing = os.path.join(checks.folder, "missing.json")
    _, error = checks.run("bench_html.py", [missing, target], 1)
    checks.check("missing.json" in error, f"a missing file is named: {error!r}")


def check_usage(checks):
    source = checks.file("results.json", make())
    for program, rest in (("bench_html.py", [os.path.join(checks.folder, "run.html")]),
                          ("bench_tables.py", [])):
        out, _ = checks.run(program, ["--help"], 0)
        checks.check(out.startswith(f"usage: {program}"), f"{program} --help begins with its usage")
        checks.run(program, [], 2)
        checks.run(program, [source, *rest, "--no-such-option"], 2)
        out, error = checks.run(program, [source, *rest], 0)
        checks.equal(error, "", f"{program}: nothing on stderr")
    checks.check(checks.read("run.html").endswith("</html>\n"), "bench_html.py writes its page")


def main():
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(folder)
        for part in (check_figures, check_pairs, check_means, check_texts, check_html,
                     check_html_variants, check_missing, check_csv, check_readme,
                     check_readme_part, check_terminal, check_refusals, check_usage):
            part(checks)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
