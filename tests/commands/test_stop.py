"""SIGTERM ends the daemon within a second, whatever it waits for, and the next start goes on."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commands.test_run import Host, host, running
from tests.daemons import Daemon, daemon, free_port, processes_with, public_directory, scr_watchd, start_nginx
from tests.nginxes import require, require_root
from tests.publish.test_answering import drips, server
from tests.trees import image, write_image
from tests.waiting import until

__all__ = ["host", "running"]  # fixtures

_LONG = "30"  # seconds that each of the waits may take
_SOON = 4.0  # a second, on a machine that has more to do

Waiting = Callable[[Host], contextlib.AbstractContextManager[tuple[Daemon, Callable[[], object]]]]
"""A daemon, and what shows that it waits."""


def ends_soon(process: Daemon) -> None:
    began = time.monotonic()
    assert process.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < _SOON
    assert "Traceback" not in process.said()


@contextmanager
def an_answer_that_drips(host: Host, *more: str) -> Iterator[tuple[Daemon, Callable[[], object]]]:
    asked = []
    drip = drips(b"HTTP/1.1 200 OK\r\nX: ", b"x")

    def send(connection: socket.socket) -> None:
        asked.append(1)
        drip(connection)

    with server(send) as address:
        arguments = (*more, "--confirm", f"http://{address}/", "--confirm-seconds", _LONG)
        with daemon(*host.arguments(*arguments)) as process:
            yield process, lambda: asked


@contextmanager
def a_name_server_that_does_not_answer(host: Host) -> Iterator[tuple[Daemon, Callable[[], object]]]:
    if os.geteuid() != 0:
        pytest.skip("only root can have a resolv.conf of its own")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.47.11.1", 53))
        silent.settimeout(0)
        resolv = host.state.parent / "resolv.conf"
        resolv.write_text("nameserver 127.47.11.1\n")
        mounted = f'mount --bind {resolv} "$(realpath /etc/resolv.conf)" && exec "$@"'
        before = ("unshare", "--mount", "sh", "-c", mounted, "sh")
        arguments = ("--confirm", "http://registry.example:80/", "--confirm-seconds", _LONG)

        def is_asked() -> bytes:
            with contextlib.suppress(BlockingIOError):
                return silent.recv(512)
            return b""

        with daemon(*host.arguments(*arguments), before=before) as process:
            yield process, is_asked


@contextmanager
def a_test_of_the_site_that_hangs(host: Host) -> Iterator[tuple[Daemon, Callable[[], object]]]:
    if os.geteuid() != 0:
        pytest.skip("only root tests the site")
    fifo = host.site.directory / "conf.d" / "fifo.conf"
    os.mkfifo(fifo)
    with daemon(*host.arguments("--nginx-test-seconds", _LONG)) as process:
        yield process, lambda: _tests_of(host)
    fifo.unlink()
    assert _tests_of(host) == [], "it went with us"


def _tests_of(host: Host) -> list[int]:
    return [pid for pid in processes_with(str(host.site.config)) if b"-t\0" in _command(pid)]


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@contextmanager
def a_reload_command_that_hangs(host: Host) -> Iterator[tuple[Daemon, Callable[[], object]]]:
    script = host.state.parent / "reload"
    sleep = f"sleep 60.{free_port()}"  # no other's
    script.write_text(f"#!/bin/sh\ntrap '' TERM\nexec {sleep}\n")
    script.chmod(0o755)
    arguments = ("--reload", "command", "--reload-command", script, "--confirm-seconds", _LONG)
    with daemon(*host.arguments(*arguments)) as process:
        yield process, lambda: _running(sleep)
    until(lambda: _running(sleep), lambda left: not left)


def _running(command: str) -> list[int]:
    return processes_with(command.replace(" ", "\0"))


@contextmanager
def a_reload_that_nginx_refuses(host: Host) -> Iterator[tuple[Daemon, Callable[[], object]]]:
    require_root("only root has the whole site tested")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"server {{ listen 127.0.0.1:{taken.getsockname()[1]}; }}\n"
        (host.site.directory / "conf.d" / "taken.conf").write_text(listen)
        log = host.site.directory / "error.log"
        with daemon(*host.arguments("--confirm-seconds", _LONG)) as process:
            yield process, lambda: "Address already in use" in log.read_text()


WAITS: list[Waiting] = [
    an_answer_that_drips,
    a_name_server_that_does_not_answer,
    a_test_of_the_site_that_hangs,
    a_reload_command_that_hangs,
    a_reload_that_nginx_refuses,
]


@pytest.mark.parametrize("waiting", WAITS, ids=lambda wait: wait.__name__)
def test_sigterm_ends_the_wait_and_the_next_start_goes_on(host: Host, waiting: Waiting) -> None:
    host.initial()
    start_nginx(host.site, host.nginx)
    write_image(host.images / "app:1", image("first"))
    with waiting(host) as (process, it_waits):
        until(it_waits, seconds=20)
        ends_soon(process)
        assert host.site.other().status == 200
    assert (host.state / "pending").exists()
    for left in (host.site.directory / "conf.d").iterdir():
        left.unlink()
    assert scr_watchd(*host.arguments("--once")).returncode == 0
    assert host.site.tags("app") == ["1"]
    assert not (host.state / "pending").exists()


def test_once_says_that_it_was_cut_off(host: Host) -> None:
    host.initial()
    start_nginx(host.site, host.nginx)
    write_image(host.images / "app:1", image("first"))
    with an_answer_that_drips(host, "--once") as (process, it_waits):
        until(it_waits)
        assert process.stop() == 1
    assert "stopped during the pass" in process.last_words


@pytest.mark.parametrize("answers", [True, False], ids=["its start", "its first words"])
def test_sigterm_ends_a_serve_that_waits_for_its_nginx(tmp_path: Path, *, answers: bool) -> None:
    nginx = require("nginx")
    slow, sleep = tmp_path / "nginx", f"sleep 60.{free_port()}"
    others = f'case "$1" in -V|-t) exec {nginx} "$@";; esac\n' if answers else ""
    slow.write_text(f"#!/bin/sh\n{others}exec {sleep}\n")
    slow.chmod(0o755)
    with public_directory() as images, daemon("serve", images, "--nginx", slow) as process:
        until(lambda: _running(sleep))
        began = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(15) == 0
        assert time.monotonic() - began < _SOON
        until(lambda: _running(sleep), lambda left: not left)
