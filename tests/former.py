"""The real 0.1.0: its code as it was, out of this repository's history."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.daemons import _environment
from tests.nginxes import cannot
from tests.waiting import until

COMMIT = "9c477cd040210ce6951f65239bfc117fd8850e38"
_HOUSE = Path(__file__).parent.parent


def code(directory: Path) -> Path:
    """Unpack it into ``directory``; skips the test where there is no history, but never in CI."""
    asked = subprocess.run(
        ["git", "-C", _HOUSE, "archive", COMMIT, "scr_watchd"], capture_output=True, check=False
    )
    if asked.returncode != 0:
        cannot(
            f"there is no history with version 0.1.0 ({asked.stderr.decode().strip()}): git fetch --unshallow"
        )
    directory.mkdir()
    subprocess.run(["tar", "x", "-C", directory], input=asked.stdout, check=True)
    return directory


@contextmanager
def version(code: Path, *arguments: object, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon of the version that lies in ``code``, until it is asked to end."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "scr_watchd", *map(str, arguments)],
            cwd=code,  # python -m looks here first
            stdout=stream,
            stderr=stream,
            env=_environment({}),
        )
    try:
        until(lambda: b"\nserving " in b"\n" + log.read_bytes() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield process
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(15)
