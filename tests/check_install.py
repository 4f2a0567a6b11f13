#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Installs into a temporary folder and looks at what is there.

    check_install.py BUILD_DIR

That programs build against it is for check_embed.py to show, by pkg-config.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile

HEADERS = {
    "include/hakmem/hakmem.h": "hakmem/hakmem.h",
    "include/hakmem/budget.h": "hakmem/budget.h",
    "include/hakmem/maintain.h": "hakmem/maintain.h",
    "include/hakmem/types.h": "hakmem/types.h",
    "include/hakmem/platform/platform.h": "platform/platform.h",
}


def install(build, version, **variables):
    """Runs the installer; returns its exit code."""
    environment = dict(os.environ, DESTDIR="")
    for name in ("PREFIX", "LIBDIR", "INCLUDEDIR"):
        environment.pop(name, None)
    environment.update(variables)
    return subprocess.run(
        [sys.executable, "platform/install.py", build, version],
        env=environment, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ).returncode


def files(folder):
    """The paths of all files below a folder, relative to it."""
    return {
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder)
        for name in names
    }


def read(path):
    with open(path, "rb") as data:
        return data.read()


def check_staged(build, version, stage):
    """Yields what is wrong with an install to /opt/hk that is staged, and done twice."""
    soname = f"libhakmem.so.{version}"
    wanted = {
        **HEADERS,
        "lib/libhakmem.a": f"{build}/libhakmem.a",
        f"lib/{soname}": f"{build}/{soname}",
        "lib/libhakmem.so": f"{build}/{soname}",
    }
    for _ in range(2):
        if install(build, version, PREFIX="/opt/hk", DESTDIR=stage):
            yield "the installer fails"
            return
    prefix = f"{stage}/opt/hk"
    found = files(stage)
    expected = {f"opt/hk/{path}" for path in [*wanted, "lib/pkgconfig/hakmem.pc"]}
    if found != expected:
        yield f"not as they should be: {' '.join(sorted(found ^ expected))}"
        return
    if os.readlink(f"{prefix}/lib/libhakmem.so") != soname:
        yield "libhakmem.so does not point to the library beside it"
        return
    for path, source in wanted.items():
        if read(f"{prefix}/{path}") != read(source):
            yield f"{path} is not {source}"
    text = read(f"{prefix}/lib/pkgconfig/hakmem.pc").decode()
    for line in (
        "prefix=/opt/hk", "libdir=/opt/hk/lib", "includedir=/opt/hk/include",
        f"Version: {version}",
    ):
        if line not in text.splitlines():
            yield f"hakmem.pc has no line {line}"
    if stage in text:
        yield "hakmem.pc holds DESTDIR"


def check_folders(build, version, folder):
    """Yields what is wrong with LIBDIR, INCLUDEDIR and a PREFIX that is relative."""
    variables = {"LIBDIR": f"{folder}/lib64", "INCLUDEDIR": f"{folder}/headers"}
    if install(build, version, PREFIX=f"{folder}/none", **variables):
        yield "with LIBDIR and INCLUDEDIR the installer fails"
    elif set(os.listdir(folder)) != {"lib64", "headers"}:
        yield f"with LIBDIR and INCLUDEDIR: {' '.join(sorted(os.listdir(folder)))}"
    elif f"libdir={folder}/lib64" not in read(f"{folder}/lib64/pkgconfig/hakmem.pc").decode():
        yield "hakmem.pc does not name LIBDIR"
    if not install(build, version, PREFIX="relative", DESTDIR=f"{folder}/"):
        yield "a relative PREFIX is taken"


def main():
    parser = argparse.ArgumentParser(description="Checks what `ninja install` installs.")
    parser.add_argument("build_dir")
    build = parser.parse_args().build_dir
    with open("hakmem/hakmem.h", encoding="utf-8") as header:
        version = ".".join(
            re.findall(r"^#define HK_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", header.read(), re.M)
        )
    faults = []
    for check in (check_staged, check_folders):
        with tempfile.TemporaryDirectory(suffix=" with space") as folder:
            faults += check(build, version, folder)
    for fault in faults:
        print(f"install: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
