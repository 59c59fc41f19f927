"""A sample of what ``python -m tests.failing`` plays whole, another one each time."""

import random
import re
from pathlib import Path

import pytest

from tests.failing.calls import build, run_with
from tests.failing.scenarios import SCENARIOS

_EVERY = 200
_START = random.SystemRandom()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("calls"))


@pytest.mark.parametrize("scenario", [each.name for each in SCENARIOS])
def test_a_pass_in_which_a_call_fails_loses_nothing_and_the_next_mends_it(
    library: Path, scenario: str
) -> None:
    start = _START.randrange(_EVERY)
    done = run_with(library, "tests.failing.play", scenario, "--every", _EVERY, "--start", start)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[1-9]\d* cases, 0 faults", done.stdout)
