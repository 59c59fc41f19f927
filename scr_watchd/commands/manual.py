"""`scr-watchd manual`: the manual page, made of the commands' own parsers."""

import argparse
import os
import re
import time
from textwrap import dedent

from scr_watchd import __version__
from scr_watchd.commands import options
from scr_watchd.commands.grammar import arguments, own_flags, parsers, takes_a_value, text
from scr_watchd.settings import NAMES, Settings, choices, describe

_ABOUT = """\
Print the manual page, with every command and setting, in the form that man reads. The Debian package has
installed it already.

examples:
  scr-watchd manual | man -l -
  scr-watchd manual > ~/.local/share/man/man1/scr-watchd.1
"""

_PAGES = (
    "api.md, clients.md, containers.md, decisions.md, generate.md, images.md, nginx.md, operations.md, "
    "page.md, performance.md, recipes.md, reference.md, serve.md, service.md"
)


def parser() -> argparse.ArgumentParser:
    return options.Parser("manual", _ABOUT)


def run(_: argparse.Namespace) -> int:
    print(man(), end="")
    return 0


def man() -> str:
    """scr-watchd(1) in the man macros."""
    day = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    made = parsers()
    lines = [
        f'.TH SCR-WATCHD 1 "{day}" "scr-watchd {_roff(__version__)}" "User Commands"',
        ".SH NAME",
        r"scr\-watchd \- serve a directory of container images with nginx, as a read\-only registry",
        ".SH SYNOPSIS",
        r".B scr\-watchd",
        r".I COMMAND",
        r".RI [ options ]",
        ".SH DESCRIPTION",
        _roff(
            "scr-watchd watches a directory of container images, and keeps nginx serving what is complete "
            "in it. A line such as"
        ),
        *_example(
            "skopeo copy docker://docker.io/library/alpine:3.20 dir:/var/lib/scr-watchd/images/alpine:3.20"
        ),
        _roff("is all that it takes to add an image. Nothing of scr-watchd is in the path of a request."),
        ".SH COMMANDS",
    ]
    for name, parser in made.items():
        lines += _command(name, parser)
    lines += [".SH SETTINGS", _roff(_SETTINGS)]
    defaults = Settings()
    for name in NAMES:
        value = getattr(defaults, name)
        shown = "" if value in ("", (), {}) else f" Default: {_value(value)}."
        taken = f" One of: {', '.join(choices(name))}." if choices(name) else ""
        lines += [".TP", rf"\fB{_roff(name)}\fR", _roff(f"{_sentence(describe(name))}{taken}{shown}")]
    for title, rows in _TABLES.items():
        lines.append(f".SH {title}")
        for term, meaning in rows:
            lines += [".TP", rf"\fB{_roff(term)}\fR", _roff(meaning)]
    lines += [".SH SEE ALSO", ".BR nginx (8),", ".BR skopeo (1),", ".BR systemctl (1)", ""]
    return "\n".join(lines)


def _command(name: str, parser: argparse.ArgumentParser) -> list[str]:
    shown = []
    for each in arguments(parser):
        word = str(each.metavar or each.dest.upper())
        shown.append(f"[{word}]" if each.nargs in ("?", "*") else word)
    lines = [f".SS {_roff(' '.join(('scr-watchd', name, *shown)))}"]
    paragraphs, examples = _description(parser)
    lines += paragraphs
    for action in (*arguments(parser), *own_flags(parser)):
        if action.dest == "help":
            continue
        flags = ", ".join(rf"\fB{_roff(flag)}\fR" for flag in action.option_strings)
        value = rf"\fI{_roff(str(action.metavar or action.dest.upper()))}\fR" if takes_a_value(action) else ""
        lines += [".TP", " ".join(filter(None, (flags, value))), _roff(_sentence(text(action)))]
    lines += examples
    return lines


def _description(parser: argparse.ArgumentParser) -> tuple[list[str], list[str]]:
    """The paragraphs of a description, and its indented blocks and examples as they are written."""
    running: list[str] = []
    verbatim: list[str] = []
    for block in (parser.description or "").strip().split("\n\n"):
        head, *rest = block.splitlines()
        if rest and rest[0].startswith(" "):
            verbatim += [".PP", _roff(head), *_example(*rest)]
        elif block.startswith("exit status"):
            verbatim += [".PP", _roff(_sentence(block))]
        else:
            running += [".PP", _roff(block.replace("\n", " "))]
    return running, verbatim


def _example(*lines: str) -> list[str]:
    return [".PP", ".nf", ".RS", *map(_roff, dedent("\n".join(lines)).splitlines()), ".RE", ".fi", ".PP"]


def _roff(text: str) -> str:
    """``text`` with nothing in it that troff would take for its own."""
    quoted = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga")
    return re.sub(r"^(\.)", r"\\&\1", quoted, flags=re.MULTILINE)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


_SETTINGS = (
    "Each is a line of /etc/scr-watchd/config.toml, a variable SCR_WATCHD_NAME in capitals, and a flag of "
    "the commands that it concerns, such as --quiet-seconds. A flag wins over the environment, and that over "
    "the file. "
    "scr-watchd run --print-config shows each with its origin."
)

_TABLES = {
    "EXIT STATUS": (
        ("0", "Done, or asked to stop."),
        ("1", "Failed; the message says what, and what to do."),
        ("2", "The command line is wrong."),
        ("3", "Something is not served, or is rotten, or nginx was not confirmed to have reloaded."),
        ("4", "The daemon does not run."),
        ("5", "nginx does not run (status)."),
        ("75", "Not yet (status, wait, check)."),
        ("78", "A setting is wrong."),
    ),
    "FILES": (
        ("/etc/scr-watchd/config.toml", "The settings."),
        ("/var/lib/scr-watchd/images", "The images; members of the group scr-watchd may write there."),
        ("/var/lib/scr-watchd/nginx/current", "What nginx includes: hash.conf, http.conf and server.conf."),
        ("/var/lib/scr-watchd/metrics.prom", "Metrics, in the Prometheus text format."),
        ("/usr/share/doc/scr-watchd/examples", "Sites for nginx to start from."),
        ("/usr/share/doc/scr-watchd/docs", f"The pages: {_PAGES}."),
    ),
    "SIGNALS": (
        ("SIGHUP", "run reads its settings again, and looks at every file."),
        ("SIGTERM, SIGINT", "End. Beside an nginx of yours, that goes on serving."),
    ),
}
