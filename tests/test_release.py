"""All places have one version, and one command writes it there."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.release import HOUSE, built, cut, disagreeing, run, written


def checkout(directory: Path) -> Path:
    """A repository with what a release changes."""
    (directory / "scr_watchd").mkdir()
    for name in ("scr_watchd/__init__.py", "Dockerfile", "CHANGELOG.md"):
        (directory / name).write_bytes((HOUSE / name).read_bytes())
    log = directory / "CHANGELOG.md"
    _, _, older = log.read_text().partition("\n## [0.1.0]")
    log.write_text(f"# Changelog\n\n## [Unreleased]\n\n### Added\n\n- News.\n\n## [0.1.0]{older}")
    run(directory, "git", "init", "--quiet")
    for name in ("user.name", "user.email"):
        run(directory, "git", "config", name, "tests@localhost")
    run(directory, "git", "add", ".")
    run(directory, "git", "commit", "--quiet", "--message", "Begin")
    return directory


def test_the_files_of_this_checkout_agree() -> None:
    assert disagreeing(written(HOUSE)) == ""


def test_one_command_cuts_the_changelog_and_bumps_every_place(tmp_path: Path) -> None:
    house = checkout(tmp_path)
    cut(house, "7.8.9", day="2026-12-01")
    assert set(written(house).values()) == {"7.8.9"}
    log = (house / "CHANGELOG.md").read_text()
    assert "## [Unreleased]\n\n## [7.8.9] - 2026-12-01\n\n### Added\n\n- News.\n" in log
    assert run(house, "git", "status", "--porcelain") == ""
    assert run(house, "git", "log", "-1", "--format=%s") == "Version 7.8.9\n"
    with pytest.raises(SystemExit, match="nothing under Unreleased"):
        cut(house, "7.9.0", day="2026-12-02")


def test_a_release_of_a_dirty_checkout_or_of_no_version_is_refused(tmp_path: Path) -> None:
    house = checkout(tmp_path)
    with pytest.raises(SystemExit, match="is no version"):
        cut(house, "next", day="2026-12-01")
    (house / "Dockerfile").write_text("ARG VERSION=3\n")
    assert "Dockerfile: 3" in disagreeing(written(house))
    with pytest.raises(SystemExit, match="commit them first"):
        cut(house, "7.8.9", day="2026-12-01")


@pytest.mark.slow
def test_what_is_built_has_the_version_of_the_files() -> None:
    assert disagreeing({**written(HOUSE), **built(HOUSE)}) == ""


@pytest.mark.slow
def test_the_source_archive_passes_fast_tests_of_its_own(tmp_path: Path) -> None:
    run(HOUSE, sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(HOUSE, python, "-m", "pip", "install", "--quiet", "hatchling")
    run(HOUSE, python, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    run(tmp_path, "tar", "-x", "-f", archive)
    (house,) = tmp_path.glob("scr_watchd-*/")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "not slow", "tests/oci", "tests/images",
         "tests/test_documents.py", "tests/commands/test_cli.py"],
        cwd=house,
        env={"PYTHONPATH": str(house), "PATH": "/usr/bin:/bin:/usr/sbin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
