"""What is read from the site's main configuration without asking nginx."""

from pathlib import Path

import pytest

from scr_watchd.publish.nginx import inspect, pid_file_of
from tests.nginxes import require


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("pid /run/a.pid;", "/run/a.pid", id="a line of its own"),
        pytest.param("daemon off; pid '/run/a.pid';", "/run/a.pid", id="behind another directive"),
        pytest.param("events { } pid /run/a.pid;", "/run/a.pid", id="behind a block"),
        pytest.param("# pid /run/a.pid;", None, id="a comment"),
        pytest.param("pid logs/a.pid;", None, id="below nginx's prefix"),
    ],
)
def test_the_pid_file_is_found_wherever_it_is_named(tmp_path: Path, text: str, found: str | None) -> None:
    nginx = inspect(require("nginx"))
    (tmp_path / "nginx.conf").write_text(text)
    assert pid_file_of(nginx, tmp_path / "nginx.conf") == (Path(found) if found else nginx.pid_file)
