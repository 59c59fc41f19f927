"""Where `serve` keeps its state, if nobody says: `status` has to find it again."""

import os
import stat
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from scr_watchd.errors import ScrWatchdError
from scr_watchd.files import make_directory


def candidates(root: Path) -> Iterator[Path]:
    """ROOT/.scr-watchd first, then directories for this root alone elsewhere."""
    yield root / ".scr-watchd"
    name = f"scr-watchd-{sha256(os.fsencode(root)).hexdigest()[:12]}"
    if home := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(home, name)
    if os.geteuid() == 0:
        yield Path("/run", name)
    yield Path(tempfile.gettempdir(), f"{name}-{os.geteuid()}")


def make_state(root: Path) -> Path:
    """The first candidate that can be written, made if need be. Raises ``ScrWatchdError``."""
    for path in candidates(root):
        try:
            make_directory(path)
            _check_owner(path)
            if path.parent == root and not (path / ".gitignore").exists():
                (path / ".gitignore").write_text("*\n")
        except OSError:
            continue  # a read-only root is ordinary: the images of a container are often mounted so
        if os.access(path, os.W_OK):
            return path
    raise ScrWatchdError(
        f"no state directory for {root} can be written", hint="name one that can be with --state"
    )


def find_state(root: Path) -> Path:
    """Where a `serve` of ``root`` keeps, or would keep, its state."""
    found = [path for path in candidates(root) if (path / "status.json").exists()]
    return found[0] if found else root / ".scr-watchd"


def _check_owner(path: Path) -> None:
    """Others may make directories where temporary files go: what they made is not for us."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (os.geteuid(), path.parent.stat().st_uid):
        raise PermissionError(f"{path} is not ours")
    if status.st_uid != os.geteuid() and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{path} is not ours alone")
