"""What the command line takes, read from the commands' own parsers, for the manual page and the shells."""

import argparse
import importlib
from collections.abc import Iterator

from scr_watchd.commands import COMMANDS

_FILES = ("FILE", "PATH", "ROOT", "STATE", "STORE", "CONFIG", "DIRECTORY", "DIR", "CERT", "KEY", "HTPASSWD")


def parsers() -> dict[str, argparse.ArgumentParser]:
    return {name: importlib.import_module(f"scr_watchd.commands.{name}").parser() for name in COMMANDS}


def flags(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The flags of a command."""
    return (action for action in parser._actions if action.option_strings)  # noqa: SLF001 - there is no other way


def own_flags(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Those that are not settings, which all commands share."""
    return (action for action in flags(parser) if not action.dest.startswith("setting_"))


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
    return (action.help or "").replace("%%", "%")
