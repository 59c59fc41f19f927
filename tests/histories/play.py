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

_PLACES = [
    "a:1",
    "a/1",
    "a:2",
    "a/b:1",
    "c/d:1",
    "c/d/2",
    "l:1",
    "m/l",
    "a",
    "c",
    "c/d",
    "l",
    "A:1",
    "a@sha256:0",
]
_CALLED = ["1", "2", "docker.io/library/app:1", "quay.io/other:1", "a:1", "127.0.0.1:5000/app:2"]
_HOW = ["0600", "0644", "0700", "0755", "cut", "rot", "remove", "mend", "become a link"]


@st.composite
def _events(draw: st.DrawFn, *, with_mounts: bool, length: int) -> list[Event]:
    """Few places take part in one history, so that things happen to what was seen before; and there are
    looks between most of them."""
    places = st.sampled_from(draw(st.lists(st.sampled_from(_PLACES), min_size=1, max_size=3, unique=True)))
    images, ways = st.sampled_from(sorted(IMAGES)), st.sampled_from(["skopeo", "aside", "in place", "rsync"])
    whole, pieces = st.none(), st.none() | st.integers(1, 6)
    entries = st.lists(st.tuples(st.sampled_from(_CALLED), images), min_size=1, max_size=3).map(tuple)
    drops = st.builds(Drop, places, images, ways, pieces)
    layouts = st.builds(Layout, places, entries, ways, pieces)
    people = st.one_of(
        st.builds(Remove, places),
        st.builds(Rename, places, places | st.sampled_from(_PLACES), st.booleans()),
        st.builds(Touch, places, st.integers(-1, 5), st.sampled_from(_HOW)),
        st.builds(Touch, places, st.integers(-1, 5), st.sampled_from(_HOW)),
    )
    copies = st.one_of(
        st.builds(Away, places),
        st.builds(Link, places, places),
        st.builds(Copy, places, places, st.booleans()),
        st.just(Hardlink()),
    )
    looks = st.builds(Look, st.booleans(), st.sampled_from(["none", "right", "all", "wrong"]))
    steps = st.sampled_from(STEPS)
    machines = st.one_of(
        st.builds(Restart, st.booleans()),
        st.builds(Kill, steps),
        st.builds(KillAt, st.integers(0, 60)),
        st.builds(Within, steps, drops | people),
        st.builds(Clock, st.sampled_from([0, -100, -4000])),
        st.builds(Ask, st.sampled_from(["accept", "prune"])),
        st.builds(Lose, st.sampled_from(["store", "store", "published.json", "nginx", "current"]), _SOME),
    )
    mounts = st.builds(Mount, places | st.just(""), st.integers(0, 1)) | st.just(Unmount())
    kinds = [drops, layouts, people, people, copies, looks, looks, machines, machines]
    first = st.builds(Drop, places, images, st.just("skopeo"), whole) | st.builds(Layout, places, entries)
    begin = draw(st.lists(first, max_size=3))
    events = st.one_of(*kinds, mounts, mounts) if with_mounts else st.one_of(*kinds)
    count = draw(st.sampled_from([*range(1, length + 1), *[length] * length]))  # left alone they are short
    return [*begin, Look(), *draw(st.lists(events, min_size=count, max_size=count))]


_SOME = st.integers(-1, 20)


def histories(*, is_checked: bool, with_mounts: bool = False, length: int = 12) -> st.SearchStrategy[History]:
    """All that there may be; ``is_checked`` as ``Begin`` has it."""
    begins = st.builds(
        Begin,
        st.sampled_from([0, 3600]),
        st.sampled_from([0, 86400]),
        st.sampled_from(["new", "new", "size"]),
        st.sampled_from(["hard", "hard", "symbolic"]),
        st.just(is_checked),
    )
    return st.tuples(begins, _events(with_mounts=with_mounts, length=length))
