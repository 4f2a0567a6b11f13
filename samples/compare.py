#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares two programs, or hakmem with other allocators, and says only what can be known.

    compare.py [options] 'COMMAND A' 'COMMAND B'
    compare.py [options] --peers PROGRAM [ARGUMENT...]

Two commands may be two builds or two sets of options; leading VAR=value words are environment.
With --peers the program is one of this project's, which take --allocator and --json: hakmem runs
against glibc, every peer that is found (peers.py) and each --peer name=command. --peers ends the
options. What is compared is a number of the JSON object that a run prints, else wall time.

Each run is a fresh process. A round is there and back, A B B A, after one run of each side that
is not counted. A machine that gets slower or faster thus hits both alike, a steady drift exactly,
and the means of two runs carry less noise than single ones. The two runs of A are A against A:
the floor of noise, taken from the same minutes as the comparison and not from some before it.
Simulated, this finds more than A against A first and then A against B, which takes as long;
paired.py has the figures, and the rule by which a difference is shown. With --no-floor a round is
one run of each side, A B and in the next B A: half the time, and less is found.

Exit code: 0 well, whatever the verdict; 1 a side failed or could not be preloaded; 2 usage.

For other programs: Runner, run_round(), number_of(), Progress and choose_cpus().
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True

import paired  # noqa: E402
import peers  # noqa: E402

WALL = "wall_seconds"  # not in the JSON: what this program measures itself
KEYS = ("ops_per_second", "events_per_second")
LOWER_ENDS = ("_bytes", "_ns", "seconds", "fragmentation", "page_faults")
TIMED_ENDS = ("per_second", "_ns", "seconds")  # of these one says faster, of others more
TUNABLES = ("GLIBC_TUNABLES", "MALLOC_", "MIMALLOC_", "TCMALLOC_", "TBB_MALLOC_", "LD_PRELOAD")
TIMEOUT = 600.0
MANY = math.inf  # workers: more than one


class RunError(Exception):
    """A run that failed or did not print what was asked of it; says why."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: wall time, and the JSON object that it printed, {} where it is no such."""

    seconds: float
    data: dict


class Runner:
    """What all runs of a comparison have in common: program, arguments, timeout, processors."""

    def __init__(self, program=None, arguments=(), timeout=TIMEOUT, cpus=None):
        self.program = program
        self.arguments = list(arguments)
        self.timeout = timeout
        self.cpus = cpus  # a set, None: wherever this process may run

    def run(self, side):
        """Runs a side (peers.Side) once, in a new process; returns its Run or raises RunError."""
        argv, env = side.command(self.program, self.arguments)
        begin = time.perf_counter()
        try:
            with pinned(self.cpus):
                process = subprocess.Popen(
                    argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE, start_new_session=True,
                )
        except (OSError, ValueError) as why:
            raise RunError(str(why)) from why
        out, error = self.output_of(process)
        seconds = time.perf_counter() - begin
        error = error.decode("utf-8", "replace")
        try:
            peers.refuse_preload(error)
        except peers.PreloadError as why:
            raise RunError(str(why)) from why
        if process.returncode:
            raise RunError(ending(process.returncode, error))
        return Run(seconds, object_in(out.decode("utf-8", "replace")))

    def output_of(self, process):
        """Waits for a process and ends it, and what it started, when that takes too long."""
        try:
            return process.communicate(timeout=self.timeout)
        except BaseException as why:  # too late, or the user wants no more
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.stderr.close()
            process.wait()
            if isinstance(why, subprocess.TimeoutExpired):
                raise RunError(f"took more than {self.timeout:g} s") from why
            raise


@contextlib.contextmanager
def pinned(cpus):
    """What is started meanwhile inherits these processors."""
    if cpus is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def ending(code, error):
    """How a process failed: its code and the last line that it wrote to stderr."""
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    lines = error.split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"{how}: {last}" if last else how


def object_in(text):
    """The JSON object that a text, or else its last line, is; {} where neither is one."""
    for part in (text, text.rstrip().rpartition("\n")[2]):
        try:
            value = json.loads(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return {}


def number_of(run, key):
    """The number at a key of a Run; dots reach into objects. Raises RunError where none is."""
    if key == WALL:
        return run.seconds
    value = run.data.get(key)
    if key not in run.data:
        value = run.data
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise RunError(f"no {key} in its JSON" if run.data else f"no JSON with {key}")
            value = value[part]
    if value is None:
        raise RunError(f"{key} is null: it cannot be measured here")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RunError(f"{key} is no number: {json.dumps(value)[:60]}")
    if not math.isfinite(value) or value <= 0:
        raise RunError(f"{key} is {value}: only numbers above 0 have ratios")
    return value


class Progress:
    """One line on a terminal: how many runs are done and how much time is left."""

    def __init__(self, title, total, stream=None):
        self.title = title
        self.total = total  # may be changed: a side that failed has no more runs
        self.done = 0
        self.begin = time.monotonic()
        self.stream = sys.stderr if stream is None else stream
        self.shows = self.stream.isatty()

    def step(self):
        """One more run is done."""
        self.done += 1
        left = (time.monotonic() - self.begin) / self.done * max(0, self.total - self.done)
        self.say(f"{self.title}: {self.done} of {self.total}, {clock(left)} left")

    def finish(self):
        """Nothing stays on the line."""
        self.say("")

    def say(self, text):
        if self.shows:
            self.stream.write("\r" + text + "\x1b[K")
            self.stream.flush()


def clock(seconds):
    """90 is 1:30."""
    return f"{int(seconds + 0.5) // 60}:{int(seconds + 0.5) % 60:02}"


def run_round(runner, sides, number, failed, progress=None):
    """Runs each side once, in order where @number is even, backwards where it is odd.

    Returns {name: Run}. A side that fails is entered into @failed, {name: reason}; sides that
    stand there already are not run.
    """
    runs = {}
    for side in sides if number % 2 == 0 else reversed(sides):
        if side.name in failed:
            if progress:
                progress.total -= 1
            continue
        try:
            runs[side.name] = runner.run(side)
        except RunError as why:
            failed[side.name] = str(why)
        if progress:
            progress.step()
    return runs


def measure(runner, sides, key, passes, failed, progress):
    """Runs all sides @passes times; returns {name: [a number for each]}, without those in @failed.

    {} where the first side fails or no other is left: then there is nothing to compare.
    """
    values = {side.name: [] for side in sides}
    for number in range(passes):
        for name, run in run_round(runner, sides, number, failed, progress).items():
            try:
                values[name].append(number_of(run, key))
            except RunError as why:
                failed[name] = str(why)
        left = [side for side in sides if side.name not in failed]
        if len(left) < 2 or left[0] is not sides[0]:
            return {}
    return {name: numbers for name, numbers in values.items() if name not in failed}


def choose_key(runs):
    """The first usual key that all runs have; wall time where there is none."""
    for key in KEYS:
        if all(key in run.data for run in runs):
            return key
    return WALL


def is_lower(key):
    """Are lower values of this key better?"""
    return key.endswith(LOWER_ENDS)


def workers_in(words):
    """How many workers a command line asks for, None where it does not say."""
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in ("--workers", "--threads"):
            value = value if equals else "".join(words[index + 1 : index + 2])
            return int(value) if value.isdecimal() else MANY  # replay's --threads has no number
    return None


def workers_of(run, words):
    """How many workers a run had, by what it printed or else its command line."""
    for key in ("workers", "threads"):
        if type(run.data.get(key)) is int:
            return run.data[key]
    return workers_in(words)


def choose_cpus(workers):
    """(cpus, in words) where nothing was asked for: @workers of all sides, None: not known."""
    known = [count for count in workers if count is not None]
    if not known:
        return None, "not pinned: it is not known how many workers there are"
    if max(known) > 1:
        return None, "not pinned: there is more than one worker"
    if not hasattr(os, "sched_setaffinity"):
        return None, "not pinned: this system cannot"
    last = max(os.sched_getaffinity(0))
    return {last}, f"pinned to processor {last}"


def parse_cpus(text):
    """The set that "0,2-3" means; None for "none". ValueError where this process has no such."""
    if text == "none":
        return None
    if not hasattr(os, "sched_getaffinity"):
        raise ValueError("this system cannot pin")
    cpus = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or not (last if dash else "0").isdecimal():
            raise ValueError(f"no list of processors: {text!r}")
        cpus.update(range(int(first), min(int(last if dash else first), 65535) + 1))
    if not cpus or not cpus <= os.sched_getaffinity(0):
        raise ValueError(f"not processors that this process may use: {text}")
    return cpus


def rounds_of(values, passes):
    """The logarithm of each round's mean, of @passes runs each."""
    logs = [math.log(value) for value in values]
    return [math.fsum(logs[at : at + passes]) / passes for at in range(0, len(logs), passes)]


def against_itself(values):
    """A's Comparison with itself: of its two runs in each round, either first in turn."""
    logs = [math.log(value) for value in values]
    pairs = zip(logs[::2], logs[1::2])
    return paired.compare(
        [late - early if at % 2 == 0 else early - late for at, (early, late) in enumerate(pairs)]
    )


def in_words(comparison, floor, key, lower):
    """(verdict, whether it is better, None where no difference is shown)."""
    verdict = paired.verdict(comparison, floor, lower)
    if verdict == paired.SAME:
        return verdict, None
    if key.endswith(TIMED_ENDS):
        return verdict, verdict == "faster"
    return "more" if comparison.ratio > 1 else "less", verdict == "faster"


def report_of(sides, values, options, key, lower):
    """What --json prints of the sides: (sides, floor)."""
    if not values:
        return [], None
    base = sides[0].name
    floor = against_itself(values[base]) if options.floor else None
    told = []
    for side in (side for side in sides if side.name in values):
        row = {"name": side.name, "version": side.version, "how": side.how}
        row["values"] = values[side.name]
        row["median"] = paired.median(values[side.name])
        row.update(dict.fromkeys(("ratio", "low", "high", "p", "n", "verdict", "better")))
        if side.name != base:
            mine, other = (rounds_of(values[name], options.passes) for name in (side.name, base))
            comparison = paired.compare([above - below for above, below in zip(mine, other)])
            row.update(dataclasses.asdict(comparison))
            row["verdict"], row["better"] = in_words(comparison, floor, key, lower)
        told.append(row)
    return told, floor and dataclasses.asdict(floor)


def shown(value):
    """A number with at least four digits."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def interval(row):
    return f"{row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def probability(p):
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def print_table(report):
    """The sides of a report, one a line."""
    base = report["base"]
    direction = "lower" if report["lower"] else "higher"
    heads = ["side", "version", f"{report['key']}", f"ratio to {base} [95 %]", "p", "verdict"]
    rows = [heads]
    for row in report["sides"]:
        cells = [row["name"], row["version"] or "-", shown(row["median"]), "", "", ""]
        if row["ratio"] is not None:
            cells[3:] = [interval(row), probability(row["p"]), row["verdict"]]
        rows.append(cells)
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    print(f"median {report['key']}, {direction} is better")
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:2], widths)]
        cells += [cell.rjust(width) for cell, width in zip(row[2:5], widths[2:])]
        print("  ".join([*cells, row[5]]).rstrip())


def print_floor(report):
    floor, base = report["floor"], report["base"]
    if not floor:
        print("floor of noise: not measured")
        return
    print(f"floor of noise, {base} against {base}: {interval(floor)}, "
          f"p {probability(floor['p'])}")
    if paired.differs(paired.Comparison(**floor)):
        print(f"{base} differs from itself: no smaller difference is believed")


def print_report(report):
    """For people."""
    for side in report["commands"]:
        print(f"{side['name']}: {side['how']}")
    if report["sides"]:
        print_table(report)
        print_floor(report)
    which = report["machine"]
    print(f"machine: {which['processor']}, {which['processors']} processors, "
          f"kernel {which['kernel']}; {report['pinned']}")
    runs = "2 runs of each side, there and back" if report["runs_per_round"] == 2 else \
        "1 run of each side, backwards in every other"
    print(f"rounds: {report['rounds']}, each {runs}")
    if report["rounds"] < paired.ROUNDS_NEEDED:
        print(f"no difference can be shown in fewer than {paired.ROUNDS_NEEDED} rounds")
    if report["environment"]:
        print("in the environment: " + " ".join(report["environment"]))
    for side in report["missing"]:
        print(f"missing: {side['name']} (Debian: {side['package']})")
    for side in report["failed"]:
        print(f"failed: {side['name']}: {side['reason']}")


def parse(arguments):
    """The options; usage errors end the program."""
    parser = argparse.ArgumentParser(
        prog="compare.py", allow_abbrev=False, description=__doc__.partition("\n")[0],
        usage="compare.py [options] 'COMMAND A' 'COMMAND B'\n"
              "       compare.py [options] --peers PROGRAM [ARGUMENT...]",
        epilog="Exit code: 0 well, whatever the verdict; 1 a side failed; 2 usage.",
    )
    add = parser.add_argument
    add("commands", nargs="*", metavar="COMMAND", help="two command lines to compare")
    add("--peers", nargs=argparse.REMAINDER, metavar="PROGRAM",
        help="hakmem against other allocators in this program; ends the options")
    add("--peer", action="append", default=[], metavar="NAME=COMMAND",
        help="one more side: {} is the program and its arguments, {args} the arguments alone, "
             "which else are appended")
    add("--only", metavar="NAMES", help="compare hakmem with these, a,b, and with each --peer")
    add("--rounds", type=int, default=20, metavar="N", help="rounds (20)")
    add("--key", help=f"number to compare; a.b is b in the object a; {WALL} is wall time (the "
        "first that is there of " + ", ".join(KEYS) + ", wall time)")
    add("--lower", action="store_true", help="lower is better; so it is in any case for keys "
        "that end in " + " ".join(LOWER_ENDS))
    add("--pin", metavar="CPUS", help="processors to run on, as 0,2-3, or none (the last one "
        "where there is one worker, else none)")
    add("--no-floor", dest="floor", action="store_false", help="no A against A: one run of each "
        "side a round instead of two")
    add("--timeout", type=float, default=TIMEOUT, metavar="S", help="of a run (600)")
    add("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(arguments)
    options.passes = 2 if options.floor else 1
    try:
        check_options(options)
        options.cpus = parse_cpus(options.pin) if options.pin else None
        options.sides, options.missing, options.lacking = choose_sides(options)
    except ValueError as why:
        parser.error(str(why))
    return options


def check_options(options):
    """ValueError for what does not go together."""
    if options.rounds < 1:
        raise ValueError("--rounds must be at least 1")
    if not 0 < options.timeout < math.inf:
        raise ValueError("--timeout must be above 0")
    if options.key == "":
        raise ValueError("--key must not be empty")
    if options.peers is None:
        if len(options.commands) != 2:
            raise ValueError("two commands are needed, or --peers PROGRAM")
        if options.peer or options.only:
            raise ValueError("--peer and --only go with --peers")
        return
    if options.commands:
        raise ValueError("commands and --peers do not go together")
    if not options.peers:
        raise ValueError("--peers wants a program")
    for word in options.peers[1:]:
        if word.partition("=")[0] == "--allocator":
            raise ValueError("--allocator is chosen by the sides")


def choose_sides(options):
    """(sides, missing names, those of them that were asked for); ValueError for wrong names."""
    if options.peers is None:
        named = zip("AB", options.commands)
        return [peers.command_side(name, text) for name, text in named], [], []
    sides, missing = peers.sides()
    own = set()
    for text in options.peer:
        side = peers.own_side(text)
        if side.name in [*(other.name for other in sides), *missing]:
            raise ValueError(f"there is a side {side.name} already")
        sides.append(side)
        own.add(side.name)
    if options.only is None:
        return sides, missing, []
    wanted = options.only.split(",")
    for name in wanted:
        if name not in [*(side.name for side in sides), *missing]:
            known = ", ".join([*(side.name for side in sides), *missing])
            raise ValueError(f"--only {name}: the sides are {known}")
    chosen = [sides[0]] + [side for side in sides[1:] if side.name in own.union(wanted)]
    missing = [name for name in missing if name in wanted]
    if len(chosen) + len(missing) < 2:
        raise ValueError("--only leaves nothing to compare with")
    return chosen, missing, missing


def make_runner(options):
    """The Runner, with --json for a program of this project's."""
    if options.peers is None:
        return Runner(timeout=options.timeout, cpus=options.cpus)
    program, *arguments = options.peers
    if "--json" not in arguments:
        arguments.append("--json")
    return Runner(program, arguments, options.timeout, options.cpus)


def warm_up(runner, options, failed):
    """One run of each side that is not counted; by it key and processors are chosen.

    Returns (key, the processors in words).
    """
    sides = options.sides
    runs = run_round(runner, sides, 0, failed)
    # hakmem decides: a peer that prints something else has failed. Of two commands, none does.
    asked = sides if options.peers is None else sides[:1]
    key = options.key or choose_key([runs[side.name] for side in asked if side.name in runs])
    for name, run in runs.items():
        try:
            number_of(run, key)
        except RunError as why:
            failed[name] = str(why)
    if options.pin:
        cpus = "none was wanted" if runner.cpus is None else options.pin
        return key, ("not pinned: " if runner.cpus is None else "pinned to processors ") + cpus
    words = {side.name: side.command(runner.program, runner.arguments)[0] for side in sides}
    runner.cpus, told = choose_cpus([workers_of(run, words[name]) for name, run in runs.items()])
    return key, told


def compare(options):
    """Runs it all; returns what --json prints."""
    begin = time.monotonic()
    failed = {name: "not found, but asked for by --only" for name in options.lacking}
    runner, sides = make_runner(options), options.sides
    for side in sides:
        try:
            peers.check_preload(side, runner.program)
        except peers.PreloadError as why:
            failed[side.name] = str(why)
    key, pin = warm_up(runner, options, failed)
    lower = options.lower or is_lower(key)
    working = [side for side in sides if side.name not in failed]
    values, base = {}, sides[0].name
    if base not in failed and len(working) > 1:
        passes = options.rounds * options.passes
        progress = Progress("compare.py: run", passes * len(working))
        try:
            values = measure(runner, working, key, passes, failed, progress)
        finally:
            progress.finish()
    told, floor = report_of(sides, values, options, key, lower)
    cpus = runner.cpus and sorted(runner.cpus)
    packages = [{"name": name, "package": peers.PRELOADS[name][2]} for name in options.missing]
    return {
        "format": 1, "key": key, "lower": lower, "rounds": options.rounds,
        "runs_per_round": options.passes, "pin": cpus, "pinned": pin, "machine": peers.machine(),
        "environment": [f"{name}={os.environ[name]}" for name in sorted(os.environ)
                        if name.startswith(TUNABLES)
                        and (name != "LD_PRELOAD" or options.peers is None)],
        "seconds": round(time.monotonic() - begin, 3), "base": base,
        "commands": [{"name": side.name, "how": side.how} for side in sides if side.literal],
        "sides": told, "floor": floor, "missing": packages,
        "failed": [{"name": name, "reason": failed[name]} for name in failed],
    }


def main(arguments):
    options = parse(arguments)
    try:
        report = compare(options)
    except KeyboardInterrupt:
        print("compare.py: interrupted", file=sys.stderr)
        return 1
    if not options.json:
        print_report(report)
    else:
        print(json.dumps(report, indent=2))
        for side in report["failed"]:
            print(f"compare.py: {side['name']}: {side['reason']}", file=sys.stderr)
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
