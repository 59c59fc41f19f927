"""Is this a removal, or a disk that is not mounted? Pure: time comes in as a number."""

_FEW = 10


def held_since(
    *,
    tags: int,
    vanished: int,
    root_changed: bool,
    since: float | None,
    now: float,
    hold_seconds: float,
) -> float | None:
    """Since when removals are held, or ``None`` if they are not.

    ``vanished`` of ``tags`` published tags are no longer in the tree. They are held if another
    directory is in the root's place, or if they are more than half of at least ten; until they come
    back, or for ``hold_seconds``. ``since`` is the last answer.
    """
    if vanished == 0 or hold_seconds == 0:
        return None
    if since is not None:
        return min(since, now) if now - since < hold_seconds else None
    return now if root_changed or (tags >= _FEW and 2 * vanished > tags) else None
