"""Numbers: repeated, interleaved, and taken from the kernel: CPU time, memory, the wall clock."""

import contextlib
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

RUNS = 5
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """What several runs of one thing measured."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


Measure = Callable[[], float]
"""One run: does the thing once and returns its figure."""


def interleaved(*measures: Measure, runs: int = RUNS, warm_up: bool = True) -> list[Sample]:
    """Run each once to warm up, then all in turn, so that a noisy moment hits them all alike."""
    if warm_up:
        for measure in measures:
            measure()
    rounds = [[measure() for measure in measures] for _ in range(runs)]
    return [Sample(values) for values in zip(*rounds, strict=True)]


@dataclass(frozen=True)
class Usage:
    """What a command took, its children included."""

    wall: float
    cpu: float


def run(argv: Sequence[object], *, cwd: Path | None = None, seconds: float = 300) -> Usage:
    """Run a command to its end; fails with its words if it fails, or after ``seconds``."""
    began = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [*map(str, argv)], cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, f"{argv}: {result.stderr}"
    return Usage(
        time.monotonic() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    )


# -- a process and its children, from proc(5) ----------------------------------------------------------


_ENDED = (FileNotFoundError, ProcessLookupError)
"""What reading of a process raises that has ended."""


def family(pid: int) -> list[int]:
    """A process and all that descend from it. One that ends meanwhile may be among them or not."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(*_ENDED):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def cpu_of_family(pid: int) -> float:
    """Seconds of CPU that a process, its descendants and those of them that have ended have used.

    What one used that ended is its parent's from then on. So if one ends while they are counted, its
    parent may have been read before and it cannot be read after: then all are counted again.
    """
    while True:
        members = family(pid)
        with contextlib.suppress(*_ENDED):
            seconds = cpu(members)
            if family(pid) == members:
                return seconds
        os.stat(f"/proc/{pid}")  # for ever only as long as there is somebody


def cpu(pids: Iterable[int]) -> float:
    """Seconds of CPU, user and system, that the processes and their ended children have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS


def cpu_of_threads(pid: int) -> float:
    """Seconds of CPU that the living threads of a process have used, to the nanosecond."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def status(pid: int, field: str) -> int:
    """A number of /proc/PID/status; bytes where that has kB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            number, _, unit = value.strip().partition(" ")
            return int(number) * (1024 if unit == "kB" else 1)
    raise AssertionError(f"/proc/{pid}/status has no {field}")


def megabytes(count: float) -> float:
    return count / 1_000_000
