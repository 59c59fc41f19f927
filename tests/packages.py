"""Builds both packages and the wheelhouse by the documented commands."""

import fcntl
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.documents import HOUSE, block, text

BUILD = block("docs/service.md", "The Debian package", "build.sh").split()
"""The documented command for the package; those for the others have another last word."""


def build(what: str, directory: Path, **environment: str) -> Path:
    """Build ``what`` (deb, rpm or wheelhouse) into ``directory``, for the Python of this Debian."""
    command = [*BUILD[:-1], what]
    assert " ".join(command) in text("docs/service.md"), "docs/service.md has another command"
    result = subprocess.run(
        [*command, str(directory)],
        cwd=HOUSE,
        env={**os.environ, "PYTHON": _python(), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return Path(result.stdout.strip())


def built_deb(factory: pytest.TempPathFactory) -> Path:
    """The package, built once for all processes of this run of pytest."""
    base = factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "deb"
    directory.mkdir(exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = next(directory.glob("*.deb"), None)
        return found or build("deb", directory)


@cache
def _python() -> str:
    """A Python of Debian's version: this one if it can be, since Debian's may lack venv."""
    debian = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=True,
    )
    same = debian.stdout.split() == [str(number) for number in sys.version_info[:2]]
    return sys.executable if same else "/usr/bin/python3"
