#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Puts one-line bugs into a copy of the library, one at a time: each must fail a test.

The bugs, called mutants, stand in mutants.txt, which also says how they are written. For each,
what depends on the changed file is compiled anew and linked with the objects of the unchanged
copy, and the tests that should notice are run, in a program that has no other test files where it
links without them; when they do not, the whole test program is. A test that fails, crashes or does
not come to an end has caught the mutant.

Before that the unchanged copy must pass all tests. A mutant that does not fit the sources any
more, or does not compile, is a failure too. Exit code: 0: every mutant is caught, 1: not so,
2: usage.
"""

import argparse
import concurrent.futures
import fnmatch
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIST = os.path.join(ROOT, "tests", "mutants.txt")

sys.dont_write_bytecode = True
sys.path.insert(0, ROOT)

import configure  # noqa: E402  (it lies at the root)


class Mistake(Exception):
    """Something that is wrong with a mutant, the tests or the machine, in words."""


class Mutant:
    """One bug: the file, the lines as they are and as they become, who should notice."""

    def __init__(self, line, what):
        self.line = line
        self.what = what
        self.path = ""
        self.needs = ()  # of Linux: (6, 15)
        self.tests = []
        self.old = []
        self.new = []

    def title(self):
        return f"{self.path}: {self.what}"

    def pattern(self):
        """Criterion's pattern for the tests named."""
        return "@(" + "|".join(self.tests) + ")"

    def apply(self, text):
        """The file's text with the bug."""
        old = "".join(line + "\n" for line in self.old)
        new = "".join(line + "\n" for line in self.new)
        count = ("\n" + text).count("\n" + old)
        if count != 1:
            raise Mistake(
                f"mutants.txt:{self.line}: its lines occur {count} times in {self.path}, not once"
            )
        return ("\n" + text).replace("\n" + old, "\n" + new)[1:]


def read_mutants():
    mutants = []
    with open(LIST, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            line = line.rstrip("\n")
            if line.startswith("== "):
                mutants.append(Mutant(number, line[3:]))
            elif line.startswith("#") or not line:
                continue
            elif not mutants:
                raise Mistake(f"mutants.txt:{number}: a line before the first ==")
            elif line[0] in " -":
                mutants[-1].old.append(line[1:])
                if line[0] == " ":
                    mutants[-1].new.append(line[1:])
            elif line[0] == "+":
                mutants[-1].new.append(line[1:])
            elif line.startswith("needs Linux "):
                mutants[-1].needs = tuple(int(part) for part in line[12:].split("."))
            else:
                mutants[-1].path, _, tests = line.partition(": ")
                mutants[-1].tests = tests.split()
    for mutant in mutants:
        if not mutant.path or not mutant.tests or mutant.old == mutant.new:
            raise Mistake(f"mutants.txt:{mutant.line}: no file, no tests or no change")
    return mutants


def tests():
    """The sources of the test program, and what is not yet in the list of them."""
    found = list(configure.TESTS)
    folder = os.path.join(ROOT, "tests")
    for name in sorted(os.listdir(folder)):
        if name.endswith(".c") and f"tests/{name}" not in found:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                if re.search(r"^Test\(", file.read(), re.M):
                    found.append(f"tests/{name}")
    return found


class Sources:
    """The copy of the tree, its objects, and the programs linked from them."""

    def __init__(self, folder, cc):
        self.folder = folder
        self.cc = shlex.split(cc)
        platform = configure.PLATFORMS["posix"]
        flags = " ".join(
            [configure.CFLAGS, platform["cflags"], configure.PROFILES["debug"]["cflags"]]
        )
        # A mutant may well leave something unused: no warnings. Without -g it takes a third less.
        self.flags = [flag for flag in flags.split() if not flag.startswith(("-W", "-I", "-g"))]
        self.flags.append("-w")
        self.sources = (
            configure.LIBRARY + platform["library"] + platform["samples"]
            + configure.TESTED_SAMPLES + tests()
        )
        self.needs = {}
        self.tests_in = {
            source: self.find_tests(source) for source in self.sources
            if source.startswith("tests/")
        }
        for name in ("hakmem", "platform", "samples", "tests"):
            shutil.copytree(os.path.join(ROOT, name), os.path.join(folder, name))

    @staticmethod
    def find_tests(source):
        """Names; none where a macro makes some, whose names are not in the file."""
        with open(os.path.join(ROOT, source), encoding="utf-8") as file:
            text = file.read()
        found = re.findall(r"^Test\((\w+), (\w+)", text, re.M)
        all_of_them = len(found) == len(re.findall(r"\bTest\(", text))
        return [f"{suite}/{test}" for suite, test in found] if all_of_them else []

    def named_by(self, mutant):
        """The sources, without files whose tests are all others than those that a mutant names."""
        def wanted(names):
            return not names or any(fnmatch.filter(names, test) for test in mutant.tests)

        return [source for source in self.sources if wanted(self.tests_in.get(source))]

    def object(self, source):
        return os.path.join(self.folder, "objects", source.replace("/", "-") + ".o")

    def run(self, command):
        done = subprocess.run(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        )
        if done.returncode:
            raise Mistake(f"{shlex.join(command[:2])} ...: {done.stdout[:1000].strip()}")

    def compile(self, source, obj, more):
        self.run([*self.cc, *self.flags, *more, "-I.", "-c", source, "-o", obj])

    def compile_all(self, pool):
        """The objects of the unchanged copy, and which files each depends on."""
        os.makedirs(os.path.join(self.folder, "objects"))

        def one(source):
            obj = self.object(source)
            self.compile(source, obj, ["-MMD", "-MF", obj + ".d"])
            with open(obj + ".d", encoding="utf-8") as rule:
                names = rule.read().replace("\\\n", " ").split()[1:]
            self.needs[source] = {os.path.normpath(name) for name in names}

        for _ in pool.map(one, self.sources):
            pass

    def link(self, objects, program):
        self.run([*self.cc, "-pthread", *objects, "-lcriterion", "-o", program])

    def build(self, mutant, where, some):
        """A program of @some sources with the bug; its files go below the folder @where."""
        # with its neighbours, which it may include by their names alone
        folder = os.path.dirname(mutant.path)
        shutil.copytree(
            os.path.join(self.folder, folder), os.path.join(where, folder), dirs_exist_ok=True
        )
        with open(os.path.join(self.folder, mutant.path), encoding="utf-8") as file:
            text = mutant.apply(file.read())
        with open(os.path.join(where, mutant.path), "w", encoding="utf-8") as file:
            file.write(text)
        objects = []
        for source in some:
            obj = self.object(source)
            if mutant.path in self.needs[source]:
                obj = os.path.join(where, source.replace("/", "-") + ".o")
                path = os.path.join(where, source)
                if not os.path.exists(obj):
                    self.compile(path if os.path.exists(path) else source, obj, ["-I" + where])
            objects.append(obj)
        program = os.path.join(where, "criterion")
        self.link(objects, program)
        return program


# Process groups of test programs that run; SIGTERM must not leave any.
running = set()


def kill(group):
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def stop(number, _frame):
    for group in list(running):
        kill(group)
    sys.exit(128 + number)


def run_tests(folder, program, timeout, arguments):
    """Runs the test program: its exit code, None when time was over, and what it wrote."""
    log = program + ".log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [program, "--color=never", *arguments], cwd=folder, stdin=subprocess.DEVNULL,
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )
        running.add(process.pid)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # tests are processes of their own, and may outlive the one that started them
            kill(process.pid)
            process.wait()
            running.discard(process.pid)
    with open(log, encoding="utf-8", errors="replace") as text:
        return code, text.read()


def failures(text):
    return [f"{suite}/{test}" for suite, test in re.findall(r"^\[FAIL\] (\w+)::(\w+)", text, re.M)]


class Timing:
    """How long tests take on the unchanged copy, so that only an endless one is timed out."""

    def __init__(self, text, seconds):
        found = re.findall(r"^\[PASS\] (\w+)::(\w+): \(([0-9.]+)s\)", text, re.M)
        self.seconds = {f"{suite}/{test}": float(time) for suite, test, time in found}
        self.whole = max(120.0, 5 * seconds)

    def of(self, mutant):
        """Seconds that the tests which a mutant names may take."""
        total = 0.0
        for name in mutant.tests:
            wanted = re.compile(re.escape(name).replace(r"\*", r"\w*"))
            times = [took for test, took in self.seconds.items() if wanted.fullmatch(test)]
            if not times:
                raise Mistake(f"mutants.txt:{mutant.line}: there is no test {name}")
            total += sum(times)
        return max(8.0, 10 * total)


def catch(sources, timing, mutant, where):
    """Who catches a mutant, in words; "" when nobody does."""
    try:
        try:
            program = sources.build(mutant, where, sources.named_by(mutant))
        except Mistake:
            program = sources.build(mutant, where, sources.sources)
        code, text = run_tests(
            sources.folder, program, timing.of(mutant), ["-j1", "-f", "--filter", mutant.pattern()]
        )
        if code is None:
            return "time over in " + ", ".join(mutant.tests)
        if "Tested: 0 " in text:
            raise Mistake("none of the tests that it names ran")
        others = " and none of those named" if code == 0 else ""
        if code == 0:
            program = sources.build(mutant, where, sources.sources)
            code, text = run_tests(sources.folder, program, timing.whole, ["-j1", "-f"])
            if code is None:
                return "time over in the whole program"
        if code == 0:
            return ""
        return (", ".join(failures(text)[:1]) or "a test program that died") + others
    finally:
        shutil.rmtree(where, ignore_errors=True)


class Progress:
    """A line for each mutant; on a terminal, one that tells how far it has come too."""

    def __init__(self, total):
        self.total = total
        self.done = 0
        self.passed = 0
        self.skipped = 0
        self.terminal = sys.stdout.isatty()

    def show(self):
        if self.terminal:
            print(f"\r\x1b[K{self.done} of {self.total} mutants", end="", flush=True)

    def tell(self, text):
        if self.terminal:
            print("\r\x1b[K", end="")
        print(text, flush=True)

    def add(self, mutant, by, mistake=""):
        self.done += 1
        self.passed += bool(by)
        if by:
            self.tell(f"caught by {by}: {mutant.title()}")
        else:
            self.tell(f"FAILED: {mistake or 'no test catches it'}: {mutant.title()}")
        self.show()

    def skip(self, mutant):
        self.skipped += 1
        self.tell("SKIPPED: needs Linux " + ".".join(map(str, mutant.needs)) + ": "
                  + mutant.title())

    def end(self):
        skipped = f", {self.skipped} SKIPPED" if self.skipped else ""
        self.tell(f"{self.passed} passed, {self.total - self.passed} failed{skipped}")
        return 0 if self.total and self.passed == self.total else 1


def can_be_caught(mutant):
    """Whether the kernel is new enough for the code that the bug is in to run."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return tuple(int(part) for part in release.groups()) >= mutant.needs


def check_fit(mutants):
    """Each mutant's lines are in its file, once, and the tests that it names exist."""
    words = set()  # some tests' names stand in other macros than Test(), in headers
    folder = os.path.dirname(LIST)
    for name in os.listdir(folder):
        if not name.endswith((".c", ".h")):
            continue
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            words.update(re.findall(r"\w+", file.read()))
    mistakes = []
    for mutant in mutants:
        with open(os.path.join(ROOT, mutant.path), encoding="utf-8") as file:
            try:
                mutant.apply(file.read())
            except Mistake as mistake:
                mistakes.append(str(mistake))
        for name in mutant.tests:
            if not fnmatch.filter(words, name.partition("/")[2]):
                mistakes.append(f"mutants.txt:{mutant.line}: there is no test {name}")
    if mistakes:
        raise Mistake("\n".join(mistakes))


def check_unchanged(sources, mutants, options):
    """The unchanged copy passes; with --only, the tests that the mutants name."""
    program = os.path.join(sources.folder, "criterion")
    sources.link([sources.object(source) for source in sources.sources], program)
    arguments = [f"-j{options.jobs}", "--verbose=1"]
    if options.only:
        names = {name for mutant in mutants for name in mutant.tests}
        arguments += ["--filter", "@(" + "|".join(sorted(names)) + ")"]
    began = time.monotonic()
    code, text = run_tests(sources.folder, program, 1200, arguments)
    if code is None:
        raise Mistake("the tests do not come to an end without a mutant")
    if code or "Tested: 0 " in text:
        failed = ", ".join(failures(text)) or text[-1000:]
        raise Mistake(f"without a mutant, tests fail: {failed}")
    return Timing(text, options.jobs * (time.monotonic() - began))


def run(mutants, options, folder):
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    able = [mutant for mutant in mutants if can_be_caught(mutant)]
    progress = Progress(len(able))
    sources = Sources(folder, options.cc)
    check_fit(mutants)  # before anything takes time
    for mutant in mutants:
        if mutant not in able:
            progress.skip(mutant)
    lock = threading.Lock()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        progress.tell("compile the library and the tests")
        sources.compile_all(pool)
        progress.tell("run the tests without a mutant")
        timing = check_unchanged(sources, mutants, options)

        def one(mutant):
            mistake = by = ""
            try:
                by = catch(sources, timing, mutant, os.path.join(folder, f"m{mutant.line}"))
            except Mistake as error:
                mistake = str(error)
            with lock:
                progress.add(mutant, by, mistake)

        for _ in pool.map(one, able):
            pass
    return progress.end()


def parse(arguments):
    parser = argparse.ArgumentParser(
        description="Puts one-line bugs into a copy of the library: each must fail a test.",
        epilog="Exit code: 0: every bug is caught, 1: not so, 2: usage.",
    )
    parser.add_argument("--cc", default="cc", help="the C compiler, with flags if need be")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="mutants at once (%(default)s)"
    )
    parser.add_argument("--list", action="store_true", help="tell the mutants, run nothing")
    parser.add_argument(
        "--fit", action="store_true", help="see whether all fit the sources, run nothing"
    )
    parser.add_argument(
        "--only", metavar="PATTERN", help="a regular expression; only mutants whose file or"
        " description has it, after only the tests that these name",
    )
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error("--jobs: at least 1")
    try:
        options.only = options.only and re.compile(options.only)
    except re.error as error:
        parser.error(f"--only: {error}")
    return options


def main(arguments):
    options = parse(arguments)
    try:
        mutants = read_mutants()
        if options.only:
            mutants = [mutant for mutant in mutants if options.only.search(mutant.title())]
        if options.list:
            for mutant in mutants:
                print(mutant.title())
            return 0
        if not mutants:
            raise Mistake("there are no such mutants")
        if options.fit:
            check_fit(mutants)
            print(f"{len(mutants)} mutants fit")
            return 0
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            return run(mutants, options, folder)
    except Mistake as mistake:
        print(f"mutants: {mistake}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
