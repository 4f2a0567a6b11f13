#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the sample programs of a build as their users do.

    programs.py BUILD_DIR

Looks at exit codes, at what is printed where, at JSON, and at what the trace programs say of
damaged files. The programs are those in BUILD_DIR/samples.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TRACES = [os.path.join(ROOT, "samples", "traces", name) for name in ("minetest.hkt", "godot.hkt")]
TIMEOUT = 300

# program: a run that is well, one with JSON and the keys that must be there, wrong usages
PROGRAMS = {
    "replay": {
        "json": [TRACES[1], "--json"],
        "keys": [
            "events",
            "events_per_second",
            "first_pass_events_per_second",
            "peak_bytes",
            "live_bytes",
            "live_bytes_events",
            "live_block_bytes",
            "process_committed_bytes",
            "committed_bytes",
            "metadata_bytes",
            "page_faults",
            "platform_calls",
            "counters",
        ],
        "wrong": [
            [],
            ["--json"],
            [TRACES[0], TRACES[1]],
            [TRACES[0], "--allocator", "other"],
            [TRACES[0], "--allocator"],
            [TRACES[0], "--repeat", "0"],
            [TRACES[0], "--repeat", "-1"],
            [TRACES[0], "--repeat", "2x"],
            [TRACES[0], "--repeat="],
            [TRACES[0], "--repeat", "99999999999999999999999"],
            [TRACES[0], "--repeat"],
            [TRACES[0], "--threads=2"],
            [TRACES[0], "--limit", "1M", "--allocator", "libc"],
            [TRACES[0], "--address-space", "64M", "--allocator", "libc"],
            [TRACES[0], "--address-space", "0"],
            [TRACES[0], "--verify", "--allocator", "null"],
        ],
    },
    "workload": {
        "json": ["larson", "--ops", "20000", "--workers", "2", "--json"],
        "keys": [
            "workload", "allocator", "workers", "seed", "ops", "seconds", "ops_per_second",
            "null_ops_per_second", "peak_bytes", "live_bytes", "resident_bytes",
            "committed_bytes", "fragmentation", "page_faults", "platform_calls", "counters",
        ],
        "wrong": [
            [],
            ["--json"],
            ["--ops", "5"],
            ["no-such-workload"],
            ["larson", "churn"],
            ["larson", "--allocator", "other"],
            ["larson", "--allocator"],
            ["larson", "--workers", "0"],
            ["larson", "--workers", "1,,2"],
            ["larson", "--workers", "1,"],
            ["larson", "--workers", "257"],
            ["larson", "--ops", "0"],
            ["larson", "--ops", "5", "--seconds", "1"],
            ["larson", "--seconds"],
            ["larson", "--profile", "other"],
            ["larson", "--ring", "100"],
            ["larson", "--min-size", "9", "--max-size", "8"],
            ["larson", "--min-size", "0"],
            ["larson", "--trace", "x"],
            ["larson", "--no-reset"],
            ["larson", "--large-pages", "--allocator", "libc"],
            ["larson", "--large-pages=1"],
            ["larson", "--verify", "--latency"],
            ["larson", "--verify", "--allocator", "null"],
            ["larson", "--limit", "1M", "--allocator", "libc"],
        ],
    },
    "trace-cut": {
        "json": None,
        "keys": [],
        "wrong": [
            [],
            [TRACES[0]],
            [TRACES[0], os.devnull],
            [TRACES[0], os.devnull, "--events"],
            [TRACES[0], os.devnull, "--events", "many"],
            [TRACES[0], os.devnull, "--bytes", "39"],
            [TRACES[0], os.devnull, "third", "--events", "1"],
        ],
    },
    "engine": {
        "json": ["--frames", "20", "--workers", "2", "--seed", "7", "--json"],
        "keys": [],
        "wrong": [["--frames"], ["--frames", "0"], ["--workers", "none"], ["stray"]],
    },
    "upkeep": {
        "json": ["--slices", "20", "--heap", "9M", "--seconds", "1", "--json"],
        "keys": ["rows", "missed"],
        "wrong": [["--heap"], ["--heap", "1"], ["--slices", "few"], ["one", "two"]],
    },
    "selfcheck": {
        "json": ["--operations", "500", "--json"],
        "keys": ["passed", "failed"],
        "wrong": [["--threads"], ["--threads", "0"], ["--operations", "few"], ["stray"]],
    },
}

ALLOC, FREE, REALLOC, ZALLOC, ALIGNED, MARK = range(6)


def varint(number):
    """LEB128."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def trace(events, slots, threads, count=None):
    """A trace file; an event is (thread, operation, fields...)."""
    body, last = bytearray(), 0
    for thread, operation, *fields in events:
        other = thread != last
        body.append(operation | (8 if other else 0))
        body += varint(thread) if other else b""
        for field in fields:
            body += varint(field)
        last = thread
    header = struct.pack("<4Q", len(events) if count is None else count, slots, threads, 0)
    return b"HKTRACE1" + header + bytes(body)


SMALL = trace(
    [
        (0, ALLOC, 0, 100),
        (1, ZALLOC, 1, 5000),
        (1, MARK, 40),
        (0, FREE, 1),
        (0, REALLOC, 0, 200000),
        (1, ALIGNED, 1, 12, 77),
        (1, MARK, 41),
        (1, FREE, 0),
    ],
    slots=2,
    threads=2,
)


class Checks:
    """Counts what holds and tells what does not."""

    def __init__(self, build, folder):
        self.samples = os.path.join(build, "samples")
        self.folder = folder
        self.passed = self.failed = 0

    def check(self, holds, what):
        if holds:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED: {what}")

    def run(self, program, arguments, code, **options):
        """Runs a program, checks its exit code, returns (stdout, stderr)."""
        command = [os.path.join(self.samples, program), *arguments]
        told = " ".join([program, *arguments])
        done = subprocess.run(
            command,
            stdin=options.get("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT,
            check=False,
        )
        out, error = (part.decode("utf-8", "replace") for part in (done.stdout, done.stderr))
        self.check(done.returncode == code, f"{told}: exit {done.returncode}, not {code}: {error}")
        return out, error

    def run_json(self, program, arguments, code=0):
        """Runs a program and returns its JSON object, {} where that is none."""
        out, error = self.run(program, arguments, code)
        told = " ".join([program, *arguments])
        try:
            value = json.loads(out)
        except ValueError as why:
            value = None
            print(f"{told}: {why}")
        self.check(isinstance(value, dict), f"{told}: one JSON object on stdout")
        self.check("\r" not in error, f"{told}: no progress line in a pipe: {error!r}")
        return value if isinstance(value, dict) else {}

    def file(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as out:
            out.write(content)
        return path


def check_common(checks, program, spec):
    """What holds for every program."""
    out, error = checks.run(program, ["--help"], 0)
    checks.check(out.startswith(f"usage: {program}"), f"{program} --help begins with its usage")
    checks.check("--help" in out, f"{program} --help names --help")
    checks.check(error == "", f"{program} --help: nothing on stderr")
    for wrong in spec["wrong"] + [["--no-such-option"], ["-x"]]:
        out, error = checks.run(program, wrong, 2)
        checks.check(out == "", f"{program} {wrong}: nothing on stdout")
        checks.check(program in error, f"{program} {wrong}: says on stderr who complains")
    if spec["json"]:
        value = checks.run_json(program, spec["json"])
        for key in spec["keys"]:
            checks.check(key in value, f"{program} --json has {key}")


def check_last_line(checks):
    out, _ = checks.run("selfcheck", ["--operations", "500"], 0)
    words = out.rstrip("\n").rpartition("\n")[2].split()
    checks.check(words[1:] == ["passed,", "0", "failed"], f"selfcheck ends with its sum: {words}")
    checks.check(words and int(words[0]) > 100, "selfcheck checks something")


def check_engine_table(checks):
    out, _ = checks.run("engine", ["--frames", "10", "--workers", "1", "--seed", "3"], 0)
    for name in ("render", "physics", "audio", "script", "assets"):
        checks.check(name in out, f"engine's table has {name}")


def check_engine_times(checks):
    """With malloc each block is a call of its own, and no call is told twice."""
    told = checks.run_json("engine", ["--frames", "1", "--workers", "1", "--allocator", "libc",
                                      "--json"])
    calls = {kind: told["latency"][kind]["all"]["count"] for kind in ("alloc", "free")}
    # of the first frame there remain 96 assets, 16 messages in place of 16 that were none, and
    # entities of three parts each
    left = calls["alloc"] - calls["free"] - 96
    checks.check(left % 3 == 0 and 0 <= left <= 24, f"engine's calls of malloc: {calls}")


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def check_replay_numbers(checks):
    for path in TRACES:
        for allocator in ("hakmem", "libc", "null"):
            for threads in ([], ["--threads"]):
                arguments = [path, "--json", "--repeat=2", "--allocator", allocator, *threads]
                value = checks.run_json("replay", arguments)
                check_one_replay(checks, value, " ".join(arguments))


def check_one_replay(checks, value, told):
    with open(value.get("file", TRACES[0]), "rb") as source:
        header = struct.unpack("<4Q", source.read(40)[8:])
    checks.check(value.get("events") == header[0], f"{told}: events")
    checks.check(value.get("slots") == header[1], f"{told}: slots")
    checks.check(value.get("recorded_threads") == header[2], f"{told}: recorded threads")
    threads = header[2] if "--threads" in told else 1
    checks.check(value.get("threads") == threads, f"{told}: threads")
    for key in ("events_per_second", "first_pass_events_per_second", "seconds"):
        checks.check(value.get(key) is not None and value[key] > 0, f"{told}: {key}")
    for key in ("peak_bytes", "page_faults", "process_committed_bytes"):
        checks.check(value.get(key) is None or is_count(value[key]), f"{told}: {key}")
    if value.get("peak_bytes") is not None and value.get("allocator") != "null":
        checks.check(value["peak_bytes"] > value["live_bytes"] / 2, f"{told}: peak, live bytes")
    only_hakmem = ("committed_bytes", "metadata_bytes", "platform_calls", "counters")
    if value.get("allocator") == "hakmem":
        checks.check(value["committed_bytes"] >= value["live_bytes"] / 2, f"{told}: committed")
        checks.check(0 < value["metadata_bytes"] < value["committed_bytes"], f"{told}: metadata")
        checks.check(value["platform_calls"] > 0, f"{told}: platform calls")
        checks.check(
            value["counters"].get("platform_call") == value["platform_calls"]
            and all(is_count(count) for count in value["counters"].values()),
            f"{told}: counters",
        )
    else:
        checks.check(all(value.get(key, 0) is None for key in only_hakmem), f"{told}: nulls")


def check_replay_verify(checks):
    for path in TRACES + [checks.file("small.hkt", SMALL)]:
        for allocator in ("hakmem", "libc"):
            for threads in ([], ["--threads"]):
                arguments = [path, "--verify", "--json", "--allocator", allocator, *threads]
                value = checks.run_json("replay", arguments)
                checks.check(value.get("failed_checks") == 0, f"{arguments}: no failed check")
                checks.check(value.get("failed_allocations") == 0, f"{arguments}: all served")


def check_replay_odds(checks):
    path = checks.file('a "quoted"\\ name.hkt', SMALL)
    value = checks.run_json("replay", ["--json", "--marks", "--", path])
    checks.check(value.get("file") == path, "the file's name survives JSON")
    marks = [(m["number"], m["events"], m["live_bytes"]) for m in value.get("marks", [])]
    checks.check(marks == [(40, 2, 5100), (41, 3, 200077)], f"marks: {marks}")
    checks.check(value.get("live_bytes") == 200077, "live_bytes is the trace's peak")
    checks.check(value.get("live_bytes_events") == 6, "which it came to by its sixth event")
    # 200000 and 77 bytes live in blocks of 224 KiB and of 80 bytes
    checks.check(value.get("live_block_bytes") == 229456, "live_block_bytes counts blocks")

    out, _ = checks.run("replay", [path, "--marks"], 0)
    checks.check("200077" in out, "marks in text")
    empty = checks.file("none.hkt", trace([], 0, 0))
    value = checks.run_json("replay", [empty, "--json"])
    checks.check(value.get("events") == 0, "a trace without events")

    with open(path, "rb") as source:
        out, _ = checks.run("replay", ["/dev/stdin", "--json"], 0, stdin=source)
    checks.check(json.loads(out)["events"] == 8, "a trace from stdin")

    large = checks.file("large.hkt", trace([(0, ALLOC, 0, 9 << 20)], 1, 1))
    value = checks.run_json("replay", [large, "--limit", "2M", "--json"], code=1)
    checks.check(value.get("failed_allocations") == 1, "an allocation beyond the limit")
    _, error = checks.run("replay", [large, "--limit", "2M"], 1)
    checks.check("event 0, slot 0: no memory for 9437184 bytes" in error, f"and told: {error}")
    _, error = checks.run("replay", [large, "--address-space", "1M"], 1)
    checks.check("no memory" in error, f"a range that is too short: {error}")
    checks.run_json("replay", [large, "--address-space", "64M", "--json"])
    _, error = checks.run("replay", [large, "--limit", "1"], 1)
    checks.check("limit" in error, f"a limit below an arena's least: {error}")


def check_damage(checks, name, content, where, programs=("replay", "trace-cut")):
    """A damaged file is refused, with @where in the message and nothing on stdout."""
    path = checks.file("damaged.hkt", content)
    target = os.path.join(checks.folder, "unwritten.hkt")
    for program in programs:
        rest = [target, "--events", "1000000"] if program == "trace-cut" else []
        out, error = checks.run(program, [path, *rest], 1)
        checks.check(where in error and path in error, f"{program}, {name}: {error!r}")
        checks.check(out == "", f"{program}, {name}: nothing on stdout")
    checks.check(not os.path.exists(target), f"{name}: nothing written")


def check_damaged_files(checks):
    size = len(SMALL)
    one = (0, ALLOC, 0, 1)
    check_damage(checks, "empty file", b"", "header, byte 0: ")
    check_damage(checks, "short header", SMALL[:39], "header, byte 39: ")
    check_damage(checks, "magic", b"X" + SMALL[1:], "header, byte 0: ")
    check_damage(checks, "cut", SMALL[:-1], f"event 7, byte {size - 1}: the file ends")
    check_damage(checks, "count too high", trace([one], 1, 1, 2), "event 1, byte 43: ")
    check_damage(checks, "count too low", trace([one, (0, FREE, 0)], 1, 1, 1), "event 1, byte 43: ")
    check_damage(checks, "operation", trace([one, (0, 6, 0)], 1, 1), "event 1, byte 43: ")
    check_damage(checks, "slot", trace([one, (0, ALLOC, 1, 1)], 1, 1), "event 1, byte 44: slot 1")
    check_damage(checks, "thread", trace([one, (1, FREE, 0)], 1, 1), "event 1, byte 44: thread 1")
    check_damage(checks, "live slot", trace([one, one], 1, 1), "event 1, byte 44: slot 0")
    check_damage(checks, "empty slot", trace([(0, FREE, 0)], 1, 1), "event 0, byte 41: slot 0")
    _, error = checks.run("replay", [os.path.join(checks.folder, "missing.hkt")], 1)
    checks.check("missing.hkt" in error, f"a missing file is named: {error}")
    checks.run("replay", [checks.folder], 1)


def check_cut(checks):
    source = checks.file("whole.hkt", SMALL)
    target = os.path.join(checks.folder, "cut.hkt")

    def cut(*arguments):
        checks.run("trace-cut", [source, target, *arguments], 0)
        with open(target, "rb") as result:
            content = result.read()
        checks.run("replay", [target, "--verify"], 0)
        return content

    def expect(content, header, told):
        checks.check(content[:8] == b"HKTRACE1", f"{told}: magic")
        found = struct.unpack("<4Q", content[8:40])
        checks.check(found == header, f"{told}: header {found}")
        checks.check(content[40:] == SMALL[40 : len(content)], f"{told}: the same events")

    expect(cut("--events", "0"), (0, 0, 0, 0), "no event")
    expect(cut("--events", "1"), (1, 1, 1, 0), "one event")
    expect(cut("--events=4"), (4, 2, 2, 0), "four events")
    expect(cut("--events", "1000"), (8, 2, 2, 0), "more than there are")
    checks.check(cut("--events", "8") == SMALL, "all events are the file itself")
    expect(cut("--bytes", "40"), (0, 0, 0, 0), "40 bytes")
    expect(cut("--bytes", "42"), (0, 0, 0, 0), "42 bytes")
    expect(cut("--bytes", "43"), (1, 1, 1, 0), "43 bytes")
    expect(cut("--bytes", "1K", "--events", "3"), (3, 2, 2, 0), "both bounds")

    checks.file("whole.hkt", SMALL[:-1])
    expect(cut("--events", "7"), (7, 2, 2, 0), "damage that lies behind the cut")
    missing = os.path.join(checks.folder, "no", "such", "folder.hkt")
    _, error = checks.run("trace-cut", [source, missing, "--events", "1"], 1)
    checks.check(missing in error, f"what cannot be written is named: {error}")


def check_terminal(checks):
    """The progress line is there where a person watches, and only there."""
    try:
        import pty  # not on Windows
    except ImportError:
        return
    first, second = pty.openpty()
    path = checks.file("small.hkt", SMALL)  # few events: nobody reads the terminal meanwhile
    command = [os.path.join(checks.samples, "replay"), path, "--threads"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=second, timeout=TIMEOUT, check=False
    )
    os.close(second)
    try:
        shown = os.read(first, 65536).decode("utf-8", "replace")
    except OSError:  # nothing was written
        shown = ""
    os.close(first)
    checks.check(done.returncode == 0, "replay on a terminal")
    checks.check("\r" in shown and "%" in shown and "events" in shown, f"progress: {shown!r}")
    checks.check(b"\r" not in done.stdout, "the progress line is not on stdout")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(sys.argv[1], folder)
        for program, spec in PROGRAMS.items():
            check_common(checks, program, spec)
        check_last_line(checks)
        check_engine_table(checks)
        check_engine_times(checks)
        check_replay_numbers(checks)
        check_replay_verify(checks)
        check_replay_odds(checks)
        check_damaged_files(checks)
        check_cut(checks)
        check_terminal(checks)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
