"""A daemon that does not go on is told from one that does: `status`, and the probes of containers."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests import probes
from tests.commands.test_run import Host, _message, host, running
from tests.daemons import Daemon, daemon, scr_watchd, start_nginx
from tests.publish.test_answering import drips, server
from tests.trees import image, write_image
from tests.waiting import until

__all__ = ["host", "running"]  # fixtures


def test_a_daemon_that_hangs_is_said_to_hang_and_is_not_healthy(
    running: tuple[Host, Daemon], tmp_path: Path
) -> None:
    host, process = running
    write_image(host.images / "app:1", image("first"))
    until(lambda: host.site.tags("app"))

    def status(*more: str) -> subprocess.CompletedProcess[str]:
        return scr_watchd("status", "--state", host.state, *more)

    until(lambda: status().returncode, lambda code: code == 0)
    assert probes.that_pass(host.state, tmp_path) == set(probes.COMMANDS)
    lock = host.state / "lock"
    process.process.send_signal(signal.SIGSTOP)
    os.utime(lock, (time.time() - 100,) * 2)
    said = status()
    assert said.returncode == 4
    assert re.search(
        rf"^hanging: +process {process.process.pid} gave no sign of life for 10\d s", said.stdout
    )
    assert '"hanging": true' in status("--json").stdout
    assert probes.that_pass(host.state, tmp_path) == set()
    process.process.send_signal(signal.SIGCONT)
    until(lambda: status().returncode, lambda code: code == 0, seconds=30)
    assert probes.that_pass(host.state, tmp_path) == set(probes.COMMANDS)


def test_a_daemon_that_waits_within_its_limits_does_not_hang(host: Host) -> None:
    """The wait for the proof of a reload counts as progress, for `status` and for systemd."""
    host.initial()
    start_nginx(host.site, host.nginx)
    write_image(host.images / "app:1", image("first"))
    with (
        server(drips(b"HTTP/1.1 200 OK\r\nX: ", b"x")) as address,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        notify = host.state.parent / "notify"
        manager.bind(str(notify))
        manager.settimeout(10)
        arguments = host.arguments("--confirm", f"http://{address}/", "--confirm-seconds", "60")
        with daemon(*arguments, NOTIFY_SOCKET=str(notify), WATCHDOG_USEC="400000"):
            lock = host.state / "lock"
            until((host.state / "pending").exists)
            os.utime(lock, (time.time() - 100,) * 2)
            for _ in range(5):
                _message(manager, "WATCHDOG=1")
            until(lambda: lock.stat().st_mtime, lambda beat: time.time() - beat < 50, seconds=20)
