"""The container clients, each pulling as its own documentation says."""

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Protocol

from tests.engines import Containerd, Dockerd, run
from tests.nginxes import require
from tests.trees import digest_of


class RefusedError(Exception):
    """The pull failed, with what the client said."""


@dataclass(frozen=True)
class Wanted:
    """What to pull: ``name`` with tag or digest, from ``address``, by ``plain`` HTTP or by TLS. With a
    ``mirror``, HOST:PORT or HOST:PORT/PREFIX, the client is to ask that for it first.
    """

    address: str
    name: str
    plain: bool = True
    ca: Path | None = None
    credentials: str = ""
    mirror: str = ""

    @property
    def reference(self) -> str:
        return f"{self.address}/{self.name}"


@dataclass(frozen=True)
class Came:
    """What the client has now: every digest that it knows the image by, and /content in it."""

    digests: frozenset[str]
    content: str


class Client(Protocol):
    """Each pull begins with nothing: no image of an earlier one is left. Raises ``RefusedError``."""

    name: str

    def version(self) -> str: ...
    def pull(self, wanted: Wanted) -> Came: ...


def _said(program: str, *arguments: object) -> str:
    """The version in what the program says of itself."""
    found = re.search(r"\d+\.\d+[.\d]*", run(require(program), *arguments))
    assert found
    return found.group()


def _content_of(layers: bytes) -> str:
    with tarfile.open(fileobj=io.BytesIO(layers), mode="r:*") as archive:
        file = archive.extractfile("content")
        assert file
        return file.read().decode()


@contextmanager
def _refusing() -> Iterator[None]:
    """Around the pull alone: what fails later is a fault of the test."""
    try:
        yield
    except AssertionError as error:
        raise RefusedError(str(error)) from error


@dataclass
class Docker:
    engine: Dockerd
    name: str = "docker"

    def version(self) -> str:
        return _said("dockerd", "--version")

    def pull(self, wanted: Wanted) -> Came:
        """With a ``mirror`` dockerd must have been started with it."""
        docker = self.engine.docker
        known = self.engine.directory / "etc" / "certs.d" / wanted.address
        shutil.rmtree(known, ignore_errors=True)
        if wanted.ca:
            known.mkdir(parents=True)
            shutil.copy(wanted.ca, known / "ca.crt")
        (self.engine.directory / "client" / "config.json").unlink(missing_ok=True)
        with _refusing():
            if wanted.credentials:
                user, _, password = wanted.credentials.partition(":")
                docker("login", wanted.address, "--username", user, "--password", password)
            docker("pull", "--quiet", wanted.reference)
        digests = json.loads(
            docker("image", "inspect", "--format", "{{json .RepoDigests}}", wanted.reference)
        )
        container = docker("create", "--network=none", wanted.reference).strip()
        content = _output(require("docker"), "cp", f"{container}:/content", "-", **self.engine.variables)
        docker("rm", container)
        docker("rmi", "--force", docker("image", "inspect", "--format", "{{.Id}}", wanted.reference).strip())
        assert docker("images", "--quiet") == ""
        return Came(_after_at(digests), _content_of(content))


@dataclass
class Ctr:
    engine: Containerd
    directory: Path
    name: str = "containerd"
    _numbers: Iterator[int] = field(default_factory=count)

    def version(self) -> str:
        return _said("containerd", "--version")

    def pull(self, wanted: Wanted) -> Came:
        # in a namespace of containerd of its own, so that nothing is there already
        self._space = f"pull{next(self._numbers)}"
        with _refusing():
            self._ctr("images", "pull", *self._options(wanted), wanted.reference)
        (line,) = self._ctr("images", "ls", f"name=={wanted.reference}").splitlines()[1:]
        (digest,) = re.findall(r"sha256:[0-9a-f]{64}", line.split(maxsplit=3)[2])
        manifest = json.loads(self._bytes(digest))
        if "manifests" in manifest:
            (ours,) = (each for each in manifest["manifests"] if each["platform"]["architecture"] == "amd64")
            manifest = json.loads(self._bytes(ours["digest"]))
        (layer,) = manifest["layers"]
        return Came(frozenset({digest}), _content_of(self._bytes(layer["digest"])))

    def fetch(self, wanted: Wanted) -> dict[str, bytes]:
        """Everything that belongs to something that is no image, by digest."""
        self._space = f"fetch{next(self._numbers)}"
        self._ctr("content", "fetch", *self._options(wanted), wanted.reference)
        return {digest: self._bytes(digest) for digest in self._ctr("content", "ls", "--quiet").split()}

    def _options(self, wanted: Wanted) -> list[object]:
        options: list[object] = ["--plain-http"] if wanted.plain and not wanted.mirror else []
        options += ["--user", wanted.credentials] if wanted.credentials else []
        hosts = self.directory / "hosts" / self._space
        hosts.mkdir(parents=True)
        if wanted.ca:
            (hosts / wanted.address).mkdir()
            (hosts / wanted.address / "hosts.toml").write_text(
                f'[host."https://{wanted.address}"]\nca = "{wanted.ca}"\n'
            )
            options += ["--hosts-dir", hosts]
        if wanted.mirror:
            (hosts / wanted.address).mkdir()
            (hosts / wanted.address / "hosts.toml").write_text(
                f'server = "https://{wanted.address}"\n'
                f'[host."http://{wanted.mirror}"]\ncapabilities = ["pull", "resolve"]\n'
            )
            options += ["--hosts-dir", hosts]
        return options

    def _ctr(self, *arguments: object) -> str:
        return self.engine.ctr("--namespace", self._space, *arguments)

    def _bytes(self, digest: str) -> bytes:
        command = (require("ctr"), "--address", self.engine.socket, "--namespace", self._space)
        content = _output(*command, "content", "get", digest)
        assert digest_of(content) == digest
        return content


@dataclass
class _Library:
    """What podman, buildah and skopeo have in common. Each pull gets a directory of its own, so that
    nothing is there already; ``settings`` is what these clients see as /etc/containers."""

    directory: Path
    settings: Path
    before: tuple[str, ...]
    name: str
    _numbers: Iterator[int] = field(default_factory=count)
    _place: Path = Path()

    def version(self) -> str:
        return _said(self.name, "--version")

    def _begin(self, wanted: Wanted) -> None:
        self._place = self.directory / f"{self.name}{next(self._numbers)}"
        self._place.mkdir(parents=True)
        (self._place / "auth.json").write_text("{}")  # no login of whoever runs this
        mirror = (
            f'[[registry]]\nlocation = "{wanted.address}"\n'
            f'[[registry.mirror]]\nlocation = "{wanted.mirror}"\ninsecure = true\n'
        )
        (self.settings / "registries.conf").write_text(mirror if wanted.mirror else "")
        known = self.settings / "certs.d" / wanted.address
        shutil.rmtree(known, ignore_errors=True)
        if wanted.ca:
            known.mkdir(parents=True)
            shutil.copy(wanted.ca, known / "ca.crt")

    def _login(self, wanted: Wanted) -> None:
        if wanted.credentials:
            user, _, password = wanted.credentials.partition(":")
            self._run("login", "--username", user, "--password", password, wanted.address)

    def _run(self, *arguments: object) -> str:
        login = str(self._place / "auth.json")
        return run(*self.before, require(self.name), *arguments, REGISTRY_AUTH_FILE=login)

    def _engine(self, *arguments: object) -> str:
        where = ("--root", self._place / "root", "--runroot", self._place / "run", "--storage-driver", "vfs")
        return self._run(*where, *arguments)


class Podman(_Library):
    def pull(self, wanted: Wanted) -> Came:
        self._begin(wanted)
        with _refusing():
            self._login(wanted)
            self._engine("pull", "--quiet", f"--tls-verify={_word(not wanted.plain)}", wanted.reference)
        told = self._engine("image", "inspect", "--format", "{{json .RepoDigests}}", wanted.reference)
        mounted = Path(self._engine("image", "mount", wanted.reference).strip())
        return Came(_after_at(json.loads(told)), (mounted / "content").read_text())


class Buildah(_Library):
    def pull(self, wanted: Wanted) -> Came:
        self._begin(wanted)
        with _refusing():
            self._login(wanted)
            self._engine("pull", "--quiet", f"--tls-verify={_word(not wanted.plain)}", wanted.reference)
        images = json.loads(self._engine("images", "--json", "--digests"))
        container = self._engine("from", "--pull-never", wanted.reference).strip()
        mounted = Path(self._engine("mount", container).strip())
        return Came(frozenset(each["digest"] for each in images), (mounted / "content").read_text())


class Skopeo(_Library):
    def pull(self, wanted: Wanted) -> Came:
        directory = self.copy(wanted)
        raw = (directory / "manifest.json").read_bytes()
        manifest = json.loads(raw)
        if "manifests" in manifest:
            (ours,) = (each for each in manifest["manifests"] if each["platform"]["architecture"] == "amd64")
            manifest = json.loads((directory / f"{ours['digest'][7:]}.manifest.json").read_bytes())
        (layer,) = manifest["layers"]
        content = _content_of((directory / layer["digest"][7:]).read_bytes())
        return Came(frozenset({digest_of(raw)}), content)

    def copy(self, wanted: Wanted) -> Path:
        """A directory with all platforms of it, or with what is no image."""
        self._begin(wanted)
        target = self._place / "came"
        verify = f"--src-tls-verify={_word(not wanted.plain)}"
        with _refusing():
            self._login(wanted)
            self._run("copy", "--quiet", "--all", verify, f"docker://{wanted.reference}", f"dir:{target}")
        return target


def _word(truth: object) -> str:
    return "true" if truth else "false"


def _after_at(names: list[str]) -> frozenset[str]:
    return frozenset(name.partition("@")[2] for name in names)


def _output(*command: str, **environment: str) -> bytes:
    return subprocess.run(
        command, capture_output=True, check=True, timeout=60, env={**os.environ, **environment}
    ).stdout
