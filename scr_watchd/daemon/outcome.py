"""How a pass ended, and what it found."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from scr_watchd.images.sparse import Unripe
from scr_watchd.oci.catalog import Problem, Reference
from scr_watchd.oci.names import Digest
from scr_watchd.publish.copying import Unlinked
from scr_watchd.publish.outcome import Deferred, Published, Rejected, Unconfirmed


@dataclass(frozen=True, slots=True)
class Found:
    """What a pass saw. ``pinned`` are tags that are served as they were, because their directory
    holds no complete image now; ``held`` are tags whose directories are gone, and which stay because
    too many vanished at once, since ``held_since`` (seconds since 1970). ``waiting`` images wait for
    their bytes to be hashed, and ``leaving`` manifests for the end of their grace. Of
    ``unlinked`` files, among others, there is no hard link; ``copied_bytes`` are copies. ``sparse`` are the
    tags that are served without all of their platforms, and which they have; ``unripe`` those that are not
    yet. ``renamed`` are the old and new names of images whose layout has several repositories now.
    ``advice`` is for the site's configuration."""

    repositories: int = 0
    tags: int = 0
    example: Reference | None = None
    problems: tuple[Problem, ...] = ()
    pinned: tuple[Reference, ...] = ()
    held: Mapping[Reference, Digest] = field(default_factory=dict)
    held_since: float | None = None
    waiting: int = 0
    leaving: int = 0
    only_stored_bytes: int = 0
    sparse: Mapping[Reference, str] = field(default_factory=dict)
    unripe: tuple[Unripe, ...] = ()
    renamed: tuple[tuple[Reference, Reference], ...] = ()
    copied_bytes: int = 0
    unlinked: tuple[Unlinked, ...] = ()
    advice: str = ""

    @property
    def look_again_at(self) -> float:
        """When (seconds since 1970) another pass finds more, though nothing changes."""
        return min((each.until for each in self.unripe), default=math.inf)


@dataclass(frozen=True, slots=True)
class Unchanged:
    """nginx answers from the right generation already."""

    generation: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The pass could not be made; nothing has changed."""

    reason: str


Outcome = Published | Unchanged | Rejected | Unconfirmed | Deferred | Failed
