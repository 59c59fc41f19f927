"""`scr-watchd check`: what would be published, what not, and why. Changes nothing."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

import msgspec
from msgspec import structs

from scr_watchd.commands import options
from scr_watchd.commands.about import about, fields
from scr_watchd.commands.asking import state_of
from scr_watchd.commands.owner import as_owner
from scr_watchd.commands.places import find_state
from scr_watchd.commands.status import renamed, unripe
from scr_watchd.daemon import status as statuses
from scr_watchd.daemon.status import Status, UnlinkedStatus, UnripeStatus, about_links
from scr_watchd.errors import ScrWatchdError
from scr_watchd.files import ANYBODY, Reader, me, mounts_around
from scr_watchd.images.layout import LAYOUT
from scr_watchd.images.moves import has_others
from scr_watchd.images.scan import Scanner
from scr_watchd.images.sparse import Ripening, Unripe
from scr_watchd.images.tree import Tree
from scr_watchd.images.way import closed_to
from scr_watchd.oci.catalog import Image, Problem, former_names
from scr_watchd.publish import place
from scr_watchd.publish.copying import on_mount
from scr_watchd.publish.records import read_published
from scr_watchd.publish.state import State
from scr_watchd.settings import Settings
from scr_watchd.words import printable, shell

_ABOUT = """\
Look at an images tree, or at one image of it: what would be published, what not, and why.
It needs no daemon and no nginx, and changes nothing.

examples:
  scr-watchd check ./images
  scr-watchd check ./images/alpine:3.20
  scr-watchd check --json | jq .problems

exit status: 0 all is in order, 3 something is not served, 75 something is not served yet
"""


def parser() -> argparse.ArgumentParser:
    made = options.parser("check", _ABOUT, ("root", "state", "name_prefix"))
    made.add_argument("path", nargs="?", metavar="PATH", help="an images tree, or one image in it")
    made.add_argument("--json", action="store_true", help="for programs")
    return made


def run(arguments: argparse.Namespace) -> int:
    settings, _ = options.load(arguments)
    path = Path(os.path.abspath(arguments.path)) if arguments.path else settings.root
    root, only = _root_of(path, settings.root)
    state = state_of_tree(root, settings)
    held, _ = as_owner(state)
    status = statuses.last(held.status)
    scan = _scan(root, settings, only, status if _is_of(status, root) else None)
    if arguments.json:
        print(_json(scan))
    else:
        print(_text(scan, root, about(scan.images, are_all=not only)))
        for empty in sorted(_empty(root / only)):
            print(f"\nempty: {printable(empty)}\n  Copy an image into it, or remove it: rmdir {shell(empty)}")
        if status is not None and _is_of(status, root):
            told = structs.replace(status, renamed=(*status.renamed, *_to_be_renamed(scan, held, status)))
            print("\n".join(renamed(told)), end="\n" if told.renamed else "")
        of_serve = status.own_nginx if status is not None else root != settings.root
        advice = place.gap(root=root, state=state.path, of_serve=of_serve) if root.is_dir() else ""
        if advice or (status is not None and _is_of(status, root) and (advice := status.links_cost)):
            print(f"\n{advice}")
        for line in about_links(_links(scan, root, state)):
            print(line)
    return options.EXIT_PROBLEMS if scan.problems else options.EXIT_NOT_YET if scan.unripe else 0


def state_of_tree(root: Path, settings: Settings) -> State:
    """The state directory that goes with ``root``: the service's, if that is its tree, else of a `serve`."""
    if root == settings.root:
        return state_of(None, settings)
    own = State(settings.state)
    return own if _is_of(statuses.last(own.status), root) else State(find_state(root))


def _is_of(status: Status | None, root: Path) -> TypeGuard[Status]:
    return status is not None and status.root == printable(str(root))


def _root_of(path: Path, root: Path) -> tuple[Path, str]:
    """The tree that ``path`` belongs to, and ``path`` below it if it is only a part of it."""
    if not path.is_dir():
        raise ScrWatchdError(
            f"there is no directory {path}", hint="name an images tree: scr-watchd check PATH"
        )
    served = (each for each in path.parents if (each / ".scr-watchd").is_dir())
    above = root if path.is_relative_to(root) else next(served, None)
    if above is not None and path != above:
        return above, str(path.relative_to(above))
    is_layout = (path / LAYOUT).is_file()
    if path == above or _holds_images(path):
        return path, ""
    if (path / "manifest.json").exists() or ":" in path.name or is_layout:
        colon = ":" in path.name or "@" in path.name or is_layout
        top = path.parent if colon else path.parent.parent
        return top, str(path.relative_to(top))
    return path, ""


def _holds_images(path: Path) -> bool:
    """Whether a directory with the files of an image is a tree with an image in the wrong place."""
    is_image = (path / "manifest.json").exists() or (path / LAYOUT).is_file()
    return is_image and ":" not in path.name and "@" not in path.name and has_others(str(path))


def _scan(root: Path, settings: Settings, only: str, status: Status | None) -> Tree:
    """What is in the tree, for whom the daemon found to read it; for everybody where there is none."""
    reader = Reader(status.reader[0], frozenset(status.reader[1])) if status else ANYBODY
    try:
        scan = Scanner(root, reader=reader, prefix=settings.name_prefix).full()
    except OSError as error:
        raise ScrWatchdError(f"{printable(str(root))} cannot be read: {error.strerror}") from error
    tree = scan.without(_unripe(scan, status))
    if closed := _closed(root, reader, status, of_service=root == settings.root):
        return replace(tree, repositories={}, problems=(closed,), unripe=())  # as `run` has it
    if not only:
        return tree
    shown = f"{root}/{only}"
    beginnings = [f"{shown}/", f"{shown}:"] if (root / only / LAYOUT).is_file() else [f"{shown}/"]
    repositories = {
        name: replace(
            each,
            images=tuple(
                image for image in each.images if f"{image.link or image.path}/".startswith(f"{only}/")
            ),
        )
        for name, each in tree.repositories.items()
    }
    problems = tuple(each for each in tree.problems if f"{each.path}/".startswith(tuple(beginnings)))
    unripe = tuple(
        each for each in tree.unripe if f"{each.image.link or each.image.path}/".startswith(f"{only}/")
    )
    return replace(tree, repositories=repositories, problems=problems, unripe=unripe)


def _to_be_renamed(scan: Tree, state: State, status: Status) -> Iterator[tuple[str, str]]:
    """What is served under a name that it loses in the next look: version 0.1 knew no other."""
    with suppress(OSError, ValueError):
        published = read_published(state)
        tags = published.catalog.tags() if published is not None else {}
        there = {(image.repository, image.tag) for image in scan.images}
        told = {old for old, _ in status.renamed}
        for (name, tag, digest), (new, also) in sorted(former_names(scan.images).items()):
            old = f"{name}:{tag}"
            if tags.get((name, tag)) == digest and (name, tag) not in there and old not in told:
                yield old, f"{new}:{also}"


def _closed(root: Path, reader: Reader, status: Status | None, *, of_service: bool) -> Problem | None:
    """What keeps nginx from the whole tree. `serve` asks nobody: its nginx is the user who may enter."""
    if status is not None:
        return None if status.own_nginx else closed_to(reader, root)
    if not of_service and os.geteuid() != 0:
        return closed_to(me(), root)
    closed = closed_to(reader, root)
    if closed is None or of_service:
        return closed
    alone = f"scr-watchd serve {shell(str(root))}"
    return replace(closed, remedy=f"{closed.remedy}, or use an nginx of its own: {alone}")


def _unripe(scan: Tree, status: Status | None) -> tuple[Unripe, ...]:
    """What is not served yet: the daemon knows better, since it has seen more than this moment."""
    told = {each.image: each.until for each in status.unripe} if status else {}
    found = []
    for each in Ripening().unripe(scan.images, scan.changed, now=time.time()):
        until = told.pop(_called(each.image), each.until)
        found.append(Unripe(each.image, until))
    late = (image for image in scan.images if image.absent and _called(image) in told)
    return (*found, *(Unripe(each, told[_called(each)]) for each in late))


def _called(image: Image) -> str:
    return f"{image.repository}{f':{image.tag}' if image.tag else ''}"


def _links(scan: Tree, root: Path, state: State) -> Status:
    """What the daemon of this tree found of its links, or would find of mounts below it."""
    status = statuses.last(state.status)
    if _is_of(status, root):
        return status
    real = os.path.realpath(root)
    inside = [
        on_mount(number)
        for point, number in sorted(mounts_around(root))
        if any(f"{real}/{image.path}/".startswith(f"{point}/") for image in scan.images) and point > real
    ]
    return Status(
        unlinked=tuple(UnlinkedStatus(each.kind, each.path, each.reason, each.remedy) for each in inside)
    )


def _text(scan: Tree, root: Path, subjects: Callable[[Image], str]) -> str:
    lines = []
    for image in scan.images:
        end = f"  about {words}" if (words := subjects(image)) else ""
        lines.append(f"{_called(image)}{_platforms(image)}  {image.digest}{end}")
    for each in scan.unripe:
        lines += ["", *unripe(UnripeStatus(_called(each.image), each.reason, each.until))]
    for problem in scan.problems:
        lines += ["", f"not served: {problem.path}", f"  {problem.reason}", f"  {problem.remedy}"]
    if scan.problems or scan.unripe:
        lines.append("")
    later = f", {len(scan.unripe)} later" if scan.unripe else ""
    lines.append(f"{printable(str(root))}: {len(scan.images)} to serve, {len(scan.problems)} not{later}")
    return "\n".join(lines)


def _empty(top: Path) -> Iterator[str]:
    """Directories in which there is nothing: a copy may be about to begin, or was never made."""
    for path, names, files in os.walk(top):
        if not names and not files and path != str(top):
            yield path
        own = {"blobs", "ingest"} if LAYOUT in files else set()  # the latter is what oras writes into
        names[:] = [name for name in names if not name.startswith(".") and name not in own]


def _platforms(image: Image) -> str:
    return f" ({image.some_platforms})" if image.absent else ""


def _json(scan: Tree) -> str:
    content = {
        "images": [
            {
                "repository": str(image.repository),
                "tag": None if image.tag is None else str(image.tag),
                "digest": str(image.digest),
                "mediaType": image.manifests[0].media_type.value,
                "path": os.fsencode(image.path).decode("utf-8", "backslashreplace"),
                "platforms": image.platforms,
                "absent": [each.called for each in image.absent],
                **fields(image),
            }
            for image in scan.images
        ],
        "unripe": [
            {"image": _called(each.image), "reason": each.reason, "until": each.until} for each in scan.unripe
        ],
        "problems": [
            {"path": each.path, "reason": each.reason, "remedy": each.remedy} for each in scan.problems
        ],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2 if sys.stdout.isatty() else 1).decode()
