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
from typing import Any, Protocol

from tests.engines import Containerd, Dockerd, program, run
from tests.nginxes import require
from tests.trees import digest_of


class RefusedError(Exception):
    """The pull failed, with what the client said."""


@dataclass(frozen=True)
class Wanted:
    """What to pull: ``name`` with tag or digest, from ``address``, by ``plain`` HTTP or by TLS. With a
    ``mirror``, HOST:PORT or HOST:PORT/PREFIX, the client is to ask that for it first; with a ``platform``
    that one, whatever this machine is; ``by_ranges`` if it can.
    """

    address: str
    name: str
    plain: bool = True
    ca: Path | None = None
    credentials: str = ""
    mirror: str = ""
    platform: str = ""
    by_ranges: bool = False

    @property
    def architecture(self) -> str:
        return self.platform.rpartition("/")[2] or "amd64"

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
    def fetch(self, wanted: Wanted) -> frozenset[str]:
        """What is no image; returns the digests that the client knows it by."""
        ...


def version_in(said: str) -> str:
    """The version in what a program says of itself."""
    found = re.search(r"\d+\.\d+[.\d]*", said)
    assert found, said
    return found.group()


def content_of(layers: bytes) -> str:
    if layers.startswith(b"\x28\xb5\x2f\xfd"):
        layers = subprocess.run(
            [require("zstd"), "-dc"], input=layers, capture_output=True, check=True
        ).stdout
    with tarfile.open(fileobj=io.BytesIO(layers), mode="r:*") as archive:
        file = archive.extractfile("content")
        assert file
        return file.read().decode()


@contextmanager
def refusing() -> Iterator[None]:
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
        return version_in(run(*self.engine.client, program("dockerd", self.engine.client), "--version"))

    def pull(self, wanted: Wanted) -> Came:
        """With a ``mirror`` dockerd must have been started with it."""
        docker = self.engine.docker
        known = self.engine.directory / "etc" / "certs.d" / wanted.address
        shutil.rmtree(known, ignore_errors=True)
        if wanted.ca:
            known.mkdir(parents=True)
            shutil.copy(wanted.ca, known / "ca.crt")
        (self.engine.directory / "client" / "config.json").unlink(missing_ok=True)
        with refusing():
            if wanted.credentials:
                user, _, password = wanted.credentials.partition(":")
                docker("login", wanted.address, "--username", user, "--password", password)
            platform = ("--platform", wanted.platform) if wanted.platform else ()
            docker("pull", "--quiet", *platform, wanted.reference)
        digests = self._digests(wanted)
        container = docker("create", "--network=none", wanted.reference).strip()
        words = (
            *self.engine.client,
            program("docker", self.engine.client),
            "cp",
            f"{container}:/content",
            "-",
        )
        content = _output(*words, **self.engine.variables)
        docker("rm", container)
        self._remove(wanted)
        return Came(digests, content_of(content))

    def fetch(self, wanted: Wanted) -> frozenset[str]:
        with refusing():
            self.engine.docker("pull", "--quiet", wanted.reference)
        digests = self._digests(wanted)
        self._remove(wanted)
        return digests

    def _digests(self, wanted: Wanted) -> frozenset[str]:
        asked = ("image", "inspect", "--format", "{{json .RepoDigests}}", wanted.reference)
        return _after_at(json.loads(self.engine.docker(*asked)))

    def _remove(self, wanted: Wanted) -> None:
        docker = self.engine.docker
        docker("rmi", "--force", docker("image", "inspect", "--format", "{{.Id}}", wanted.reference).strip())
        assert docker("images", "--quiet") == ""


@dataclass
class Ctr:
    engine: Containerd
    directory: Path
    name: str = "containerd"
    _numbers: Iterator[int] = field(default_factory=count)

    def version(self) -> str:
        return version_in(run(*self.engine.before, program("containerd", self.engine.before), "--version"))

    def pull(self, wanted: Wanted) -> Came:
        # in a namespace of containerd of its own, so that nothing is there already
        self._space = f"pull{next(self._numbers)}"
        with refusing():
            platform = ("--platform", wanted.platform) if wanted.platform else ()
            self._ctr("images", "pull", *platform, *self._options(wanted), wanted.reference)
        (line,) = self._ctr("images", "ls", f"name=={wanted.reference}").splitlines()[1:]
        (digest,) = re.findall(r"sha256:[0-9a-f]{64}", line.split(maxsplit=3)[2])
        manifest = json.loads(self._bytes(digest))
        if "manifests" in manifest:
            manifest = json.loads(self._bytes(child_of(manifest, wanted)))
        (layer,) = manifest["layers"]
        return Came(frozenset({digest}), content_of(self._bytes(layer["digest"])))

    def fetch(self, wanted: Wanted) -> frozenset[str]:
        """Its manifest, and all that belongs to it, which must be what their digests say."""
        self._space = f"fetch{next(self._numbers)}"
        with refusing():
            self._ctr("content", "fetch", *self._options(wanted), wanted.reference)
        found = self._ctr("content", "ls", "--quiet").split()
        assert all(self._bytes(digest) for digest in found)
        return frozenset(found)

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
        command = (
            *self.engine.before,
            program("ctr", self.engine.before),
            "--address",
            self.engine.socket,
            "--namespace",
            self._space,
        )
        content = _output(*command, "content", "get", digest)
        assert digest_of(content) == digest
        return content


@dataclass
class Library:
    """What podman, buildah and skopeo have in common. Each pull gets a directory of its own, so that
    nothing is there already; ``settings`` is what these clients see as /etc/containers."""

    directory: Path
    settings: Path
    before: tuple[str, ...]
    name: str
    _numbers: Iterator[int] = field(default_factory=count)
    _place: Path = Path()
    _by_ranges: bool = False

    def version(self) -> str:
        return version_in(run(*self.before, program(self.name, self.before), "--version"))

    def _begin(self, wanted: Wanted) -> None:
        self._place = self.directory / f"{self.name}{next(self._numbers)}"
        self._place.mkdir(parents=True)
        self._by_ranges = wanted.by_ranges
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
        return run(*self.before, program(self.name, self.before), *arguments, REGISTRY_AUTH_FILE=login)

    def _engine(self, *arguments: object) -> str:
        where = ("--root", self._place / "root", "--runroot", self._place / "run", "--storage-driver", "vfs")
        if not self._by_ranges:
            return self._run(*where, *arguments)
        (self._place / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self._place}/root"\n'
            f'runroot = "{self._place}/run"\n'
            '[storage.options]\npull_options = {enable_partial_images = "true"}\n'
        )
        os.environ["CONTAINERS_STORAGE_CONF"] = str(self._place / "storage.conf")
        try:
            return self._run(*arguments)
        finally:
            del os.environ["CONTAINERS_STORAGE_CONF"]

    def _platform(self, wanted: Wanted) -> list[str]:
        os_name, _, architecture = wanted.platform.partition("/")
        return ["--os", os_name, "--arch", architecture] if wanted.platform else []


class Podman(Library):
    def pull(self, wanted: Wanted) -> Came:
        self._begin(wanted)
        with refusing():
            self._login(wanted)
            verify = f"--tls-verify={word(not wanted.plain)}"
            self._engine("pull", "--quiet", verify, *self._platform(wanted), wanted.reference)
        told = self._engine("image", "inspect", "--format", "{{json .RepoDigests}}", wanted.reference)
        mounted = Path(self._engine("image", "mount", wanted.reference).strip())
        content = _output(*self.before, "cat", str(mounted / "content")).decode()
        self._engine("image", "umount", wanted.reference)
        return Came(_after_at(json.loads(told)), content)

    def fetch(self, wanted: Wanted) -> frozenset[str]:
        self._begin(wanted)
        with refusing():
            self._engine("artifact", "pull", "--quiet", "--tls-verify=false", wanted.reference)
        kept = json.loads((self._place / "root" / "artifacts" / "index.json").read_bytes())
        return frozenset(each["digest"] for each in kept["manifests"])


class Buildah(Library):
    def pull(self, wanted: Wanted) -> Came:
        self._begin(wanted)
        with refusing():
            self._login(wanted)
            verify = f"--tls-verify={word(not wanted.plain)}"
            self._engine("pull", "--quiet", verify, *self._platform(wanted), wanted.reference)
        images = json.loads(self._engine("images", "--json", "--digests"))
        container = self._engine("from", "--pull-never", wanted.reference).strip()
        mounted = Path(self._engine("mount", container).strip())
        content = _output(*self.before, "cat", str(mounted / "content")).decode()
        self._engine("umount", container)
        return Came(frozenset(each["digest"] for each in images), content)

    def fetch(self, wanted: Wanted) -> frozenset[str]:
        self._begin(wanted)
        with refusing():
            self._engine("pull", "--quiet", "--tls-verify=false", wanted.reference)
        return frozenset(each["digest"] for each in json.loads(self._engine("images", "--json", "--digests")))


def child_of(index: dict[str, Any], wanted: Wanted) -> str:
    """The digest of the platform that is ``wanted``."""
    (child,) = (
        each for each in index["manifests"] if each["platform"]["architecture"] == wanted.architecture
    )
    return str(child["digest"])


def word(truth: object) -> str:
    return "true" if truth else "false"


def _after_at(names: list[str]) -> frozenset[str]:
    return frozenset(name.partition("@")[2] for name in names)


def _output(*command: str, **environment: str) -> bytes:
    return subprocess.run(
        command, capture_output=True, check=True, timeout=60, env={**os.environ, **environment}
    ).stdout
