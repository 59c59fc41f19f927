"""What a directory's place in the tree says: NAME/TAG, NAME:TAG or NAME@DIGEST."""

import os
import re
from dataclasses import dataclass
from functools import lru_cache

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
                "its path has a tag but no repository",
                f"Name it REPOSITORY:TAG: mv {shell(f'{root}/{path}')} {shell(f'{root}/{path}:latest')}",
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
    """The command that mends every part of ``path`` at fault, where it is obvious how."""
    done = root
    commands = []
    for part in parents:
        better = part.lower().partition(":")[0]
        if not is_name(better):
            return _rename_somehow(path, root)
        if better != part:
            commands.append(_move(f"{done}/{part}", f"{done}/{better}"))
        done = f"{done}/{better}"
    name, colon, tag = leaf.rpartition(":")
    if colon and name != name.lower():
        leaf = f"{name.lower()}:{tag}"
        if os.path.lexists(f"{done}/{leaf}"):
            return f"There is {printable(leaf)} too; remove one of them: rm -r {shell(f'{root}/{path}')}"
        commands.append(f"mv {shell(f'{done}/{name}:{tag}')} {shell(f'{done}/{leaf}')}")
    if not commands or (leaf and not _is_reference(leaf)):
        return _rename_somehow(path, root)
    return f"Rename it: {' && '.join(commands)}"


def _rename_somehow(path: str, root: str) -> str:
    return f"Rename it to REPOSITORY:TAG, or remove it: rm -r {shell(f'{root}/{path}')}"


def _move(old: str, new: str) -> str:
    """The command that makes ``new`` of ``old``, or moves into ``new`` what ``old`` has and it has not."""
    if not os.path.lexists(new):
        return f"mv {shell(old)} {shell(new)}"
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
