#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Installs into a temporary folder and builds a program against what was installed.

    check_install.py [--cc CC] BUILD_DIR
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile

PROGRAM = """\
#include <hakmem/hakmem.h>
#include <platform/platform.h>

int main(void)
{
	struct hk_platform platform;
	struct hk_arena *arena;
	struct hk_cache *cache;

	if (hk_version() != HK_VERSION || hk_platform_system(&platform))
		return 1;
	if (hk_arena_create(&arena, 0) || hk_cache_create(arena, &cache))
		return 1;
	hk_free(cache, hk_alloc(cache, 100));
	hk_arena_destroy(arena);
	return 0;
}
"""


def pkg_config(path):
    """The flags of a .pc file, as pkg-config would give them: [cflags, libs]."""
    variables, fields = {}, {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            line = re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], line.rstrip("\n"))
            if re.match(r"\w+=", line):
                name, value = line.split("=", 1)
                variables[name] = value
            elif ": " in line:
                name, value = line.split(": ", 1)
                fields[name] = value
    return [fields[name].split() for name in ("Cflags", "Libs")]


def main():
    parser = argparse.ArgumentParser(description="Checks what `ninja install` installs.")
    parser.add_argument("--cc", default="cc")
    parser.add_argument("build_dir")
    options = parser.parse_args()
    with open("hakmem/hakmem.h", encoding="utf-8") as header:
        version = ".".join(
            re.findall(r"^#define HK_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", header.read(), re.M)
        )

    with tempfile.TemporaryDirectory() as folder:
        # Flags must hold PREFIX and never DESTDIR: so install once staged, once in place.
        staged = dict(os.environ, PREFIX="/opt/hk", DESTDIR=f"{folder}/stage with space")
        prefix = f"{folder}/prefix"
        placed = dict(os.environ, PREFIX=prefix, DESTDIR="")
        for environment in (staged, placed):
            for name in ("LIBDIR", "INCLUDEDIR"):
                environment.pop(name, None)
            subprocess.run(
                [sys.executable, "platform/install.py", options.build_dir, version],
                env=environment, check=True, stdout=subprocess.DEVNULL,
            )
        pc = f"{folder}/stage with space/opt/hk/lib/pkgconfig/hakmem.pc"
        if pkg_config(pc)[0] != ["-I/opt/hk/include", "-I/opt/hk/include/hakmem"]:
            sys.exit(f"hakmem.pc of a staged install: wrong Cflags {pkg_config(pc)[0]}")

        source = f"{folder}/program.c"
        with open(source, "w", encoding="utf-8") as out:
            out.write(PROGRAM)
        cflags, libs = pkg_config(f"{prefix}/lib/pkgconfig/hakmem.pc")
        for kind, link in (("shared", libs), ("static", [f"{prefix}/lib/libhakmem.a"])):
            program = f"{folder}/{kind}"
            command = [*options.cc.split(), "-std=c11", *cflags, source, "-o", program, *link]
            subprocess.run(command, check=True)
            environment = dict(os.environ, LD_LIBRARY_PATH=f"{prefix}/lib")
            run = subprocess.run([program], env=environment, check=False)
            if run.returncode:
                sys.exit(f"a program with the installed {kind} library: exit {run.returncode}")


if __name__ == "__main__":
    main()
