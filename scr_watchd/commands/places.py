"""Where `serve` keeps its state, if nobody says: `status` has to find it again."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from scr_watchd.errors import ScrWatchdError
from scr_watchd.files import is_ours, make_directory
from scr_watchd.publish.holder import running
from scr_watchd.publish.state import State


def candidates(root: Path) -> Iterator[Path]:
    """ROOT/.scr-watchd first, then directories for this root alone elsewhere."""
    yield root / ".scr-watchd"
    name = f"scr-watchd-{sha256(os.fsencode(root)).hexdigest()[:12]}"
    if home := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(home, name)
    if os.geteuid() == 0:
        yield Path("/run", name)
    with contextlib.suppress(FileNotFoundError):  # no temporary directory can be written either
        yield Path(tempfile.gettempdir(), f"{name}-{os.geteuid()}")


def make_state(root: Path) -> Path:
    """The first candidate that is ours, made if need be: what lies there is read by an nginx that may
    be root's. Raises ``ScrWatchdError``."""
    for path in candidates(root):
        try:
            if not is_ours(Path(os.path.realpath(path.parent))):
                continue
            make_directory(path)
            if path.parent == root and not (path / ".gitignore").exists():
                (path / ".gitignore").write_text("*\n")
            if is_ours(path) and os.access(path, os.W_OK):
                return path
        except OSError:
            continue  # a read-only root is ordinary: the images of a container are often mounted so
    raise ScrWatchdError(
        f"no state directory for {root} can be written",
        hint="name one that can be with --state; in a container that is read-only, mount a tmpfs at /run",
    )


def find_state(root: Path) -> Path:
    """Where a `serve` of ``root`` keeps, or would keep, its state. Of several, such as one from when the
    root could still be written, that of a daemon that runs."""

    def liveliness(path: Path) -> tuple[bool, bool]:
        return running(State(path)) is not None, os.access(path, os.W_OK)

    found = [path for path in candidates(root) if State(path).lock.exists()]
    return max(found, key=liveliness, default=root / ".scr-watchd")
