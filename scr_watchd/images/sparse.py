"""When an index of which platforms are absent is served: once it is clear that no copy is under way. Pure.

Who copies some platforms only leaves the others absent for good; who copies all of them has not come to
them yet. Nothing tells the two apart but that nothing changes any more.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from scr_watchd.oci.catalog import Image, Reference
from scr_watchd.oci.names import Digest, RepositoryName, Tag

QUIET_SECONDS = 10.0
LOSING_SECONDS = 600.0
"""The same where a platform would go that is served: a copy that was broken off must not take it away."""

Key = tuple[RepositoryName, Tag | Digest]
"""The repository of an image, and its tag, or where it has none its digest."""

Served = Callable[[Image], Image | None]
"""What is served in the place of an image, as the store has it."""


@dataclass(frozen=True, slots=True)
class Unripe:
    """An image that is not served before ``until`` (seconds since 1970), unless what it lacks comes."""

    image: Image
    until: float

    @property
    def reason(self) -> str:
        absent = self.image.absent
        names = ", ".join(each.called for each in absent)
        of = f"{len(absent)} of its {len(self.image.platforms) + len(absent)} platforms"
        return f"{of} {'is' if len(absent) == 1 else 'are'} not there: {names}"

    @property
    def reference(self) -> Reference | None:
        return None if self.image.tag is None else (self.image.repository, self.image.tag)


def key_of(image: Image) -> Key:
    return image.repository, image.called


class Ripening:
    """Says of sparse images whether they wait. Remembers when a time in the future was first seen: a clock
    that is wrong must not keep one waiting for years."""

    def __init__(
        self, *, quiet_seconds: float = QUIET_SECONDS, losing_seconds: float = LOSING_SECONDS
    ) -> None:
        self._quiet_seconds = quiet_seconds
        self._losing_seconds = losing_seconds
        self._first_seen: dict[Key, tuple[int, float]] = {}

    def unripe(
        self,
        images: Iterable[Image],
        changed: Mapping[Key, int],
        *,
        now: float,
        served: Served = lambda _: None,
    ) -> tuple[Unripe, ...]:
        """Those of ``images`` that wait ``now``; ``changed`` says of each sparse one when something changed
        last where it lies, in nanoseconds since 1970."""
        if not changed:
            return ()
        found = []
        seen = {}
        for image in images:
            key = key_of(image)
            if not image.absent or key not in changed:
                continue
            since = changed[key] / 1e9
            if since > now:
                known = self._first_seen.get(key)
                since = known[1] if known is not None and known[0] == changed[key] else now
                seen[key] = changed[key], since
            until = since + max(self._quiet_seconds, self._losing_seconds)
            if now < until and now < (until := since + self._wait(image, served(image))):
                found.append(Unripe(image, until))
        self._first_seen = seen
        return tuple(found)

    def _wait(self, image: Image, before: Image | None) -> float:
        """How long ``image`` waits after the last change, if ``before`` is served in its place."""
        if before is None:
            return self._quiet_seconds
        if not {each.called for each in image.absent}.isdisjoint(before.platforms):
            return self._losing_seconds
        return 0 if before.digest == image.digest else self._quiet_seconds
