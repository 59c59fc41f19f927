"""What happens to operators: an nginx that is absent, busy or hung, a disk that is full, a storm."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.commands.test_run import Host, host, running
from tests.daemons import Daemon, daemon, public_directory, remove, scr_watchd, site, start_nginx
from tests.nginxes import require
from tests.private_mounts import mount, run_with_private_mounts, unmount
from tests.trees import image, write_image
from tests.waiting import until

pytestmark = pytest.mark.slow

__all__ = ["host", "running"]  # fixtures


def workers_ever(host: Host) -> set[int]:
    assert host.site.process
    pid = host.site.process.pid
    return {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_an_nginx_test_that_hangs_is_ended_and_nginx_is_not_hung_with_it(
    running: tuple[Host, Daemon],
) -> None:
    """A FIFO among the site's files blocks whoever reads the configuration."""
    host, process = running
    process.stop()
    fifo = host.site.directory / "conf.d" / "fifo.conf"
    os.mkfifo(fifo)
    with daemon(*host.arguments("--nginx-test-seconds", "0.5")) as again:
        write_image(host.images / "app:1", image("first"))
        again.says("nginx refuses the site's configuration.*gave no answer for 0.5 s")
        assert host.site.other().status == 200
        assert host.site.ask("/v2/").status == 200
        fifo.unlink()
        until(lambda: host.site.tags("app"), lambda tags: tags == ["1"], seconds=15)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty, as nginx -t leaves it"),
        pytest.param("999999999\n", id="stale"),
        pytest.param(f"{os.getpid()}\n", id="another program's"),
        pytest.param("nonsense\n", id="nonsense"),
    ],
)
def test_a_pid_file_that_names_no_nginx_is_no_nginx(running: tuple[Host, Daemon], content: str) -> None:
    host, process = running
    pid_file = host.site.directory / "nginx.pid"
    right = pid_file.read_text()
    pid_file.write_text(content)
    write_image(host.images / "app:1", image("first"))
    process.says("^warning: generation .* is not confirmed: nginx does not run")
    pid_file.write_text(right)
    until(lambda: host.site.tags("app"), lambda tags: tags == ["1"])
    process.says("^all is well again")


def test_nginx_may_be_restarted_and_reloaded_by_others_at_any_time(running: tuple[Host, Daemon]) -> None:
    host, process = running
    for number in range(5):
        write_image(host.images / f"app:{number}", image(str(number)))
        assert host.site.process
        if number % 2:
            host.site.process.send_signal(signal.SIGHUP)
        else:
            host.site.process.terminate()
            host.site.process.wait(10)
            start_nginx(host.site, host.nginx)
    wanted = [str(number) for number in range(5)]
    until(lambda: host.site.tags("app"), lambda tags: tags == wanted, seconds=20)
    until(
        lambda: scr_watchd("status", "--state", host.state).returncode, lambda status: status == 0, seconds=20
    )
    assert "Traceback" not in process.said()


def test_a_storm_of_changes_makes_at_most_two_reloads(running: tuple[Host, Daemon]) -> None:
    """With the default pace: the first after two seconds of it at the latest, the second at its end."""
    host, process = running
    process.stop()
    with daemon(*host.arguments("--min-reload-seconds", "2")) as again:
        again.says("^serving 0 images")
        before = workers_ever(host)
        generations = {host.site.generation()}
        start = time.monotonic()
        changes = 0
        while changes < 10_000:
            path = write_image(host.images / f"app:{changes % 50}", image(str(changes % 50)))
            changes += 6
            remove(path)
            changes += 6
        write_image(host.images / "last:1", image("last"))
        while not host.site.tags("last"):
            generations.add(host.site.generation())
            assert time.monotonic() < start + 60
        elapsed = time.monotonic() - start
        assert before
        assert len(generations) - 1 <= 1 + elapsed / 2


def test_a_storm_of_signals_is_survived(running: tuple[Host, Daemon]) -> None:
    host, process = running
    write_image(host.images / "app:1", image("first"))
    for number in range(300):
        process.process.send_signal(signal.SIGHUP if number % 2 else signal.SIGUSR1)
    until(lambda: host.site.tags("app"), lambda tags: tags == ["1"])
    assert process.stop() == 0
    assert "Traceback" not in process.said()


def test_sigterm_during_the_test_of_the_site_ends_it_in_order(running: tuple[Host, Daemon]) -> None:
    host, process = running
    process.stop()
    fifo = host.site.directory / "conf.d" / "fifo.conf"
    os.mkfifo(fifo)
    with daemon(*host.arguments("--nginx-test-seconds", "2")) as again:
        write_image(host.images / "app:1", image("first"))
        until(lambda: "zzz" if _is_testing(host) else "", seconds=15)
        assert again.stop() == 0
    fifo.unlink()
    assert host.site.ask("/v2/").status == 200
    assert scr_watchd(*host.arguments("--once")).returncode == 0
    assert host.site.tags("app") == ["1"]


def _is_testing(host: Host) -> bool:
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return f"-t -q -e stderr -c {host.site.config}" in listing


def test_a_full_disk_stops_nothing_and_mends_itself() -> None:
    run_with_private_mounts(full_disk)


def full_disk() -> None:
    """The state directory on a disk of its own, which fills up and is freed again."""
    with public_directory() as directory:
        state = directory / "state"
        state.mkdir()
        mount("-t", "tmpfs", "-o", "size=512k,mode=755", "tmpfs", state)
        nginx = require("nginx")
        with site(directory / "site", state, program=nginx, start=False) as made:
            host = Host(directory / "images", state, made, nginx)
            host.images.mkdir()
            host.initial()
            start_nginx(made, nginx)
            with daemon(*host.arguments()) as process:
                write_image(host.images / "app:1", image("first"))
                until(lambda: made.tags("app"), lambda tags: tags == ["1"])
                process.says("^app:1 is there")
                filler = state / "filler"
                with pytest.raises(OSError, match="No space left"):
                    fill(filler)
                write_image(host.images / "app:2", image("second"))
                process.says(r"^error: .*state.*: No space left on device.*What was published stays")
                assert made.tags("app") == ["1"]
                assert made.other().status == 200
                filler.unlink()
                process.says("^app:2 is there")
                until(lambda: made.tags("app"), lambda tags: tags == ["1", "2"])
            assert "Traceback" not in process.said()
        unmount(state)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))


def test_a_state_directory_that_cannot_be_written_is_a_sentence() -> None:
    run_with_private_mounts(read_only_state)


def read_only_state() -> None:
    with public_directory() as directory:
        for name in ("state", "images"):
            (directory / name).mkdir()
        mount("--bind", directory / "state", directory / "state")
        mount("-o", "remount,bind,ro", directory / "state")
        result = scr_watchd("run", directory / "images", "--state", directory / "state")
        assert result.returncode == 1
        assert result.stderr.startswith("scr-watchd: cannot write the state directory")
        assert "Read-only file system" in result.stderr
        unmount(directory / "state")
