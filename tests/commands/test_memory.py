"""What a daemon needs for a moment only, it gives back."""

import platform
import subprocess
import sys

import pytest

MEGABYTE = 1_000_000
PATTERN = f"""
import re, sys
from pathlib import Path
from scr_watchd.commands.memory import give_back

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

if sys.argv[1] == "yes":
    give_back()
first = bytearray(30 * {MEGABYTE})
del first  # from now on glibc thinks that such pieces come and go
before = resident()
large = bytearray(20 * {MEGABYTE})
small = bytearray(2000)
del large
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has another malloc")
def test_large_pieces_of_memory_go_back_to_the_system() -> None:
    def kept(given_back: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", PATTERN, given_back], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert kept("no") > 10 * MEGABYTE, "or the test shows nothing"
    assert kept("yes") < MEGABYTE
