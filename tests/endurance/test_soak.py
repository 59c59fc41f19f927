"""Two minutes of the soak, whose hours are `python -m tests.endurance`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.endurance.hosts import say
from tests.nginxes import require_root

pytestmark = pytest.mark.slow


def test_two_minutes_of_everything_leave_the_daemon_as_it_was() -> None:
    require_root("only root can mount a disk to fill")
    result = subprocess.run(
        [sys.executable, "-m", "tests.endurance", "--minutes", "2"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    say(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
