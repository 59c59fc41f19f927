"""After any order of events, and then quiet, what is served is what a fresh daemon would serve of that tree.

FUZZ_EXAMPLES=2000 .venv/bin/python -m pytest -n 4 --dist worksteal tests/daemon/test_any_order.py is 8,000.
"""

import pytest
from hypothesis import Phase, given, settings

from tests.fuzzing import EXAMPLES, modest
from tests.histories.play import History, histories, play
from tests.private_mounts import run_with_private_mounts

_PHASES = [Phase.generate, Phase.shrink]  # what explains a failure takes longer, and says less


@settings(modest, max_examples=max(1, EXAMPLES // 10), phases=_PHASES)
@given(histories(is_checked=True))
def test_after_any_history_a_fresh_daemon_would_serve_the_same(history: History) -> None:
    play(*history)


@pytest.mark.slow
@pytest.mark.parametrize("_part", range(4))  # for as many processes
@settings(modest, max_examples=EXAMPLES, phases=_PHASES)
@given(history=histories(is_checked=False))
def test_after_a_thousand_histories_a_fresh_daemon_would_serve_the_same(_part: int, history: History) -> None:
    play(*history)


@settings(modest, max_examples=max(1, EXAMPLES // 10), phases=_PHASES)
@given(histories(is_checked=False, with_mounts=True))
def histories_with_mounts(history: History) -> None:
    play(*history)


def test_after_any_history_with_mounts_a_fresh_daemon_would_serve_the_same() -> None:
    run_with_private_mounts(histories_with_mounts)
