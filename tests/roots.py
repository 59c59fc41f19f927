"""Roots of other Debians by debootstrap: their nginx and their clients, run on this machine.

They are made once, and kept in $SCR_TEST_ROOTS or in ~/.cache/scr-watchd/roots. Nothing is written into one
again: who works in a root sees it below a layer of its own. Nothing is mounted but in mount namespaces, which
end with their processes. So a root can be removed like any directory: rm -r ~/.cache/scr-watchd/roots
"""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines import run
from tests.nginxes import cannot, require, require_root

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "bullseye": ("nginx-core",),
    "trixie": (
        *("nginx-light", "ca-certificates", "docker.io", "docker-cli", "containerd", "podman", "buildah"),
        *("skopeo", "oras", "cosign", "curl"),
    ),
    "sid": (
        *("nginx-light", "ca-certificates", "docker.io", "docker-cli", "containerd", "podman", "buildah"),
        *("skopeo", "oras", "cosign", "notation", "crane"),
    ),
}
"""What each root has; one that was made with other packages is made anew."""

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_MAKE = r"""
root=$1 suite=$2; shift 2
debootstrap --variant=minbase "$suite" "$root"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"   # no service is started
chmod 755 "$root/usr/sbin/policy-rc.d"
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
chroot "$root" apt-get install -qq -y --no-install-recommends "$@"
chroot "$root" apt-get clean
"""
# Podman and buildah can unpack nothing in a root that is no mount point. /tmp is ours: the directories of
# tests have the same names in there.
_ENTER = r"""
root=$1 layer=$2
mount -t tmpfs layer "$layer"
mkdir "$layer/upper" "$layer/work" "$layer/root"
mount -t overlay root -o "lowerdir=$root,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
cp /etc/hosts "$layer/root/etc/hosts"
cd "$layer/root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs run run
mount --bind /tmp tmp
echo ready
exec sleep 3600
"""


class UnavailableError(Exception):
    """A root cannot be had today, with what debootstrap or apt said."""


@dataclass(frozen=True)
class Root:
    """A root that is kept in ``directory``."""

    suite: str
    directory: Path

    def program(self, name: str) -> str:
        """A program of this root as one of this machine's: it sees our files, and has its own libraries."""
        libraries = next((self.directory / "usr/lib").glob("*/ld-linux*.so.*")).parent
        made = self.directory / "outside" / name
        if not made.exists():
            made.parent.mkdir(exist_ok=True)
            scratch = made.with_suffix(f".{os.getpid()}")
            (program,) = (self.directory / "usr").glob(f"*bin/{name}")
            run(
                require("patchelf"), "--set-interpreter", next(libraries.glob("ld-linux*.so.*")),
                "--force-rpath", "--set-rpath", libraries, "--output", scratch, program,
            )  # fmt: skip
            scratch.rename(made)
        return str(made)

    @contextmanager
    def entered(self, before: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """The words by which a command runs in this root. ``before`` lead into mounts of its own, such as
        those of a ``network``, and with their last process all of this is gone."""
        with tempfile.TemporaryDirectory(prefix="scrroot") as layer:
            alone = ("unshare", "--mount", "--propagation", "private")
            command = (*before, *alone, "sh", "-euc", _ENTER, "sh", str(self.directory), layer)
            holder = subprocess.Popen(command, stdout=subprocess.PIPE)
            try:
                assert holder.stdout
                assert holder.stdout.readline() == b"ready\n"
                inside = ("nsenter", "--target", str(holder.pid), "--net", "--mount")
                yield (*inside, "chroot", f"{layer}/root", "env", f"PATH={_PATH}")
            finally:
                holder.kill()
                holder.wait()
                if holder.stdout:
                    holder.stdout.close()


def place() -> Path:
    """Where the roots are kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("SCR_TEST_ROOTS") or cache / "scr-watchd" / "roots")


def root(suite: str, *, anew: bool = False) -> Root:
    """The root of a Debian, made if there is none, or ``anew``."""
    require_root("only root can make a root of another Debian")
    require("debootstrap")
    kept = place() / suite
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = kept / ".packages"
        if anew or not made.exists() or made.read_text() != " ".join(PACKAGES[suite]):
            _make(kept, suite)
    return Root(suite, kept)


def _make(kept: Path, suite: str) -> None:
    """In the place of one that is there already only when it is whole."""
    with tempfile.TemporaryDirectory(prefix=f".{suite}", dir=kept.parent) as scratch:
        made = Path(scratch, "root")
        result = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
             "sh", "-euc", _MAKE, "sh", made, suite, *PACKAGES[suite]],
            capture_output=True, text=True, check=False, timeout=1200, stdin=subprocess.DEVNULL,
            env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
                 "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
        )  # fmt: skip
        if result.returncode != 0:
            raise UnavailableError(f"{suite}: {(result.stdout + result.stderr).strip()[-2000:]}")
        (made / ".packages").write_text(" ".join(PACKAGES[suite]))
        if kept.exists():
            kept.rename(Path(scratch, "before"))
        made.rename(kept)


def nginx_of(suite: str) -> str:
    """The nginx of another Debian. A release that Debian has put away is skipped even in CI."""
    try:
        return root(suite).program("nginx")
    except UnavailableError as error:
        if "404" in str(error):
            pytest.skip(str(error))
        cannot(str(error))
