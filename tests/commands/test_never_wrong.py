"""What was pullable stays pullable, and what is served is true."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.commands.test_run import Host, host
from tests.commands.test_serve import images, serving, tags
from tests.daemons import Daemon, daemon, remove, scr_watchd, start_nginx
from tests.http import ask
from tests.trees import Built, image, write_image
from tests.waiting import until

pytestmark = pytest.mark.slow

__all__ = ["host", "images"]  # fixtures

T = TypeVar("T")


@pytest.fixture
def started(host: Host) -> Host:
    """A host whose nginx runs already."""
    host.initial()
    start_nginx(host.site, host.nginx)
    return host


def command(host: Host, name: str, *more: object) -> subprocess.CompletedProcess[str]:
    """A command for the daemon of ``host``."""
    return scr_watchd(name, *more, "--state", host.state)


def nudged(process: Daemon, observe: Callable[[], T], wanted: Callable[[T], object] = bool) -> T:
    """Have the daemon look now and again until ``wanted``; else it looks every ten seconds."""

    def nudge() -> T:
        process.process.send_signal(signal.SIGUSR1)
        return observe()

    return until(nudge, wanted)


@contextmanager
def asleep(process: Daemon) -> Iterator[None]:
    """Have the daemon see only what is there afterwards."""
    process.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.process.send_signal(signal.SIGCONT)


def status_by_tag(host: Host, tag: str = "1") -> int:
    return host.site.ask(f"/v2/app/manifests/{tag}").status


def answers(host: Host, built: Built) -> set[int]:
    """The statuses of everything of ``built`` by digest; what is 200 must be true."""
    found = set()
    for kind, contents in (("manifests", built.manifests), ("blobs", built.blobs)):
        for digest, content in contents.items():
            answer = host.site.ask(f"/v2/app/{kind}/{digest}")
            assert answer.status != 200 or answer.body == content
            found.add(answer.status)
    return found


def rotten_image(directory: Path, built: Built) -> Path:
    """Write an image with one wrong byte; returns the file that has it."""
    write_image(directory, built)
    file = directory / max(built.blobs)[7:]
    file.write_bytes(b"x" + file.read_bytes()[1:])
    return file


# -- grace -------------------------------------------------------------------------------------------


def test_what_is_removed_leaves_every_list_and_can_be_pulled_by_digest_for_a_while(started: Host) -> None:
    built = image("first")
    write_image(started.images / "app:1", built)
    write_image(started.images / "app:2", image("second"))
    with daemon(*started.arguments()) as process:
        process.says("^serving 2 images")
        remove(started.images / "app:1")
        process.says("^app:1 is gone")  # by then no worker of before takes requests
        assert status_by_tag(started) == 404
        assert started.site.tags("app") == ["2"]
        assert answers(started, built) == {200}
        remove(started.images / "app:2")
        process.says("^app:2 is gone")
        assert started.site.ask("/v2/app/tags/list").status == 404
        assert started.site.ask("/v2/_catalog").json() == {"repositories": []}
        assert answers(started, built) == answers(started, image("second")) == {200}
        write_image(started.images / "app:1", built)
        until(lambda: started.site.tags("app"), lambda found: found == ["1"])


def test_a_grace_ends(started: Host) -> None:
    built = image("first")
    write_image(started.images / "app:1", built)
    with daemon(*started.arguments("--grace-seconds", "1")) as process:
        until(lambda: status_by_tag(started), lambda status: status == 200)
        remove(started.images / "app:1")
        nudged(process, lambda: answers(started, built), lambda found: found == {404})
        until(lambda: list((started.state / "store").rglob(".blobs/*/*")) == [])


def test_the_end_of_a_grace_needs_no_reload_and_is_noted(started: Host) -> None:
    write_image(started.images / "app:1", image("first"))
    write_image(started.images / "app:2", image("second"))
    write_image(started.images / "gone:1", image("gone"))
    with daemon(*started.arguments("--grace-seconds", "1")) as process:
        process.says("^serving 3 images")
        remove(started.images / "app:1")
        remove(started.images / "gone:1")
        process.says("^gone:1 is gone")
        generation = started.site.generation()
        reloads = (started.site.directory / "error.log").read_bytes().count(b"reconfiguring")
        published = started.state / "published.json"
        assert b'"leaving"' in published.read_bytes()
        nudged(process, published.read_bytes, lambda content: b'"leaving"' not in content)
        until(lambda: (started.state / "store" / "gone").exists(), lambda there: not there)
        assert started.site.generation() == generation
        assert (started.site.directory / "error.log").read_bytes().count(b"reconfiguring") == reloads


def test_a_grace_survives_a_restart_and_a_kill(started: Host) -> None:
    built = image("first")
    write_image(started.images / "app:1", built)
    for number, end in enumerate((signal.SIGTERM, signal.SIGKILL, signal.SIGTERM), start=2):
        with daemon(*started.arguments()) as process:
            write_image(started.images / f"app:{number}", image(str(number)))
            process.says(f"^app:{number} is there")
            if number == 2:
                remove(started.images / "app:1")
                process.says("^app:1 is gone")
            assert status_by_tag(started) == 404
            assert answers(started, built) == {200}
            process.stop(end)
        assert answers(started, built) == {200}


def test_prune_frees_what_only_the_store_has(started: Host) -> None:
    built, shared = image("first"), image("second")
    write_image(started.images / "app:1", built)
    write_image(started.images / "app:2", shared)
    with daemon(*started.arguments()) as process:
        process.says("^serving 2 images")
        remove(started.images / "app:1")
        process.says("^app:1 is gone")
        size = sum(map(len, built.blobs.values()))
        until(
            lambda: command(started, "status").stdout, lambda text: f"{size} bytes only in the store" in text
        )
        result = command(started, "prune")
        assert (result.returncode, result.stdout) == (0, "the daemon frees it now\n")
        until(lambda: not list(started.state.glob("*.request")))
        assert answers(started, built) == {200}, "it left in the last minute"
        assert command(started, "prune", "--now").returncode == 0
        until(lambda: answers(started, built), lambda found: found == {404})
        until(lambda: command(started, "status").stdout, lambda text: "only in the store" not in text)
        assert answers(started, shared) == {200}
        process.stop()
    assert command(started, "prune").stdout == (
        "the daemon does not run; it will when it starts: "
        f"scr-watchd run {started.images} --state {started.state}\n"
    )


def test_a_request_that_comes_in_the_middle_of_a_pass_is_not_lost(started: Host, tmp_path: Path) -> None:
    """While nginx is reloaded the pass has decided already."""
    built = image("first")
    write_image(started.images / "app:1", built)
    assert started.site.process
    script = tmp_path / "reload"
    script.write_text(
        f"#!/bin/sh\ntest -e {tmp_path}/ask && rm {tmp_path}/ask "
        f"&& printf now > {started.state}/prune.request\n"
        f"kill -HUP {started.site.process.pid}\n"
    )
    script.chmod(0o755)
    with daemon(*started.arguments("--reload", "command", "--reload-command", script)) as process:
        until(lambda: status_by_tag(started), lambda status: status == 200)
        (tmp_path / "ask").touch()
        remove(started.images / "app:1")
        until(lambda: (tmp_path / "ask").exists(), lambda there: not there)
        nudged(process, lambda: answers(started, built), lambda found: found == {404})
        until(lambda: not (started.state / "prune.request").exists())


# -- the removal guard -------------------------------------------------------------------------------

TWELVE = {f"app:{number}": image(str(number)) for number in range(12)}


@contextmanager
def twelve(host: Host, *more: object) -> Iterator[Daemon]:
    for name, built in TWELVE.items():
        write_image(host.images / name, built)
    with daemon(*host.arguments(*more)) as process:
        until(lambda: len(host.site.tags("app")), lambda count: count == 12)
        yield process


def all_are_there(host: Host) -> bool:
    return all(
        host.site.ask(f"/v2/app/manifests/{name[4:]}").body == built.raw and answers(host, built) == {200}
        for name, built in TWELVE.items()
    )


def empty(host: Host, process: Daemon) -> None:
    with asleep(process):
        for path in host.images.iterdir():
            remove(path)


def test_when_most_images_vanish_at_once_they_stay_until_they_come_back(started: Host) -> None:
    with twelve(started) as process:
        empty(started, process)
        process.says(
            "^warning: 12 images vanished at once, and stay published: is a disk not mounted\\? To let them "
            f"go: scr-watchd accept --state {started.state}$"
        )
        assert all_are_there(started)
        status = command(started, "status")
        assert status.returncode == 3
        assert f"scr-watchd accept --state {started.state}" in status.stdout
        assert sorted(_held(status.stdout)) == sorted(TWELVE)
        write_image(started.images / "app:new", image("new"))
        until(lambda: status_by_tag(started, "new"), lambda found: found == 200)
        assert all_are_there(started)
        process.stop(signal.SIGKILL)
    with daemon(*started.arguments()) as process:
        process.says("12 images vanished at once")
        assert all_are_there(started)
        with asleep(process):
            for name, built in TWELVE.items():
                write_image(started.images / name, built)
        process.says("^no removal is held any more")
        assert all_are_there(started)
        assert command(started, "status").returncode == 0


def test_accept_lets_go_of_what_vanished(started: Host) -> None:
    with twelve(started) as process:
        empty(started, process)
        process.says("12 images vanished at once")
        assert command(started, "accept").stdout == "the daemon lets go of what it holds\n"
        until(lambda: started.site.tags("app"), lambda found: found == [])
        process.says("^no removal is held any more")
        assert answers(started, image("0")) == {200}, "it has its grace"
        assert command(started, "status").returncode == 0
        # and the guard is there again
        for name, built in TWELVE.items():
            write_image(started.images / name, built)
        until(lambda: len(started.site.tags("app")), lambda count: count == 12)
        empty(started, process)
        until(lambda: process.said().count("12 images vanished at once"), lambda count: count == 2)
        assert all_are_there(started)


def test_while_removals_are_held_the_store_is_tidied_elsewhere(started: Host) -> None:
    write_image(started.images / "other:1", image("before"))
    with twelve(started, "--grace-seconds", "0") as process:
        with asleep(process):
            for name in TWELVE:
                remove(started.images / name)
        process.says("12 images vanished at once")
        remove(started.images / "other:1")
        write_image(started.images / "other:1", image("after"))
        blobs = {digest[7:] for digest in image("after").blobs}
        stored = started.state / "store" / "other" / ".blobs" / "sha256"
        until(lambda: {path.name for path in stored.iterdir()}, lambda found: found == blobs)
        assert all_are_there(started)


def test_a_hold_ends_after_its_time(started: Host) -> None:
    with twelve(started, "--hold-seconds", "1") as process:
        empty(started, process)
        process.says("12 images vanished at once")
        nudged(process, lambda: started.site.tags("app"), lambda found: found == [])


def test_another_directory_in_the_place_of_the_root_takes_no_image_with_it(started: Host) -> None:
    """Few images, so that it is the directory that tells."""
    built = image("first")
    write_image(started.images / "app:1", built)
    with daemon(*started.arguments()) as process:
        until(lambda: status_by_tag(started), lambda status: status == 200)
        with asleep(process):
            away = started.images.rename(started.images.with_name("away"))
            started.images.mkdir()
        nudged(process, process.said, lambda text: "1 image vanished at once" in text)
        write_image(started.images / "app:2", image("second"))
        until(lambda: started.site.tags("app"), lambda found: found == ["1", "2"])
        assert answers(started, built) == {200}
        with asleep(process):
            started.images.rename(started.images.with_name("other"))
            away.rename(started.images)
        nudged(process, lambda: command(started, "status").stdout, lambda text: _held(text) == ["app:2"])
        assert command(started, "accept").returncode == 0
        process.says("^no removal is held any more")
        until(lambda: started.site.tags("app"), lambda found: found == ["1"])
        assert answers(started, built) == {200}


def _held(text: str) -> list[str]:
    _, _, held = text.partition("scr-watchd accept --state ")
    return held.split()[1:]


# -- rotten bytes ------------------------------------------------------------------------------------


def test_a_rotten_blob_is_not_served_and_is_named(started: Host) -> None:
    good = image("first")
    write_image(started.images / "app:1", good)
    with daemon(*started.arguments()) as process:
        until(lambda: status_by_tag(started), lambda status: status == 200)
        file = rotten_image(started.images / "app:2", image("second"))
        until(lambda: _not_served(started), lambda paths: paths == [str(file.parent)])
        assert f"the bytes of {file} are not those that its name says" in command(started, "status").stdout
        assert started.site.tags("app") == ["1"]
        remove(started.images / "app:1")
        rotten_image(started.images / "app:1", good)
        until(lambda: len(_not_served(started)), lambda count: count == 2)
        assert answers(started, good) == {200}, "the good bytes of before are served"
        assert started.site.tags("app") == ["1"]
        write_image(started.images / "app:2", image("second"))
        write_image(started.images / "app:1", good)
        nudged(process, lambda: command(started, "status").returncode, lambda status: status == 0)
        assert started.site.tags("app") == ["1", "2"]


def _not_served(host: Host) -> list[str]:
    return [str(each["path"]) for each in json.loads(command(host, "status", "--json").stdout)["problems"]]


# -- a mirror that deletes what it does not know -----------------------------------------------------


def all_is_served(address: str, built: Built) -> bool:
    paths = [f"manifests/{digest}" for digest in built.manifests] + [
        f"blobs/{digest}" for digest in built.blobs
    ]
    return all(ask(address, f"/v2/app/{path}").status == 200 for path in paths)


def remove_state(images: Path) -> None:
    """The daemon may be writing there."""
    shutil.rmtree(images / ".scr-watchd", ignore_errors=True)


@pytest.mark.parametrize(
    "at_once",
    [
        pytest.param(True, id="at the next change"),
        pytest.param(False, id="by itself", marks=pytest.mark.slow),
    ],
)
def test_serve_survives_the_removal_of_all_that_it_keeps(images: Path, at_once: bool) -> None:  # noqa: FBT001
    """As `rsync -a --delete` does, which finds .scr-watchd in the copy and not in the original."""
    built = image("first")
    write_image(images / "app:1", built)
    with serving(images) as (process, address):
        until(lambda: scr_watchd("status", images).returncode, lambda status: status == 0)
        remove_state(images)
        if at_once:
            write_image(images / "app:2", image("second"))
            until(lambda: tags(address, "app"), lambda found: found == ["1", "2"])
        until(lambda: all_is_served(address, built), seconds=15)
        write_image(images / "app:3", image("third"))
        until(lambda: "3" in tags(address, "app"))
        until(lambda: scr_watchd("status", images).returncode, lambda status: status == 0)
        second = scr_watchd("serve", images, "-l", "127.0.0.1:1")
        assert f"another scr-watchd (process {process.process.pid})" in second.stderr
        # and what a killed daemon leaves is found by the next, although its directory was another
        process.process.kill()
        process.process.wait(10)
        assert all_is_served(address, built)
        with daemon("serve", images, "-l", address) as again:
            again.says("^listening on")
            until(lambda: all_is_served(address, built))
        assert "Traceback" not in process.said()


def test_an_nginx_that_dies_after_that_is_started_again(images: Path) -> None:
    write_image(images / "app:1", image("first"))
    with serving(images) as (process, address):
        master = int((images / ".scr-watchd" / "serve" / "nginx.pid").read_text())
        remove_state(images)
        os.kill(master, signal.SIGKILL)
        process.says("^warning: nginx ended by signal 9, and was started again")
        write_image(images / "app:2", image("second"))
        until(lambda: _try_tags(address), lambda found: found == ["1", "2"], seconds=15)


def _try_tags(address: str) -> list[str]:
    try:
        return tags(address, "app")
    except OSError:
        return []


def test_a_store_inside_the_root_may_be_removed_beside_any_nginx(started: Host) -> None:
    built = image("first")
    write_image(started.images / "app:1", built)
    store = started.images / ".scr-watchd" / "store"
    with daemon(*started.arguments("--store", store)) as process:
        until(lambda: status_by_tag(started), lambda status: status == 200)
        assert store.is_dir()
        remove_state(started.images)
        nudged(process, lambda: answers(started, built), lambda found: found == {200})
        assert status_by_tag(started) == 200
        assert process.process.poll() is None
