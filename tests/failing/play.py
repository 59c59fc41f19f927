"""Plays cases of one scenario, where calls can be made to fail: see ``tests.failing.__main__``."""

import argparse
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tests.failing.calls import Calls, Failure
from tests.failing.cases import Stage
from tests.failing.scenarios import BY_NAME

_FAULTS = 10  # are enough to begin with
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # syncing takes most of the time elsewhere


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=BY_NAME)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--only", action="append", default=[])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scrtest", dir=_MEMORY) as directory:
        Path(directory).chmod(0o755)
        stage = Stage(Calls(), Path(directory), BY_NAME[arguments.scenario])
        cases = map(_case, arguments.only) if arguments.only else stage.cases()
        played, faults = 0, 0
        for failure in islice(cases, arguments.start, None, arguments.every):
            played += 1
            found = stage.play(failure)
            faults += bool(found)
            if found:
                print(
                    *found[:_FAULTS],
                    f"  again: python -m tests.failing {stage.scenario} --only {_named(failure)}",
                    sep="\n",
                )
            if faults >= _FAULTS:
                break
    print(f"{stage.scenario}: {played} cases, {faults} faults")
    return int(faults > 0)


def _named(failure: Failure) -> str:
    return ":".join(_words(failure))


def _words(failure: Failure) -> Iterator[str]:
    yield errno.errorcode[failure.error]
    yield str(failure.number)
    if failure.lasting:
        yield "lasting"
    if failure.others:
        yield "others"


def _case(text: str) -> Failure:
    error, number, *more = text.split(":")
    return Failure(getattr(errno, error), int(number), lasting="lasting" in more, others="others" in more)


if __name__ == "__main__":
    sys.exit(main())
