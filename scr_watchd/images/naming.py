"""Which repositories and tags an OCI layout's index.json gives to its images.

Names that are tags, and full names that are all of one repository, give tags of the directory. Full names of
several repositories make the layout a bundle: each image is one of a repository of its own below the
directory, host and all. So a name from inside claims nothing outside, and names follow from the index alone.
"""

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import msgspec

from scr_watchd.images.moves import free
from scr_watchd.images.reference import Place, RefusedError, is_name, like_a_name, like_a_tag
from scr_watchd.oci.catalog import Image
from scr_watchd.oci.names import NAME_LENGTH, Digest, RepositoryName, Tag
from scr_watchd.words import shell

INDEX = "index.json"

NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"
_KIND = "kind"  # hauler's

_REFERENCE = re.compile(
    r"(?P<repository>[A-Za-z0-9][A-Za-z0-9._:/+-]*?)(?::(?P<tag>[^:/@]+))?(?:@(?P<digest>[^@]+))?"
)
_COMPANION = re.compile(r".*/(?:(?P<what>sig|att|sbom)s|referrers/[0-9a-f]+)", re.DOTALL)


class Listed(msgspec.Struct, rename="camel"):
    """A descriptor of index.json."""

    digest: str
    size: int
    annotations: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """The same, and its position there, by which commands find it. ``name`` is what the image is called,
    empty if nothing says so, ``named_by`` the annotation that says it."""

    position: int
    digest: Digest
    size: int
    name: str = ""
    named_by: str = NAME
    kind: str = ""

    @classmethod
    def of(cls, position: int, raw: Listed) -> "Entry":
        """Raise ``ValueError`` if its digest is none."""
        said = raw.annotations or {}
        full = said.get(_FULL_NAME) or ""
        named_by = _FULL_NAME if repository_in(full) or (full and not said.get(NAME)) else NAME
        return cls(
            position,
            Digest.parse(raw.digest),
            raw.size,
            said.get(named_by, ""),
            named_by,
            said.get(_KIND, ""),
        )


@dataclass(frozen=True, slots=True)
class Named:
    """An entry as an image of ``repository``, by digest only if it has no ``tag``. ``below`` is the part of
    the repository's name that is only in the index, as ``Image`` has it."""

    entry: Entry
    repository: RepositoryName
    tag: Tag | None
    below: str = ""


@dataclass(slots=True)
class Names:
    """All that an index gives: images, entries without a name, and what is wrong with the others, each
    with the tag or name that messages add to the path of the layout."""

    named: list[Named] = field(default_factory=list)
    nameless: list[Entry] = field(default_factory=list)
    refused: list[tuple[str, RefusedError]] = field(default_factory=list)


def tag_of(name: str) -> Tag | None:
    """The tag in what an image of a layout is called: all of it if that is a tag, else what follows the
    last colon of a reference such as ``HOST:PORT/NAME:TAG@DIGEST``."""
    found = _REFERENCE.fullmatch(name)
    try:
        return Tag.parse(found["tag"] if found and found["tag"] else name)
    except ValueError:
        return None


def repository_in(name: str) -> str:
    """The repository in a full name, as a path: ``docker.io/library/app``, ``127.0.0.1_5000/app``; not always
    one that can be. Empty if ``name`` is no full name."""
    found = _REFERENCE.fullmatch(name)
    if found is None or not (found["tag"] or found["digest"] or "/" in name):
        return ""
    host, slash, rest = found["repository"].partition("/")
    if slash:
        host = "docker.io" if host == "index.docker.io" else host.replace(":", "_")
    return f"{host}{slash}{rest}"


def names(entries: Iterable[Entry], where: Place, path: str, *, refers: Callable[[Entry], bool]) -> Names:
    """What the entries of the index of the layout at ``path``, which is ``where``, are called. ``refers``
    says whether the manifest of an entry has a subject: it is asked where two have one name.

    Raises ``RefusedError`` if ``where`` has a tag, and it is not known for which of them.
    """
    every = list(entries)
    repositories = {repository for each in every if (repository := repository_in(each.name))}
    is_bundle = where.tag is None and len(repositories) > 1
    return _Naming(where, path, refers, is_bundle=is_bundle).names(every)


class _Naming:
    def __init__(self, where: Place, path: str, refers: Callable[[Entry], bool], *, is_bundle: bool) -> None:
        self._where = where
        self._path = path
        self._refers = refers
        self._is_bundle = is_bundle
        self._tagged: dict[tuple[RepositoryName, Tag], Named] = {}
        self._by_digest: list[Named] = []
        self._found = Names()

    def names(self, entries: list[Entry]) -> Names:
        named = [each for each in entries if each.name]
        companions = [each for each in named if _COMPANION.fullmatch(each.kind)]
        if self._where.tag is not None:
            self._only(entries, self._where.tag)
        else:
            for entry in named:
                if entry not in companions:
                    self._image(entry)
        for entry in companions:
            self._companion(entry)
        found = self._found
        found.named += self._tagged.values()
        there = {(each.repository, each.entry.digest) for each in found.named}
        for each in self._by_digest:
            if (each.repository, each.entry.digest) not in there:
                there.add((each.repository, each.entry.digest))
                found.named.append(each)
        known = {digest for repository, digest in there if repository == self._where.repository}
        # such as what a tag named before: skopeo leaves it there without a name
        rest = {each.digest: each for each in entries if not each.name and each.digest not in known}
        found.nameless += rest.values()
        return found

    def _only(self, entries: list[Entry], tag: Tag) -> None:
        """The image of a directory that has a tag in its name, whatever it is called inside."""
        named = [each for each in entries if each.name]
        images = {each.digest: each for each in named or entries if not _COMPANION.fullmatch(each.kind)}
        if len(images) > 1:
            images = {digest: each for digest, each in images.items() if not self._refers(each)} or images
        if len(images) > 1:
            raise RefusedError(
                f"its name has a tag, and it holds {len(images)} images",
                "Name it as a repository; then their tags are what they are called in it: "
                f"mv {shell(self._path)} {shell(_free_name(self._path))}",
            )
        repository = self._where.repository
        for each in images.values():
            self._tagged[repository, tag] = Named(each, repository, tag)
        self._by_digest += [Named(each, repository, None) for each in named if each.digest not in images]

    def _image(self, entry: Entry) -> None:
        try:
            repository, below = self._repository(entry)
        except ValueError as error:
            name = entry.name[:100]
            reason = f"{entry.digest} is called {name!a} in it, whose repository cannot be one: {error}"
            self._refuse("", reason, call(self._path, entry, self._better(entry)))
            return
        tag = tag_of(entry.name)
        if tag is None:
            if _is_by_digest(entry.name):
                self._by_digest.append(Named(entry, repository, None, below))
                return
            reason = f"{entry.digest} is called {entry.name[:100]!a} in it, which names no tag"
            self._refuse("", reason, call(self._path, entry, self._better(entry)))
            return
        new = Named(entry, repository, tag, below)
        known = self._tagged.setdefault((repository, tag), new)
        if known.entry.digest == entry.digest:
            return
        if self._refers(entry):
            self._by_digest.append(Named(entry, repository, None, below))
        elif self._refers(known.entry):
            self._by_digest.append(Named(known.entry, repository, None, below))
            self._tagged[repository, tag] = new
        else:
            reason = f"{repository}:{tag} is there twice in its {INDEX}, as another image"
            label = f"{below}:{tag}" if below else tag
            self._refuse(label, reason, call(self._path, entry, self._free(entry, repository, tag)))

    def _companion(self, entry: Entry) -> None:
        """A signature, or what else belongs to an image, which has the image's own name."""
        try:
            repository, below = self._repository(entry)
        except ValueError:
            return  # nor can its image be called so, which is said of that
        tag, kind = self._where.tag or tag_of(entry.name), _COMPANION.fullmatch(entry.kind)
        image = self._tagged.get((repository, tag)) if tag is not None else None
        what = kind["what"] if kind else None
        if image is not None and what:
            digest = image.entry.digest
            own = Tag(f"{digest.algorithm}-{digest.hex}.{what}")  # as cosign calls it
            known = self._tagged.setdefault((repository, own), Named(entry, repository, own, below))
            if known.entry.digest == entry.digest:
                return
        self._by_digest.append(Named(entry, repository, None, below))

    def _repository(self, entry: Entry) -> tuple[RepositoryName, str]:
        below = repository_in(entry.name) if self._is_bundle else ""
        if not below:
            return self._where.repository, ""
        return RepositoryName.parse(f"{self._where.repository}/{below}"), below

    def _refuse(self, label: str, reason: str, remedy: str) -> None:
        self._found.refused.append((label, RefusedError(reason, remedy)))

    def _better(self, entry: Entry) -> str:
        """A name like that of ``entry`` that can be one."""
        before, _, after = entry.name.partition("@")[0].rpartition("/")
        name, colon, wanted = after.rpartition(":")
        if not (colon and (name or before)):
            wanted = "latest" if before else after
        tag = like_a_tag(wanted) or entry.digest.hex[:12]
        repository = repository_in(entry.name) if self._is_bundle else ""
        if not repository:
            return tag
        if not is_name(f"{self._where.repository}/{repository}"):
            repository = like_a_name(repository if len(repository) < NAME_LENGTH // 2 else "")
        return f"{repository}:{tag}"

    def _free(self, entry: Entry, repository: RepositoryName, tag: Tag) -> str:
        number = 2
        while (repository, f"{tag[:120]}-{number}") in self._tagged:
            number += 1
        before = entry.name.partition("@")[0].removesuffix(tag)
        return f"{before}{tag[:120]}-{number}"


def _is_by_digest(name: str) -> bool:
    found = _REFERENCE.fullmatch(name)
    try:
        return found is not None and not found["tag"] and bool(Digest.parse(found["digest"] or ""))
    except ValueError:
        return False


def with_homes(nameless: list[Image], images: Iterable[Image]) -> list[Image]:
    """Images without a name, in every repository of ``images`` that has their subject; as they are where
    none has it."""
    about: dict[Digest, list[Image]] = {}
    for image in nameless:
        if referral := image.manifests[0].referral:
            about.setdefault(referral.subject, []).append(image)
    every = ((each, manifest.digest) for each in images for manifest in each.manifests)
    queue = [(digest, each.repository, each.below) for each, digest in every] if about else []
    placed: dict[tuple[RepositoryName, Digest], Image] = {}
    for digest, repository, below in queue:  # grows: a signature may be about an SBOM
        for image in about.get(digest, ()):
            if (repository, image.digest) not in placed:
                placed[repository, image.digest] = replace(image, repository=repository, below=below)
                queue.append((image.digest, repository, below))
    at_home = {digest for _, digest in placed}
    return [*placed.values(), *(image for image in nameless if image.digest not in at_home)]


def without_names(entries: list[Entry], path: str, *, may_move: bool) -> RefusedError:
    """What is said if nothing in a layout has a name; ``may_move`` that nothing but the layout lies in its
    directory."""
    count = len({entry.digest for entry in entries})
    reason = (
        f"{entries[0].digest} has no name in it, and can be pulled by digest only"
        if count == 1
        else f"its {count} images have no names in it, and can be pulled by digest only"
    )
    tagged = f"{path}:latest"
    if count == 1 and may_move and not os.path.lexists(tagged):
        return RefusedError(reason, f"Name it: mv {shell(path)} {shell(tagged)}")
    return RefusedError(reason, call(path, entries[0], "latest"))


def _free_name(path: str) -> str:
    parent, _, leaf = path.rpartition("/")
    name = f"{parent}/{leaf.partition(':')[0]}"
    return free(f"{name}-layout") if os.path.lexists(name) else name


def call(path: str, entry: Entry, name: str) -> str:
    """The command that gives ``entry`` another ``name``."""
    change = f"{_selected(entry)}.annotations[{json.dumps(entry.named_by)}]={json.dumps(name)}"
    return f"Name it: {_edit(path, change)}"


def without(path: str, position: int, digest: str) -> str:
    """The command that removes what can be no image from the index."""
    chosen = f"(.manifests[{position}]|select(.digest=={json.dumps(digest)}))"
    return f"Remove it: {_edit(path, f'del({chosen})')}"


def _selected(entry: Entry) -> str:
    return f"(.manifests[{entry.position}]|select(.digest=={json.dumps(entry.digest)}))"


def _edit(path: str, change: str) -> str:
    index, new = f"{path}/{INDEX}", f"{path}/.{INDEX}.new"
    return (
        f"jq -c {shell(change)} {shell(index)} >{shell(new)} && "
        f"chmod --reference={shell(index)} {shell(new)} && mv {shell(new)} {shell(index)}"
    )
