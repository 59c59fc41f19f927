"""Every client of each Debian against every way an image can be served: the table of docs/clients.md.

.venv/bin/python -m pytest tests/clients/test_matrix.py      compares, for this machine and trixie
.venv/bin/python -m tests.clients                            makes the table anew, with sid
"""

import pytest

from tests.clients import results
from tests.clients.matrix import Matrix
from tests.nginxes import SUITES

pytestmark = [pytest.mark.slow, pytest.mark.clients]

HERE = ("docker", "containerd", "podman", "buildah", "skopeo")


class TestThisMachine(Matrix):
    names = HERE


if "trixie" in SUITES:

    class TestTrixie(Matrix):
        suite = "trixie"
        names = (*HERE, "docker with containerd's images", "oras")


if "sid" in SUITES:

    class TestSid(Matrix):
        suite = "sid"
        names = (*HERE, "docker with containerd's images", "oras", "crane")


def test_the_page_has_the_table_of_what_was_recorded() -> None:
    assert results.on_the_page()[1] == results.table()
