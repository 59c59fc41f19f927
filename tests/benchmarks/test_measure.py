"""What the benchmarks measure with."""

import subprocess
import time

from tests.benchmarks import measure

_FOR_A_MOMENT = "(i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done)"
_RESTLESS = f"while :; do {_FOR_A_MOMENT} & {_FOR_A_MOMENT} & {_FOR_A_MOMENT} & wait; done"


def test_members_that_end_while_a_family_is_counted_are_counted_once() -> None:
    """As workers of nginx do after a reload."""
    with subprocess.Popen(["sh", "-c", _RESTLESS]) as process:
        try:
            counted = [0.0]
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline:
                counted.append(measure.cpu_of_family(process.pid))
        finally:
            process.kill()
    assert counted == sorted(counted), "what one used that ended was lost, or counted twice"
    assert counted[-1] > 0.2
