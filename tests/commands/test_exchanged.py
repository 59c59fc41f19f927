"""What the owner of a tree, or of a directory above it, must not achieve by exchanging directories.

Each attack is made by another user without any right of root's.
"""

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scr_watchd.commands.places import make_state
from scr_watchd.publish import master
from scr_watchd.publish.place import choose
from tests.commands.test_run import Host, host
from tests.commands.test_serve import images, serving, tags
from tests.daemons import daemon, free_port, processes_with, public_directory, scr_watchd, start_nginx
from tests.http import ask
from tests.nginxes import require, require_root
from tests.private_mounts import mount, run_with_private_mounts, unmount
from tests.trees import image, write_image
from tests.waiting import until

pytestmark = pytest.mark.slow

__all__ = ["host", "images"]  # fixtures

MALLORY = 1001
# no nginx runs, and there is no site to test: what is written is looked at
ALONE = ("--reload", "none", "--confirm", "none", "--nginx-config", "/nowhere")
SECRET = b"only root may read this"


def as_mallory(script: str) -> str:
    """Run a shell script as another user, without groups and capabilities."""
    result = subprocess.run(
        ["sh", "-euc", script], user=MALLORY, group=MALLORY, extra_groups=[], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def belonging_to_mallory(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, MALLORY, MALLORY, follow_symlinks=False)
    return directory


def everything_in(directory: Path) -> list[tuple[str, int]]:
    """What is there, and when its inode last changed."""
    return sorted((str(path), path.lstat().st_ctime_ns) for path in (directory, *directory.rglob("*")))


@contextmanager
def secret() -> Iterator[Path]:
    with public_directory() as directory:
        path = directory / "secret"
        path.write_bytes(SECRET)
        path.chmod(0o600)
        yield path


def worker_uids(state: Path) -> set[int]:
    (pid,) = (pid for pid in processes_with(f"{state}/serve/nginx.conf"))
    return {
        int(Path(f"/proc/{worker.pid}/status").read_text().partition("\nUid:")[2].split()[1])
        for worker in master.workers(master.Process(pid, 0))
    }


def answers(address: str) -> bool:
    try:
        return ask(address, "/v2/").status == 200
    except OSError:
        return False


HOSTILE = """
mv {root} {root}.away
mkdir -p {root}/.scr-watchd/serve {root}/.scr-watchd/nginx/generations/x {root}/.scr-watchd/store/a
cd {root}/.scr-watchd
printf '%s' 'daemon off; pid {root}/.scr-watchd/serve/nginx.pid; user root; events {{}}
http {{ server {{ listen 127.0.0.1:{port}; location / {{ alias {directory}/; }} }} }}' > serve/nginx.conf
cp serve/nginx.conf nginx/generations/x/http.conf
ln -s generations/x nginx/current
echo 1 > serve/nginx.pid
ln -s {victims} store/a/.blobs
ln -s {victims}/new .gitignore
echo 1 > lock
cp -r {root}.away/app:1 {root}/app:2
"""


def test_a_root_that_is_exchanged_decides_nothing_for_root(images: Path) -> None:
    """Root's images in somebody's home: nothing of its state lies where he could exchange it."""
    require_root("only root can serve what belongs to others")
    home = images.parent / "home"
    root, runtime, victims = home / "images", images.parent / "run", images.parent / "victims"
    write_image(root / "app:1", image("first"))
    os.chown(home, MALLORY, MALLORY)
    for each in (runtime, victims):
        each.mkdir()
    (victims / "precious").write_bytes(b"precious")
    with (
        secret() as path,
        daemon(
            "serve", root, "-l", address := f"127.0.0.1:{free_port()}", "--rescan-seconds", "1",
            "--grace-seconds", "0", XDG_RUNTIME_DIR=str(runtime),
        ) as process,
    ):  # fmt: skip
        process.says("^serving 1 image")
        evil = free_port()
        as_mallory(HOSTILE.format(root=root, directory=path.parent, victims=victims, port=evil))
        before = everything_in(root / ".scr-watchd") + everything_in(victims)
        until(lambda: tags(address, "app"), lambda found: found == ["2"], seconds=20)
        assert scr_watchd("prune", "--now", "--state", next(runtime.iterdir())).returncode == 0
        (nginx,) = processes_with(f"{runtime}/")
        os.kill(nginx, 9)  # and is started again, from the configuration where it was
        process.says("^warning: nginx ended by signal 9, and was started again")
        until(lambda: answers(address), seconds=20)
        assert everything_in(root / ".scr-watchd") + everything_in(victims) == before
        with pytest.raises(OSError, match="refused"):
            ask(f"127.0.0.1:{evil}", "/secret")
        assert "Traceback" not in process.said()


@pytest.mark.parametrize("planted", ["a link", "a directory with links", "a directory with a FIFO"])
def test_what_was_planted_as_state_is_not_touched(images: Path, planted: str) -> None:
    """Where everybody may drop images, anybody can be there first."""
    require_root("only root can serve what belongs to others")
    images.chmod(0o1777)
    runtime, victims = images.parent / "run", images.parent / "victims"
    for each in (runtime, victims):
        each.mkdir()
    there = images / ".scr-watchd"
    as_mallory(
        {
            "a link": f"ln -s {victims} {there}",
            "a directory with links": f"mkdir {there}; cd {there}; for name in .gitignore lock status.json "
            f"store nginx serve; do ln -s {victims}/$name $name; done",
            "a directory with a FIFO": f"mkdir {there}; mkfifo {there}/.gitignore {there}/lock",
        }[planted]
    )
    before = everything_in(images) + everything_in(victims)
    with daemon("serve", images, "-l", free_port(), XDG_RUNTIME_DIR=str(runtime)) as process:
        process.says("^serving 0 images")
    assert everything_in(images)[1:] + everything_in(victims) == before[1:]


@pytest.mark.parametrize("planted", ["link", "fifo"])
def test_git_is_told_through_no_link(images: Path, planted: str) -> None:
    """What is in the state directory may be older than the rule that nobody else may write there."""
    ignore = images / ".scr-watchd" / ".gitignore"
    ignore.parent.mkdir()
    if planted == "link":
        ignore.symlink_to(images.parent / "victim")
    else:
        os.mkfifo(ignore)
    assert make_state(images) == ignore.parent
    assert not (images.parent / "victim").exists()
    ignore.unlink()
    make_state(images)
    assert ignore.read_text() == "*\n"


def test_the_probe_for_hard_links_is_no_file_of_somebody_else(images: Path) -> None:
    """A writer of the tree can guess our process id."""
    victim = images.parent / "victim"
    (images / f".scr-watchd-probe-{os.getpid()}").symlink_to(victim)
    place = choose(root=images, state=images.parent / "state", store=None, server_root=None)
    assert place.hard_links
    assert not victim.exists()
    assert len(list(images.iterdir())) == 1, "and what is made goes again"


def test_workers_are_nobody_where_the_runtime_directory_is_private() -> None:
    run_with_private_mounts(private_runtime_directory)


def private_runtime_directory() -> None:
    require("nginx")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    with public_directory() as directory, secret() as path:
        root, private = directory / "images", directory / "private"
        private.mkdir(mode=0o700)
        built = image("first")
        write_image(root / "app:1", built)
        belonging_to_mallory(root)
        address = f"127.0.0.1:{free_port()}"
        digest, content = next(iter(built.blobs.items()))
        arguments = ("serve", root, "-l", address, "--rescan-seconds", "3600", "--watch", "poll")
        with daemon(*arguments, XDG_RUNTIME_DIR=str(private)) as process:
            process.says("^serving 1 image")
            (state,) = Path("/run").glob("scr-watchd-*")
            assert worker_uids(state) == {65534}
            assert ask(address, f"/v2/app/blobs/{digest}").body == content
            as_mallory(f"ln -sf {path} {root}/app:1/{digest[7:]}")
            assert SECRET not in ask(address, f"/v2/app/blobs/{digest}").body
            told = scr_watchd("status", root).stdout
            assert "can have nginx serve any file that its workers may read, until the next look" in told
            process.says("^warning: Replacing a tag has a gap, and whoever writes the images can have nginx")
        Path("/run").chmod(0o700)
        result = scr_watchd(
            "serve", root, "-l", free_port(), XDG_RUNTIME_DIR=str(private), TMPDIR=str(private)
        )
        assert result.returncode == 1
        assert f"{private} is closed to nginx's workers" in result.stderr
        assert "name one with --state" in result.stderr
    unmount(Path("/run"))


def test_root_serves_no_private_tree_by_symbolic_links() -> None:
    run_with_private_mounts(private_and_read_only)


def private_and_read_only() -> None:
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    with public_directory() as directory:
        private = directory / "private"
        images = private / "images"
        write_image(images / "app:1", image("first"))
        private.chmod(0o700)
        mount("--bind", images, images)
        mount("-o", "remount,bind,ro", images)
        result = scr_watchd("serve", images, "-l", free_port())
        unmount(images)
        assert result.returncode == 1
        assert "nginx's workers would have to run as root, because" in result.stderr
        assert f"{private} is private to it, but the store " in result.stderr
        assert f"chmod o+x {private}" in result.stderr
    unmount(Path("/run"))


def test_root_serves_its_own_private_tree_without_following_a_link() -> None:
    run_with_private_mounts(private_with_another_disk)


def private_with_another_disk() -> None:
    """As in /root/images. A link can be in the store for a single file too."""
    require("nginx")
    with public_directory() as directory, secret() as path:
        private, disk = directory / "private", directory / "disk"
        images = private / "images"
        built = image("first")
        write_image(images / "app:1", built)
        private.chmod(0o700)
        (images / "other").mkdir()
        belonging_to_mallory(disk)
        mount("--bind", disk, images / "other")
        write_image(disk / "app" / "1", built)
        belonging_to_mallory(disk)
        address = f"127.0.0.1:{free_port()}"
        with daemon("serve", images, "-l", address, "--rescan-seconds", "3600", "--watch", "poll") as process:
            process.says(f"^nginx's workers run as root, because {private} is private to it")
            process.says("^serving 2 images")
            assert worker_uids(images / ".scr-watchd") == {0}
            digest, content = next(iter(built.blobs.items()))
            assert ask(address, f"/v2/app/blobs/{digest}").body == content
            as_mallory(f"ln -sf {path} {disk}/app/1/{digest[7:]}")
            answer = ask(address, f"/v2/other/app/blobs/{digest}")
            assert SECRET not in answer.body
            assert answer.status in (403, 404)
        unmount(images / "other")


def test_the_sites_workers_as_root_get_no_symbolic_links(host: Host) -> None:
    require_root("only root can have workers that run as root")
    elsewhere = Path("/dev/shm")
    if elsewhere.stat().st_dev == host.images.stat().st_dev:
        pytest.skip("/dev/shm is no mount of its own here")
    host.initial()
    start_nginx(host.site, host.nginx)
    write_image(host.images / "app:1", image("first"))
    store = elsewhere / f"scr-watchd-test-{os.getpid()}"
    try:
        result = scr_watchd(*host.arguments("--once", "--store", store))
        assert result.returncode == 1
        assert f"nginx's workers run as root, but the store {store} has symbolic links" in result.stderr
        assert "have them run as somebody else" in result.stderr
        assert host.site.tags("app") == []
        assert scr_watchd(*host.arguments("--once")).returncode == 0, "with hard links they may"
        assert host.site.tags("app") == ["1"]
    finally:
        shutil.rmtree(store, ignore_errors=True)


def test_the_sites_workers_as_root_get_no_tree_of_somebody_else(host: Host) -> None:
    require_root("only root can have workers that run as root")
    host.initial()
    start_nginx(host.site, host.nginx)
    write_image(host.images / "app:1", image("first"))
    belonging_to_mallory(host.images)
    result = scr_watchd(*host.arguments("--once"))
    assert result.returncode == 1
    assert f"workers run as root, but {host.images} can be exchanged by others: {host.images} belongs to" in (
        result.stderr
    )


def test_a_state_that_becomes_weak_is_said_and_used_no_more(images: Path) -> None:
    write_image(images / "app:1", image("first"))
    with serving(images) as (process, address):
        images.parent.chmod(0o777)
        process.says(
            rf"^error: the state {images}/.scr-watchd can be exchanged by others: everybody may write "
            rf"{images.parent} \(mode 0777\): have it and every directory above it belong to"
        )
        write_image(images / "app:2", image("second"))
        assert tags(address, "app") == ["1"], "what was published stays"
        images.parent.chmod(0o755)
        until(lambda: tags(address, "app"), lambda found: found == ["1", "2"], seconds=20)


def test_a_state_that_was_removed_is_made_anew_but_not_used_if_somebody_else_did(images: Path) -> None:
    require_root("only root can serve what belongs to others")
    images.chmod(0o1777)
    write_image(images / "app:1", image("first"))
    with serving(images) as (process, address):
        state = images / ".scr-watchd"
        state.rename(images.parent / "removed")
        until((state / "nginx" / "current").exists, seconds=20)
        until(lambda: tags(address, "app"), lambda found: found == ["1"], seconds=20)
        state.rename(images.parent / "away")
        as_mallory(f"mkdir -p {state}/nginx/generations")
        before = everything_in(state)
        process.says(
            f"^error: the state {state} can be exchanged by others: what lies in {images} belongs to"
        )
        assert everything_in(state) == before


def test_a_store_in_the_tree_moves_out_when_its_way_becomes_weak(host: Host) -> None:
    run_with_private_mounts(store_that_moves)


def store_that_moves() -> None:
    nginx = require("nginx")
    with public_directory() as directory:
        root, state = directory / "disk" / "images", directory / "state"
        root.mkdir(parents=True)
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", root.parent)
        write_image(root / "app:1", image("first"))
        options = ("run", root, "--state", state, "--nginx", nginx, *ALONE)
        with daemon(*options, "--rescan-seconds", "1") as process:
            until(lambda: list((root / ".scr-watchd/store/app/.blobs/sha256").glob("*")))
            os.chown(root.parent, MALLORY, MALLORY)
            until(lambda: list((state / "store/app/.blobs/sha256").glob("*")), seconds=20)
            process.says("^warning: Replacing a tag has a gap, and whoever writes the images can have nginx")
            until(lambda: f"{state}/store" in (state / "nginx/current/http.conf").read_text())
        unmount(root.parent)


def test_a_state_of_nobodys_choice_that_others_own_is_refused(images: Path) -> None:
    run_with_private_mounts(state_by_default)


def state_by_default() -> None:
    """/var/lib/scr-watchd, as a package makes it, of somebody else: refused, unless it is named."""
    with public_directory():
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/var/lib")
        state = Path("/var/lib/scr-watchd")
        (state / "images").mkdir(parents=True)
        belonging_to_mallory(state)
        options = ("run", "--once", "--nginx", require("nginx"), *ALONE)
        result = scr_watchd(*options)
        assert result.returncode == 1
        assert f"the state {state} can be exchanged by others: {state} belongs to " in result.stderr
        assert "have it and every directory above it belong to root" in result.stderr
        assert os.listdir(state) == ["images"]
        result = scr_watchd(*options, "--state", state)
        assert result.returncode == 0
        assert f"warning: the state {state} can be exchanged by others" in result.stderr
        (state / "nginx").rename("/var/lib/away")
        as_mallory(f"mkdir {state}/nginx")
        assert scr_watchd(*options, "--state", state).returncode == 0, "it is the owner's of the place"
        os.chown(state / "nginx", MALLORY + 1, -1)
        result = scr_watchd(*options, "--state", state)
        assert result.returncode == 1
        assert f"somebody else put something into {state}: {state}/nginx belongs to " in result.stderr
        unmount(Path("/var/lib"))


@pytest.mark.parametrize("layout", ["sidecar", "all_in_one", "empty_dir"])
def test_the_mounts_of_containers_are_served_from(layout: str) -> None:
    """As config/compose.yaml and config/kubernetes mount them, the data of user 1000."""
    run_with_private_mounts({"sidecar": sidecar, "all_in_one": all_in_one, "empty_dir": empty_dir}[layout])


@contextmanager
def data_of_user_1000() -> Iterator[Path]:
    with public_directory() as directory:
        data = directory / "data"
        write_image(data / "images" / "app:1", image("first"))
        for path in (data, *data.rglob("*")):
            os.chown(path, 1000, 1000)
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/var/lib")
        yield data
        unmount(Path("/var/lib"))


def sidecar() -> None:
    """The profiles sidecar and script: root, and one mount with images and state; with no more rights than
    systemd/scr-watchd.service leaves."""
    unit = (Path(__file__).parents[2] / "systemd" / "scr-watchd.service").read_text()
    (names,) = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    kept = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in names.split())])
    with data_of_user_1000() as data:
        state = Path("/var/lib/scr-watchd")
        state.mkdir()
        mount("--bind", data, state)
        with daemon("run", *ALONE, before=("setpriv", f"--bounding-set={kept}")) as process:
            process.says(f"^warning: the state {state} can be exchanged by others: {state} belongs to")
            process.says("^app:1 is there")
            blobs = list((state / "store/app/.blobs/sha256").iterdir())
            assert blobs
            assert all(stat.S_ISREG(path.lstat().st_mode) for path in blobs)
            assert process.stop() == 0
        unmount(state)


def all_in_one() -> None:
    """Images of their own mount, and the state in a tmpfs, as docker makes one."""
    with data_of_user_1000() as data:
        images = Path("/var/lib/images")
        images.mkdir()
        mount("--bind", data / "images", images)
        mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/run")
        address = f"127.0.0.1:{free_port()}"
        with daemon("serve", "--root", images, "-l", address, XDG_RUNTIME_DIR="/run") as process:
            process.says("^serving 1 image")
            assert ask(address, "/v2/app/manifests/1").status == 200
            for digest in image("first").blobs:
                assert ask(address, f"/v2/app/blobs/{digest}").status == 200
            assert [path.name for path in images.iterdir()] == ["app:1"]
        unmount(Path("/run"))
        unmount(images)


def empty_dir() -> None:
    """A pod's state: everybody may write it, and it is root's."""
    with data_of_user_1000() as data:
        state = Path("/var/lib/scr-watchd")
        state.mkdir()
        mount("-t", "tmpfs", "-o", "mode=777", "tmpfs", state)
        result = scr_watchd("run", data / "images", "--once", *ALONE)
        assert result.returncode == 0, result.stderr
        assert f"warning: the state {state} can be exchanged by others: everybody may write" in result.stderr
        assert (state / "nginx/current/http.conf").exists()
        unmount(state)
