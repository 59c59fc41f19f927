"""STATE/status.json: what the daemon last said, for whoever asks while it works."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import structs

from scr_watchd.files import read_file, write_atomically
from scr_watchd.publish.sight import Sight
from scr_watchd.publish.state import STATUS_BYTES
from scr_watchd.words import shown

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""What every reader of JSON can hold, and arithmetic with it ends."""


class ProblemStatus(msgspec.Struct, frozen=True):
    path: str
    reason: str
    remedy: str
    owner: Count | None = None
    """The user id of whoever put it there."""


class UnripeStatus(msgspec.Struct, frozen=True):
    """An image of which platforms are absent, and when (seconds since 1970) it is served without them."""

    image: str
    reason: str
    until: float


class UnlinkedStatus(msgspec.Struct, frozen=True):
    """What the store has no hard link of, though it has of others."""

    kind: str
    """mount, symbolic or copy"""
    path: str
    reason: str
    remedy: str
    size: Count = 0
    """Of all copies with that reason."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds since 1970; ``None`` where it has not happened yet."""

    version: str = ""
    pid: Count = 0
    root: str = ""
    state: str = ""
    own_nginx: bool = False
    """Whether nginx is the daemon's child, and ends with it."""
    outcome: str = ""
    """published, unchanged, waiting, unconfirmed, rejected or failed"""
    message: str = ""
    """How the last pass ended."""
    generation: str = ""
    """What nginx includes, and answers from if it is ``confirmed``."""
    confirmed: bool = False
    confirmed_at: float | None = None
    changed_at: float | None = None
    repositories: Count = 0
    images: Count = 0
    problems: tuple[ProblemStatus, ...] = ()
    pinned: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    held_since: float | None = None
    partial: tuple[str, ...] = ()
    """Images that are served without all of their platforms, and which they have; the first hundred."""
    unripe: tuple[UnripeStatus, ...] = ()
    """Images that are not served yet, because a copy of their platforms may be under way."""
    renamed: tuple[tuple[str, str], ...] = ()
    """The old and the new names of images whose layout came to have several repositories."""
    waiting: Count = 0
    """Images that are served once their bytes are checked."""
    leaving: Count = 0
    """Manifests that were replaced or removed, and can still be pulled by digest."""
    only_stored_bytes: Count = 0
    """What nothing but the store holds: pinned, held, or in its grace period."""
    copied_bytes: Count = 0
    """What the store has copies of, because no hard links can be made."""
    unlinked: tuple[UnlinkedStatus, ...] = ()
    watch: str = ""
    watch_mode: str = ""
    """events, poll or both"""
    store: str = ""
    links: str = ""
    links_cost: str = ""
    """What symbolic links cost, and the lines that would make hard ones."""
    reader: tuple[int | None, tuple[int, ...]] = (None, ())
    nginx: Sight = Sight()


def down(sight: Sight, *, own_nginx: bool) -> str:
    return f"{sight.reason}: {'it is started again as soon as that can be' if own_nginx else 'start it'}"


def seen(status: Status, sight: Sight) -> Status:
    """``status``, with what it says of serving made true by what was last seen of nginx."""
    if sight.up is not False:
        return structs.replace(status, nginx=sight)
    told = status.outcome in ("published", "unchanged", "waiting", "unconfirmed")
    message = down(sight, own_nginx=status.own_nginx) if told else status.message
    return structs.replace(status, nginx=sight, confirmed=False, message=message)


def about_links(status: Status) -> list[str]:
    """What is served otherwise than by hard links, though others are, and what to do about it."""
    lines = []
    for each in status.unlinked:
        what = f"{size(each.size)} are copies, of {each.path}" if each.kind == "copy" else each.path
        lines += ["", f"not a hard link: {what}", f"  {each.reason}", f"  {each.remedy}"]
    return lines


def size(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def counted(number: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def write(path: Path, status: Status) -> None:
    """Replace the status."""
    put(path, msgspec.json.format(msgspec.json.encode(status), indent=2) + b"\n", write_atomically)


def put(path: Path, content: bytes, replace: Callable[[Path, bytes], None]) -> None:
    """Replace ``path``. On a full disk the old one goes first: none is better than one that lies."""
    try:
        replace(path, content)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        path.unlink(missing_ok=True)
        replace(path, content)


def read(path: Path) -> Status | None:
    """The status in ``path``, its texts fit for a terminal; ``None`` if there is none.

    Raises ``ValueError`` if it is damaged, and ``OSError`` if it is no file that may be read whole.
    """
    try:
        status = msgspec.json.decode(read_file(path, limit=STATUS_BYTES), type=Status)
    except FileNotFoundError:
        return None
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    return msgspec.convert(_shown(msgspec.to_builtins(status)), Status)


def _shown(value: Any) -> Any:
    """``value`` with each text in it as a terminal may have it: whoever writes STATE wrote that."""
    if isinstance(value, str):
        return "\n".join(map(shown, value.split("\n")))
    if isinstance(value, dict):
        return {key: _shown(each) for key, each in value.items()}
    return [_shown(each) for each in value] if isinstance(value, list | tuple) else value


def last(path: Path) -> Status | None:
    """The status in ``path``; ``None`` also where it cannot be read, for who can do without."""
    try:
        return read(path)
    except (OSError, ValueError):
        return None
