"""How much of what is in the tree nginx is told: in the bytes that are rendered for it, since those are
what `nginx -t`, a reload and each worker cost. Where it does not suffice for all, it is shared by owner."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cache
from typing import NamedTuple

TAGS = 100_000
"""Most tags of a repository that are served."""

SPELLINGS = 32
"""Most tags of a repository that differ only in case: nginx finds them all at once, then the one."""

REFERRERS = 1_000
"""Most referrers of a subject that are listed."""

ANNOTATION_BYTES = 16 * 1024
"""Most bytes of annotations with which a referrer is listed."""

ARTIFACT_TYPE_LENGTH = 255
"""Longest artifact type with which a referrer is listed: RFC 6838, section 4.2, allows no longer one."""

SUBJECT_COST = 8 * 1024 * 1024
"""Most that the referrers of a subject cost: a list of about a megabyte, see ``referrer_cost``."""

REPOSITORY_COST = 32 * 1024 * 1024
"""Most that a repository costs."""

TREE_COST = 48 * 1024 * 1024
"""Most that the tree costs: 250,000 tags of 20 characters in long lists. nginx tests that within 2 s."""

PROBLEMS = 1_000
"""Most Problems that are told of at a time."""

CHILD = 24
"""What each manifest below an index costs: it is in the records, and not in nginx's files."""

TOKEN_BYTES = 3900
"""Longest token that is written; nginx refuses one of more than 4095 bytes ("too long parameter")."""

_LINE = 84  # of a tag, without the tag: quotes, a repository's number, a digest
_NAME = 60  # of a repository, without its name
_SUBJECT = 120  # of a referrer, if it is the only one of its subject
_DESCRIPTOR = 240  # of a referrer, without its texts
_LONG_KEY, _PIECE = 40, 25  # a longer name or tag is written in pieces, each with two numbers
_PLAIN = bytes(each for each in range(0x20, 0x7F) if each not in b"\"$'\\")  # see render/quote
_PLAIN_TEXT = re.compile(rf"[{re.escape(_PLAIN.decode())}]*")


class Claim(NamedTuple):
    """What an owner's thing, called ``key``, takes of a room that is shared."""

    owner: int
    key: tuple[str, ...]
    cost: int


def left_out(claims: Collection[Claim], room: int) -> tuple[list[Claim], int]:
    """The ``claims`` that find no place in ``room``, and each owner's share of it.

    An owner who needs less than an equal share leaves the rest to the others. Within an owner the first
    by key have a place: the answer follows from the claims, whatever their order.
    """
    wanted: Counter[int] = Counter()
    for each in claims:
        wanted[each.owner] += each.cost
    share = _share(wanted.values(), room)
    used: Counter[int] = Counter()
    beyond = []
    for each in sorted(each for each in claims if wanted[each.owner] > share):
        used[each.owner] += each.cost
        if used[each.owner] > share:
            beyond.append(each)
    return beyond, share


def _share(wanted: Collection[int], room: int) -> int:
    left, owners = room, len(wanted)
    for each in sorted(wanted):
        if each * owners > left:
            return left // owners
        left -= each
        owners -= 1
    return room


# -- what things cost ------------------------------------------------------------------------------


@cache
def tag_cost(length: int, *, long_list: bool) -> int:
    """Of a tag of that ``length`` in a ``long_list``, or in one that fits into a token."""
    return _key_cost(length) + length + _LINE + _listed(length, long_list=long_list)


@cache
def name_cost(length: int) -> int:
    """Of a repository's name of that ``length``, which mirrors write once more."""
    return 2 * _key_cost(length) + _listed(length, long_list=True) + _NAME


def descriptor_size(*texts: str) -> int:
    """Of a referrer in a list, with its artifact type and annotations as ``texts``."""
    return _DESCRIPTOR + sum(map(text_size, texts))


def referrer_cost(size: int, *, long_list: bool) -> int:
    """Of a descriptor of that ``size``, which is in two lists: that of all, and that of its type. A long
    list is cut into variables, see ``_listed``, and is seldom that of an honest subject."""
    return _SUBJECT + 2 * size * (4 if long_list else 1)


def _key_cost(length: int) -> int:
    return length + (_PIECE * (2 + length // 38) if length > _LONG_KEY else 0)


def _listed(length: int, *, long_list: bool) -> int:
    """A long list is cut into variables, and pages are found by others. The time that nginx takes grows
    with the square of the number of variables: so what is in one counts twice."""
    return (length + 3) * (2 if long_list else 1)


def text_size(text: str) -> int:
    """The length of ``text`` in JSON as it is rendered: what is not plain becomes ``\\uXXXX``."""
    if _PLAIN_TEXT.fullmatch(text):
        return len(text) + 6
    plain = len(text.encode("utf-8", "surrogatepass"))
    plain -= len(text.encode("utf-8", "surrogatepass").translate(None, _PLAIN))
    units = len(text.encode("utf-16-be", "surrogatepass")) // 2
    return plain + 6 * (units - plain) + 6


def size_of(annotations: Mapping[str, str]) -> int:
    """In bytes, names and values together."""
    return sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
