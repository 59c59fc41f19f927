"""Is this a removal, or a disk that is not mounted? Pure: time comes in as a number."""

from scr_watchd.files import FileId

_FEW = 10


def is_another(root: FileId, before: FileId) -> bool:
    """Whether ``root`` is another directory than the one of ``before``, as far as that is known: (0, 0) is
    no directory, and version 0.1 noted no devices. One inode number alone may be that of another disk."""
    device, inode = before
    return inode != 0 and (root[1] != inode or device not in (0, root[0]))


def held_since(
    *,
    tags: int,
    vanished: int,
    moved: bool,
    since: float | None,
    held_for: float,
    now: float,
    hold_seconds: float,
) -> float | None:
    """Since when removals are held, or ``None`` if they are not.

    ``vanished`` of ``tags`` published tags are no longer in the tree. They are held if they are more than
    half of at least ten, or, where the root or its mounts ``moved``, whatever their number; until all of
    them come back, or for ``hold_seconds``. ``since`` is the last answer, and ``held_for`` how long that is
    ago by a clock that nobody sets.
    """
    if vanished == 0 or hold_seconds == 0:
        return None
    if since is not None:
        return min(since, now) if held_for < hold_seconds else None
    return now if moved or (tags >= _FEW and 2 * vanished > tags) else None
