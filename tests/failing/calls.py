"""Makes one system call of this process fail, as a kernel would: ``calls.c`` stands before the C library."""

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.nginxes import cannot

_SOURCE = Path(__file__).with_name("calls.c")
_HOUSE = Path(__file__).parents[2]

ERRORS = tuple(
    getattr(errno, name)
    for name in ("EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "EIO", "ESTALE", "EROFS", "ENOSPC", "EDQUOT")
)


def build(directory: Path) -> Path:
    """The library for LD_PRELOAD; skips the test where there is no compiler, but never in CI."""
    compiler = shutil.which("cc") or cannot("cc is not installed")
    made = directory / "calls.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", made, _SOURCE, "-ldl"], check=True
    )
    return made


def run_with(library: Path, module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module`` where calls can be made to fail."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=_HOUSE,
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass
class Failure:
    """What is to fail: the ``number``-th call that may fail with ``error``, with ``lasting`` all
    after it; of this thread, or of all ``others``. ``call`` is what it was, if there were so many."""

    error: int
    number: int
    lasting: bool = False
    others: bool = False
    call: str = ""

    def __str__(self) -> str:
        which = f"{'from ' if self.lasting else ''}call {self.number} {'of other threads ' * self.others}"
        return f"{which}({self.call}) {errno.errorcode[self.error]}"


class Calls:
    """The calls of this process, which ``run_with`` has started."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.calls_failed.restype = ctypes.c_char_p
        os.environ.pop("LD_PRELOAD", None)  # nginx is another matter

    @contextmanager
    def failing(self, failure: Failure) -> Iterator[Callable[[], int]]:
        """Have a call of the block fail; what comes tells how many there were that might have."""
        count = 0
        self._library.calls_arm(failure.error, failure.number, failure.others, failure.lasting)
        try:
            yield lambda: count
        finally:
            count = self._library.calls_disarm()
            failure.call = self._library.calls_failed().decode()

    def refuse_links(self, *, are_refused: bool) -> None:
        """Have no hard link be made to a blob, so that it is copied."""
        self._library.calls_refuse_links(are_refused)
