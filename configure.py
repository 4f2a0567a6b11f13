#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes build.ninja and hakmem/hakmem.ninja.

Without options it writes the build.ninja at the root, which is committed, so that a plain
`ninja` works after a clone; ninja runs this script again whenever it changes. So is
hakmem/hakmem.ninja, which another Ninja build takes as a subninja. With options it writes
build/NAME/build.ninja alone, whose outputs all lie under build/NAME:

    python3 configure.py --name clang --cc clang --werror
    ninja -f build/clang/build.ninja test

All paths are relative to the root. A new source file is added to its list below.
"""

import argparse
import glob
import os
import re
import shlex
import sys

LIBRARY = [
    "hakmem/version.c",
    "hakmem/size_class.c",
    "hakmem/budget.c",
    "hakmem/lock.c",
    "hakmem/report.c",
    "hakmem/memory.c",
    "hakmem/map.c",
    "hakmem/kept.c",
    "hakmem/superslab.c",
    "hakmem/run.c",
    "hakmem/superslab_trim.c",
    "hakmem/superslab_kept.c",
    "hakmem/superslab_warm.c",
    "hakmem/large.c",
    "hakmem/slab.c",
    "hakmem/slab_check.c",
    "hakmem/stack.c",
    "hakmem/stack_locked.c",
    "hakmem/depot.c",
    "hakmem/stash.c",
    "hakmem/stock.c",
    "hakmem/cache.c",
    "hakmem/alloc.c",
    "hakmem/oom.c",
    "hakmem/arena.c",
    "hakmem/maintain.c",
    "hakmem/stats.c",
    "hakmem/check.c",
]

# --platform: what reaches the system, in the library and in the samples, and how things are made
# for it. A shared library comes with what programs link, a symbolic link or an import library.
# "tested": it has Criterion and what else the tests need.
PLATFORMS = {
    "posix": {
        "library": ["platform/posix.c", "platform/fixed.c"],
        "samples": ["samples/cli.c", "samples/os_posix.c"],
        "profiles": ["release", "debug", "locked", "asan", "tsan"],
        "cflags": "-fPIC -fvisibility=hidden",
        "ldflags": "-pthread",
        "program": "{}",
        "shared": "libhakmem.so.{version}",
        "shared_link": "libhakmem.so",
        "shared_cflags": "",
        "shared_command": "$cc -shared -Wl,-soname,$name -Wl,-z,defs -Wl,-z,relro -Wl,-z,now"
        " -Wl,--as-needed $ldflags $in -o $shared && ln -sf $name $link",
        "tested": True,
    },
    "windows": {
        "library": ["platform/windows.c", "platform/fixed.c"],
        "samples": ["samples/cli.c", "samples/os_windows.c"],
        "profiles": ["release", "debug"],
        "cflags": "",
        "ldflags": "-static",
        "program": "{}.exe",
        "shared": "hakmem-{version}.dll",
        "shared_link": "libhakmem.dll.a",
        "shared_cflags": "-DHK_SHARED -DHK_BUILDING",
        "shared_command": "$cc -shared -static-libgcc -Wl,--out-implib,$link $ldflags $in"
        " -o $shared",
        "tested": False,
    },
}

SAMPLES = {
    "replay": [
        "samples/replay.c",
        "samples/replay_load.c",
        "samples/replay_report.c",
        "samples/replay_run.c",
        "samples/replay_verify.c",
        "samples/replay_wait.c",
        "samples/json.c",
        "samples/pattern.c",
        "samples/heap_hakmem.c",
        "samples/heap_libc.c",
        "samples/heap_null.c",
        "samples/trace.c",
    ],
    "workload": [
        "samples/workloads/main.c",
        "samples/workloads/run.c",
        "samples/workloads/table.c",
        "samples/workloads/prepare.c",
        "samples/workloads/verify.c",
        "samples/workloads/report.c",
        "samples/workloads/histogram.c",
        "samples/workloads/on_hakmem.c",
        "samples/workloads/on_libc.c",
        "samples/workloads/on_null.c",
        "samples/json.c",
        "samples/pattern.c",
        "samples/replay_load.c",
        "samples/replay_wait.c",
        "samples/trace.c",
    ],
    "trace-cut": [
        "samples/trace_cut.c",
        "samples/trace.c",
    ],
    "engine": [
        "samples/engine.c",
        "samples/engine_show.c",
        "samples/workloads/histogram.c",
    ],
    "upkeep": [
        "samples/upkeep.c",
        "samples/upkeep_arenas.c",
        "samples/upkeep_slices.c",
        "samples/replay_load.c",
        "samples/trace.c",
    ],
    "selfcheck": [
        "samples/selfcheck.c",
        "samples/selfcheck_arenas.c",
        "samples/selfcheck_blocks.c",
        "samples/selfcheck_platforms.c",
        "samples/selfcheck_resizes.c",
        "samples/selfcheck_states.c",
        "samples/selfcheck_budgets.c",
        "samples/selfcheck_upkeep.c",
        "samples/selfcheck_stress.c",
    ],
}

# The cuts that come with the repository.
TRACES = [
    "samples/traces/minetest.hkt",
    "samples/traces/godot.hkt",
]

# What the README's tables are made from.
RESULTS = "samples/bench/results.json"
BARS = "samples/bench/bars.json"

# One program of all Criterion tests.
TESTS = [
    "tests/size_class.c",
    "tests/lock.c",
    "tests/memory.c",
    "tests/map.c",
    "tests/kept.c",
    "tests/kept_piles.c",
    "tests/superslab.c",
    "tests/superslab_model.c",
    "tests/superslab_ahead.c",
    "tests/superslab_trim.c",
    "tests/large.c",
    "tests/slab.c",
    "tests/slab_faults.c",
    "tests/slab_charged.c",
    "tests/depot.c",
    "tests/depot_depth.c",
    "tests/front.c",
    "tests/front_cold.c",
    "tests/front_fit.c",
    "tests/check.c",
    "tests/fault_platform.c",
    "tests/contract.c",
    "tests/platforms.c",
    "tests/posix.c",
    "tests/large_pages.c",
    "tests/host_platform.c",
    "tests/host.c",
    "tests/regions.c",
    "tests/regions_threads.c",
    "tests/arena.c",
    "tests/cache.c",
    "tests/alloc.c",
    "tests/prefill.c",
    "tests/prewarm.c",
    "tests/maintain.c",
    "tests/rest.c",
    "tests/realloc.c",
    "tests/budget.c",
    "tests/budget_threads.c",
    "tests/bulk.c",
    "tests/limit.c",
    "tests/trim.c",
    "tests/stats.c",
    "tests/misuse.c",
    "tests/misuse_debug.c",
    "tests/faults.c",
    "tests/immune.c",
    "tests/gaps.c",
    "tests/model.c",
    "tests/model_heap.c",
    "tests/model_threads.c",
    "tests/trace.c",
    "tests/replay.c",
    "tests/workloads.c",
    "tests/workload_recipes.c",
    "tests/workload_roles.c",
    "tests/workload_verify.c",
    "tests/workload_recorder.c",
]

# A program of its own: all that threads can do to a stack of magazines. It has stack.c in it.
MODEL = [
    "tests/model_stack_main.c",
    "tests/model_stack.c",
    "tests/model_stack_checks.c",
    "tests/explore.c",
    "tests/explore_memory.c",
    "tests/explore_litmus.c",
]

# Parts of the samples that the tests look at: all of replay and workload but their main().
TESTED_SAMPLES = [
    source
    for source in dict.fromkeys(SAMPLES["replay"] + SAMPLES["workload"])
    if source not in ("samples/replay.c", "samples/workloads/main.c")
]

# What is common to all compilations, and what each profile adds.
CFLAGS = "-std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -I."
# Those of hakmem/hakmem.ninja, whose host may make a shared library of it.
SUBNINJA_CFLAGS = "-std=c11 -fPIC -fvisibility=hidden"

PROFILES = {
    "release": {
        "cflags": "-O2 -g -DNDEBUG",
    },
    "debug": {
        "cflags": "-Og -g -DHK_DEBUG=1",
    },
    "locked": {
        "cflags": "-Og -g -DHK_DEBUG=1 -DHK_STACK_LOCKED=1",
    },
    "asan": {
        "cflags": "-O1 -g -DHK_DEBUG=1 -fno-omit-frame-pointer"
        " -fsanitize=address,undefined -fno-sanitize-recover=all",
        "ldflags": "-fsanitize=address,undefined",
    },
    "tsan": {
        "cflags": "-O1 -g -DHK_DEBUG=1 -fno-omit-frame-pointer -fsanitize=thread",
        "ldflags": "-fsanitize=thread",
    },
}

# The file for other Ninja builds, and what it says at its top.
SUBNINJA = "hakmem/hakmem.ninja"
SUBNINJA_HEAD = """\
# SPDX-License-Identifier: MIT
# Written by configure.py; edit that, not this.
#
# hakmem as a part of another Ninja build, which sets these variables and then takes this file by
# `subninja $hakmem/hakmem/hakmem.ninja`, as samples/embed/subninja/build.ninja does. Ninja has
# no defaults: all but the last must be set.
#
#   hakmem           the folder in which hakmem/ and platform/ lie
#   hakmem_out       the folder for the objects and for libhakmem.a
#   hakmem_cc        the C compiler, of gcc's manners
#   hakmem_ar        its archiver
#   hakmem_platform  {platforms}
#   hakmem_cflags    more flags, after all others
"""


# A line about a target that the platform does not have is left out.
HELP = [
    ("ninja", "the libraries and samples, into {build}/release"),
    ("ninja demo", "an engine's frames, then recorded programs on hakmem and on libc"),
    ("ninja test", "all tests (needs Criterion: libcriterion-dev on Debian and Ubuntu)"),
    ("ninja check", "tests in debug, release, asan and other ways; the samples under tsan"),
    ("ninja check-cross", "for arm64, arm, s390x and i686: built, and run (qemu-user)"),
    ("ninja check-windows", "for Windows: built, and run (wine)"),
    ("ninja check-hostile", "the samples where memory is short; part of check (HK_SET_SYSTEM=1:"),
    ("", "as root, with settings of the machine changed and restored)"),
    ("ninja amalgam", "the library as two files, {build}/amalgam/hakmem.h and hakmem.c"),
    ("ninja check-amalgam", "all tests with that file for a library"),
    ("ninja check-embed", "hakmem in other builds; of check, the part that takes CMake, g++"),
    ("", "and pkg-config"),
    ("ninja bench", "all workloads against all allocators found, 20 minutes, into {build}/bench;"),
    ("", "bench-quick: 3 minutes; bench-soak adds two runs of 10 minutes"),
    ("ninja upkeep", "what keeping an arena in order costs, at 8 MiB and 8 GiB; 4 minutes"),
    ("ninja bars", "every bar of performance: is it met? All allocators that Debian packages and"),
    ("", "valgrind are needed, and about an hour; into {build}/bars"),
    ("ninja profile", "where the time of a refill goes (needs valgrind)"),
    ("ninja mutants", "one-line bugs put into the library: each must fail a test"),
    ("ninja install", "libraries, headers, hakmem.pc; takes PREFIX (/usr/local) and DESTDIR"),
    ("ninja debug", "the libraries and samples of a profile, into {build}/debug;"),
    ("", "the profiles are {profiles}"),
    ("ninja all", "everything that can be built; runs nothing"),
    ("ninja help", "this list"),
    ("", ""),
    ("python3 configure.py --help", "other compilers and flags"),
]

NO_CRITERION = (
    "The tests need Criterion: apt-get install libcriterion-dev (Debian, Ubuntu), or see"
    " https://github.com/Snaipe/Criterion. The library and the samples do not."
)


class Ninja:
    """Writes the statements of a ninja file."""

    def __init__(self, builddir, version):
        self.builddir = builddir
        self.version = version
        self.objects = set()
        self.targets = set()
        self.lines = []

    def comment(self, text):
        self.lines += ["", "# " + text]

    def variable(self, name, value):
        self.lines.append(f"{name} = {value}".rstrip())

    def rule(self, name, command, description=None, **variables):
        self.lines.append(f"rule {name}")
        self.lines.append(f"  command = {command}")
        if description:
            self.lines.append(f"  description = {description}")
        self.lines += [f"  {key} = {value}" for key, value in variables.items()]

    def build(self, outputs, rule, inputs=(), implicit=(), order=(), **variables):
        words = ["build", *outputs]
        words[-1] += ":"
        words += [rule, *inputs]
        if implicit:
            words += ["|", *implicit]
        if order:
            words += ["||", *order]
        self.targets.update(outputs)
        self.lines.append(self.wrap(words))
        self.lines += [f"  {key} = {value}" for key, value in variables.items() if value]
        return list(outputs)

    @staticmethod
    def wrap(words):
        lines = [words[0]]
        for word in words[1:]:
            if len(lines[-1]) + len(word) > 96:
                lines[-1] += " $"
                lines.append("   ")
            lines[-1] += " " + word
        return "\n".join(lines)

    def text(self):
        return "\n".join(self.lines) + "\n"


def read_version():
    """The library's version, from the macros of its header."""
    with open("hakmem/hakmem.h", encoding="utf-8") as header:
        found = re.findall(r"^#define HK_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", header.read(), re.M)
    return ".".join(found)


def escape(text):
    """Text for a ninja variable: only the dollar is special there."""
    return text.replace("$", "$$")


def write_rules(n, options, path, platform):
    python = "python3" if path == "build.ninja" else shlex.quote(sys.executable)
    again = " ".join(["configure.py"] + [shlex.quote(arg) for arg in options.arguments])
    n.comment("How this file is made. A machine without Python takes it as it is.")
    n.rule(
        "configure",
        f"if command -v {escape(python)} >/dev/null; then {escape(python)} {escape(again)};"
        " else touch $out; fi",
        "configure.py",
        generator=1,
    )
    written = [path] if options.name else [path, SUBNINJA]
    n.build(written, "configure", implicit=["configure.py", "hakmem/hakmem.h"])

    n.comment("Rules. Each profile has a compiling one of its own, for the compilation database.")
    for profile in platform["profiles"]:
        n.variable(f"{profile}_cflags", PROFILES[profile]["cflags"])
        n.rule(
            f"{profile}_cc",
            f"$cc -MMD -MF $out.d $common ${profile}_cflags $part_cflags $cflags -c $in -o $out",
            "cc $out",
            deps="gcc",
            depfile="$out.d",
        )
    n.rule("ar", "rm -f $out && $ar crs $out $in", "ar $out")
    n.rule(
        "link",
        f"$cc $profile_ldflags $ldflags {platform['ldflags']} $in $libs -o $out",
        "link $out",
    )
    n.rule("shared", platform["shared_command"], "link $shared")
    n.rule("compdb", f"ninja -f {path} -t compdb debug_cc > $out", "compdb $out")
    n.rule("run", "$command", "$out", pool="console")
    if not platform["tested"]:
        return
    n.rule(
        "criterion",
        "printf '%s\\n' '#include <criterion/criterion.h>' | $cc $cflags -x c -E - >/dev/null 2>&1"
        f" || {{ printf '%s\\n' {shlex.quote(NO_CRITERION)} >&2; exit 1; }}; touch $out",
        "look for Criterion",
    )
    n.build(["$builddir/criterion.found"], "criterion")
    n.rule("check", "$command", "$out")


def objects(n, profile, sources, order=(), part="", cflags=""):
    """Compiles sources for a profile; returns the objects. Those of a part have their own flags."""
    made = []
    for source in sources:
        obj = f"$builddir/{profile}/{part}{source[:-2]}.o"
        if obj not in n.objects:
            n.build([obj], f"{profile}_cc", [source], order=order, part_cflags=cflags)
            n.objects.add(obj)
        made.append(obj)
    return made


def write_shared(n, profile, platform):
    """The shared library of one profile; returns it and what programs link."""
    cflags = platform["shared_cflags"]
    part = "shared/" if cflags else ""
    name = platform["shared"].format(version=n.version)
    shared = f"$builddir/{profile}/{name}"
    link = f"$builddir/{profile}/{platform['shared_link']}"
    library_objects = objects(n, profile, LIBRARY + platform["library"], part=part, cflags=cflags)
    return n.build([shared, link], "shared", library_objects, shared=shared, name=name, link=link)


def write_profile(n, profile, platform):
    """The libraries, samples and tests of one profile; returns what `ninja all` makes of it."""
    ldflags = PROFILES[profile].get("ldflags", "")
    library_objects = objects(n, profile, LIBRARY + platform["library"])
    library = n.build([f"$builddir/{profile}/libhakmem.a"], "ar", library_objects)
    made = list(library)

    # Sanitizers leave symbols open that only an executable has: no shared library with them.
    if not ldflags:
        made += write_shared(n, profile, platform)

    for name, sources in SAMPLES.items():
        made += n.build(
            [f"$builddir/{profile}/samples/{platform['program'].format(name)}"],
            "link",
            objects(n, profile, sources + platform["samples"]) + library,
            profile_ldflags=ldflags,
        )
    everything = n.build([profile], "phony", made)

    # Criterion does not start under ThreadSanitizer.
    if platform["tested"] and profile != "tsan":
        tested = objects(n, profile, TESTED_SAMPLES + platform["samples"])
        everything += n.build(
            [f"$builddir/{profile}/tests/criterion"],
            "link",
            objects(n, profile, TESTS, order=["$builddir/criterion.found"]) + tested + library,
            profile_ldflags=ldflags,
            libs="-lcriterion",
        )
    # One thread and a search: sanitizers would find nothing in it but the time it takes.
    if platform["tested"] and profile in ("release", "debug"):
        everything += n.build(
            [f"$builddir/{profile}/tests/model_stack"], "link", objects(n, profile, MODEL)
        )
    return everything


def write_amalgam(n, samples):
    """The library as one header and one source, and what runs with them; returns what it makes.

    @samples: the files of the samples that are the platform's.
    """
    folder = "$builddir/amalgam"
    n.comment("The amalgam. selfcheck is compiled with its header, which is the first on the path.")
    n.rule("amalgam", f"python3 hakmem/amalgam.py {folder}", f"amalgam.py {folder}")
    n.rule("forward", """printf '#include "../../hakmem.h"\\n' > $out""", "forward $out")
    n.rule(
        "amalgam_cc",
        f"$cc -MMD -MF $out.d -I{folder}/include $common $release_cflags $cflags -c $in -o $out",
        "cc $out",
        deps="gcc",
        depfile="$out.d",
    )
    tables = [LIBRARY, *[table["library"] for table in PLATFORMS.values()]]
    files = {source for table in tables for source in table}
    files |= set(glob.glob("hakmem/*.h") + glob.glob("platform/*.h"))
    made = n.build(
        [f"{folder}/hakmem.c", f"{folder}/hakmem.h"],
        "amalgam",
        implicit=["hakmem/amalgam.py", "configure.py", "LICENSE", *sorted(files)],
    )
    n.build(["amalgam"], "phony", made)
    library = n.build([f"{folder}/hakmem.o"], "release_cc", made[:1], implicit=made[1:])
    forwards = []
    for header in ("hakmem/hakmem.h", "platform/platform.h"):
        forwards += n.build([f"{folder}/include/{header}"], "forward")
    of_selfcheck = []
    for source in SAMPLES["selfcheck"]:
        of_selfcheck += n.build(
            [f"{folder}/{source[:-2]}.o"], "amalgam_cc", [source], implicit=forwards, order=made
        )
    of_samples = objects(n, "release", samples)
    programs = n.build([f"{folder}/selfcheck"], "link", of_selfcheck + of_samples + library)
    tests = objects(n, "release", TESTS + TESTED_SAMPLES, order=["$builddir/criterion.found"])
    programs += n.build(
        [f"{folder}/criterion"], "link", tests + of_samples + library, libs="-lcriterion"
    )
    programs += n.build([f"{folder}/libhakmem.so"], "link", library, libs="-shared")
    return ["amalgam"] + programs


def write_tests(n):
    """The targets that run something. None of their outputs is a file: they always run."""
    release = "$builddir/release"
    no_aslr = "$$(setarch -R true 2>/dev/null && echo setarch -R)"  # old tsan, new kernels

    def check(target, command, inputs):
        return n.build([target], "check", implicit=inputs, command=command)

    def run(target, command, inputs, after=()):
        return n.build([target], "run", implicit=inputs, order=after, command=command)

    def criterion(target, program, after=()):
        return run(target, f"python3 tests/run_criterion.py {program}", [program], after)

    n.comment("Tests. Criterion comes last, so that its summary ends the output.")
    library = [f"{release}/libhakmem.a", f"{release}/libhakmem.so"]
    checks = check(
        "test-library",
        f"python3 tests/check_library.py --cc $shell_cc {release}",
        library,
    )
    selfcheck = f"{release}/samples/selfcheck"
    checks += check(
        "test-symbols",
        f"python3 tests/symbols.py {release}/libhakmem.so {selfcheck}",
        [f"{release}/libhakmem.so", selfcheck],
    )
    amalgam = "$builddir/amalgam"
    pair = [f"{amalgam}/hakmem.c", f"{amalgam}/hakmem.h"]
    checks += check(
        "test-abi",
        "python3 tests/check_abi.py --cc $shell_cc --include . --include"
        f" {amalgam}/include {release}/libhakmem.so {amalgam}/libhakmem.so",
        [
            "tests/abi.txt", f"{release}/libhakmem.so", f"{amalgam}/libhakmem.so",
            f"{amalgam}/include/hakmem/hakmem.h", f"{amalgam}/include/platform/platform.h",
        ],
    )
    checks += check("test-headers", f"python3 tests/check_headers.py {amalgam}", pair)
    checks += check("test-hits", "python3 tests/check_hits.py --cc $shell_cc", [])
    model = f"{release}/tests/model_stack"
    checks += check("test-model", model, [model])
    checks += check("test-amalgam", f"python3 tests/check_amalgam.py {amalgam}", pair)
    checks += check(
        "test-amalgam-selfcheck", f"{amalgam}/selfcheck", [f"{amalgam}/selfcheck"]
    )
    checks += check(
        "test-programs",
        f"python3 tests/programs.py {release}",
        [f"{release}/samples/{name}" for name in SAMPLES] + TRACES,
    )
    checks += check(
        "test-install",
        f"python3 tests/check_install.py {release}",
        library,
    )
    checks += check(
        "test-readme",
        f"python3 tests/check_readme.py --cc $shell_cc README.md {release}/libhakmem.a",
        library,
    )
    checks += check("test-targets", "python3 tests/check_targets.py", [])
    checks += check("test-mutants", "python3 tests/mutants.py --fit", [])
    workload = f"{release}/samples/workload"
    checks += check(
        "test-workloads",
        f"python3 tests/check_workloads.py {release}/samples",
        [workload, *TRACES],
    )
    checks += check(
        "test-compare",
        f"python3 tests/check_compare.py {release}",
        [f"{release}/samples/replay", *TRACES],
    )
    checks += check("test-report", "python3 tests/check_report.py", [])
    checks += check("test-bars", "python3 tests/check_bars.py", [])
    checks += check(
        "test-results",
        f"python3 samples/bench_tables.py {RESULTS} --check README.md"
        f" && python3 samples/bars_tables.py {BARS} --check README.md",
        [RESULTS, BARS, "README.md"],
    )
    embed = f"python3 tests/check_embed.py --cc $shell_cc {release}"
    checks += check("test-embed", f"{embed} amalgam subninja dlopen", library)
    checks += criterion("test-criterion", "$builddir/debug/tests/criterion", list(checks))
    n.build(["test"], "phony", checks)

    samples = "$builddir/{}/samples/{}".format
    done = []
    done += run("check-embed", f"{embed} cmake pkgconfig pmr", library, ["test-embed"])
    done += check("check-builds", f"python3 tests/check_builds.py {amalgam}", pair)
    done += criterion("check-amalgam-criterion", f"{amalgam}/criterion")
    parts = ["test-amalgam", "test-amalgam-selfcheck", "check-amalgam-criterion"]
    n.build(["check-amalgam"], "phony", parts)
    for profile in ("release", "locked", "asan"):
        program = f"$builddir/{profile}/tests/criterion"
        done += criterion(f"check-criterion-{profile}", program)
    for profile, prefix in (("release", ""), ("tsan", no_aslr + " ")):
        selfcheck = samples(profile, "selfcheck")
        done += run(f"check-selfcheck-{profile}", prefix + selfcheck, [selfcheck])
    engine = samples("tsan", "engine")
    done += run("check-engine-tsan", f"{no_aslr} {engine} --frames 60", [engine])
    replay = samples("tsan", "replay")
    for trace in TRACES:
        done += run(
            f"check-{os.path.basename(trace)}-tsan",
            f"{no_aslr} {replay} --threads --verify {trace}",
            [replay, trace],
        )
    for profile, prefix in (("debug", ""), ("asan", ""), ("tsan", no_aslr)):
        workload = samples(profile, "workload")
        done += run(
            f"check-workloads-{profile}",
            f"python3 tests/check_workloads.py --brief $builddir/{profile}/samples {prefix}".rstrip(),
            [workload, *TRACES],
        )
    done += run(
        "check-profile",
        f"python3 tests/check_profile.py {release}",
        [f"{release}/samples/workload", f"{release}/samples/replay", *TRACES],
    )
    done += run(
        "check-bars",
        f"python3 tests/check_bars.py {release}",
        [f"{release}/samples/{name}" for name in ("workload", "replay", "trace-cut")] + TRACES,
    )
    done += run(
        "check-frames", f"python3 tests/check_frames.py {release}/samples",
        [samples("release", "engine")],
    )
    n.build(["check-more"], "phony", done)
    criterion_debug = "$builddir/debug/tests/criterion"
    hostile = (
        f"python3 tests/hostile.py {release} --criterion {criterion_debug}",
        [samples("release", name) for name in ("selfcheck", "engine", "replay")]
        + [criterion_debug, *TRACES],
    )
    run("check-hostile", *hostile)
    # alone: it may change settings of the machine
    last = run("check-hostile-last", *hostile, after=["test", "check-more"])
    n.build(["check"], "phony", ["test", "check-more", *last])
    run("check-cross", "python3 tests/targets.py arm64 arm s390x i686", [])
    run("check-windows", "python3 tests/targets.py windows", [])

    n.comment("Everything else.")
    run("mutants", "python3 tests/mutants.py --cc $shell_cc", ["$builddir/criterion.found"])
    upkeep = [f"{release}/samples/upkeep"]
    run(
        "upkeep",
        " && ".join(
            f"{upkeep[0]} --heap 8G --seconds 60 {trace}" if trace == TRACES[0]
            else f"{upkeep[0]} --slices 1 --seconds 1 {trace}"
            for trace in TRACES
        ),
        upkeep + TRACES,
    )
    run(
        "demo",
        " ".join([f"python3 samples/demo.py {release}/samples", *TRACES]),
        [samples("release", "engine"), samples("release", "replay"), *TRACES],
    )
    programs = [f"{release}/samples/workload", f"{release}/samples/replay", *TRACES]
    bench = f"python3 samples/bench.py {release}/samples $builddir/bench"
    run("bench", bench, programs)
    run("bench-quick", f"{bench} --quick", programs)
    run("bench-soak", f"{bench} --soak", programs)
    run(
        "bars",
        f"python3 samples/bars.py {release}/samples --out $builddir/bars",
        [*programs, f"{release}/samples/trace-cut"],
    )
    run("profile", f"python3 samples/profile.py --build {release} larson", programs)
    run("install", f"python3 platform/install.py {release} {n.version}", library)


def write_help(n, platform):
    lines = [
        f"{left:30}{right}".format(build=n.builddir, profiles=", ".join(platform["profiles"]))
        for left, right in HELP
        if not left.startswith("ninja ") or left[len("ninja ") :] in n.targets | {"help"}
    ]
    text = " ".join(shlex.quote(line.rstrip()) for line in lines)
    n.build(["help"], "run", command=f"printf '%s\\n' {text}")


def subninja():
    """The text of hakmem/hakmem.ninja. Its rules are seen in that file alone, by ninja's scopes."""
    n = Ninja("$hakmem_out", None)
    n.lines = SUBNINJA_HEAD.format(platforms=" or ".join(PLATFORMS)).splitlines()
    n.lines.append("")
    n.rule(
        "hakmem_cc",
        f'$hakmem_cc -MMD -MF $out.d -I"$hakmem" {SUBNINJA_CFLAGS} {PROFILES["release"]["cflags"]}'
        " $hakmem_cflags -c $in -o $out",
        "cc $out",
        deps="gcc",
        depfile="$out.d",
    )
    n.rule("hakmem_ar", "rm -f $out && $hakmem_ar crs $out $in", "ar $out")
    # Every platform is one file that bears its name, beside what all have.
    every = [set(platform["library"]) for platform in PLATFORMS.values()]
    common = sorted(set.intersection(*every) - {f"platform/{name}.c" for name in PLATFORMS})
    for name, files in zip(PLATFORMS, every):
        if files != {*common, f"platform/{name}.c"}:
            sys.exit(f"configure.py: platform {name} is more than platform/{name}.c: {SUBNINJA}")
    n.lines.append("")
    made = []
    for source in LIBRARY + common + ["platform/$hakmem_platform.c"]:
        made += n.build([f"$hakmem_out/{source[:-2]}.o"], "hakmem_cc", [f"$hakmem/{source}"])
    n.build(["$hakmem_out/libhakmem.a"], "hakmem_ar", made)
    return n.text()


def parse(arguments):
    parser = argparse.ArgumentParser(
        description="Writes build.ninja and hakmem/hakmem.ninja; with options,"
        " build/NAME/build.ninja instead."
    )
    parser.add_argument("--name", help="folder under build/ (default: custom)")
    parser.add_argument("--cc", default="cc", help="the C compiler")
    parser.add_argument("--ar", default="ar", help="the archiver")
    parser.add_argument("--cflags", default="", help="flags for compiling, after all others")
    parser.add_argument("--ldflags", default="", help="flags for linking")
    parser.add_argument("--werror", action="store_true", help="warnings are errors")
    parser.add_argument("--platform", default="posix", choices=sorted(PLATFORMS))
    options = parser.parse_args(arguments)
    options.arguments = arguments
    if arguments and not options.name:
        options.name = "custom"
    if options.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", options.name):
        parser.error("--name: letters, digits and ._+- only")
    if options.name in PROFILES:
        parser.error(f"--name: build/{options.name} is a profile's folder")
    return options


def main(arguments):
    options = parse(arguments)
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    build = f"build/{options.name}" if options.name else "build"
    path = f"{build}/build.ninja" if options.name else "build.ninja"
    werror = " -Werror" if options.werror else ""
    platform = PLATFORMS[options.platform]

    n = Ninja(build, read_version())
    n.lines.append("# Written by configure.py; edit that, not this. Targets: ninja help")
    n.variable("ninja_required_version", "1.8")
    n.variable("builddir", build)
    n.variable("cc", escape(options.cc))
    n.variable("shell_cc", escape(shlex.quote(options.cc)))
    n.variable("ar", escape(options.ar))
    n.variable("common", f"{CFLAGS} {platform['cflags']}".rstrip() + werror)
    n.variable("cflags", escape(options.cflags))
    n.variable("ldflags", escape(options.ldflags))
    write_rules(n, options, path, platform)

    everything = []
    for profile in platform["profiles"]:
        n.comment(f"Profile {profile}.")
        everything += write_profile(n, profile, platform)
    if platform["tested"]:
        everything += write_amalgam(n, platform["samples"])
        write_tests(n)
    n.build(["$builddir/compile_commands.json"], "compdb", [path])
    n.build(["all"], "phony", everything)
    write_help(n, platform)
    n.lines.append("default release $builddir/compile_commands.json")

    if options.name:
        os.makedirs(build, exist_ok=True)
    else:
        with open(SUBNINJA, "w", encoding="utf-8") as out:
            out.write(subninja())
    with open(path, "w", encoding="utf-8") as out:
        out.write(n.text())


if __name__ == "__main__":
    main(sys.argv[1:])
