"""A mirror host under observation: what lies in its tree, and what its nginx answers."""

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.daemons import Site, public_directory, scr_watchd, site, start_nginx
from tests.http import Response
from tests.nginxes import require
from tests.trees import OCI_MANIFEST, Built, descriptor, digest_of

Reference = tuple[str, str]

CHAOS_SECONDS = int(os.environ.get("SCR_WATCHD_CHAOS_SECONDS", "60"))
"""How long chaos lasts; what is counted and not timed grows in proportion."""


@dataclass
class Host:
    """A directory of images, a state directory, a site, and how to run the daemon."""

    images: Path
    state: Path
    site: Site
    nginx: str
    settings: tuple[object, ...] = ()

    def arguments(self, *more: object) -> tuple[object, ...]:
        return (
            "run", self.images, "--state", self.state, "--nginx", self.nginx,
            "--nginx-config", self.site.config, "--min-reload-seconds", "0.2", *self.settings, *more,
        )  # fmt: skip

    def start(self) -> None:
        """What a package would do: there is a generation before nginx first starts."""
        scr_watchd(*self.arguments("--once", "--confirm-seconds", "0.1"))
        start_nginx(self.site, self.nginx)

    def digest(self, name: str, tag: str) -> str:
        """What the registry answers for a tag; empty if it does not."""
        answer = self.site.ask(f"/v2/{name}/manifests/{tag}")
        return digest_of(answer.body) if answer.status == 200 else ""

    def reloads(self) -> int:
        """How often nginx has read its configuration again."""
        return (self.site.directory / "error.log").read_bytes().count(b"reconfiguring")


@contextmanager
def host(*settings: object) -> Iterator[Host]:
    """A host whose nginx is not started yet; ``settings`` are arguments of the daemon."""
    with public_directory() as directory:
        images, state = directory / "images", directory / "state"
        images.mkdir()
        nginx = require("nginx")
        with site(directory / "site", state, program=nginx, start=False) as made:
            yield Host(images, state, made, nginx, settings)


def say(*figures: object) -> None:
    """Figures for whoever runs the test with ``-rP`` or ``-s``."""
    print(*figures)  # noqa: T201 - pytest shows it


# -- what is served ------------------------------------------------------------------------------------


def served(site: Site) -> dict[Reference, str]:
    """Every listed tag with its digest, or with what is wrong about the answer."""
    found = {}
    catalog = site.ask("/v2/_catalog")
    if catalog.status == 503:  # nothing was ever published
        return {}
    for name in catalog.json()["repositories"]:
        for tag in site.tags(name):
            answer = site.ask(f"/v2/{name}/manifests/{tag}")
            digest = answer.header("Docker-Content-Digest") or ""
            true = answer.status == 200 and digest == digest_of(answer.body)
            found[name, tag] = digest if true else f"{answer.status} {digest}"
    return found


def untrue(site: Site, repository: str, digest: str, sparse: Collection[str] = ()) -> list[str]:
    """What is not answered, or not with its own bytes, of a manifest and of all that it names. Of ``sparse``
    indexes children may be absent."""
    path = f"/v2/{repository}/manifests/{digest}"
    answer = site.ask(path)
    wrong = _wrong(path, answer, digest)
    if not wrong:
        manifest = json.loads(answer.body)
        for child in manifest.get("manifests", ()):
            below = f"/v2/{repository}/manifests/{child['digest']}"
            if digest not in sparse or site.ask(below).status != 404:
                wrong += untrue(site, repository, child["digest"])
        for blob in blobs_of(manifest):
            path = f"/v2/{repository}/blobs/{blob}"
            wrong += _wrong(path, site.ask(path), blob)
    return wrong


def _wrong(path: str, answer: Response, digest: str) -> list[str]:
    if answer.status == 200 and digest_of(answer.body) == digest:
        return []
    return [f"{path}: {answer.status}, {len(answer.body)} bytes"]


def blobs_of(manifest: Mapping[str, Any]) -> list[str]:
    """The digests of the config and the layers of a manifest; an index has none."""
    return [each["digest"] for each in _blobs(manifest)]


def _blobs(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*([manifest["config"]] if "config" in manifest else []), *manifest.get("layers", ())]


# -- what is in the tree, read as simply as can be -----------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A directory or link that is named like a tag. ``digest`` is that of a manifest with files of the
    right sizes; ``rotten`` says that the bytes of one of them are others."""

    path: str
    digest: str = ""
    rotten: bool = False
    sparse: str = ""
    """The digest of an index of which some children are whole and the others absent: it is served after a
    while."""


def candidates(root: Path) -> dict[Reference, list[Candidate]]:
    """What the tree has for each tag, complete or not."""
    found: dict[Reference, list[Candidate]] = {}
    for directory, names, files in os.walk(root):
        for path in (Path(directory, name) for name in (*names, *files)):
            *parents, leaf = path.relative_to(root).parts
            last, colon, tag = leaf.rpartition(":")
            reference = ("/".join([*parents, last]), tag) if colon else ("/".join(parents), leaf)
            if reference[0] and _is_leaf(path):
                found.setdefault(reference, []).append(_candidate(path, str(path.relative_to(root))))
    return found


def expected(root: Path) -> dict[Reference, str]:
    """Every tag that is complete and sound in the tree, with its digest; the first path wins."""
    found = {}
    for reference, there in candidates(root).items():
        complete = sorted((each for each in there if each.digest), key=lambda each: each.path)
        if complete and not any(each.rotten for each in complete):
            found[reference] = complete[0].digest
    return found


def _is_leaf(path: Path) -> bool:
    if path.is_symlink():
        return True
    return path.is_dir() and not any(each.is_dir() or each.is_symlink() for each in path.iterdir())


def _candidate(directory: Path, path: str) -> Candidate:
    try:
        raw = (directory / "manifest.json").read_bytes()
        sound = [_is_sound(directory, manifest) for manifest in _manifests(directory, raw)]
    except (OSError, ValueError):
        return Candidate(path, sparse=_sparse(directory))
    return Candidate(path, digest_of(raw), rotten=not all(sound))


def _sparse(directory: Path) -> str:
    try:
        raw = (directory / "manifest.json").read_bytes()
        children = json.loads(raw).get("manifests", ())
        there = [each for each in children if (directory / f"{each['digest'][7:]}.manifest.json").exists()]
        part = json.dumps({"manifests": there}).encode()
        for manifest in _manifests(directory, part):
            _is_sound(directory, manifest)
    except (OSError, ValueError):
        return ""
    return digest_of(raw) if there else ""


def _manifests(directory: Path, raw: bytes) -> Iterator[dict[str, Any]]:
    manifest = json.loads(raw)
    yield manifest
    for child in manifest.get("manifests", ()):
        below = (directory / f"{child['digest'][7:]}.manifest.json").read_bytes()
        if digest_of(below) != child["digest"]:
            raise ValueError(child)
        yield from _manifests(directory, below)


def _is_sound(directory: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether the blobs have their digests; ``ValueError`` if one has not even its size."""
    sound = True
    for blob in _blobs(manifest):
        content = (directory / blob["digest"][7:]).read_bytes()
        if len(content) != blob["size"]:
            raise ValueError(blob)
        sound = sound and digest_of(content) == blob["digest"]
    return sound


# -- images with some weight ---------------------------------------------------------------------------


def layer(seed: str, size: int) -> bytes:
    """``size`` random bytes, always the same for one ``seed``."""
    return Random(seed).randbytes(size)


def image_of(seed: str, layers: Iterable[bytes]) -> Built:
    """An image with these ``layers``; ``seed`` makes its config unlike others."""
    config = json.dumps({"seed": seed, "os": "linux", "architecture": "amd64"}).encode()
    contents = [config, *layers]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(each, "application/vnd.oci.image.layer.v1.tar") for each in contents[1:]],
    }
    return Built(
        json.dumps(document).encode(), OCI_MANIFEST, {digest_of(each)[7:]: each for each in contents}
    )
