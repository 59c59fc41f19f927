"""A soak: `python -m tests.endurance --minutes 60 --seed 1`. As root, because it fills a disk of its own."""

import argparse
import os
import sys
import time

from tests.endurance.hosts import say


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        say("only root can mount the disk that is filled: run it as root")
        return 2
    if not arguments.here:  # in a mount namespace of its own
        again = [
            sys.executable,
            "-m",
            "tests.endurance",
            f"--minutes={arguments.minutes}",
            f"--seed={arguments.seed}",
        ]
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", *again, "--here"])
    from tests.endurance.soak import run

    wrong = run(arguments.minutes, arguments.seed)
    for each in wrong[:20]:
        say(f"wrong: {each}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
