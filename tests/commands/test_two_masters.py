"""While nginx's binary is upgraded (USR2) there are two masters, and either may end first."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from scr_watchd.daemon import status as statuses
from scr_watchd.publish import master
from scr_watchd.publish.master import Process
from tests.commands.test_run import Host, host
from tests.daemons import Daemon, daemon, public_directory, scr_watchd, site
from tests.endurance.hosts import image_of, layer
from tests.http import ask
from tests.nginxes import require, require_root
from tests.trees import image, write_image
from tests.waiting import until

__all__ = ["host"]

pytestmark = pytest.mark.slow

_REQUESTS = 40
_LARGE = image_of("large", [layer("large", 32_000_000)])  # more than sockets hold
NEVER = ("--rescan-seconds", "3600")
"""What is noticed is noticed by itself."""


def test_while_the_old_master_accepts_nothing_counts_as_published(upgraded: "Upgraded") -> None:
    host, process = upgraded.host, upgraded.process
    before = set(master.workers(upgraded.old))
    write_image(host.images / "app:2", image("second"))
    process.says(rf"is not confirmed: {upgrade_of(upgraded.old)}")
    assert upgraded.wait("app:2", seconds=1).returncode == 75
    assert set(master.workers(upgraded.old)) == before, "it was told, and started more workers"


@pytest.mark.parametrize("number", [signal.SIGWINCH, signal.SIGQUIT])
def test_published_means_that_no_old_worker_takes_requests(
    upgraded: "Upgraded", number: signal.Signals
) -> None:
    """It does not wait for the download that an old worker still has."""
    host = upgraded.host
    with download(host):
        write_image(host.images / "app:2", image("second"))
        upgraded.process.says(r"is not confirmed: nginx is being upgraded")
        master.send(upgraded.old, number)
        upgraded.publishes("app:2")
        assert True in master.workers(upgraded.old).values(), "the download should be under way"
    assert upgraded.is_confirmed()


@pytest.mark.parametrize("winched", [False, True])
def test_when_an_upgrade_is_taken_back_the_old_master_is_told(upgraded: "Upgraded", *, winched: bool) -> None:
    host = upgraded.host
    if winched:
        master.send(upgraded.old, signal.SIGWINCH)
    write_image(host.images / "app:2", image("second"))
    if winched:
        upgraded.publishes("app:2")
    else:
        upgraded.process.says(r"is not confirmed: nginx is being upgraded")
    master.send(upgraded.new, signal.SIGQUIT)
    until(lambda: not master.alive(upgraded.new))
    until(lambda: statuses_of(host, "app:2"), lambda each: each == {200: _REQUESTS}, seconds=5)
    upgraded.publishes("app:2")


def test_an_upgrade_that_is_taken_back_during_a_download_says_so(upgraded: "Upgraded") -> None:
    """The new master obeys no longer, and the old one must not be told before the new one has ended."""
    host = upgraded.host
    master.send(upgraded.old, signal.SIGWINCH)
    until(lambda: master.accepts(upgraded.old), lambda accepts: not accepts)
    with download(host):
        write_image(host.images / "app:2", image("second"))
        upgraded.publishes("app:2")
        master.send(upgraded.old, signal.SIGHUP)  # as nginx's documentation has it: its workers come back
        until(lambda: master.accepts(upgraded.old))
        master.send(upgraded.new, signal.SIGQUIT)
        write_image(host.images / "app:3", image("third"))
        upgraded.process.says(
            rf"upgrade is taken back, and its new master \(process {upgraded.new.pid}\) still finishes"
        )
        master.send(upgraded.new, signal.SIGTERM)
        upgraded.publishes("app:3")


def test_an_upgrade_under_which_nothing_changes_is_no_trouble(upgraded: "Upgraded") -> None:
    """Both masters have read what is current."""
    upgraded.process.process.send_signal(signal.SIGUSR1)
    until(lambda: str(upgraded.new.pid) in (upgraded.host.state / "readers.json").read_text())
    assert upgraded.is_confirmed()
    assert "not confirmed" not in upgraded.process.said()
    master.send(upgraded.old, signal.SIGQUIT)
    write_image(upgraded.host.images / "app:2", image("second"))
    upgraded.publishes("app:2")


@pytest.mark.parametrize("upgraded", ["url"], indirect=True)
def test_also_where_the_site_is_asked_old_workers_count(upgraded: "Upgraded") -> None:
    write_image(upgraded.host.images / "app:2", image("second"))
    upgraded.process.says(r"is not confirmed")
    master.send(upgraded.old, signal.SIGWINCH)
    upgraded.publishes("app:2")


def test_an_upgrade_that_was_taken_back_while_no_daemon_ran_is_noticed(host: Host) -> None:
    host.initial()
    with nginx_of(host) as old:
        write_image(host.images / "app:1", image("first"))
        assert scr_watchd(*host.arguments("--once")).returncode == 0
        new = upgrade(host, old)
        master.send(old, signal.SIGWINCH)
        until(lambda: master.accepts(old), lambda accepts: not accepts)
        write_image(host.images / "app:2", image("second"))
        assert scr_watchd(*host.arguments("--once")).returncode == 0
        master.send(new, signal.SIGQUIT)
        until(lambda: master.accepts(old) and not master.alive(new))
        assert statuses_of(host, "app:2") == {404: _REQUESTS}
        assert scr_watchd(*host.arguments("--once")).returncode == 0
        assert statuses_of(host, "app:2") == {200: _REQUESTS}


def test_the_only_master_of_the_process_table_is_the_newest() -> None:
    """In a process namespace of its own, as a container is."""
    require_root("only root can make a process namespace")
    call = f"from {__name__} import newest_scenario; newest_scenario()"
    subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", call], check=True, timeout=60
    )


def newest_scenario() -> None:
    with public_directory() as directory:
        (directory / "images").mkdir()
        with site(directory / "site", directory / "state", program=require("nginx"), start=False) as made:
            here = Host(directory / "images", directory / "state", made, require("nginx"))
            here.initial()
            with nginx_of(here) as old:
                assert master.by_process_table() == old
                new = upgrade(here, old)
                assert master.by_process_table() == new
                master.send(new, signal.SIGQUIT)
                until(lambda: by_pid_file(here), lambda only: only == old)  # else it would ignore USR2
                assert master.by_process_table() == old
                new = upgrade(here, old)
                master.send(old, signal.SIGQUIT)
                until(lambda: not master.alive(old))
                assert master.by_process_table() == new


# -- an nginx that is upgraded -------------------------------------------------------------------------


class Upgraded:
    """A daemon beside an nginx with two masters; ``app:1`` is published, and both have read it."""

    def __init__(self, host: Host, process: Daemon, old: Process) -> None:
        self.host, self.process, self.old = host, process, old
        self.new = upgrade(host, old)

    def publishes(self, reference: str) -> None:
        """Wait until ``reference`` is published, and see that every answer is a new one from then on."""
        waited = self.wait(reference, seconds=20)
        assert waited.returncode == 0, waited.stdout + self.process.said()
        until(self.is_confirmed)
        assert statuses_of(self.host, reference) == {200: _REQUESTS}

    def wait(self, reference: str, *, seconds: float) -> subprocess.CompletedProcess[str]:
        places = ("--root", self.host.images, "--state", self.host.state)
        return scr_watchd("wait", *places, "--timeout", seconds, reference)

    def is_confirmed(self) -> bool:
        status = statuses.read(self.host.state / "status.json")
        return status is not None and status.confirmed

    def reloads(self) -> int:
        return (self.host.site.directory / "error.log").read_bytes().count(b"reconfiguring")


@pytest.fixture
def upgraded(host: Host, request: pytest.FixtureRequest) -> Iterator[Upgraded]:
    asked = ("--confirm", f"http://{host.site.registry}") if hasattr(request, "param") else ()
    host.initial()
    write_image(host.images / "app:1", image("first"))
    write_image(host.images / "large:1", _LARGE)
    with nginx_of(host) as old, daemon(*host.arguments(*NEVER, *asked)) as process:
        until(lambda: statuses_of(host, "large:1"), lambda each: each == {200: _REQUESTS})
        yield Upgraded(host, process, old)


@contextmanager
def nginx_of(host: Host) -> Iterator[Process]:
    """The site's nginx as a daemon: one whose starter still lives takes no upgrade."""
    config, directory = host.site.config, host.site.directory
    config.write_text(config.read_text().replace("daemon off;", ""))
    subprocess.run([host.nginx, "-p", directory, "-c", config], cwd=directory, check=True)
    try:
        first = until(lambda: by_pid_file(host))
        assert first is not None
        yield first
    finally:
        until(lambda: not any(map(end, master.working_in(directory))))


def end(process: Process) -> bool:
    with contextlib.suppress(master.NotRunningError):
        master.send(process, signal.SIGTERM)
    return True


def by_pid_file(host: Host) -> Process | None:
    try:
        return master.by_pid_file(host.site.directory / "nginx.pid")
    except master.NotRunningError:
        return None


def upgrade(host: Host, old: Process) -> Process:
    master.send(old, signal.SIGUSR2)
    new = until(lambda: by_pid_file(host), lambda now: now not in (None, old) and master.workers(now))
    assert new is not None
    assert master.upgraded_from(new) == old
    return new


def upgrade_of(old: Process) -> str:
    return re.escape(f"nginx is being upgraded: WINCH or QUIT the old master (process {old.pid})")


def statuses_of(host: Host, reference: str) -> Counter[int]:
    """How forty requests for a manifest are answered, each on a connection of its own."""
    path = f"/v2/{reference.replace(':', '/manifests/')}"
    return Counter(ask(host.site.registry, path).status for _ in range(_REQUESTS))


@contextmanager
def download(host: Host) -> Iterator[None]:
    """A download that has begun, and does not go on."""
    digest = max(_LARGE.blobs, key=lambda each: len(_LARGE.blobs[each]))
    with closing(socket.create_connection(("127.0.0.1", host.site.port))) as client:
        client.sendall(f"GET /v2/large/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b"200 OK" in client.recv(1000)
        yield
