"""When the next look is due."""

import math

import pytest

from scr_watchd.daemon.outcome import Failed, Outcome, Unchanged
from scr_watchd.daemon.timetable import Rhythm, Timetable
from scr_watchd.publish.outcome import Changes, Published

RHYTHM = Rhythm(quiet_seconds=0.25, max_wait_seconds=2, min_reload_seconds=2)
UNCHANGED = Unchanged("g")
PUBLISHED = Published("g", Changes({}, {}, {}))


def looked(outcome: Outcome, *, events: bool = True, cpu: float = 0.01, wall: float = 0.01) -> Timetable:
    timetable = Timetable(RHYTHM)
    timetable.looking()
    timetable.looked(outcome, 100.0, full=True, cpu=cpu, wall=wall, events=events)
    return timetable


def test_the_first_look_is_due_at_once() -> None:
    assert Timetable(RHYTHM).due == -math.inf


@pytest.mark.parametrize(
    ("timetable", "due"),
    [
        pytest.param(looked(UNCHANGED), 110.0, id="with file events the rescan alone"),
        pytest.param(looked(UNCHANGED, events=False), 102.0, id="without them every two seconds"),
        pytest.param(looked(UNCHANGED, cpu=1), 150.0, id="a costly scan is made less often"),
        pytest.param(looked(UNCHANGED, wall=10), 150.0, id="a slow one too"),
        pytest.param(looked(PUBLISHED, cpu=1, wall=10), 150.0, id="after a slow first look, which publishes"),
        pytest.param(looked(Failed("x")), 102.0, id="a failure is tried again"),
    ],
)
def test_when_nothing_changes_the_next_look_is_due(timetable: Timetable, due: float) -> None:
    assert timetable.due == pytest.approx(due)


def test_what_publishing_costs_does_not_count_once_it_is_known_what_looking_costs() -> None:
    timetable = looked(UNCHANGED)
    timetable.looked(PUBLISHED, 200.0, full=True, cpu=1, wall=10, events=True)
    assert timetable.due == 210.0


def test_a_change_right_after_a_reload_waits_for_the_shortest_time_between_reloads() -> None:
    timetable = looked(PUBLISHED)
    timetable.changed(100.1)
    assert timetable.due == pytest.approx(102.0)


def test_a_change_after_an_unchanged_pass_waits_for_the_quiet_period_only() -> None:
    timetable = looked(UNCHANGED)
    timetable.changed(100.1)
    assert timetable.due == pytest.approx(100.35)


def test_new_settings_ask_for_a_full_look_at_once() -> None:
    timetable = looked(UNCHANGED)
    timetable.reconfigured(RHYTHM)
    assert timetable.due == -math.inf
    assert timetable.full_at == -math.inf
