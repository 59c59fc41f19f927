"""Every call that a pass makes fails, with every error that it may fail with.

python -m tests.failing                       all of it: some thirty thousand cases
python -m tests.failing --every 10            a tenth of that
python -m tests.failing pin --only EMFILE:45  one case of the scenario "pin"
"""

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.failing.calls import build, run_with
from tests.failing.scenarios import BY_NAME


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=list(BY_NAME), help=", ".join(BY_NAME))
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth case")
    parser.add_argument("--start", type=int, default=0, metavar="K", help="begin with case K")
    parser.add_argument("--only", action="append", default=[], metavar="ERROR:NUMBER[:lasting][:others]")
    arguments = parser.parse_args()
    options = ["--every", arguments.every, "--start", arguments.start]
    options += [word for each in arguments.only for word in ("--only", each)]
    began, bad = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(os.cpu_count()) as pool:
        library = build(Path(directory))

        def play(scenario: str) -> int:
            done = run_with(library, "tests.failing.play", scenario, *options)
            print(done.stdout, done.stderr, sep="", end="", flush=True)
            return done.returncode

        bad = sum(pool.map(play, arguments.scenarios))
    print(f"{time.monotonic() - began:.0f} seconds")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
