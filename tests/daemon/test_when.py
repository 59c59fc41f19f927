"""When to look after changes, and where."""

import math

import pytest

from scr_watchd.daemon.hints import Hints
from scr_watchd.images.places import EVERYWHERE

NONE: frozenset[str] = frozenset()


def hints(*changes: tuple[float, str]) -> Hints:
    made = Hints(quiet_seconds=0.25, max_wait_seconds=2)
    for moment, path in changes:
        made.add([path], moment)
    return made


def looked(made: Hints, now: float, *, incomplete: bool = False, recent: bool = False) -> dict[str, bool]:
    """Look at what is due ``now``, with the same answer for all of it."""
    taken = made.take(now)
    made.looked(taken, now, incomplete=taken if incomplete else NONE, recent=taken if recent else NONE)
    return taken


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        pytest.param([], math.inf, id="nothing changed"),
        pytest.param([10.0], 10.03, id="a place is looked at soon after its last event"),
        pytest.param([10.0, 10.02], 10.05, id="a second change begins the moment anew"),
        pytest.param(
            [10.0 + step / 100 for step in range(300)], 12.0, id="a steady stream stops at the ceiling"
        ),
        pytest.param([10.0, 11.99], 12.0, id="the ceiling counts from the first change"),
    ],
)
def test_the_first_look_after_changes(changes: list[float], due: float) -> None:
    assert hints(*((moment, "a") for moment in changes)).due == pytest.approx(due)


def test_a_complete_image_is_looked_at_once() -> None:
    made = hints((10.0, "a/1"))
    assert looked(made, 10.03) == {"a/1": False}
    assert made.due == math.inf


def test_what_is_not_complete_is_looked_at_again_and_then_counts_as_it_is() -> None:
    made = hints((10.0, "a/1"))
    looks = []
    now = made.due
    while now < math.inf:
        looks.append((round(now, 2), looked(made, now, incomplete=True)["a/1"]))
        now = made.due
    assert looks[:4] == [(10.03, False), (10.13, False), (10.25, True), (10.65, True)]
    assert looks[-1][0] < 20, "an event will tell, or the next look at everything"


def test_an_event_begins_the_quiet_time_anew() -> None:
    made = hints((10.0, "a/1"))
    looked(made, 10.03, incomplete=True)
    made.add(["a/1"], 10.2)
    assert looked(made, 10.23, incomplete=True) == {"a/1": False}
    assert looked(made, 10.46, incomplete=True) == {"a/1": True}


def test_who_never_stops_writing_is_believed_at_the_ceiling() -> None:
    made = hints((10.0, "a"))
    settled = []
    for step in range(1, 60):
        now = 10.0 + step / 10
        settled.append(looked(made, now, incomplete=True).get("a"))
        made.add(["a"], now)
    assert settled.count(True) in (2, 3), "once in two seconds"


def test_new_timestamps_are_looked_at_once_more_when_they_are_old() -> None:
    made = hints((10.0, "a/1"))
    looked(made, 10.03, recent=True)
    assert made.due == pytest.approx(12.1)
    assert looked(made, 12.1) == {"a/1": True}
    assert made.due == math.inf


def test_places_do_not_wait_for_each_other() -> None:
    made = hints((10.0, "a/1"), (10.02, "b/1"))
    made.add(["a/1"], 10.04)
    assert looked(made, 10.05) == {"b/1": False}
    assert looked(made, 10.07) == {"a/1": False}


@pytest.mark.parametrize("below", ["a/1", "a/", "a/1/blobs/", "a"])
def test_what_lies_in_a_place_that_waits_belongs_to_it(below: str) -> None:
    made = hints((10.0, "a"), (10.02, below))
    assert made.due == pytest.approx(10.05)
    assert made.take(11) == {"a": True}


def test_of_too_many_places_everything_is_looked_at() -> None:
    made = hints(*((10.0, f"a{number}") for number in range(3000)))
    assert EVERYWHERE in made.take(11)
    assert len(made.take(11)) < 1100


def test_everywhere_is_looked_at_no_more_than_twice() -> None:
    made = hints((10.0, EVERYWHERE))
    assert looked(made, 10.03, incomplete=True) == {EVERYWHERE: False}
    assert looked(made, 10.25, incomplete=True) == {EVERYWHERE: True}
    assert made.due == math.inf
