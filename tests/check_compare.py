#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks samples/compare.py, and peers.py and paired.py beside it.

    check_compare.py BUILD_DIR

Statistics are checked by compare_statistics.py; the program is run on a small fake one, which
notes its calls, and on BUILD_DIR/samples/replay.
Exit code: 0 well, 1 a check failed, 2 usage. A machine without peers will do.
"""

import io
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SAMPLES = os.path.join(ROOT, "samples")
COMPARE = os.path.join(SAMPLES, "compare.py")
TRACE = os.path.join(SAMPLES, "traces", "godot.hkt")
TIMEOUT = 120

sys.dont_write_bytecode = True
sys.path.insert(0, SAMPLES)

import compare  # noqa: E402
import paired  # noqa: E402
import peers  # noqa: E402
from compare_statistics import PARTS  # noqa: E402

# Prints JSON and notes each call: --name, --allocator, the variable MARK, processors it may use.
FAKE = '''
import json, os, sys, time
words = sys.argv[1:]
def option(name, default=""):
    return words[words.index(name) + 1] if name in words else default
who = option("--name") or option("--allocator")
with open(os.environ["FAKE_LOG"], "a") as log:
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    log.write(json.dumps([who, os.environ.get("MARK"), words, cpus]) + "\\n")
with open(os.environ["FAKE_LOG"]) as log:
    calls = sum(json.loads(line)[0] == who for line in log)
time.sleep(float(option("--sleep", "0")))
if calls > int(option("--good", "1000")):
    print("out of luck", file=sys.stderr)
    sys.exit(3)
speed = float(option("--speed", "1e6")) * (1 + calls % 5 / 1e4)
data = {"ops_per_second": speed, "peak_bytes": 4096, "none": None, "workers": 1, "zero": 0,
        "deep": {"p99_ns": 5, "word": "x"}, "events_per_second": 7}
for key in filter(None, option("--without").split(",")):
    del data[key]
print("text" if "--text" in words else json.dumps(data))
'''


class Checks:
    """Counts what holds and tells what does not; runs compare.py."""

    def __init__(self, folder):
        self.folder = folder
        self.log = os.path.join(folder, "log")
        self.fake = os.path.join(folder, "fake program")  # a space, to see the quoting
        self.passed = self.failed = 0
        with open(self.fake, "w", encoding="utf-8") as out:
            out.write(f"#!{sys.executable} -SE\n{FAKE}")
        os.chmod(self.fake, 0o755)

    def check(self, holds, what):
        if holds:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED: {what}", flush=True)

    def equal(self, value, wanted, what):
        self.check(value == wanted, f"{what}: {value!r}, not {wanted!r}")

    def near(self, value, wanted, what, share=1e-6):
        close = math.isclose(value, wanted, rel_tol=share, abs_tol=1e-12)
        self.check(close, f"{what}: {value!r}, not {wanted!r}")

    def raises(self, error, call, *arguments):
        try:
            value = call(*arguments)
        except error:
            return self.check(True, "")
        return self.check(False, f"{call.__name__}{arguments} gave {value!r}")

    def command(self, *words):
        """The fake program as a command line."""
        return shlex.join([self.fake, *words])

    def run(self, arguments, code, **environment):
        """Runs compare.py, checks its exit code; returns (stdout, stderr, the fake's calls)."""
        if os.path.exists(self.log):
            os.remove(self.log)
        env = dict(os.environ, FAKE_LOG=self.log, **environment)
        done = subprocess.run(
            [sys.executable, COMPARE, *arguments], env=env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT, check=False,
        )
        out, error = (part.decode("utf-8", "replace") for part in (done.stdout, done.stderr))
        self.check(
            done.returncode == code, f"{arguments}: exit {done.returncode}, not {code}: {error}"
        )
        self.check("Traceback" not in error, f"{arguments}: {error}")
        self.check("\r" not in error, f"{arguments}: no progress in a pipe: {error!r}")
        calls = []
        if os.path.exists(self.log):
            with open(self.log, encoding="utf-8") as log:
                calls = [json.loads(line) for line in log]
        return out, error, calls

    def report(self, arguments, code=0, **environment):
        """Runs compare.py --json; returns (its object, the fake's calls)."""
        out, error, calls = self.run(["--json", *arguments], code, **environment)
        try:
            value = json.loads(out)
        except ValueError as why:
            self.check(False, f"{arguments}: {why}: {out!r} {error!r}")
            sys.exit(1)
        return value, calls


def check_keys(checks):
    """Numbers in JSON."""
    text = '{"a": 2, "b": {"c": 0.5, "d.e": 1}, "x.y": 3, "t": true, "s": "5", "n": null}'
    run = compare.Run(0.25, compare.object_in(text))
    for key, wanted in (("a", 2), ("b.c", 0.5), ("x.y", 3), (compare.WALL, 0.25)):
        checks.equal(compare.number_of(run, key), wanted, f"key {key}")
    for key in ("b", "c", "b.x", "a.b", "t", "s", "n", ""):
        checks.raises(compare.RunError, compare.number_of, run, key)
    for value in ("0", "-1", "NaN", "Infinity"):
        bad = compare.Run(1, compare.object_in('{"k": %s}' % value))
        checks.raises(compare.RunError, compare.number_of, bad, "k")
    checks.equal(compare.object_in("a line\n{\"a\": 1}\n"), {"a": 1}, "JSON in the last line")
    for text in ("", "text", "[1]", "5", "{", '{"a": 1} {"b": 2}'):
        checks.equal(compare.object_in(text), {}, f"no object: {text}")
    for key in ("peak_bytes", "p99_ns", "a.max_ns", "seconds", "fragmentation", "page_faults"):
        checks.check(compare.is_lower(key), f"lower {key} is better")
    for key in ("ops_per_second", "events_per_second", "score"):
        checks.check(not compare.is_lower(key), f"higher {key} is better")
    for words, wanted in (
        ("x --workers 3", 3), ("x --workers=1", 1), ("x --threads", compare.MANY), ("x", None)
    ):
        checks.equal(compare.workers_in(words.split()), wanted, f"workers in {words}")


def check_templates(checks):
    """Sides and their commands."""
    told = "prog in|larson|a b|--allocator|libc"
    for text, wanted in (
        ("x=run", "run|larson|a b"),
        ("x=run -q {}", f"run|-q|{told}"),
        ("x=run {} --end", f"run|{told}|--end"),
        ("x=mine {args} -z", "mine|larson|a b|-z"),
        ("x='my prog' {args}", "my prog|larson|a b"),
        ("x=sh -c 'exec {}'", "sh|-c|exec 'prog in' larson 'a b' --allocator libc"),
        ("x=sh -c 'exec m {args}'", "sh|-c|exec m larson 'a b'"),
        ("x=MARK=1", told),
    ):
        argv, _ = peers.own_side(text).command("prog in", ["larson", "a b"])
        checks.equal("|".join(argv), wanted, text)
    side = peers.own_side("mine=MARK='1 2' OTHER= run a=b {args}")
    argv, env = side.command("prog", [])
    checks.equal((side.name, argv), ("mine", ["run", "a=b"]), "words behind the environment")
    checks.equal((env["MARK"], env["OTHER"]), ("1 2", ""), "environment words")
    checks.equal(env.get("PATH"), os.environ.get("PATH"), "the rest of the environment stays")
    for text in ("name", "=run", "x=", "x=  ", "a b=run", "x='run", "x=run\\"):
        checks.raises(ValueError, peers.own_side, text)
    side = peers.command_side("A", "MARK=1 run {} {args}")
    argv, env = side.command()
    checks.equal((argv, env["MARK"]), (["run", "{}", "{args}"], "1"), "a literal command")
    for text in ("", "MARK=1", "'"):
        checks.raises(ValueError, peers.command_side, "A", text)
    for version, wanted in (
        ("2.0.9+ds-2", "2.0.9"), ("5.3.0-1", "5.3.0"), ("1:2.10-1", "2.10"),
        ("2021.8.0-2+deb12u1", "2021.8.0"), ("1.2~rc1-3", "1.2"), ("7", "7"),
    ):
        checks.equal(peers.upstream(version), wanted, f"upstream {version}")


def check_sides(checks, program):
    """hakmem, glibc and what this machine has."""
    sides, missing = peers.sides()
    names = [side.name for side in sides]
    checks.equal(names[0], "hakmem", "hakmem comes first")
    checks.check(sides[0].version and sides[0].version.count(".") == 2, f"{sides[0].version}")
    checks.equal(sorted(names[2:] + missing), sorted(peers.PRELOADS), "found or missing")
    os.environ["LD_PRELOAD"] = ""  # as if the caller had one
    for side, allocator in zip(sides, ["hakmem"] + ["libc"] * len(sides)):
        argv, env = side.command("prog", ["x"])
        checks.equal(argv, ["prog", "x", "--allocator", allocator], side.name)
        checks.equal("LD_PRELOAD" in env, side.name in peers.PRELOADS, f"{side.name}: preload")
        if side.name in peers.PRELOADS:
            checks.check(os.path.isfile(env["LD_PRELOAD"]), f"{env['LD_PRELOAD']} is there")
            checks.check(side.how.startswith("LD_PRELOAD=lib"), f"how: {side.how}")
            peers.check_preload(side, program)
    del os.environ["LD_PRELOAD"]
    broken = peers.own_side("x=LD_PRELOAD=./no-such.so")
    checks.raises(peers.PreloadError, peers.check_preload, broken, program)
    checks.equal(peers.check_preload(sides[1], program), None, "nothing to preload")
    check_library_search(checks)
    check_static(checks)


def check_library_search(checks):
    """Libraries by other versions and in folders that the loader's cache does not have."""
    cache = {"libmimalloc.so.3": "three", "libmimalloc.so.10": "ten", "libmimalloc-x.so.2": "x"}
    checks.equal(peers.find_library("mimalloc", cache), "ten", "the newest version")
    cache["libmimalloc.so.2"] = "two"
    checks.equal(peers.find_library("mimalloc", cache), "two", "the usual version")
    folder = os.path.join(checks.folder, "lib", "some-triplet")
    os.makedirs(folder)
    path = os.path.join(folder, "libjemalloc.so.1")
    shutil.copy(os.path.realpath(sys.executable), path)
    for name, content in (("libjemalloc.so.2", b"no library"), ("libjemalloc.so.3", b"")):
        with open(os.path.join(folder, name), "wb") as out:
            out.write(content)
    places = [os.path.dirname(folder)]
    checks.equal(peers.find_library("jemalloc", {}, places), path, "one that is a library")
    checks.equal(peers.find_library("tcmalloc", {}, places), None, "none")
    target = os.path.join(folder, "libmimalloc.so.2.1")
    link = os.path.join(folder, "libmimalloc.so.2")
    shutil.copy(path, target)
    os.symlink(target, link)
    checks.equal(peers.library_version(link), "2.1", "version by the file's name")
    checks.equal(peers.library_version(path), None, "one number is no version")


def check_static(checks):
    """A program that ignores LD_PRELOAD without a word."""
    source, program = (os.path.join(checks.folder, name) for name in ("s.c", "static"))
    with open(source, "w", encoding="utf-8") as out:
        out.write("int main(void) { return 0; }\n")
    cc = shutil.which("cc") or shutil.which("gcc")
    command = [cc, "-static", "-o", program, source]
    if not cc or subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode:
        return
    side = peers.own_side("x=LD_PRELOAD=libc.so.6")
    checks.raises(peers.PreloadError, peers.check_preload, side, program)
    command = f"LD_PRELOAD=libc.so.6 {shlex.quote(program)}"
    report, _ = checks.report(["--rounds", "1", "true", command], 1)
    reason = f"libc.so.6 is not loaded into {program}"
    checks.equal(report["failed"], [{"name": "B", "reason": reason}], "a static program")


def check_order(checks):
    """Which side runs when."""
    two = [checks.command("--name", name) for name in ("first", "second")]
    for options, wanted in (
        (["--rounds", "2"], "fs" + "fssf" * 2),
        (["--rounds", "3", "--no-floor"], "fs" + "fs" + "sf" + "fs"),
    ):
        report, calls = checks.report([*options, *two])
        checks.equal("".join(call[0][0] for call in calls), wanted, f"order with {options}")
        runs = 3 if "--no-floor" in options else 4
        checks.equal([len(side["values"]) for side in report["sides"]], [runs] * 2, "counted")
    report, calls = checks.report(
        ["--rounds", "1", "--only", "glibc,x", "--peer", f"x={checks.command('--name', 'x')}",
         "--peer", f"y=MARK=7 {checks.command('--name', 'y')} {{args}} last",
         "--peers", checks.fake, "larson", "--workers", "1"], **{"LD_PRELOAD": ""})
    order = "hakmem libc x y".split()
    checks.equal([call[0] for call in calls], order * 2 + order[::-1], "order of four")
    words = {call[0]: call[2] for call in calls}
    asked = ["larson", "--workers", "1", "--json"]
    checks.equal(words["hakmem"], asked + ["--allocator", "hakmem"], "hakmem's words")
    checks.equal(words["libc"], asked + ["--allocator", "libc"], "glibc's words")
    checks.equal(words["x"], ["--name", "x", *asked], "x: arguments appended")
    checks.equal(words["y"], ["--name", "y", *asked, "last"], "y: {args}")
    checks.equal({call[1] for call in calls if call[0] == "y"}, {"7"}, "y's environment")
    checks.equal({call[1] for call in calls if call[0] == "x"}, {None}, "and not x's")


def check_pin(checks):
    """Processors."""
    if not hasattr(os, "sched_getaffinity"):
        return
    allowed = sorted(os.sched_getaffinity(0))
    pair = [checks.command("--name", "f"), checks.command("--name", "s")]
    for options, commands, cpus in (
        ([], pair, allowed[-1:]),
        (["--pin", "none"], pair, allowed),
        (["--pin", str(allowed[0])], pair, allowed[:1]),
        ([], [command + " --without workers" for command in pair], allowed),
        ([], [command + " --without workers --workers 1" for command in pair], allowed[-1:]),
        ([], [pair[0], pair[1] + " --without workers --workers 2"], allowed),
    ):
        report, calls = checks.report(["--rounds", "1", *options, *commands])
        checks.check(all(call[3] == cpus for call in calls[2:]), f"{options} {commands}: {calls}")
        wanted = None if cpus is allowed else cpus
        checks.equal(report["pin"], wanted, f"{options} {commands}: what is told")
        start = "not pinned: " if wanted is None else "pinned to processor"
        checks.check(report["pinned"].startswith(start), report["pinned"])
    checks.equal(sorted(os.sched_getaffinity(0)), allowed, "own processors stay")


def check_report(checks):
    """What is printed of sides that differ."""
    pair = [checks.command("--name", "f"), checks.command("--name", "s", "--speed", "5e5")]
    report, _ = checks.report(["--rounds", "8", *pair])
    for key in ("format key lower rounds runs_per_round pin pinned machine environment seconds "
                "base commands sides floor missing failed").split():
        checks.check(key in report, f"--json has {key}")
    checks.equal((report["key"], report["lower"]), ("ops_per_second", False), "the usual key")
    first, second = report["sides"]
    checks.equal((first["name"], second["name"], report["base"]), ("A", "B", "A"), "names")
    checks.equal((first["ratio"], first["verdict"]), (None, None), "A has no ratio")
    checks.near(second["ratio"], 0.5, "half as fast", 0.001)
    checks.check(second["low"] <= second["ratio"] <= second["high"] < 1, f"{second}")
    checks.check(second["n"] == 8 and second["p"] < 0.01, f"8 pairs: {second}")
    checks.equal((second["verdict"], second["better"]), ("slower", False), "verdict")
    checks.near(second["median"], 500100, "median", 0.001)
    checks.near(report["floor"]["ratio"], 1, "floor", 0.001)
    for key in ("processor", "processors", "memory_bytes", "kernel", "system"):
        checks.check(report["machine"].get(key), f"machine has {key}")
    out, _, _ = checks.run(["--rounds", "8", *pair], 0)
    for word in ("slower", "floor of noise", "machine: ", "rounds: 8", "B: ", "0.500 [0.500"):
        checks.check(word in out, f"the table has {word!r}: {out}")
    report, _ = checks.report(["--rounds", "8", *reversed(pair)])
    checks.equal(report["sides"][1]["verdict"], "faster", "the other way round")
    report, _ = checks.report(["--rounds", "8", "--lower", *pair])
    checks.equal(report["sides"][1]["verdict"], "faster", "--lower")
    report, _ = checks.report(["--rounds", "8", "--key", "peak_bytes", *pair])
    side = report["sides"][1]
    checks.equal((side["ratio"], side["p"], side["verdict"]), (1, 1, paired.SAME), "equal bytes")
    checks.equal(report["lower"], True, "lower bytes are better")
    report, _ = checks.report(["--rounds", "1", "--key", "deep.p99_ns", "--no-floor", *pair])
    checks.equal((report["sides"][0]["median"], report["floor"]), (5, None), "a dotted key")
    out, _, _ = checks.run(["--rounds", "7", "--no-floor", *pair], 0, MALLOC_ARENA_MAX="2")
    for word in (paired.SAME, "fewer than 8", "MALLOC_ARENA_MAX=2", "not measured"):
        checks.check(word in out, f"7 rounds: {word!r}: {out}")
    words = compare.in_words(paired.Comparison(2, 1.9, 2.1, 0.001, 20), None, "peak_bytes", True)
    checks.equal(words, ("more", False), "of bytes there are more")


def check_usual_keys(checks):
    """The key where none is given."""
    command = checks.command
    for words, wanted in (
        ([["--without", "ops_per_second"]] * 2, "events_per_second"),
        ([["--text"]] * 2, "wall_seconds"),
        ([[], ["--text"]], "wall_seconds"),
        ([["--without", "ops_per_second"], []], "events_per_second"),
    ):
        report, _ = checks.report(["--rounds", "1", *(command(*part) for part in words)])
        checks.equal(report["key"], wanted, f"key with {words}")
        checks.equal(report["lower"], wanted == "wall_seconds", f"its direction with {words}")
    pair = [command("--text"), command("--text", "--sleep", "0.2")]
    report, _ = checks.report(["--rounds", "1", "--no-floor", *pair])
    fast, slow = (side["median"] for side in report["sides"])
    # no upper bound that a busy machine could pass: seconds they are
    checks.check(0.2 < slow < 60 and 0 < fast < 60, f"wall times {fast}, {slow}")


def check_failures(checks):
    """Sides that fail; the others are told of all the same."""
    good, missing = checks.command("--name", "f"), os.path.join(checks.folder, "no such program")
    for bad, reason in (
        (checks.command("--good", "0"), "exit code 3: out of luck"),
        (checks.command("--name", "s", "--good", "3"), "exit code 3: out of luck"),
        (checks.command("--sleep", "9"), "took more than 1 s"),
        (shlex.quote(missing), "No such file"),
        ("sh -c 'kill -9 $$'", "signal 9"),
        ("LD_PRELOAD=./no-such.so " + good, "cannot be preloaded"),
        ("sh -c 'LD_PRELOAD=./no-such.so exec \"$0\"' " + good, "cannot be preloaded"),
    ):
        for pair in ([good, bad], [bad, good]):
            report, calls = checks.report(["--rounds", "2", "--timeout", "1", *pair], 1)
            told = report["failed"][0]
            checks.equal(told["name"], "AB"[pair.index(bad)], f"who failed: {bad}")
            checks.check(reason in told["reason"], f"{bad}: {told['reason']}")
            checks.equal(report["sides"], [], f"nothing to compare with: {bad}")
            checks.check(len(calls) < 10, f"{bad}: it is not run to the end")
    for key, reason in (
        ("nokey", "no nokey"), ("none", "is null"), ("zero", "is 0"), ("deep.word", "is no number")
    ):
        report, _ = checks.report(["--key", key, good, good], 1)
        checks.check(reason in report["failed"][0]["reason"], f"{key}: {report['failed']}")
    report, _ = checks.report(["--key", "peak_bytes", checks.command("--text"), good], 1)
    checks.equal(report["failed"], [{"name": "A", "reason": "no JSON with peak_bytes"}], "no JSON")
    arguments = ["--rounds", "2", "--only", "glibc,x,y,z", "--timeout", "20",
                 "--peer", f"x={checks.command('--good', '2', '--name', 'x')}",
                 "--peer", "y=LD_PRELOAD=./no-such.so {}",
                 "--peer", f"z={checks.command('--name', 'z', '--text')}", "--peers", checks.fake]
    report, calls = checks.report(arguments, 1)
    told = [(side["name"], side["n"]) for side in report["sides"]]
    checks.equal([name for name, _ in told], [peers.sides()[0][at].name for at in (0, 1)], "left")
    checks.equal(told[1][1], 2, "all rounds of the others")
    checks.equal(sorted(side["name"] for side in report["failed"]), ["x", "y", "z"], "failed")
    checks.equal(sum(call[0] == "x" for call in calls), 3, "x is not run again")
    out, _, _ = checks.run(arguments, 1)
    for name in "xyz":
        checks.check(f"\nfailed: {name}: " in out, f"{name} is named: {out}")


def check_usage(checks):
    """Wrong options."""
    fake = checks.command()
    for arguments in (
        [], [fake], [fake] * 3, ["--peers"], [fake, "--peers", fake], ["--rounds", "0", fake, fake],
        ["--rounds", "x", fake, fake], ["--timeout", "0", fake, fake], ["--wrong", fake, fake],
        ["--timeout", "nan", fake, fake], ["", fake], ["'", fake], ["MARK=1", fake],
        ["--pin", "x", fake, fake], ["--pin", "", "--pin", "1-0", fake, fake],
        ["--pin", "99999", fake, fake], ["--pin", "0-99999999999", fake, fake],
        ["--key", "", fake, fake], ["--peer", f"x={fake}", fake, fake], ["--only", "x", fake, fake],
        ["--peer", "x", "--peers", fake], ["--peer", "glibc=x", "--peers", fake],
        ["--peer", "mimalloc=x", "--peers", fake],
        ["--peer", "x=a", "--peer", "x=b", "--peers", fake],
        ["--only", "nobody", "--peers", fake], ["--only", "hakmem", "--peers", fake],
        ["--only", "", "--peers", fake], ["--peers", fake, "--allocator", "libc"],
    ):
        out, error, calls = checks.run(arguments, 2)
        checks.equal((out, calls), ("", []), f"{arguments}: nothing is printed or run")
        checks.check("compare.py: error: " in error, f"{arguments}: {error}")
    out, error, _ = checks.run(["--help"], 0)
    checks.check(out.startswith("usage: compare.py") and not error, "--help")
    for option in "--peers --peer --only --rounds --key --lower --pin --no-floor --timeout".split():
        checks.check(option in out, f"--help names {option}")


def check_progress(checks):
    """The line on a terminal."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    progress = compare.Progress("title", 3, screen)
    progress.begin -= 60  # as if the first run had taken a minute
    progress.step()
    checks.check("\rtitle: 1 of 3, 2:00 left" in screen.getvalue(), screen.getvalue())
    progress.finish()
    checks.check(screen.getvalue().endswith("\r\x1b[K"), "the line is wiped")
    pipe = io.StringIO()
    compare.Progress("title", 3, pipe).step()
    checks.equal(pipe.getvalue(), "", "no progress in a pipe")


def is_running(pid):
    """Is there such a process? One that has ended and that nobody waits for is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def check_interface(checks):
    """run_round() as other programs call it."""
    os.environ["FAKE_LOG"] = checks.log
    sides = [peers.command_side(name, checks.command("--name", name)) for name in "xyz"]
    sides[1] = peers.command_side("y", "false")
    failed, progress = {}, compare.Progress("", 6, io.StringIO())
    runner = compare.Runner(timeout=20)
    for number, wanted in ((0, ["x", "z"]), (1, ["z", "x"])):
        runs = compare.run_round(runner, sides, number, failed, progress)
        checks.equal(list(runs), wanted, f"round {number}")
        checks.check(runs["x"].seconds > 0 and runs["x"].data["workers"] == 1, f"{runs}")
    checks.equal(failed, {"y": "exit code 1"}, "failed")
    checks.equal((progress.done, progress.total), (5, 5), "progress without the failed side")
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        compare.Runner(timeout=20, cpus={max(allowed)}).run(sides[0])
        checks.equal(os.sched_getaffinity(0), allowed, "own processors come back")
    # What a run leaves behind holds its pipes: both must go.
    file = os.path.join(checks.folder, "pid")
    script = f"sleep 40 & echo $! >{shlex.quote(file)}; wait"
    begin = time.monotonic()
    side = peers.command_side("late", shlex.join(["sh", "-c", script]))
    checks.raises(compare.RunError, compare.Runner(timeout=0.5).run, side)
    with open(file, encoding="ascii") as text:
        child = int(text.read())
    while is_running(child) and time.monotonic() < begin + 10:
        time.sleep(0.05)
    checks.check(not is_running(child), "what a run started ends with it")
    checks.check(time.monotonic() < begin + 10, "a timeout does not wait")


def check_real(checks, program):
    """A short run of the real thing."""
    report, _ = checks.report(["--rounds", "2", "--peers", program, TRACE])
    checks.equal(report["failed"], [], "replay on all peers")
    checks.equal((report["key"], report["base"]), ("events_per_second", "hakmem"), "replay's key")
    names = [side["name"] for side in report["sides"] + report["missing"]]
    checks.equal(set(names) >= {"hakmem", *peers.PRELOADS}, True, f"all peers are told: {names}")
    for side in report["sides"]:
        checks.check(all(value > 1e5 for value in side["values"]), f"{side['name']} ran")
        checks.equal(len(side["values"]), 4, f"{side['name']}: runs")


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__.strip(), file=sys.stdout if "--help" in sys.argv else sys.stderr)
        return 0 if "--help" in sys.argv else 2
    program = os.path.join(os.path.abspath(sys.argv[1]), "samples", "replay")
    os.environ.pop("LD_PRELOAD", None)
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(folder)
        for part in (*PARTS, check_keys, check_templates, check_order, check_pin, check_report,
                     check_usual_keys, check_failures, check_usage, check_progress,
                     check_interface):
            part(checks)
        check_sides(checks, program)
        check_real(checks, program)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
