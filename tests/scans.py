"""What a scan finds, for tests that compare all of it."""

from pathlib import Path

from scr_watchd.files import file_id
from scr_watchd.images.tree import Tree


def nothing(root: Path) -> Tree:
    """A scan of a ``root`` without images, in which nothing is wrong."""
    return Tree(file_id(root.stat()))
