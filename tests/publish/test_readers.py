"""Who has read the current generation."""

import time
from pathlib import Path

import pytest

from scr_watchd.publish.master import Process
from scr_watchd.publish.readers import Readers, read, write

CURRENT_SINCE = 1000.0  # seconds since boot; a process's start has hundredths of them


@pytest.mark.parametrize(
    ("started", "has"),
    [
        pytest.param(500.0, False, id="it started before and was not seen to read it"),
        pytest.param(1001.0, False, id="it may have read the one before, and become a daemon since"),
        pytest.param(1100.0, True, id="it found no other when it started"),
    ],
)
def test_a_master_that_nobody_told_has_read_what_it_found(started: float, *, has: bool) -> None:
    assert Readers(since=CURRENT_SINCE).have(Process(7, int(started * 100))) == has


def test_readers_are_noted_for_one_generation(tmp_path: Path) -> None:
    noted = Readers(frozenset({Process(7, 50_000)}), 1.0)
    write(tmp_path / "readers.json", "0123", noted)
    assert read(tmp_path / "readers.json", "0123") == noted
    assert not read(tmp_path / "readers.json", "4567").have(Process(7, 50_000))
    assert not read(tmp_path / "none.json", "0123").have(Process(7, 50_000))


def test_after_a_boot_every_nginx_has_found_what_is_current(tmp_path: Path) -> None:
    """This boot is younger than the generation."""
    path, since = tmp_path / "readers.json", time.clock_gettime(time.CLOCK_BOOTTIME) + 100
    write(path, "0123", Readers(frozenset({Process(7, 50_000)}), since))
    assert read(path, "0123").have(Process(8, 1))
