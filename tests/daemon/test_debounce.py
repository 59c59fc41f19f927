"""When to look after changes."""

import math

import pytest

from scr_watchd.daemon.debounce import Debounce


@pytest.mark.parametrize(
    ("changes", "deadline"),
    [
        pytest.param([], math.inf, id="nothing changed"),
        pytest.param([10.0], 10.25, id="one change waits for the quiet period"),
        pytest.param([10.0, 10.2], 10.45, id="a second change begins the quiet period anew"),
        pytest.param(
            [10.0 + step / 10 for step in range(30)], 12.0, id="a steady stream stops at the ceiling"
        ),
        pytest.param([10.0, 11.9], 12.0, id="the ceiling counts from the first change"),
    ],
)
def test_the_deadline_after_changes(changes: list[float], deadline: float) -> None:
    debounce = Debounce(0.25, 2)
    for moment in changes:
        debounce.changed(moment)
    assert debounce.deadline == pytest.approx(deadline)


def test_after_a_reset_the_ceiling_counts_anew() -> None:
    debounce = Debounce(0.25, 2)
    debounce.changed(10.0)
    debounce.reset()
    assert debounce.deadline == math.inf
    debounce.changed(20.0)
    assert debounce.deadline == pytest.approx(20.25)
