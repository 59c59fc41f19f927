"""What happened to a tag, as fields for machines: published, replaced, removed, refused or held. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from scr_watchd.images import reference
from scr_watchd.oci.catalog import Catalog, Problem, Reference
from scr_watchd.oci.names import Digest
from scr_watchd.publish.outcome import Changes


@dataclass(frozen=True, slots=True)
class Event:
    """``before`` is the digest until then, ``generation`` what nginx answers from; ``None`` where there is
    none, or where it is not known."""

    action: Literal["published", "replaced", "removed", "refused", "held"]
    repository: str | None
    tag: str | None
    digest: str | None = None
    before: str | None = None
    generation: str | None = None
    reason: str | None = None


def of_publication(changes: Changes, before: Catalog, generation: str) -> Iterator[Event]:
    """What a ``generation`` that nginx answers from has done to the tags of the catalog ``before``."""
    tags = {each.name: each.tags for each in before.repositories} if changes.replaced else {}
    for (name, tag), digest in changes.added.items():
        yield Event("published", name, tag, digest, generation=generation)
    for (name, tag), digest in changes.replaced.items():
        yield Event("replaced", name, tag, digest, tags[name][tag], generation)
    for (name, tag), digest in changes.removed.items():
        yield Event("removed", name, tag, before=digest, generation=generation)


def of_problem(problem: Problem, *, root: str, prefix: str, generation: str) -> Event:
    """That something in the tree is not served; its repository and tag are what its path says."""
    name = tag = None
    path = problem.path.removeprefix(f"{root}/")
    if path != problem.path:
        try:
            found = reference.place(path, prefix=prefix)
            name, tag = found.repository, found.tag
        except reference.RefusedError:
            pass
    reason = f"{problem.reason}. {problem.remedy}"
    return Event("refused", name, tag, generation=generation or None, reason=reason)


def of_held(held: Mapping[Reference, Digest], *, generation: str) -> Iterator[Event]:
    """That tags stay published whose directories vanished, too many at once."""
    for (name, tag), digest in held.items():
        reason = "it vanished together with most others, and stays published"
        yield Event("held", name, tag, digest, digest, generation or None, reason)
