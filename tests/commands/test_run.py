"""`scr-watchd run` beside a real nginx that somebody else runs."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.daemons import Daemon, Site, daemon, public_directory, remove, scr_watchd, site, start_nginx
from tests.nginxes import require, require_root
from tests.trees import image, write_image
from tests.waiting import until


@dataclass
class Host:
    """A mirror host: a directory of images, a state directory, a site, and how to run the daemon."""

    images: Path
    state: Path
    site: Site
    nginx: str

    def arguments(self, *more: object) -> tuple[object, ...]:
        return (
            "run", self.images, "--state", self.state, "--nginx", self.nginx,
            "--nginx-config", self.site.config, "--min-reload-seconds", "0.2", "--rescan-seconds", "1", *more,
        )  # fmt: skip

    def initial(self) -> None:
        """What a package would do: there is a generation before nginx first starts."""
        scr_watchd(*self.arguments("--once", "--confirm-seconds", "0.1"))

    def start_with_other_workers(self) -> None:
        """Start nginx with workers of another user than the images' owner."""
        if os.geteuid() != 0:
            pytest.skip("only root can have nginx run its workers as somebody else")
        config = self.site.config
        config.write_text(config.read_text().replace("user root root;", "user nobody nogroup;"))
        self.initial()
        start_nginx(self.site, self.nginx)


@pytest.fixture
def host() -> Iterator[Host]:
    with public_directory() as directory:
        images, state = directory / "images", directory / "state"
        images.mkdir()
        nginx = require("nginx")
        with site(directory / "site", state, program=nginx, start=False) as made:
            yield Host(images, state, made, nginx)


@pytest.fixture
def running(host: Host) -> Iterator[tuple[Host, Daemon]]:
    """The usual order: the daemon first, then nginx, which reads the first generation as it starts."""
    with daemon(*host.arguments()) as process:
        until(lambda: (host.state / "nginx" / "current").exists())
        start_nginx(host.site, host.nginx)
        until(lambda: host.site.ask("/v2/").status, lambda status: status == 200, seconds=15)
        yield host, process


def test_images_appear_are_replaced_and_disappear(running: tuple[Host, Daemon]) -> None:
    host, process = running
    first, second = image("first"), image("second")
    write_image(host.images / "app:1", first)
    write_image(host.images / "library" / "alpine" / "3.20", first)
    until(lambda: host.site.tags("app"), lambda tags: tags == ["1"])
    assert host.site.ask("/v2/library/alpine/manifests/3.20").body == first.raw
    remove(host.images / "app:1")
    write_image(host.images / "app:1", second)
    until(lambda: host.site.ask("/v2/app/manifests/1").body, lambda body: body == second.raw)
    remove(host.images / "app:1")
    until(lambda: host.site.ask("/v2/app/manifests/1").status, lambda status: status == 404)
    assert host.site.other().body == b"the other site"
    process.says(r"^app:1 is there")
    process.says(r"^app:1 was replaced")
    process.says(r"^app:1 is gone")


def test_polling_finds_the_same(host: Host) -> None:
    host.initial()
    start_nginx(host.site, host.nginx)
    with daemon(*host.arguments("--watch", "poll")):
        write_image(host.images / "app:1", image("first"))
        until(lambda: host.site.tags("app"), lambda tags: tags == ["1"])
        remove(host.images / "app:1")
        until(lambda: host.site.tags("app"), lambda tags: tags == [])


def test_without_a_usable_watcher_the_daemon_goes_on(running: tuple[Host, Daemon], tmp_path: Path) -> None:
    """These four commands kill watchdog 7.1's thread (KeyError); every thread object stays alive."""
    host, process = running
    write_image(host.images / "a" / "1", image("a"))
    until(lambda: host.site.tags("a"), lambda tags: tags == ["1"])
    trash = host.images.parent / "trash"
    trash.mkdir()
    (host.images / "a" / "1").rename(trash / "1")
    (host.images / "a" / "1").mkdir()
    (host.images / "a" / "1").rmdir()
    remove(trash / "1")
    write_image(host.images / "b" / "1", image("b"))
    until(lambda: host.site.tags("b"), lambda tags: tags == ["1"], seconds=20)
    until(lambda: host.site.tags("a"), lambda tags: tags == [], seconds=20)
    assert "Traceback" not in process.said()


def test_before_the_first_generation_nginx_answers_503(host: Host) -> None:
    host.images.rmdir()
    with daemon(*host.arguments()) as process:
        until(lambda: (host.state / "nginx" / "current").exists())
        start_nginx(host.site, host.nginx)
        answer = host.site.ask("/v2/app/manifests/1")
        assert (answer.status, answer.header("Retry-After")) == (503, "2")
        process.says(r"cannot be read.*No such file")
        host.images.mkdir()
        write_image(host.images / "app:1", image("first"))
        until(lambda: host.site.tags("app"), lambda tags: tags == ["1"])


def test_a_site_may_have_rules_on_the_repository_from_the_beginning(host: Host) -> None:
    host.images.rmdir()
    (host.site.directory / "conf.d" / "rules.conf").write_text(
        'map $scr_repo $realm { default off; ~^secret/ "secret"; }'
        "auth_basic $realm; auth_basic_user_file /dev/null;"
    )
    with daemon(*host.arguments()):
        until(lambda: (host.state / "nginx" / "current").exists())
        start_nginx(host.site, host.nginx)
        assert host.site.ask("/v2/").status == 503
        host.images.mkdir()
        write_image(host.images / "app:1", image("first"))
        write_image(host.images / "secret" / "app:1", image("second"))
        until(lambda: host.site.tags("app"), lambda tags: tags == ["1"])
        until(lambda: host.site.ask("/v2/secret/app/manifests/1").status, lambda status: status == 401)


def test_a_root_that_goes_away_takes_nothing_with_it(running: tuple[Host, Daemon]) -> None:
    host, process = running
    write_image(host.images / "app:1", image("first"))
    until(lambda: host.site.tags("app"), lambda tags: tags == ["1"])
    away = host.images.rename(host.images.with_name("away"))
    process.says(r"images directory \S+ cannot be read", seconds=15)
    assert host.site.tags("app") == ["1"]
    away.rename(host.images)
    write_image(host.images / "app:2", image("second"))
    until(lambda: host.site.tags("app"), lambda tags: tags == ["1", "2"], seconds=15)


def test_a_copy_that_is_broken_off_keeps_the_last_complete_version(running: tuple[Host, Daemon]) -> None:
    host, _ = running
    built = image("first")
    directory = write_image(host.images / "app:1", built)
    until(lambda: host.site.tags("app"), lambda tags: tags == ["1"])
    for path in directory.iterdir():
        path.unlink()
    (directory / "version").write_text("Directory Transport Version: 1.1\n")
    status = until(
        lambda: json.loads((host.state / "status.json").read_text()), lambda status: status["problems"]
    )
    assert status["pinned"] == ["app:1"]
    for digest, content in built.blobs.items():
        assert host.site.ask(f"/v2/app/blobs/{digest}").body == content
    assert host.site.ask("/v2/app/manifests/1").body == built.raw


def generations(host: Host) -> set[str]:
    return set(os.listdir(host.state / "nginx" / "generations"))


def test_a_broken_foreign_file_stops_nothing_and_is_named(running: tuple[Host, Daemon]) -> None:
    require_root("only root has the whole site tested")
    host, process = running
    write_image(host.images / "app:1", image("first"))
    until(lambda: host.site.tags("app"), lambda tags: tags == ["1"])
    process.says("^serving 1 image")  # said when the pass is over
    generation, kept = host.site.generation(), generations(host)
    foreign = host.site.directory / "conf.d" / "foreign.conf"
    foreign.write_text("server { listen 127.0.0.1:1; nonsense on; }\n")
    write_image(host.images / "app:2", image("second"))
    process.says(r"^error: nginx refuses the site's configuration.*nonsense.*foreign\.conf:1")
    seen = {(host.site.ask("/v2/app/manifests/1").status, host.site.generation()) for _ in range(200)}
    assert seen == {(200, generation)}
    status = scr_watchd("status", "--state", host.state)
    assert status.returncode == 3
    assert "foreign.conf:1" in status.stdout
    assert generations(host) == kept, "what was refused is not kept"
    foreign.unlink()
    until(lambda: host.site.tags("app"), lambda tags: tags == ["1", "2"], seconds=20)
    process.says(r"^all is well again")
    assert host.site.other().status == 200


def test_an_include_of_ours_that_the_site_cannot_have_is_told_from_the_sites_own(host: Host) -> None:
    """A map of the same name in the site: without our include the site is in order."""
    require_root("only root has the whole site tested")
    host.initial()
    start_nginx(host.site, host.nginx)
    write_image(host.images / "app:1", image("first"))
    (host.site.directory / "conf.d" / "clash.conf").write_text(
        "limit_req_zone $scr_repo zone=a:1m rate=1r/s;\n"
    )
    config = host.site.config
    config.write_text(
        config.read_text().replace("worker_processes 2;", "worker_processes 2;\nworker_nonsense;")
    )
    result = scr_watchd(*host.arguments("--once"))
    assert result.returncode == 1
    assert "nginx refuses the site's configuration" in result.stderr


def test_a_reload_that_nginx_silently_refuses_is_unconfirmed_and_clears_itself(
    running: tuple[Host, Daemon],
) -> None:
    """A port that another process has: `nginx -t` passes, and the reload changes nothing."""
    host, process = running
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (host.site.directory / "conf.d" / "taken.conf").write_text(f"server {{ listen 127.0.0.1:{port}; }}\n")
        process.process.terminate()
        process.process.wait(30)
        with daemon(*host.arguments("--confirm-seconds", "2")) as again:
            write_image(host.images / "app:1", image("first"))
            again.says(r"^warning: generation \w+ is not confirmed: nginx started no new worker")
            assert host.site.tags("app") == []
            taken.close()
            until(lambda: host.site.tags("app"), lambda tags: tags == ["1"], seconds=20)
            again.says(r"^all is well again")


def test_a_site_that_does_not_include_us_is_told_which_lines_to_add(running: tuple[Host, Daemon]) -> None:
    require_root("only root has the whole site tested")
    host, process = running
    process.stop()
    config = host.site.config
    with_us = config.read_text()
    config.write_text("\n".join(line for line in with_us.splitlines() if "/current/" not in line))
    with daemon(*host.arguments()) as again:
        write_image(host.images / "app:1", image("first"))
        again.says(
            rf"is not confirmed: {config} does not include it\. Add to its http {{}}, in a file "
            rf"{config.parent}/conf\.d/00-scr-watchd\.conf: "
            rf"include \S+/http\*\.conf; and to a server {{}}, such as that of "
            rf"{config}:\d+: include \S+/server\*\.conf;"
        )
        config.write_text(re.sub(r"include \S+/current/server\*\.conf;", "", with_us))
        again.says(
            rf"{config} does not include all of it. Add to a server {{}}, such as that of {config}:\d+: "
        )
        config.write_text(with_us)
        until(lambda: host.site.tags("app"), lambda tags: tags == ["1"])
        again.says("^all is well again")


def test_nginx_may_come_later(host: Host) -> None:
    write_image(host.images / "app:1", image("first"))
    with daemon(*host.arguments()) as process:
        process.says(r"^warning: generation \w+ is not confirmed: nginx does not run")
        start_nginx(host.site, host.nginx)
        assert host.site.tags("app") == ["1"]
        process.says(r"^all is well again", seconds=20)
    status = json.loads((host.state / "status.json").read_text())
    assert status["outcome"] in ("published", "unchanged")


def test_confirmation_by_url(host: Host) -> None:
    host.initial()
    start_nginx(host.site, host.nginx)
    write_image(host.images / "app:1", image("first"))
    result = scr_watchd(*host.arguments("--once", "--confirm", f"http://{host.site.registry}/"))
    assert result.returncode == 0, result.stderr
    assert host.site.tags("app") == ["1"]
    wrong = scr_watchd(
        *host.arguments(
            "--once", "--confirm", f"http://127.0.0.1:{host.site.other_port}", "--confirm-seconds", "1"
        )
    )
    assert wrong.returncode == 0, "nothing changed, so nothing is to be confirmed"
    write_image(host.images / "app:2", image("second"))
    wrong = scr_watchd(
        *host.arguments(
            "--once", "--confirm", f"http://127.0.0.1:{host.site.other_port}", "--confirm-seconds", "1"
        )
    )
    assert wrong.returncode == 3
    assert "answers with something that is not scr-watchd's" in wrong.stderr


def test_a_reload_command_takes_the_place_of_the_signal(host: Host) -> None:
    host.initial()
    start_nginx(host.site, host.nginx)
    assert host.site.process
    write_image(host.images / "app:1", image("first"))
    result = scr_watchd(
        *host.arguments(
            "--once", "--reload", "command", "--reload-command", f"kill -HUP {host.site.process.pid}"
        )
    )
    assert result.returncode == 0, result.stderr
    assert host.site.tags("app") == ["1"]


def test_sigterm_ends_the_daemon_and_not_the_registry(running: tuple[Host, Daemon]) -> None:
    host, process = running
    write_image(host.images / "app:1", image("first"))
    until(lambda: host.site.tags("app"), lambda tags: tags == ["1"])
    assert process.stop(signal.SIGTERM) == 0
    assert host.site.tags("app") == ["1"]
    status = scr_watchd("status", "--state", host.state)
    assert status.returncode == 4
    assert "not running" in status.stdout


def test_a_restart_reloads_nothing_if_nothing_changed(running: tuple[Host, Daemon]) -> None:
    host, process = running
    write_image(host.images / "app:1", image("first"))
    until(lambda: host.site.tags("app"), lambda tags: tags == ["1"])
    process.says("app:1 is there")
    process.stop()
    before = _workers(host)
    with daemon(*host.arguments()) as again:
        again.says("serving 1 image in 1 repository")
        write_image(host.images / "app:2", image("second"))
        until(lambda: host.site.tags("app"), lambda tags: tags == ["1", "2"])
    assert before
    assert "app:1" not in again.said()


def test_sighup_reads_the_settings_again(host: Host, tmp_path: Path) -> None:
    host.initial()
    start_nginx(host.site, host.nginx)
    write_image(host.images / "app:1", image("first"))
    config = tmp_path / "config.toml"
    config.write_text("")
    with daemon(*host.arguments("--config", config)) as process:
        until(lambda: host.site.tags("app"), lambda tags: tags == ["1"])
        config.write_text('name_prefix = "mirror/"\n')
        process.process.send_signal(signal.SIGHUP)
        until(lambda: host.site.tags("mirror/app"), lambda tags: tags == ["1"])
        until(lambda: host.site.tags("app"), lambda tags: tags == [])
        config.write_text("name_prefixx = 3\n")
        process.process.send_signal(signal.SIGHUP)
        process.says(r"settings stay as they were: there is no setting name_prefixx")
        assert host.site.tags("mirror/app") == ["1"]


def test_a_second_daemon_on_the_same_state_names_the_first(running: tuple[Host, Daemon]) -> None:
    host, process = running
    second = scr_watchd(*host.arguments("--once"))
    assert second.returncode == 1
    assert f"process {process.process.pid}" in second.stderr


def test_the_service_manager_is_told(host: Host, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = host.state.parent / "notify"
        manager.bind(str(address))
        manager.settimeout(10)
        write_image(host.images / "app:1", image("first"))
        (host.images / "broken:\n\u2713").mkdir()
        host.initial()
        start_nginx(host.site, host.nginx)
        with daemon(
            *host.arguments(), NOTIFY_SOCKET=str(address), WATCHDOG_USEC="1000000", WATCHDOG_PID=""
        ) as process:
            ready = _message(manager, "READY=1")
            assert "STATUS=serving 1 image in 1 repository" in ready
        messages = ready + _message(manager, "STOPPING=1")
        assert process.process.returncode == 0
        assert messages.count("READY=1") == 1
    # the watchdog is for another process here, and then it is not pinged
    assert "WATCHDOG=1" not in messages


def test_the_service_manager_need_not_wait_where_an_earlier_run_has_published(host: Host) -> None:
    write_image(host.images / "app:1", image("first"))
    host.initial()
    start_nginx(host.site, host.nginx)
    assert scr_watchd(*host.arguments("--once")).returncode == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = host.state.parent / "notify"
        manager.bind(str(address))
        manager.settimeout(10)
        with daemon(*host.arguments(), NOTIFY_SOCKET=str(address)):
            assert "STATUS=serving what was published last" in _message(manager, "READY=1")
            _message(manager, "STATUS=serving 1 image in 1 repository")


def test_the_watchdog_is_pinged_from_the_loop(host: Host) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = host.state.parent / "notify"
        manager.bind(str(address))
        manager.settimeout(10)
        with daemon(*host.arguments(), NOTIFY_SOCKET=str(address), WATCHDOG_USEC="600000") as process:
            for _ in range(3):
                _message(manager, "WATCHDOG=1")
            process.process.send_signal(signal.SIGHUP)
            assert "MONOTONIC_USEC=" in _message(manager, "RELOADING=1")
            _message(manager, "READY=1")


def test_once_says_what_it_found_by_its_exit_status(host: Host) -> None:
    host.initial()
    start_nginx(host.site, host.nginx)
    write_image(host.images / "app:1", image("first"))
    assert scr_watchd(*host.arguments("--once")).returncode == 0
    (host.images / "broken:1").mkdir()
    (host.images / "broken:1" / "manifest.json").write_text("{")
    result = scr_watchd(*host.arguments("--once"))
    assert result.returncode == 3
    assert "not served" in result.stderr


def test_a_private_root_is_not_published(host: Host) -> None:
    write_image(host.images / "app:1", image("first"))
    host.images.chmod(0o700)
    result = scr_watchd(*host.arguments("--once"))
    assert f"not served: {host.images}: nginx may not enter {host.images} (mode 0700)" in result.stderr
    assert f"Permit it: chmod o+x {host.images}" in result.stderr


def test_two_daemons_never_share_a_store(running: tuple[Host, Daemon]) -> None:
    host, _ = running
    store = host.state / "store"
    second = scr_watchd(
        "run", host.images, "--once", "--state", host.state.with_name("other"), "--store", store
    )
    assert second.returncode == 1
    assert f"another scr-watchd uses the store {store}" in second.stderr


def test_only_the_owner_may_read_it_so_nobody_is_served(host: Host) -> None:
    """nginx's workers run as another user here, and a link elsewhere would publish what was private."""
    host.start_with_other_workers()
    private = write_image(host.images / "secret" / "1", image("secret"))
    write_image(host.images / "app:1", image("first"))
    private.chmod(0o700)
    with daemon(*host.arguments()) as process:
        until(lambda: host.site.tags("app"), lambda tags: tags == ["1"])
        assert host.site.ask("/v2/app/manifests/1").status == 200
        assert host.site.ask("/v2/secret/manifests/1").status == 404
        process.says(r"^warning: not served: \S+secret/1: nginx may not enter it.*chmod")
        private.chmod(0o755)
        until(
            lambda: host.site.ask("/v2/secret/manifests/1").status, lambda status: status == 200, seconds=15
        )


def _message(manager: socket.socket, wanted: str) -> str:
    """Everything that the service manager is sent, up to the message with ``wanted``."""
    received = ""
    deadline = time.monotonic() + 10
    while wanted not in received:
        assert time.monotonic() < deadline, received
        received += manager.recv(4096).decode() + "\n"
    return received


def _workers(host: Host) -> str:
    assert host.site.process
    return Path(f"/proc/{host.site.process.pid}/task/{host.site.process.pid}/children").read_text()
