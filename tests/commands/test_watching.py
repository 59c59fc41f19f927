"""The same answers however changes are told of, or not told of at all."""

import os

import pytest

from tests.daemons import daemon, free_port, public_directory, scr_watchd, site, start_nginx
from tests.http import ask
from tests.nginxes import require
from tests.private_mounts import mount, run_with_private_mounts, unmount
from tests.trees import image, write_image
from tests.waiting import until

pytestmark = pytest.mark.slow


def tags(address: str, name: str) -> list[str]:
    answer = ask(address, f"/v2/{name}/tags/list")
    return list(answer.json()["tags"]) if answer.status == 200 else []


def test_directories_beyond_the_watch_limit_are_polled() -> None:
    """A user namespace has a limit of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can set a limit here")
    address = f"127.0.0.1:{free_port()}"
    limited = (
        "unshare", "--user", "--map-root-user", "sh", "-c",
        'echo 6 > /proc/sys/user/max_inotify_watches && exec unshare --user --map-user=1000 "$@"', "sh",
    )  # fmt: skip
    with public_directory() as directory:
        images = directory / "images"
        for number in range(10):
            write_image(images / f"app{number}" / "1", image(str(number)))
        with daemon("serve", images, "-l", address, "--rescan-seconds", "1", before=limited) as process:
            process.says("^serving 10 images")
            until(
                lambda: scr_watchd("status", images).stdout,
                lambda text: "have a watch; raise fs.inotify" in text or "polling: no file events" in text,
                seconds=30,
            )
            write_image(images / "app9" / "2", image("another"))
            until(lambda: tags(address, "app9"), lambda found: found == ["1", "2"])
            assert "Traceback" not in process.said()


def test_a_disk_that_is_unmounted_takes_no_image_with_it() -> None:
    run_with_private_mounts(unmount_and_mount)


def unmount_and_mount() -> None:
    """An images directory that is a disk, unmounted and mounted."""
    nginx = require("nginx")
    with public_directory() as directory:
        images, state, disk = directory / "images", directory / "state", directory / "disk"
        for each in (images, disk):
            each.mkdir()
        for number in range(3):
            write_image(disk / f"app:{number}", image(str(number)))
        mount("--bind", disk, images)
        # a bind mount, as another disk would be: links across it are symbolic, unless made within it
        with site(directory / "site", state, program=nginx, start=False) as host:
            options = (
                "run",
                images,
                "--state",
                state,
                "--nginx-config",
                host.config,
                "--rescan-seconds",
                "1",
            )
            scr_watchd(*options, "--once", "--confirm-seconds", "0.1")
            start_nginx(host, nginx)
            with daemon(*options) as process:
                until(lambda: host.tags("app"), lambda found: found == ["0", "1", "2"])
                unmount(images)
                process.says("vanished at once, and stay published: is a disk not mounted", seconds=30)
                assert host.tags("app") == ["0", "1", "2"]
                mount("--bind", disk, images)
                process.says("no removal is held any more", seconds=30)
                write_image(disk / "app:3", image("3"))
                until(lambda: host.tags("app"), lambda found: found == ["0", "1", "2", "3"], seconds=30)
                assert host.ask("/v2/app/manifests/3").body == image("3").raw
                for digest, content in image("3").blobs.items():
                    assert host.ask(f"/v2/app/blobs/{digest}").body == content
                assert "Traceback" not in process.said()
        unmount(images)


def test_a_disk_inside_the_tree_is_served_by_symbolic_links() -> None:
    run_with_private_mounts(disk_inside)


def disk_inside() -> None:
    """Hard links cannot cross mounts; what lies on another one inside the root is served all the same."""
    with public_directory() as directory:
        images, disk = directory / "images", directory / "disk"
        (images / "other").mkdir(parents=True)
        disk.mkdir()
        mount("--bind", disk, images / "other")
        write_image(images / "app:1", image("here"))
        write_image(images / "other" / "app" / "1", image("there"))
        address = f"127.0.0.1:{free_port()}"
        with daemon("serve", images, "-l", address, "--rescan-seconds", "1") as process:
            process.says("^serving 2 images")
            for name, seed in (("app", "here"), ("other/app", "there")):
                for digest, content in image(seed).blobs.items():
                    assert ask(address, f"/v2/{name}/blobs/{digest}").body == content
                blobs = images / ".scr-watchd" / "store" / name / ".blobs" / "sha256"
                assert {path.is_symlink() for path in blobs.iterdir()} == {name != "app"}
            write_image(disk / "app" / "2", image("another"))
            until(lambda: tags(address, "other/app"), lambda found: found == ["1", "2"])
        unmount(images / "other")
