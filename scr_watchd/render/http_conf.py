"""Renders http.conf: the maps that change with the tree, then the fixed rest.

Every value below is a parsed name, tag or digest, or a short number, so that no token needs more
than quotes around it. The same catalog always gives the same bytes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files

from scr_watchd.oci.catalog import Catalog, Repository
from scr_watchd.oci.manifest import MediaType
from scr_watchd.render import quote

_PIECE = 38  # http.conf cuts names and tags at the same places
_NAME_PIECES = 7
_TAG_PIECES = 4
_LONGEST_NAME_KEY = 45  # with the "=" before it a key of 46 bytes, nginx's limit without hash.conf
_LONGEST_TAG_KEY = 40  # leaves room for ":" and a repository number of five digits

_TYPE_NUMBER = {
    MediaType.DOCKER_MANIFEST: "0",
    MediaType.OCI_MANIFEST: "1",
    MediaType.DOCKER_LIST: "2",
    MediaType.OCI_INDEX: "3",
}


@dataclass(frozen=True, slots=True)
class Rendered:
    """The files of one generation by name, and the id that is derived from all their bytes."""

    id: str
    files: Mapping[str, bytes]


def render(catalog: Catalog, *, store: str, list_repositories: bool = True) -> Rendered:
    """One generation for ``catalog``; ``store`` is the store's path as nginx sees it.

    Raises ``ValueError`` if nginx cannot be told that path.
    """
    parts = [
        "# scr-watchd: the images. Written by the daemon; include it in http {}.\n",
        _constant("scr_repo", "$scr_name"),
        _constant("scr_store", quote.path(store)),
    ]
    numbered = [(_base36(number), each) for number, each in enumerate(catalog.repositories)]
    long_values = _LongValues()
    parts += _name_maps(numbered)
    parts += _tag_maps(numbered, long_values)
    parts += _manifest_map(numbered, long_values)
    parts += _list_maps(numbered, long_values, list_repositories=list_repositories)
    body = "".join([*parts[:1], *long_values.maps, *parts[1:]])
    contents = {
        "hash.conf": static("hash.conf"),
        "server.conf": static("server.conf"),
        "http.conf": body.encode("utf-8", "surrogateescape") + b"\n" + static("http.conf"),
    }
    generation = _id(contents)
    contents["http.conf"] += _closing(generation)
    return Rendered(generation, contents)


def is_whole(contents: Mapping[str, bytes]) -> bool:
    """Whether these are all the files of a generation, as some version rendered them."""
    text = contents.get("http.conf", b"")
    if text == _initial_http():
        return {"server.conf", "hash.conf"} <= set(contents)
    body, _, end = text.rpartition(b"\nmap '' $scr_generation ")
    generation = end.partition(b"default ")[2].partition(b";")[0].decode("ascii", "replace")
    return text.endswith(_closing(generation)) and _id({**contents, "http.conf": body}) == generation


def _closing(generation: str) -> bytes:
    """The end of http.conf, which the id is not made of because it says it."""
    return b"\n" + _constant("scr_generation", generation).encode()


def initial() -> Rendered:
    """The generation that stands before the first one: it answers 503.

    It knows the variables that a site's access rules may name, or nginx would refuse the site.
    """
    contents = {
        "hash.conf": static("hash.conf"),
        "server.conf": static("starting.conf"),
        "http.conf": _initial_http(),
    }
    return Rendered("initial-" + _id(contents), contents)


def _initial_http() -> bytes:
    names = ("scr_repo", "scr_name", "scr_tag", "scr_generation")
    variables = "".join(_constant(name, "''") for name in names)
    return b"# scr-watchd: nothing is published yet.\n" + variables.encode()


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
    long = _Pieces(_NAME_PIECES)
    for rid, each in numbered:
        if len(each.name) > _LONGEST_NAME_KEY:
            long.add("1", each.name, rid)
    return [
        *long.maps("scr_name_is_long", "scr_n", "scr_long", "scr_long_rid"),
        _map('"=$scr_repo"', "scr_rid", short, default="$scr_long_rid"),
    ]


def _tag_maps(numbered: list[tuple[str, Repository]], long_values: "_LongValues") -> list[str]:
    short: dict[str, list[str]] = {}
    long: dict[tuple[str, str], list[str]] = {}
    for rid, repository in numbered:
        for tag, digest in repository.tags.items():
            entry = f"{_TYPE_NUMBER[repository.manifests[digest]]}:{digest.hex}:{tag}"
            if len(tag) <= _LONGEST_TAG_KEY:
                short.setdefault(f"{tag.lower()}:{rid}", []).append(entry)
            else:
                long.setdefault((rid, tag.lower()), []).append(entry)
    pieces = _Pieces(_TAG_PIECES)
    for (rid, lower), entries in long.items():
        pieces.add(f"1{rid}", lower, long_values.token(entries, separator=" "))
    tokens = {key: long_values.token(entries, separator=" ") for key, entries in short.items()}
    return [
        *pieces.maps("scr_tag_is_long$scr_rid", "scr_t", "scr_long_tag", "scr_long_tag_known"),
        _map('"$scr_tag:$scr_rid"', "scr_tag_known", tokens, default="$scr_long_tag_known"),
    ]


def _manifest_map(numbered: list[tuple[str, Repository]], long_values: "_LongValues") -> list[str]:
    known: dict[str, list[str]] = {}
    for rid, repository in numbered:
        for digest, media_type in repository.manifests.items():
            entry = f"{_TYPE_NUMBER[media_type]}:{digest.hex[32:]}"
            known.setdefault(f"{digest.hex[:32]}@{rid}", []).append(entry)
    tokens = {key: long_values.token(entries, separator=" ") for key, entries in known.items()}
    return [_map('"$scr_hx1@$scr_rid"', "scr_manifest_known", tokens)]


def _list_maps(
    numbered: list[tuple[str, Repository]], long_values: "_LongValues", *, list_repositories: bool
) -> list[str]:
    tags = {rid: long_values.token(_strings(each.tags), separator=",") for rid, each in numbered}
    names = [each.name for _, each in numbered if each.listed] if list_repositories else []
    unlisted = {rid: "''" for rid, each in numbered if not each.listed}
    return [
        _map("$scr_rid", "scr_tags", tags),
        _map("$scr_rid", "scr_is_listed", {"": "''", **unlisted}, default="1"),
        _constant("scr_catalog", long_values.token(_strings(names), separator=",")),
        _constant("scr_catalog_open", "1" if list_repositories else "''"),
    ]


def _strings(items: Iterable[str]) -> list[str]:
    return [f'"{item}"' for item in items]


# -- how they are written ------------------------------------------------------------------------


def _map(source: str, variable: str, tokens: Mapping[str, str], *, default: str = "''") -> str:
    """One ``map``; ``tokens`` are written as they are, so they must be tokens already."""
    lines = [f"'{key}' {token};\n" for key, token in tokens.items()]
    return f"map {source} ${variable} {{\ndefault {default};\n{''.join(lines)}}}\n"


def _constant(variable: str, token: str) -> str:
    return f"map '' ${variable} {{ default {token}; }}\n"


class _Pieces:
    """A chain of maps for keys that are too long for one.

    Map ``i`` takes ``NUMBER:PIECE``, the number of what was found so far and the next piece, to the
    next number; the last map takes it to the value. A missing piece is empty and adds nothing, so a
    key only matches as a whole.
    """

    def __init__(self, count: int) -> None:
        self._steps: list[dict[str, str]] = [{} for _ in range(count)]

    def add(self, start: str, key: str, token: str) -> None:
        *steps, last = self._steps
        number = start
        for index, step in enumerate(steps):
            piece = key[index * _PIECE : (index + 1) * _PIECE]
            number = step.setdefault(f"{number}:{piece}", _base36(len(step)))
        last[f"{number}:{key[len(steps) * _PIECE :]}"] = token

    def maps(self, start: str, piece: str, number: str, variable: str) -> list[str]:
        texts, source = [], start
        for index, step in enumerate(self._steps, 1):
            target = variable if index == len(self._steps) else f"{number}_{index}"
            texts.append(_map(f'"${source}:${piece}{index}"', target, step))
            source = target
        return texts


class _LongValues:
    """Makes tokens of any length: what exceeds one token is cut into variables that it names."""

    def __init__(self) -> None:
        self.maps: list[str] = []

    def token(self, items: list[str], *, separator: str) -> str:
        """``items`` joined by ``separator`` as one token.

        Items hold no quote, ``$`` or backslash, except the names of this class's own variables,
        and are never cut, so that a chunk is a token by itself.
        """
        text = separator.join(items)
        if len(text) <= quote.TOKEN_BYTES:
            return f"'{text}'"
        chunks, chunk = [], items[0]
        for item in items[1:]:
            if len(chunk) + len(separator) + len(item) > quote.TOKEN_BYTES:
                chunks.append(chunk)
                chunk = separator + item
            else:
                chunk += separator + item
        chunks.append(chunk)
        return self.token([self._variable(each) for each in chunks], separator="")

    def _variable(self, chunk: str) -> str:
        name = f"scr_chunk_{_base36(len(self.maps))}"
        self.maps.append(_constant(name, f"'{chunk}'"))
        return f"${{{name}}}"


_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def _base36(number: int) -> str:
    digits = _DIGITS[number % 36]
    while number := number // 36:
        digits = _DIGITS[number % 36] + digits
    return digits
