"""The one builder of images trees: directories as `skopeo copy ... dir:` leaves them.

make_images(root, {"alpine": {"3.20": image("a")}, "multi": {"1": index(image("b"), image("c"))}})
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True)
class Built:
    """The files of a tag directory; ``raw`` is its manifest.json."""

    raw: bytes
    media_type: str
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return digest_of(self.raw)

    @property
    def blobs(self) -> dict[str, bytes]:
        """The contents that are blobs, by digest."""
        return {
            f"{'sha512' if len(name) == 128 else 'sha256'}:{name}": content
            for name, content in self.files.items()
            if not name.endswith(".json") and name != "version"
        }

    @property
    def manifests(self) -> dict[str, bytes]:
        """This manifest and its children, by digest."""
        names = {
            name.partition(".")[0]: raw for name, raw in self.files.items() if name.endswith(".manifest.json")
        }
        children = {
            f"{'sha512' if len(name) == 128 else 'sha256'}:{name}": raw for name, raw in names.items()
        }
        return {self.digest: self.raw, **children}


def digest_of(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def image(seed: str = "x", *, media_type: str | None = OCI_MANIFEST, layers: int = 2, **extra: Any) -> Built:
    """A small image; ``seed`` makes it unlike others, ``extra`` goes into its manifest, and a
    ``media_type`` of ``None`` leaves that field out."""
    docker = media_type == DOCKER_MANIFEST
    config = json.dumps({"seed": seed, "os": "linux"}).encode()
    contents = [config, *(f"layer {number} of {seed}".encode() for number in range(layers))]
    kind = (
        "application/vnd.docker.image.rootfs.diff.tar.gzip"
        if docker
        else "application/vnd.oci.image.layer.v1.tar"
    )
    config_kind = (
        "application/vnd.docker.container.image.v1+json"
        if docker
        else "application/vnd.oci.image.config.v1+json"
    )
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(config, config_kind),
        "layers": [descriptor(content, kind) for content in contents[1:]],
        **extra,
    }
    if media_type is None:
        del document["mediaType"]
    files = {digest_of(content)[7:]: content for content in contents}
    return Built(json.dumps(document).encode(), media_type or OCI_MANIFEST, files)


def index(*children: Built, media_type: str | None = OCI_INDEX, platforms: tuple[str, ...] = ()) -> Built:
    """A multi-platform index (or nested indexes) with its children, as ``--all`` copies it. ``platforms``
    are what the children are for, where it says so: ``linux/arm64/v8``."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [descriptor(child.raw, child.media_type) for child in children],
    }
    for described, platform in zip(document["manifests"], platforms, strict=False):
        described["platform"] = dict(
            zip(("os", "architecture", "variant"), platform.split("/"), strict=False)
        )
    if media_type is None:
        del document["mediaType"]
    files: dict[str, bytes] = {}
    for child in children:
        files |= child.files
        files[f"{child.digest[7:]}.manifest.json"] = child.raw
    return Built(json.dumps(document).encode(), media_type or OCI_INDEX, files)


def index_by_sha512(*children: Built) -> Built:
    """An index that names its children by sha512."""
    manifests: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    for child in children:
        name = hashlib.sha512(child.raw).hexdigest()
        manifests.append({**descriptor(child.raw, child.media_type), "digest": f"sha512:{name}"})
        files |= {**child.files, f"{name}.manifest.json": child.raw}
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    return Built(json.dumps(document).encode(), OCI_INDEX, files)


def without(built: Built, *absent: Built) -> Built:
    """An index without the manifests and blobs of ``absent``, as tools leave it that copy some platforms."""
    names = {name for each in absent for name in (*each.files, f"{each.digest[7:]}.manifest.json")}
    files = {name: content for name, content in built.files.items() if name not in names}
    return Built(built.raw, built.media_type, files)


def descriptor(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def write_image(directory: Path, built: Built) -> Path:
    """Write the files of ``built`` into ``directory``, the manifest last."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "version").write_text("Directory Transport Version: 1.1\n")
    for name, content in built.files.items():
        (directory / name).write_bytes(content)
    (directory / "manifest.json").write_bytes(built.raw)
    return directory


def write_layout(directory: Path, *images: tuple[str | None, Built]) -> Path:
    """An OCI layout as ``skopeo copy ... oci:`` leaves it: of each image, what it is called and its
    content."""
    for _, built in images:
        for content in (*built.files.values(), built.raw):
            write_blob(directory, content)
    (directory / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    write_index(directory, *images)
    return directory


def write_index(directory: Path, *images: tuple[str | None, Built]) -> None:
    """The index.json of a layout."""
    manifests = []
    for name, built in images:
        manifests.append(descriptor(built.raw, built.media_type))
        if name is not None:
            manifests[-1]["annotations"] = {"org.opencontainers.image.ref.name": name}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))


def docker_save(directory: Path, *images: tuple[str, Built]) -> Path:
    """What `docker save` of Docker 29 writes with containerd's image store, unpacked: of each image its full
    name and its content."""
    write_layout(directory, *images)
    manifests = []
    for name, built in images:
        host, _, rest = name.partition("/")
        repository, _, tag = rest.rpartition(":")
        manifests.append(
            {
                **descriptor(built.raw, built.media_type),
                "annotations": {
                    "io.containerd.image.name": name,
                    "org.opencontainers.image.ref.name": tag,
                    f"containerd.io/distribution.source.{host}": repository,
                },
            }
        )
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    old = [{"Config": "blobs/sha256/x", "RepoTags": [name], "Layers": []} for name, _ in images]
    (directory / "manifest.json").write_text(json.dumps(old))
    return directory


def write_blob(directory: Path, content: bytes, algorithm: str = "sha256") -> Path:
    """A blob of a layout."""
    path = directory / "blobs" / algorithm / hashlib.new(algorithm, content).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def make_images(root: Path, repositories: Mapping[str, Mapping[str, Built]]) -> Path:
    """A tree ``root`` with ``NAME/TAG`` directories; returns ``root``."""
    root.mkdir(parents=True, exist_ok=True)
    for name, tags in repositories.items():
        for tag, built in tags.items():
            write_image(root / name / tag, built)
    return root
