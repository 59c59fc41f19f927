"""How a pass ended, and what it found."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from scr_watchd.images.sparse import Unripe
from scr_watchd.oci.catalog import Catalog, Problem, Reference
from scr_watchd.oci.names import Digest


@dataclass(frozen=True, slots=True)
class Found:
    """What a pass saw. ``pinned`` are tags that are served as they were, because their directory
    holds no complete image now; ``held`` are tags whose directories are gone, and which stay because
    too many vanished at once, since ``held_since`` (seconds since 1970). ``waiting`` images wait for
    their bytes to be hashed, and ``leaving`` manifests for the end of their grace. ``sparse`` are the tags
    that are served without all of their platforms, and which they have; ``unripe`` those that are not yet.
    ``renamed`` are the old and new names of images whose layout has several repositories now.
    ``advice`` is for the site's configuration, and there only when that was read anew."""

    repositories: int = 0
    tags: int = 0
    example: Reference | None = None
    problems: tuple[Problem, ...] = ()
    pinned: tuple[Reference, ...] = ()
    held: tuple[Reference, ...] = ()
    held_since: float | None = None
    waiting: int = 0
    leaving: int = 0
    only_stored_bytes: int = 0
    sparse: Mapping[Reference, str] = field(default_factory=dict)
    unripe: tuple[Unripe, ...] = ()
    renamed: tuple[tuple[Reference, Reference], ...] = ()
    advice: str = ""

    @property
    def look_again_at(self) -> float:
        """When (seconds since 1970) another pass finds more, though nothing changes."""
        return min((each.until for each in self.unripe), default=math.inf)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a new generation does to the tags, by reference and new (or last) digest."""

    added: Mapping[Reference, Digest]
    replaced: Mapping[Reference, Digest]
    removed: Mapping[Reference, Digest]

    @classmethod
    def between(cls, before: Catalog, after: Catalog) -> "Changes":
        was = {each.name: each for each in before.repositories}
        now = {each.name: each for each in after.repositories}
        differ = sorted(name for name in was.keys() | now.keys() if was.get(name) is not now.get(name))
        old = {
            (name, tag): digest for name in differ if name in was for tag, digest in was[name].tags.items()
        }
        new = {
            (name, tag): digest for name in differ if name in now for tag, digest in now[name].tags.items()
        }
        return cls(
            added={tag: digest for tag, digest in new.items() if tag not in old},
            replaced={tag: digest for tag, digest in new.items() if old.get(tag, digest) != digest},
            removed={tag: digest for tag, digest in old.items() if tag not in new},
        )


@dataclass(frozen=True, slots=True)
class Published:
    """nginx answers from ``generation``; ``unproven`` says why that is only assumed."""

    found: Found
    generation: str
    changes: Changes
    unproven: str = ""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """nginx answers from the right generation already."""

    found: Found
    generation: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """nginx refuses a configuration, so the last generation stays. ``whose`` is at fault."""

    found: Found
    whose: Literal["ours", "the site's"]
    words: str


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """``generation`` is what nginx will read next, and it has not been seen to."""

    found: Found
    generation: str
    changes: Changes
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """There is something to publish, and it is better done a little later."""

    found: Found
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The pass could not be made; nothing has changed."""

    reason: str


Outcome = Published | Unchanged | Rejected | Unconfirmed | Waiting | Failed
