"""Renders what `scr-watchd generate` prints: one file for a ``server {}``, with a location for every
tag and digest, served straight from the images tree.

The single_*.conf files are its text; words between @ are filled in with parsed names, tags and
digests, and with quoted paths.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Self

from scr_watchd.oci.catalog import Image, ManifestFile, Problem
from scr_watchd.oci.manifest import Descriptor
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.render import quote
from scr_watchd.render.http_conf import static
from scr_watchd.render.lists import texts_of
from scr_watchd.words import printable

_LONGEST_URI = 255  # nginx holds the length of a location that is no expression in one byte, unchecked
LONGEST_NAME = _LONGEST_URI - len("/v2//manifests/sha256:")
"""Longest repository name that there can be a location for."""

_JOINED = 16  # so many variables are joined into one; more would only cost more names

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})(|/.*)", re.ASCII | re.DOTALL)


def manifest_file(image: Image, manifest: ManifestFile) -> str:
    """Where a manifest of ``image`` lies, relative to the root."""
    return f"{image.directory(manifest.algorithm)}/{manifest.file}"


def blob_file(image: Image, blob: Descriptor) -> str:
    """Where a blob of ``image`` lies, relative to the root."""
    return f"{image.directory(blob.digest.algorithm)}/{blob.digest.hex}"


@dataclass(frozen=True, slots=True)
class ServerRoot:
    """Where nginx finds the images tree: below ``path``, or below what ``variable`` holds and ``path``."""

    variable: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise ``ValueError`` unless ``text`` is an absolute path that nginx can be told, or a
        variable of nginx and perhaps a path below it."""
        found = _VARIABLE.fullmatch(text)
        variable, path = (found[1] or found[2], found[3]) if found else ("", text)
        if not found and not text.startswith("/"):
            raise ValueError("it is neither an absolute path nor a variable of nginx")
        quote.path(path)
        return cls(variable, path.rstrip("/"))

    def file(self, path: str) -> str:
        """The token for the file ``path`` of the tree; ``ValueError`` if there is none."""
        return self._with_variable(quote.path(f"{self.path}/{path}"))

    @property
    def without_links(self) -> str:
        """What ``disable_symlinks`` is set to: the way to the tree may lead over links, no way in it."""
        if not self.variable and not self.path:
            return "on"
        return f"on 'from={self._with_variable(quote.path(self.path))[1:]}"

    def _with_variable(self, token: str) -> str:
        return f"'${{{self.variable}}}{token[1:]}" if self.variable else token


def constants() -> bytes:
    """What does not depend on a tree, and may be only once in a ``server {}``."""
    return _text("single_constants.conf").encode()


def trees(
    images: Iterable[Image], *, server_root: ServerRoot, shown: str
) -> tuple[bytes, tuple[Problem, ...]]:
    """The locations of ``images``, and those images whose names or files nginx cannot be told.

    ``shown`` is the tree in the path of a Problem.
    """
    repositories: dict[RepositoryName, _Repository] = {}
    problems = []
    for image in images:
        try:
            files = _Files.of(image, server_root)
            repository = repositories.setdefault(image.repository, _Repository.of(image.repository))
        except _UntoldError as untold:
            problems.append(
                Problem(printable(f"{shown}/{image.place}"), untold.reason, untold.remedy, image.owner)
            )
        else:
            repository.add(image, files)
    text = _text("single_header.conf") + _catalog(repositories) + _locations(repositories, server_root)
    return text.encode("utf-8", "surrogateescape"), tuple(problems)


class _UntoldError(Exception):
    """An image that is complete, but that this file cannot tell nginx of."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


# -- what is to be served ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Files:
    """The tokens of an image's files."""

    manifests: dict[Digest, str]
    blobs: dict[Digest, str]

    @classmethod
    def of(cls, image: Image, root: ServerRoot) -> Self:
        try:
            return cls(
                {each.digest: root.file(manifest_file(image, each)) for each in image.manifests},
                {each.digest: root.file(blob_file(image, each)) for each in image.blobs},
            )
        except ValueError as error:
            raise _UntoldError(
                str(error), "Rename its directory, and let the link that is its tag lead to the new name"
            ) from error


@dataclass(slots=True)
class _Repository:
    """One repository; the first image that has a manifest or blob is the one that it is served from."""

    name: RepositoryName
    tags: dict[Tag, tuple[ManifestFile, str]] = field(default_factory=dict)
    manifests: dict[Digest, tuple[ManifestFile, str]] = field(default_factory=dict)
    blobs: dict[Digest, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: RepositoryName) -> Self:
        if len(name) > LONGEST_NAME:
            raise _UntoldError(
                f"nginx has no location for a name of more than {LONGEST_NAME} characters, "
                f"and this has {len(name)}",
                "Give it a shorter name, or serve it with scr-watchd run or serve, which use none",
            )
        return cls(name)

    def add(self, image: Image, files: _Files) -> None:
        if image.tag is not None:
            self.tags[image.tag] = (image.manifests[0], files.manifests[image.digest])
        for manifest in image.manifests:
            self.manifests.setdefault(manifest.digest, (manifest, files.manifests[manifest.digest]))
        for digest, file in files.blobs.items():
            self.blobs.setdefault(digest, file)


# -- how it is written ---------------------------------------------------------------------------


def _locations(repositories: dict[RepositoryName, _Repository], root: ServerRoot) -> str:
    """All of them in the order in which nginx keeps them: it sorts by insertion, so that any other
    order of n names would cost it n x n steps."""
    found = []
    for each in repositories.values():
        settings = _fill("single_settings.conf", NAME=each.name, SYMLINKS=root.without_links)
        found += [
            (f"{each.name}/blobs/", _blobs(each, settings)),
            (f"{each.name}/manifests/", _manifests(each, settings)),
            (f"{each.name}/tags/list", _tags(each)),
        ]
    found.sort(key=lambda location: location[0].replace("/", "\0"))
    return "".join(text for _, text in found)


def _manifests(repository: _Repository, settings: str) -> str:
    start = f"/v2/{repository.name}/manifests/"
    tags = [
        _manifest(f"{start}{tag}", repository.name, *found, indent=4)
        for tag, found in sorted(repository.tags.items())
    ]
    digests: dict[str, str] = {"sha256": ""}
    for digest, found in sorted(repository.manifests.items()):
        lines = _manifest(f"{start}{digest}", repository.name, *found, indent=8)
        digests[digest.algorithm] = digests.get(digest.algorithm, "") + lines
    return _fill(
        "single_manifests.conf",
        NAME=repository.name,
        SETTINGS=settings,
        DIGESTS="".join(
            _fill("single_digests.conf", NAME=repository.name, ALGORITHM=algorithm, MANIFESTS=lines)
            for algorithm, lines in digests.items()
        ),
        TAGS="".join(tags),
    )


def _manifest(uri: str, name: str, manifest: ManifestFile, file: str, *, indent: int) -> str:
    kind = f"default_type {manifest.media_type.value};"
    return _file(uri, name, manifest.digest, file, indent=indent, more=kind)


def _blobs(repository: _Repository, settings: str) -> str:
    start = f"/v2/{repository.name}/blobs/"
    blobs = [
        _file(f"{start}{digest}", repository.name, digest, file, indent=4)
        for digest, file in sorted(repository.blobs.items())
    ]
    return _fill("single_blobs.conf", NAME=repository.name, SETTINGS=settings, BLOBS="".join(blobs))


def _file(uri: str, name: str, digest: Digest, file: str, *, indent: int, more: str = "") -> str:
    lines = [f"set $scr_repo {name};", f"set $scr_g_digest {digest};", more, f"alias {file};"]
    inside = "".join(f"{' ' * indent}    {line}\n" for line in lines if line)
    return f"{' ' * indent}location {_exactly(uri)} {{\n{inside}{' ' * indent}}}\n"


def _exactly(uri: str) -> str:
    if len(uri) <= _LONGEST_URI:
        return f"= {uri}"
    expression = uri.replace(".", "\\.")
    return f'~ "^{expression}\\z"'


def _tags(repository: _Repository) -> str:
    return _fill(
        "single_tags.conf",
        NAME=repository.name,
        LIST=_list("scr_g_tags", sorted(repository.tags)),
    )


def _catalog(repositories: dict[RepositoryName, _Repository]) -> str:
    if not repositories:
        return ""
    return _fill("single_catalog.conf", LIST=_list("scr_g_names", sorted(repositories)))


def _list(variable: str, items: list[str]) -> str:
    """The lines that set ``variable`` to ``items`` as the inside of a JSON list."""
    return "".join(f"    {line}\n" for line in _set(variable, texts_of(items)))


def _set(variable: str, chunks: list[str], level: int = 1) -> list[str]:
    """Set ``variable`` to all ``chunks``, each of which fits into one token.

    A level joins the variables of the next one, whose names are used again for each of its groups.
    """
    if len(chunks) == 1:
        return [f"set ${variable} '{chunks[0]}';"]
    size = -(-len(chunks) // _JOINED)
    groups = [chunks[start : start + size] for start in range(0, len(chunks), size)]
    parts = [f"scr_g_part_{level}_{number}" for number, _ in enumerate(groups)]
    lines = [line for part, group in zip(parts, groups, strict=True) for line in _set(part, group, level + 1)]
    return [*lines, f"set ${variable} {''.join(f'${{{part}}}' for part in parts)};"]


@cache
def _text(name: str) -> str:
    return static(name).decode()


def _fill(name: str, **words: str) -> str:
    """The text ``name`` with its words filled in; what is filled in is not looked at again."""
    return re.sub("@([A-Z]+)@", lambda word: words[word[1]], _text(name))
