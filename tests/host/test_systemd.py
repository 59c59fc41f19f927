"""The Debian package on a machine with a real systemd and a real nginx that also has another site.

One machine for the whole module; each test needs only that the package is installed, and leaves it so.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.documents import HOUSE, block, text
from tests.host.hosts import IMAGES, OTHER, SECONDS, STATE, mirror_host, pulls, registry, status, until_status
from tests.machines import Machine
from tests.packages import built_deb
from tests.trees import image
from tests.waiting import until

pytestmark = [pytest.mark.systemd, pytest.mark.slow]


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_deb(tmp_path_factory)


@pytest.fixture(scope="module")
def machine(deb: Path) -> Iterator[Machine]:
    with mirror_host() as made:
        made.write("/root/scr-watchd_1.deb", deb.read_bytes())
        yield made


def install(machine: Machine) -> None:
    machine.run("dpkg", "-i", "/root/scr-watchd_1.deb")
    assert machine.show("scr-watchd", "ActiveState") == "active"


@pytest.fixture
def host(machine: Machine) -> Machine:
    """The machine with the package and the example site, as docs/service.md has it, and one image."""
    if machine.run("dpkg", "--verify", "scr-watchd", check=False).returncode or not installed(machine):
        install(machine)
    if machine.run("test", "-e", "/etc/nginx/conf.d/scr-watchd.conf", check=False).returncode:
        machine.sh("cp /usr/share/doc/scr-watchd/examples/nginx-site.conf /etc/nginx/conf.d/scr-watchd.conf")
        machine.sh("nginx -t && systemctl reload nginx")
    machine.sh(f"test -d {IMAGES}/a:1 || {{ cp -r /srv/images/a {IMAGES}/a:1; scr-watchd wait a:1; }}")
    machine.sh(f"find {IMAGES} -mindepth 1 -maxdepth 1 ! -name a:1 -exec rm -r {{}} +")
    return machine


def installed(machine: Machine) -> bool:
    return machine.run("dpkg-query", "-f", "${Status}", "-W", "scr-watchd", check=False).stdout.endswith(
        " installed"
    )


def until_active(machine: Machine) -> None:
    until(lambda: machine.show("scr-watchd", "ActiveState"), lambda state: state == "active", seconds=SECONDS)


def links(machine: Machine, repository: str) -> list[str]:
    """How many links each blob of a repository in the store has."""
    return machine.sh(f"find {repository}/.blobs -type f -printf '%n\\n'").split()


def restarts(machine: Machine) -> int:
    return int(machine.show("scr-watchd", "NRestarts"))


@contextmanager
def drop_in(machine: Machine, *lines: str) -> Iterator[None]:
    path = "/etc/systemd/system/scr-watchd.service.d/test.conf"
    machine.write(path, "\n".join(lines) + "\n")
    machine.sh("systemctl daemon-reload; systemctl restart scr-watchd")
    try:
        yield
    finally:
        machine.sh(f"rm {path}; systemctl daemon-reload; systemctl restart scr-watchd")


@contextmanager
def settings(machine: Machine, *lines: str) -> Iterator[None]:
    """These settings in the conffile; whoever uses it has the daemon read them."""
    path = "/etc/scr-watchd/config.toml"
    machine.sh(f"cp {path} /root/config.toml")
    machine.write("/root/more", "\n".join(lines) + "\n")
    machine.sh(f"cat /root/more >> {path}")
    try:
        yield
    finally:
        machine.sh(f"cp /root/config.toml {path}; systemctl reset-failed; systemctl restart scr-watchd")


def test_it_installs_without_network_and_says_what_nginx_lacks(machine: Machine) -> None:
    """By the documented commands, one after another."""
    package, *site = block("docs/service.md", "The Debian package", "dpkg -i").splitlines()
    with machine.asking(OTHER):
        machine.sh(f"cd /root; {package}")
        assert machine.show("scr-watchd", "ActiveState") == "active"
        assert "does not include it" in status(machine)
        assert "include /var/lib/scr-watchd/nginx/current/http*.conf;" in status(machine)
        machine.sh("\n".join(site))
        until_status(machine, "^serving 0 images")
    assert registry(machine, "/v2/") == (200, "{}")


def test_a_member_of_the_group_drops_an_image_in_and_it_is_pulled(host: Machine) -> None:
    host.sh("usermod --append --groups scr-watchd deploy")
    drop = f"umask 027; skopeo copy --quiet dir:/srv/images/b dir:{IMAGES}/b:1; chmod -R a+rX {IMAGES}/b:1"
    host.run("runuser", "--login", "deploy", "--command", drop)
    assert host.run("scr-watchd", "wait", "b:1").stdout.strip() == image("b").digest
    until_status(host, "^serving 2 images in 2 repositories")
    assert pulls(host, "b:1")
    host.sh(f"cmp /root/got/manifest.json {IMAGES}/b:1/manifest.json")
    assert host.sh(f"stat -c '%U %G %a' {IMAGES}/b:1").split() == ["deploy", "scr-watchd", "2755"]
    assert links(host, f"{STATE}/store/b") == ["2", "2", "2"], (
        "hard links work within the unit, also to files of another owner"
    )
    host.run("runuser", "--login", "deploy", "--command", f"rm -r {IMAGES}/b:1")
    until_status(host, "^serving 1 image in")


def test_a_reload_reads_the_settings_again(host: Machine) -> None:
    process = host.show("scr-watchd", "MainPID")
    with settings(host, "catalog = false"):
        host.sh("systemctl reload scr-watchd")
        until(lambda: registry(host, "/v2/_catalog")[0], lambda code: code == 404, seconds=SECONDS)
        assert host.show("scr-watchd", "MainPID") == process
    until(lambda: registry(host, "/v2/_catalog")[0], lambda code: code == 200, seconds=SECONDS)


def test_nginx_serves_and_restarts_while_the_daemon_is_off(host: Machine) -> None:
    host.sh("systemctl stop scr-watchd")
    assert host.show("scr-watchd", "Result") == "success"
    assert pulls(host, "a:1")
    host.sh("systemctl restart nginx")
    assert pulls(host, "a:1")
    host.sh("systemctl start scr-watchd")
    until_status(host, "^serving 1 image")


def test_starting_it_starts_nginx_and_neither_needs_the_other(host: Machine) -> None:
    host.sh("systemctl stop scr-watchd nginx; systemctl start scr-watchd")
    until(lambda: host.show("nginx", "ActiveState"), lambda state: state == "active")
    assert pulls(host, "a:1")
    host.sh("systemctl stop nginx")
    assert host.show("scr-watchd", "ActiveState") == "active"
    host.sh(f"cp -r /srv/images/b {IMAGES}/c:1")
    until_status(host, "nginx does not run")
    until(lambda: "'=c'" in host.sh(f"cat {STATE}/nginx/current/http.conf"), seconds=SECONDS)
    host.sh("systemctl start nginx")
    assert pulls(host, "c:1")
    host.sh(f"rm -r {IMAGES}/c:1")
    until_status(host, "^serving 1 image")


def test_a_daemon_that_hangs_is_restarted_by_the_watchdog(host: Machine) -> None:
    with drop_in(host, "[Service]", "WatchdogSec=1", "RestartSec=100ms"):
        before = restarts(host)
        host.sh("systemctl kill --signal=STOP scr-watchd")
        assert pulls(host, "a:1")
        until(lambda: restarts(host), lambda count: count > before, seconds=SECONDS)
        until_active(host)
    assert "watchdog" in host.sh("journalctl --unit=scr-watchd --output=cat").lower()


def test_a_daemon_that_is_killed_comes_back_and_nginx_notices_nothing(host: Machine) -> None:
    with drop_in(host, "[Service]", "RestartSec=100ms"), host.asking(OTHER):
        before = restarts(host)
        host.sh("systemctl kill --signal=KILL scr-watchd")
        assert pulls(host, "a:1")
        until(lambda: restarts(host), lambda count: count > before, seconds=SECONDS)
        until_active(host)
        until_status(host, "^serving 1 image")


def test_a_wrong_setting_is_said_and_not_tried_again(host: Machine) -> None:
    with settings(host, 'wacth = "poll"'):
        assert host.run("systemctl", "restart", "scr-watchd", check=False).returncode != 0
        # a restart that is still to come would be the state "activating", of the kind "auto-restart"
        assert host.show("scr-watchd", "ActiveState") == "failed"
        assert host.show("scr-watchd", "ExecMainStatus") == "78"
        assert "did you mean watch?" in host.sh("journalctl --unit=scr-watchd --output=cat")
        assert pulls(host, "a:1")
        host.sh("systemctl restart nginx")
        assert pulls(host, "a:1")
    until_active(host)


def test_what_can_be_mended_is_tried_until_it_is(host: Machine) -> None:
    """Longer than systemd's own limit of five starts in ten seconds."""
    with drop_in(host, "[Service]", "RestartSec=50ms"):
        host.sh("mv /usr/sbin/nginx /root/nginx.away; systemctl restart scr-watchd || true")
        until(lambda: restarts(host), lambda count: count > 6, seconds=SECONDS)
        host.sh("mv /root/nginx.away /usr/sbin/nginx")
        until_active(host)


def test_images_on_a_disk_that_comes_late_are_found(host: Machine) -> None:
    with settings(host, 'root = "/srv/late/images"'):
        host.sh("systemctl restart scr-watchd")
        assert host.show("scr-watchd", "ActiveState") == "active"
        until_status(host, "/srv/late/images")
        assert pulls(host, "a:1"), "what was published stays"
        host.sh("mkdir -p /srv/late; mount -t tmpfs -o mode=755 late /srv/late; mkdir /srv/late/images")
        host.sh("cp -r /srv/images/b /srv/late/images/b:1")
        host.run("scr-watchd", "wait", "b:1")
        assert pulls(host, "b:1")
        assert links(host, "/srv/late/images/.scr-watchd/store/b") == ["2", "2", "2"], (
            "the store is on the disk of the images"
        )
    host.sh("umount --lazy /srv/late; scr-watchd accept")
    until_status(host, "^serving 1 image in 1 repository")


def test_images_of_another_owner_have_hard_links_to_a_state_beside_them(host: Machine) -> None:
    host.sh("mkdir -p /srv/beside; mount -t tmpfs -o mode=755 beside /srv/beside")
    host.sh("cp -r /srv/images /srv/beside/; chown -R deploy /srv/beside/images")
    with settings(host, 'root = "/srv/beside/images"'):
        host.sh("systemctl restart scr-watchd")
        until(  # it is active before its first look
            lambda: host.run("scr-watchd", "status", check=False).stdout,
            lambda text: "symbolic: a hard link from" in text,
            seconds=SECONDS,
        )
    with settings(host, 'root = "/srv/beside/images"', 'state = "/srv/beside/state"'):
        host.sh("systemctl restart scr-watchd")
        assert "/srv/beside/state/store (hard links)" in host.run("scr-watchd", "status", check=False).stdout
    host.sh("umount /srv/beside; scr-watchd accept")
    until_status(host, "^serving 1 image in 1 repository")


def test_a_large_image_is_hashed_in_the_background(host: Machine) -> None:
    """In the sandbox of the unit, which forbids much."""
    built = image("x" * 25_000_000)  # three blobs, more than what is hashed at once
    for file, content in {**built.files, "version": b"1.1", "manifest.json": built.raw}.items():
        host.write(f"{IMAGES}/large:1/{file}", content)
    assert built.digest in host.run("scr-watchd", "wait", "large:1").stdout
    host.sh(f"rm -r {IMAGES}/large:1; scr-watchd prune --now")


def test_a_disk_with_all_that_is_published_may_come_late(host: Machine) -> None:
    """Images and state on one disk: what is published there is served once it is mounted."""
    host.sh(
        f"systemctl stop scr-watchd; mkdir -p /srv/disk; mount -t tmpfs -o mode=755 disk /srv/disk;"
        f"cp -a {STATE}/. /srv/disk/; cp -r /srv/images/b /srv/disk/images/b:1; mkdir -p /srv/empty;"
        f"mount -t tmpfs -o mode=755 empty {STATE}; systemctl restart nginx; systemctl start scr-watchd"
    )
    assert host.show("scr-watchd", "ActiveState") == "active"
    host.sh(f"mount --bind /srv/disk {STATE}")
    until(lambda: pulls(host, "b:1"), seconds=SECONDS)
    assert pulls(host, "a:1")
    # links to a copy that was removed stay for a while; to this one they are made anew
    until(lambda: links(host, f"{STATE}/store/b"), lambda found: found == ["2", "2", "2"], seconds=SECONDS)
    host.sh(
        f"systemctl stop scr-watchd; umount {STATE} {STATE} /srv/disk; systemctl restart nginx;"
        "systemctl start scr-watchd"
    )
    until_status(host, "^serving 1 image in 1 repository")


def test_a_disk_that_is_mounted_over_the_images_is_found(host: Machine) -> None:
    host.sh(f"mount -t tmpfs -o mode=755 late {IMAGES}; cp -r /srv/images/b {IMAGES}/b:1")
    host.run("scr-watchd", "wait", "b:1")
    assert pulls(host, "b:1")
    host.sh(f"umount --lazy {IMAGES}; scr-watchd accept")
    until_status(host, "^serving 1 image in 1 repository")


SITE = """
server {
    listen 127.0.0.1:81;
    listen unix:/run/site.sock;
    error_log /srv/logs/error.log;
    access_log /srv/logs/access.log;
    access_log syslog:server=unix:/dev/log;
    client_body_temp_path /var/lib/nginx/another;
    location /a { proxy_pass http://registry.example.com:8080; }
}
"""


def test_nginx_is_tested_with_all_that_a_site_opens(host: Machine) -> None:
    """Logs elsewhere and of nginx's user, low ports, sockets, names to look up: none is refused."""
    host.write("/etc/nginx/conf.d/site.conf", SITE)
    host.sh("mkdir -p /srv/logs; install --owner=www-data --mode=600 /dev/null /srv/logs/access.log")
    host.sh(f"nginx -t; systemctl reload nginx; cp -r /srv/images/b {IMAGES}/d:1")
    host.run("scr-watchd", "wait", "d:1")
    until_status(host, "^serving 2 images")
    assert "may not do here" not in host.sh("journalctl --unit=scr-watchd --output=cat")
    host.write("/etc/nginx/conf.d/site.conf", SITE.replace("listen 127", "lisen 127"))
    host.sh(f"rm -r {IMAGES}/d:1")
    until_status(
        host,
        r"^nginx refuses the site's configuration.* directive .lisen. in /etc/nginx/conf.d/site.conf:3",
    )
    host.sh("rm /etc/nginx/conf.d/site.conf; systemctl reload nginx")
    until_status(host, "^serving 1 image")


def test_what_cannot_be_tested_is_said_and_published(host: Machine) -> None:
    """A temporary directory that is not there yet: nginx gives it to its user, which the unit may not."""
    host.write("/etc/nginx/conf.d/site.conf", "proxy_temp_path /var/lib/nginx/new;\n")
    host.sh(f"cp -r /srv/images/b {IMAGES}/f:1")
    host.run("scr-watchd", "wait", "f:1")
    log = host.sh("journalctl --unit=scr-watchd --output=cat")
    assert re.search(r'(?s)without a test of /etc/nginx/nginx.conf: .*chown\("/var/lib/nginx/new"', log)
    until(lambda: host.sh("stat -c %U /var/lib/nginx/new").strip(), lambda user: user == "www-data")
    host.sh(f"rm -r {IMAGES}/f:1 /etc/nginx/conf.d/site.conf")
    until_status(host, "^serving 1 image")


def test_nginx_that_never_ran_starts_after_it_was_tested(host: Machine) -> None:
    """Its temporary directories are nginx's user's in the end, though our nginx -t may not give them."""
    host.sh("systemctl stop nginx; rm -rf /var/lib/nginx/* /run/nginx.pid")
    host.sh(f"cp -r /srv/images/b {IMAGES}/e:1")
    until_status(host, "nginx does not run")
    host.sh("systemctl start nginx")
    assert host.sh("stat -c %U /var/lib/nginx/body").strip() == "www-data"
    host.run("scr-watchd", "wait", "e:1")
    host.sh(f"rm -r {IMAGES}/e:1")
    until_status(host, "^serving 1 image")


def test_its_exposure_is_at_most_what_is_documented(host: Machine) -> None:
    rated = host.run("systemd-analyze", "security", "--no-pager", "scr-watchd").stdout
    told = re.search(r"exposure level for scr-watchd.service: ([0-9.]+)", rated)
    assert told
    assert float(told[1]) <= 2.5
    assert f"`{told[1]}`" in text("docs/service.md")
    marked = re.findall(r"^✗ (\S+)", rated, re.MULTILINE)
    assert marked
    unit = (HOUSE / "systemd" / "scr-watchd.service").read_text()
    reasons = "\n".join(line for line in unit.splitlines() if line.startswith("# "))
    assert [each for each in marked if not any(name in reasons for name in _names(each))] == []


def _names(marked: str) -> list[str]:
    """What a line of `systemd-analyze security` is about: a capability, an address family, a setting."""
    detail = ["_".join(found) for found in re.findall(r"(CAP|AF)_\(?([A-Z]+)", marked)]
    return detail or [f"{name}=" for name in re.findall(r"([A-Za-z]+)=", marked)]


def test_the_unit_is_as_systemd_wants_it(host: Machine) -> None:
    assert host.sh("systemd-analyze verify scr-watchd.service 2>&1").strip() == ""


def test_an_upgrade_keeps_settings_and_images_and_the_daemon_is_the_new_one(host: Machine) -> None:
    host.sh(
        "dpkg-deb -R /root/scr-watchd_1.deb /root/new;"
        "sed -i 's/^Version: .*/Version: 99-1/' /root/new/DEBIAN/control;"
        f"chown deploy {IMAGES}; chmod 00755 {IMAGES};"
        "dpkg-deb --root-owner-group -b /root/new /root/new.deb; echo '# mine' >> /etc/scr-watchd/config.toml"
    )
    process = host.show("scr-watchd", "MainPID")
    with host.asking(OTHER):
        host.run("dpkg", "-i", "/root/new.deb")
        assert host.show("scr-watchd", "ActiveState") == "active"
        assert host.show("scr-watchd", "MainPID") != process
    assert "# mine" in host.sh("cat /etc/scr-watchd/config.toml")
    assert host.sh(f"stat -c '%U %a' {IMAGES}").split() == ["deploy", "755"], (
        "whoever it was given to keeps it"
    )
    assert pulls(host, "a:1")
    host.run("dpkg", "-i", "/root/scr-watchd_1.deb")


def test_nginx_serves_on_when_the_package_is_removed(host: Machine) -> None:
    with host.asking(OTHER):
        host.run("dpkg", "--remove", "scr-watchd")
        assert pulls(host, "a:1")
    host.sh("nginx -t; systemctl restart nginx")
    assert pulls(host, "a:1")
    assert host.run("test", "-e", "/usr/lib/scr-watchd", check=False).returncode != 0, (
        "nothing of it is left there"
    )
    install(host)
    until_status(host, "^serving 1 image")


def test_a_purge_leaves_the_images_and_an_nginx_that_starts(host: Machine) -> None:
    with host.asking(OTHER):
        said = host.run("dpkg", "--purge", "scr-watchd").stdout
        assert "the images stay" in said
        assert host.sh(f"ls -A {STATE}").split() == ["images"]
        host.sh(f"cmp {IMAGES}/a:1/manifest.json /srv/images/a/manifest.json")
        host.sh("systemctl reload nginx")
        until(lambda: registry(host, "/v2/")[0], lambda code: code == 404, seconds=SECONDS)
    host.sh("systemctl restart nginx")
    assert host.ask("/", port=OTHER) == (200, "the other site")
    install(host)
    until_status(host, "^serving 1 image")
    assert pulls(host, "a:1")


def test_a_purge_says_what_nginx_would_not_start_with(host: Machine) -> None:
    host.write("/etc/nginx/conf.d/mine.conf", "map $scr_repo $mine { default 1; }\n")
    host.sh("nginx -t; systemctl reload nginx")
    said = host.run("dpkg", "--purge", "scr-watchd").stdout
    assert 'unknown "scr_repo" variable' in said
    host.sh("rm /etc/nginx/conf.d/mine.conf")
