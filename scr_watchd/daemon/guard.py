"""Is this a removal, or a disk that is not mounted?"""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scr_watchd.files import FileId, mounts_around
from scr_watchd.oci.catalog import Reference
from scr_watchd.oci.names import Digest
from scr_watchd.publish.records import Loss

_FEW = 10


def is_another(root: FileId, before: FileId) -> bool:
    """Whether ``root`` is another directory than the one of ``before``, as far as that is known: (0, 0) is
    no directory, and version 0.1 noted no devices. One inode number alone may be that of another disk."""
    device, inode = before
    return inode != 0 and (root[1] != inode or device not in (0, root[0]))


def held_since(
    *,
    tags: int,
    vanished: int,
    before: Loss,
    lost: Loss,
    moved: bool,
    since: float | None,
    held_for: float,
    now: float,
    hold_seconds: float,
) -> float | None:
    """Since when removals are held, or ``None`` if they are not. Pure.

    ``vanished`` of ``tags`` published tags are no longer in the tree. They are held if they are more than
    half of at least ten, or, where the root or its mounts ``moved``, whatever their number; until all of
    them come back, or for ``hold_seconds``. So they are if what was ``lost`` is more than half of what
    there was, less what came meanwhile: tags may take turns. What was lost ``before`` is not published.
    ``since`` is the last answer, and ``held_for`` how long that is ago by a clock that nobody sets.
    """
    if vanished == 0 or hold_seconds == 0:
        return None
    if since is not None:
        return min(since, now) if held_for < hold_seconds else None
    if moved or _are_most(vanished, tags) or _are_most(lost.net, tags + before.net):
        return now
    return None


def _are_most(some: int, of: int) -> bool:
    return of >= _FEW and 2 * some > of


def not_forgotten(loss: Loss, *, now: float, seconds: float, pruned: float) -> Loss:
    """``loss`` as long as its first tag has grace left: for so many ``seconds``, unless it was ``pruned``."""
    since = min(loss.since, now)
    return loss if now < since + seconds and since >= pruned else Loss()


def with_more(
    loss: Loss, vanished: Mapping[Reference, Digest], came: Collection[Reference], *, tags: int, now: float
) -> Loss:
    """``loss`` and what ``vanished`` and ``came`` now, with ``tags`` published before that. One that has come
    back was not lost, and where all have taken turns it begins anew."""
    if not vanished and not came:
        return loss
    new = sum(each not in loss.gone for each in came)
    gone = {key: digest for key, digest in {**loss.gone, **vanished}.items() if key not in came}
    if len(gone) > max(_FEW, tags + loss.net):
        gone, new, loss = {}, 0, Loss()
    return Loss(loss.since or now, gone, loss.came + new)


@dataclass(slots=True)
class Guard:
    """What this process has seen of mounts around the root, and of time. ``has_moved`` until a pass came to
    its end."""

    has_moved: bool = False
    _mounts: frozenset[tuple[str, str]] | None = None
    _began: float | None = None

    @contextmanager
    def watching(self, root: Path) -> Iterator[None]:
        """While the tree is looked at, nothing may be mounted or unmounted around it, nor since the last
        time."""
        before = mounts_around(root)
        yield
        self.has_moved |= len({self._mounts or before, before, mounts_around(root)}) > 1
        self._mounts = before

    @property
    def held_for(self) -> float:
        """For how long (seconds) removals have been held, as far as this process has seen."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    def hold(self, since: float | None) -> None:
        """Removals are held since then, or not."""
        if since is None:
            self._began = None
        elif self._began is None:
            self._began = time.monotonic()
