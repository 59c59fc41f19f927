"""Where `serve` keeps its state, if nobody says: `status` has to find it again."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from scr_watchd.errors import ScrWatchdError
from scr_watchd.files import ANYBODY, make_directory, open_directory
from scr_watchd.publish.holder import running
from scr_watchd.publish.state import State
from scr_watchd.trust import weak_place, weak_way


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
    """The first candidate that nobody else can exchange, made if need be: what lies there is read by an
    nginx that may be root's. As root, one outside of ``root`` must be open to nginx's workers too.
    Raises ``ScrWatchdError``."""
    path, reasons = _first(candidates(root), root)
    if path is not None:
        return path
    raise ScrWatchdError(
        f"there is no state directory for {root} that nobody else could exchange: {'; '.join(reasons)}",
        hint="name one with --state that you may write, best one that with every directory above it only "
        "root and you may write; in a container, run it as the owner of the images, or give it a tmpfs that "
        f"it may write: --user {_owner(root)}, or --tmpfs /run:uid={os.geteuid()}",
    )


def _owner(root: Path) -> str:
    status = root.stat()
    return f"{status.st_uid}:{status.st_gid}"


def make_private(root: Path) -> Path:
    """The same of those that are not below ``root``, for what nobody else may read. Raises
    ``ScrWatchdError``."""
    path, reasons = _first((each for each in candidates(root) if each.parent != root), root)
    if path is not None:
        return path
    raise ScrWatchdError(
        f"there is no place for a key that nobody else could exchange: {'; '.join(reasons)}",
        hint="name a state directory outside of the images with --state, that only root and you may write",
    )


def _first(paths: Iterable[Path], root: Path) -> tuple[Path | None, list[str]]:
    """The first of ``paths`` that will do, made if need be, or why none will."""
    reasons = []
    for path in paths:
        try:
            reason = weak_way(path) or _closed(path, root)
            if not reason:  # else nothing is made there
                make_directory(path)
                reason = f"{path} is a symbolic link" if path.is_symlink() else weak_place(path)
        except OSError as error:  # a read-only root is ordinary: images of a container are often mounted so
            reason = f"{error.filename}: {error.strerror}"
        if not reason and not os.access(path, os.W_OK):
            reason = f"{path} cannot be written"
        if not reason:
            if path.parent == root:
                _ignored_by_git(path)
            return path, []
        reasons.append(reason)
    return None, reasons


def _closed(path: Path, root: Path) -> str:
    """What keeps workers of root's nginx, who are nobody, from a state outside of ``root``."""
    if os.geteuid() != 0 or path.parent == root:
        return ""
    private = closed_to_others(path.parent)
    return f"{private} is closed to nginx's workers" if private else ""


def closed_to_others(path: Path) -> Path | None:
    """The first directory on the way to ``path``, or itself, that not everybody may enter."""
    real = Path(os.path.realpath(path))
    return next(
        (each for each in (*reversed(real.parents), real) if not ANYBODY.may_enter(each.stat())), None
    )


def _ignored_by_git(state: Path) -> None:
    """Have git pass over what lies in a tree that somebody may keep with it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(FileExistsError), open_directory(state) as directory:
        descriptor = os.open(".gitignore", flags, 0o644, dir_fd=directory)
        try:
            os.write(descriptor, b"*\n")
        finally:
            os.close(descriptor)


def find_state(root: Path) -> Path:
    """Where a `serve` of ``root`` keeps, or would keep, its state. Of several, such as one from when the
    root could still be written, that of a daemon that runs."""

    def liveliness(path: Path) -> tuple[bool, bool]:
        return running(State(path)) is not None, os.access(path, os.W_OK)

    found = [path for path in candidates(root) if State(path).lock.exists()]
    return max(found, key=liveliness, default=root / ".scr-watchd")
