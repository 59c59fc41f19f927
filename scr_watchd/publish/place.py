"""Chooses where the store lies: hard links need it on the mount of the images."""

import contextlib
import errno
import fcntl
import os
import secrets
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from scr_watchd.errors import ScrWatchdError, may_pass
from scr_watchd.files import close, make_directory, mounts, open_directory
from scr_watchd.settings import can_be_included
from scr_watchd.trust import weak_place, weak_way
from scr_watchd.words import shell

_LOOKED_AT = 200  # files, to find other owners
_SAMPLES = 5  # of each
PROBE = ".probe-"


@dataclass(frozen=True, slots=True)
class StorePlace:
    """Where the store is, how nginx sees the root and the store, and why links are hard or not.

    ``obstacle`` is empty where hard links work; else what stands in their way, as a clause, and ``cost``
    is what that means for who operates it, and which lines would cure it. An obstacle that ``may_pass``,
    such as a full disk, is worth another try.
    """

    path: Path
    seen_as: str
    root_seen_as: str
    obstacle: str
    cost: str = ""
    may_pass: bool = False

    @property
    def hard_links(self) -> bool:
        return not self.obstacle

    @property
    def own(self) -> Iterator[Path]:
        """What lies in the store and belongs to who made it: all but the blobs."""
        yield self.path / ".lock"
        for directory, names, files in os.walk(self.path):
            yield from (Path(directory, name) for name in names)
            if directory.endswith("/.blobs"):
                names.clear()
            elif os.path.basename(os.path.dirname(directory)) == ".manifests":
                yield from (Path(directory, name) for name in files)


def choose(
    *, root: Path, state: Path, store: Path | None, server_root: str | None, ours: Container[Path] = ()
) -> StorePlace:
    """The configured ``store``, or the first place of STATE/store and ROOT/.scr-watchd/store where a
    hard link to a file of ``root`` can be made and which no other daemon has, or STATE/store with
    symbolic links. ``ours`` are the stores that this process has locked."""
    place = _choose(root, state, store, server_root or os.path.realpath(root), ours)
    return place if place.hard_links else replace(place, cost=_cost(place, root=root, state=state))


def _choose(root: Path, state: Path, store: Path | None, seen_root: str, ours: Container[Path]) -> StorePlace:
    if store is not None:
        return _place(store, root, seen_root, *_obstacle(root, store))
    inside, outside = root / ".scr-watchd" / "store", state / "store"
    first, may_be_over = _obstacle(root, outside)
    if first and not may_be_over:  # else the store would move, and lose what only it has
        second = _place(inside, root, seen_root, "")
        if can_be_included(second.seen_as) and _may_lie_in(inside, root, ours):
            return second
    return _place(outside, root, seen_root, first, may_be_over)


def _may_lie_in(inside: Path, root: Path, ours: Container[Path]) -> bool:
    """Whether the store can be below the root: there nobody may exchange it for something else, and no
    other daemon have it."""
    if inside.parent.is_symlink() or inside.is_symlink() or weak_place(inside):
        return False
    # made now, and judged again: somebody may have been faster in a sticky directory
    obstacle, may_be_over = _obstacle(root, inside)
    if may_be_over:
        raise OSError(errno.EIO, obstacle, str(inside))
    if obstacle or inside.is_symlink() or weak_place(inside):
        return False
    return inside in ours or not _is_taken(inside)


def lock(store: Path) -> int:
    """Be the only one who prunes ``store``; the descriptor that comes back holds the lock.

    Raises ``ScrWatchdError`` if another daemon has it: two state directories with one store would
    remove each other's files.
    """
    make_directory(store)
    descriptor = os.open(store / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise
        raise ScrWatchdError(
            f"another scr-watchd uses the store {store}", hint="give this one its own with --store"
        ) from error
    return descriptor


def _is_taken(store: Path) -> bool:
    try:
        close(lock(store))
    except ScrWatchdError:
        return True
    return False


def _place(
    store: Path,
    root: Path,
    seen_root: str,
    obstacle: str,
    may_be_over: bool = False,  # noqa: FBT001, FBT002
) -> StorePlace:
    real, real_root = os.path.realpath(store), os.path.realpath(root)
    below = os.path.relpath(real, real_root)
    seen = real if below.startswith("..") else f"{seen_root}/{below}"
    return StorePlace(store, seen, seen_root, obstacle, may_pass=may_be_over)


def check_can_be_told(place: StorePlace) -> None:
    """Raise ``ScrWatchdError`` if nginx cannot be told where the store is."""
    if not can_be_included(place.seen_as):
        raise ScrWatchdError(
            f"nginx cannot be told of the store {place.seen_as!a}",
            hint="choose a path without * ? [ ] $ \\ and quotes with --state or --store",
        )


def _obstacle(root: Path, store: Path) -> tuple[str, bool]:
    """Why no hard link can be made from ``root`` to ``store``, and whether that may pass; tried, because
    bind mounts of one file system look alike and are not."""
    if _mount(root)[1] == "overlay":
        return f"{root} lies on an overlay file system, where a hard link copies the file", False
    error: OSError | None = None
    try:
        make_directory(store)
        with open_directory(root) as source, open_directory(store) as target:
            for sample in _samples(root):
                try:
                    _try_link(sample, target)
                except OSError as problem:
                    error = problem  # it may be somebody else's, or gone by now: others tell more
                else:
                    return "", False
            if error is None:
                with _probe(source) as name:
                    _try_link(name, target, within=source)
    except OSError as problem:
        error = problem
    if error is None:
        return "", False
    may_be_over = may_pass(error) and error.errno != errno.EROFS  # a tree that nobody may write is meant so
    return f"a hard link from {root} to {store} fails: {error.strerror}", may_be_over


@contextlib.contextmanager
def _probe(directory: int) -> Iterator[str]:
    """A new file, of a name that nobody can have put there before."""
    name = f".scr-watchd-probe-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    close(os.open(name, flags, 0o600, dir_fd=directory))
    try:
        yield name
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory)


def _try_link(sample: str | Path, store: int, *, within: int | None = None) -> None:
    probe = f"{PROBE}{secrets.token_hex(8)}"
    os.link(sample, probe, src_dir_fd=within, dst_dir_fd=store, follow_symlinks=False)
    os.unlink(probe, dir_fd=store)


_COST = (
    "Replacing a tag has a gap, and whoever writes the images can have nginx serve any file that its workers "
    "may read, until the next look"
)


def _cost(place: StorePlace, *, root: Path, state: Path) -> str:
    cure = "Keep the images, the state and the store on one mount that scr-watchd may write"
    if place.obstacle.endswith(os.strerror(errno.EPERM)) and os.geteuid() != 0:  # fs.protected_hardlinks
        mine = f"chown -R {os.geteuid()} {shell(str(root))}"
        cure = f"Some images belong to another user: run scr-watchd as that one, or own them, as root: {mine}"
    return gap(root=root, state=state) or f"{_COST}, because {place.obstacle}. {cure}"


def gap(*, root: Path, state: Path, of_serve: bool = False) -> str:
    """What symbolic links cost here, why, and the lines that would make hard ones, which are others for a
    tree ``of_serve``; empty if they are hard.

    Unlike ``choose`` it tries nothing and changes nothing: it compares mounts.
    """
    point, kind = _mount(root)
    state_point, _ = _mount(state)
    if kind == "overlay":
        return (
            f"{_COST}, because {root} lies on an overlay file system. Mount a volume "
            "that holds both the images and the state, and name them:\n"
            '  root  = "/var/lib/scr-watchd/images"\n  state = "/var/lib/scr-watchd"'
        )
    if point == state_point or (os.access(root, os.W_OK) and not weak_place(root)):
        return ""
    cures = ['  in the settings:  root = "/var/lib/scr-watchd/images", state = "/var/lib/scr-watchd"']
    if of_serve:
        cures = [f"  scr-watchd serve {shell(str(root))} --state DIRECTORY   (on the mount of the images)"]
    if _device(root) == _device(state) and not of_serve:
        common = os.path.commonpath([root, state])
        cures.append(
            f"  or in the unit:   ReadWritePaths={common}   (one line for both: each is a mount of its own)"
        )
    if os.access(root, os.W_OK) and root.stat().st_uid in (os.geteuid(), 0) and not weak_way(root):
        sticky = f"chmod +t {shell(str(root))}"
        cures.append(f"  or in a shell:    {sticky}   (then nobody can exchange a store that lies in there)")
    told = (
        f"{_COST}, because no hard link can be made from {root} (mount {point}) to "
        f"{state} (mount {state_point}). Keep both on one mount that scr-watchd may write:"
    )
    return "\n".join((told, *cures))


def _device(path: Path) -> int:
    """That of the nearest directory that is there."""
    there = next(each for each in (path, *path.parents) if each.exists())
    return there.stat().st_dev


def is_mount_point(path: Path) -> bool:
    return _mount(path)[0] == os.path.realpath(path)


def _samples(root: Path) -> Iterator[Path]:
    """A few regular files of the tree, found without reading much of it: of several owners, since each could
    have his own refuse a link."""
    left, found = _LOOKED_AT, Counter[int]()
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".")]
        # no blob, if there is something else: a link changes the ctime, by which it is known to be proven
        for name in sorted(files, key=len)[:1]:
            path = Path(directory, name)
            if name.startswith(".") or not path.is_file() or path.is_symlink():
                continue
            left -= 1
            owner = path.lstat().st_uid
            found[owner] += 1
            if found[owner] <= _SAMPLES:
                yield path
            if left == 0:
                return


def _mount(path: Path) -> tuple[str, str]:
    """Where the mount that ``path`` is on begins, and its type."""
    real = os.path.realpath(path)
    best, kind = "", ""
    for point, _, found in mounts():
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, found
    return best, kind
