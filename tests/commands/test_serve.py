"""`scr-watchd serve`: a directory of images, served at once."""

import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemons import (
    Daemon,
    daemon,
    free_port,
    is_running,
    processes_with,
    public_directory,
    remove,
    scr_watchd,
)
from tests.http import ask
from tests.nginxes import require, wheel_nginx
from tests.trees import image, index, write_image
from tests.waiting import until


@pytest.fixture
def images() -> Iterator[Path]:
    require("nginx")
    with public_directory() as directory:
        (directory / "images").mkdir()
        yield directory / "images"


@contextmanager
def serving(images: Path, *more: object, before: tuple[str, ...] = ()) -> Iterator[tuple[Daemon, str]]:
    """A `serve` of ``images``, and its address, once it answers."""
    address = f"127.0.0.1:{free_port()}"
    with daemon(
        "serve",
        images,
        "-l",
        address,
        "--min-reload-seconds",
        "0.2",
        "--rescan-seconds",
        "1",
        *more,
        before=before,
    ) as process:
        process.says(r"^serving \d+ images?")
        yield process, address


def tags(address: str, name: str) -> list[str]:
    answer = ask(address, f"/v2/{name}/tags/list")
    return list(answer.json()["tags"]) if answer.status == 200 else []


def test_it_listens_on_ipv6_and_says_so(images: Path) -> None:
    built, address = image("app"), f"[::1]:{free_port()}"
    write_image(images / "app:1", built)
    with daemon("serve", images, "-l", address) as process:
        process.says(rf"^app:1 is there: docker pull {re.escape(address)}/app:1 ")
        assert ask(address, "/v2/app/manifests/1").body == built.raw


def test_an_image_that_is_dropped_in_can_be_pulled_and_goes_again(images: Path) -> None:
    with serving(images) as (process, address):
        process.says(
            rf"there is no image in {images}; this adds one: skopeo copy \S+ dir:{images}/alpine:3.20"
        )
        first, second = image("first"), index(image("amd64"), image("arm64"))
        write_image(images / "alpine:3.20", first)
        process.says(rf"^alpine:3.20 is there: docker pull {address}/alpine:3.20 \({first.digest}\)")
        assert ask(address, "/v2/alpine/manifests/3.20").body == first.raw
        for digest, content in first.blobs.items():
            assert ask(address, f"/v2/alpine/blobs/{digest}").body == content
        remove(images / "alpine:3.20")
        write_image(images / "alpine:3.20", second)
        process.says(rf"^alpine:3.20 was replaced \({second.digest}\)")
        for digest, raw in second.manifests.items():
            assert ask(address, f"/v2/alpine/manifests/{digest}").body == raw
        remove(images / "alpine:3.20")
        process.says(r"^alpine:3.20 is gone")
        assert tags(address, "alpine") == []


def test_what_is_not_served_is_said_with_the_reason_and_the_remedy(images: Path) -> None:
    write_image(images / "good:1", image("good"))
    broken = write_image(images / "broken:1", image("broken"))
    next(path for path in broken.iterdir() if len(path.name) == 64).unlink()
    with serving(images) as (process, address):
        process.says(rf"^warning: not served: {broken}: blob sha256:\w+ is missing.* skopeo copy")
        assert tags(address, "good") == ["1"]
        status = scr_watchd("status", images)
        assert status.returncode == 3
        assert f"not served: {broken}" in status.stdout


def test_no_process_is_left_behind(images: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with serving(images) as (process, _):
            assert processes_with(f"{images}/.scr-watchd/serve")
            assert process.stop(number) == 0
            assert processes_with(f"{images}/.scr-watchd/serve") == []


def test_after_a_kill_it_starts_again_on_the_same_port(images: Path) -> None:
    write_image(images / "app:1", image("first"))
    with serving(images) as (process, address):
        process.process.kill()
        process.process.wait(10)
        assert tags(address, "app") == ["1"], "nothing of ours is in the way of a request"
        write_image(images / "app:2", image("second"))
        with daemon("serve", images, "-l", address) as again:
            again.says("listening on")
            until(lambda: tags(address, "app"), lambda found: found == ["1", "2"])
    assert processes_with(f"{images}/.scr-watchd/serve") == []


def test_after_a_kill_of_everything_but_the_workers_it_starts_again(images: Path) -> None:
    """`pkill -9 -f scr-watchd` hits the master too, by its arguments, and leaves workers with the port."""
    write_image(images / "app:1", image("first"))
    with serving(images) as (process, address):
        master = int((images / ".scr-watchd" / "serve" / "nginx.pid").read_text())
        process.process.kill()
        os.kill(master, signal.SIGKILL)
        process.process.wait(10)
        with daemon("serve", images, "-l", address) as again:
            again.says("listening on")
            until(lambda: tags(address, "app"), lambda found: found == ["1"])


def test_an_nginx_that_dies_is_started_again(images: Path) -> None:
    write_image(images / "app:1", image("first"))
    with serving(images) as (process, address):
        pid = int((images / ".scr-watchd" / "serve" / "nginx.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        process.says(r"^warning: nginx ended by signal 9, and was started again")
        until(lambda: _status(address), lambda status: status == 200)
        assert tags(address, "app") == ["1"]
        write_image(images / "app:2", image("second"))
        until(lambda: tags(address, "app"), lambda found: found == ["1", "2"])
        until(lambda: is_running(pid), lambda running: not running)


def test_a_taken_port_is_a_sentence_and_a_hint(images: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = scr_watchd("serve", images, "-l", port)
    assert result.returncode == 1
    assert re.fullmatch(
        rf"scr-watchd: cannot listen on 127.0.0.1:{port}: Address already in use\n  hint: .*--listen.*\n",
        result.stderr,
    )


def test_without_a_wish_it_takes_the_next_port_if_5000_is_taken(images: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 5000))
        except OSError:
            pass  # taken by somebody else, which does as well
        else:
            taken.listen()
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                other.bind(("127.0.0.1", 5001))
            except OSError:
                pytest.skip("port 5001 is taken on this machine")
        with daemon("serve", images) as process:
            process.says(r"^listening on 127.0.0.1:5001")


def test_a_missing_root_is_a_sentence_and_a_hint(tmp_path: Path) -> None:
    result = scr_watchd("serve", tmp_path / "nothing")
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        f"scr-watchd: there is no directory {tmp_path}/nothing",
        f"  hint: mkdir -p {tmp_path}/nothing, or name another: scr-watchd serve ROOT",
    ]


def test_a_missing_nginx_is_a_sentence_and_a_hint(images: Path) -> None:
    result = scr_watchd("serve", images, "--nginx", "no-such-nginx")
    assert result.returncode == 1
    assert "there is no nginx: 'no-such-nginx' is not a program" in result.stderr
    assert "hint: install nginx" in result.stderr


def test_the_newest_nginx_serves_too(images: Path) -> None:
    write_image(images / "app:1", image("first"))
    with serving(images, "--nginx", wheel_nginx()) as (process, address):
        assert tags(address, "app") == ["1"]
        assert "[warn]" not in process.said()


def test_it_needs_no_root(images: Path) -> None:
    """In a user namespace we are an ordinary user; what only we may read is then ours to serve."""
    if os.geteuid() == 0:
        shutil.which("unshare") or pytest.fail("unshare is part of util-linux")
        before: tuple[str, ...] = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
    else:
        before = ()
    private = write_image(images / "mine:1", image("mine"))
    private.chmod(0o700)
    with serving(images, before=before) as (process, address):
        assert tags(address, "mine") == ["1"]
        assert ask(address, "/v2/mine/manifests/1").status == 200
        assert "[warn]" not in process.said()


def test_as_root_only_what_everybody_may_read_is_served(images: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("this is about root")
    write_image(images / "mine:1", image("mine")).chmod(0o700)
    write_image(images / "app:1", image("first"))
    with serving(images) as (process, address):
        assert ask(address, "/v2/app/manifests/1").status == 200
        assert ask(address, "/v2/mine/manifests/1").status == 404
        process.says(r"not served: \S+/mine:1: nginx may not enter it \(mode 0700\)\. Permit it: chmod")


def test_a_root_that_cannot_be_written_is_served_from_elsewhere(images: Path) -> None:
    write_image(images / "app:1", image("first"))
    read_only = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
    if os.geteuid() != 0:
        pytest.skip("only root can mount the images read-only")
    mount = f'mount --bind "{images}" "{images}" && mount -o remount,bind,ro "{images}" && exec "$@"'
    with serving(images, before=(*read_only, mount, "sh")) as (_, address):
        assert tags(address, "app") == ["1"]
        assert ask(address, "/v2/app/manifests/1").status == 200
        assert not (images / ".scr-watchd").exists()
        built = image("first")
        for digest, content in built.blobs.items():
            assert ask(address, f"/v2/app/blobs/{digest}").body == content


def test_the_status_is_that_of_the_daemon_that_runs(images: Path) -> None:
    """Its state lies elsewhere once the root cannot be written; what it left in the root is old."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount the images read-only")
    with serving(images):
        pass
    mount = f'mount --bind "{images}" "{images}" && mount -o remount,bind,ro "{images}" && exec "$@"'
    before = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh")
    elsewhere = images.parent / "elsewhere"
    elsewhere.mkdir()
    with daemon("serve", images, "-l", free_port(), before=before, XDG_RUNTIME_DIR=str(elsewhere)) as process:
        process.says("^serving 0 images")
        for words in (("status", images), ("status", "--root", images, "--state", images.parent / "never")):
            result = scr_watchd(*words, XDG_RUNTIME_DIR=str(elsewhere))
            assert f"running (process {process.process.pid})" in result.stdout
            assert result.returncode == 0


def test_as_process_1_it_ends_and_buries_what_it_inherits(images: Path) -> None:
    """In a container root may not even see where a worker of another user works."""
    if os.geteuid() != 0:
        pytest.skip("only root can have workers of another user")
    before = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    with serving(images, before=(*before, "setpriv", "--bounding-set=-sys_ptrace")) as (process, address):
        (first,) = _children(process.process.pid)
        (nginx,) = processes_with(f"{images}/.scr-watchd/serve")
        os.kill(nginx, signal.SIGKILL)
        process.says(r"^warning: nginx ended by signal 9, and was started again")
        until(lambda: _status(address), lambda status: status == 200)
        until(lambda: [is_running(pid) for pid in _children(first)], lambda all_: all_ == [True])
        os.kill(first, signal.SIGTERM)
        assert process.process.wait(10) == 0


def test_as_process_1_it_ends_while_it_still_starts(images: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can have a process namespace of its own")
    slow = images.parent / "nginx"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    before = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    with daemon("serve", images, "--nginx", slow, before=before) as process:
        until(lambda: "sleep" in "".join(_commands_below(process.process.pid)))
        os.kill(_children(process.process.pid)[0], signal.SIGTERM)
        assert process.process.wait(5) == 0


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _commands_below(pid: int) -> list[str]:
    return [Path(f"/proc/{below}/comm").read_text() for child in _children(pid) for below in _children(child)]


def test_only_its_own_files_appear_in_the_root(images: Path) -> None:
    write_image(images / "app:1", image("first"))
    with serving(images):
        assert sorted(path.name for path in images.iterdir()) == [".scr-watchd", "app:1"]
        assert (images / ".scr-watchd" / ".gitignore").read_text() == "*\n"


def test_where_another_nginx_has_the_images_means_nothing_to_ours(images: Path) -> None:
    """Links are symbolic here, and hold the path of the images."""
    elsewhere = Path("/dev/shm")
    if elsewhere.stat().st_dev == images.stat().st_dev:
        pytest.skip("/dev/shm is no mount of its own here")
    built, address = image("first"), f"127.0.0.1:{free_port()}"
    write_image(images / "app:1", built)
    store = elsewhere / f"scr-watchd-test-{os.getpid()}"
    arguments = ("-l", address, "--store", store)
    try:
        with daemon("serve", images, *arguments, SCR_WATCHD_SERVER_ROOT="/nowhere") as process:
            process.says(r"^app:1 is there")
            for digest, content in built.blobs.items():
                assert ask(address, f"/v2/app/blobs/{digest}").body == content
    finally:
        shutil.rmtree(store)


def _status(address: str) -> int:
    try:
        return ask(address, "/v2/").status
    except OSError:
        return 0


def test_the_front_leads_to_the_page_whatever_the_port(images: Path) -> None:
    with serving(images) as (_, address):
        answer = ask(address, "/")
        assert (answer.status, answer.header("Location")) == (302, "/v2/_scr/")
        page = ask(address, "/v2/_scr/")
        assert (page.status, page.header("Content-Type")) == (200, "text/html; charset=utf-8")


def test_without_browse_the_front_is_a_line(images: Path) -> None:
    with serving(images, "--browse", "off") as (_, address):
        answer = ask(address, "/")
        assert answer.status == 200
        assert b"docker pull" in answer.body
        assert ask(address, "/v2/_scr/").status == 404
