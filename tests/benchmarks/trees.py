"""Trees of any size in the shape that skopeo leaves, made of hard links wherever real ones share bytes.

A tag has seven files: `version`, a manifest, a config of its own, one layer that a thousand tags share,
and three that the ten tags of its repository share. Beside them lie an image of 6 and one of 100 MB,
and a manifest of each type.
"""

import os
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tests.endurance.hosts import image_of, layer
from tests.trees import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Built,
    image,
    index,
    write_image,
)

TAGS_OF_A_REPOSITORY = 10
_TAGS_OF_A_BASE = 1000
_HEAVY = {"six": 6_000_000, "hundred": 100_000_000}
_LAYER_BYTES = 1000
_VERSION = "version"

TYPED: dict[str, Built] = {
    "docker-manifest": image("typed", media_type=DOCKER_MANIFEST),
    "oci-manifest": image("typed", media_type=OCI_MANIFEST),
    "docker-list": index(image("listed", media_type=DOCKER_MANIFEST), media_type=DOCKER_LIST),
    "oci-index": index(image("indexed", media_type=OCI_MANIFEST), media_type=OCI_INDEX),
}
"""An image of each type that a manifest may have; a tag of the repository ``typed``."""


def path_of(name: str) -> str:
    """Where one of ``TYPED`` is found by its digest."""
    return f"/v2/typed/manifests/{TYPED[name].digest}"


@dataclass(frozen=True)
class Target:
    """An image of a tree, and its blobs' digests, the config first."""

    repository: str
    tag: str
    blobs: tuple[str, ...]

    @property
    def manifest_path(self) -> str:
        return f"/v2/{self.repository}/manifests/{self.tag}"

    def blob_path(self, number: int) -> str:
        return f"/v2/{self.repository}/blobs/{self.blobs[number]}"

    @property
    def directory(self) -> str:
        return f"{self.repository}/{self.tag}"


@dataclass(frozen=True)
class Tree:
    """A tree that was made; ``last`` is its last tag, of its last repository."""

    root: Path
    tags: int
    last: Target
    six: Target
    hundred: Target


def make_heavy(directory: Path) -> Path:
    """The images that every tree has, made once: their bytes are linked into the trees."""
    for name, size in _HEAVY.items():
        write_image(directory / name, image_of(name, [layer(name, size)]))
    return directory


def make_tree(root: Path, tags: int, *, heavy: Path) -> Tree:
    """A tree of ``tags`` tags, ten to a repository, and the two ``heavy`` ones."""
    targets = {name: _link_heavy(heavy / name, root / "heavy" / name / "1") for name in _HEAVY}
    for name, built in TYPED.items():
        write_image(root / "typed" / name, built)
    pool = root.with_name(f"{root.name}.pool")
    pool.mkdir()
    last = targets["six"]
    layers: list[str] = []
    for number in range(tags):
        repository, tag = divmod(number, TAGS_OF_A_REPOSITORY)
        if tag == 0:
            if number % _TAGS_OF_A_BASE == 0:  # a file cannot have a hundred thousand links
                _renew(pool / _VERSION, "Directory Transport Version: 1.1\n")
            layers = [_small(pool, f"base {number // _TAGS_OF_A_BASE}")]
            layers += [_small(pool, f"layer {each} of {repository}") for each in range(3)]
        name = f"team{repository // 1000:02}/app{repository:05}"
        last = _write_tag(root, name, f"v{tag}", pool, layers)
    shutil.rmtree(pool)
    return Tree(root, tags, last, targets["six"], targets["hundred"])


def link_tree(tree: Tree, root: Path) -> Tree:
    """The same tree at ``root``, of the same files."""
    for directory, _, files in os.walk(tree.root):
        below = f"{root}{directory[len(str(tree.root)) :]}"
        os.makedirs(below)
        for file in files:
            os.link(f"{directory}/{file}", f"{below}/{file}")
    return Tree(root, tree.tags, tree.last, tree.six, tree.hundred)


def _small(pool: Path, seed: str) -> str:
    """The name of a small blob, which lies in ``pool``."""
    content = (f"{seed} " * (_LAYER_BYTES // len(seed)))[:_LAYER_BYTES].encode()
    hexadecimal = sha256(content).hexdigest()
    path = pool / hexadecimal
    if not path.exists():
        path.write_bytes(content)
    return hexadecimal


def _renew(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)


def _write_tag(root: Path, name: str, tag: str, pool: Path, layers: list[str]) -> Target:
    """Plain calls and texts: this is done a hundred thousand times."""
    directory = f"{root}/{name}/{tag}"
    os.makedirs(directory)
    os.link(f"{pool}/{_VERSION}", f"{directory}/version")
    config = f'{{"os":"linux","architecture":"amd64","name":"{name}:{tag}"}}'.encode()
    hexadecimal = sha256(config).hexdigest()
    _write(f"{directory}/{hexadecimal}", config)
    for each in layers:
        os.link(f"{pool}/{each}", f"{directory}/{each}")
    _write(f"{directory}/manifest.json", _manifest(hexadecimal, len(config), layers))
    return Target(name, tag, tuple(f"sha256:{each}" for each in (hexadecimal, *layers)))


def _manifest(config: str, size: int, layers: list[str]) -> bytes:
    descriptors = ",".join(
        '{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip",'
        f'"digest":"sha256:{each}","size":{_LAYER_BYTES}}}'
        for each in layers
    )
    return (
        '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":'
        f'{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{config}","size":{size}}},'
        f'"layers":[{descriptors}]}}'
    ).encode()


def _write(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(descriptor, content)
    os.close(descriptor)


def _link_heavy(source: Path, directory: Path) -> Target:
    directory.mkdir(parents=True)
    blobs = []
    for file in sorted(source.iterdir(), key=lambda each: each.stat().st_size):
        os.link(file, directory / file.name)
        if len(file.name) == 64:
            blobs.append(f"sha256:{file.name}")
    return Target(f"heavy/{source.name}", "1", tuple(blobs))
