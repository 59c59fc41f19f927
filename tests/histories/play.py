"""Plays histories, and makes them up."""

from collections.abc import Iterable

from hypothesis import strategies as st

from scr_watchd.publish.publisher import STEPS
from tests.histories.contents import IMAGES
from tests.histories.events import (
    Ask,
    Away,
    Clock,
    Copy,
    Drop,
    Event,
    Hardlink,
    Kill,
    KillAt,
    Layout,
    Link,
    Look,
    Lose,
    Mount,
    Remove,
    Rename,
    Restart,
    Touch,
    Unmount,
    Within,
)
from tests.histories.oracle import differences
from tests.histories.world import Begin, world

History = tuple[Begin, list[Event]]


def play(begin: Begin, events: Iterable[Event]) -> None:
    """Let all ``events`` happen, and then nothing: what is served is what a fresh daemon would serve."""
    played: list[Event] = []
    with world(begin) as here:
        try:
            for event in events:
                played.append(event)
                event.happen(here)
            wrong = differences(here)
            assert not wrong, "\n".join(wrong)
        except Exception as error:
            error.add_note(as_test(begin, played))
            raise


def as_test(begin: Begin, events: Iterable[Event]) -> str:
    lines = [f"            {event!r}," for event in events]
    return "\n".join(
        [
            "\ndef test_this_history() -> None:",
            "    play(",
            f"        {begin!r},",
            "        [",
            *lines,
            "        ],",
            "    )",
        ]
    )


# -- made up -------------------------------------------------------------------------------------------

_PATHS = ["a:1", "a/1", "a:2", "a/b:1", "c/d:1", "c/d/2", "e:1", "A:1", "a@sha256:0"]
_DIRECTORIES = [*_PATHS, "a", "c", "c/d", "e", "l", "l:1", "m/l"]
_CALLED = ["1", "2", "docker.io/library/app:1", "quay.io/other:1", "a:1", "127.0.0.1:5000/app:2"]

_paths, _directories = st.sampled_from(_PATHS), st.sampled_from(_DIRECTORIES)
_images = st.sampled_from(sorted(IMAGES))
_ways = st.sampled_from(["skopeo", "aside", "in place", "rsync"])
_pieces = st.none() | st.integers(1, 6)
_entries = st.lists(st.tuples(st.sampled_from(_CALLED), _images), min_size=1, max_size=3).map(tuple)

_drops = st.builds(Drop, _paths, _images, _ways, _pieces)
_removes = st.builds(Remove, _directories)
_renames = st.builds(Rename, _directories, _directories, st.booleans())
_touches = st.builds(
    Touch,
    _directories,
    st.integers(-1, 5),
    st.sampled_from(["0600", "0644", "0700", "0755", "cut", "rot", "remove", "mend", "become a link"]),
)
_looks = st.builds(Look, st.booleans(), st.sampled_from(["none", "right", "all", "wrong"]))
_kills = st.builds(Kill, st.sampled_from(STEPS)) | st.builds(KillAt, st.integers(0, 60))

_events: st.SearchStrategy[Event] = st.one_of(
    _drops,
    _drops,
    st.builds(Layout, st.sampled_from(["l", "l:1", "m/l", "a", "c/d"]), _entries, _ways, _pieces),
    _removes,
    _renames,
    st.builds(Away, _directories),
    st.builds(Link, _directories, _directories),
    st.builds(Copy, _directories, _directories, st.booleans()),
    _touches,
    _touches,
    st.just(Hardlink()),
    _looks,
    _looks,
    st.builds(Restart, st.booleans()),
    _kills,
    st.builds(Within, st.sampled_from(STEPS), _drops | _removes | _renames | _touches),
    st.builds(Clock, st.sampled_from([0, -100, -4000])),
    st.builds(Ask, st.sampled_from(["accept", "prune"])),
    st.builds(Lose, st.sampled_from(["store", "published.json", "nginx", "current"]), st.integers(-1, 20)),
)
_mounts = st.builds(Mount, st.sampled_from(["", "a", "c", "a:1", "l"]), st.integers(0, 1)) | st.just(
    Unmount()
)


def histories(*, is_checked: bool, with_mounts: bool = False, length: int = 16) -> st.SearchStrategy[History]:
    """All that there may be, with more than a few images now and then; ``is_checked`` as ``Begin`` has it."""
    begins = st.builds(
        Begin,
        st.sampled_from([0, 3600]),
        st.sampled_from([0, 86400]),
        st.sampled_from(["new", "new", "size"]),
        st.sampled_from(["hard", "hard", "symbolic"]),
        st.just(is_checked),
    )
    events = st.one_of(_events, _mounts) if with_mounts else _events
    return st.tuples(begins, st.lists(events, min_size=1, max_size=length))
