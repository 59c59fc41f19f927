"""Does the site include what we publish? If not, which line is missing, and in which file. Pure.

What nginx reads is known from `nginx -T`: every file once, whole, below a line with its name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FILE = re.compile(r"^# configuration file (?P<path>.+):$")
_SERVER = re.compile(r"^\s*server\s*(\{|$)")
_DIRECTORY = re.compile(r"^\s*include\s+[\"']?(?P<directory>[^\s\"';]+/conf\.d)/\*\.conf[\"']?\s*;")
_LOCATIONS = re.compile(r"/v2/_scr/generation|alias +\$scr_")
"""Stands in every server.conf, and in what others may make of one."""


@dataclass(frozen=True, slots=True)
class _Line:
    path: str
    number: int
    text: str


def missing(dump: str, *, config: Path, generation: str, current: Path) -> str:
    """What to add to the site with the main configuration ``config``, whose `nginx -T` printed ``dump``,
    so that it serves ``generation`` from the directory ``current``; empty if nothing is missing."""
    has_maps, has_locations = generation in dump, bool(_LOCATIONS.search(dump))
    if has_maps and has_locations:
        return ""
    lines = [line for line in _lines(dump) if not line.path.startswith(f"{current.parent}/")]
    wanted = []
    if not has_maps:
        wanted.append(f"{_http(lines, config)}: include {current}/http*.conf;")
    if not has_locations:
        wanted.append(f"{_server(lines)}: include {current}/server*.conf;")
    what = "all of it" if has_maps or has_locations else "it"
    return f"{config} does not include {what}. Add {' and '.join(wanted)}"


def _lines(dump: str) -> Iterator[_Line]:
    path, number = "", 0
    for text in dump.splitlines():
        if found := _FILE.match(text):
            path, number = found["path"], 0
        else:
            number += 1
            yield _Line(path, number, text)


def _http(lines: list[_Line], config: Path) -> str:
    for line in lines:
        if found := _DIRECTORY.match(line.text):
            return f"to its http {{}}, in a file {found['directory']}/00-scr-watchd.conf"
    return f"to its http {{}}, in {config}"


def _server(lines: list[_Line]) -> str:
    """The first server that there is: the operator knows better which."""
    for line in lines:
        if _SERVER.match(line.text):
            return f"to a server {{}}, such as that of {line.path}:{line.number}"
    return "to a server {} (there is none yet)"
