"""Renders which repository a request means: the one it names, or, with `?ns=HOST`, a mirrored one.

Only hosts that are configured are known, each has only what is below its own prefix, and an answer
only ever shows the spelling of the configuration. Without any the argument means nothing.

With "*" every other host is a directory of that name. Then a part of the request becomes a part of a
repository's name: what one anchored expression takes for a host, which has no "/", no ".." and no "_",
so that nothing but a directory that looks like a host is ever reached.
"""

import re
from collections.abc import Iterator, Mapping

from scr_watchd.oci.catalog import Catalog
from scr_watchd.render.maps import constant, mapping

_LONGEST_KEY = 46  # nginx's limit without hash.conf
_DOCKER_HUB = "docker.io"
_LIBRARY = "library/"
_ANY = "*"

# As it is written in lower case, as all clients do; not an address in brackets, which no directory can be
# called. A host that has neither a port nor a dot is one only if it is localhost: else ?ns=internal would
# name a directory that is nobody's registry.
_HOST = r"(?<scr_ns_host>[a-z0-9]+(?:(?:\.|-+)[a-z0-9]+)*)"
_WITH_PORT = rf"~^=(?=.{{1,255}}\z){_HOST}(?::|%3[Aa])(?<scr_ns_port>[0-9]{{1,5}})\z"
_WITHOUT_PORT = rf"~^=(?=.{{1,255}}\z)(?=localhost\z|[^.:]+\.){_HOST}\z"
_ENCODED = str.maketrans({":": "%3A", "[": "%5B", "]": "%5D"})  # as most clients write an argument
_WITHOUT_MIRRORS = {"scr_repo": "$scr_name", "scr_namespace": "''", "scr_next_ns": "''"}


def repository_maps(catalog: Catalog, mirrors: Mapping[str, str]) -> list[str]:
    """The maps to $scr_repo; ``mirrors`` are prefixes of names, "" or with "/" at the end, by host. That of
    "*" goes before every other host."""
    if not mirrors:
        return [constant(name, token) for name, token in _WITHOUT_MIRRORS.items()]
    table = {host: prefix for host, prefix in mirrors.items() if host != _ANY}
    if _ANY in mirrors:
        table.setdefault(_DOCKER_HUB, f"{mirrors[_ANY]}{_DOCKER_HUB}/")
    hosts = [(str(number), host) for number, host in enumerate(sorted(table))]
    spellings = {
        spelling: number
        for number, host in hosts
        for spelling in (f"={host}", f"={host.translate(_ENCODED)}")
    }
    shown = {number: f"'{host}'" for number, host in hosts}
    below = {number: f"'{table[host]}$scr_name'" for number, host in hosts}
    official = {
        f"{number}|{_LIBRARY}{name}": f"'{table[host]}{name}'"
        for number, host in hosts
        if host == _DOCKER_HUB
        for name in _official(catalog, table[host])
    }
    keys = {"=": "''", **_keys(spellings)}
    if _ANY in mirrors:
        keys |= {_WITH_PORT: "host:port", _WITHOUT_PORT: "host"}
        shown |= {"host:port": "'$scr_ns_host:$scr_ns_port'", "host": "$scr_ns_host"}
        below |= {
            "host:port": f"'{mirrors[_ANY]}${{scr_ns_host}}_$scr_ns_port/$scr_name'",
            "host": f"'{mirrors[_ANY]}$scr_ns_host/$scr_name'",
        }
    return [
        mapping('"=$arg_ns"', "scr_ns", keys, default="-"),
        mapping("$scr_ns", "scr_namespace", shown),
        mapping("$scr_namespace", "scr_next_ns", {"": "''"}, default="'&ns=$scr_namespace'"),
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
