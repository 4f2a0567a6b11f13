#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Embeds hakmem in each of the ways of samples/embed, as its users do.

    check_embed.py [--cc CC] [--cxx CXX] [--werror] BUILD_DIR [WAY...]

Copies a sample into a temporary folder, in a path with a space, beside what the sample says it
needs: a copy of hakmem's own folders in third_party/hakmem, with the libraries of BUILD_DIR, or
the amalgam, or an installed hakmem. Then runs the commands that stand in the sample, the lines
that begin with "$ ", and looks at what its program prints, at exit codes and at what is left in
third_party. `cc` and `c++` are what --cc and --cxx name, with warnings.

A way whose tools are missing is SKIPPED; with HK_REQUIRE_TOOLS=1 in the environment it fails.
"""

import argparse
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WARNINGS = "-Wall -Wextra -Wpedantic -Wshadow -Wconversion"
TIMEOUT = 300

# Commands, and the packages of Debian that bring them.
PACKAGES = {
    "ninja": "ninja-build",
    "cmake": "cmake",
    "pkg-config": "pkg-config",
    "nm": "binutils",
    "readelf": "binutils",
}


class Fault(Exception):
    """What is wrong with a way."""


def show(command, done):
    return f"{command}: exit code {done.returncode}\n{done.stdout}".rstrip()


class Place:
    """A folder into which a sample is copied, and what is run there."""

    def __init__(self, options, way, folder):
        self.options = options
        self.folder = os.path.join(folder, f"a {way}")
        self.hakmem = os.path.join(self.folder, "third_party", "hakmem")
        self.environment = dict(os.environ, LC_ALL="C")
        for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "NINJA_STATUS"):
            self.environment.pop(name, None)
        shutil.copytree(os.path.join(ROOT, "samples", "embed", way), self.folder)
        self.commands = []  # what the sample tells its user to type
        for name in sorted(os.listdir(self.folder)):
            with open(os.path.join(self.folder, name), encoding="utf-8") as lines:
                self.commands += re.findall(r"^(?: \*|#)\s+\$ (.+)$", lines.read(), re.M)
        tools = os.path.join(folder, f"{way} tools")
        os.mkdir(tools)
        for name, command in (("cc", options.cc), ("c++", options.cxx)):
            words = command.split()
            words[0] = shutil.which(words[0]) or words[0]
            warnings = WARNINGS + (" -Werror" if options.werror else "")
            path = os.path.join(tools, name)
            with open(path, "w", encoding="utf-8") as out:
                out.write(f'#!/bin/sh\nexec {shlex.join(words)} {warnings} "$@"\n')
            os.chmod(path, 0o755)
        self.environment["PATH"] = tools + os.pathsep + self.environment["PATH"]

    def run(self, command, **more):
        return subprocess.run(
            ["sh", "-euc", command], cwd=self.folder, env=dict(self.environment, **more),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False, timeout=TIMEOUT,
        )

    def must(self, command, **more):
        done = self.run(command, **more)
        if done.returncode:
            raise Fault(show(command, done))
        if "warning:" in done.stdout:
            print(show(command, done))
        return done.stdout

    def third_party(self):
        """Each file of third_party/hakmem, with its content."""
        found = {}
        for folder, _, names in os.walk(self.hakmem):
            for name in names:
                path = os.path.join(folder, name)
                with open(path, "rb") as data:
                    found[path] = hashlib.sha256(data.read()).hexdigest()
        return found


def sources(place):
    """hakmem's own folders, and nothing else of the repository."""
    for name in ("hakmem", "platform"):
        shutil.copytree(
            os.path.join(ROOT, name), os.path.join(place.hakmem, name),
            ignore=shutil.ignore_patterns("__pycache__"),
        )


def built(place):
    """The same, and what `ninja` builds there."""
    sources(place)
    release = os.path.join(place.hakmem, "build", "release")
    os.makedirs(release)
    for name in ("libhakmem.a", "libhakmem.so"):
        shutil.copy(os.path.join(place.options.build_dir, name), release)


def amalgam(place):
    program = [sys.executable, os.path.join(ROOT, "hakmem", "amalgam.py"), place.folder]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)


def installed(place):
    # The compiler gets pkg-config's flags unquoted, so that no space may be in PREFIX.
    prefix = tempfile.mkdtemp(dir=os.path.dirname(place.folder))
    for name in ("LIBDIR", "INCLUDEDIR", "DESTDIR"):
        place.environment.pop(name, None)
    place.environment["PREFIX"] = prefix
    place.environment["PKG_CONFIG_PATH"] = f"{prefix}/lib/pkgconfig"
    place.environment["LD_LIBRARY_PATH"] = f"{prefix}/lib"
    sys.path.insert(0, ROOT)
    sys.dont_write_bytecode = True
    import configure  # pylint: disable=import-outside-toplevel

    subprocess.run(
        [sys.executable, "platform/install.py", place.options.build_dir, configure.read_version()],
        env=place.environment, check=True, stdout=subprocess.DEVNULL,
    )


def debugged(place):
    """The same in a debug build, in which hk_free_sized() looks at each size."""
    for command in place.commands:
        place.must(command.replace("-O2", "-O1 -DHK_DEBUG=1"))


def complete(place, archive):
    """An archive that the way built has the functions that the one in BUILD_DIR has."""
    listed = [
        set(re.findall(r"^(hk_\w+) [A-TV-Z]\b", place.must(f"nm -gP {shlex.quote(path)}"), re.M))
        for path in (archive, os.path.join(place.options.build_dir, "libhakmem.a"))
    ]
    if not listed[1] or listed[0] != listed[1]:
        raise Fault(f"{archive} lacks, or has too much: {' '.join(listed[0] ^ listed[1])}")


def check_cmake(place):
    complete(place, "build/third_party/hakmem/hakmem/libhakmem.a")


def check_subninja(place):
    complete(place, "out/hakmem/libhakmem.a")
    # What is built is built once, and again when a header changes.
    text = place.must("ninja")
    if "no work to do" not in text:
        raise Fault(f"a second ninja has work to do:\n{text}")
    place.must("touch third_party/hakmem/hakmem/types.h")
    text = place.must("ninja -n")
    if "cc out/hakmem/hakmem/alloc.o" not in text or "-o out/level\n" not in text:
        raise Fault(f"after a change of types.h, ninja has this to do:\n{text}")


def linked(place):
    """The one program needs libhakmem.so, the other does not."""
    for program, wanted in (("region", True), ("region-static", False)):
        text = place.must(f"readelf -dW {program}")
        if ("libhakmem.so" in text) != wanted:
            raise Fault(f"{program}: {'no' if wanted else 'a'} shared library:\n{text}")


# way: (tools beside the compiler, what it needs, runs of a program and what they print, more)
WAYS = {
    "amalgam": (
        [], amalgam,
        {"./frames": r"frames: 600 frames, world \d+ KiB, scratch \d+ KiB\n"},
        debugged,
    ),
    "subninja": (
        ["ninja", "nm"], sources,
        {"out/level": r"(level \d: \d+ KiB loaded, \d+ KiB kept\n){3}"},
        check_subninja,
    ),
    "dlopen": (
        [], built,
        {
            "./rounds third_party/hakmem/build/release/libhakmem.so":
            r"rounds: 100 rounds, nothing is left\n",
        },
        None,
    ),
    "pkgconfig": (
        ["pkg-config", "readelf"], installed,
        {
            "./region": r"region: 100 rounds of 300 objects in \d+ KiB\n",
            "./region-static": r"region: 100 rounds of 300 objects in \d+ KiB\n",
        },
        linked,
    ),
    "cmake": (
        ["cmake", "ninja", "nm"], sources,
        {"build/script": r"script: 50000 steps, \d+ collections, \d+ of 1024 KiB\n"},
        check_cmake,
    ),
    "pmr": (
        ["c++"], built,
        {"./world": r"world: 1500 actors in \d+ blocks\nworld: 64 MiB more: std::bad_alloc\n"},
        debugged,
    ),
}


def embed(options, way):
    _, prepare, programs, more = WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        place = Place(options, way, folder)
        prepare(place)
        before = place.third_party()
        ran = set()
        for command in place.commands:
            text = place.must(command)
            if command in programs:
                ran.add(command)
                if not re.fullmatch(programs[command], text):
                    raise Fault(f"{command} prints\n{text}")
        if ran != set(programs):
            raise Fault(f"the sample does not say: $ {' or '.join(set(programs) - ran)}")
        changed = {path for path, _ in set(before.items()) ^ set(place.third_party().items())}
        if changed:
            raise Fault(f"written to third_party: {', '.join(sorted(changed)[:3])} ...")
        if more:
            more(place)


def missing(options, way):
    """The packages that bring the tools that are not there."""
    packages = []
    for tool in WAYS[way][0]:
        program = options.cxx.split()[0] if tool == "c++" else tool
        if not shutil.which(program):
            packages.append(PACKAGES.get(program, "g++" if tool == "c++" else program))
    return packages


def main():
    parser = argparse.ArgumentParser(
        description="Embeds hakmem in each of the ways of samples/embed: " + ", ".join(WAYS) + ".",
        epilog="Exit codes: 0 well, 1 a way failed, 2 wrong usage.",
    )
    parser.add_argument("--cc", default="cc", help="the C compiler")
    parser.add_argument("--cxx", default="c++", help="the C++ compiler")
    parser.add_argument("--werror", action="store_true", help="warnings are errors")
    parser.add_argument("build_dir", help="where libhakmem.a and libhakmem.so are")
    parser.add_argument("way", nargs="*", help="one of the ways (default: all)")
    options = parser.parse_args()
    for way in options.way:
        if way not in WAYS:
            parser.error(f"no such way: {way}")
    options.build_dir = os.path.abspath(options.build_dir)
    os.chdir(ROOT)

    passed = failed = skipped = 0
    for way in options.way or WAYS:
        packages = missing(options, way)
        if packages:
            print(f"SKIPPED {way}: not installed; apt-get install {' '.join(packages)}")
            skipped += 1
            continue
        try:
            embed(options, way)
            passed += 1
        except (Fault, OSError, subprocess.SubprocessError) as fault:
            print(f"embed, {way}: {fault}")
            failed += 1
    if skipped and os.environ.get("HK_REQUIRE_TOOLS") == "1":
        print("HK_REQUIRE_TOOLS is set, and tools are missing")
        failed += skipped
    print(f"{passed} passed, {failed} failed, {skipped} SKIPPED: ways to embed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
