"""Makes the table of docs/clients.md anew: this machine's clients, trixie's and sid's of today.

    .venv/bin/python -m tests.clients            with the roots that are kept, made if there are none
    .venv/bin/python -m tests.clients --anew     with new ones, if they can be had

Every Debian whose clients were all tried gets new rows and a new date; of the others what was recorded stays.
"""

import os
import subprocess
import sys

from tests.clients import results
from tests.documents import HOUSE
from tests.roots import UnavailableError, root

SUITES = ("trixie", "sid")


def main(arguments: list[str]) -> int:
    for suite in SUITES:
        try:
            root(suite, anew="--anew" in arguments)
        except UnavailableError as error:
            print(f"{suite} cannot be had today: {error}", file=sys.stderr)  # noqa: T201
    before = results.read()
    environment = {**os.environ, "SCR_TEST_DEBIANS": " ".join(SUITES), "WRITE_TABLE": "1"}
    tests = ("tests/clients/test_matrix.py", "tests/clients/test_signatures.py")
    command = (sys.executable, "-m", "pytest", *tests, "--deselect", f"{tests[0]}::{results.PAGE_TEST}")
    status = subprocess.run(command, cwd=HOUSE, env=environment, check=False).returncode
    results.write_page()
    for debian, record in results.read().items():
        kept = "" if record != before.get(debian) or not status else ", which may be of before"
        print(f"{debian}: {record['on']}{kept}")  # noqa: T201
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
