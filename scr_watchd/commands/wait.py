"""`scr-watchd wait`: until an image that was just dropped in can be pulled, or cannot."""

import argparse
import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from scr_watchd.commands import options
from scr_watchd.commands.asking import state_of, to_start
from scr_watchd.commands.owner import as_owner
from scr_watchd.commands.status import unripe
from scr_watchd.daemon import status as statuses
from scr_watchd.daemon.logs import terminal
from scr_watchd.daemon.progress import recent
from scr_watchd.daemon.status import ProblemStatus, Status
from scr_watchd.errors import ScrWatchdError
from scr_watchd.files import open_directory, read_regular
from scr_watchd.images.layout import tags_in
from scr_watchd.images.reference import Place, RefusedError
from scr_watchd.oci.manifest import MANIFEST_BYTES
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.publish.holder import running
from scr_watchd.publish.records import read_published
from scr_watchd.publish.sight import Sight, look_again
from scr_watchd.publish.state import State
from scr_watchd.words import printable, shell

_ABOUT = """\
Wait until an image that was dropped in can be pulled; print its digest. If it is not served, print
why and what to do.

examples:
  skopeo copy docker://docker.io/library/alpine:3.20 dir:images/alpine:3.20 && scr-watchd wait alpine:3.20
  scr-watchd wait --timeout 300 library/alpine:3.20
  ssh mirror scr-watchd wait app:1.0

exit status: 0 it can be pulled, 3 it is not served, 4 the daemon does not run, 75 not yet, or nginx does
not run
"""

_POLL_SECONDS = 0.05
_SETTLED_SECONDS = 3.0  # a copy under way looks broken


def parser() -> argparse.ArgumentParser:
    made = options.parser("wait", _ABOUT, ("root", "state", "name_prefix"))
    made.add_argument("reference", metavar="NAME:TAG", help="the image, as it will be pulled")
    made.add_argument("path", nargs="?", metavar="ROOT", help="the images tree of a `serve`")
    made.add_argument("--timeout", type=float, default=60, metavar="S", help="seconds; default 60")
    return made


def run(arguments: argparse.Namespace) -> int:
    settings, _ = options.load(arguments)
    name, tag = _reference(arguments.reference)
    state = state_of(arguments.path, settings)
    root = Path(os.path.abspath(arguments.path)) if arguments.path else settings.root
    places = _places(root, name.removeprefix(settings.name_prefix), tag)
    deadline = time.monotonic() + arguments.timeout
    broken_since: float | None = None
    alone_since: float | None = None
    held, pid = as_owner(state)
    while True:
        if pid is None:
            held, pid = as_owner(state)  # it may only come to be
        wanted = _digest(root, places, name, tag)
        published = _published(held, state.path).get((name, tag))
        status = statuses.last(held.status)
        # before its first pass has ended, a root's daemon is not seen by who may not read its lock
        alone = running(held) is None and (pid is None or status is not None)
        sight = look_again(status.nginx, is_recent=not alone) if status else Sight()
        if published is not None and wanted in (None, published) and sight.up is not False:
            terminal.wipe()
            _warn(state, alone=alone, sight=sight)
            print(published)
            return 0
        problem = _problem(status, places, tag)
        now = time.monotonic()
        broken_since = None if problem is None else broken_since or now
        if problem is not None and broken_since is not None and now - broken_since >= _SETTLED_SECONDS:
            terminal.wipe()
            print(f"{problem.path}: {problem.reason}\n{problem.remedy}")
            return options.EXIT_PROBLEMS
        alone_since = None if not alone else alone_since or now
        if now >= deadline or (alone_since is not None and now - alone_since >= _SETTLED_SECONDS):
            break
        _show("" if alone else recent(held.progress))
        time.sleep(_POLL_SECONDS)
    terminal.wipe()
    if alone:
        start = to_start(state, arguments.path, status)
        print(f"the daemon of {printable(str(state.path))} does not run; start it: {start}")
        return options.EXIT_NOT_RUNNING
    if not any(map(os.path.lexists, places[:2])) and wanted is None:
        print(
            f"there is no {name}:{tag}: neither {printable(str(places[0]))} nor {printable(str(places[1]))}"
        )
        return options.EXIT_PROBLEMS
    mine = [each for each in status.unripe if each.image == f"{name}:{tag}"] if status else []
    if mine:
        print("\n".join(unripe(mine[0])))
        return options.EXIT_NOT_YET
    if empty := next((each for each in places[:2] if _is_empty(each)), None):
        print(f"{printable(str(empty))} is empty: copy an image into it")
        return options.EXIT_NOT_YET
    reason = "the first pass is under way"
    if status is not None and status.outcome in ("published", "unchanged") and sight.up is not False:
        reason = "the daemon has not come to it yet"
    elif status is not None:
        reason = statuses.seen(status, sight).message
    what = "cannot be pulled" if published is not None and sight.up is False else "is not published yet"
    print(f"{name}:{tag} {what}: {reason}")
    return options.EXIT_NOT_YET


def _show(under_way: str) -> None:
    if under_way:
        terminal.show(under_way)
    else:
        terminal.wipe()


def _warn(state: State, *, alone: bool, sight: Sight) -> None:
    """Say what is odd though the image can be pulled."""
    if alone:
        where = printable(str(state.path))
        print(f"the daemon of {where} does not run; nginx serves what was published last", file=sys.stderr)
    if sight.up is None and sight.reason:
        print(f"whether nginx runs cannot be seen from here: {sight.reason}", file=sys.stderr)


def _reference(text: str) -> tuple[RepositoryName, Tag]:
    name, _, tag = text.rpartition(":")
    if not name or not tag or "/" in tag:
        raise ScrWatchdError(
            f"{text!a} has no tag",
            hint=f"for example: scr-watchd wait {shell(text.rstrip(':'))}:latest",
            status=2,
        )
    try:
        return RepositoryName.parse(name), Tag.parse(tag)
    except ValueError as error:
        raise ScrWatchdError(f"{text!a} is not NAME:TAG: {error}", status=2) from error


def _places(root: Path, name: str, tag: str) -> list[Path]:
    """Where the image may lie: from the third on, in an OCI layout of all tags, and in those above, in which
    it is called by the rest of its name."""
    above = [root / parent for parent in Path(name).parents if parent != Path()]
    return [root / f"{name}:{tag}", root / name / tag, root / name, *above]


def _digest(root: Path, places: list[Path], name: RepositoryName, tag: Tag) -> Digest | None:
    """The digest of the manifest that lies in the tree now."""
    directory, deeper, *layouts = places
    for place in (directory, deeper):
        try:
            with _opened(root, place) as descriptor:
                raw, _ = read_regular("manifest.json", within=descriptor, limit=MANIFEST_BYTES)
            return Digest(f"sha256:{sha256(raw).hexdigest()}")
        except OSError:
            continue  # not there, or not for us to read: then any published version will do
    above = zip(layouts, (name, *_parents(name)), strict=False)
    for place, called in (
        (directory, Place(name, tag)),
        *((place, Place(RepositoryName(of), None)) for place, of in above),
    ):
        try:
            with _opened(root, place) as descriptor:
                digest = tags_in(descriptor, called, str(place)).get((name, tag))
            if digest:
                return digest
        except (OSError, RefusedError):
            continue
    return None


def _is_empty(place: Path) -> bool:
    try:
        return not any(place.iterdir())
    except OSError:
        return False


def _parents(name: str) -> Iterator[str]:
    """``a/b/c``: ``a/b``, ``a``."""
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


@contextlib.contextmanager
def _opened(root: Path, place: Path) -> Iterator[int]:
    """The directory ``place`` of the tree, or that of the tree which a link there leads to, as the daemon
    finds it. Raises ``OSError``."""
    real = os.path.relpath(os.path.realpath(place), os.path.realpath(root))
    if real.startswith("../"):
        raise FileNotFoundError(errno.ENOENT, "it leads out of the tree", str(place))
    with open_directory(root) as top, open_directory(real, within=top) as descriptor:
        yield descriptor


def _published(state: State, path: Path) -> dict[tuple[RepositoryName, Tag], Digest]:
    try:
        record = read_published(state)
    except (OSError, ValueError) as error:
        raise ScrWatchdError(
            f"what {printable(str(path))} has published cannot be read: {printable(str(error))}"
        ) from error
    return record.catalog.tags() if record else {}


def _problem(status: Status | None, places: list[Path], tag: str) -> ProblemStatus | None:
    layout, *above = places[2:]
    inside = [f"{place}:{layout.relative_to(place)}:{tag}" for place in above]
    paths = {printable(str(place)) for place in (*places, *inside)}
    return next((each for each in status.problems if each.path in paths), None) if status else None
