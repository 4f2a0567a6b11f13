#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Installs what `ninja` built: platform/install.py BUILD_DIR VERSION

Environment: PREFIX (default /usr/local), LIBDIR (PREFIX/lib), INCLUDEDIR (PREFIX/include), and
DESTDIR, which is put before all of them for packaging. Only files that this script names are
written; nothing is removed.
"""

import os
import shutil
import sys

# Both stand under one folder, so that no general name such as platform/ enters INCLUDEDIR; the
# flags in hakmem.pc make <hakmem/hakmem.h> and <platform/platform.h> work.
HEADERS = {
    "hakmem/hakmem.h": "hakmem/hakmem.h",
    "hakmem/budget.h": "hakmem/budget.h",
    "hakmem/maintain.h": "hakmem/maintain.h",
    "hakmem/types.h": "hakmem/types.h",
    "platform/platform.h": "hakmem/platform/platform.h",
}

PC = """\
prefix={prefix}
libdir={libdir}
includedir={includedir}

Name: hakmem
Description: Memory allocator that game engines and language runtimes embed
Version: {version}
Cflags: -I${{includedir}} -I${{includedir}}/hakmem
Libs: -L${{libdir}} -lhakmem
"""


def main(build, version):
    prefix = os.environ.get("PREFIX") or "/usr/local"
    libdir = os.environ.get("LIBDIR") or f"{prefix}/lib"
    includedir = os.environ.get("INCLUDEDIR") or f"{prefix}/include"
    destdir = os.environ.get("DESTDIR", "")
    soname = f"libhakmem.so.{version}"

    def place(path):
        full = destdir + path
        os.makedirs(os.path.dirname(full), exist_ok=True)
        print(full)
        return full

    if not os.path.isabs(prefix):
        sys.exit("install.py: PREFIX must be an absolute path")

    def install(source, path, mode):
        target = place(path)
        new = target + ".new"  # renamed, so that a running program keeps the file it has
        shutil.copyfile(source, new)
        os.chmod(new, mode)
        os.replace(new, target)

    install(f"{build}/libhakmem.a", f"{libdir}/libhakmem.a", 0o644)
    install(f"{build}/{soname}", f"{libdir}/{soname}", 0o755)
    link = place(f"{libdir}/libhakmem.so")
    if os.path.lexists(link):
        os.remove(link)
    os.symlink(soname, link)
    for source, path in HEADERS.items():
        install(source, f"{includedir}/{path}", 0o644)
    pc = PC.format(prefix=prefix, libdir=libdir, includedir=includedir, version=version)
    with open(place(f"{libdir}/pkgconfig/hakmem.pc"), "w", encoding="utf-8") as out:
        out.write(pc)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: install.py BUILD_DIR VERSION (what `ninja install` calls)")
    try:
        main(sys.argv[1], sys.argv[2])
    except OSError as error:
        sys.exit(f"install.py: {error}")
