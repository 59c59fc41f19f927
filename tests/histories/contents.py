"""What the trees of histories are made of: few images, so that they meet again under other names."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from tests.trees import Built, descriptor, image, index, without, write_layout

_ONE = image("one")
_BOTH = index(image("three"), image("four"), platforms=("linux/amd64", "linux/arm64"))

IMAGES: Mapping[str, Built] = {
    "one": _ONE,
    "two": image("two"),
    "like one": image("one", annotations={"a": "b"}),  # the same blobs
    "both": _BOTH,
    "half": without(_BOTH, image("four")),  # the same digest, and a platform less
    "other half": without(_BOTH, image("three")),
    "more": index(_ONE, image("four"), platforms=("linux/amd64", "linux/arm64")),
    "signature": image("signature", subject=descriptor(_ONE.raw, _ONE.media_type)),
}

CONTENTS = {
    name.partition(".")[0]: content
    for built in IMAGES.values()
    for name, content in {**built.files, built.digest[7:]: built.raw}.items()
}
"""What every blob and manifest has in it, by the hex digits of its digest."""

Way = Literal["skopeo", "aside", "in place", "rsync"]
"""How files come to be where they are: each under a temporary name, after what was there went; all
together; over what is there, as `cp` does; or beside it and renamed, with old times, as `rsync -a` does."""

_LONG_AGO = 1_000_000_000


def files_of_directory(what: str) -> dict[str, bytes]:
    """In the order in which skopeo writes them."""
    built = IMAGES[what]
    version = {"version": b"Directory Transport Version: 1.1\n"}
    return {**version, **built.files, "manifest.json": built.raw}


def files_of_layout(entries: tuple[tuple[str, str], ...]) -> dict[str, bytes]:
    """Of images by what they are called; index.json comes last."""
    with TemporaryDirectory() as name:
        directory = write_layout(Path(name), *((called, IMAGES[what]) for called, what in entries))
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        found = {str(path.relative_to(directory)): path.read_bytes() for path in paths}
    return {**found, "index.json": found.pop("index.json")}


def write(directory: Path, files: Mapping[str, bytes], way: Way, pieces: int | None) -> None:
    """Write the first ``pieces`` of ``files``, or all of them, into ``directory``."""
    some = dict(list(files.items())[:pieces])
    if way == "aside":
        aside = directory.parent / f".new-{directory.name}"
        write(aside, some, "in place", None)
        clear(directory)
        aside.rename(directory)
        return
    directory.mkdir(parents=True, exist_ok=True)
    if way == "skopeo" and "manifest.json" in files:
        for path in files_in(directory):
            path.unlink()
    for name, content in some.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if way == "in place":
            path.write_bytes(content)
            continue
        temporary = path.with_name(f".{path.name}.tmp" if way == "rsync" else "dir-put-blob1")
        temporary.write_bytes(content)
        if way == "rsync":
            os.utime(temporary, (_LONG_AGO, _LONG_AGO))
        temporary.rename(path)


def clear(path: Path) -> None:
    """Remove what is at ``path``, whatever that is, without following links; a mount point stays."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        for each in path.iterdir():
            clear(each)
        if not path.is_mount():
            path.rmdir()


def files_in(directory: Path) -> list[Path]:
    """The regular files below ``directory``, in a fixed order."""
    return sorted(_files(directory)) if directory.is_dir() and not directory.is_symlink() else []


def _files(directory: Path) -> Iterator[Path]:
    for each in directory.iterdir():
        if each.is_dir() and not each.is_symlink():
            yield from _files(each)
        elif each.is_file() and not each.is_symlink():
            yield each
