"""What is said of images that are not served as one might think: without all of their platforms, not yet, by
another name, or no longer; and of a tree that has none. Pure."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scr_watchd.daemon import events
from scr_watchd.daemon.outcome import Found
from scr_watchd.daemon.status import UnripeStatus, counted
from scr_watchd.oci.catalog import Reference

_MANY = 20  # more than this are counted in the log
_MANY_PARTIAL, _MANY_MORE = 100, 1000  # in the status


def name(tag: Reference) -> str:
    return f"{tag[0]}:{tag[1]}"


def platforms(found: Found, tag: Reference) -> str:
    """What is added to the name of an image without all of its platforms."""
    return f" ({found.sparse[tag]})" if tag in found.sparse else ""


def in_status(found: Found) -> dict[str, Any]:
    """The fields of a status that say so."""
    return {
        "partial": tuple(
            f"{name(tag)}{platforms(found, tag)}" for tag in sorted(found.sparse)[:_MANY_PARTIAL]
        ),
        "unripe": tuple(
            UnripeStatus(name(each.reference), each.reason, each.until)
            for each in found.unripe[:_MANY_MORE]
            if each.reference
        ),
        "renamed": tuple((name(old), name(new)) for old, new in found.renamed[:_MANY_MORE]),
    }


def renames(found: Found, told: set[tuple[Reference, Reference]]) -> Iterator[str]:
    """A line for each name that changed, but those that were ``told``."""
    new = [each for each in found.renamed if each not in told]
    for old, now in new[:_MANY]:
        yield f"{name(old)} is called {name(now)} now, because its layout has images of several repositories"
    if len(new) > _MANY:
        yield f"{len(new) - _MANY} more images have other names now; see scr-watchd status"


def serving(found: Found) -> str:
    line = f"serving {counted(found.tags, 'image')} in {counted(found.repositories, 'repository')}"
    if found.held:
        line += f", of which {len(found.held)} vanished at once and are held: see scr-watchd accept"
    if found.unripe:
        line += f"; {counted(len(found.unripe), 'image')} more if the rest of their platforms does not come"
    if found.waiting:
        line += f"; {counted(found.waiting, 'image')} more when their bytes are checked"
    return line


def refused(found: Found, root: str, prefix: str) -> dict[tuple[str | None, str | None], str]:
    """Why something that is in the tree is not served, by repository and tag."""
    why = {}
    for problem in found.problems:
        event = events.of_problem(problem, root=root, prefix=prefix, generation="")
        why[event.repository, event.tag] = problem.reason
    return why


def first_image(root: Path, *, is_container: bool, has_mount: bool) -> str:
    """How an image comes into a ``root`` that has none."""
    copy = "skopeo copy docker://docker.io/library/alpine:3.20 dir:"
    if not is_container:
        return f"this adds one: {copy}{root}/alpine:3.20"
    if has_mount:
        return f"this adds one, where that directory is mounted from: {copy}images/alpine:3.20"
    return f'nothing is mounted there: docker run -v "$PWD/images:{root}" ...'
