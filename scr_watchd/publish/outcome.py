"""How the publishing of a generation ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scr_watchd.oci.catalog import Catalog, Reference
from scr_watchd.oci.names import Digest


@dataclass(frozen=True, slots=True)
class Changes:
    """What a new generation does to the tags, by reference and new (or last) digest."""

    added: Mapping[Reference, Digest]
    replaced: Mapping[Reference, Digest]
    removed: Mapping[Reference, Digest]

    @property
    def count(self) -> int:
        """How many tags change."""
        return len(self.added) + len(self.replaced) + len(self.removed)

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

    generation: str
    changes: Changes
    unproven: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """nginx refuses a configuration, so the last generation stays. ``whose`` is at fault."""

    whose: Literal["ours", "the site's"]
    words: str


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """``generation`` is what nginx will read next, and it has not been seen to."""

    generation: str
    changes: Changes
    reason: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """There is something to publish, and it is better done a little later."""

    reason: str
