"""How a pass ended, and what it found."""

from dataclasses import dataclass

from scr_watchd.oci.catalog import Problem, Reference
from scr_watchd.publish.copying import Unlinked
from scr_watchd.publish.outcome import Deferred, Published, Rejected, Unconfirmed


@dataclass(frozen=True, slots=True)
class Found:
    """What a pass saw. ``pinned`` are tags that are served as they were, because their directory
    holds no complete image now; ``held`` are tags whose directories are gone, and which stay because
    too many vanished at once, since ``held_since`` (seconds since 1970). ``waiting`` images wait for
    their bytes to be hashed, and ``leaving`` manifests for the end of their grace. Of
    ``unlinked`` files, among others, there is no hard link; ``copied_bytes`` are copies. ``advice`` is for
    the site's configuration."""

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
    copied_bytes: int = 0
    unlinked: tuple[Unlinked, ...] = ()
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """nginx answers from the right generation already."""

    generation: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The pass could not be made; nothing has changed."""

    reason: str


Outcome = Published | Unchanged | Rejected | Unconfirmed | Deferred | Failed
