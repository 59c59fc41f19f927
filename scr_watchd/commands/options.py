"""The options that commands share: every setting as a flag."""

import argparse
import os
from collections.abc import Container
from pathlib import Path

from scr_watchd import settings as settings_room
from scr_watchd.settings import NAMES, Settings, choices, describe

EXIT_PROBLEMS = 3
EXIT_NOT_RUNNING = 4
EXIT_NGINX_NOT_RUNNING = 5
EXIT_NOT_YET = 75  # EX_TEMPFAIL of sysexits.h


class Raw(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples of a description as they are written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)


def parser(command: str, description: str, names: Container[str] = NAMES) -> argparse.ArgumentParser:
    """A parser for ``scr-watchd COMMAND``, with flags for the settings ``names``."""
    made = argparse.ArgumentParser(
        prog=f"scr-watchd {command}", description=description, formatter_class=Raw, allow_abbrev=False
    )
    made.add_argument("-c", "--config", type=Path, metavar="FILE", help="settings in TOML")
    group = made.add_argument_group("settings (also SCR_WATCHD_NAME in the environment, name in FILE)")
    for name in NAMES:
        if name not in names:
            continue
        words = choices(name)
        value = getattr(Settings(), name)
        default = "" if value in ("", (), {}) else f"; default {_shown(value)}"
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"setting_{name}",
            metavar="|".join(words) if words else name.rpartition("_")[2].upper(),
            help=f"{describe(name)}{default}".replace("%", "%%"),
        )
    return made


def load(arguments: argparse.Namespace, **overrides: str) -> tuple[Settings, dict[str, str]]:
    """The settings of a command line; ``overrides`` are flags that the command derived itself."""
    flags = {
        name: value for name in NAMES if (value := getattr(arguments, f"setting_{name}", None)) is not None
    }
    for name in ("root", "state", "store", "tls_cert", "tls_key", "htpasswd"):
        if flags.get(name, "") not in ("", "auto"):
            flags[name] = os.path.abspath(flags[name])  # a shell's user may write a relative one
    environment = dict(os.environ)
    file = environment.pop("SCR_WATCHD_CONFIG", None)
    environment.pop("SCR_WATCHD_LISTEN", None)
    config = arguments.config or (Path(file) if file else None)
    return settings_room.load({**flags, **overrides}, environment, file=config)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
