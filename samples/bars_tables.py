#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes what bars.py found as tables.

    bars_tables.py bars.json                        for the terminal
    bars_tables.py bars.json --readme README.md     rewrites the part between the marks
    bars_tables.py bars.json --check README.md      1 where that part is not what it would be

The marks are lines of their own: <!-- bars: begin --> and <!-- bars: end -->. The verdicts are
made anew from what was measured; those that stand in the file are for other programs.
"""

import argparse
import shutil
import sys
import textwrap

import bars_data
import bench_tables
import peers
from bars_data import BEHIND, MET, NOT_SHOWN, SUBJECT
from bench_data import significant
from bench_tables import md, md_row

BEGIN, END = "<!-- bars: begin -->", "<!-- bars: end -->"


def figure_texts(finding):
    """(value, interval) of a Finding."""
    if finding.value is None:
        return "-", ""
    if finding.unit == "share":
        return f"{100 * finding.value:.2f} %", ""
    figures = [figure for figure in (finding.value, finding.low, finding.high)
               if figure is not None]
    decimals = 2
    # as many as show on which side of the limit all is
    while finding.verdict != MET and decimals < 5 and any(
            float(f"{figure:.{decimals}f}") == finding.limit for figure in figures):
        decimals += 1
    texts = [f"{figure:.{decimals}f}" if figure < 10 else significant(figure)
             for figure in figures]
    return texts[0], f"[{texts[1]}, {texts[2]}]" if len(texts) > 1 else ""


def verdict_text(finding):
    if finding.by is None:
        return finding.verdict
    return f"{BEHIND} by {significant(100 * finding.by, 2)} %"


def count_text(bar):
    """How many rows meet a bar."""
    met = sum(finding.verdict == MET for finding in bar.findings)
    return f"met in {met} of {len(bar.findings)}"


def missing_texts(names):
    """One loud line for each peer that is missing."""
    for name in names:
        package = f": apt-get install {peers.PRELOADS[name][2]}" if name in peers.PRELOADS else ""
        yield f"MISSING {name}: no bar that compares can be met{package}"


def indication_text(results):
    seeds = f" with {len(results.data['seeds'])} seeds"
    return (f"AN INDICATION, NO CLAIM: {results.rounds} rounds{seeds}, at least"
            f" {bars_data.ROUNDS_CLAIM} are needed")


def summary(results, bars):
    """The lines at the end."""
    met = [bar for bar in bars if bar.met]
    yield f"Bars met: {len(met)} of {len(bars)}"
    for bar in bars:
        if not bar.met:
            rows = [f"{finding.row} ({verdict_text(finding)})" for finding in bar.findings
                    if finding.verdict != MET]
            yield f"NOT MET {bar.key}: {', '.join(rows)}"
    yield from missing_texts(results.missing)
    for failed in results.data["failed"]:
        yield f"FAILED {failed['row']} on {failed['side']}: {failed['why']}"
    if results.data["only"]:
        yield f"Of these rows alone: {', '.join(results.data['only'])}"
    if not results.is_claim:
        yield indication_text(results)
    if not bars_data.is_met(results, bars):
        yield "NOT ALL BARS ARE MET"
    elif results.data["only"]:
        yield "All bars of these rows are met"
    else:
        yield "All bars are met"


def print_terminal(results, bars, out, width):
    """Each bar with its rows, then what it comes to."""
    def tell(text):
        print(textwrap.fill(text, width, subsequent_indent="  "), file=out)

    facts = results.facts()
    if not results.is_claim:
        tell(indication_text(results))
    tell(f"Commit {facts['commit']}, {facts['date']}, rounds: {facts['rounds']}, seeds"
         f" {', '.join(map(str, results.data['seeds']))}")
    tell("The best peer of each row, and hakmem's ratio to it with its 95 % interval")
    rows = [(finding.row, finding.peer or "-", " ".join(figure_texts(finding)),
             verdict_text(finding), finding.note) for bar in bars for finding in bar.findings]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for bar in bars:
        print(file=out)
        tell(f"{bar.key}: {bar.demand}: {'met' if bar.met else 'NOT MET'}, {count_text(bar)}")
        for finding in bar.findings:
            row, peer, figure, verdict, note = rows.pop(0)
            line = (f"  {row:{widths[0]}}  {peer:{widths[1]}}  {figure:{widths[2]}}"
                    f"  {verdict.upper() if finding.verdict != MET else verdict}")
            print(line.rstrip(), file=out)
            if note:
                print(textwrap.fill(note, width, initial_indent="    ",
                                    subsequent_indent="    "), file=out)
    print(file=out)
    for text in summary(results, bars):
        tell(text)


# The README


def md_figure(finding):
    """Bold where hakmem is behind, italic where nothing is shown."""
    value, interval = figure_texts(finding)
    mark = {BEHIND: "**", NOT_SHOWN: "*", MET: ""}[finding.verdict] if value != "-" else ""
    return f"{mark}{value}{mark}" + (f" <sub>{interval}</sub>" if interval else "")


def md_part(results):
    """The lines between the marks."""
    bars = bars_data.judge(results)
    facts = {key: md(text) for key, text in results.facts().items()}
    claim = "" if results.is_claim else f"**{md(indication_text(results))}.** "
    seeds = ", ".join(map(str, results.data["seeds"]))
    only = results.data["only"]
    lines = [
        f"{claim}Measured on {facts['date']} at commit {facts['commit']} by"
        f" `{results.data['command']}`, rounds: {facts['rounds']}, seeds {seeds};"
        f" {facts['machine']}; {facts['compiler']}; {facts['sides']}."
        + (f" Of these rows alone: {md(', '.join(only))}." if only else ""),
        "",
        f"Bars met: {sum(bar.met for bar in bars)} of {len(bars)}. Of each row the peer that"
        f" {SUBJECT} does worst against. **Bold**: behind, with all of the 95 % interval."
        " *Italic*: not shown.",
        "",
        md_row(["bar", "demand", "met"]), "|---|---|---|",
        *(md_row([md(bar.key), md(bar.demand),
                  f"{'yes' if bar.met else '**no**'}, {count_text(bar)}"]) for bar in bars),
        "",
        md_row(["bar", "row", "best peer", f"{SUBJECT}'s ratio to it, or share", "verdict"]),
        "|---|---|---|---:|---|",
    ]
    for bar in bars:
        for finding in bar.findings:
            lines.append(md_row([md(bar.key), md(finding.row), md(finding.peer or "-"),
                                 md_figure(finding), md(verdict_text(finding))]))
    for text in missing_texts(results.missing):
        lines += ["", f"**{md(text)}.**"]
    for failed in results.data["failed"]:
        lines += ["", md(f"Failed: {failed['row']} on {failed['side']}: {failed['why']}")]
    return lines


def with_part(text, results, path):
    return bench_tables.with_part(text, md_part(results), path, (BEGIN, END))


def main():
    parser = argparse.ArgumentParser(description="Writes what bars.py found as tables.")
    parser.add_argument("results", help="the bars.json that bars.py wrote")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--readme", metavar="README", help="rewrite the part between the marks")
    action.add_argument("--check", metavar="README", help="1 where that part is not up to date")
    options = parser.parse_args()
    try:
        results = bars_data.load(options.results)
        path = options.readme or options.check
        if path:
            return bench_tables.readme(path, lambda text: with_part(text, results, path),
                                       bool(options.check))
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 80
        print_terminal(results, bars_data.judge(results), sys.stdout, width)
    except (OSError, ValueError) as why:
        print(f"bars_tables.py: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
