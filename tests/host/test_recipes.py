"""The recipes of docs/recipes.md, run as they stand there, on a machine with a real systemd, nginx and disks.

Each begins with a host that serves images, and a client asks for all of them from beginning to end.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.documents import block
from tests.endurance.hosts import image_of, layer
from tests.host.hosts import IMAGES, SECONDS, STATE, mirror_host, pulls, registry, until_status
from tests.machines import Machine
from tests.nginxes import require
from tests.packages import built_deb
from tests.trees import Built, image
from tests.waiting import until

pytestmark = [pytest.mark.systemd, pytest.mark.slow]

DISK = "/mnt/disk"
STAYS = {"a:1": "a", "b:1": "b"}
"""What is published before a recipe begins and must be there all the while, and the seed of each."""


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A new machine with the package, the example site, two images and another disk."""
    require("rsync")
    deb = built_deb(tmp_path_factory)
    with mirror_host() as machine:
        machine.write("/root/scr-watchd_1.deb", deb.read_bytes())
        machine.sh(f"mkdir -p {DISK}; mount -t tmpfs -o mode=755 disk {DISK}")
        install(machine)
        for tag, seed in STAYS.items():
            machine.sh(f"cp -r /srv/images/{seed} {IMAGES}/{tag}")
        until_status(machine, "^serving 2 images")
        yield machine


def install(machine: Machine) -> None:
    machine.sh("cd /root\n" + block("docs/service.md", "The Debian package", "dpkg -i"))


def addresses(name: str, built: Built, *, by_digest: bool = False) -> list[str]:
    """Where everything of an image is: with tag and manifest or, ``by_digest``, without its tag."""
    repository, _, tag = name.partition(":")
    found = [f"/v2/{repository}/blobs/{digest}" for digest in built.blobs]
    found.append(f"/v2/{repository}/manifests/{built.digest}")
    return found if by_digest else [*found, f"/v2/{repository}/manifests/{tag}"]


@contextmanager
def served(machine: Machine) -> Iterator[None]:
    """All the while everything of the images can be pulled, with the right bytes."""
    paths = [path for name, seed in STAYS.items() for path in addresses(name, image(seed))]
    with machine.asking(80, *paths, host="registry.example.com"):
        yield


def drop(machine: Machine, name: str, *, root: str = IMAGES) -> None:
    """Drop the image b in once more, and see it served."""
    machine.sh(f"cp -r /srv/images/b {root}/{name}")
    until(lambda: pulls(machine, name), seconds=SECONDS)


def told(machine: Machine) -> dict[str, object]:
    return dict(json.loads(machine.run("scr-watchd", "status", "--json", check=False).stdout))


def generation(machine: Machine) -> str:
    return registry(machine, "/v2/_scr/generation")[1]


def used(machine: Machine, path: str) -> int:
    return int(machine.sh(f"df --output=used -B1 {path} | tail -1"))


# -- another disk ------------------------------------------------------------------------------------


def test_all_of_it_moves_to_another_disk(host: Machine) -> None:
    before = generation(host)
    with served(host):
        host.sh(
            block("docs/recipes.md", "All of it to another disk", "rsync -aH /var/lib/scr-watchd/ /mnt/disk/")
        )
        until_status(host, "^serving 2 images")
        assert generation(host) == before
        drop(host, "new:1")
        host.sh("systemctl reload nginx")
    assert (told(host)["links"], told(host)["store"]) == ("hard", f"{STATE}/store")
    assert host.sh(f"ls {DISK}/images").split() == ["a:1", "b:1", "new:1"]
    host.sh("mkdir -p /mnt/below && mount --bind / /mnt/below && touch /mnt/below/var/lib/scr-watchd/old")
    with served(host):
        host.sh(block("docs/recipes.md", "All of it to another disk", "mount --bind / /mnt/old"))
    assert host.sh("ls /mnt/below/var/lib/scr-watchd").split() == []
    assert pulls(host, "new:1")


def test_only_the_images_move_to_another_disk(host: Machine) -> None:
    with served(host):
        host.sh(
            block(
                "docs/recipes.md",
                "Only the images to another disk",
                "/var/lib/scr-watchd/images/ /mnt/disk/images/",
            )
        )
        until(
            lambda: told(host)["store"], lambda it: it == f"{DISK}/images/.scr-watchd/store", seconds=SECONDS
        )
        assert told(host)["links"] == "hard"
        host.sh(
            block("docs/recipes.md", "Only the images to another disk", "rm -r /var/lib/scr-watchd/images")
        )
        drop(host, "new:1", root=f"{DISK}/images")
        host.sh("systemctl restart scr-watchd")
        until_status(host, "^serving 3 images")
    assert "gap" not in host.sh("scr-watchd check")


def test_images_that_a_group_may_exchange_move_too_with_symbolic_links(host: Machine) -> None:
    """And the store gives the bytes back that only it still has: the old disk was too small, perhaps."""
    with_group = block(
        "docs/recipes.md", "Only the images to another disk", "/var/lib/scr-watchd/images/ /mnt/disk/images/"
    ).replace("chmod +t", "ls")
    with served(host):
        host.sh(with_group)
        until(lambda: str(told(host)["links"]), lambda it: it.startswith("symbolic"), seconds=SECONDS)
        assert f"chmod +t {DISK}/images" in host.sh("scr-watchd check")
        host.sh(f"rm -r {IMAGES}")
        drop(host, "new:1", root=f"{DISK}/images")
    assert host.sh(f"find {STATE}/store -path '*/.blobs/*' -type f") == ""
    host.sh(f"chmod +t {DISK}/images; systemctl reload scr-watchd")
    until(lambda: told(host)["links"], lambda it: it == "hard", seconds=SECONDS)


def test_what_was_forgotten_in_a_move_stays_until_it_is_copied_or_accepted(host: Machine) -> None:
    add_tags(host, 10)
    move = block(
        "docs/recipes.md", "Only the images to another disk", "/var/lib/scr-watchd/images/ /mnt/disk/images/"
    ).splitlines()
    with served(host):
        host.sh(f"mkdir {DISK}/images; cp -r {IMAGES}/a:1 {IMAGES}/b:1 {DISK}/images")
        host.sh("\n".join(move[1:]))
        until_status(host, "of which 10 vanished at once and are held: see scr-watchd accept")
        assert tags(host, "app") == list(range(1, 11))
        host.sh(move[0])
        until(lambda: told(host)["held"], lambda held: held == [], seconds=SECONDS)
        assert pulls(host, "app:3")
        host.sh(f"rm -r {DISK}/images/app:*")
        until_status(host, "of which 10 vanished at once")
        host.sh("scr-watchd accept")
        until(lambda: registry(host, "/v2/app/manifests/3")[0], lambda code: code == 404, seconds=SECONDS)


# -- backup ------------------------------------------------------------------------------------------


def test_a_backup_of_the_tree_makes_an_empty_host_serve_the_same(host: Machine) -> None:
    with served(host):
        host.sh(f"ln -s a:1 {IMAGES}/a:latest")
        until(lambda: pulls(host, "a:latest"), seconds=SECONDS)
        before = generation(host)
        host.sh(block("docs/recipes.md", "Backup", "--exclude .scr-watchd -cf"))
        assert ".scr-watchd" not in host.sh(f"tar -tf {DISK}/images.tar")
    host.sh(
        f"dpkg --purge scr-watchd; find {STATE} -mindepth 1 -delete; rm /etc/nginx/conf.d/scr-watchd.conf"
    )
    install(host)
    until_status(host, "^serving 0 images")
    host.sh(block("docs/recipes.md", "Backup", "-xf /mnt/disk/images.tar"))
    until(lambda: generation(host), lambda it: it == before, seconds=SECONDS)
    assert all(pulls(host, name) for name in (*STAYS, "a:latest"))
    assert told(host)["links"] == "hard"


# -- the newest tags ---------------------------------------------------------------------------------


def add_tags(machine: Machine, count: int, directory: str = IMAGES) -> list[Built]:
    """Tags 1 to ``count`` of app, each copied an hour after the one before, each with a MB of its own."""
    made = [image_of(f"app {number}", [layer(f"app {number}", 2**20)]) for number in range(1, count + 1)]
    for number, built in enumerate(made, 1):
        put(machine, f"{directory}/app:{number}", built)
        hours = count - number
        machine.sh(f"touch -d '{hours} hours ago' {directory}/app:{number}/manifest.json")
    until(lambda: pulls(machine, f"app:{count}"), seconds=SECONDS)
    return made


def put(machine: Machine, directory: str, built: Built) -> None:
    files = {**built.files, "version": b"1.1", "manifest.json": built.raw}
    for file, content in files.items():
        machine.write(f"{directory}/{file}", content)


def tags(machine: Machine, name: str) -> list[int]:
    return sorted(map(int, json.loads(registry(machine, f"/v2/{name}/tags/list")[1])["tags"]))


def test_the_newest_tags_stay_and_the_others_give_their_disk_back(host: Machine) -> None:
    made = add_tags(host, 14)
    host.sh(
        f"cd {IMAGES}; mkdir -p lib/deep; cp -a app:14 lib/deep/1; ln -s app:2 app:old; mkdir .new;"
        "cp -a app:1 .new/app; for n in $(seq 12); do cp -a app:1 app@sha256:$n; done"
    )
    until(lambda: pulls(host, "app:old"), seconds=SECONDS)
    host.sh(f"rm {IMAGES}/app:old")
    host.sh(f"rm -r {IMAGES}/app@*; cp -a {IMAGES}/app:1 {IMAGES}/app@{made[0].digest}")
    host.sh(f"cd {IMAGES}; ln -s app:1 link:old; ln -s app:14 link:new; ln -s /nowhere link:foreign")
    until(lambda: told(host)["images"], lambda count: count == 19, seconds=SECONDS)
    gone, before = made[1], used(host, STATE)
    with served(host):
        host.write(
            "/etc/cron.daily/registry-tags", block("docs/recipes.md", "Only the newest tags", "#!/bin/sh")
        )
        host.sh("chmod +x /etc/cron.daily/registry-tags; /etc/cron.daily/registry-tags")
        until(lambda: tags(host, "app"), lambda left: left == list(range(5, 15)), seconds=SECONDS)
        with host.asking(80, *addresses("app:2", gone, by_digest=True), host="registry.example.com"):
            until(lambda: told(host)["only_stored_bytes"], lambda it: int(str(it)) > 3 * 2**20)
            assert used(host, STATE) > before - 2 * 2**20, "three wait, and one has a digest that stays"
        host.sh(block("docs/recipes.md", "Only the newest tags", "scr-watchd prune --now"))
        until(lambda: used(host, STATE), lambda now: now < before - 3 * 2**20, seconds=SECONDS)
        until(lambda: registry(host, addresses("app:2", gone)[0])[0], lambda code: code == 404)
    assert pulls(host, f"app@{made[0].digest}")
    assert pulls(host, "lib/deep:1")
    assert pulls(host, "link:new")
    links = host.sh(f"find {IMAGES} -name 'link:*' -printf '%f\n'").split()
    assert sorted(links) == ["link:foreign", "link:new"], "only what led to a tag that is gone now"
    assert host.sh(f"ls {IMAGES}/.new").split() == ["app"]


def test_most_of_the_tags_go_only_if_somebody_says_so(host: Machine) -> None:
    add_tags(host, 30)
    host.write("/root/registry-tags", block("docs/recipes.md", "Only the newest tags", "#!/bin/sh"))
    with served(host):
        host.sh("sh /root/registry-tags")
        until_status(host, "of which 20 vanished at once and are held")
        assert pulls(host, "app:1")
        host.sh("scr-watchd accept")
        until(lambda: tags(host, "app"), lambda left: left == list(range(21, 31)), seconds=SECONDS)


# -- from elsewhere ----------------------------------------------------------------------------------


def test_a_mirror_of_a_master_serves_old_or_new_and_nothing_between(host: Machine, tmp_path: Path) -> None:
    """The master is an rsync daemon; on the second day one image there was replaced and one removed."""
    host.sh(f"mkdir -p /srv/master; cp -r {IMAGES}/. /srv/master; echo 127.0.0.1 master >> /etc/hosts")
    old, new = (image_of(each, [layer(each, 2**22)]) for each in ("old", "new"))
    put(host, "/srv/master/app:1", old)
    put(host, "/srv/master/gone:1", old)
    # rsync takes a file of the same size and second for the same
    host.sh("find /srv/master/app:1 -type f -exec touch -d '1 minute ago' {} +")
    host.write("/etc/rsyncd.conf", "[images]\npath = /srv/master\nuid = root\n")
    host.sh("systemd-run --unit=rsyncd rsync --daemon --no-detach")
    until(lambda: host.run("rsync", "rsync://master/images/", check=False).returncode == 0)
    fetch = block("docs/recipes.md", "From a master, by rsync")
    whose = host.sh(f"stat -c '%a %U:%G' {IMAGES}")
    assert whose.split() == ["2775", "root:scr-watchd"]
    with served(host):
        host.sh(fetch)
        until(lambda: pulls(host, "app:1") and pulls(host, "gone:1"), seconds=SECONDS)
        host.sh("rm -r /srv/master/app:1 /srv/master/gone:1")
        put(host, "/srv/master/app:1", new)
        with host.asking(
            80, "/v2/app/manifests/1", *addresses("app:1", old, by_digest=True), host="registry.example.com"
        ):
            host.sh(fetch)
            until(lambda: new.raw.decode() in registry(host, "/v2/app/manifests/1")[1], seconds=SECONDS)
        until(lambda: registry(host, "/v2/gone/manifests/1")[0], lambda code: code == 404, seconds=SECONDS)
        assert pulls(host, "app:1")
    assert host.sh(f"stat -c '%a %U:%G' {IMAGES}") == whose, "the group may still write"


def test_a_file_system_without_events_and_with_a_cache_is_polled(host: Machine) -> None:
    """bindfs in the place of NFS: what another machine writes comes without an event, and after a while."""
    host.sh(
        f"mkdir -p /srv/export /mnt/images; cp -r {IMAGES}/. /srv/export; mknod -m 666 /dev/fuse c 10 229"
    )
    mount_remote(host)
    with served(host):
        host.run(
            "sh",
            "-euc",
            "cat >> /etc/scr-watchd/config.toml",
            content=block("docs/recipes.md", "Images on NFS").encode(),
        )
        host.sh("systemctl reload scr-watchd")
        until(lambda: told(host)["root"], lambda it: it == "/mnt/images", seconds=SECONDS)
        assert (told(host)["watch_mode"], str(told(host)["links"])[:8]) == ("poll", "symbolic")
        drop(host, "new:1", root="/srv/export")
        host.sh("rm -r /srv/export/new:1")
        until(lambda: registry(host, "/v2/new/manifests/1")[0], lambda code: code == 404, seconds=SECONDS)
    host.sh("systemctl kill --signal=KILL remote")
    until_status(host, "/mnt/images")
    assert registry(host, "/v2/a/tags/list") == (200, '{"name":"a","tags":["1"]}')
    host.sh("umount --lazy /mnt/images; systemctl reset-failed remote")
    until_status(host, "2 vanished at once and are held")
    assert registry(host, "/v2/a/tags/list") == (200, '{"name":"a","tags":["1"]}')
    mount_remote(host)
    until_status(host, "^serving 2 images in 2 repositories$")
    assert pulls(host, "a:1")


def mount_remote(machine: Machine) -> None:
    """/srv/export at /mnt/images, read-only and with a cache of 3 seconds, by the service ``remote``."""
    options = "ro,nonempty,attr_timeout=3,entry_timeout=3,negative_timeout=3,allow_other"
    machine.run(
        "systemd-run", "--unit=remote", require("bindfs"), "-f", "-o", options, "/srv/export", "/mnt/images"
    )
    until(lambda: machine.run("mountpoint", "/mnt/images", check=False).returncode == 0)


def events(machine: Machine, path: str) -> list[dict[str, str]]:
    """The lines of ``path`` that tell of tags."""
    lines = machine.run("cat", path, check=False).stdout.splitlines()
    return [each for each in map(json.loads, lines) if "action" in each]


def in_json(machine: Machine) -> None:
    machine.sh("sed -i 's|^#*log_format = .*|log_format = \"json\"|' /etc/scr-watchd/config.toml")
    machine.sh("systemctl restart scr-watchd")


def test_an_audit_log_in_the_journal_and_in_a_file(host: Machine) -> None:
    in_json(host)
    with served(host):
        drop(host, "c:1")
        seen = block("docs/recipes.md", "An audit log", "journalctl")
        until(lambda: '"published","c","1","sha256:' in host.sh(seen), seconds=SECONDS)
        host.sh(block("docs/recipes.md", "An audit log", "logrotate"))
        until(lambda: host.show("scr-watchd", "ActiveState") == "active", seconds=SECONDS)
        drop(host, "d:1")
        host.sh("logrotate --force /etc/logrotate.d/scr-watchd")
        drop(host, "e:1")
        for path, name in (("/var/log/scr-watchd.log.1", "d"), ("/var/log/scr-watchd.log", "e")):
            found = until(lambda path=path: events(host, path), seconds=SECONDS)  # type: ignore[misc]
            assert ("published", name) in [(each["action"], each["repository"]) for each in found]


def test_a_command_at_each_change_misses_nothing(host: Machine) -> None:
    """A hundred tags in ten seconds, and a restart of each part among them; once the command fails."""
    in_json(host)
    log = "/root/seen"
    command = f"#!/bin/sh\n[ -e /root/failed ] || {{ touch /root/failed; exit 1; }}\nexec cat >> {log}\n"
    host.write("/usr/local/bin/registry-event", command)
    host.sh("chmod +x /usr/local/bin/registry-event")
    host.sh(block("docs/recipes.md", "A command at each change", "registry-events"))
    restarted = {20: "scr-watchd", 40: "registry-events", 60: "systemd-journald", 80: "registry-events"}
    with served(host):
        for number in range(100):
            host.sh(f"cp -r /srv/images/b {IMAGES}/many:{number}; sleep 0.05")
            if number in restarted:
                host.run("systemctl", "restart", restarted[number])
        tags = {str(number) for number in range(100)}
        until(
            lambda: {each["tag"] for each in events(host, log) if each["repository"] == "many"},
            lambda found: found == tags,
            seconds=60,
        )
