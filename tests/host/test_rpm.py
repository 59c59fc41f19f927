"""The RPM: what is in it, for which Python, and what it does to a machine. That is a Debian, whose rpm knows
no other package, so what ours requires is read and not asked for."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import block
from tests.host.hosts import IMAGES, OTHER, STATE, mirror_host, pulls, status, until_status
from tests.machines import Machine
from tests.nginxes import require
from tests.packages import build, built_deb

pytestmark = [pytest.mark.systemd, pytest.mark.slow]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the Python of this Debian."""
    return build("rpm", tmp_path_factory.mktemp("rpm"))


def asked(package: Path, *options: str) -> list[str]:
    """What rpm says of the package."""
    result = subprocess.run(
        [require("rpm"), "-qp", *options, package], capture_output=True, text=True, check=True
    )
    return result.stdout.splitlines()


def test_it_has_what_the_debian_package_has(package: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    listed = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", built_deb(tmp_path_factory)], capture_output=True, check=True
    )
    names = subprocess.run(["tar", "-t"], input=listed.stdout, capture_output=True, check=True).stdout
    debian = {f"/{name[2:]}" for name in names.decode().split("\n") if name and not name.endswith("/")}
    debian = {name.replace("zsh/vendor-completions", "zsh/site-functions") for name in debian}
    debian -= {"/usr/share/lintian/overrides/scr-watchd", "/usr/share/doc/scr-watchd/changelog.Debian.gz"}
    listed_here = asked(package, "--queryformat", "[%{FILEMODES:perms} %{FILENAMES}\n]")
    assert {line.split()[1] for line in listed_here if line.startswith("-")} == debian
    owned = {line.split()[1] for line in listed_here if line.startswith("d") and line.count("/") < 5}
    assert owned == {"/etc/scr-watchd", "/usr/lib/scr-watchd", "/usr/share/doc/scr-watchd"} | {
        name for name in owned if name.startswith("/usr/lib/scr-watchd/")
    }, "no directory of the system is ours"
    assert asked(package, "--configfiles") == ["/etc/scr-watchd/config.toml"]


def test_its_scripts_are_a_shells_and_end_well_whatever_fails(package: Path) -> None:
    text = "\n".join(asked(package, "--scripts"))
    parts = re.split(r"^(\w+) scriptlet \(using /bin/sh\):$", text, flags=re.MULTILINE)
    scripts = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert scripts.keys() == {"postinstall", "preuninstall", "postuninstall"}
    for script in scripts.values():
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
        for line in re.sub(r"(?s)<< 'END'.*?^END$", "", script, flags=re.MULTILINE).splitlines():
            if re.match(r" *(systemctl|systemd-|find|/usr/bin/python)", line):
                assert "|| :" in line, "rpm would call the package half installed"


@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_it_is_for_the_python_that_was_named(tmp_path: Path, version: str) -> None:
    package = build("rpm", tmp_path, FOR=version)
    assert package.name.endswith(f".python{version}.x86_64.rpm")
    assert f"/usr/bin/python{version}" in asked(package, "--requires")
    modules = [name for name in asked(package, "-l") if name.endswith(".so")]
    assert modules
    assert all(f"cpython-{version.replace('.', '')}-" in name for name in modules)
    root = tmp_path / "root"
    install: list[object] = ["rpm", "--root", root, "--install", "--nodeps", "--noscripts", package]
    subprocess.run(list(map(str, install)), check=True, capture_output=True)
    subprocess.run(["rpm", "--root", root, "--verify", "--nodeps", "scr-watchd"], check=True)
    assert (root / "usr/bin/scr-watchd").read_text().startswith(f"#!/usr/bin/python{version} -I\n")


def test_the_same_commit_gives_the_same_package(package: Path, tmp_path: Path) -> None:
    assert build("rpm", tmp_path).read_bytes() == package.read_bytes()


@pytest.fixture(scope="module")
def machine(package: Path) -> Iterator[Machine]:
    with mirror_host() as made:
        made.write(f"/root/{package.name}", package.read_bytes())
        yield made


def test_it_is_installed_upgraded_and_erased_and_nginx_serves(machine: Machine) -> None:
    """By the documented commands, but for dnf, which Debian has not."""
    install, *rest = block("docs/service.md", "Fedora, RHEL, SUSE", "dnf install").splitlines()
    assert "dnf install ./scr-watchd-*.rpm" in install
    install = "cd /root && rpm --{} --nodeps scr-watchd-*.rpm"
    with machine.asking(OTHER):
        assert "Three more steps" in machine.sh(install.format("install"))
        assert machine.sh(f"stat -c '%a %G' {IMAGES}").split() == ["2775", "scr-watchd"]
        machine.sh("\n".join(rest))
        until_status(machine, "^serving 0 images")
        machine.sh(f"cp -r /srv/images/a {IMAGES}/a:1; scr-watchd wait a:1")
        assert pulls(machine, "a:1")
        assert machine.sh("rpm --verify --nodeps scr-watchd") == ""

        machine.sh("echo '# mine' >> /etc/scr-watchd/config.toml")
        process = machine.show("scr-watchd", "MainPID")
        machine.sh(install.format("upgrade --replacepkgs"))
        assert machine.show("scr-watchd", "ActiveState") == "active"
        assert machine.show("scr-watchd", "MainPID") != process
        assert "# mine" in machine.sh("cat /etc/scr-watchd/config.toml")
        until_status(machine, "^serving 1 image")

        machine.sh("rpm --erase scr-watchd; systemctl reload nginx")
        assert pulls(machine, "a:1")
        assert machine.show("scr-watchd", "ActiveState") == "inactive"
        assert "# mine" in machine.sh("cat /etc/scr-watchd/config.toml.rpmsave")
        assert machine.run("test", "-e", "/usr/lib/scr-watchd", check=False).returncode != 0
        machine.sh(f"cmp {IMAGES}/a:1/manifest.json /srv/images/a/manifest.json; test -d {STATE}/store")
    assert status(machine) == ""
