"""The manual page and the completions of shells, made of the commands' own parsers: never out of date.

python pages.py man | bash | zsh | fish
"""

import argparse
import importlib
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

from scr_watchd import __version__
from scr_watchd.cli import COMMANDS
from scr_watchd.settings import NAMES, Settings, choices, describe

_PAGES = sorted(page.name for page in (Path(__file__).parents[2] / "docs").glob("*.md"))
_FILES = ("FILE", "PATH", "ROOT", "STATE", "STORE", "CONFIG", "DIRECTORY", "DIR")


def parsers() -> dict[str, argparse.ArgumentParser]:
    return {name: importlib.import_module(f"scr_watchd.commands.{name}").parser() for name in COMMANDS}


def options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The flags of a command."""
    return (action for action in parser._actions if action.option_strings)  # noqa: SLF001 - there is no other way


def own_options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Those that are not settings, which all commands share."""
    return (action for action in options(parser) if not action.dest.startswith("setting_"))


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]  # noqa: SLF001


def words(action: argparse.Action) -> list[str]:
    """What an option takes, if it takes only certain words."""
    if action.choices:
        return [str(each) for each in action.choices]
    return str(action.metavar).split("|") if "|" in str(action.metavar) else []


def takes_a_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def takes_a_path(action: argparse.Action) -> bool:
    return not words(action) and str(action.metavar) in _FILES


def text(action: argparse.Action) -> str:
    return re.sub(r"%%", "%", action.help or "")


# -- the manual page ----------------------------------------------------------------------------------


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
        shown = "" if value in ("", ()) else f" Default: {_value(value)}."
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
    for action in (*arguments(parser), *own_options(parser)):
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
        ("3", "Something is not served, or rotten, or nginx has not been seen to obey."),
        ("4", "The daemon does not run."),
        ("75", "Not yet (wait)."),
        ("78", "A setting is wrong."),
    ),
    "FILES": (
        ("/etc/scr-watchd/config.toml", "The settings."),
        ("/var/lib/scr-watchd/images", "The images; members of the group scr-watchd may write there."),
        ("/var/lib/scr-watchd/nginx/current", "What nginx includes: hash.conf, http.conf and server.conf."),
        ("/var/lib/scr-watchd/metrics.prom", "Metrics, in the Prometheus text format."),
        ("/usr/share/doc/scr-watchd/examples", "Sites for nginx to start from."),
        ("/usr/share/doc/scr-watchd/docs", f"The pages: {', '.join(_PAGES)}."),
    ),
    "SIGNALS": (
        ("SIGHUP", "run reads its settings again, and looks at every file."),
        ("SIGTERM, SIGINT", "End. Beside an nginx of yours, that goes on serving."),
    ),
}


# -- completions --------------------------------------------------------------------------------------


def bash() -> str:
    """A completion for bash; it needs no other file."""
    lines = [
        "# bash completion for scr-watchd; generated",
        "_scr_watchd() {",
        "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}",
        "    local command=${COMP_WORDS[1]}",
        "    COMPREPLY=()",
        "    if ((COMP_CWORD == 1)); then",
        f"        COMPREPLY=($(compgen -W '{' '.join(COMMANDS)} --help --version' -- \"$word\"))",
        "        return",
        "    fi",
        "    case $command:$before in",
    ]
    made = parsers()
    for name, parser in made.items():
        for action in options(parser):
            if takes_a_value(action):
                pattern = "|".join(f"{name}:{flag}" for flag in action.option_strings)
                lines.append(f"        {pattern}) {_bash_value(action)} ;;")
    lines += ["    esac", "    case $command in"]
    for name, parser in made.items():
        flags = " ".join(flag for action in options(parser) for flag in action.option_strings)
        paths = (
            "; ".join(["[[ $word == -* ]] || compopt -o filenames", _FILENAMES])
            if any(takes_a_path(each) for each in arguments(parser))
            else ":"
        )
        lines += [
            f"        {name})",
            f"            if [[ $word == -* ]]; then COMPREPLY=($(compgen -W '{flags}' -- \"$word\"))",
            f"            else {paths}; fi ;;",
        ]
    lines += ["    esac", "}", "complete -F _scr_watchd scr-watchd", ""]
    return "\n".join(lines)


_FILENAMES = 'mapfile -t COMPREPLY < <(compgen -f -- "$word")'


def _bash_value(action: argparse.Action) -> str:
    if words(action):
        return f"COMPREPLY=($(compgen -W '{' '.join(words(action))}' -- \"$word\")); return"
    if takes_a_path(action):
        return f"compopt -o filenames; {_FILENAMES}; return"
    return "return"


def zsh() -> str:
    """A completion for zsh."""
    lines = ["#compdef scr-watchd", "# generated", "local -a commands=("]
    lines += [f"    {_quoted(f'{name}:{what}')}" for name, what in COMMANDS.items()]
    lines += [
        ")",
        "if ((CURRENT == 2)); then",
        "    _describe command commands",
        "    return",
        "fi",
        "local command=$words[2]",
        "shift words; ((CURRENT--))",
        "case $command in",
    ]
    for name, parser in parsers().items():
        lines.append(f"    {name}) _arguments \\")
        lines += [f"        {_quoted(each)} \\" for each in _zsh_arguments(parser)]
        lines.append("        ;;")
    return "\n".join([*lines, "esac", ""])


def _zsh_arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in options(parser):
        what = re.sub(r"([\[\]:\\])", r"\\\1", text(action))
        for flag in action.option_strings:
            yield f"{flag}[{what}]" + (f":{_zsh_value(action)}" if takes_a_value(action) else "")
    for action in arguments(parser):
        yield f"{':' if action.nargs == '?' else ''}:{_zsh_value(action)}"


def _zsh_value(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest).replace(":", r"\:")
    if words(action):
        return f"value:({' '.join(words(action))})"
    return f"{name}:{'_files' if takes_a_path(action) else ' '}"


def fish() -> str:
    """A completion for fish."""
    lines = ["# generated", "complete -c scr-watchd -f"]
    for name, what in COMMANDS.items():
        lines.append(f"complete -c scr-watchd -n __fish_use_subcommand -a {name} -d {_quoted(what)}")
    for name, parser in parsers().items():
        condition = f"complete -c scr-watchd -n '__fish_seen_subcommand_from {name}'"
        for action in options(parser):
            flags = " ".join(
                f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                for flag in action.option_strings
            )
            value = ""
            if takes_a_value(action):
                value = " -r -F" if takes_a_path(action) else f" -x -a {_quoted(' '.join(words(action)))}"
            lines.append(f"{condition} {flags}{value} -d {_quoted(text(action))}")
        if any(takes_a_path(each) for each in arguments(parser)):
            lines.append(f"{condition} -F")
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


if __name__ == "__main__":
    sys.stdout.write({"man": man, "bash": bash, "zsh": zsh, "fish": fish}[sys.argv[1]]())
