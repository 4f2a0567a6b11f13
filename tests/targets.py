#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Builds the library and the samples for other platforms, and runs the samples there.

    targets.py NAME...

All of the named targets are run, whatever becomes of the first ones. For each of them a line
"N passed, N failed: NAME ..." tells how many checks there were: those that selfcheck counts, and
one for each other program that must do well. A program that fails, crashes, hangs or says less
than it should is a failure. A target whose tools are not there is skipped, and said to be; with
HK_REQUIRE_TOOLS=1 in the environment it fails.

Exit status: 0 well, 1 a target failed, 2 wrong usage.
"""

import argparse
import contextlib
import dataclasses
import glob
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)  # for the lists of sources
import configure

TRACES = ["samples/traces/minetest.hkt", "samples/traces/godot.hkt"]
LIMIT = 300  # seconds that a program may take
BUILD_LIMIT = 900

# Where Debian keeps the tools that it does not put on PATH.
MORE_PATHS = ["/usr/lib/wine"]

# Small, and between them every way in which workers share blocks.
WORKLOADS = {
    "larson": ["--ops", "30000"],
    "handoff": ["--ops", "30000", "--stretch", "4096"],
    "workers": ["--rounds", "3"],
    "frames": ["--frames", "20", "--level-frames", "10", "--level-blocks", "50"],
}
STRESS = ["--threads", "8", "--operations", "12500"]

# Needs a C library's headers and start files, and tells the size of a page.
PROBE = """\
#include <stdio.h>
#if !defined(_WIN32)
#include <unistd.h>
#endif

int main(void)
{
#if !defined(_WIN32)
	printf("%ld\\n", sysconf(_SC_PAGESIZE));
#endif
	return 0;
}
"""


@contextlib.contextmanager
def no_session():
    """For targets whose programs need nothing around them: yields no environment."""
    yield {}


@contextlib.contextmanager
def wine_session():
    """A Windows of its own in a temporary folder; yields the environment."""
    folder = tempfile.mkdtemp(prefix="hakmem-wine-")
    prefix = os.path.join(folder, "prefix")
    environment = {
        "WINEPREFIX": prefix,
        "WINEDEBUG": "-all",
        # Else a program that crashes may exit with 0, for the debugger takes it over.
        "WINEDLLOVERRIDES": "winedbg.exe=d",
    }

    def wine(tool, *arguments):
        with contextlib.suppress(OSError):
            Run([find_tool(tool) or tool, *arguments], LIMIT, environment)

    try:
        # Now and then a first start on a busy machine leaves the folder half empty.
        for _ in range(3):
            wine("wine64", "wineboot", "--init")
            wine("wineserver", "-w")
            if os.path.exists(os.path.join(prefix, "drive_c/windows/system32/kernel32.dll")):
                break
            shutil.rmtree(prefix, ignore_errors=True)
        yield environment
    finally:
        # Ends what is left there and nothing else, and waits until it has gone.
        wine("wineserver", "-k")
        wine("wineserver", "-w")
        shutil.rmtree(folder, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class Target:
    """A platform: how to build for it, how to run there, and what to expect.

    minimum: the checks that selfcheck passes at least, as many as were seen; with pages of
        64 KiB there are four fewer.
    """

    name: str
    packages: str  # of Debian, that bring the tools
    minimum: int
    cc: str
    ar: str = "ar"
    configure: typing.Sequence[str] = ()  # more options of configure.py
    runner: typing.Sequence[str] = ()  # what stands before a program
    session: typing.Callable = no_session
    exe: str = ""  # how programs end
    selfcheck: typing.Sequence[str] = ()  # options
    frames: int = 500  # of the engine
    pages: typing.Sequence[int] = ()  # sizes that the runner offers beside its own
    objdump: str = ""  # where the shared library is a DLL and committed memory counts: to read it


# An emulator pays for reserving by the byte.
SMALL = ["--address-space", str(64 << 20)]

TARGETS = [
    Target(
        name="arm64",
        packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user",
        minimum=6939,
        cc="aarch64-linux-gnu-gcc",
        ar="aarch64-linux-gnu-ar",
        runner=["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
        selfcheck=SMALL,
        frames=50,
        pages=[16384, 65536],
    ),
    Target(
        name="arm",
        packages="gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user",
        minimum=6941,
        cc="arm-linux-gnueabihf-gcc",
        ar="arm-linux-gnueabihf-ar",
        runner=["qemu-arm", "-L", "/usr/arm-linux-gnueabihf"],
        selfcheck=SMALL,
        frames=50,
    ),
    Target(
        name="s390x",
        packages="gcc-s390x-linux-gnu libc6-dev-s390x-cross qemu-user",
        minimum=6943,
        cc="s390x-linux-gnu-gcc",
        ar="s390x-linux-gnu-ar",
        runner=["qemu-s390x", "-L", "/usr/s390x-linux-gnu"],
        selfcheck=SMALL,
        frames=50,
    ),
    Target(
        name="i686",
        packages="gcc libc6-dev-i386 lib32gcc-12-dev",
        minimum=6953,
        cc="gcc",
        configure=[
            # The headers of x86-64 serve, behind those of the compiler. gcc has a remark on each
            # struct with a 64-bit atomic, which gcc 11 aligns otherwise than those before.
            "--cflags=-m32 -idirafter /usr/include/x86_64-linux-gnu -Wno-psabi",
            "--ldflags=-m32",
        ],
    ),
    Target(
        name="windows",
        packages="gcc-mingw-w64-x86-64 wine64",
        minimum=6953,
        cc="x86_64-w64-mingw32-gcc",
        ar="x86_64-w64-mingw32-ar",
        configure=["--platform=windows"],
        runner=["wine64"],
        session=wine_session,
        exe=".exe",
        objdump="x86_64-w64-mingw32-objdump",
    ),
]


def find_tool(name):
    """The path of a program, or None."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *MORE_PATHS]))


class Run:
    """One run of a program, over when the object is there."""

    def __init__(self, command, limit, environment=None):
        start = time.monotonic()
        self.code = None  # it did not end in time
        # Files, not pipes: a server that wine leaves behind keeps a pipe open.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env=dict(os.environ, **(environment or {})), start_new_session=True,
            ) as process:
                try:
                    self.code = process.wait(limit)
                except subprocess.TimeoutExpired:
                    pass
                finally:
                    if self.code is None:
                        os.killpg(process.pid, signal.SIGKILL)
            self.out, self.err = self.read(out), self.read(err)
        self.command = command
        self.limit = limit
        self.seconds = time.monotonic() - start

    @staticmethod
    def read(file):
        file.seek(0)
        return file.read().decode(errors="replace").replace("\r\n", "\n")

    def fault(self):
        """What is wrong with how it ended, or None."""
        if self.code is None:
            return f"still running after {self.limit} s"
        if self.code < 0:
            return f"killed by signal {-self.code}"
        if self.code:
            return f"exit code {self.code}"
        return None


class Tally:
    """The checks of one target."""

    def __init__(self, name):
        self.name = name
        self.passed = 0
        self.failed = 0
        self.skipped = 0

    def skip(self, why):
        """Something cannot be checked here, which is a failure where it must be."""
        if os.environ.get("HK_REQUIRE_TOOLS") == "1":
            self.bad("HK_REQUIRE_TOOLS=1", why)
            return
        self.skipped += 1
        print(f"SKIPPED {self.name}: {why}", flush=True)

    def good(self, what, count=1):
        self.passed += count
        print(f"{self.name}: {what}", flush=True)

    def bad(self, what, fault, run=None):
        """Something failed; with what its program said last."""
        self.failed += 1
        print(f"{self.name}: {what}: FAILED: {fault}")
        if run:
            print("  $ " + " ".join(shlex.quote(word) for word in run.command))
            for text in (run.out, run.err):
                for line in text.splitlines()[-20:]:
                    print("  | " + line[:200])
        sys.stdout.flush()


class Bench:
    """The programs of a build, and where they run."""

    def __init__(self, target, samples, environment, tally, limit=LIMIT):
        self.target = target
        self.samples = samples
        self.environment = environment
        self.limit = limit
        self.tally = tally
        self.runner = list(target.runner)
        if self.runner:
            self.runner[0] = find_tool(self.runner[0]) or self.runner[0]

    def run(self, program, *arguments, more=()):
        """Runs a program of the samples; @more: options of the runner."""
        path = os.path.join(self.samples, program + self.target.exe)
        command = [*self.runner, *more, path, *arguments]
        return Run(command, self.limit, self.environment)

    def selfcheck(self, what, arguments, program="selfcheck", more=()):
        run = self.run(program, *self.target.selfcheck, *arguments, more=more)
        lines = run.out.split("\n")
        found = re.fullmatch(r"(\d+) passed, (\d+) failed\n?", "\n".join(lines[-2:]))
        fault = run.fault()
        if not fault and not found:
            fault = "the last line is no summary"
        elif not fault and int(found[2]):
            fault = f"{found[2]} checks failed"
        elif not fault and int(found[1]) < self.target.minimum:
            fault = f"{found[1]} passed, at least {self.target.minimum} are wanted"
        if fault:
            self.tally.bad(what, fault, run)
        else:
            self.tally.good(f"{what}: {found[1]} checks, {run.seconds:.1f} s", int(found[1]))

    def well(self, what, program, *arguments, more=()):
        """A program that must end well: its run, or None."""
        run = self.run(program, *arguments, more=more)
        fault = run.fault()
        if fault:
            self.tally.bad(what, fault, run)
            return None
        return run

    def report(self, what, expected, program, *arguments, more=()):
        """A program whose JSON must have what @expected says: that JSON, or None."""
        run = self.well(what, program, *arguments, more=more)
        if not run:
            return None
        try:
            report = json.loads(run.out)
            wrong = [f"{key} is {report[key]}" for key, value in expected.items()
                     if report[key] != value]
        except (ValueError, KeyError, TypeError) as error:
            wrong = [f"cannot read its JSON ({type(error).__name__}: {error})"]
        if wrong:
            self.tally.bad(what, ", ".join(wrong), run)
            return None
        self.tally.good(f"{what}: {run.seconds:.1f} s")
        return report

    def replay(self, what, trace, *arguments, more=()):
        """Replays a trace and wants all of it, without a complaint: the JSON, or None."""
        threads = trace_threads(trace) if "--threads" in arguments else 1
        clean = {
            "events": trace_events(trace),
            "threads": threads,
            "failed_allocations": 0,
            "failed_checks": 0 if "--verify" in arguments else None,
            "reports": 0,
        }
        return self.report(what, clean, "replay", trace, *arguments, "--json", more=more)

    def programs(self):
        """What runs on every target."""
        frames = self.target.frames
        self.selfcheck("selfcheck", [])
        self.selfcheck("selfcheck " + " ".join(STRESS), STRESS)
        for trace in TRACES:
            name = os.path.basename(trace)
            self.replay(f"replay {name} --threads --verify", trace, "--threads", "--verify")
            if self.well(f"replay {name} --verify", "replay", trace, "--verify"):
                self.tally.good(f"replay {name} --verify")
        self.report(
            f"engine, {frames} frames", {"frames": frames, "faults": 0},
            "engine", "--frames", str(frames), "--json",
        )
        # emulators are slow to reserve addresses, and frames has five arenas
        for name, more in WORKLOADS.items():
            self.report(
                f"workload {name} --verify", {"failed_checks": 0, "reports": 0}, "workload", name,
                "--workers", "2", "--verify", "--address-space", "256M", *more, "--json",
            )

    def page_size(self, probe, size):
        """Once more with pages of another size, where the emulator can have them."""
        more = ["-p", str(size)]
        seen = Run([*self.runner, *more, probe], self.limit, self.environment)
        if seen.fault() or seen.out != f"{size}\n":
            self.tally.skip(f"this {self.target.runner[0]} has no pages of {size} bytes")
            return
        self.selfcheck(f"pages of {size} bytes: selfcheck", [], more=more)
        self.replay(
            f"pages of {size} bytes: replay --threads --verify", TRACES[0], "--threads",
            "--verify", more=more,
        )


    def commit(self):
        """The bar on what is committed, where that is charged whether touched or not.

        A small address range, since wine has a byte for each page that is reserved.
        """
        for trace in TRACES:
            what = f"replay {os.path.basename(trace)}"
            report = self.replay(what, trace, "--address-space", "256M")
            if not report:
                continue
            faults, numbers = commit_faults(report)
            if faults:
                self.tally.bad(f"{what}: {numbers}", ", ".join(faults))
            else:
                self.tally.good(f"{what}: {numbers}")

    def shared_library(self, folder):
        """What the DLL exports, and selfcheck against it."""
        release = os.path.dirname(self.samples)
        found = glob.glob(os.path.join(glob.escape(os.path.join(ROOT, release)), "*.dll"))
        if len(found) != 1:
            self.tally.bad("DLL", f"{len(found)} of them in {release}")
            return
        listed = self.well("selfcheck --list", "selfcheck", "--list")
        dump = Run([self.target.objdump, "-p", found[0]], self.limit)
        faults = export_faults(exports(dump.out), listed.out if listed else "")
        if faults:
            self.tally.bad("exports of the DLL", ", ".join(faults))
        else:
            self.tally.good(f"exports of the DLL: {len(exports(dump.out))} functions")

        # Windows looks for a DLL beside the program.
        shutil.copy(found[0], folder)
        what = "selfcheck with the DLL"
        program = self.link_selfcheck(
            what, folder, "-I.", "-DHK_SHARED", f"{release}/libhakmem.dll.a"
        )
        if not program:
            return
        dump = Run([self.target.objdump, "-p", program], self.limit)
        if f"DLL Name: {os.path.basename(found[0])}\n" not in dump.out:
            self.tally.bad(what, "it does not need the DLL")
            return
        self.samples = folder
        self.selfcheck(what, [])

    def amalgam(self, folder):
        """selfcheck with the library as one header and one source, and no other header of it."""
        what = "selfcheck with the amalgam"
        pair = os.path.join(folder, "hakmem")
        made = Run([sys.executable, "hakmem/amalgam.py", pair], self.limit)
        if made.fault():
            self.tally.bad("amalgam", made.fault(), made)
            return
        os.mkdir(os.path.join(folder, "platform"))
        with open(os.path.join(folder, "platform", "platform.h"), "w", encoding="utf-8") as out:
            out.write("#include <hakmem/hakmem.h>\n")
        if self.link_selfcheck(what, folder, "-I" + folder, os.path.join(pair, "hakmem.c")):
            self.samples = folder
            self.selfcheck(what, [])

    def link_selfcheck(self, what, folder, *arguments):
        """Builds it from its sources: the program, or None."""
        sources = configure.SAMPLES["selfcheck"] + configure.PLATFORMS["windows"]["samples"]
        program = os.path.join(folder, "selfcheck" + self.target.exe)
        linked = Run([
            self.target.cc, "-std=c11", "-O2", *arguments[:1], *sources, *arguments[1:],
            "-static", "-o", program,
        ], self.limit)
        if linked.fault():
            self.tally.bad(what, linked.fault(), linked)
            return None
        return program


def commit_faults(report):
    """What is committed beyond the bar, and the numbers: of a JSON of replay."""
    mib = 1 << 20
    blocks = report["live_block_bytes"]
    bar = blocks * 115 // 100 + 4 * mib
    numbers = [f"{blocks / mib:.2f} MiB in blocks, {bar / mib:.2f} MiB allowed"]
    faults = []
    for key in ("committed_bytes", "process_committed_bytes"):
        value = report[key]
        if value is None and key == "process_committed_bytes":
            continue
        numbers.append(f"{key} {value / mib:.2f} MiB")
        if value > bar:
            faults.append(f"{key} is {value / mib:.2f} MiB, {bar / mib:.2f} are allowed")
    return faults, ", ".join(numbers)


def exports(dump):
    """The names in the export table that objdump -p prints."""
    table = dump.partition("[Ordinal/Name Pointer] Table")[2].partition("\n\n")[0]
    return set(re.findall(r"^\t\[ *\d+\].* (\w+)$", table, re.M))


def export_faults(exported, listed):
    """How the exports differ from what selfcheck --list printed, the inline functions apart."""
    wanted = {line for line in listed.splitlines() if not line.endswith(" inline")}
    if not wanted:
        return ["selfcheck lists no function"]
    return [f"{name} is missing" for name in sorted(wanted - exported)] + [
        f"{name} is one too many" for name in sorted(exported - wanted)
    ]


def trace_header(path, offset):
    with open(os.path.join(ROOT, path), "rb") as trace:
        return int.from_bytes(trace.read(40)[offset : offset + 8], "little")


def trace_events(path):
    return trace_header(path, 8)


def trace_threads(path):
    return trace_header(path, 24)


def missing_tools(target, folder):
    """Why the target cannot be tried here, or None. Leaves a program of its in @folder."""
    for tool in ("ninja", target.cc, target.ar, target.objdump, *target.runner[:1]):
        if tool and not find_tool(tool):
            return f"{tool} was not found"
    source = os.path.join(folder, "probe.c")
    with open(source, "w", encoding="utf-8") as out:
        out.write(PROBE)
    flags = [flag for option in target.configure if option.startswith(("--cflags=", "--ldflags="))
             for flag in option.split("=", 1)[1].split()]
    run = Run([target.cc, *flags, source, "-o", probe_of(target, folder)], LIMIT)
    return f"{target.cc} builds no program: {run.fault()}" if run.fault() else None


def probe_of(target, folder):
    return os.path.join(folder, "probe" + target.exe)


def build(target, tally):
    """Builds the release profile: whether that went well."""
    configure = [
        sys.executable, "configure.py", "--name", target.name, "--cc", target.cc,
        "--ar", target.ar, "--werror", *target.configure,
    ]
    ninja = ["ninja", "--quiet", "-f", f"build/{target.name}/build.ninja", "release"]
    for command in (configure, ninja):
        run = Run(command, BUILD_LIMIT)
        if run.fault():
            tally.bad("building", run.fault(), run)
            return False
    return True


def try_target(target):
    """Builds for a target and runs everything there: the tally."""
    start = time.monotonic()
    tally = Tally(target.name)
    with tempfile.TemporaryDirectory(prefix="hakmem-") as folder:
        why = missing_tools(target, folder)
        if why:
            tally.skip(f"{why}; apt-get install {target.packages}")
        elif build(target, tally):
            with target.session() as environment:
                samples = f"build/{target.name}/release/samples"
                bench = Bench(target, samples, environment, tally)
                bench.programs()
                for size in target.pages:
                    bench.page_size(probe_of(target, folder), size)
                if target.objdump:
                    bench.commit()
                    bench.shared_library(folder)
                    bench.amalgam(folder)
    if tally.passed or tally.failed:
        print(f"{tally.passed} passed, {tally.failed} failed: {target.name},"
              f" {time.monotonic() - start:.0f} s", flush=True)
    return tally


def main(arguments, targets=TARGETS):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a target, see --list")
    parser.add_argument("--list", action="store_true", help="the targets and their packages")
    options = parser.parse_args(arguments)
    if options.list:
        for target in targets:
            print(f"{target.name:10}{target.packages}")
        return 0
    table = {target.name: target for target in targets}
    for name in options.names:
        if name not in table:
            parser.error(f"there is no target {name}; there are: {', '.join(table)}")
    if not options.names:
        parser.error(f"which targets? There are: {', '.join(table)}")

    start = time.monotonic()
    results = [try_target(table[name]) for name in options.names]
    skipped = sum(result.skipped for result in results)
    failed = sum(result.failed > 0 for result in results)
    print(f"targets: {len(results)}, {failed} FAILED, {skipped} SKIPPED,"
          f" {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
