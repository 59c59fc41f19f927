"""Renders the lists of tags and repositories, and how a page of one is found.

A list that fits into one token is one block. A longer one is cut between items, so that a page costs
about the same from a list of any length: the block that `last` belongs to is found by its
first item among the *fences*, and only that block and those that the page may reach are read.

    $scr_list              the list's number: that of a repository, or "_" for the repositories
    $scr_items             the whole list, if it may be answered whole
    $scr_n_unasked         "all" for such a list, else how many items a page without `n` has
    "$scr_block_no@$scr_list"
      -> $scr_block           the block
      -> $scr_block_next      the blocks behind it that a page may reach
      -> $scr_block_rest      all blocks behind it, if the list may be answered whole

pages.conf has what is the same for every list.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from scr_watchd.render import quote
from scr_watchd.render.maps import LongValues, mapping

LONGEST_PAGE = 1000
"""How many items a page has at most; pages.conf counts no further."""

LONGEST_WHOLE = 1024 * 1024
"""How many bytes a list has at most that is answered whole: nginx puts it together for each request, in
several copies, and holds them until the client has read the last byte."""

REPOSITORIES = "_"
"""The number of the list of repositories."""

# In ASCII order: the characters of tags and repository names.
_ALPHABET = "-./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_RUNS = [_ALPHABET[start : start + 6] for start in range(0, len(_ALPHABET), 6)]
_GROUP = 64  # chunks whose remainders share what lies behind them
_SLASHES = 8  # captures have one digit
_HALVES = (128, 64, 32, 16, 8, 4, 2, 1)  # together the longest `last`


def list_maps(lists: Mapping[str, Sequence[str]], long_values: LongValues) -> list[str]:
    """The maps of ``lists``, sorted names by the list's number."""
    items: dict[str, str] = {}
    paged: dict[str, str] = {}
    tables: dict[str, dict[str, str]] = {"fences": {}, "block": {}, "next": {}, "rest": {}}
    for number, names in lists.items():
        chunks = list(_chunks(names))
        texts = _texts(chunks)
        if len(texts) == 1:
            items[number] = f"'{texts[0]}'"
            continue
        variables = [long_values.variable(text) for text in texts]
        rests: list[str] = []
        if sum(map(len, texts)) <= LONGEST_WHOLE:
            rests = _rests(variables, long_values)
            items[number] = long_values.joined([variables[0], rests[0]])
        else:
            paged[number] = f"{LONGEST_PAGE}"
        step = _chunks_per_block(chunks)
        blocks = [chunks[start : start + step] for start in range(0, len(chunks), step)]
        tables["fences"][number] = long_values.token(_fences(blocks), separator="")
        for index, block in enumerate(blocks):
            start, key = index * step, f"{index}@{number}"
            end = start + len(block)
            tables["block"][key] = long_values.joined(variables[start:end])
            tables["next"][key] = long_values.joined(variables[end : _reach(chunks, end)])
            if rests:
                tables["rest"][key] = f"'{rests[end - 1]}'"
    block_of = '"$scr_block_no@$scr_list"'
    return [
        mapping("$scr_list", "scr_items", items),
        mapping("$scr_list", "scr_n_unasked", paged, default="all"),
        mapping("$scr_list", "scr_fences", tables["fences"]),
        mapping(block_of, "scr_block", tables["block"], default="$scr_items"),
        mapping(block_of, "scr_block_next", tables["next"]),
        mapping(block_of, "scr_block_rest", tables["rest"]),
    ]


def texts_of(names: Sequence[str]) -> list[str]:
    """The inside of a JSON list of ``names``, in pieces that each fit into a token; at least one."""
    return _texts(list(_chunks(names)))


def page_maps() -> list[str]:
    """The maps that would be tedious to write: `last` decoded, twice what comes after it, and counts."""
    return [
        _slashes("$arg_last", "scr_last_1"),
        _slashes("$scr_last_1", "scr_last_2"),
        *_after("$scr_fences", "scr_fence", "scr_fences_after"),
        *_after(",$scr_block", "scr_item", "scr_block_after"),
        *_counts(),
    ]


def _chunks(names: Sequence[str]) -> Iterator[list[str]]:
    """``names`` in runs that each fit into a token; at least one, if only an empty one."""
    chunk: list[str] = []
    size = 0
    for name in names:
        size += len(name) + 3
        if size > quote.TOKEN_BYTES:
            yield chunk
            chunk, size = [], len(name) + 3
        chunk.append(name)
    yield chunk


def _chunks_per_block(chunks: Sequence[Sequence[str]]) -> int:
    """As many as make a block about as long as the fences: both are searched, and nginx's regular
    expressions end after ten million steps."""
    fences = sum(len(chunk[0]) for chunk in chunks)
    return math.ceil(math.sqrt(fences / quote.TOKEN_BYTES))


def _texts(chunks: Iterable[Iterable[str]]) -> list[str]:
    lists = [",".join(f'"{name}"' for name in chunk) for chunk in chunks]
    return [lists[0], *(f",{text}" for text in lists[1:])]


def _fences(blocks: Sequence[Sequence[Sequence[str]]]) -> Iterator[str]:
    """The first item of each block, with the number of the block before it; "~" is after all items."""
    for number, block in enumerate(blocks[1:]):
        yield f',"{block[0][0]}"{number}'
    yield f',"~"{len(blocks) - 1}'


def _reach(chunks: Sequence[Sequence[str]], index: int) -> int:
    """Where the chunks from ``index`` on end that hold more than the longest page."""
    count = 0
    while index < len(chunks) and count <= LONGEST_PAGE:
        count += len(chunks[index])
        index += 1
    return index


def _rests(variables: Sequence[str], long_values: LongValues) -> list[str]:
    """For each variable the text of a token that holds all behind it: the rest of its group, and what
    is behind the group."""
    groups = [variables[start : start + _GROUP] for start in range(0, len(variables), _GROUP)]
    wholes = [long_values.variable("".join(group)) for group in groups[1:]]
    rests = []
    for number, group in enumerate(groups):
        later = wholes[number:]
        behind = long_values.variable(long_values.joined(later)[1:-1]) if len(later) > 1 else "".join(later)
        rests += ["".join(group[index + 1 :]) + behind for index in range(len(group))]
    return rests


# -- what comes after `last` ----------------------------------------------------------------------


def _slashes(source: str, variable: str) -> str:
    """Clients that make `last` by themselves write its slashes as %2F."""
    patterns = {}
    for count in range(1, _SLASHES + 1):
        last = "(.*)" if count == _SLASHES else "([^%]*)"
        pattern = "%2F".join([*["([^%]*)"] * count, last])
        patterns[rf"~*^{pattern}\z"] = "/".join(f"${number}" for number in range(1, count + 2))
    return mapping(source, variable, patterns, default=source)


def _after(items: str, prefix: str, variable: str) -> list[str]:
    """Maps from ``items``, `,"NAME"` each and sorted, to those of them that come after `last`.

    If `last` is not among them, they begin where its longest beginning that some item shares does,
    without the items that go on with a character up to that with which `last` goes on. That beginning
    grows by 128 characters, by 64, and so on down to one, if some item shares so much: trying each
    length would read the items once for each. Of the characters behind that with which `last` goes on
    the few of the same run are tried one by one, then all others at once: a regular expression for
    each of the alphabet would cost nginx a megabyte, and trying each of it a reading for each.
    """
    start, rest, tail, found, has, wants = (
        f"{prefix}_{word}" for word in ("start", "rest", "tail", "found", "has", "wants")
    )
    grown = [f"{prefix}_grown_{size}" for size in _HALVES]
    so_far = [f"\\k<{each}>" for each in grown]
    grows = "".join(
        rf'(?>(?<{each}>(?:[^|]{{{size}}})?)(?=[^|]*\|.*?,"{"".join(so_far[: index + 1])}))'
        for index, (size, each) in enumerate(zip(_HALVES, grown, strict=True))
    )
    shared = rf'~^{grows}(?<{rest}>[^|]*)\|.*?(?<{tail}>,"{"".join(so_far)}.*)\z'
    next_of_run = rf"(?=[^|]*+\|[^|]*+\|(?<{has}>[^|]))[^|]*?\k<{has}>[^|!]*?(?<{wants}>[^|!])[^|]*+"
    begun = rf"(?<{start}>[^|]*+)\|[^|]*+"
    greater = {
        rf"~^[^|]*+\|[^|]*+\|\|(?<{found}>.*)\z": f"${found}",
        rf'~^{next_of_run}\|{begun}\|.*?(?<{found}>,"\k<{start}>\k<{wants}>.*)\z': f"${found}",
    }
    for run in _RUNS:
        first, last = (rf"\x{ord(character):02x}" for character in (run[0], run[-1]))
        in_run = rf"[^|]*+\|(?<{start}>[^|]*+)\|[{first}-{last}][^|]*+"
        greater[rf'~^{in_run}\|.*?(?<{found}>,"(?!\k<{start}>["-{last}]).*)\z'] = f"${found}"
    return [
        mapping(
            f'"$scr_last|{items}"',
            variable,
            {
                rf"~^\|(?<{found}>.*)\z": f"${found}",
                rf'~^(?<{start}>[^|]+)\|.*?,"\k<{start}>"[0-9]*(?<{found}>.*)\z': f"${found}",
            },
            default=f"${prefix}_after_none",
        ),
        mapping(
            f'"$scr_last|{items}"',
            f"{prefix}_shared",
            {shared: f'"{"".join(f"${each}" for each in grown)}|${rest}|${tail}"'},
        ),
        mapping(f'"{"!".join(_RUNS)}|${prefix}_shared"', f"{prefix}_after_none", greater),
    ]


# -- how many -------------------------------------------------------------------------------------

_PLACES = ((100, "0{}.."), (10, "..{}."), (1, "...{}"))


def _counts() -> list[str]:
    """Maps that take $scr_n items from $scr_after, hundreds, then tens, then ones. Each is 1 if there
    are so many, which are then in $scr_items_SIZE, and what is left in $scr_left_SIZE."""
    maps = []
    done, source, left = "", "$scr_n", "$scr_after"
    for size, place in _PLACES:
        wanted = {place.format(digit): digit * size for digit in range(10)}
        if size == 100:
            wanted[f"{LONGEST_PAGE}"] = LONGEST_PAGE
        patterns = {
            rf"~^{done}{digits}\|(?<scr_items_{size}>(?>,+[^,]++){{{count}}})(?<scr_left_{size}>.*)\z": "1"
            for digits, count in wanted.items()
        }
        maps.append(mapping(f'"{source}|{left}"', f"scr_counted_{size}", patterns))
        done, source, left = "1", f"$scr_counted_{size}$scr_n", f"$scr_left_{size}"
    return maps
