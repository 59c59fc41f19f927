"""`scr-watchd list`: every image of a tree, and the disk that it takes. It asks no daemon."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from scr_watchd.commands import options
from scr_watchd.commands.about import about, fields
from scr_watchd.commands.check import state_of_tree
from scr_watchd.commands.owner import as_owner
from scr_watchd.daemon import status as statuses
from scr_watchd.errors import ScrWatchdError
from scr_watchd.files import FileId, file_id, me, open_directory, read_regular
from scr_watchd.images.scan import Scanner
from scr_watchd.images.tree import Tree
from scr_watchd.oci.catalog import Image, Reference
from scr_watchd.oci.names import Digest
from scr_watchd.publish.records import read_published
from scr_watchd.publish.state import State
from scr_watchd.words import printable

_ABOUT = """\
Every complete image of a tree: its digest, its platforms, the disk that it takes (what only it has, and what
others have too), when it was published, and which image a signature or an SBOM is about. It needs no daemon,
and changes nothing.

examples:
  scr-watchd list
  scr-watchd list ./images --repository library/alpine
  scr-watchd list --json | jq '[.images[] | select(.own > 1e9)]'

The total is what `du` counts of the files that images name: blocks that are allocated, each file once,
however many links it has. `other` is the rest of the tree, so that both are `du -s`.
"""

_CONFIG_BYTES = 1 << 20
_SHOW_SECONDS = 0.2
_QUIET_SECONDS = 1.0


class _Config(msgspec.Struct):
    os: str
    architecture: str
    variant: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    """An image, and its files by what identifies them, with the bytes that are allocated for each."""

    image: Image
    platforms: tuple[str, ...]
    files: Mapping[FileId, int]
    published: float | None

    def json(self, own: int) -> dict[str, object]:
        image, size = self.image, sum(self.files.values())
        return {
            "repository": str(image.repository),
            "tag": None if image.tag is None else str(image.tag),
            "digest": str(image.digest),
            "platforms": self.platforms,
            "absent": [each.called for each in image.absent],
            **fields(image),
            "path": os.fsencode(image.path).decode("utf-8", "backslashreplace"),
            "size": size,
            "own": own,
            "shared": size - own,
            "published": self.published,
        }

    def text(self, own: int) -> tuple[str, ...]:
        image, size = self.image, sum(self.files.values())
        some = (
            f" ({len(image.platforms)} of {len(image.platforms) + len(image.absent)})" if image.absent else ""
        )
        when = datetime.fromtimestamp(self.published) if self.published is not None else None
        return (
            image.repository,
            image.tag or "-",
            image.digest[7:19],
            ",".join(self.platforms) + some or "-",
            statuses.size(size),
            statuses.size(own),
            statuses.size(size - own),
            f"{when:%Y-%m-%d %H:%M}" if when else "-",
        )


_HEAD = ("REPOSITORY", "TAG", "DIGEST", "PLATFORMS", "SIZE", "OWN", "SHARED", "PUBLISHED")


def parser() -> argparse.ArgumentParser:
    made = options.parser("list", _ABOUT, ("root", "state", "name_prefix"))
    made.add_argument("path", nargs="?", metavar="ROOT", help="the images tree")
    made.add_argument("--repository", metavar="NAME", help="only the images of this repository")
    made.add_argument("--json", action="store_true", help="for programs, sizes in bytes")
    return made


def run(arguments: argparse.Namespace) -> int:
    settings, _ = options.load(arguments)
    root = Path(os.path.abspath(arguments.path)) if arguments.path else settings.root
    state = state_of_tree(root, settings)
    held, _ = as_owner(state)
    progress = _Progress()
    try:
        scan = Scanner(root, reader=me(), prefix=settings.name_prefix, progress=progress).full()
        rows = list(_rows(root, scan, arguments.repository, held, progress))
        other = None if arguments.repository else _all(root, progress)
    except OSError as error:
        where = printable(str(error.filename or root))
        raise ScrWatchdError(f"{where} cannot be read: {error.strerror}") from error
    progress.end()
    every: dict[FileId, int] = {}
    users: Counter[FileId] = Counter()
    for row in rows:
        every |= row.files
        users.update(row.files.keys())
    own = [sum(size for file, size in row.files.items() if users[file] == 1) for row in rows]
    total = sum(every.values())
    if arguments.json:
        content: dict[str, object] = {
            "images": [row.json(only) for row, only in zip(rows, own, strict=True)],
            "total": total,
        }
        if other is not None:
            content |= {"other": other - total, "all": other}
        print(msgspec.json.format(msgspec.json.encode(content), indent=1).decode())
    else:
        print(_text(rows, own, about(scan.images), total, other, len(scan.problems)))
    return 0


def _rows(
    root: Path, scan: Tree, repository: str | None, state: State, progress: "_Progress"
) -> Iterator[_Row]:
    published = _published(state)
    known: dict[str, tuple[FileId, int]] = {}
    images = [each for each in scan.images if repository in (None, each.repository)]
    for image in sorted(images, key=lambda each: (each.repository, each.tag or "", each.digest)):
        progress()
        files: dict[FileId, int] = {}
        paths = [f"{image.directory(each.algorithm)}/{each.file}" for each in image.manifests]
        paths += [f"{image.directory(each.digest.algorithm)}/{each.digest.hex}" for each in image.blobs]
        for path in paths:
            if path not in known:
                with suppress(FileNotFoundError):  # it went away meanwhile
                    status = os.lstat(f"{root}/{path}")
                    known[path] = (status.st_dev, status.st_ino), status.st_blocks * 512
            if path in known:
                file, size = known[path]
                files[file] = size
        when = None
        if image.tag is not None and published.get((image.repository, image.tag)) == image.digest:
            when = _moment(state, image)
        yield _Row(image, image.platforms or _platform(root, image), files, when)


def _platform(root: Path, image: Image) -> tuple[str, ...]:
    """What the config of an image that is no index says."""
    config = next(iter(image.blobs), None)
    if config is None or config.size > _CONFIG_BYTES:
        return ()
    try:
        with (
            open_directory(root) as top,
            open_directory(image.directory(config.digest.algorithm), within=top) as directory,
        ):
            raw, _ = read_regular(config.digest.hex, within=directory, limit=_CONFIG_BYTES)
        said = msgspec.json.decode(raw, type=_Config)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ()
    return (printable("/".join(filter(None, (said.os, said.architecture, said.variant)))),)


def _published(state: State) -> Mapping[Reference, Digest]:
    try:
        record = read_published(state)
    except (OSError, ValueError):
        return {}
    return record.catalog.tags() if record else {}


def _moment(state: State, image: Image) -> float | None:
    """When the store got its copy of the image's manifest: it is written once, and never again."""
    status = statuses.last(state.status)
    first = image.manifests[0]
    store = status.store if status else ""
    try:
        return os.lstat(
            f"{store}/{image.repository}/.manifests/{first.media_type.number}/{first.digest.hex}"
        ).st_ctime
    except OSError:
        return None


def _all(root: Path, progress: "_Progress") -> int:
    """What `du -s` says of the tree."""
    found = {file_id(os.lstat(root)): os.stat(root).st_blocks * 512}
    for _, names, files, descriptor in os.fwalk(root):
        progress()
        for name in (*names, *files):
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                found[file_id(status)] = status.st_blocks * 512
    return sum(found.values())


def _text(
    rows: list[_Row],
    own: list[int],
    subjects: Callable[[Image], str],
    total: int,
    all_of_it: int | None,
    problems: int,
) -> str:
    ends = [subjects(row.image) for row in rows]
    table: list[tuple[str, ...]] = [(*_HEAD, "ABOUT" if any(ends) else "")]
    table += [(*row.text(only), end) for row, only, end in zip(rows, own, ends, strict=True)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(each, widths, strict=True)).rstrip()
        for each in table
    ]
    lines += ["", f"total  {_exactly(total)}  in {len(rows):,} images"]
    if all_of_it is not None:
        lines += [f"other  {_exactly(all_of_it - total)}", f"all    {_exactly(all_of_it)}"]
    if problems:
        lines.append(f"{problems:,} more are not complete, or not in order: scr-watchd check")
    return "\n".join(lines)


def _exactly(size: int) -> str:
    return f"{statuses.size(size)} ({size:,} bytes)"


class _Progress:
    """A line on a terminal, if it takes longer than a second."""

    def __init__(self) -> None:
        self._began = self._shown = time.monotonic()
        self._count = 0
        self._is_shown = False

    def __call__(self) -> None:
        self._count += 1
        now = time.monotonic()
        if now - self._began > _QUIET_SECONDS and now - self._shown > _SHOW_SECONDS and sys.stderr.isatty():
            self._shown, self._is_shown = now, True
            print(f"\r{self._count:,} directories and images", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._is_shown:
            print("\r" + " " * 60 + "\r", end="", file=sys.stderr, flush=True)
