"""A stand-in for debian:12-slim, made with debootstrap: tests may not need a registry of somebody else."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.nginxes import require

NAME = "debian:12-slim"
_SUITE = "bookworm"
# What the real one does to be slim, and to start no service while packages are installed.
_SLIM = {
    "etc/dpkg/dpkg.cfg.d/slim": "".join(
        f"path-exclude /usr/share/{kind}/*\n" for kind in ("doc", "info", "lintian", "locale", "man")
    ),
    "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
}
_UNWANTED = ("usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man", "var/cache/apt",
             "var/lib/apt/lists", "var/log")  # fmt: skip


def tarball(place: Path) -> Path:
    """The file system of the base image, as a file in ``place``. It is made once, and again after
    `pytest --cache-clear`."""
    made = place / f"{_SUITE}.tar"
    if not made.exists():
        with tempfile.TemporaryDirectory(prefix="scrbase") as name:
            root = Path(name) / "root"
            _run(require("debootstrap"), "--variant=minbase", _SUITE, root, *_mirror())
            _slim(root)
            _reach_packages_like_this_machine(root)
            _run("tar", "--numeric-owner", "-C", root, "-cf", f"{made}.new", ".")
            Path(f"{made}.new").rename(made)
    return made


def _slim(root: Path) -> None:
    for name in _UNWANTED:
        shutil.rmtree(root / name)
        (root / name).mkdir()
    for name, content in _SLIM.items():
        (root / name).write_text(content)
        (root / name).chmod(0o755)


def _reach_packages_like_this_machine(root: Path) -> None:
    """The Dockerfile says nothing of mirrors, proxies and certificates; the base image may."""
    if _is_this_release():
        for name in ("sources.list", "sources.list.d", "apt.conf.d", "trusted.gpg.d", "auth.conf.d"):
            source, target = Path("/etc/apt", name), root / "etc/apt" / name
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            elif source.exists():
                shutil.copy(source, target)
            elif name == "sources.list":
                target.unlink(missing_ok=True)
    lines = ["[global]"]
    if index := _pip_setting("index-url"):
        lines.append(f"index-url = {index}")
    if certificates := _pip_setting("cert"):
        shutil.copy(certificates, root / "etc/pip-ca.pem")
        lines.append("cert = /etc/pip-ca.pem")
    (root / "etc/pip.conf").write_text("\n".join([*lines, ""]))


def _pip_setting(name: str) -> str:
    from_environment = os.environ.get(f"PIP_{name.replace('-', '_').upper()}")
    if from_environment:
        return from_environment
    result = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", f"global.{name}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip()


def _is_this_release() -> bool:
    return platform.freedesktop_os_release().get("VERSION_CODENAME") == _SUITE


def _mirror() -> list[str]:
    """Where this machine gets its packages, if it is of the same release; else debootstrap knows."""
    if not _is_this_release():
        return []
    texts = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.sources")]
    words = " ".join(path.read_text() for path in texts if path.exists()).split()
    return [word for word in words if word.startswith("http") and word.rstrip("/").endswith("debian")][:1]


def _run(*command: object) -> None:
    result = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
    )  # fmt: skip
    assert result.returncode == 0, f"{command}: {result.stdout[-2000:]}{result.stderr[-2000:]}"
