"""What is served from an OCI layout: links to its blobs, copies of its manifests."""

import gzip
import json
import os
import shutil
from pathlib import Path

import pytest

from scr_watchd.oci.names import Tag
from tests.clients.real_images import skopeo
from tests.publish.test_store_mends import Tree, large
from tests.remedies import run
from tests.trees import (
    OCI_MANIFEST,
    Built,
    descriptor,
    digest_of,
    index,
    write_blob,
    write_image,
    write_index,
    write_layout,
)


def compressed(seed: str) -> Built:
    """An image that skopeo copies into a layout as it is."""
    layer = gzip.compress(seed.encode(), mtime=0)
    config = json.dumps({"seed": seed}).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    files = {digest_of(content)[7:]: content for content in (config, layer)}
    return Built(json.dumps(document).encode(), OCI_MANIFEST, files)


ONE, TWO = compressed("one"), compressed("two")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    write_layout(tmp_path / "images" / "app", ("1", ONE), ("2", index(TWO)))
    return Tree(tmp_path / "images", tmp_path / "store")


def blob_file(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def a_blob(built: Built) -> tuple[str, bytes]:
    return max(built.blobs.items())


@pytest.mark.parametrize("symbolic", [False, True], ids=["hard links", "symbolic links"])
def test_everything_of_a_layout_is_in_the_store(tmp_path: Path, symbolic: object) -> None:
    root = tmp_path / "images"
    layout = write_layout(root / "lib" / "app", ("1", ONE), ("2", index(TWO)))
    tree = Tree(root, tmp_path / "store", symbolic=bool(symbolic))
    taken = tree.take()
    assert [each.tag for each in taken.images] == ["1", "2"]
    assert tree.serves(ONE, "lib/app")
    assert tree.serves(index(TWO), "lib/app")
    digest, _ = a_blob(ONE)
    assert tree.blob(digest, "lib/app").samefile(blob_file(layout, digest))
    assert tree.blob(digest, "lib/app").is_symlink() == symbolic
    assert tree.store.prune(taken.images) == 0


def test_a_layout_and_a_directory_of_one_repository_share_their_links(tree: Tree) -> None:
    write_image(tree.root / "app:3", ONE)
    taken = tree.take()
    assert {each.tag for each in taken.images} == {"1", "2", "3"}
    shutil.rmtree(tree.root / "app")
    assert [each.tag for each in tree.take().images] == ["3"]
    assert tree.serves(ONE)


def test_an_image_stays_in_the_store_while_its_layout_is_copied_again(tree: Tree) -> None:
    tree.take()
    for file in sorted((tree.root / "app" / "blobs" / "sha256").iterdir()):
        file.unlink()
    assert tree.take().images == ()
    assert tree.stored(ONE) is not None
    assert tree.serves(ONE)


def test_a_new_tag_does_not_have_the_others_read_again(tree: Tree) -> None:
    tree.take()
    before = {each.tag: each for each in tree.take().images}
    write_index(tree.root / "app", ("1", ONE), ("2", index(TWO)), ("3", ONE))
    after = {each.tag: each for each in tree.take().images}
    assert list(after) == ["1", "2", "3"]
    assert all(after[tag] is before[tag] for tag in before)


def test_a_rotten_blob_is_refused_with_a_remedy_that_cures_it(tree: Tree, tmp_path: Path) -> None:
    digest, content = a_blob(ONE)
    blob_file(tree.root / "app", digest).write_bytes(content[:-1] + b"!")
    taken = tree.take()
    assert [each.tag for each in taken.images] == ["2"]
    (problem,) = taken.problems
    assert problem.path == f"{tree.root}/app:1"
    assert "are not those that its name says" in problem.reason
    source = write_image(tmp_path / "source", ONE)
    run(problem.remedy, source=f"dir:{source}")
    assert tree.take().problems == ()
    assert tree.serves(ONE)


def test_the_remedy_for_a_rotten_layout_that_is_called_name_and_tag_leaves_the_others(
    tree: Tree, tmp_path: Path
) -> None:
    """skopeo cannot write a layout with a colon in its name."""
    layout = write_layout(tree.root / "thing:1", (None, ONE), ("2", TWO))
    before = {(each.called, each.digest) for each in tree.take().images}
    digest, content = a_blob(ONE)
    blob_file(layout, digest).write_bytes(content[:-1] + b"!")
    (problem,) = tree.take().problems
    source = write_image(tmp_path / "source", ONE)
    run(problem.remedy, source=f"dir:{source}")
    assert tree.take().problems == ()
    assert {(each.called, each.digest) for each in tree.take().images} == before
    assert tree.serves(ONE, "thing")


def test_the_remedy_for_a_rotten_image_leaves_those_below_it(tree: Tree, tmp_path: Path) -> None:
    below = write_image(tree.root / "thing" / "1", ONE) / "more" / "2"
    write_image(below, TWO)
    before = {(each.repository, each.digest) for each in tree.take().images}
    digest, content = a_blob(ONE)
    (below.parents[1] / digest[7:]).write_bytes(content[:-1] + b"!")
    (problem,) = tree.take().problems
    source = write_image(tmp_path / "source", ONE)
    run(problem.remedy, source=f"dir:{source}")
    taken = tree.take()
    assert taken.problems == ()
    assert {(each.repository, each.digest) for each in taken.images} == before


@pytest.mark.parametrize("kind", ["missing", "cut off", "a directory"])
def test_the_remedy_for_a_broken_blob_cures_it(tree: Tree, tmp_path: Path, kind: str) -> None:
    file = blob_file(tree.root / "app", a_blob(ONE)[0])
    if kind == "cut off":
        os.truncate(file, 1)
    else:
        file.unlink()
    if kind == "a directory":
        file.mkdir()
    (problem,) = tree.scanner.full().problems
    source = write_image(tmp_path / "source", ONE)
    run(problem.remedy, source=f"dir:{source}")
    assert tree.take().problems == ()
    assert tree.serves(ONE)


def test_a_large_blob_is_hashed_beside_the_others(tmp_path: Path) -> None:
    big = large()
    write_layout(tmp_path / "images" / "app", ("1", big), ("2", ONE))
    tree = Tree(tmp_path / "images", tmp_path / "store")
    taken = tree.take()
    assert ([each.tag for each in taken.images], taken.waiting) == (["2"], 1)
    assert [each.tag for each in tree.take_until_done().images] == ["1", "2"]


def test_a_manifest_with_a_sha512_digest_is_one_more_file(tree: Tree) -> None:
    layout = tree.root / "app"
    own = write_blob(layout, ONE.raw, "sha512")
    index_file = layout / "index.json"
    index_file.write_text(index_file.read_text().replace(ONE.digest, f"sha512:{own.name}"))
    assert tree.take().problems == ()
    for name in (ONE.digest[7:], own.name):
        copy = tree.path / "app" / ".manifests" / "1" / name
        assert copy.read_bytes() == ONE.raw
        assert not copy.samefile(own)


def test_a_blob_with_a_sha512_digest_is_linked_and_hashed(tree: Tree) -> None:
    layout = tree.root / "app"
    blob = write_blob(layout, b"a layer", "sha512")
    document = json.loads(ONE.raw)
    document["layers"] = [{"mediaType": "x", "digest": f"sha512:{blob.name}", "size": 7}]
    built = Built(json.dumps(document).encode(), ONE.media_type, ONE.files)
    write_layout(layout, ("1", built))
    (taken,) = tree.take().images
    assert (tree.path / "app" / ".blobs" / "sha512" / blob.name).samefile(blob)
    assert taken.tag == Tag("1")
    blob.write_bytes(b"a lay?r")
    assert tree.take().images == ()


def test_blobs_that_are_exchanged_for_a_link_are_not_followed(tree: Tree, tmp_path: Path) -> None:
    """Between the scan and the store."""
    found = tree.scanner.full()
    (tree.root / "app" / "blobs").rename(tmp_path / "secret")
    (tree.root / "app" / "blobs").symlink_to(tmp_path / "secret")
    taken = tree.store.take(found.images)
    assert taken.images == ()
    assert all("it changed while it was published" in each.reason for each in taken.problems)


def test_skopeo_and_the_store_agree_on_a_layout(tree: Tree, tmp_path: Path) -> None:
    """Copies one over the other, as people do, and a tag is what was copied last."""
    source = write_image(tmp_path / "source", ONE)
    other = write_image(tmp_path / "other", TWO)
    for each in (source, other, source):
        skopeo("copy", "--quiet", f"dir:{each}", f"oci:{tree.root}/real:1")
        built = ONE if each is source else TWO
        by_tag = {found.tag: found for found in tree.take().images if found.repository == "real"}
        assert by_tag[Tag("1")].digest == built.digest
        assert tree.serves(built, "real")
