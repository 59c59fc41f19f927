"""Builds the Debian package and the wheelhouse by the documented commands."""

import fcntl
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent


def build(what: str, directory: Path, **environment: str) -> Path:
    """Build ``what`` (deb or wheelhouse) into ``directory``, for the Python of this Debian."""
    command = ["sh", "systemd/package/build.sh", what]
    assert " ".join(command) in (HOUSE / "README.md").read_text(), "README.md has another command"
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


def readme_block(first: str) -> str:
    """The lines of the block of README.md whose first line has ``first``."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (HOUSE / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if first in block.partition("\n")[0])
    return str(found)
