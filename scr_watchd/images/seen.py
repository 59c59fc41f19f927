"""What a scanner remembers of a path, and by what it knows that nothing has happened there since."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from scr_watchd.oci.catalog import Image, Problem

_SIX = attrgetter("st_dev", "st_ino", "st_mode", "st_size", "st_mtime_ns", "st_ctime_ns")


@dataclass(frozen=True, slots=True)
class SeenImage:
    """A tag directory with a complete image: identities as hashes, because there may be 100,000. ``changed``
    says when something changed last in it, if its image is sparse."""

    identity: int
    entries: int
    settled: bool
    nested: bool
    image: Image
    changed: int = 0

    @property
    def images(self) -> tuple[Image, ...]:
        return (self.image,)


@dataclass(frozen=True, slots=True)
class SeenRefusal:
    """One whose manifest says why it is not served, as long as the files beside it are the same. So nobody
    has a large manifest read again in each look that only needs another blob."""

    identity: int
    entries: int
    settled: bool
    nested: bool
    real: str
    reason: str
    remedy: str
    images: tuple[Image, ...] = ()
    changed: int = 0


@dataclass(frozen=True, slots=True)
class SeenLayout:
    """An OCI layout. One with an image that is not complete is never settled."""

    identity: int
    settled: bool
    nested: bool
    real: str
    images: tuple[Image, ...]
    problems: tuple[Problem, ...]
    directories: int
    owner: int
    changed: int = 0


Seen = dict[str, SeenImage | SeenRefusal | SeenLayout]


def identity(*statuses: os.stat_result | None) -> int:
    """Only all six together see every change; times alone miss what restores them."""
    return hash(tuple(each and _SIX(each) for each in statuses))


def identity_of_tag(one: os.stat_result, two: os.stat_result) -> int:
    """The same of a tag directory and its manifest, written out: a light pass is made of little else."""
    return hash((
        one.st_dev, one.st_ino, one.st_mode, one.st_size, one.st_mtime_ns, one.st_ctime_ns,
        two.st_dev, two.st_ino, two.st_mode, two.st_size, two.st_mtime_ns, two.st_ctime_ns,
    ))  # fmt: skip


def fingerprint(statuses: dict[str, os.stat_result], manifest: str) -> int:
    """Of the files of a directory. Making a link to a blob changes its ctime: only what is called like a
    ``manifest`` has one."""
    parts: list[str | int] = []
    for name, each in statuses.items():
        parts += name, each.st_ino, each.st_mode, each.st_uid, each.st_gid, each.st_size, each.st_mtime_ns
        if name.endswith(manifest):
            parts.append(each.st_ctime_ns)
    return hash(tuple(parts))


def kept(images: Iterable[Image], before: SeenLayout | None) -> tuple[Image, ...]:
    """``images``, but where one is as it was ``before``, the very same object: then it is not new."""
    known = {(each.repository, each.tag, each.digest): each for each in before.images} if before else {}
    old = ((known.get((each.repository, each.tag, each.digest)), each) for each in images)
    return tuple(each if same != each or same is None else same for same, each in old)
