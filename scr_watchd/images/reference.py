"""What a directory's place in the tree says: NAME/TAG, NAME:TAG or NAME@DIGEST."""

from dataclasses import dataclass

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
        raise RefusedError(f"{printable(path)!r} is not a reference: {error}", _rename(path, root)) from error


def _name(prefix: str, parents: list[str], leaf: str | None = None) -> RepositoryName:
    return RepositoryName.parse(prefix + "/".join([*parents, leaf] if leaf is not None else parents))


def _rename(path: str, root: str) -> str:
    """The ``mv`` that mends the first part of ``path`` at fault, where one is obvious."""
    *parents, leaf = path.split("/")
    done = root
    for part in parents:
        better = part.lower().partition(":")[0]
        if better != part and _is_name(better):
            return f"Rename it: mv {shell(f'{done}/{part}')} {shell(f'{done}/{better}')}"
        done = f"{done}/{part}"
    name, colon, tag = leaf.rpartition(":")
    if colon and name != name.lower() and _is_name(name.lower()):
        return f"Rename it: mv {shell(f'{done}/{leaf}')} {shell(f'{done}/{name.lower()}:{tag}')}"
    return f"Rename it to REPOSITORY:TAG, or remove it: rm -r {shell(f'{root}/{path}')}"


def _is_name(text: str) -> bool:
    try:
        RepositoryName.parse(text)
    except ValueError:
        return False
    return True
