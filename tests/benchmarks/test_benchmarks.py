"""No figure of the quick subset may fall below half of what was recorded, in three runs of three."""

from collections.abc import Iterator

import pytest

from tests.benchmarks import quick
from tests.benchmarks.quick import Measured
from tests.benchmarks.trees import make_heavy
from tests.daemons import public_directory
from tests.endurance.hosts import say
from tests.nginxes import require

_TRIES = 3

pytestmark = [pytest.mark.slow, pytest.mark.benchmark, pytest.mark.xdist_group("benchmarks")]


@pytest.fixture(scope="module")
def measured() -> Iterator[Measured]:
    for program in ("nginx", "skopeo", "wrk", "docker-registry", "inotifywait"):
        require(program)
    with public_directory() as directory:
        make_heavy(directory / "heavy")
        yield Measured(directory)


@pytest.mark.parametrize("name", quick.names())
def test_nothing_is_half_as_good_as_it_was_beside_its_rival(measured: Measured, name: str) -> None:
    wanted = quick.recorded()
    tries = []
    for _ in range(_TRIES):
        measured.again(name)
        ratios = measured.ratios(name)
        say(name, ratios)
        if all(ratio >= wanted[key] / 2 for key, ratio in ratios.items()):
            return
        tries.append(ratios)
    pytest.fail(f"recorded { ({key: wanted[key] for key in tries[0]}) }, now {tries}")
