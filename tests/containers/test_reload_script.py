"""The script for nginx's images, with the shells and tools that those have: Debian's and busybox."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from scr_watchd.publish.nginx import inspect, temp_paths, user_directive
from tests.daemons import processes_with, public_directory
from tests.http import ask
from tests.nginxes import require
from tests.waiting import until

SCRIPT = Path(__file__).parent.parent.parent / "config" / "nginx-image" / "90-scr-watchd-reload.sh"
# as in nginx's images: scripts, with their names in a pipe, and then nginx in the place of the shell
ENTRYPOINT = 'echo "$1" | while read -r script; do $SHELL_UNDER_TEST "$script"; done; exec nginx'


@dataclass
class Container:
    directory: Path

    def publish(self, generation: str) -> None:
        """A generation as scr-watchd leaves it, switched in one step."""
        made = self.directory / "generations" / generation
        made.mkdir(parents=True)
        (made / "server.conf").write_text(f"location / {{ return 200 {generation}; }}\n")
        new = self.directory / "new"
        new.symlink_to(made)
        new.rename(self.directory / "current")

    def serves(self) -> str:
        try:
            return ask(str(self.directory / "nginx.sock"), "/").body.decode()
        except OSError:
            return ""

    def said(self) -> str:
        return (self.directory / "log").read_text()

    def shows(self, wanted: str) -> None:
        until(self.serves, lambda served: served == wanted, seconds=20)


@contextmanager
def container(shell: str) -> Iterator[Container]:
    """nginx as process 1, with nothing but busybox and nginx in PATH if ``shell`` is busybox."""
    binary = inspect(require("nginx"))
    with public_directory() as directory:
        made = Container(directory)
        made.publish("first")
        (directory / "nginx.conf").write_text(
            f"""daemon off; pid {directory}/nginx.pid; error_log stderr; {user_directive(os.geteuid())}
            events {{ }}
            http {{
                access_log off;
                {temp_paths(binary, directory)}
                server {{ listen unix:{directory}/nginx.sock; include {directory}/current/server*.conf; }}
            }}
            """
        )
        tools = directory / "bin"
        tools.mkdir()
        (tools / "nginx").write_text(f'#!/bin/sh\nexec {binary.path} -c {directory}/nginx.conf "$@"\n')
        (tools / "nginx").chmod(0o755)
        for name in ("sh", "sleep", "readlink") if shell == "busybox" else ():
            (tools / name).symlink_to(require("busybox"))
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [require("unshare"), "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
                 "/bin/sh", "-c", ENTRYPOINT, "entrypoint", SCRIPT],
                stdout=log,
                stderr=log,
                env={
                    "PATH": str(tools) if shell == "busybox" else f"{tools}:{os.environ['PATH']}",
                    "SHELL_UNDER_TEST": "sh",
                    "SCR_WATCHD_CURRENT": str(directory / "current"),
                    "SCR_WATCHD_SECONDS": "0.1",
                },
            )  # fmt: skip
        try:
            made.shows("first")
            yield made
        finally:
            process.kill()  # and with it all that is in its process namespace
            process.wait()


@pytest.fixture(params=["dash", "busybox"])
def running(request: pytest.FixtureRequest) -> Iterator[Container]:
    if os.geteuid() != 0:
        pytest.skip("only root can have a process namespace of its own")
    with container(request.param) as made:
        yield made


def test_nginx_follows_the_link(running: Container) -> None:
    for generation in ("second", "third"):
        running.publish(generation)
        running.shows(generation)


def test_what_nginx_refuses_is_not_tried_and_is_said_once(running: Container) -> None:
    broken = running.directory / "generations" / "broken"
    broken.mkdir()
    (broken / "server.conf").write_text("oops;\n")
    new = running.directory / "new"
    new.symlink_to(broken)
    new.rename(running.directory / "current")
    until(lambda: 'unknown directive "oops"' in running.said())
    assert running.serves() == "first"
    (broken / "server.conf").write_text("location / { return 200 mended; }\n")
    running.shows("mended")
    assert running.said().count("nginx refuses its configuration") == 1


def test_it_ends_with_nginx(running: Container) -> None:
    assert processes_with(str(SCRIPT))
    os.kill(next(pid for pid in processes_with(f"-c {running.directory}") if pid), signal.SIGQUIT)
    until(lambda: processes_with(str(SCRIPT)), lambda left: not left)
