"""Renders http.conf: the maps that change with the tree, then the fixed rest.

Every value below is a parsed name, tag or digest, or a short number, so that no token needs more
than quotes around it. The same catalog always gives the same bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

from scr_watchd.oci.catalog import Catalog, Repository
from scr_watchd.oci.names import RepositoryName
from scr_watchd.render import quote
from scr_watchd.render.lists import REPOSITORIES, list_maps, page_maps
from scr_watchd.render.maps import LongValues, Pieces, base36, constant, mapping, mapping_of
from scr_watchd.render.mirrors import repository_maps
from scr_watchd.render.page import with_page, without_page
from scr_watchd.render.referrers import referrer_maps

_NAME_PIECES = 7
_TAG_PIECES = 4
_LONGEST_NAME_KEY = 45  # with the "=" before it a key of 46 bytes, nginx's limit without hash.conf
_LONGEST_TAG_KEY = 40  # leaves room for ":" and a repository number of five digits

_NO_MIRRORS: Mapping[str, str] = {}


class Fragment(NamedTuple):
    """What is rendered of a repository alone, under its ``number``: the hash of what can be pulled by
    digest, and, as most are, the lines of its tags; ``None`` if some are too long for one."""

    repository: Repository
    number: str
    content: bytes
    tags: str | None


@dataclass(frozen=True, slots=True)
class Rendered:
    """The files of one generation by name, and the id that is derived from all their bytes."""

    id: str
    files: Mapping[str, bytes]


def fragments_of(catalog: Catalog, before: Mapping[RepositoryName, Fragment] | None = None) -> list[Fragment]:
    """One of each repository that is listed; those that are the very objects of ``before``, under the same
    number, are not rendered again."""
    known = {} if before is None else before
    found = []
    for number, repository in enumerate(each for each in catalog.repositories if each.listed):
        rid = base36(number)
        old = known.get(repository.name)
        if old is None or old.repository is not repository or old.number != rid:
            old = Fragment(repository, rid, _content(repository), _plain(rid, repository))
        found.append(old)
    return found


def render(
    catalog: Catalog,
    *,
    store: str,
    list_repositories: bool = True,
    mirrors: Mapping[str, str] = _NO_MIRRORS,
    follow_links: bool = True,
    fragments: Sequence[Fragment] | None = None,
    browse: bool = True,
    warning: str = "",
) -> Rendered:
    """One generation for ``catalog``, whose ``fragments`` may be given; ``store`` is the store's path as
    nginx sees it, and ``mirrors`` are prefixes of names by the host that they mirror. Without
    ``follow_links`` nginx follows none in the store; without ``browse`` it has no page for people. With
    ``warning`` every answer says so.

    Raises ``ValueError`` if nginx cannot be told that path.
    """
    contents = {
        "hash.conf": static("hash.conf"),
        "server.conf": _server(follow_links=follow_links, browse=browse),
        "http.conf": _http(
            catalog,
            fragments_of(catalog) if fragments is None else fragments,
            store,
            mirrors,
            list_repositories=list_repositories,
            warning=warning,
        ),
    }
    generation = _id(contents)
    contents["http.conf"] += _closing(generation)
    return Rendered(generation, contents)


@cache
def _server(*, follow_links: bool, browse: bool) -> bytes:
    text = with_page(static("server.conf")) if browse else without_page(static("server.conf"))
    if follow_links:
        return text
    return text.replace(b"disable_symlinks off;", b"disable_symlinks on from=$scr_store;")


def _http(
    catalog: Catalog,
    fragments: Sequence[Fragment],
    store: str,
    mirrors: Mapping[str, str],
    *,
    list_repositories: bool,
    warning: str = "",
) -> bytes:
    numbered = [(each.number, each.repository) for each in fragments]
    # files that no map names, so that equal ids are equal content, also for who pulls by digest
    content = sha256(b"".join([each.content for each in fragments])).hexdigest()
    long_values = LongValues()
    maps = [
        constant("scr_store", quote.path(store)),
        constant("scr_warning", quote.warning(warning)),
        *repository_maps(catalog, mirrors),
        *_name_maps(numbered),
        *_tag_maps(fragments, long_values),
        *_list_maps(numbered, long_values, list_repositories=list_repositories),
        *referrer_maps(numbered, long_values),
    ]
    return b"".join(
        [
            b"# scr-watchd: the images. Written by the daemon; include it in http {}.\n",
            f"# manifests: {content}\n".encode(),
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
        "http.conf": _http(Catalog(), [], "/dev/null", _NO_MIRRORS, list_repositories=False) + _closing("''"),
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


def _content(repository: Repository) -> bytes:
    manifests = "".join([f"{digest} {kind.number}\n" for digest, kind in repository.manifests.items()])
    return sha256(f"{repository.name}\n{manifests}".encode()).digest()


def _plain(rid: str, repository: Repository) -> str | None:
    """The lines of a repository's tags if all keys and values fit into one; else ``None``."""
    tags = _tags(repository)
    if len(max(tags, key=len, default="")) > _LONGEST_TAG_KEY:
        return None
    if len(max(tags.values(), key=len, default="")) > quote.TOKEN_BYTES:
        return None
    return "".join([f"'{key}:{rid}' '{entry}';\n" for key, entry in tags.items()])


def _tags(repository: Repository) -> dict[str, str]:
    """What each tag in lower case stands for: an entry for each of its spellings."""
    entries: dict[str, str] = {}
    for tag, digest in repository.tags.items():
        entry = f"{repository.manifests[digest].number}:{digest[7:]}:{tag}"
        known = entries.get(tag.lower())
        entries[tag.lower()] = entry if known is None else f"{known} {entry}"
    return entries


def _tag_maps(fragments: Iterable[Fragment], long_values: LongValues) -> list[str]:
    pieces = Pieces(_TAG_PIECES)
    lines: list[str] = []
    for repository, rid, _, plain in fragments:
        if plain is not None:
            lines.append(plain)
            continue
        for key, entry in _tags(repository).items():
            if len(key) <= _LONGEST_TAG_KEY:
                lines.append(f"'{key}:{rid}' {long_values.quoted(entry)};\n")
            else:
                pieces.add(f"1{rid}", key, long_values.quoted(entry))
    chain = pieces.maps("scr_tag_is_long$scr_rid", "scr_t", "scr_long_tag", "scr_long_tag_known")
    default = "$scr_long_tag_known" if chain else "''"
    return [*chain, mapping_of('"$scr_tag:$scr_rid"', "scr_tag_known", lines, default=default)]


def _list_maps(
    numbered: list[tuple[str, Repository]], long_values: LongValues, *, list_repositories: bool
) -> list[str]:
    lists: dict[str, Sequence[str]] = {rid: list(each.tags) for rid, each in numbered}
    if list_repositories:
        lists[REPOSITORIES] = [each.name for _, each in numbered]
    return [
        *list_maps(lists, long_values),
        constant("scr_catalog_open", "1" if list_repositories else "''"),
    ]
