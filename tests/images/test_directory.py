"""When an image is complete, and what is said when it is not."""

import gzip
import json
import os
from collections.abc import Callable
from hashlib import sha512
from pathlib import Path
from typing import Any

import pytest

from scr_watchd.files import ANYBODY
from scr_watchd.images.scan import Scanner
from scr_watchd.images.tree import Tree
from scr_watchd.oci.catalog import Image, Problem
from tests.remedies import run
from tests.trees import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    Built,
    descriptor,
    digest_of,
    image,
    index,
    index_by_sha512,
    make_images,
    write_image,
    write_layout,
)

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
URLS = ["https://example.com/layer"]


def scan(root: Path) -> Tree:
    return Scanner(root, reader=ANYBODY).full()


def only_image(root: Path) -> Image:
    found = scan(root)
    assert found.problems == ()
    assert found.unfinished == frozenset()
    (one,) = found.images
    return one


def only_problem(root: Path) -> Problem:
    """The one Problem of a tree whose only tag, ``a:1``, is held to be unfinished."""
    found = scan(root)
    assert found.images == ()
    assert found.unfinished == {("a", "1")}
    (one,) = found.problems
    assert one.path == f"{root}/a/1"
    return one


def blob(tag: Path, number: int = 0) -> Path:
    return sorted(each for each in tag.iterdir() if len(each.name) == 64)[number]


@pytest.mark.parametrize(
    "built",
    [
        pytest.param(image(), id="OCI image"),
        pytest.param(image(media_type=DOCKER_MANIFEST), id="Docker image"),
        pytest.param(image(media_type=None), id="no media type"),
        pytest.param(image(layers=0), id="no layers"),
        pytest.param(image(artifactType="application/vnd.example"), id="artifact"),
        pytest.param(index(image("1"), image("2")), id="OCI index"),
        pytest.param(index(image("1", media_type=DOCKER_MANIFEST), media_type=DOCKER_LIST), id="Docker list"),
        pytest.param(index(index(image("1")), image("2")), id="index in an index"),
        pytest.param(index(), id="empty index"),
    ],
)
def test_a_complete_image_is_found_with_all_it_needs(tmp_path: Path, built: Built) -> None:
    root = make_images(tmp_path / "images", {"a": {"1": built}})
    found = only_image(root)
    assert (found.path, found.repository, found.tag) == ("a/1", "a", "1")
    assert found.digest == built.digest
    assert found.manifests[0].file == "manifest.json"
    assert found.manifests[0].media_type.value == built.media_type
    assert {each.digest for each in found.manifests} == set(built.manifests)
    assert {each.digest: each.size for each in found.blobs} == {
        digest: len(content) for digest, content in built.blobs.items()
    }
    for each in found.manifests:
        content = (root / found.path / each.file).read_bytes()
        assert (each.digest, each.size) == (digest_of(content), len(content))


def test_indexes_may_be_nested_deeper_than_functions(tmp_path: Path) -> None:
    built = image()
    for _ in range(600):
        built = Built(index(built).raw, built.media_type, {**built.files, **index(built).files})
    found = only_image(make_images(tmp_path / "images", {"a": {"1": built}}))
    assert len(found.manifests) == 601


def test_a_foreign_layer_may_be_absent(tmp_path: Path) -> None:
    absent = descriptor(b"windows", FOREIGN)
    built = image()
    document = json.loads(built.raw)
    document["layers"].append({**absent, "urls": URLS})
    root = make_images(
        tmp_path / "images", {"a": {"1": Built(json.dumps(document).encode(), built.media_type, built.files)}}
    )
    assert absent["digest"] not in [each.digest for each in only_image(root).blobs]
    (root / "a" / "1" / absent["digest"][7:]).write_bytes(b"windows")
    assert absent["digest"] in [each.digest for each in only_image(root).blobs]
    (root / "a" / "1" / absent["digest"][7:]).write_bytes(b"win")
    assert "has 3 bytes instead of 7" in only_problem(root).reason


def test_a_layer_that_is_foreign_in_one_platform_only_is_needed(tmp_path: Path) -> None:
    layer = descriptor(b"windows", FOREIGN)
    children = [image("1", layers=0), image("2", layers=0)]
    documents: list[dict[str, Any]] = [json.loads(child.raw) for child in children]
    documents[0]["layers"] = [{**layer, "urls": URLS}]
    documents[1]["layers"] = [layer]
    both = [
        Built(json.dumps(document).encode(), child.media_type, child.files)
        for document, child in zip(documents, children, strict=True)
    ]
    root = make_images(tmp_path / "images", {"a": {"1": index(*both)}})
    assert f"blob {layer['digest']} is missing" in only_problem(root).reason


def remove_blob(tag: Path) -> None:
    blob(tag).unlink()


def truncate_blob(tag: Path) -> None:
    os.truncate(blob(tag), 3)


def lengthen_blob(tag: Path) -> None:
    with blob(tag).open("ab") as file:
        file.write(b"more")


def empty_manifest(tag: Path) -> None:
    os.truncate(tag / "manifest.json", 0)


def halve_manifest(tag: Path) -> None:
    os.truncate(tag / "manifest.json", 100)


def remove_manifest(tag: Path) -> None:
    (tag / "manifest.json").unlink()


def hide_blob(tag: Path) -> None:
    blob(tag).chmod(0o600)


def hide_manifest(tag: Path) -> None:
    (tag / "manifest.json").chmod(0o600)


def use_schema_1(tag: Path) -> None:
    (tag / "manifest.json").write_text('{"schemaVersion": 1, "name": "a", "tag": "1", "fsLayers": []}')


@pytest.mark.parametrize(
    ("damage", "reason", "remedy"),
    [
        pytest.param(remove_blob, "is missing (1 of 3 blobs are)", "skopeo copy", id="missing blob"),
        pytest.param(truncate_blob, "has 3 bytes instead of", "skopeo copy", id="truncated blob"),
        pytest.param(lengthen_blob, "it is cut off, or still being copied", "skopeo copy", id="long blob"),
        pytest.param(
            empty_manifest, "manifest.json cannot be used: it is empty", "Wait", id="empty manifest"
        ),
        pytest.param(halve_manifest, "it is not JSON", "skopeo copy", id="half a manifest"),
        pytest.param(remove_manifest, "a copy is under way", "rm -r", id="no manifest yet"),
        pytest.param(hide_blob, "(mode 0600)", "chmod -R go+rX", id="private blob"),
        pytest.param(
            hide_manifest, "read manifest.json (mode 0600)", "chmod -R go+rX", id="private manifest"
        ),
        pytest.param(use_schema_1, "schema 1", "skopeo copy --format v2s2", id="schema 1"),
    ],
)
def test_an_incomplete_image_is_a_problem_with_a_cure(
    tmp_path: Path, damage: Callable[[Path], None], reason: str, remedy: str
) -> None:
    root = make_images(tmp_path / "images", {"a": {"1": image()}})
    damage(root / "a" / "1")
    problem = only_problem(root)
    assert reason in problem.reason
    assert remedy in problem.remedy
    assert f"{root}/a/1" in problem.remedy


def test_a_half_copied_image_is_a_problem_until_its_manifest_comes(tmp_path: Path) -> None:
    """The order of skopeo: the directory, ``version``, blobs under temporary names, the manifest."""
    root, tag, built = tmp_path / "images", tmp_path / "images" / "a" / "1", image()
    tag.mkdir(parents=True)
    assert scan(root).problems == ()  # an empty directory is no mistake yet ...
    assert scan(root).unfinished == {("a", "1")}  # ... and no deletion either
    (tag / "version").write_text("Directory Transport Version: 1.1\n")
    assert "a copy is under way" in only_problem(root).reason
    (tag / "dir-put-blob123").write_bytes(b"half")
    (tag / "dir-put-blob123").chmod(0o600)
    assert "a copy is under way" in only_problem(root).reason
    write_image(tag, built)
    assert only_image(root).digest == built.digest


def test_an_index_without_any_of_its_platforms_says_how_to_copy_all(tmp_path: Path) -> None:
    one, two = image("1"), image("2")
    root = make_images(tmp_path / "images", {"a": {"1": index(one, two)}})
    for each in (one, two):
        (root / "a" / "1" / f"{each.digest[7:]}.manifest.json").unlink()
    problem = only_problem(root)
    assert "nothing is there of what it names" in problem.reason
    assert f"skopeo copy --all docker://SOURCE dir:{root}/a/1" in problem.remedy


def test_a_child_of_an_index_must_have_its_digest(tmp_path: Path) -> None:
    one = image("1")
    root = make_images(tmp_path / "images", {"a": {"1": index(one)}})
    child = root / "a" / "1" / f"{one.digest[7:]}.manifest.json"
    child.write_bytes(child.read_bytes().replace(b'"schemaVersion": 2', b'"schemaVersion":2 '))
    assert "was damaged or changed" in only_problem(root).reason


def test_a_child_of_an_index_must_have_its_size(tmp_path: Path) -> None:
    built = index(image("1"))
    document = json.loads(built.raw)
    document["manifests"][0]["size"] += 1
    wrong = Built(json.dumps(document).encode(), built.media_type, built.files)
    assert "bytes instead of" in only_problem(make_images(tmp_path / "one", {"a": {"1": wrong}})).reason
    nested = index(built, wrong)
    root = make_images(tmp_path / "two", {"a": {"1": nested}})
    assert "different sizes" in only_problem(root).reason


def test_platforms_must_agree_on_the_size_of_a_blob(tmp_path: Path) -> None:
    one = image("1")
    document = json.loads(one.raw)
    document["layers"][0]["size"] += 1
    other = Built(json.dumps(document).encode(), one.media_type, one.files)
    root = make_images(tmp_path / "images", {"a": {"1": index(one, other)}})
    assert "different sizes" in only_problem(root).reason


def test_a_child_that_is_named_by_sha512_must_have_that_digest(tmp_path: Path) -> None:
    child, built = image("1"), index_by_sha512(image("1"), image("2"))
    root = make_images(tmp_path / "images", {"a": {"1": built}})
    digest = f"sha512:{sha512(child.raw).hexdigest()}"
    found = only_image(root)
    assert digest in [each.digest for each in found.manifests]
    assert child.digest not in [each.digest for each in found.manifests]
    file = root / "a" / "1" / f"{digest[7:]}.manifest.json"
    file.write_bytes(child.raw.replace(b'"schemaVersion": 2', b'"schemaVersion":2 '))
    assert "was damaged or changed" in only_problem(root).reason


def test_a_directory_may_be_named_by_a_sha512_digest(tmp_path: Path) -> None:
    digest = f"sha512:{sha512(image().raw).hexdigest()}"
    write_image(tmp_path / f"app@{digest}", image())
    found = only_image(tmp_path)
    assert (found.tag, [each.digest for each in found.manifests]) == (None, [image().digest, digest])


GZIP = gzip.compress(image().raw)
ZSTD = b"\x28\xb5\x2f\xfd" + b"x" * 20


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        pytest.param(GZIP, "gzip, not JSON", id="gzip"),
        pytest.param(ZSTD, "zstd, not JSON", id="zstd"),
        pytest.param(b"\xef\xbb\xbf" + image().raw, "JSON with a byte order mark, which must go", id="BOM"),
        pytest.param(image().raw.decode().encode("utf-16"), "UTF-16, not UTF-8", id="UTF-16, not UTF-8"),
        pytest.param(
            b"\n<!DOCTYPE html><html>", "HTML, such as the error page of a proxy, not JSON", id="HTML"
        ),
    ],
)
@pytest.mark.parametrize("where", ["dir", "child", "oci", "index.json"])
def test_a_manifest_that_is_no_json_is_named_and_mended(
    tmp_path: Path, raw: bytes, what: str, where: str
) -> None:
    whole = index(image())
    if where in ("dir", "child"):
        directory = write_image(tmp_path / "a:1", image() if where == "dir" else whole)
        file = directory / ("manifest.json" if where == "dir" else f"{image().digest[7:]}.manifest.json")
    else:
        layout = write_layout(tmp_path / "a", ("1", image()))
        file = layout / (where if where == "index.json" else f"blobs/sha256/{image().digest[7:]}")
    if where == "index.json" and raw != ZSTD and not raw.startswith(b"\n<"):
        good = file.read_bytes()
        raw = {GZIP: gzip.compress(good)}.get(raw) or (
            b"\xef\xbb\xbf" + good if raw.startswith(b"\xef") else good.decode().encode("utf-16")
        )
    file.write_bytes(raw)
    file.chmod(0o644)
    (problem,) = scan(tmp_path).problems
    assert problem.reason == f"{file.name} cannot be used: it is {what}"
    assert "Wait" not in problem.remedy
    if raw == ZSTD:
        assert f"unzstd <{file} >" in problem.remedy
    elif what.startswith("HTML"):
        assert problem.remedy.startswith("Copy it again: ")
    else:
        run(problem.remedy)
        assert scan(tmp_path).problems == ()


def test_the_manifests_of_one_image_have_a_bound_together(tmp_path: Path) -> None:
    children = [image(str(number), annotations={"padding": "x" * (4 << 19)}) for number in range(9)]
    write_image(tmp_path / "a" / "1", index(*children))
    assert "have more than 16 MiB together" in only_problem(tmp_path).reason
    write_image(tmp_path / "a" / "1", index(*children[:7]))
    assert len(only_image(tmp_path).manifests) == 8
