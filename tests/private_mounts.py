"""Runs a scenario where it may mount and unmount: in a mount namespace of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.nginxes import require_root

_HOUSE = Path(__file__).parent.parent


def run_with_private_mounts(scenario: Callable[[], None]) -> None:
    """Run ``scenario``, a function of a module, in another process; fail as it fails."""
    require_root("only root can mount and unmount")
    call = f"from {scenario.__module__} import {scenario.__name__}; {scenario.__name__}()"
    result = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", call],
        cwd=_HOUSE,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def unmount(path: Path) -> None:
    subprocess.run(["umount", "--lazy", str(path)], check=True)
