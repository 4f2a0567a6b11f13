#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the benchmark's results as tables.

    bench_tables.py results.json                        for the terminal
    bench_tables.py results.json --csv OUT.csv          one line a row, side and round
    bench_tables.py results.json --readme README.md     rewrites the parts between the marks
    bench_tables.py results.json --check README.md      1 where a part is not what it would be

The marks are lines of their own: <!-- bench: begin --> and <!-- bench: end -->; where there are
<!-- bench head: begin --> and <!-- bench head: end -->, a short table is between them.
"""

import argparse
import csv
import difflib
import re
import shutil
import sys
import textwrap

import bench_data
from bench_data import MEASURES, MIB, SUBJECT, mean_text, ratio_texts, significant

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
HEAD_BEGIN, HEAD_END = "<!-- bench head: begin -->", "<!-- bench head: end -->"
SHOWN = 20  # lines of a difference
MARKS = {"ahead": "+", "same": " ", "behind": "-"}

# What is told of rows: title, unit of hakmem's own figure, divisor
SPEED = ("Speed", "M/s", 1e6)
MEMORY = ("Peak memory", "MiB", MIB)


def kinds(results):
    return ((SPEED, results.speed), (MEMORY, results.memory))


def own_figure(line, divisor):
    value = line.median(SUBJECT)
    return significant(value if value is None else value / divisor)


def best_text(results, lines):
    one = results.tally_best(lines)
    return (f"against the best peer of each row, hakmem is ahead in {one.ahead}, behind in"
            f" {one.behind}, no difference is shown in {one.same}; geometric mean"
            f" {mean_text(one.mean)}")


# The terminal


def terminal_cell(ratio, wide):
    value, interval = ratio_texts(ratio)
    text = value + (MARKS[ratio.verdict] if ratio else " ")
    return f"{text} {interval:16}" if wide else text


def terminal_rows(results, lines, divisor, peers, wide):
    """Lists of texts: the head, the rows, the means."""
    yield ["", SUBJECT, *(f"{peer} {'':16}" if wide else f"{peer} " for peer in peers)]
    for line in lines:
        cells = [terminal_cell(line.ratio(peer), wide) for peer in peers]
        yield [line.label, own_figure(line, divisor), *cells]
    means = [mean_text(results.tally(lines, peer).mean) for peer in peers]
    yield ["geometric mean", "", *(f"{mean} {'':16}" if wide else f"{mean} " for mean in means)]


def widths_of(rows):
    return [max(map(len, column)) for column in zip(*rows)]


def fits(rows, width):
    return sum(widths_of(rows)) + 2 * (len(rows[0]) - 1) <= width


def blocks(results, lines, divisor, width):
    """Tables that fit: with intervals where there is room for them, else in turns of peers."""
    def rows_of(peers, wide=False):
        return list(terminal_rows(results, lines, divisor, peers, wide))

    rows, rest = rows_of(results.peers, True), results.peers
    if fits(rows, width):
        yield rows
        return
    while rest:
        count = len(rest)
        while count > 1 and not fits(rows_of(rest[:count]), width):
            count -= 1
        yield rows_of(rest[:count])
        rest = rest[count:]


def print_terminal(results, out, width):
    def tell(text):
        print(textwrap.fill(text, width), file=out)

    facts = results.facts()
    if results.quick:
        tell("QUICK RUN, too short for any claim")
    tell(f"Commit {facts['commit']}, {facts['date']}, rounds: {facts['rounds']}")
    if results.data["missing"]:
        tell(f"Not found, so not measured: {', '.join(results.data['missing'])}")
    tell("Medians of hakmem; ratios to the peers, + hakmem is ahead, - behind")
    for (title, unit, divisor), lines in kinds(results):
        print(f"\n{title}, {unit}", file=out)
        for index, rows in enumerate(blocks(results, lines, divisor, width)):
            if index:
                print(file=out)
            widths = widths_of(rows)
            for row in rows:
                cells = [f"{row[0]:{widths[0]}}"]
                cells += [f"{cell:>{size}}" for cell, size in zip(row[1:], widths[1:])]
                print("  ".join(cells).rstrip(), file=out)
        text = best_text(results, lines)
        tell(text[0].upper() + text[1:])


# CSV


def write_csv(results, path):
    """One line a row, side and round; a side that a row was not measured with has none."""
    with open(path, "w", encoding="utf-8", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["row", "kind", "workers", "side", "version", "round", *MEASURES])
        for row in results.data["rows"]:
            for name in results.sides:
                side = row["sides"].get(name)
                if not side:
                    continue
                about = [row["name"], row["kind"], row["workers"], name,
                         results.about[name].get("version")]
                for index in range(results.rounds):
                    values = [side[key][index] if side.get(key) else None for key in MEASURES]
                    table.writerow([*about, index + 1, *values])


# The README


def md(text):
    """@text with nothing in it that Markdown would take for more than text."""
    text = re.sub(r"\s+", " ", str(text)).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", text)


def md_row(cells):
    return f"| {' | '.join(cells)} |"


def md_ratio(ratio):
    """Bold where hakmem is behind, italic where no difference is shown."""
    value, interval = ratio_texts(ratio)
    mark = {"behind": "**", "same": "*", "ahead": ""}[ratio.verdict] if ratio else ""
    return f"{mark}{value}{mark}" + (f" <sub>{interval}</sub>" if interval else "")


def md_table(results, lines, title, unit, divisor):
    peers = results.peers
    yield md_row([title, f"hakmem, {unit}", *(md(results.full_name(peer)) for peer in peers)])
    yield "|---|" + "---:|" * (len(peers) + 1)
    for line in lines:
        yield md_row([md(line.label), own_figure(line, divisor),
                      *(md_ratio(line.ratio(peer)) for peer in peers)])
    means = [mean_text(results.tally(lines, peer).mean) for peer in peers]
    yield md_row(["geometric mean", "", *means])


def md_behind(results):
    """Each row with the peers that hakmem is behind of, the numbers with them."""
    items = []
    for (title, _, _), lines in kinds(results):
        for line, ratios in results.listed(lines, "behind"):
            told = ", ".join(f"{md(peer)} {' '.join(ratio_texts(ratio))}" for peer, ratio in ratios)
            items.append(f"- {md(line.label)}, {title.lower()}: {told}")
    if not items:
        return ["Where hakmem is behind: nowhere in these tables."]
    return ["Where hakmem is behind:", "", *items]


def md_level(results):
    """The rows and peers between which no difference was shown."""
    for (title, _, _), lines in kinds(results):
        rows = [f"{md(line.label)} ({', '.join(md(peer) for peer, _ in ratios)})"
                for line, ratios in results.listed(lines, "same")]
        yield f"No difference shown in {title.lower()}: {', '.join(rows) or 'none'}."


def md_drift(points):
    """What a soak did to its resident memory and to its speed."""
    told = [f"resident memory {bench_data.percent_text(bench_data.drift(points))}",
            f"speed {bench_data.percent_text(bench_data.speed_drift(points))}"]
    live = bench_data.drift(points, "live_bytes")
    if live is not None:
        told.append(f"the program's live bytes {bench_data.percent_text(live)}")
    return ", ".join(told)


def md_soak(results):
    """The long runs: drift from the second quarter to the last."""
    for entry in results.soak:
        for points in filter(None, entry["sides"].values()):
            at_end = points[-1].get("resident_bytes")
            of = [md(str(entry[key])) for key in ("commit", "processor") if entry.get(key)]
            yield (f"`{md(entry['command'])}`{' (' + ', '.join(of) + ')' if of else ''}: from the second quarter of the run to the last,"
                   f" {md_drift(points)}; resident at its end"
                   f" {'-' if at_end is None else bench_data.bytes_text(at_end)}.")


def md_head(results):
    """The short table: means over all rows, and the recorded programs."""
    peers = results.peers
    yield md_row(["hakmem to", *(md(results.full_name(peer)) for peer in peers)])
    yield "|---|" + "---:|" * len(peers)
    for (title, _, _), lines in kinds(results):
        means = [mean_text(results.tally(lines, peer).mean) for peer in peers]
        yield md_row([f"{title.lower()}, mean of {len(lines)} rows", *means])
    for (title, _, _), lines in kinds(results):
        for line in lines:
            if line.row["kind"] == "trace":
                cells = [md_ratio(line.ratio(peer)) for peer in peers]
                yield md_row([f"{title.lower()}, {md(line.label)}", *cells])
    if results.quick:
        yield ""
        yield "**From a quick run, too short for any claim.**"


def md_part(results):
    """The lines between the marks."""
    facts = {key: md(text) for key, text in results.facts().items()}
    quick = "**A quick run, too short for any claim.** " if results.quick else ""
    missing = ", ".join(map(md, results.data["missing"]))
    lines = [
        f"{quick}Measured on {facts['date']} at commit {facts['commit']} by `ninja bench`, rounds:"
        f" {facts['rounds']}; {facts['machine']}; {facts['compiler']}."
        + (f" Not measured: {missing}." if missing else ""),
        "",
        "Medians of hakmem, and its ratios to each peer: of speed, above 1 is better, of memory,"
        " below 1. Small, the bootstrap 95 % interval of the median of the rounds' ratios."
        " **Bold**: hakmem is behind. *Italic*: the interval includes 1, no difference is shown.",
        "",
    ]
    for (title, unit, divisor), rows in kinds(results):
        lines += [*md_table(results, rows, title.lower(), unit, divisor), ""]
        text = best_text(results, rows)
        lines += [f"In {title.lower()}, {text}.", ""]
    lines += [*md_behind(results), ""]
    for text in [*md_level(results), *md_soak(results)]:
        lines += [text, ""]
    return lines[:-1]


def with_parts(text, results, path):
    """A README's text with its parts in it."""
    if HEAD_BEGIN in text:
        text = with_part(text, [*md_head(results)], path, (HEAD_BEGIN, HEAD_END))
    return with_part(text, md_part(results), path, (BEGIN, END))


def with_part(text, part, path, marks):
    """A README's text with that part between those marks."""
    lines = text.split("\n")
    places = [[index for index, line in enumerate(lines) if line.strip() == mark]
              for mark in marks]
    for mark, found in zip(marks, places):
        if len(found) != 1:
            raise ValueError(f"{path}: {len(found)} lines {mark}, not 1")
    (begin,), (end,) = places
    if end < begin:
        raise ValueError(f"{path}: {marks[1]} comes before {marks[0]}")
    return "\n".join(lines[: begin + 1] + part + lines[end:])


def difference(before, after, path):
    """The first lines of what differs."""
    told = list(difflib.unified_diff(before.split("\n"), after.split("\n"), path,
                                     "what the results say", lineterm="", n=0))
    more = [f"... and {len(told) - SHOWN} lines more"] if len(told) > SHOWN else []
    return "\n".join(told[:SHOWN] + more)


def readme(path, change, check_only):
    """Rewrites a README as @change has its text, or tells what differs; returns the exit code."""
    with open(path, encoding="utf-8", newline="") as source:
        before = source.read()
    after = change(before)
    if before == after:
        return 0
    if check_only:
        print(difference(before, after, path))
        return 1
    content = after.encode("utf-8")  # what cannot be written must not cost the file
    with open(path, "wb") as out:
        out.write(content)
    return 0


def main():
    parser = argparse.ArgumentParser(description="Writes the benchmark's results as tables.")
    parser.add_argument("results", help="the results.json that bench.py wrote")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--csv", metavar="OUT", help="write every measurement as CSV")
    action.add_argument("--readme", metavar="README", help="rewrite the part between the marks")
    action.add_argument("--check", metavar="README", help="1 where that part is not up to date")
    options = parser.parse_args()
    try:
        results = bench_data.load(options.results)
        if options.csv:
            write_csv(results, options.csv)
        elif options.readme or options.check:
            path = options.readme or options.check
            return readme(path, lambda text: with_parts(text, results, path), bool(options.check))
        else:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 80
            print_terminal(results, sys.stdout, width)
    except (OSError, ValueError) as why:
        print(f"bench_tables.py: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
