"""`completion` and `manual`, in the programs that they are for."""

from pathlib import Path

import pytest

from scr_watchd.commands import COMMANDS
from scr_watchd.settings import NAMES
from tests.daemons import scr_watchd
from tests.nginxes import require
from tests.shells import bash_offers, fish_offers, run, zsh_makes_of


def printed(directory: Path, name: str, *command: str) -> Path:
    file = directory / name
    file.write_text(scr_watchd(*command).stdout)
    return file


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        pytest.param(["s"], ["serve", "status"], id="commands"),
        pytest.param(["run", "--nginx-p"], ["--nginx-pid-file"], id="options"),
        pytest.param(["run", "--watch", ""], ["auto", "inotify", "poll"], id="words of an option"),
        pytest.param(["completion", "f"], ["fish"], id="words of a command"),
        pytest.param(["check", "/usr/shar"], ["/usr/share"], id="files"),
        pytest.param(["run", "--config", "/usr/shar"], ["/usr/share"], id="files of an option"),
    ],
)
def test_bash_and_fish_complete(tmp_path: Path, words: list[str], offered: list[str]) -> None:
    assert bash_offers(printed(tmp_path, "bash", "completion", "bash"), *words) == offered
    fish = fish_offers(printed(tmp_path, "fish", "completion", "fish"), " ".join(words))
    assert [each.rstrip("/") for each in fish] == offered


def test_bash_knows_every_command(tmp_path: Path) -> None:
    assert set(COMMANDS) < set(bash_offers(printed(tmp_path, "bash", "completion", "bash"), ""))


@pytest.mark.parametrize(
    ("typed", "made"),
    [
        pytest.param("scr-watchd sta", "scr-watchd status", id="a command"),
        pytest.param("scr-watchd run --nginx-p", "--nginx-pid-file", id="an option"),
        pytest.param("scr-watchd run --watch ino", "--watch inotify", id="a word of an option"),
        pytest.param("scr-watchd completion fi", "completion fish", id="a word of a command"),
        pytest.param("scr-watchd check /usr/shar", "/usr/share", id="files"),
    ],
)
def test_zsh_completes(tmp_path: Path, typed: str, made: str) -> None:
    assert made in zsh_makes_of(printed(tmp_path, "_scr-watchd", "completion", "zsh"), typed, made)


def test_the_manual_page_is_clean_and_has_every_command_and_setting(tmp_path: Path) -> None:
    page = printed(tmp_path, "scr-watchd.1", "manual")
    shown = run(require("man"), "--warnings", "--local-file", page)
    for name in (*(f"scr-watchd {each}" for each in COMMANDS), *NAMES):
        assert name in shown
    run(require("groff"), "-ww", "-man", "-Tutf8", "-z", page)
