"""`scr-watchd verify`: read every byte of a tree, and say which images are rotten."""

import argparse
import errno
import os
import sys
import time
from pathlib import Path

from scr_watchd.commands import options
from scr_watchd.errors import ScrWatchdError
from scr_watchd.files import me, open_directory
from scr_watchd.images.scan import Scanner
from scr_watchd.oci.catalog import Image
from scr_watchd.oci.names import Digest
from scr_watchd.publish.hashing import has_digest
from scr_watchd.words import printable

_ABOUT = """\
Read every byte of every complete image, at idle priority, and name each image with a blob whose bytes
are not what its name says. It needs no daemon, and changes nothing.

examples:
  scr-watchd verify
  scr-watchd verify ./images --rate 50     at most 50 MB/s

exit status: 0 all is well, 3 something is rotten or incomplete
"""

_SHOW_SECONDS = 0.2

_File = tuple[int, int, Digest]


def parser() -> argparse.ArgumentParser:
    made = options.parser("verify", _ABOUT, ("root", "name_prefix"))
    made.add_argument("path", nargs="?", metavar="ROOT", help="the images tree")
    made.add_argument("--rate", type=float, metavar="MB", help="read at most so many MB a second")
    return made


def run(arguments: argparse.Namespace) -> int:
    settings, _ = options.load(arguments)
    root = Path(os.path.abspath(arguments.path)) if arguments.path else settings.root
    _be_idle()
    try:
        scan = Scanner(root, reader=me(), prefix=settings.name_prefix).full()
        rotten = _rotten(root, scan.images, _Progress(scan.images, arguments.rate))
    except OSError as error:
        raise ScrWatchdError(
            f"{printable(str(error.filename or root))} cannot be read: {error.strerror}"
        ) from error
    for image, file in rotten:
        name = f"{image.repository}:{image.tag}" if image.tag else f"{image.repository}@{image.digest}"
        print(
            f"rotten: {name}: {printable(file)} cannot be read, or its bytes are not those that its name says"
        )
    for problem in scan.problems:
        print(f"incomplete: {problem}")
    counted = f"{len(scan.images)} images read, {len(rotten)} rotten, {len(scan.problems)} incomplete"
    print(f"{printable(str(root))}: {counted}")
    return options.EXIT_PROBLEMS if rotten or scan.problems else 0


def _rotten(root: Path, images: tuple[Image, ...], progress: "_Progress") -> list[tuple[Image, str]]:
    """Each image with its first bad file. A file is read once, however many images it is part of."""
    known: dict[_File, bool] = {}
    found = []
    with open_directory(root) as top:
        for image in images:
            try:
                file = _first_rotten(image, top, known, progress)
            except (FileNotFoundError, NotADirectoryError):
                continue  # it was removed, or is being copied again, while others were read
            if file:
                found.append((image, f"{root}/{file}"))
    progress.end()
    return found


def _first_rotten(image: Image, top: int, known: dict[_File, bool], progress: "_Progress") -> str:
    for blob in image.blobs:
        place, file = image.directory(blob.digest.algorithm), blob.digest.hex
        with open_directory(place, within=top) as directory:
            status = os.stat(file, dir_fd=directory, follow_symlinks=False)
            what = status.st_dev, status.st_ino, blob.digest
            if what in known:
                progress.skip(blob.size)
            else:
                known[what] = _is_right(file, blob.digest, directory, progress)
        if not known[what]:
            return f"{place}/{file}"
    return ""


def _is_right(file: str, digest: Digest, directory: int, progress: "_Progress") -> bool:
    try:
        return has_digest(file, digest, within=directory, progress=progress) is not False
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise
        return False  # a disk that cannot read a file is what we are asked to find


class _Progress:
    """A bar on a terminal, and a brake."""

    def __init__(self, images: tuple[Image, ...], megabytes_per_second: float | None) -> None:
        self._total = sum(blob.size for image in images for blob in image.blobs)
        self._rate = megabytes_per_second * 1e6 if megabytes_per_second else None
        self._done = self._skipped = 0
        self._began = time.monotonic()
        self._shown = 0.0

    def __call__(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if self._rate:
            time.sleep(max(0.0, self._began + (self._done - self._skipped) / self._rate - now))
        if sys.stderr.isatty() and now - self._shown >= _SHOW_SECONDS:
            self._shown = now
            share = self._done / max(1, self._total)
            bar = "#" * int(share * 30)
            print(f"\r[{bar:<30}] {share:4.0%} of {self._total / 1e6:.0f} MB", end="", file=sys.stderr)

    def skip(self, count: int) -> None:
        """So many bytes need not be read: they are of a file that was."""
        self._done += count
        self._skipped += count

    def end(self) -> None:
        if self._shown:
            print("\r" + " " * 60 + "\r", end="", file=sys.stderr)


def _be_idle() -> None:
    """Use only what nobody else wants: of the processor, and so of the disk (ioprio_set(2) takes the
    class from the scheduler's where none is set)."""
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
