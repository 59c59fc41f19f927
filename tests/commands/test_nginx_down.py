"""An nginx that was stopped answers nobody, and `status`, `wait` and the log do not say otherwise."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from scr_watchd.publish import master
from tests import probes
from tests.commands.test_never_wrong import started
from tests.commands.test_run import Host, host
from tests.commands.test_serve import images, serving
from tests.daemons import Daemon, daemon, is_running, scr_watchd, service_manager, start_nginx
from tests.http import ask
from tests.nginxes import require, require_root
from tests.trees import image, write_image
from tests.waiting import until

__all__ = ["host", "images", "started"]  # fixtures

BUILT = image("first")


def status(host: Host) -> tuple[int, str]:
    result = scr_watchd("status", "--state", host.state)
    return result.returncode, result.stdout


def wait_for(host: Host, *more: object) -> subprocess.CompletedProcess[str]:
    return scr_watchd("wait", "app:1", "--root", host.images, "--state", host.state, *more)


def serves(host: Host, process: Daemon) -> None:
    write_image(host.images / "app:1", BUILT)
    process.says("^app:1 is there")
    until(lambda: status(host)[0], lambda code: code == 0)  # it is written a moment after that line


def end_nginx(host: Host, number: signal.Signals = signal.SIGTERM) -> None:
    assert host.site.process
    host.site.process.send_signal(number)
    host.site.process.wait(10)
    host.site.process = None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_nginx_that_ends_is_told_of_at_once_and_so_is_its_return(
    started: Host, number: signal.Signals
) -> None:
    """The rescan is far away: the kernel tells of the end, and the daemon looks for the return."""
    with daemon(*started.arguments("--rescan-seconds", "600")) as process:
        serves(started, process)
        workers = _workers(started)
        end_nginx(started, number)
        process.says("^warning: nginx does not run .*: start it", seconds=3)
        code, text = status(started)
        assert code == 5
        assert "state:      nginx does not run" in text
        told = json.loads((started.state / "status.json").read_text())
        assert (told["nginx"]["up"], told["confirmed"]) == (False, False)
        assert "nginx_up 0" in (started.state / "metrics.prom").read_text()
        for worker in filter(is_running, workers):  # of a master that was killed: they keep the port
            os.kill(worker, signal.SIGKILL)
        until(lambda: [*filter(is_running, workers)], lambda left: left == [])
        start_nginx(started.site, started.nginx)
        process.says(r"^nginx runs again \(process \d+\)", seconds=5)
        until(lambda: status(started)[0], lambda code: code == 0)
        assert "nginx_up 1" in (started.state / "metrics.prom").read_text()
        assert started.site.ask("/v2/app/manifests/1").status == 200


def _workers(host: Host) -> list[int]:
    assert host.site.process
    return [each.pid for each in master.workers(master.Process(host.site.process.pid, 0))]


def test_the_service_manager_is_told_too(started: Host) -> None:
    address = started.images.parent / "notify"
    with (
        service_manager(address, seconds=10) as hear,
        daemon(*started.arguments(), NOTIFY_SOCKET=str(address)) as process,
    ):
        serves(started, process)
        end_nginx(started)
        hear("^STATUS=nginx does not run .*: start it$")
        start_nginx(started.site, started.nginx)
        hear("^STATUS=serving 1 image in 1 repository$")


def test_status_looks_itself(started: Host) -> None:
    """The daemon is stopped, so that it can have seen nothing."""
    with daemon(*started.arguments()) as process:
        serves(started, process)
        process.process.send_signal(signal.SIGSTOP)
        try:
            end_nginx(started)
            code, text = status(started)
            assert code == 5
            assert "nginx:      not running: nginx does not run" in text
            start_nginx(started.site, started.nginx)
            assert status(started)[0] == 0
        finally:
            process.process.send_signal(signal.SIGCONT)


def test_each_probe_fails_for_what_starting_its_container_again_mends(started: Host, tmp_path: Path) -> None:
    with daemon(*started.arguments()) as process:
        serves(started, process)
        (write_image(started.images / "half:1", image("half")) / "manifest.json").unlink()
        until(lambda: status(started)[0], lambda code: code == 3)
        assert probes.that_pass(started.state, tmp_path) == set(probes.COMMANDS)
        end_nginx(started)
        assert probes.that_pass(started.state, tmp_path) == {"sidecar image", "sidecar livenessProbe"}
    assert probes.that_pass(started.state, tmp_path) == set()


def test_status_before_anything_was_published_is_not_yet(host: Host, tmp_path: Path) -> None:
    """A container that answers 503 is not ready."""
    host.images.rmdir()
    host.initial()
    start_nginx(host.site, host.nginx)
    with daemon(*host.arguments()) as process:
        process.says("cannot be read")
        assert status(host)[0] == 75
        assert set(probes.COMMANDS) - probes.that_pass(host.state, tmp_path) == {"all-in-one readinessProbe"}


def test_wait_believes_no_digest_of_an_nginx_that_is_down(started: Host) -> None:
    with daemon(*started.arguments()) as process:
        serves(started, process)
        assert wait_for(started).returncode == 0
        end_nginx(started)
        result = wait_for(started, "--timeout", "0.5")
        assert result.returncode == 75
        assert result.stdout.startswith("app:1 cannot be pulled: nginx does not run")
        start_nginx(started.site, started.nginx)
        assert wait_for(started).stdout == f"{BUILT.digest}\n"


def test_wait_of_a_daemon_that_is_down_says_so_and_believes_nginx(started: Host) -> None:
    with daemon(*started.arguments()) as process:
        serves(started, process)
    result = wait_for(started)
    assert (result.returncode, result.stdout) == (0, f"{BUILT.digest}\n")
    assert result.stderr == (
        f"the daemon of {started.state} does not run; nginx serves what was published last\n"
    )
    end_nginx(started)
    assert wait_for(started).returncode == 4
    code, text = status(started)
    assert code == 4
    assert "daemon:     not running\n" in text


def test_after_serve_has_ended_nothing_is_served(images: Path) -> None:
    write_image(images / "app:1", BUILT)
    with serving(images):
        assert scr_watchd("wait", "app:1", images).returncode == 0
    assert scr_watchd("wait", "app:1", images).returncode == 4
    result = scr_watchd("status", images)
    assert result.returncode == 4
    assert "serving" not in result.stdout


def test_an_nginx_of_serve_that_cannot_come_back_is_down(images: Path) -> None:
    write_image(images / "app:1", BUILT)
    nginx = images.parent / "nginx"
    nginx.symlink_to(require("nginx"))
    with serving(images, "--nginx", nginx) as (process, address):
        nginx.unlink()
        os.kill(int((images / ".scr-watchd" / "serve" / "nginx.pid").read_text()), signal.SIGKILL)
        process.says("^warning: nginx cannot be started")
        process.says("^warning: nginx does not run")
        assert scr_watchd("status", images).returncode == 5
        nginx.symlink_to(require("nginx"))
        process.says("^nginx runs again", seconds=15)
        assert ask(address, "/v2/app/manifests/1").status == 200
        until(lambda: scr_watchd("status", images).returncode, lambda code: code == 0)


def test_an_nginx_of_another_container_cannot_be_seen_and_that_is_said(started: Host) -> None:
    """The daemon's word counts while it runs; without it nobody knows."""
    require_root("only root can have a process namespace of its own")
    with daemon(*started.arguments()) as process:
        serves(started, process)
        assert _elsewhere(started, "status")[0] == 0
        end_nginx(started)
        process.says("^warning: nginx does not run")
        assert _elsewhere(started, "status")[0] == 5
        start_nginx(started.site, started.nginx)
        process.says("^nginx runs again")
    code, text = _elsewhere(started, "wait", "app:1", "--root", started.images)
    assert code == 0
    assert "whether nginx runs cannot be seen from here: it runs in another container" in text


def _elsewhere(host: Host, *words: object) -> tuple[int, str]:
    own = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    with daemon(*words, "--state", host.state, before=own) as command:
        return command.process.wait(20), command.said()


def test_where_others_tell_nginx_it_is_unseen_and_not_down(host: Host) -> None:
    """As beside a container whose script reloads nginx."""
    write_image(host.images / "app:1", BUILT)
    none = ("--reload", "none", "--confirm", "none", "--nginx-pid-file", host.state.parent / "nothing.pid")
    with daemon(*host.arguments(*none)) as process:
        process.says("^app:1 is there")
        code, text = status(host)
        assert code == 0
        assert "nginx:      cannot be seen: it is told by others (reload = none)" in text
        assert "\nscr_watchd_nginx_up" not in (host.state / "metrics.prom").read_text()
