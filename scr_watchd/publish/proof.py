"""Is a blob known to have the bytes that its name says? What is not known is hashed: small images at once,
others in a thread, with nobody waiting for them.

What was hashed need not be hashed again after a restart. STORE/.proven says so: its modification time is
two seconds before a look at everything that left nothing to hash. What was in the store then, and whose
file has not changed since (its ctime is older), is proven.
"""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from scr_watchd.files import close, create
from scr_watchd.oci.catalog import Image
from scr_watchd.oci.manifest import Descriptor
from scr_watchd.oci.names import Digest
from scr_watchd.publish.copying import Target, is_room
from scr_watchd.publish.hashing import Hasher, Job, has_digest, identity

_INLINE_BYTES = 64 * 1024 * 1024  # of an image: hashed at once, in some tens of milliseconds
_INLINE_BYTES_OF_A_PASS = 256 * 1024 * 1024
_MARGIN_SECONDS = 2.0  # a second change within one tick may leave the same ctime
_CLOCK_SECONDS = 1.0  # a clock that went back by more was set


class WaitingError(Exception):
    """A blob whose bytes are still being hashed."""


class UncopiedError(Exception):
    """Why a copy is not made, as a clause."""


class RottenError(Exception):
    """A blob whose bytes are not what its name says."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """``name`` in an open directory of the store, and the ``status`` of the file that it is or leads to."""

    directory: int
    name: str
    status: os.stat_result


@dataclass(slots=True)
class Prover:
    """Unless it ``verifies`` everything is believed. While it is ``trusting`` no hash is waited for: on a
    first start over an old tree."""

    hasher: Hasher
    store: Path
    progress: Callable[[], None]
    trusting: bool = False
    verifies: bool = True
    _proven_ns: int = 0
    is_complete: bool = False
    """Whether all that the store has is older than ``_proven_ns``, or was when it was looked at last."""
    _has_asked: bool = False
    """Whether this pass found something that is not proven."""
    _asked_at: float = 0.0
    """When (seconds since 1970) the last such pass was over."""
    _is_first: bool = True
    _clock: float = 0.0
    _inline_left: int = 0
    _jobs: list[tuple[Job, tuple[str, str], bool]] = field(default_factory=list)
    _planned: int = 0
    """What the copies among them take."""
    _upgrades: dict[str, tuple[Job, tuple[str, str]]] = field(default_factory=dict)
    """Copies that are to take the place of symbolic links, by that."""

    def __post_init__(self) -> None:
        self._clock = _clock()
        if self.verifies:
            with suppress(OSError):
                noted = (self.store / ".proven").lstat().st_mtime_ns
                self._proven_ns = noted if noted <= time.time_ns() else 0
        self.is_complete = self._proven_ns != 0

    def begin(self) -> dict[str, set[str]]:
        """A pass begins. Returns what was waited for and has been hashed: images by repository."""
        self._inline_left = _INLINE_BYTES_OF_A_PASS
        found: dict[str, set[str]] = {}
        for repository, called in self.hasher.news():
            found.setdefault(repository, set()).add(called)
        return found

    def has_lost_its_clock(self) -> bool:
        """Whether the clock was set back, once: then no ctime tells what is older than what, and all that is
        not waited for is to be asked for again."""
        before, self._clock = self._clock, _clock()
        if self._clock > before - _CLOCK_SECONDS:
            return False
        self._proven_ns, self.is_complete = 0, False
        with suppress(OSError):
            (self.store / ".proven").unlink()
        return True

    def is_proven(self, status: os.stat_result, digest: Digest) -> bool:
        """Whether a file that the store has is known to have ``digest``."""
        if not self.verifies or status.st_ctime_ns < self._proven_ns:
            return True
        self._has_asked = True  # a proof that there may be is not noted yet
        return bool(self.hasher.result(identity(status), digest))

    def is_rotten(self, status: os.stat_result, digest: Digest) -> bool:
        """Whether a file is known not to have ``digest``."""
        return self.hasher.result(identity(status), digest) is False

    def prove(
        self,
        source: int,
        image: Image,
        blob: Descriptor,
        status: os.stat_result,
        *,
        wait: bool,
        is_served: bool = False,
        path: str = "",
    ) -> bool:
        """Whether the file of a blob in the directory ``source`` is known to have its digest: that of the
        image, or ``path``. What ``is_served`` anyway does not hold up a start.

        Raises ``RottenError`` if it is known not to, and ``WaitingError`` if that must be waited for.
        """
        if not self.verifies:
            return True
        what = identity(status)
        known = self.hasher.result(what, blob.digest)
        if known is False:
            raise RottenError
        self._has_asked = True
        later = self.trusting or (is_served and self._is_first)
        if known is None and not later and self._is_small(image):
            known = has_digest(
                blob.digest.hex,
                blob.digest,
                within=source,
                expected=what,
                progress=lambda _: self.progress(),
            )
            self._inline_left -= blob.size
            if known is None:
                raise FileNotFoundError(0, f"blob {blob.digest} changed while it was read")
            self.hasher.remember(what, blob.digest, known)
        if known is None:
            directory = path or image.directory(blob.digest.algorithm)
            job = Job(directory, blob.digest.hex, what, blob.digest, image.owner)
            self._jobs.append((job, (image.repository, image.called), wait and not self.trusting))
            if wait and not self.trusting:
                raise WaitingError
            return False
        if not known:
            raise RottenError
        return True

    def copy(
        self, image: Image, blob: Descriptor, status: os.stat_result, target: Target, *, replaces: str = ""
    ) -> None:
        """Return if a copy of a blob's file lies ready, and has its digest. Else it ``replaces`` a symbolic
        link, or that is empty.

        Raises ``RottenError``, ``WaitingError`` if it must be waited for, and ``UncopiedError`` if there is
        no room or it could not be written.
        """
        digest, owner = blob.digest, (image.repository, image.called)
        job = Job(
            image.directory(digest.algorithm), digest.hex, identity(status), digest, image.owner, target
        )
        is_there = self.hasher.copied(job)
        if is_there is False:
            raise RottenError
        if is_there:
            return
        if failure := self.hasher.failure(job):
            raise UncopiedError(f"the copy cannot be written: {failure}")
        if not self.hasher.is_copying(target.path):
            if replaces:
                self._upgrades[replaces] = job, owner
            else:
                self._planned += target.size
                if not is_room(self.store, self.hasher.copying_bytes + self._planned):
                    self._planned -= target.size
                    raise UncopiedError(
                        f"a copy of its {target.size:,} bytes would leave less than 10 % of the disk of "
                        f"{self.store} free"
                    )
        if not replaces:
            self._jobs.append((job, owner, True))
        raise WaitingError

    def copied(self, path: str, status: os.stat_result, digest: Digest) -> None:
        """The copy that lay ready at ``path`` is in its place, as ``status``."""
        self.hasher.forget_copy(path)
        self._has_asked = True  # its proof is not noted yet
        self.hasher.remember(identity(status), digest, True)  # noqa: FBT003 - a result

    def forget_upgrades(self, repository: str) -> None:
        """All symbolic links of ``repository`` are about to be looked at."""
        for link in [link for link, (_, owner) in self._upgrades.items() if owner[0] == repository]:
            del self._upgrades[link]

    def hash_the_rest(self) -> None:
        """Begin to hash what must be. After a trusting look call it when all is published: the thread would
        take its time from that."""
        upgrades, jobs = self._upgrades, self._jobs
        self._jobs, self._planned = [], 0
        for job, owner, urgent in jobs:
            self.hasher.submit(job, owner=owner, urgent=urgent)
        has_room = False
        needed = sum(job.target.size for job, _ in upgrades.values() if job.target is not None)
        with suppress(OSError):
            has_room = bool(upgrades) and is_room(self.store, self.hasher.copying_bytes + needed)
        if has_room:  # for all of them, or none
            for job, owner in upgrades.values():
                self.hasher.submit(job, owner=owner, urgent=True)
            upgrades.clear()
        self.hasher.go_on()

    def end(self, *, began: float | None, unseen: Iterable[Unseen] = ()) -> None:
        """A pass is over; if it was a look at everything, ``began`` is when (seconds since 1970). ``unseen``
        is what the store has and the pass did not look at, since the tree has it not."""
        self._is_first = self.trusting = False
        moment = 0.0 if began is None else began - _MARGIN_SECONDS
        if self._has_asked:
            self._has_asked, self.is_complete, self._asked_at = False, False, time.time()
        if not moment or self.is_complete or not self.verifies or self._jobs or not self.hasher.is_idle:
            return
        try:
            for each in unseen:
                if not self._doubt(each):
                    moment = min(moment, each.status.st_ctime - _MARGIN_SECONDS)
            descriptor = create(self.store / ".proven")
        except OSError:
            return  # a disk is full, or the store was removed: later, then
        try:
            os.utime(descriptor, (moment, moment))
        except OSError:
            return
        finally:
            close(descriptor)
        self._proven_ns = int(moment * 1e9)
        if self._asked_at < moment:
            self.is_complete = True
            self.hasher.forget_good()

    def _doubt(self, file: Unseen) -> bool:
        """Whether a file that is not proven could be had to stay so: a link more makes its ctime now. One
        that belongs to somebody else, or is on another mount, may refuse that."""
        if file.status.st_ctime_ns >= self._proven_ns:
            other = self.store / ".doubt"  # not beside it: that would look like a disturbance
            other.unlink(missing_ok=True)
            try:
                os.link(file.name, other, src_dir_fd=file.directory, follow_symlinks=True)
            except OSError:
                return False
            other.unlink()
        return True

    def _is_small(self, image: Image) -> bool:
        return sum(blob.size for blob in image.blobs) <= min(_INLINE_BYTES, self._inline_left)


def _clock() -> float:
    """Jumps when the clock is set, and does not go."""
    return time.time() - time.monotonic()
