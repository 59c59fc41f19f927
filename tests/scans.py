"""What a scan finds, for tests that compare all of it."""

from pathlib import Path

from scr_watchd.files import file_id
from scr_watchd.images.scan import Scan


def nothing(root: Path) -> Scan:
    """A scan of a ``root`` without images, in which nothing is wrong."""
    return Scan((), (), frozenset(), (), file_id(root.stat()))
