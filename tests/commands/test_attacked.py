"""What a writer of the tree, or bad luck with the state directory, must not achieve."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from scr_watchd.publish.place import choose
from tests.commands.test_run import Host, host, running
from tests.commands.test_serve import images, serving, tags
from tests.daemons import Daemon, daemon, public_directory, remove, scr_watchd, site, start_nginx
from tests.http import ask
from tests.nginxes import require
from tests.private_mounts import mount, run_with_private_mounts, unmount
from tests.trees import image, write_image
from tests.waiting import until

pytestmark = pytest.mark.slow

__all__ = ["host", "images", "running"]  # fixtures


def test_the_store_never_lies_where_a_writer_could_exchange_it(tmp_path: Path) -> None:
    """Root would then remove, and write, whatever the writer's link leads to."""
    if os.geteuid() != 0:
        pytest.skip("only root can have a tree of somebody else's")
    elsewhere = Path("/dev/shm")
    root = tmp_path / "images"
    write_image(root / "app:1", image("first"))
    if elsewhere.stat().st_dev == root.stat().st_dev:
        pytest.skip("/dev/shm is no mount of its own here")
    state = elsewhere / f"scr-watchd-test-{os.getpid()}"
    try:
        ours = choose(root=root, state=state, store=None, server_root=None)
        assert ours.path == root / ".scr-watchd" / "store"
        shutil.rmtree(root / ".scr-watchd")
        for owner, mode in ((65534, 0o755), (0, 0o775), (0, 0o777)):
            os.chown(root, owner, 65534)  # a group that others are in; root's own would do
            root.chmod(mode)
            theirs = choose(root=root, state=state, store=None, server_root=None)
            assert (theirs.path, theirs.hard_links) == (state / "store", False)
        os.chown(root, 0, 0)
        root.chmod(0o755)
        (tmp_path / "victim").mkdir()
        (root / ".scr-watchd").symlink_to(tmp_path / "victim")
        assert choose(root=root, state=state, store=None, server_root=None).path == state / "store"
    finally:
        shutil.rmtree(state, ignore_errors=True)


def test_serve_as_root_keeps_its_state_out_of_the_tree_of_somebody_else(images: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can have a tree of somebody else's")
    write_image(images / "app:1", image("first"))
    os.chown(images, 65534, 65534)
    with serving(images) as (_, address):
        assert tags(address, "app") == ["1"]
        assert not (images / ".scr-watchd" / "serve").exists()
        assert scr_watchd("status", images).returncode == 0


def test_a_chain_of_symbolic_links_is_a_problem_and_no_more(images: Path) -> None:
    write_image(images / "app:1", image("first"))
    for number in range(1200):
        (images / f"l:{number}").symlink_to(f"l:{number + 1}")
    result = scr_watchd("check", images)
    assert result.returncode == 3
    assert "app:1  sha256:" in result.stdout
    assert "Traceback" not in result.stderr


def test_any_name_of_any_mount_is_survived() -> None:
    run_with_private_mounts(odd_mounts)


def odd_mounts() -> None:
    with public_directory() as directory:
        odd = directory / "Größe \\134"
        odd.mkdir()
        mount("-t", "tmpfs", "tmpfs", odd)
        write_image(odd / "app:1", image("first"))
        result = scr_watchd("check", odd)
        assert result.returncode == 0, result.stderr
        unmount(odd)


@pytest.mark.parametrize("name", [b"im\xffages", "größe".encode()], ids=["no UTF-8", "UTF-8"])
def test_any_name_of_the_root_is_served(name: bytes) -> None:
    require("nginx")
    with public_directory() as directory:
        root = Path(os.fsdecode(os.fsencode(directory) + b"/" + name))
        write_image(root / "app:1", image("first"))
        with serving(root) as (process, address):
            assert tags(address, "app") == ["1"]
            assert ask(address, "/v2/app/manifests/1").status == 200
        assert "Traceback" not in process.said()


def test_a_root_that_nginx_cannot_be_told_keeps_its_store_elsewhere(tmp_path: Path) -> None:
    root = tmp_path / "do$lar"
    write_image(root / "app:1", image("first"))
    place = choose(root=root, state=tmp_path / "state", store=None, server_root=None)
    assert place.path == tmp_path / "state" / "store"
    result = scr_watchd("run", root, "--once", "--store", root / "store")
    assert result.returncode == 78
    assert "character that nginx cannot include" in result.stderr


def test_a_removal_on_a_full_disk_makes_room() -> None:
    run_with_private_mounts(full_of_removed_images)


def full_of_removed_images() -> None:
    """Images and state on one disk: what the store holds of a removed image must not fill it for ever."""
    with public_directory() as disk:
        mount("-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", disk)
        nginx = require("nginx")
        images, state = disk / "images", disk / "state"
        images.mkdir()
        large = image("large")
        content = os.urandom(3_000_000)
        large = image("large", layers=1)
        with (
            public_directory() as elsewhere,
            site(elsewhere / "site", state, program=nginx, start=False) as made,
        ):
            there = Host(images, state, made, nginx)
            there.initial()
            start_nginx(made, nginx)
            directory = write_image(images / "app:1", large)
            (directory / "ballast").write_bytes(b"")
            with daemon(*there.arguments("--grace-seconds", "3600", "--verify", "size")) as process:
                process.says("^app:1 is there")
                # the store's only link to a large file of an image that is removed now
                blob = next((state / "store/app/.blobs/sha256").iterdir())
                blob.unlink()
                blob.write_bytes(content[: shutil.disk_usage(disk).free - 65536])
                filler = disk / "filler"
                with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
                    _fill(file)
                remove(directory)
                process.says("^app:1 is gone", seconds=20)
                assert not blob.exists()
                assert "Traceback" not in process.said()
        unmount(disk)


def _fill(file: object) -> None:
    while True:
        file.write(bytes(4096))  # type: ignore[attr-defined]


def test_a_directory_that_becomes_private_is_withdrawn(host: Host) -> None:
    host.start_with_other_workers()
    write_image(host.images / "secret" / "1", image("secret"))
    with daemon(*host.arguments("--grace-seconds", "0")) as process:
        until(lambda: host.site.tags("secret"), lambda found: found == ["1"])
        (host.images / "secret").chmod(0o700)
        until(
            lambda: host.site.ask("/v2/secret/manifests/1").status, lambda status: status == 404, seconds=20
        )
        process.says("not served: .*/secret: nginx may not enter it")


@pytest.mark.parametrize("damage", ["cut off", "removed", "whole directory", "no link"])
def test_a_damaged_generation_is_made_anew(running: tuple[Host, Daemon], damage: str) -> None:
    host, process = running
    write_image(host.images / "app:1", image("first"))
    until(lambda: host.site.tags("app"), lambda found: found == ["1"])
    current = host.state / "nginx" / "current"
    match damage:
        case "cut off":
            (current / "http.conf").write_bytes((current / "http.conf").read_bytes()[:1000])
        case "removed":
            (current / "server.conf").unlink()
        case "whole directory":
            shutil.rmtree(host.state / "nginx" / "generations", ignore_errors=True)
        case _:
            current.unlink()
            current.mkdir()
    until(lambda: _is_accepted(host), seconds=20)
    until(lambda: host.site.tags("app"), lambda found: found == ["1"], seconds=20)
    assert "Traceback" not in process.said()


def _is_accepted(host: Host) -> bool:
    test = subprocess.run([host.nginx, "-t", "-q", "-c", host.site.config], capture_output=True, check=False)
    current = host.state / "nginx" / "current"
    return test.returncode == 0 and b"scr_generation" in b"".join(
        path.read_bytes() for path in current.glob("http*.conf")
    )


def test_serve_starts_over_a_damaged_generation(images: Path) -> None:
    write_image(images / "app:1", image("first"))
    with serving(images) as (process, _):
        assert process.stop() == 0
    http = images / ".scr-watchd" / "nginx" / "current" / "http.conf"
    http.write_bytes(http.read_bytes()[:1000])
    with serving(images) as (process, address):
        process.says("is damaged, and made anew")
        until(lambda: tags(address, "app"), lambda found: found == ["1"])


@pytest.mark.parametrize("name", ["pending", "published.json", "status.json"])
@pytest.mark.parametrize("content", ["", "{", '{"format": 99}', '{"a":' + "[" * 100_000])
def test_damaged_notes_are_said_and_survived(host: Host, name: str, content: str) -> None:
    host.initial()
    start_nginx(host.site, host.nginx)
    write_image(host.images / "app:1", image("first"))
    assert scr_watchd(*host.arguments("--once")).returncode == 0
    (host.state / name).write_text(content)
    result = scr_watchd(*host.arguments("--once"))
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert host.site.tags("app") == ["1"]


def test_a_damaged_note_of_what_is_pending_costs_no_pin(host: Host) -> None:
    host.initial()
    start_nginx(host.site, host.nginx)
    directory = write_image(host.images / "app:1", image("first"))
    assert scr_watchd(*host.arguments("--once")).returncode == 0
    (host.state / "pending").write_text("")
    (directory / "manifest.json").unlink()
    assert scr_watchd(*host.arguments("--once")).returncode == 3
    assert host.site.tags("app") == ["1"]


def test_nginx_may_be_away_for_a_while(images: Path, tmp_path: Path) -> None:
    """As during an upgrade of its package."""
    write_image(images / "app:1", image("first"))
    program = shutil.copy(require("nginx"), images.parent / "nginx")
    with serving(images, "--nginx", program) as (process, address):
        Path(program).rename(images.parent / "away")
        os.kill(int((images / ".scr-watchd" / "serve" / "nginx.pid").read_text()), signal.SIGKILL)
        process.says("nginx cannot be started: .*No such file")
        (images.parent / "away").rename(program)
        until(lambda: _tags_or_nothing(address), lambda found: found == ["1"], seconds=20)


def _tags_or_nothing(address: str) -> list[str]:
    try:
        return tags(address, "app")
    except OSError:
        return []


def test_a_storm_of_hangups_does_not_delay_the_end(host: Host) -> None:
    host.initial()
    start_nginx(host.site, host.nginx)
    with daemon(*host.arguments()) as process:
        process.says("^serving 0 images")
        for _ in range(100):
            process.process.send_signal(signal.SIGHUP)
        process.process.terminate()
        assert process.process.wait(5) == 0


def test_who_may_not_write_the_state_cannot_keep_a_daemon_from_starting(host: Host) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    host.initial()
    lock = host.state / "lock"
    holder = subprocess.Popen(
        ["flock", "--shared", lock, "sleep", "60"], user=65534, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: holder.poll(), lambda status: status is not None)  # it may not open it
        assert scr_watchd("status", "--state", host.state).returncode == 4
    finally:
        holder.kill()
        holder.wait()
