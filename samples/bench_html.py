#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws the benchmark's report: one HTML file that needs nothing else, no network, no script.

    bench_html.py results.json OUT.html

Tables can be read without colour, charts have their numbers as text, in a table or as tooltips.
Phones, dark screens and paper are provided for by the style alone.
"""

import argparse
import html
import itertools
import math
import re
import sys

import bench_data
from bench_data import (
    MIB, PERCENTILE_NAMES, PERCENTILES, SUBJECT, bytes_text, count_text, drift_text,
    duration_text, known, mean_text, percentile_text, ratio_texts, significant, speed_text,
    time_text,
)

WIDTH = 360  # of a chart, in pixels: a phone's, so that its text is never scaled down
LABEL = 98  # of that, for the names on the left
SAYS = {"ahead": "ahead", "same": "no difference shown", "behind": "behind"}
STEPS = (1.05, 1.2, 1.5)  # factors from which a cell's colour is stronger; heat_key() says them

# Ahead and behind are a blue and an orange of the same lightness and strength.
LIGHT = """--page: #fff; --text: #15191e; --quiet: #57606a; --line: #d5dae0; --soft: #f1f3f5;
 --bar: #a3abb5; --s0: #0b62c4; --s1: #b86a00; --s2: #00825a; --s3: #ad4585; --s4: #2f8fc4;
 --s5: #77706a; --s6: #8a7a00; --warn: #fff1d6; --a1: #deefff; --a2: #b8dcff; --a3: #8cc3fc;
 --a4: #5da6ef; --b1: #fee8db; --b2: #fbccb1; --b3: #f2ac81; --b4: #e1884f;"""
DARK = """--page: #12161b; --text: #e9edf1; --quiet: #9da7b3; --line: #333b45; --soft: #1d232a;
 --bar: #69737f; --s0: #6cb0ff; --s1: #f0a63c; --s2: #3fc39a; --s3: #e59ac4; --s4: #7fd0f5;
 --s5: #b3aca5; --s6: #d8cf57; --warn: #3a2c0e; --a1: #1c3450; --a2: #1d476f; --a3: #265b8f;
 --a4: #3372af; --b1: #4a2a16; --b2: #66381a; --b3: #83461d; --b4: #a25927;"""
STYLE = """
:root { color-scheme: light dark; @LIGHT } * { box-sizing: border-box; }
@media (prefers-color-scheme: dark) { :root { @DARK } }
body { margin: 0 auto; padding: 28px 24px 60px; max-width: 1200px; background: var(--page);
 color: var(--text); font: 15px/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif;
 overflow-wrap: break-word; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; } nav a { margin-right: 14px; }
h3 { font-size: 16px; margin: 24px 0 6px; }
h2 { font-size: 20px; margin: 44px 0 6px; padding-top: 14px; border-top: 1px solid var(--line); }
p { margin: 6px 0 12px; max-width: 84ch; } small, .quiet, caption { color: var(--quiet); }
small, nav a { white-space: nowrap; } small { font-size: 12px; } a { color: var(--s0); }
code { font: 12.5px/1.45 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
 overflow-wrap: anywhere; }
.banner { background: var(--warn); border-left: 6px solid #c98300; padding: 10px 14px;
 margin: 14px 0; max-width: none; }
.two { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px 40px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr));
 gap: 22px 36px; margin-top: 14px; }
figure { margin: 0; break-inside: avoid; } figcaption { font-weight: 600; margin-bottom: 2px; }
figcaption span { font-weight: 400; } figcaption span, dt { color: var(--quiet); }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 3px 18px; }
dl, dd, ul { margin: 0; padding: 0; } header { margin-bottom: 14px; } ul { list-style: none; }
li { padding: 3px 0; border-bottom: 1px solid var(--line); }
li > span { display: inline-block; margin-right: 14px; white-space: nowrap; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 4px 0 8px; font-size: 13px; }
th, td { padding: 5px 8px; text-align: right; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } thead th { vertical-align: bottom; font-size: 13px; }
th:first-child, td.words, .wordy th { text-align: left; }
thead small, .heat small { display: block; } thead small { font-weight: 400; }
tfoot > tr > * { border-top: 2px solid var(--quiet); border-bottom: 0; }
.tally td { width: 13%; } .tally td.bar { width: 24%; } .tally tbody th { white-space: nowrap; }
.split { display: flex; height: 12px; gap: 1px; } .level { background: var(--bar); }
.heat { table-layout: fixed; } .heat thead th:first-child { width: 17%; }
.heat td, .heat th { line-height: 1.25; border-bottom: 0; }
.heat tbody td { border: solid var(--page); border-width: 2px 0 0 2px; }
.heat td small { color: inherit; } .same { background: var(--soft); }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.ahead.k1 { background: var(--a1); } .behind.k1 { background: var(--b1); }
.ahead.k2 { background: var(--a2); } .behind.k2 { background: var(--b2); }
.ahead.k3 { background: var(--a3); } .behind.k3 { background: var(--b3); }
.ahead.k4 { background: var(--a4); } .behind.k4 { background: var(--b4); }
.key { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; margin: 8px 0; }
.key span { display: inline-flex; align-items: center; gap: 4px; }
.key i { width: 16px; height: 14px; border-radius: 3px; outline: 1px solid var(--line); }
details { margin: 12px 0; } summary { cursor: pointer; color: var(--quiet); }
svg { display: block; width: 100%; max-width: 420px; height: auto; overflow: visible; }
svg .peer { fill: var(--bar); } svg .us { fill: var(--s0); }
svg text, svg text.us, svg text.peer { font-size: 11px; fill: var(--text);
 font-variant-numeric: tabular-nums; }
svg text.quiet { fill: var(--quiet); } svg text.us, svg text.head { font-weight: 700; }
svg .grid { stroke: var(--line); } svg .rule { stroke: var(--line); stroke-width: 3; }
svg .rule.us { stroke: var(--s0); } svg .whisker { stroke: var(--text); stroke-width: 1.4; }
svg .null { fill: none; stroke: var(--quiet); stroke-dasharray: 3 2; }
svg .open { fill: var(--page); stroke-width: 1.6; stroke: var(--bar); }
svg .open.us { stroke: var(--s0); }
svg .series { fill: none; stroke-width: 1.5; } svg .series.us { stroke-width: 2.8; }
svg .live { stroke: var(--text); stroke-dasharray: 4 3; }
@media (max-width: 900px) { .two { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 680px) {
 body { padding: 18px 16px 40px; } h1 { font-size: 23px; } h2 { margin-top: 36px; }
 .tally { table-layout: fixed; font-size: 14px; } .tally tr > :nth-child(5) { display: none; }
 .tally tr > * { padding: 5px 3px; } .tally thead th { font-size: 11px; font-weight: 400; }
 .tally tr > th:first-child { width: 28%; white-space: normal; }
 .stack, .stack tbody, .stack tfoot, .stack caption { display: block; }
 .stack tr { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 3px;
  padding: 8px 0 10px; border-bottom: 1px solid var(--line); }
 .stack tr > *, .stack tbody td { border: 0; padding: 4px 6px; text-align: left; }
 .stack tr > th { padding-left: 0; } .stack tr > th, .stack td.words { grid-column: 1 / -1; }
 .stack thead { position: absolute; height: 1px; overflow: hidden; clip-path: inset(50%); }
 .stack td::before { content: attr(data-label); display: block; font-size: 11px; }
}
@media print { :root { color-scheme: light; @LIGHT }
 * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
 body { font-size: 11px; padding: 0; } nav { display: none; } tr, li { break-inside: avoid; }
 h2, h3, figcaption { break-after: avoid; } th, td { padding: 3px 5px; }
 thead th, small, caption, .key { font-size: 10px; }
 .charts { grid-template-columns: repeat(2, 1fr); }
 details::details-content { content-visibility: visible; block-size: auto; } }
""".replace("@LIGHT", LIGHT).replace("@DARK", DARK)


def esc(text):
    return html.escape(str(text))


class Svg:
    """A chart as it grows; every coordinate in pixels."""

    ids = itertools.count(1)

    def __init__(self, height, width=WIDTH):
        self.parts, self.width, self.height = [], width, height

    def add(self, tag, content="", tip=None, **attributes):
        """An element; "css" is its class, @tip its tooltip."""
        told = ""
        for name, value in attributes.items():
            name = {"css": "class"}.get(name, name.replace("_", "-"))
            told += f' {name}="{esc(f"{value:.1f}" if isinstance(value, float) else value)}"'
        told += f"><title>{esc(tip)}</title>" if tip else ">"
        self.parts.append(f"<{tag}{told}{esc(content)}</{tag}>")

    def text(self, x, y, content, css="", anchor="start", **more):
        self.add("text", content, x=float(x), y=float(y), css=css, text_anchor=anchor, **more)

    def line(self, x1, y1, x2, y2, css, **more):
        self.add("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), css=css, **more)

    def name(self, y, text, css):
        """A name on the left, cut where it is too long."""
        short = text if len(text) <= 15 else text[:14] + "\u2026"
        self.text(0, y, short, css, tip=None if short == text else text)

    def done(self, title, description):
        """The element, with what it shows for those who cannot see it."""
        at = next(self.ids)
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" xmlns="http://www.w3.org/2000/svg"'
            f' role="img" aria-labelledby="t{at} d{at}"><title id="t{at}">{esc(title)}</title>'
            f'<desc id="d{at}">{esc(description)}</desc>{"".join(self.parts)}</svg>'
        )


def whose(side):
    return "us" if side == SUBJECT else "peer"


def section(name, title, text, body):
    quiet = f'<p class="quiet">{text}</p>' if text else ""
    return f'<section><h2 id="{name}">{title}</h2>{quiet}{body}</section>'


def grid(charts):
    return f'<div class="charts">{"".join(charts)}</div>'


def figure(caption, more, svg):
    return f"<figure><figcaption>{esc(caption)} <span>{esc(more)}</span></figcaption>{svg}</figure>"


def folded(title, body):
    return f"<details><summary>{title}</summary>{body}</details>"


def table(caption, heads, rows, css="stack", foot=()):
    """Rows are lists of HTML, or (HTML, class) for a cell; the first cell is the row's head."""
    def row_of(row):
        made = f'<th scope="row" role="rowheader">{row[0]}</th>'
        for head, cell in zip(heads[1:], row[1:]):
            content, kind = cell if isinstance(cell, tuple) else (cell, "")
            label = esc(head.partition("\n")[0])
            made += f'<td role="cell" class="{kind}" data-label="{label}">{content}</td>'
        return f'<tr role="row">{made}</tr>'

    def group(tag, content):  # the roles say what a phone's layout, no table's, would hide
        return f'<{tag} role="rowgroup">{content}</{tag}>' if content else ""

    top = ""
    for head in heads:
        first, _, second = map(esc, head.partition("\n"))
        top += f'<th scope="col" role="columnheader">{first} <small>{second}</small></th>'
    return (
        f'<table role="table" class="{css}"><caption>{caption}</caption>'
        + group("thead", f'<tr role="row">{top}</tr>')
        + group("tbody", "".join(map(row_of, rows)))
        + group("tfoot", "".join(map(row_of, foot))) + "</table>"
    )


def side_heads(results, sides):
    return [f"{side}\n{results.about[side].get('version') or ''}" for side in sides]


# The summary


def tally_row(name, one):
    parts = zip(("ahead k4", "level", "behind k4"), one[:3])
    bar = "".join(f'<i class="{css}" style="flex:{count}"></i>' for css, count in parts if count)
    counts = [str(count) for count in one[:3]]
    return [esc(name), *counts, (f'<span class="split" aria-hidden="true">{bar}</span>', "bar"),
            mean_text(one.mean)]


def tally_table(results, what, lines):
    heads = ["hakmem against", "ahead", "no difference", "behind", "", "geometric mean"]
    rows = [tally_row(results.full_name(peer), results.tally(lines, peer))
            for peer in results.peers]
    best = tally_row("best peer", results.tally_best(lines))
    return table(f"<b>{what}</b>", heads, rows, "tally", [best])


def listing(results, lines, verdict):
    """Every line with peers of that verdict, as a list; the numbers with them."""
    items = ""
    for line, ratios in results.listed(lines, verdict):
        items += f"<li><span><b>{esc(line.label)}</b></span>"
        for peer, ratio in ratios:
            value, interval = ratio_texts(ratio)
            items += f"<span>{esc(peer)} <b>{value}</b> <small>{interval}</small></span>"
        items += "</li>"
    return f"<ul>{items}</ul>" if items else "<p>Nowhere in these rows.</p>"


def lead(results, title, lines):
    one = results.tally_best(lines)
    return (
        f"<p><b>{title}.</b> Against the best peer of each of {sum(one[:3])} rows, hakmem is ahead"
        f" in {one.ahead}, behind in {one.behind}, and no difference is shown in {one.same}; the"
        f" geometric mean of these ratios is <b>{mean_text(one.mean)}</b>.</p>"
    )


def summary(results):
    both = (("speed", results.speed), ("memory", results.memory))

    def two(parts):
        return f'<div class="two"><div>{"</div><div>".join(parts)}</div></div>'

    def lists(verdict, title):
        return two(f"<h3>{title}: {what}</h3>{listing(results, lines, verdict)}"
                   for what, lines in both)

    return section("summary", "Summary", "", (
        lead(results, "Speed, higher is better", results.speed)
        + lead(results, "Peak memory, lower is better", results.memory)
        + two(tally_table(results, what.capitalize(), lines) for what, lines in both)
        + lists("behind", "Where hakmem is behind")
        + folded("Where no difference is shown", lists("same", "No difference shown"))))


def banners(results):
    told = []
    if results.quick:
        told.append(f"<b>Quick run (--quick), rounds: {results.rounds}.</b> It shows that the"
                    " benchmark works; it is too short for any claim.")
    if results.data["commit"].endswith("+"):
        told.append("<b>The tree differed from the commit</b> when this was measured.")
    if results.data["missing"]:
        missing = esc(", ".join(results.data["missing"]))
        told.append(f"Not measured, because not found: <b>{missing}</b>.")
    return "".join(f'<p class="banner">{text}</p>' for text in told)


# The heat tables


def heat_cell(ratio):
    """(content, class): the further from 1, the stronger the colour, on both sides alike."""
    if ratio is None:
        return "-", "none"
    distance = math.exp(abs(math.log(ratio.value)))
    value, interval = ratio_texts(ratio)
    spoken = f'<span class="unseen">, {SAYS[ratio.verdict]}</span>'
    return (f"<b>{value}</b>{spoken} <small>{interval}</small>",
            f"{ratio.verdict} k{1 + sum(distance >= step for step in STEPS)}")


def heat_key():
    behind = "".join(f'<i class="behind k{step}"></i>' for step in (4, 3, 2, 1))
    ahead = "".join(f'<i class="ahead k{step}"></i>' for step in (1, 2, 3, 4))
    return (
        f'<div class="key"><span>hakmem behind, by a factor from 1.5, 1.2, 1.05, 1'
        f' {behind}</span><span><i class="same"></i> no difference shown</span>'
        f'<span>{ahead} ahead, from 1, 1.05, 1.2, 1.5</span></div>'
    )


def heat(results, lines, text, caption):
    rows = [[esc(line.label), text(line.median(SUBJECT)),
             *(heat_cell(line.ratio(peer)) for peer in results.peers)] for line in lines]
    means = [mean_text(results.tally(lines, peer).mean) for peer in results.peers]
    heads = ["workload", "hakmem\nmedian", *side_heads(results, results.peers)]
    caption += " Median of the rounds\u2019 ratios and its 95 % interval."
    return heat_key() + table(caption, heads, rows, "stack heat",
                              [["geometric mean", ("", "none"), *means]])


def heats(results):
    speed = heat(results, results.speed, speed_text,
                 "hakmem\u2019s speed over the peer\u2019s: above 1, hakmem is ahead.")
    memory = heat(results, results.memory, bytes_text,
                  "hakmem\u2019s peak over the peer\u2019s: below 1, hakmem is ahead.")
    memory += fragmentation(results)
    return (section("speed", "Speed, against each peer", "", speed)
            + section("peak", "Peak memory, against each peer", "", memory))


def fragmentation(results):
    rows = [[esc(label), *("-" if value is None else f"{value:.2f}" for value in values)]
            for label, values in results.fragmentation()]
    return folded("Fragmentation", table(
        "Resident over requested bytes, the worst of the checkpoints; median of the rounds",
        ["workload", *side_heads(results, results.sides)], rows)) if rows else ""


# Charts


def bars(results, line):
    """A bar for each side, with the interval of its median; and what no allocator would do."""
    middles = {side: line.median(side) for side in results.sides}
    null = results.null_speed(line.row) if line.key == "speed" else None
    top = max(known(middles.values()), default=1) * 1.03
    top = max(top, null) if null and null <= 1.5 * top else top
    factor, unit = (1e6, "million") if top >= 1e5 else (1e3, "thousand")
    svg = Svg(19 * (len(middles) + (null is not None)) + 2)

    def x(value):
        return LABEL + (WIDTH - 50 - LABEL) * min(value / top, 1)

    def figures(*values):
        return [significant(value if value is None else value / factor) for value in values]

    for index, (side, value) in enumerate(middles.items()):
        y, css = 19 * index, whose(side)
        svg.name(y + 13, side, css)
        svg.text(WIDTH, y + 13, *figures(value), css, "end")
        if value is None:
            continue
        spread = line.spread(side) or ()
        tip = f"{side}: {', '.join(figures(value, *spread))}"
        svg.add("rect", tip=tip, x=LABEL, y=y + 3, width=x(value) - LABEL, height=13, css=css)
        for end in spread:
            svg.line(x(end), y + 6, x(end), y + 13, "whisker")
            svg.line(x(spread[0]), y + 9.5, x(end), y + 9.5, "whisker")
    if null is not None:
        draw_null(svg, 19 * len(middles), x(null), null > top)
        svg.text(WIDTH, 19 * len(middles) + 13, *figures(null), "quiet", "end")
    told = "; ".join(f"{side} {speed_text(value)}" for side, value in middles.items())
    told += f"; no allocator {speed_text(null)}" if null is not None else ""
    return figure(line.label, f"{unit} {line.row['unit']} a second",
                  svg.done(f"Speed of {line.label}", told))


def draw_null(svg, y, end, beyond):
    """The null allocator's bar, an outline; it ends in an arrow where it is longer than shown."""
    svg.name(y + 13, "no allocator", "quiet")
    edge = f"M{end:.1f},{y + 3.5} H{LABEL + 0.5} V{y + 15.5} H{end:.1f}"
    svg.add("path", d=edge + (f" l6,-6 L{end:.1f},{y + 3.5}" if beyond else " Z"), css="null")


def throughput(results):
    return section("throughput", "Speed of each side", (
        "Medians; the whiskers are the medians\u2019 own 95 % intervals. What hits all sides of a"
        " round alike widens these, not the ratios above. \u201cNo allocator\u201d is the same loop"
        " on the same scratch memory again and again, an arrow where it is faster than shown. Each"
        " chart has a scale of its own."), grid(bars(results, line) for line in results.speed))


def mark(svg, index, x, y, css):
    """The marks of the percentiles differ by shape: dot, three ticks that grow, ring."""
    if index in (0, 4):
        svg.add("circle", cx=x, cy=y, r=3.2 if index else 4, css=f"open {css}" if index else css)
    else:
        half = 2 + 1.6 * index
        svg.add("rect", x=x - 1.2, y=y - half, width=2.4, height=2 * half, css=css)


def latency_chart(title, rows, timer, axis):
    """Rows are (name, class, distribution or None); all on one logarithmic axis."""
    low, high = axis
    bottom = 18 * len(rows) + 4
    svg = Svg(bottom + 20)

    def x(value):
        share = (math.log10(max(value, 10.0 ** low)) - low) / (high - low)
        return LABEL + 6 + (WIDTH - LABEL - 24) * share

    for power in range(low, high + 1):
        at = x(10.0 ** power)
        svg.line(at, 0, at, bottom, "grid")
        if (power - low) % (1 if high - low < 7 else 2) == 0:
            unit = power // 3 if 0 <= power < 12 else 0
            label = f"{10.0 ** (power - 3 * unit):g} {('ns', 'us', 'ms', 's')[unit]}"
            svg.text(at, bottom + 14, label, "quiet", "middle")
    if timer:
        svg.line(x(timer), 0, x(timer), bottom, "live", tip=f"nothing: {time_text(timer)}")
    for index, (name, css, part) in enumerate(rows):
        y = 18 * index + 11
        svg.name(y + 4, name, css)
        ends = [(at, x(part[key])) for at, key in enumerate(PERCENTILES) if part and part.get(key)]
        if ends:
            tip = f"{name}: {percentile_text(part)}"
            svg.line(ends[0][1], y, ends[-1][1], y, f"rule {css}", tip=tip)
        for at, place in ends:
            mark(svg, at, place, y, css)
    told = "; ".join(f"{name}: {percentile_text(part)}" for name, _, part in rows if part)
    return figure(title, "", svg.done(title, told))


def latency_entry(entry, axis):
    parts = [(call, "no allocator" if side == "null" else side, stage, part)
             for call, side, stage, part in bench_data.latency_parts(entry)]
    label = bench_data.label_of(entry)
    timer = bench_data.median([(side or {}).get("timer_ns") for side in entry["sides"].values()])
    charts, stages = [], []
    for call, verb in (("alloc", "allocating"), ("free", "freeing"), ("frame", "a frame")):
        rows = [(side, whose(side), part) for its, side, stage, part in parts
                if its == call and stage == "all"]
        if rows:
            charts.append(latency_chart(verb, rows, call != "frame" and timer, axis))
        own = [(stage.replace("_", " "), "us" if stage == "hit" else "peer", part)
               for its, side, stage, part in parts
               if its == call and side == SUBJECT and stage != "all"]
        stages += [(f"{verb}:", "head", None), *own] if own else []
    if stages:
        charts.append(latency_chart("hakmem, by stage", stages, timer, axis))
    rows = [[esc(f"{call}, {side}" + ("" if stage == "all" else f", {stage.replace('_', ' ')}")),
             *(time_text(part.get(key)) for key in PERCENTILES),
             "-" if part.get("count") is None else f"{part['count']:,}"]
            for call, side, stage, part in parts]
    heads = ["call", *PERCENTILE_NAMES, "count"]
    return f"<h3>{esc(label)}</h3>{grid(charts)}" + folded(
        f"{esc(label)}: the numbers", table(esc(entry.get("command") or ""), heads, rows))


def latency(results):
    if not results.latency:
        return ""
    key = ""
    for index, name in enumerate(PERCENTILE_NAMES):
        svg = Svg(16, 16)
        mark(svg, index, 8.0, 8.0, "us")
        key += ('<span><svg viewBox="0 0 16 16" style="width:16px" aria-hidden="true">'
                f'{"".join(svg.parts)}</svg>{name}</span>')
    axis = bench_data.decades(results.latency)
    return section("latency", "Latency", (
        "Times of single calls, on one logarithmic axis for all. A hit of hakmem is served from the"
        " cache\u2019s own blocks; its other stages are the steps of a refill, from the nearest to"
        " the operating system."), (
        f'<div class="key">{key}<span>dashed: the time that measuring nothing takes</span></div>'
        + "".join(latency_entry(entry, axis) for entry in results.latency)))


def spread_labels(labels, least, low, high):
    """[(place, label)...]: labels, that begin with their y, moved apart to @least pixels."""
    labels, places = sorted(labels, key=lambda label: label[0]), []
    for index, label in enumerate(labels):
        floor = places[-1] + least if places else low
        # room for the labels that still come below
        places.append(max(floor, min(label[0], high - least * (len(labels) - 1 - index))))
    return list(zip(places, labels))


def memory_chart(results, entry, by, unit, more=""):
    """Resident memory of each side over the run, live bytes as a dashed line."""
    series, label = bench_data.series(entry, by), bench_data.label_of(entry)
    if not series:
        return figure(label, "not measured", "")
    ticks = bench_data.round_steps(max(b for _, points in series for _, b in points) / MIB)
    end = max(a for _, points in series for a, _ in points) or 1
    left, right, top, bottom, svg, tails = 38, WIDTH - 76, 10, 196, Svg(216), []

    def y_of(mib):
        return bottom - (bottom - top) * mib / ticks[-1]

    for tick in ticks:
        svg.line(left, y_of(tick), right, y_of(tick), "grid")
        svg.text(left - 6, y_of(tick) + 4, f"{tick:g}", "quiet", "end")
    for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        svg.text(left + (right - left) * share, bottom + 16, unit(end * share), "quiet", anchor)
    for name, points in reversed(series):  # hakmem comes first, and is drawn last
        number = 1 + results.peers.index(name) % 6 if name in results.peers else 0
        css = {SUBJECT: "series us", None: "series live"}.get(name, "series")
        style, name = f"stroke:var(--s{number})" if name else "", name or "live"
        places = [(left + (right - left) * a / end, y_of(b / MIB)) for a, b in points]
        path = "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in places)
        svg.add("path", d=path, css=css, style=style, tip=f"{name}: {bytes_text(points[-1][1])}")
        tails.append((places[-1][1], places[-1][0], name, style))
    for y, (tail, x, name, style) in spread_labels(tails, 13, top, bottom):
        svg.line(x + 2, tail, right + 9, y, "grid")
        shown = name if len(name) <= 10 else name[:9] + "\u2026"
        svg.text(right + 12, y + 4, shown, whose(name), style=style.replace("stroke", "fill"))
    told = "; ".join(f"{name or 'live'} {bytes_text(points[-1][1])}" for name, points in series)
    return figure(label, f"MiB{more}", svg.done(f"Memory over time, {label}", f"At the end {told}"))


def memories(results):
    over_time = section("memory", "Memory over time", (
        "Resident memory of each side at checkpoints over the run; dashed, the bytes that the"
        " program had live, as requested. Across: operations."),
        grid(memory_chart(results, entry, "ops", count_text) for entry in results.checkpoints))
    soak = section("soak", "Soak", (
        "A long run. Drift is the median of the last quarter over that of the second, less 1: where"
        " the program\u2019s live bytes have none, resident memory should have none."),
        grid(memory_chart(results, entry, "seconds", duration_text, drift_text(entry))
             for entry in results.soak))
    return (over_time if results.checkpoints else "") + (soak if results.soak else "")


# How it was measured, and the page


def method(results):
    count = sum(line.ratio(peer) is not None for line in results.speed + results.memory
                for peer in results.peers)
    sides = [(results.full_name(side), results.about[side]["how"]) for side in results.sides]
    sides, commands = ([[esc(name), (f"<code>{esc(what)}</code>", "words")] for name, what in told]
                       for told in (sides, results.commands()))
    wordy = "stack wordy"
    return section("method", "How it was measured", "", (
        "<p>In each round, every side runs each row once, in a process of its own. A ratio is that"
        f" of hakmem and a peer in the same round; shown are the median over the {results.rounds}"
        " rounds and its bootstrap 95 % interval. Where the interval includes 1, no difference is"
        " shown, which does not show that there is none. The fewer the rounds, the less an interval"
        f" is to be trusted; and none is corrected for their number: of {count}, some lie apart"
        " from 1 by chance.</p><p>A row\u2019s best peer has the worst ratio for hakmem."
        " Chance has a part in which it is, so that the mean against the best errs against hakmem."
        " Means are over the rows measured on both sides; a trace\u2019s first pass, in which the"
        " allocator gets its memory, counts as a row. Peak memory is the kernel\u2019s peak of"
        " resident memory, less that of a run on no allocator. Speed is that of the whole loop, the"
        " benchmark\u2019s own work included.</p><h3>To repeat it</h3><p><code>ninja bench</code>"
        " measures and makes this page; <code>python3 samples/bench_html.py results.json"
        " report.html</code> the page alone.</p>"
        + table("How a side is chosen", ["side", "how"], sides, wordy)
        + folded("The command of each row", table(
            "The side\u2019s own part comes with each", ["row", "command"], commands, wordy))))


def page(results):
    quick = " (quick run)" if results.quick else ""
    facts = "".join(f"<dt>{key}</dt><dd>{esc(text)}</dd>" for key, text in results.facts().items())
    body = summary(results) + heats(results) + throughput(results) + latency(results)
    body += memories(results) + method(results)
    nav = " ".join(f'<a href="#{to}">{title.partition(",")[0]}</a>'
                   for to, title in re.findall('<h2 id="(.*?)">(.*?)</h2>', body))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>hakmem: benchmark{quick}</title><style>{STYLE}</style></head><body><header>"
        f"<h1>hakmem: benchmark{quick}</h1>{banners(results)}<dl>{facts}</dl></header>"
        f"<nav>{nav}</nav><main>{body}</main></body></html>\n"
    )


def write(results, path):
    """Writes the report of results, or of the object that results.json holds, to a file."""
    if isinstance(results, dict):
        results = bench_data.Results(results)
    Svg.ids = itertools.count(1)  # the same results make the same file
    text = page(results).encode("utf-8")
    with open(path, "wb") as out:
        out.write(text)


def main():
    parser = argparse.ArgumentParser(description="Draws the benchmark's report as one HTML file.")
    parser.add_argument("results", help="the results.json that bench.py wrote")
    parser.add_argument("out", help="the HTML file to write")
    options = parser.parse_args()
    try:
        write(bench_data.load(options.results), options.out)
    except (OSError, ValueError) as why:
        print(f"bench_html.py: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
