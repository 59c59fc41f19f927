"""The clients that copy from place to place, and keep no images: skopeo, oras and crane."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.clients.pullers import Came, Library, Wanted, child_of, content_of, refusing, version_in, word
from tests.engines import run
from tests.trees import digest_of


class Skopeo(Library):
    def pull(self, wanted: Wanted) -> Came:
        directory = self._copy(wanted)
        raw = (directory / "manifest.json").read_bytes()
        manifest = json.loads(raw)
        if "manifests" in manifest:
            child = child_of(manifest, wanted)
            manifest = json.loads((directory / f"{child[7:]}.manifest.json").read_bytes())
        (layer,) = manifest["layers"]
        content = content_of((directory / layer["digest"][7:]).read_bytes())
        return Came(frozenset({digest_of(raw)}), content)

    def fetch(self, wanted: Wanted) -> frozenset[str]:
        return frozenset({digest_of((self._copy(wanted) / "manifest.json").read_bytes())})

    def _copy(self, wanted: Wanted) -> Path:
        """A directory with all platforms of it, or with what is no image."""
        self._begin(wanted)
        target = self._place / "came"
        which = ["--override-arch", wanted.architecture] if wanted.platform else []
        all_of_it = [] if wanted.platform else ["--all"]
        verify = f"--src-tls-verify={word(not wanted.plain)}"
        source, directory = f"docker://{wanted.reference}", f"dir:{target}"
        with refusing():
            self._login(wanted)
            self._run(*which, "copy", "--quiet", *all_of_it, verify, source, directory)
        return target


_NAME = "org.opencontainers.image.ref.name"


@dataclass
class _Copier:
    """Each pull gets a directory of its own, so that nothing is there already."""

    directory: Path
    before: tuple[str, ...]
    name: str
    _numbers: Iterator[int] = field(default_factory=count)

    def version(self) -> str:
        return version_in(run(*self.before, self.name, "version"))

    def pull(self, wanted: Wanted) -> Came:
        place = self._begin()
        with refusing():
            self._login(place, wanted)
            self._copy(place, wanted)
        listed = json.loads((place / "came" / "index.json").read_bytes())["manifests"]
        # oras lists the platforms too, and gives a name to what was asked for
        described = next((each for each in listed if _NAME in each.get("annotations", {})), listed[0])
        manifest = json.loads(self._blob(place, described["digest"]))
        if "manifests" in manifest:
            manifest = json.loads(self._blob(place, child_of(manifest, wanted)))
        (layer,) = manifest["layers"]
        content = content_of(self._blob(place, layer["digest"]))
        return Came(frozenset({described["digest"]}), content)

    def fetch(self, wanted: Wanted) -> frozenset[str]:
        place = self._begin()
        with refusing():
            self._copy(place, wanted)
        found = json.loads((place / "came" / "index.json").read_bytes())["manifests"]
        return frozenset(each["digest"] for each in found)

    def _begin(self) -> Path:
        place = self.directory / f"{self.name}{next(self._numbers)}"
        place.mkdir(parents=True)
        return place

    def _login(self, place: Path, wanted: Wanted) -> None:
        raise NotImplementedError

    def _copy(self, place: Path, wanted: Wanted) -> None:
        raise NotImplementedError

    def _run(self, place: Path, wanted: Wanted, *arguments: object) -> str:
        trust = (f"SSL_CERT_FILE={wanted.ca}",) if wanted.ca else ()
        return run(*self.before, "env", f"DOCKER_CONFIG={place}", *trust, self.name, *arguments)

    def _blob(self, place: Path, digest: str) -> bytes:
        return (place / "came" / "blobs" / digest.replace(":", "/")).read_bytes()


class Oras(_Copier):
    def referrers(self, wanted: Wanted) -> str:
        """What is about an image, as JSON."""
        return self._run(
            self._begin(), wanted, "discover", "--plain-http", "--format", "json", wanted.reference
        )

    def _login(self, place: Path, wanted: Wanted) -> None:
        if wanted.credentials:
            user, _, password = wanted.credentials.partition(":")
            self._run(place, wanted, "login", "--username", user, "--password", password, wanted.address)

    def _copy(self, place: Path, wanted: Wanted) -> None:
        options = ["--from-plain-http"] if wanted.plain else []
        options += ["--platform", wanted.platform] if wanted.platform else []
        self._run(place, wanted, "cp", *options, wanted.reference, "--to-oci-layout", f"{place}/came:1")


class Crane(_Copier):
    def version(self) -> str:
        """Debian's crane cannot say it itself."""
        return version_in(run(*self.before, "dpkg-query", "-W", "-f", "${Version}", "crane"))

    def _login(self, place: Path, wanted: Wanted) -> None:
        if wanted.credentials:
            user, _, password = wanted.credentials.partition(":")
            self._run(place, wanted, "auth", "login", wanted.address, "-u", user, "-p", password)

    def _copy(self, place: Path, wanted: Wanted) -> None:
        options = ["--insecure"] if wanted.plain else []
        options += ["--platform", wanted.platform] if wanted.platform else []
        self._run(place, wanted, "pull", *options, "--format=oci", wanted.reference, place / "came")
