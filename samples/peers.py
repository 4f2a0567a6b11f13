#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The sides of a comparison: hakmem, glibc, allocators that can be preloaded, commands.

    peers.py        lists the allocators that this machine has, and the packages of the others

As a module: sides() gives hakmem, glibc and the peers that were found, own_side() one from
`--peer name=command`, command_side() one from a whole command line; Side.command() gives what to
run; check_preload() says whether a library that should be preloaded is;
machine() tells what it all runs on.

The program under test is one of this project's: it takes `--allocator hakmem` and `--allocator
libc`, the latter being whatever malloc is loaded.
"""

import dataclasses
import glob
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import typing

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TIMEOUT = 60
ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
NOT_LOADED = "cannot be preloaded"  # ld.so says this and goes on
LIB_DIRS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64")

# name: its library without the version, the usual version, Debian's package
PRELOADS = {
    "mimalloc": ("libmimalloc.so", "2", "libmimalloc2.0"),
    "jemalloc": ("libjemalloc.so", "2", "libjemalloc2"),
    "tcmalloc": ("libtcmalloc_minimal.so", "4", "libtcmalloc-minimal4"),
    "tbbmalloc": ("libtbbmalloc_proxy.so", "2", "libtbbmalloc2"),
}


class PreloadError(Exception):
    """A library that should have been preloaded was not; says why."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a comparison.

    @template are the words to run, see own_side(); @allocator is what `{}` says behind
    --allocator; @literal words are run as they are. @how is what a person would type.
    """

    name: str
    version: typing.Optional[str]
    how: str
    template: tuple = ("{}",)
    allocator: str = "libc"
    environment: tuple = ()  # of (variable, value)
    literal: bool = False

    def command(self, program=None, arguments=()):
        """(argv, env) that runs @program with @arguments on this side.

        The caller's own LD_PRELOAD is not handed on, else it would be measured under the name
        of hakmem or glibc; only a literal command, which says all itself, is left with it.
        """
        env = dict(os.environ)
        if not self.literal:
            env.pop("LD_PRELOAD", None)
        env.update(self.environment)
        if self.literal:
            return list(self.template), env
        whole = [program, *arguments, "--allocator", self.allocator]
        return fill(self.template, whole, list(arguments)), env


def fill(template, whole, arguments):
    """The words of a template: `{}` is @whole, `{args}` @arguments, at the end where neither is.

    Inside a longer word, as for `sh -c "exec {}"`, they stand quoted for a shell.
    """
    words, found = [], False
    for word in template:
        if word in ("{}", "{args}"):
            words += whole if word == "{}" else arguments
            found = True
            continue
        filled = re.sub(
            r"\{(args)?\}", lambda at: shlex.join(arguments if at[1] else whole), word
        )
        found = found or filled != word
        words.append(filled)
    return words if found else words + arguments


def split_command(text):
    """(environment, words) of a command line: leading VAR=value words are environment."""
    words = shlex.split(text)
    environment = []
    while words and ASSIGNMENT.fullmatch(words[0]):
        environment.append(ASSIGNMENT.fullmatch(words.pop(0)).groups())
    return tuple(environment), tuple(words)


def own_side(text):
    """The side of `--peer name=command`; ValueError where it is none.

    In the command, `{}` is the program and its arguments with --allocator libc, `{args}` the
    arguments alone; where neither is, the arguments are appended. Environment with no command
    behind it is for the program itself: `mine=LD_PRELOAD=./libmine.so`.
    """
    name, equals, command = text.partition("=")
    if not equals or not NAME.fullmatch(name):
        raise ValueError(f"not name=command: {text!r}")
    environment, words = split_command(command)
    if not environment and not words:
        raise ValueError(f"no command: {text!r}")
    return Side(name, None, command, words or ("{}",), environment=environment)


def command_side(name, text):
    """The side that runs a whole command line; ValueError where it is none."""
    environment, words = split_command(text)
    if not words:
        raise ValueError(f"no command: {text!r}")
    return Side(name, None, text, words, environment=environment, literal=True)


def sides():
    """([hakmem, glibc, the peers found...], [names of the missing ones])."""
    found = [
        Side("hakmem", own_version(), "--allocator hakmem", allocator="hakmem"),
        libc_side(),
    ]
    missing = []
    cache = loader_cache()
    for name in PRELOADS:
        path = find_library(name, cache)
        if path is None:
            missing.append(name)
            continue
        typed = os.path.basename(path)
        typed = typed if cache.get(typed) == path else path
        how = f"LD_PRELOAD={typed} ... --allocator libc"
        found.append(
            Side(name, library_version(path), how, environment=(("LD_PRELOAD", path),))
        )
    return found, missing


def own_version():
    """hakmem's version, from its header."""
    try:
        with open(os.path.join(ROOT, "hakmem", "hakmem.h"), encoding="utf-8") as header:
            numbers = re.findall(
                r"^#define HK_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", header.read(), re.MULTILINE
            )
    except OSError:
        return None
    return ".".join(numbers) or None


def libc_side():
    """glibc, or another libc, whose version is not known."""
    try:
        name, version = os.confstr("CS_GNU_LIBC_VERSION").split()
    except (AttributeError, ValueError, OSError):
        name, version = platform.libc_ver()
    return Side(name or "libc", version or None, "--allocator libc")


def output_of(command):
    """What a program prints, "" where there is none or it fails."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL, timeout=TIMEOUT, check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def loader_cache():
    """{soname: path} of the libraries for this processor that the loader knows."""
    path = os.environ.get("PATH", os.defpath) + os.pathsep + "/sbin" + os.pathsep + "/usr/sbin"
    ldconfig = shutil.which("ldconfig", path=path)
    cache = {}
    for line in output_of([ldconfig, "-p"]).splitlines() if ldconfig else []:
        entry = re.fullmatch(r"\s*(\S+) \(.*\) => (.+)", line)
        if entry and entry[1] not in cache and is_native(entry[2]):
            cache[entry[1]] = entry[2]
    return cache


def machine_of(path):
    """What an ELF file runs on: its class, byte order and processor; None where it is no such."""
    try:
        with open(path, "rb") as file:
            head = file.read(20)
    except OSError:
        return None
    return (head[4:6], head[18:20]) if head[:4] == b"\x7fELF" and len(head) == 20 else None


def is_native(path):
    """Is a library for the same processor as this Python?"""
    machine = machine_of(path)
    return machine is not None and machine == machine_of(sys.executable)


def numbers_of(name):
    """The numbers of a library's version, to sort by."""
    return [int(number) for number in re.findall(r"\d+", name.rpartition(".so")[2])]


def find_library(name, cache, folders=None):
    """The path of a peer's library, None where there is none: the usual version or the newest."""
    base, usual, _ = PRELOADS[name]
    pattern = re.compile(re.escape(base) + r"(\.\d+)*")
    found = {soname: path for soname, path in cache.items() if pattern.fullmatch(soname)}
    if not found:
        for folder in LIB_DIRS if folders is None else folders:
            for place in (folder, os.path.join(folder, "*")):
                for path in sorted(glob.glob(os.path.join(place, base + "*"))):
                    soname = os.path.basename(path)
                    if pattern.fullmatch(soname) and is_native(path):
                        found.setdefault(soname, path)
    if not found:
        return None
    return found[max(found, key=lambda soname: (soname == f"{base}.{usual}", numbers_of(soname)))]


def library_version(path):
    """The version of a library by its package, else by its file's name, else None."""
    real = os.path.realpath(path)
    # Where /lib is a link to /usr/lib, a package may say either.
    for file in (real, real.replace("/usr/lib", "/lib", 1)):
        package = output_of(["dpkg-query", "-S", file]).partition(": ")[0]
        if package:
            version = output_of(["dpkg-query", "-W", "-f", "${Version}", package])
            if version:
                return upstream(version)
    # One number is only that of the interface.
    numbers = os.path.basename(real).rpartition(".so")[2].strip(".")
    return numbers if "." in numbers else None


def upstream(version):
    """A Debian version without what Debian adds: 1:2.0.9+ds-2 is 2.0.9."""
    version = re.sub(r"^\d+:", "", version)
    return re.sub(r"-[^-]*$", "", version).partition("+")[0].partition("~")[0]


def first_match(path, start):
    """What stands behind the first @start of a file of lines, None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith(start):
                    return line[len(start) :].strip(' \t\n:="') or None
    except OSError:
        pass
    return None


def machine():
    """What the numbers were measured on."""
    sysconf = getattr(os, "sysconf_names", {})
    pages = os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in sysconf else None
    return {
        "processor": first_match("/proc/cpuinfo", "model name") or platform.machine(),
        "processors": os.cpu_count(),
        "memory_bytes": pages and pages * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "system": first_match("/etc/os-release", "PRETTY_NAME") or platform.system(),
    }


def check_preload(side, program=None):
    """Raises PreloadError where a library of the side's LD_PRELOAD is not loaded.

    ld.so only warns of one that it cannot load, and a program that is linked statically ignores
    them without a word. So the loader is asked, as ldd does, to list what it maps and not to run
    the program; --help is for a program that has no loader and does run.
    """
    libraries = dict(side.environment).get("LD_PRELOAD", "").replace(":", " ").split()
    if not libraries:
        return
    argv, env = side.command(program, ())
    try:
        done = subprocess.run(
            [argv[0], "--help"], env=dict(env, LD_TRACE_LOADED_OBJECTS="1"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            timeout=TIMEOUT, check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as why:
        raise PreloadError(f"{argv[0]}: {why}") from why
    refuse_preload(done.stderr.decode("utf-8", "replace"))
    listed = done.stdout.decode("utf-8", "replace").split()
    names = {os.path.basename(word) for word in listed}
    for library in libraries:
        if os.path.basename(library) not in names:
            raise PreloadError(f"{library} is not loaded into {argv[0]}")


def refuse_preload(error):
    """Raises PreloadError where ld.so complains in what a program wrote to stderr."""
    for line in error.splitlines():
        if NOT_LOADED in line and "ld.so" in line:
            raise PreloadError(line.partition("ld.so: ")[2])


def main():
    found, missing = sides()
    for side in found:
        print(f"{side.name:12}{side.version or '-':12}{side.how}")
    for name in missing:
        print(f"{name:12}{'missing':12}Debian has it in {PRELOADS[name][2]}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(__doc__.strip(), file=sys.stdout if "--help" in sys.argv else sys.stderr)
        sys.exit(0 if "--help" in sys.argv else 2)
    main()
