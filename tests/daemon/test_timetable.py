"""When the next look is due."""

import math
from collections.abc import Callable

import pytest

from scr_watchd.daemon.outcome import Failed, Outcome, Unchanged
from scr_watchd.daemon.timetable import EVERYTHING, Look, Looked, Rhythm, Timetable
from scr_watchd.images.places import EVERYWHERE
from scr_watchd.publish.outcome import Changes, Published

RHYTHM = Rhythm(quiet_seconds=0.25, max_wait_seconds=2, min_reload_seconds=2)
UNCHANGED = Unchanged("g")
PUBLISHED = Published("g", Changes({}, {}, {}))
NOTHING: Callable[[], list[str]] = list


def made(timetable: Timetable, now: float, outcome: Outcome, *, cpu: float = 0.0) -> Look:
    """Make the look that is due ``now``, in no time."""
    look = timetable.look(now, NOTHING)
    timetable.looked(look, outcome, Looked(now, now, cpu, events=True))
    return look


def looked(outcome: Outcome, *, events: bool = True, cpu: float = 0.01, wall: float = 0.01) -> Timetable:
    timetable = Timetable(RHYTHM)
    look = timetable.look(100.0 - wall, NOTHING)
    assert look == EVERYTHING
    timetable.looked(look, outcome, Looked(100.0 - wall, 100.0, cpu, events))
    return timetable


def test_the_first_look_is_due_at_once() -> None:
    assert Timetable(RHYTHM).due == -math.inf


@pytest.mark.parametrize(
    ("timetable", "due"),
    [
        pytest.param(looked(UNCHANGED), 110.0, id="with file events the rescan alone"),
        pytest.param(looked(UNCHANGED, events=False), 102.0, id="without them every two seconds"),
        pytest.param(looked(UNCHANGED, cpu=1), 433.0, id="a costly scan is made seldom"),
        pytest.param(looked(UNCHANGED, cpu=9), 700.0, id="but each ten minutes"),
        pytest.param(looked(UNCHANGED, cpu=1, events=False), 150.0, id="without events more often"),
        pytest.param(looked(UNCHANGED, wall=10), 150.0, id="a slow one is made less often"),
        pytest.param(looked(PUBLISHED, wall=10), 150.0, id="after a slow first look, which publishes"),
        pytest.param(looked(Failed("x")), 102.0, id="a failure is tried again"),
    ],
)
def test_when_nothing_changes_the_next_look_is_due(timetable: Timetable, due: float) -> None:
    assert timetable.due == pytest.approx(due)


def test_what_publishing_costs_does_not_count_once_it_is_known_what_looking_costs() -> None:
    timetable = looked(UNCHANGED)
    timetable.looked(EVERYTHING, PUBLISHED, Looked(190.0, 200.0, 0.01, events=True))
    assert timetable.due == pytest.approx(210.0)


def test_three_reloads_may_follow_one_another_and_then_one_in_two_seconds() -> None:
    timetable = looked(UNCHANGED)
    times = []
    for number in range(6):
        timetable.changed([f"a/{number}"], timetable.earliest)
        times.append(timetable.due)
        made(timetable, timetable.due, PUBLISHED)
    assert times[2] < 100.3
    assert times[5] == pytest.approx(times[0] + 6, abs=0.2)


def test_after_a_while_three_may_follow_one_another_again() -> None:
    timetable = looked(PUBLISHED)
    for _ in range(3):
        made(timetable, 100.0, PUBLISHED)
    assert timetable.earliest > 101
    made(timetable, 110.0, PUBLISHED)
    assert timetable.earliest == 110.0


def test_a_change_is_looked_at_soon() -> None:
    timetable = looked(UNCHANGED, cpu=0.001)
    timetable.changed(["a/1"], 101)
    assert timetable.due == pytest.approx(101.03)
    assert timetable.look(101.03, NOTHING) == Look({"a/1": False}, full=False)


def test_a_look_rests_ten_times_what_it_cost_and_at_most_a_second() -> None:
    timetable = looked(UNCHANGED)
    timetable.changed(["a"], 101)
    made(timetable, 101.03, UNCHANGED, cpu=0.05)
    timetable.changed(["a"], 101.1)
    assert timetable.due == pytest.approx(101.53)
    made(timetable, 101.53, UNCHANGED, cpu=5)
    timetable.changed(["a"], 101.6)
    assert timetable.due == pytest.approx(102.53)


def test_what_we_know_has_changed_and_no_place() -> None:
    timetable = looked(UNCHANGED)
    timetable.changed([], 101)
    assert timetable.due == pytest.approx(101.03)
    assert timetable.look(101.03, NOTHING) == Look({}, full=False)


def test_new_settings_ask_for_a_full_look_at_once() -> None:
    timetable = looked(UNCHANGED)
    timetable.reconfigured(RHYTHM)
    timetable.earliest = -math.inf
    assert timetable.due == -math.inf
    assert timetable.look(101, NOTHING) == EVERYTHING


def test_a_rescan_takes_nothing_away_between_two_commands_of_a_writer() -> None:
    timetable = looked(UNCHANGED)
    look = timetable.look(110.0, NOTHING)
    assert look == Look({EVERYWHERE: False}, full=True)
    timetable.looked(look, UNCHANGED, Looked(110.0, 110.0, 0.01, events=True, incomplete={EVERYWHERE}))
    assert timetable.due == pytest.approx(110.22)
    assert timetable.look(110.22, NOTHING) == Look({EVERYWHERE: True}, full=False)


def test_what_is_not_well_is_looked_at_when_somebody_wants_it() -> None:
    timetable = looked(UNCHANGED)
    timetable.wanted(105.0, Looked(100.0, 100.0, 0.01, events=True))
    assert timetable.due == 105.0
    assert timetable.look(105.0, lambda: ["a/1"]) == Look({"a/1": False}, full=False)


def test_a_look_that_failed_is_made_again() -> None:
    timetable = looked(UNCHANGED)
    timetable.changed(["a/1"], 101)
    look = timetable.look(101.03, NOTHING)
    timetable.looked(look, Failed("x"), Looked(101.03, 101.1, 0.01, events=True))
    assert timetable.due == pytest.approx(103.1)
    assert set(timetable.look(103.1, NOTHING).hints) == {"a/1", EVERYWHERE}
