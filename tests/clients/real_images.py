"""Real images: built with buildah from a static busybox, copied with skopeo."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.nginxes import require


def skopeo(*arguments: object) -> str:
    """Run skopeo; return what it printed, fail with what it complained of."""
    return _run(require("skopeo"), *arguments)


@dataclass(frozen=True)
class Workshop:
    """Builds images in a directory of its own; ``buildah`` keeps nothing elsewhere."""

    directory: Path

    def build(self, name: str, *, arch: str = "amd64", content: str = "") -> str:
        """An image with busybox and one more layer; returns where skopeo finds it."""
        container = self._buildah("from", "scratch").strip()
        file = self.directory / "content"
        file.write_text(content or name)
        self._buildah("copy", container, require("busybox"), "/bin/busybox")
        self._buildah("copy", container, str(file), "/content")
        self._buildah("config", "--arch", arch, "--cmd", '["/bin/busybox", "sh"]', container)
        self._buildah("commit", "--quiet", "--rm", container, name)
        return f"containers-storage:[vfs@{self._root}+{self._run}]localhost/{name}"

    def build_list(self, name: str, **arches: str) -> str:
        """A multi-platform image; returns where skopeo finds it, with all of its platforms."""
        self._buildah("manifest", "create", name)
        for arch, content in arches.items():
            self.build(f"{name}-{arch}", arch=arch, content=content)
            self._buildah("manifest", "add", "--arch", arch, name, f"localhost/{name}-{arch}")
        layout = f"oci:{self.directory}/{name}:1"
        self._buildah("manifest", "push", "--all", "--quiet", name, layout)
        return layout

    @property
    def _root(self) -> Path:
        return self.directory / "root"

    @property
    def _run(self) -> Path:
        return self.directory / "run"

    def _buildah(self, *arguments: str) -> str:
        where = ("--root", str(self._root), "--runroot", str(self._run), "--storage-driver", "vfs")
        return _run(require("buildah"), *where, *arguments)


Sources = Mapping[str, tuple[str, tuple[str, ...]]]
"""Where each kind of image comes from, and skopeo's options that keep it that kind."""


def kinds(workshop: Workshop) -> Sources:
    single = workshop.build("single")
    changed = workshop.build("changed", content="another version")
    both = workshop.build_list("both", amd64="for amd64", arm64="for arm64")
    return {
        "oci": (single, ("--format", "oci")),
        "v2s2": (single, ("--format", "v2s2", "--dest-compress")),
        "changed": (changed, ("--format", "oci")),
        "list": (both, ("--all",)),
        "v2s2-list": (both, ("--all", "--format", "v2s2")),
    }


def drop(sources: Sources, kind: str, directory: Path) -> Path:
    source, options = sources[kind]
    skopeo("copy", "--quiet", *options, source, f"dir:{directory}")
    return directory


def pull(address: str, name: str, directory: Path, *options: object) -> Path:
    """Pull every platform, and return the directory with what came."""
    insecure = () if options else ("--src-tls-verify=false",)
    skopeo("copy", "--quiet", "--all", *insecure, *options, f"docker://{address}/{name}", f"dir:{directory}")
    return directory


def assert_same(came: Path, went: Path) -> None:
    """Every file that went in came out, but for skopeo's note of its own version."""
    files = {path.name for path in went.iterdir()} - {"version"}
    assert {path.name for path in came.iterdir()} - {"version"} == files
    for name in files:
        assert (came / name).read_bytes() == (went / name).read_bytes(), name


def _run(program: str, *arguments: object) -> str:
    result = subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"},
    )
    assert result.returncode == 0, f"{program} {arguments}: {result.stderr}"
    return result.stdout
