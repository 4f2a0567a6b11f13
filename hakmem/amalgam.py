#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the library as one header and one source, for a host that rather copies two files.

    amalgam.py OUTPUT_DIR

OUTPUT_DIR/hakmem.h holds all that a host includes, platform/platform.h too. OUTPUT_DIR/hakmem.c
holds the internal headers, then every .c file of the library and of all platforms. The two need
nothing else of the repository, and no flags. What the library consists of stands in configure.py.

A header of the repository is put in once; headers of the system stay includes. What a .c file
defines before its first #include comes before all of them. The macros that it defines for itself
are undefined at its end, so that no other file sees them. Two static functions of one name are
for the compiler to find.
"""

import argparse
import os
import posixpath
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
sys.dont_write_bytecode = True

import configure  # noqa: E402  pylint: disable=wrong-import-position

# What a host includes; the other headers are internal.
PUBLIC = ["hakmem/hakmem.h", "platform/platform.h"]

# The platforms of configure.py and when the compiler is to see their files, the last one else.
CONDITIONS = {"windows": "defined(_WIN32)", "posix": None}

INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')
DIRECTIVE = re.compile(r"\s*#\s*(\w+)\s*(.*)")
NESTING = {"if": 1, "ifdef": 1, "ifndef": 1, "endif": -1}


class Fault(Exception):
    """Sources of which no amalgam can be made."""


def read(path):
    """The lines of a file, without its line about the license."""
    with open(os.path.join(ROOT, path), encoding="utf-8") as source:
        lines = source.read().rstrip("\n").split("\n")
    if "SPDX-License-Identifier: MIT" not in lines[0]:
        raise Fault(f"{path}:1: does not name the license of the others")
    return lines[1:]


def included_by(line, path):
    """The file of the repository that a line of @path includes; None for any other line."""
    found = INCLUDE.match(line)
    if not found:
        return None
    quote, name = found.groups()
    if quote == '"':
        places = [posixpath.normpath(posixpath.join(posixpath.dirname(path), name)), name]
    elif "/" in name and os.path.isdir(os.path.join(ROOT, name.split("/")[0])):
        places = [name]
    else:
        return None
    for place in places:
        if os.path.isfile(os.path.join(ROOT, place)):
            return place
    raise Fault(f"{path}: includes {name}, which is not there")


def body(path, text, include):
    """The lines @text of a file; one that includes another of the repository is @include(file)."""
    lines = [f"/* ==== {path} ==== */"]
    depth = -1 if path.endswith(".h") else 0  # all of a header is in its guard
    for line in text:
        word = DIRECTIVE.match(line)
        if word:
            depth += NESTING.get(word[1], 0)
        included = included_by(line, path)
        if included is None:
            lines.append(line)
        elif depth > 0:
            # The first to include it would decide for all others.
            raise Fault(f"{path}: includes {included} under a condition")
        else:
            lines += include(included)
    return lines + [""]


def header(path, done):
    """A header, with those that it includes in it; nothing of what is in @done, which grows."""
    if path in done:
        return []
    done.add(path)
    return body(path, read(path), lambda included: header(included, done))


def headers_of(path, done):
    """The headers that a .c file includes, as header()."""
    lines = []
    for line in read(path):
        included = included_by(line, path)
        if included:
            lines += header(included, done)
    return lines


def take_preamble(path, lines):
    """Takes what a .c file defines before it includes anything out of @lines and returns it."""
    start = end = depth = 0
    for number, line in enumerate(lines):
        word = DIRECTIVE.match(line)
        if not word:
            continue
        if word[1] == "include":
            break
        start = start or number
        depth += NESTING.get(word[1], 0)
        if depth == 0:
            end = number + 1
    else:
        raise Fault(f"{path}: includes nothing")
    preamble = lines[start:end]
    del lines[start:end]
    return preamble


def own_macros(lines):
    """The macros that a .c file defines, but for those that it supplies where a system has none."""
    names, conditions = [], []
    for line in lines:
        word = DIRECTIVE.match(line)
        if not word:
            continue
        if word[1] in ("if", "ifdef", "ifndef"):
            conditions.append(word[2])
        elif word[1] == "endif":
            conditions.pop()
        elif word[1] == "define":
            name = re.match(r"\w+", word[2])[0]
            if name not in names and not re.search(rf"\b{name}\b", " ".join(conditions)):
                names.append(name)
    return names


def source(path):
    """A .c file without its includes of the repository: (its preamble, the rest)."""
    lines = read(path)
    preamble = take_preamble(path, lines)
    lines = body(path, lines, lambda included: [])
    undefine = [f"#undef {name}" for name in own_macros(lines)]
    return preamble, lines + undefine + [""] * bool(undefine)


def only_if(condition, lines):
    """The lines under a condition, where there is one and anything to put under it."""
    if not condition or not lines:
        return lines
    return [f"#if {condition}", *lines, f"#endif /* {condition} */", ""]


def common_sources():
    """The .c files that every platform has."""
    first, *others = [table["library"] for table in configure.PLATFORMS.values()]
    return [path for path in first if all(path in other for other in others)]


def platform_conditions():
    """Yields (condition, the .c files that only this platform has)."""
    tables = configure.PLATFORMS
    unknown = sorted(set(tables) - set(CONDITIONS))
    if unknown:
        raise Fault(f"nothing says when platform {unknown[0]} is the one to take")
    common = common_sources()
    others = []
    for name, condition in CONDITIONS.items():
        if name not in tables:
            continue
        if not condition and others:
            condition = " && ".join(f"!{other}" for other in others)
        else:
            others.append(condition)
        yield condition, [path for path in tables[name]["library"] if path not in common]


def make_header(top):
    done = set()
    lines = top + [""]
    for path in PUBLIC:
        lines += header(path, done)
    return lines, done


def make_source(top, public):
    preambles, includes, sources = [], [], []
    done = set(public)
    for path in configure.LIBRARY + common_sources():
        includes += headers_of(path, done)
        preamble, lines = source(path)
        preambles += preamble
        sources += lines
    for condition, paths in platform_conditions():
        seen = set(done)
        part = []
        for path in paths:
            part += headers_of(path, seen)
            preamble, lines = source(path)
            preambles += only_if(condition, preamble)
            part += lines
        sources += only_if(condition, part)
    return top + preambles + ["", '#include "hakmem.h"', ""] + includes + sources


def head(what):
    """The first lines of a file that is written."""
    with open(os.path.join(ROOT, "LICENSE"), encoding="utf-8") as text:
        license_text = text.read().rstrip("\n").split("\n")
    about = [f"hakmem {configure.read_version()}, {what}",
             "Written by hakmem/amalgam.py out of the library's files: change those, not this.", ""]
    comment = [f" * {line}".rstrip() for line in about + license_text]
    return ["/* SPDX-License-Identifier: MIT */", "/*", *comment, " */"]


def text_of(lines):
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip("\n") + "\n"


def main():
    """Returns the exit status: 0 written, 1 cannot be; wrong usage ends in 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output_dir")
    output = os.path.abspath(parser.parse_args().output_dir)
    os.chdir(ROOT)  # where configure.py reads the version
    try:
        header_lines, public = make_header(head("the header."))
        source_lines = make_source(head("all of the library; needs hakmem.h only."), public)
        os.makedirs(output, exist_ok=True)
        for name, lines in (("hakmem.h", header_lines), ("hakmem.c", source_lines)):
            with open(os.path.join(output, name), "w", encoding="utf-8", newline="\n") as out:
                out.write(text_of(lines))
    except (Fault, OSError) as fault:
        print(f"amalgam: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
