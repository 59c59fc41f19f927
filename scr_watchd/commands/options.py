"""The options that commands share: every setting as a flag."""

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from scr_watchd import settings as settings_room
from scr_watchd.errors import ScrWatchdError, did_you_mean
from scr_watchd.settings import NAMES, Settings, choices, describe

EXIT_PROBLEMS = 3
EXIT_NOT_RUNNING = 4
EXIT_NGINX_NOT_RUNNING = 5
EXIT_NOT_YET = 75  # EX_TEMPFAIL of sysexits.h


class Raw(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples of a description as they are written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line and a hint, and whose help does not begin with every option."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            prog=f"scr-watchd {command}", description=description, formatter_class=Raw, allow_abbrev=False
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace: None = None) -> argparse.Namespace:  # type: ignore[override]
        known, unknown = self.parse_known_args(args, namespace)
        if not unknown:
            return known
        word = next((each for each in unknown if each.startswith("-")), unknown[0]).partition("=")[0]
        flags = [flag for action in self._actions for flag in action.option_strings if flag[:2] == "--"]
        if not word.startswith("-"):
            raise self._wrong(f"{word!a} is one argument too many", f"see {self.prog} --help")
        if word[2:].replace("-", "_") in NAMES:
            raise self._wrong(f"{word} means nothing to {self.prog}", f"see {self.prog} --help")
        raise self._wrong(
            f"there is no option {word}", did_you_mean(word, flags, f"see {self.prog} --help for all of them")
        )

    def format_help(self) -> str:
        takes = [
            f"[{each.metavar}]" if each.nargs == "?" else str(each.metavar)
            for each in self._get_positional_actions()
        ]
        self.usage = " ".join((self.prog, "[options]", *takes))
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        raise self._wrong(message, f"see {self.prog} --help")

    def _wrong(self, message: str, hint: str) -> ScrWatchdError:
        return ScrWatchdError(f"{self.prog.removeprefix('scr-watchd ')}: {message}", hint=hint, status=2)


def parser(
    command: str, description: str, names: Iterable[str] = NAMES, defaults: Mapping[str, str] | None = None
) -> Parser:
    """A parser for ``scr-watchd COMMAND``, with flags for the settings ``names``; what it does without some
    of them is in ``defaults``, in words."""
    made = Parser(command, description)
    made.add_argument("-c", "--config", type=Path, metavar="FILE", help="settings in TOML")
    group = made.add_argument_group("settings (also SCR_WATCHD_NAME in the environment, name in FILE)")
    for name in NAMES:
        if name not in names:
            continue
        words = choices(name)
        value = (defaults or {}).get(name) or getattr(Settings(), name)
        default = "" if value in ("", (), {}) else f"; default {_shown(value)}"
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"setting_{name}",
            metavar="|".join(words) if words else name.rpartition("_")[2].upper(),
            help=f"{describe(name).removeprefix(f'{command}: ')}{default}".replace("%", "%%"),
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
    environment.pop("SCR_WATCHD_LISTEN", None)  # for `serve` itself
    config = arguments.config or (Path(file) if file else None)
    return settings_room.load({**flags, **overrides}, environment, file=config)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
