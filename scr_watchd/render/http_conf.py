"""Renders http.conf: the maps that change with the tree, then the fixed rest.

Every value below is a parsed name, tag or digest, or a short number, so that no token needs more
than quotes around it. The same catalog always gives the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

from scr_watchd.oci.catalog import Catalog, Repository
from scr_watchd.oci.manifest import MediaType
from scr_watchd.render import quote
from scr_watchd.render.lists import REPOSITORIES, list_maps, page_maps
from scr_watchd.render.maps import LongValues, Pieces, base36, constant, mapping, mapping_of
from scr_watchd.render.mirrors import repository_maps
from scr_watchd.render.referrers import referrer_maps

_NAME_PIECES = 7
_TAG_PIECES = 4
_LONGEST_NAME_KEY = 45  # with the "=" before it a key of 46 bytes, nginx's limit without hash.conf
_LONGEST_TAG_KEY = 40  # leaves room for ":" and a repository number of five digits

_NO_MIRRORS: Mapping[str, str] = {}

_TYPE_NUMBER = {
    MediaType.DOCKER_MANIFEST: "0",
    MediaType.OCI_MANIFEST: "1",
    MediaType.DOCKER_LIST: "2",
    MediaType.OCI_INDEX: "3",
}


class Lines(NamedTuple):
    """What maps say of a repository, as most are."""

    repository: Repository
    tags: str
    manifests: str


Memory = dict[str, Lines]
"""What was rendered last of each repository, by its number."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The files of one generation by name, and the id that is derived from all their bytes."""

    id: str
    files: Mapping[str, bytes]


def render(
    catalog: Catalog,
    *,
    store: str,
    list_repositories: bool = True,
    mirrors: Mapping[str, str] = _NO_MIRRORS,
    memory: Memory | None = None,
) -> Rendered:
    """One generation for ``catalog``; ``store`` is the store's path as nginx sees it, and ``mirrors``
    are prefixes of names by the host that they mirror. A repository that is the very object of the last
    call with this ``memory``, under the same number, is not rendered again.

    Raises ``ValueError`` if nginx cannot be told that path.
    """
    contents = {
        "hash.conf": static("hash.conf"),
        "server.conf": static("server.conf"),
        "http.conf": _http(
            catalog, store, mirrors, {} if memory is None else memory, list_repositories=list_repositories
        ),
    }
    generation = _id(contents)
    contents["http.conf"] += _closing(generation)
    return Rendered(generation, contents)


def _http(
    catalog: Catalog, store: str, mirrors: Mapping[str, str], memory: Memory, *, list_repositories: bool
) -> bytes:
    numbered = [(base36(number), each) for number, each in enumerate(catalog.repositories)]
    plain = _remembered(numbered, memory)
    long_values = LongValues()
    maps = [
        constant("scr_store", quote.path(store)),
        *repository_maps(catalog, mirrors),
        *_name_maps(numbered),
        *_tag_maps(numbered, plain, long_values),
        *_manifest_map(numbered, plain, long_values),
        *_list_maps(numbered, long_values, list_repositories=list_repositories),
        *referrer_maps(numbered, long_values),
    ]
    return b"".join(
        [
            b"# scr-watchd: the images. Written by the daemon; include it in http {}.\n",
            "".join([*long_values.maps, *maps]).encode("utf-8", "surrogateescape"),
            fixed(),
        ]
    )


@cache
def fixed() -> bytes:
    """The end of http.conf, which is the same for every tree."""
    return b"\n" + static("http.conf") + static("pages.conf") + "".join(page_maps()).encode()


def is_whole(contents: Mapping[str, bytes]) -> bool:
    """Whether these are all the files of a generation, as some version rendered them."""
    text = contents.get("http.conf", b"")
    if contents == initial().files:
        return True
    body, _, end = text.rpartition(b"\nmap '' $scr_generation ")
    generation = end.partition(b"default ")[2].partition(b";")[0].decode("ascii", "replace")
    return text.endswith(_closing(generation)) and _id({**contents, "http.conf": body}) == generation


def _closing(generation: str) -> bytes:
    """The end of http.conf, which the id is not made of because it says it."""
    return b"\n" + constant("scr_generation", generation).encode()


@cache
def initial() -> Rendered:
    """The generation that stands before the first one: it answers 503.

    It knows every variable: a site's access rules may name them, and an nginx that starts at the wrong
    moment reads its server.conf beside the http.conf of the first real one, or the other way round.
    """
    contents = {
        "hash.conf": static("hash.conf"),
        "server.conf": static("starting.conf"),
        "http.conf": _http(Catalog(), "/dev/null", _NO_MIRRORS, {}, list_repositories=False) + _closing("''"),
    }
    return Rendered("initial-" + _id(contents), contents)


@cache
def static(name: str) -> bytes:
    """The text of one of this package's nginx files."""
    return files(__package__).joinpath(name).read_bytes()


def _id(contents: Mapping[str, bytes]) -> str:
    digest = sha256()
    for name, content in sorted(contents.items()):
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


# -- the maps ------------------------------------------------------------------------------------


def _name_maps(numbered: list[tuple[str, Repository]]) -> list[str]:
    short = {f"={each.name}": rid for rid, each in numbered if len(each.name) <= _LONGEST_NAME_KEY}
    long = Pieces(_NAME_PIECES)
    for rid, each in numbered:
        if len(each.name) > _LONGEST_NAME_KEY:
            long.add("1", each.name, rid)
    chain = long.maps("scr_name_is_long", "scr_n", "scr_long", "scr_long_rid")
    default = "$scr_long_rid" if chain else "''"
    return [*chain, mapping('"=$scr_repo"', "scr_rid", short, default=default)]


def _remembered(numbered: list[tuple[str, Repository]], memory: Memory) -> Memory:
    """The lines of every repository that is plain, which are the new ``memory``."""
    plain = {}
    for rid, repository in numbered:
        known = memory.get(rid)
        lines = known if known is not None and known.repository is repository else _plain(rid, repository)
        if lines is not None:
            plain[rid] = lines
    memory.clear()
    memory.update(plain)
    return memory


def _plain(rid: str, repository: Repository) -> Lines | None:
    """The lines of a repository whose keys and values all fit into one; else ``None``."""
    tags, manifests = _tags(repository), _manifests(repository)
    if len(max(tags, key=len, default="")) > _LONGEST_TAG_KEY:
        return None
    if len(max((*tags.values(), *manifests.values()), key=len, default="")) > quote.TOKEN_BYTES:
        return None
    return Lines(
        repository,
        "".join([f"'{key}:{rid}' '{entry}';\n" for key, entry in tags.items()]),
        "".join([f"'{key}@{rid}' '{entry}';\n" for key, entry in manifests.items()]),
    )


def _tags(repository: Repository) -> dict[str, str]:
    """What each tag in lower case stands for: an entry for each of its spellings."""
    entries: dict[str, str] = {}
    for tag, digest in repository.tags.items():
        number = _TYPE_NUMBER[repository.manifests[digest]]
        _append(entries, tag.lower(), f"{number}:{digest[7:]}:{tag}")
    return entries


def _manifests(repository: Repository) -> dict[str, str]:
    """What the first half of each digest, "sha256:" and 64 digits, stands for."""
    entries: dict[str, str] = {}
    for digest, media_type in repository.manifests.items():
        _append(entries, digest[7:39], f"{_TYPE_NUMBER[media_type]}:{digest[39:]}")
    return entries


def _tag_maps(
    numbered: list[tuple[str, Repository]], plain: Mapping[str, Lines], long_values: LongValues
) -> list[str]:
    pieces = Pieces(_TAG_PIECES)
    lines: list[str] = []
    for rid, repository in numbered:
        if rid in plain:
            lines.append(plain[rid].tags)
            continue
        for key, entry in _tags(repository).items():
            if len(key) <= _LONGEST_TAG_KEY:
                lines.append(f"'{key}:{rid}' {long_values.quoted(entry)};\n")
            else:
                pieces.add(f"1{rid}", key, long_values.quoted(entry))
    chain = pieces.maps("scr_tag_is_long$scr_rid", "scr_t", "scr_long_tag", "scr_long_tag_known")
    default = "$scr_long_tag_known" if chain else "''"
    return [*chain, mapping_of('"$scr_tag:$scr_rid"', "scr_tag_known", lines, default=default)]


def _manifest_map(
    numbered: list[tuple[str, Repository]], plain: Mapping[str, Lines], long_values: LongValues
) -> list[str]:
    lines: list[str] = []
    for rid, repository in numbered:
        if rid in plain:
            lines.append(plain[rid].manifests)
        else:
            entries = _manifests(repository)
            lines += [f"'{key}@{rid}' {long_values.quoted(entry)};\n" for key, entry in entries.items()]
    return [mapping_of('"$scr_hx1@$scr_rid"', "scr_manifest_known", lines)]


def _append(entries: dict[str, str], key: str, entry: str) -> None:
    """Add what a key, which most share with no other, stands for."""
    known = entries.get(key)
    entries[key] = entry if known is None else f"{known} {entry}"


def _list_maps(
    numbered: list[tuple[str, Repository]], long_values: LongValues, *, list_repositories: bool
) -> list[str]:
    lists: dict[str, Sequence[str]] = {rid: list(each.tags) for rid, each in numbered}
    if list_repositories:
        lists[REPOSITORIES] = [each.name for _, each in numbered if each.listed]
    unlisted = {rid: "''" for rid, each in numbered if not each.listed}
    return [
        *list_maps(lists, long_values),
        mapping("$scr_rid", "scr_is_listed", {"": "''", **unlisted}, default="1"),
        constant("scr_catalog_open", "1" if list_repositories else "''"),
    ]
