"""Renders which repository a request means: the one it names, or, with `?ns=HOST`, a mirrored one.

Only hosts that are configured are known, each has only what is below its own prefix, and an answer
only ever shows the spelling of the configuration. Without any the argument means nothing.
"""

import re
from collections.abc import Iterator, Mapping

from scr_watchd.oci.catalog import Catalog
from scr_watchd.render.maps import constant, mapping

_LONGEST_KEY = 46  # nginx's limit without hash.conf
_DOCKER_HUB = "docker.io"
_LIBRARY = "library/"
_ENCODED = str.maketrans({":": "%3A", "[": "%5B", "]": "%5D"})  # as most clients write an argument


def repository_maps(catalog: Catalog, mirrors: Mapping[str, str]) -> list[str]:
    """The maps to $scr_repo; ``mirrors`` are prefixes of names, "" or with "/" at the end, by host."""
    if not mirrors:
        return [constant("scr_repo", "$scr_name"), constant("scr_next_ns", "''")]
    hosts = [(str(number), host) for number, host in enumerate(sorted(mirrors))]
    spellings = {
        spelling: number
        for number, host in hosts
        for spelling in (f"={host}", f"={host.translate(_ENCODED)}")
    }
    below = {number: f"'{mirrors[host]}$scr_name'" for number, host in hosts}
    official = {
        f"{number}|{_LIBRARY}{name}": f"'{mirrors[host]}{name}'"
        for number, host in hosts
        if host == _DOCKER_HUB
        for name in _official(catalog, mirrors[host])
    }
    return [
        mapping('"=$arg_ns"', "scr_ns", {"=": "''", **_keys(spellings)}, default="-"),
        mapping("$scr_ns", "scr_next_ns", {number: f"'&ns={host}'" for number, host in hosts}),
        mapping("$scr_ns", "scr_mirrored", {"": "$scr_name", **below}),
        mapping('"$scr_ns|$scr_name"', "scr_repo", _keys(official), default="$scr_mirrored"),
    ]


def _official(catalog: Catalog, prefix: str) -> Iterator[str]:
    """The images that lie as `alpine` and not as `library/alpine`, as clients of Docker Hub call it."""
    names = {each.name for each in catalog.repositories}
    for name in sorted(names):
        rest = name.removeprefix(prefix)
        if name.startswith(prefix) and "/" not in rest and f"{prefix}{_LIBRARY}{rest}" not in names:
            yield rest


def _keys(tokens: Mapping[str, str]) -> dict[str, str]:
    """Keys of any length: one that is too long becomes a pattern."""
    return {
        key if len(key) <= _LONGEST_KEY else f"~*^{re.escape(key)}\\z": token for key, token in tokens.items()
    }
