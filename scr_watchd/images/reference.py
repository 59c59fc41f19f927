"""What a directory's place in the tree says: NAME/TAG, NAME:TAG or NAME@DIGEST."""

import os
import re
from dataclasses import dataclass
from functools import lru_cache

from scr_watchd.images.moves import free, have_in_common, is_image, move
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.words import printable, shell


class RefusedError(Exception):
    """A directory that is not served: why, and what to do about it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Place:
    """The repository of a directory, and its tag or, for a digest-only leaf, its digest."""

    repository: RepositoryName
    tag: Tag | None
    digest: Digest | None = None


def place(path: str, *, prefix: str = "", root: str = "") -> Place:
    """Read ``path``, relative to ``root``; ``prefix`` goes before every repository name.

    Raises ``RefusedError`` for a path that is not a reference, with the command that renames it.
    """
    *parents, leaf = path.split("/")
    try:
        if "@" in leaf:
            name, _, digest = leaf.partition("@")
            return Place(_name(prefix, parents, name), None, Digest.parse(digest))
        if ":" in leaf:
            name, _, tag = leaf.rpartition(":")
            return Place(_name(prefix, parents, name), Tag.parse(tag))
        if not parents:
            raise RefusedError(
                "its path has a tag but no repository", _rename_somehow(path, root, [path], "latest")
            )
        return Place(_name(prefix, parents), Tag.parse(leaf))
    except ValueError as error:
        raise RefusedError(
            f"{printable(path)!r} is not a reference: {error}", _rename(path, root, parents, leaf)
        ) from error


def layout_place(path: str, *, prefix: str = "", root: str = "") -> Place:
    """Like ``place``, for an OCI layout: without ``:`` or ``@`` all of ``path`` is a repository."""
    *parents, leaf = path.split("/")
    if ":" in leaf or "@" in leaf:
        return place(path, prefix=prefix, root=root)
    try:
        return Place(_name(prefix, parents, leaf), None)
    except ValueError as error:
        raise RefusedError(
            f"{printable(path)!r} is not a repository: {error}", _rename(path, root, [*parents, leaf])
        ) from error


def _name(prefix: str, parents: list[str], leaf: str | None = None) -> RepositoryName:
    return _parsed(prefix + "/".join([*parents, leaf] if leaf is not None else parents))


@lru_cache(maxsize=1024)
def _parsed(text: str) -> RepositoryName:
    """The same object for each of a repository's tags."""
    return RepositoryName.parse(text)


def _rename(path: str, root: str, parents: list[str], leaf: str = "") -> str:
    """The command that mends every part of ``path`` at fault, where it is obvious how. Without a ``leaf``
    it is a layout."""
    if not root:
        return ""  # nobody wants to know
    for count in range(1, len(parents) + bool(leaf)):
        above = f"{root}/{'/'.join(parents[:count])}"
        if (":" in parents[count - 1] or "@" in parents[count - 1]) and is_image(above):
            return f"It lies in another image; remove it: rm -r {shell(f'{root}/{path}')}"
    name, colon, tag = leaf.rpartition(":")
    if "@" in leaf:
        name, colon, tag = leaf.partition("@")[0], ":", "latest"
    wanted = name.lower() if colon else leaf
    done = root
    commands: list[str] = []
    for number, part in enumerate(parents, start=1):
        better = part.lower().replace(":", "_")
        is_last = number == len(parents) and not leaf
        if not is_name(better) or (not is_last and have_in_common(f"{done}/{part}", f"{done}/{better}")):
            commands.clear()
            break
        if better != part:
            commands.append(_move(f"{done}/{part}", f"{done}/{better}", into=not is_last))
        done = f"{done}/{better}"
    else:
        if colon and (name != wanted or "@" in leaf) and _is_reference(f"{wanted}:{tag}"):
            commands.append(f"mv {shell(f'{done}/{leaf}')} {shell(free(f'{done}/{wanted}:{tag}'))}")
        elif leaf and not _is_reference(leaf):
            commands.clear()
    if commands:
        return f"Rename it: {' && '.join(commands)}"
    return _rename_somehow(path, root, [*parents, name] if colon else parents, tag if leaf else "")


def _rename_somehow(path: str, root: str, names: list[str], tag: str) -> str:
    """To what looks like its ``names`` and ``tag``; a layout without one is a repository."""
    if not root:
        return ""
    name = "/".join(names).replace(":", "_")
    target = f"{root}/{name if is_name(name) else like_a_name(name)}"
    if tag:
        target += f":{like_a_tag(tag) or 'latest'}"
    return f"Rename it: {move(f'{root}/{path}', free(target))}"


def _move(old: str, new: str, *, into: bool) -> str:
    """The command that makes ``new`` of ``old``, or moves ``into`` what is called so what ``old`` has and it
    has not."""
    if not os.path.lexists(new) or not into:
        return f"mv {shell(old)} {shell(free(new))}"
    return f"mv -n {shell(old)}/* {shell(new)}/ && rmdir {shell(old)}"


def _is_reference(leaf: str) -> bool:
    try:
        place(leaf if ":" in leaf or "@" in leaf else f"parent/{leaf}")
    except RefusedError:
        return False
    return True


def is_name(text: str) -> bool:
    """Whether ``text`` can be a part of a repository's name."""
    try:
        RepositoryName.parse(text)
    except ValueError:
        return False
    return True


def like_a_tag(text: str) -> str:
    """A tag that looks like ``text``, with Helm's ``_`` for ``+``; empty if nothing of it can stay."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text.replace("+", "_")).strip(".-")[:128]


def like_a_name(text: str) -> str:
    """A repository name that looks like ``text``."""
    parts = [re.sub(r"[^a-z0-9]*[^a-z0-9._-]+[^a-z0-9]*", "-", part.lower()) for part in text.split("/")]
    name = "/".join(filter(None, (part.strip("._-") for part in parts)))
    return name if is_name(name) else "image"


def is_tag(text: str) -> bool:
    try:
        Tag.parse(text)
    except ValueError:
        return False
    return True
