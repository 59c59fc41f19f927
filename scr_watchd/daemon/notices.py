"""What is said of images that are in order, but not served as one might think: without all of their
platforms, not yet, or by another name. Pure."""

from collections.abc import Iterator
from typing import Any

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
