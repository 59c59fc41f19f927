"""What the store loses: all that nothing needs any more, and nothing else."""

import os
from collections.abc import Callable, Collection, Iterable

from scr_watchd.daemon.entry import Entries, Entry
from scr_watchd.oci.catalog import Image, by_repository
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.publish.records import Record
from scr_watchd.publish.store import Store, remark

_LOW_DISK = 0.05
_LOW_DISK_GRACE_SECONDS = 60.0


def tidy(
    store: Store,
    entries: Entries,
    records: Iterable[Record],
    names: Iterable[RepositoryName],
    *,
    spare: Collection[RepositoryName] = (),
    progress: Callable[[], None],
) -> int:
    """Prune the repositories ``names``, and all others that a store has which was opened just now, but those
    to ``spare``. Tags of ``records``, which nginx may answer from, stay. Entries that are gone are
    forgotten. Returns how many files went; raises ``OSError`` if one cannot be removed."""
    read = by_repository(_still_read(store, entries, records))
    others = () if store.is_known else store.repositories()
    removed = 0
    for name in sorted({*names, *others}.difference(spare), reverse=True):  # one may lie below another
        progress()
        entry = entries.get(name, Entry())
        still = read.get(name, [])
        is_disturbed = entry.linked.is_disturbed  # meanwhile, by others
        removed += store.prune(name, (*entry.served.images, *entry.linked.waiting, *still))
        if not is_disturbed:
            remark(entry.linked)
        entry.is_tidy = not still
        if entry.is_gone and not still:
            entries.pop(name, None)
    store.is_known = True
    return removed


def grace(seconds: float, store: Store) -> float:
    """The grace period, shorter while the disk of the store is nearly full."""
    try:
        disk = os.statvfs(store.place.path)
    except FileNotFoundError:
        return seconds  # somebody removed it, and nothing needs it now
    if disk.f_blocks and disk.f_bavail / disk.f_blocks < _LOW_DISK:
        return min(seconds, _LOW_DISK_GRACE_SECONDS)
    return seconds


def _still_read(store: Store, entries: Entries, records: Iterable[Record]) -> list[Image]:
    """The images of tags that nginx may go on answering with, because what was resolved is not, or not
    yet, what it reads."""
    gone: set[tuple[RepositoryName, Tag, Digest]] = set()
    for record in records:
        for repository in record.catalog.repositories:
            entry = entries.get(repository.name)
            now = entry.served.repository if entry is not None else None
            if now is not repository:
                kept = now.tags.items() if now is not None else set()
                gone |= {(repository.name, *item) for item in repository.tags.items() - kept}
    found = (store.image(*each) for each in gone)
    return [image for image in found if image is not None]
