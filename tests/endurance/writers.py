"""Writers of an images tree, with the tools of the trade, which fail now and then: they are in each other's
way, the disk is full, and they are ended in the middle."""

import os
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.endurance.hosts import image_of, layer
from tests.nginxes import require
from tests.trees import Built, index, write_image, write_layout

_PATHS = [f"{name}{form}{tag}" for name in ("app", "library/tool") for form in ":/" for tag in range(4)]
_LAYOUTS = ["layout", "bundle", "library/layout:1"]
_NAMES = ["1", "2", "docker.io/library/alpine:3.20", "quay.io/other/app:1"]
_LARGE = 70 * 2**20  # more than is hashed at once


@dataclass
class Writer:
    """Puts images below ``images``; ``scratch`` is on another disk."""

    images: Path
    scratch: Path
    random: Random
    done: Counter[str] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)

    def write(self, stop: threading.Event) -> None:
        self._stop = stop
        ways: list[Callable[[], None]] = [
            self.skopeo, self.skopeo, self.skopeo_to_layout, self.rsync, self.slow_rsync, self.slow_tar,
            self.cp, self.mv, self.mv, self.rm, self.rm, self.chmod, self.hardlink, self.link,
            self.layout, self.cut_off, self.large,
        ]  # fmt: skip
        while not stop.wait(self.random.uniform(0, 0.4)):
            way = self.random.choice(ways)
            with suppress(OSError):
                way()
            self.done[way.__name__] += 1

    # -- what comes ----------------------------------------------------------------------------------

    def skopeo(self) -> None:
        self._run("skopeo", "copy", "-q", "--all", f"dir:{self._source()}", f"dir:{self._path()}")

    def skopeo_to_layout(self) -> None:
        target = f"oci:{self.images}/{self.random.choice(_LAYOUTS)}:{self.random.choice('12')}"
        self._run("skopeo", "copy", "-q", "--all", f"dir:{self._source()}", target)

    def rsync(self) -> None:
        self._run("rsync", "-a", "--delete", f"{self._source()}/", self._path())

    def slow_rsync(self) -> None:
        self._run("rsync", "-a", "--bwlimit=400", f"{self._source()}/", self._path())

    def slow_tar(self) -> None:
        """Over a slow line."""
        path = self._path()
        path.mkdir(parents=True, exist_ok=True)
        tar = subprocess.Popen([require("tar"), "c", "-C", self._source(), "."], stdout=subprocess.PIPE)
        unpack = subprocess.Popen(
            [require("tar"), "x", "-C", path], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert tar.stdout is not None
        assert unpack.stdin is not None
        with suppress(BrokenPipeError):
            while (piece := tar.stdout.read(150_000)) and not self._stop.wait(0.3):
                unpack.stdin.write(piece)
                unpack.stdin.flush()
        with suppress(BrokenPipeError):
            unpack.stdin.close()
        tar.stdout.close()
        tar.wait(30)
        unpack.wait(30)

    def cp(self) -> None:
        """Not over what is there: that would write to files that are served."""
        path = self._path()
        if not os.path.lexists(path):
            self._run("cp", "-r", self._source(), path)

    def layout(self) -> None:
        names = self.random.sample(_NAMES, self.random.randrange(1, 4))
        aside = self.images / f".new-{self.random.random()}"
        write_layout(aside, *((name, self._built()) for name in names))
        target = self.images / self.random.choice(_LAYOUTS)
        self._away(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.rename(target)

    def large(self) -> None:
        if self.random.random() < 0.2:
            path = self.images / "large:1"
            self._away(path)
            write_image(path, image_of("large", [bytes(_LARGE)]))

    # -- what else people do -------------------------------------------------------------------------

    def mv(self) -> None:
        source, target = self._path(), self._path()
        if source.is_dir() and source != target:
            self._away(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)

    def rm(self) -> None:
        self._away(self.images / self.random.choice([*_PATHS, *_LAYOUTS, "large:1"]))

    def chmod(self) -> None:
        """A file or a directory is private for a moment, or stays so."""
        path = self._path()
        files = [path, *(path.iterdir() if path.is_dir() else ())]
        chosen = self.random.choice(files)
        chosen.chmod(0o700 if chosen.is_dir() else 0o600)
        if self.random.random() < 0.8:
            self._stop.wait(0.5)
            chosen.chmod(0o755 if chosen.is_dir() else 0o644)

    def hardlink(self) -> None:
        self._run("hardlink", "-c", self.images)

    def link(self) -> None:
        link, other = self.images / "app:latest", self._path()
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(other, link.parent))

    def cut_off(self) -> None:
        """A copy that was broken off."""
        path = self._path()
        if not os.path.lexists(path):
            built = self._built()
            write_image(path, Built(built.raw, built.media_type, dict(list(built.files.items())[1:])))

    # -- below ---------------------------------------------------------------------------------------

    def _path(self) -> Path:
        return self.images / self.random.choice(_PATHS)

    def _built(self) -> Built:
        seeds = [f"{self.random.randrange(6)}" for _ in range(2)]
        one, other = (
            image_of(f"soak {seed}", [layer("base", 100_000), layer(seed, 400_000)]) for seed in seeds
        )
        return (
            index(one, other, platforms=("linux/amd64", "linux/arm64")) if self.random.random() < 0.4 else one
        )

    def _source(self) -> Path:
        """An image on another disk."""
        built = self._built()
        path = self.scratch / built.digest[7:]
        if not (path / "manifest.json").exists():
            aside = self.scratch / f"new-{self.random.random()}"
            write_image(aside, built)
            with suppress(OSError):  # another writer was sooner
                aside.rename(path)
        return path

    def _away(self, path: Path) -> None:
        """In one step, as far as the tree goes."""
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            gone = self.images / f".gone-{self.random.random()}"
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _run(self, program: str, *arguments: object) -> None:
        """To its end, or until all stops: then it is killed, with what it has begun."""
        process = subprocess.Popen(
            [require(program), *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not self._stop.wait(0.05):
            pass
        if process.poll() is None:
            process.kill()
        process.wait()


def clean(images: Path, *, keep: Collection[str]) -> None:
    """Remove all but the directories to ``keep``."""
    for path in images.iterdir():
        if path.name not in keep and not path.name.startswith(".scr-watchd"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
