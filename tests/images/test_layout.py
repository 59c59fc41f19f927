"""OCI layouts: a directory is a repository, and what is called a tag in it is one."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from scr_watchd.files import ANYBODY, Reader, open_directory
from scr_watchd.images.layout import tags_in
from scr_watchd.images.naming import tag_of
from scr_watchd.images.reference import Place
from scr_watchd.images.scan import Scanner
from scr_watchd.images.tree import Tree
from scr_watchd.oci.manifest import MANIFEST_BYTES
from scr_watchd.oci.names import RepositoryName
from tests.images.test_hostile import become
from tests.images.test_memory import SETTLED_SECONDS, large, reads, rewrite
from tests.remedies import run
from tests.scans import nothing
from tests.trees import (
    Built,
    descriptor,
    digest_of,
    image,
    index,
    make_images,
    write_blob,
    write_image,
    write_index,
    write_layout,
)
from tests.waiting import until

ONE, TWO = image("one"), image("two")


def scan(root: Path, reader: Reader = ANYBODY) -> Tree:
    return Scanner(root, reader=reader).full()


def names(found: Tree) -> list[str]:
    return [f"{each.repository}:{each.tag}" if each.tag else f"{each.repository}@" for each in found.images]


def reasons(found: Tree, root: Path) -> dict[str, str]:
    return {os.path.relpath(each.path, root): each.reason for each in found.problems}


def blob_file(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def manifest_file(layout: Path, built: Built) -> Path:
    return blob_file(layout, built.digest)


def layer_file(layout: Path, built: Built) -> Path:
    return blob_file(layout, max(built.blobs))


def test_the_tags_of_a_layout_are_what_its_images_are_called(tmp_path: Path) -> None:
    many = index(image("amd64"), image("arm64"))
    write_layout(tmp_path / "app", ("1.0", ONE), ("2.0", TWO), ("all", many))
    write_layout(tmp_path / "library" / "app", ("1.0", TWO))
    found = scan(tmp_path)
    assert names(found) == ["app:1.0", "app:2.0", "app:all", "library/app:1.0"]
    assert (found.problems, found.unfinished, found.hidden) == ((), frozenset(), ())
    first, _, third, _ = found.images
    assert (first.path, first.digest, first.is_in_layout) == ("app", ONE.digest, True)
    assert first.directory("sha256") == "app/blobs/sha256"
    assert {each.digest for each in first.blobs} == set(ONE.blobs)
    assert {each.digest for each in third.manifests} == set(many.manifests)


def test_an_index_in_an_index_is_found_whole(tmp_path: Path) -> None:
    many = index(index(image("amd64"), image("arm64")), image("attestation"))
    layout = write_layout(tmp_path / "app", ("1", many))
    (image_found,) = scan(tmp_path).images
    assert {each.digest for each in image_found.manifests} == set(many.manifests)
    manifest_file(layout, image("arm64")).unlink()
    (image_found,) = scan(tmp_path).images
    assert [each.digest for each in image_found.absent] == [image("arm64").digest]
    manifest_file(layout, image("amd64")).unlink()
    found = scan(tmp_path)
    assert found.images == ()
    assert found.unfinished == {("app", "1")}
    assert f"skopeo copy --all docker://SOURCE oci:{layout}:1" in found.problems[0].remedy


def test_a_prefix_goes_before_the_name_of_a_layout(tmp_path: Path) -> None:
    write_layout(tmp_path / "app", ("1.0", ONE))
    assert names(Scanner(tmp_path, reader=ANYBODY, prefix="mirror/").full()) == ["mirror/app:1.0"]


def test_blobs_with_sha512_digests_lie_on_a_shelf_of_their_own(tmp_path: Path) -> None:
    layout = tmp_path / "app"
    blob = write_blob(layout, b"a layer", "sha512")
    layer = {"mediaType": "x", "digest": f"sha512:{blob.name}", "size": 7}
    config = descriptor(b"{}", "application/vnd.oci.image.config.v1+json")
    raw = json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]}).encode()
    built = Built(raw, image().media_type, {digest_of(b"{}")[7:]: b"{}"})
    write_layout(layout, ("1", built))
    assert names(scan(tmp_path)) == ["app:1"]
    blob.write_bytes(b"a la")
    assert "has 4 bytes instead of 7" in scan(tmp_path).problems[0].reason


def test_a_manifest_that_an_index_names_by_sha512_has_both_digests(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "app", ("1", ONE), ("2", TWO))
    own = write_blob(layout, ONE.raw, "sha512")
    manifest_file(layout, ONE).unlink()
    raw = (layout / "index.json").read_text().replace(ONE.digest, f"sha512:{own.name}")
    (layout / "index.json").write_text(raw)
    scanner = Scanner(tmp_path, reader=ANYBODY)
    found = scanner.full()
    assert found.problems == ()
    first = found.images[0]
    assert (first.digest, first.tag) == (ONE.digest, "1")
    assert [each.digest for each in first.manifests] == [ONE.digest, f"sha512:{own.name}"]
    assert all(first.directory(each.algorithm) == "app/blobs/sha512" for each in first.manifests)
    assert scanner.light() == scanner.full() == found
    with open_directory(layout) as descriptor:
        tags = tags_in(descriptor, Place(RepositoryName("app"), None), str(layout))
    assert tags == {("app", "1"): ONE.digest, ("app", "2"): TWO.digest}
    own.write_bytes(ONE.raw.swapcase())
    assert "was damaged or changed" in scanner.full().problems[0].reason


def test_other_repositories_and_tags_may_lie_below_a_layout(tmp_path: Path) -> None:
    write_layout(tmp_path / "library", ("1", ONE))
    write_layout(tmp_path / "library" / "app", ("1", TWO))
    write_image(tmp_path / "library" / "2", TWO)
    found = scan(tmp_path)
    assert names(found) == ["library:1", "library:2", "library/app:1"]
    assert found.problems == ()


def test_a_layout_without_images_is_nothing(tmp_path: Path) -> None:
    """`umoci init` writes null."""
    layout = write_layout(tmp_path / "app")
    assert scan(tmp_path) == nothing(tmp_path)
    (layout / "index.json").write_text('{"schemaVersion": 2, "manifests": null}')
    assert scan(tmp_path) == nothing(tmp_path)


def test_a_repository_may_be_called_blobs_or_oci_layout(tmp_path: Path) -> None:
    root = make_images(
        tmp_path, {"blobs": {"1": ONE}, "oci-layout": {"1": ONE}, "a/blobs": {"sha256": ONE}, "a": {"1": ONE}}
    )
    found = scan(root)
    assert names(found) == ["a:1", "a/blobs:sha256", "blobs:1", "oci-layout:1"]
    assert found.problems == ()


def test_what_docker_adds_to_a_layout_does_not_matter(tmp_path: Path) -> None:
    """`docker save` of today writes a layout with the manifest.json of before in it."""
    layout = write_layout(tmp_path / "app", ("1", ONE))
    (layout / "manifest.json").write_text('[{"Config": "x", "RepoTags": ["app:1"], "Layers": []}]')
    (layout / "repositories").write_text("{}")
    assert names(scan(tmp_path)) == ["app:1"]
    assert scan(tmp_path).problems == ()


# -- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        pytest.param("1.0", "1.0", id="a tag"),
        pytest.param("docker.io/library/app:1.0", "1.0", id="a reference, as podman save writes it"),
        pytest.param("localhost:5000/app:1.0", "1.0", id="a reference with a port"),
        pytest.param(f"app:1.0@{ONE.digest}", "1.0", id="tag and digest"),
        pytest.param("app:RC1", "RC1", id="upper case"),
        pytest.param("docker.io/library/app", None, id="a reference without a tag"),
        pytest.param("localhost:5000/app", None, id="a port is no tag"),
        pytest.param(f"docker.io/library/app@{ONE.digest}", None, id="a digest is no tag"),
        pytest.param("a+b", None, id="a character that no tag has"),
        pytest.param("app:1,app:2", None, id="two names at once"),
        pytest.param(":1.0", None, id="no name"),
        pytest.param("", None, id="nothing"),
        pytest.param("1.0\n", None, id="newline"),
    ],
)
def test_the_tag_in_a_name(name: str, tag: str | None) -> None:
    assert tag_of(name) == tag


def test_an_image_called_by_containerd_alone_has_its_tag(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "app", ("1", ONE))
    raw = (layout / "index.json").read_text()
    raw = raw.replace("org.opencontainers.image.ref.name", "io.containerd.image.name")
    (layout / "index.json").write_text(raw.replace('"1"', '"docker.io/library/other:7"'))
    assert names(scan(tmp_path)) == ["app:7"]


@pytest.mark.parametrize(
    ("name", "tag"), [("a+b", "a_b"), ("docker.io/library/app", "latest"), ("\N{SNOWMAN}'\n", None)]
)
def test_an_image_with_a_strange_name_is_told_how_to_be_called(
    tmp_path: Path, name: str, tag: str | None
) -> None:
    root = tmp_path / "it's here"
    write_layout(root / "app", ("1", ONE), (name, TWO))
    found = scan(root)
    assert names(found) == ["app:1"]
    (problem,) = found.problems
    assert "which names no tag" in problem.reason
    run(problem.remedy)
    assert names(scan(root)) == ["app:1", f"app:{tag or TWO.digest[7:19]}"]
    assert scan(root).problems == ()


def test_an_image_without_a_name_is_served_by_digest_and_told_how_to_get_one(tmp_path: Path) -> None:
    """`skopeo copy ... oci:images/app`, without a tag."""
    layout = write_layout(tmp_path / "app", (None, ONE))
    found = scan(tmp_path)
    assert [(each.repository, each.tag, each.digest) for each in found.images] == [("app", None, ONE.digest)]
    assert found.problems[0].reason == f"{ONE.digest} has no name in it, and can be pulled by digest only"
    assert found.problems[0].remedy == f"Name it: mv {layout} {layout}:latest"
    run(found.problems[0].remedy)
    assert names(scan(tmp_path)) == ["app:latest"]
    assert scan(tmp_path).problems == ()


@pytest.mark.parametrize("why", ["several", "taken", "nested"])
def test_where_a_directory_cannot_be_renamed_the_index_is_edited(tmp_path: Path, why: str) -> None:
    more = [(None, TWO)] if why == "several" else []
    layout = write_layout(tmp_path / "app", (None, ONE), *more)
    if why == "taken":
        write_image(tmp_path / "app:latest", ONE)
    if why == "nested":
        write_image(layout / "other:1", TWO)
    (problem,) = scan(tmp_path).problems
    run(problem.remedy)
    found = scan(tmp_path)
    assert "app:latest" in names(found)
    assert found.problems == ()


def test_what_a_tag_named_before_has_no_name_and_needs_none(tmp_path: Path) -> None:
    """skopeo leaves it in index.json."""
    write_layout(tmp_path / "app", (None, ONE), ("1", TWO), (None, TWO))
    found = scan(tmp_path)
    assert names(found) == ["app:1", "app@"]
    assert found.images[1].digest == ONE.digest
    assert found.problems == ()


def test_a_signature_needs_no_name(tmp_path: Path) -> None:
    subject = descriptor(ONE.raw, ONE.media_type)
    write_layout(tmp_path / "app", (None, image("signature", subject=subject)))
    found = scan(tmp_path)
    assert (names(found), found.problems) == (["app@"], ())


def test_two_images_of_one_name_are_a_problem_and_the_first_is_served(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "app", ("1", ONE), ("1", TWO), ("1", ONE))
    found = scan(tmp_path)
    assert [each.digest for each in found.images] == [ONE.digest]
    assert reasons(found, tmp_path) == {"app:1": "app:1 is there twice in its index.json, as another image"}
    run(found.problems[0].remedy)
    assert [(each.tag, each.digest) for each in scan(tmp_path).images] == [
        ("1", ONE.digest),
        ("1-2", TWO.digest),
    ]
    assert scan(tmp_path).problems == ()
    write_image(tmp_path / "app:1", TWO)
    found = scan(tmp_path)
    assert [each.digest for each in found.images] == [ONE.digest, TWO.digest]
    assert found.problems[0].remedy == f"Give it another tag: mv {layout}:1 {layout}:1-2"


# -- directories that are called NAME:TAG ------------------------------------------------------------


def test_a_layout_called_name_and_tag_is_this_image_whatever_it_is_called_inside(tmp_path: Path) -> None:
    write_layout(tmp_path / "app:1", ("localhost/thing:7", ONE), (None, TWO))
    write_layout(tmp_path / "lib" / "app:2", (None, ONE))
    write_layout(tmp_path / f"app@{TWO.digest}", ("x", ONE), ("y", TWO))
    found = scan(tmp_path)
    assert names(found) == ["app:1", "app@", "lib/app:2"]
    assert [each.digest for each in found.images] == [ONE.digest, TWO.digest, ONE.digest]
    assert found.problems == ()


def test_a_layout_called_name_and_tag_with_several_images_is_told_to_be_a_repository(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "app:1", ("1", ONE), ("2", TWO))
    found = scan(tmp_path)
    assert found.images == ()
    assert found.unfinished == {("app", "1")}
    assert found.problems[0].reason == "its name has a tag, and it holds 2 images"
    run(found.problems[0].remedy)
    assert names(scan(tmp_path)) == ["app:1", "app:2"]
    shutil.copytree(tmp_path / "app", layout)
    run(scan(tmp_path).problems[0].remedy)
    assert names(scan(tmp_path)) == ["app:1", "app:2", "app-layout:1", "app-layout:2"]


def test_a_digest_that_a_layout_has_not_is_a_problem(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / f"app@{TWO.digest}", ("x", ONE))
    found = scan(tmp_path)
    assert reasons(found, tmp_path) == {layout.name: f"its index.json does not name {TWO.digest}"}
    assert f"rm -r {layout}; skopeo copy docker://SOURCE dir:{layout}" in found.problems[0].remedy


def test_an_upper_case_layout_is_told_how_to_be_renamed(tmp_path: Path) -> None:
    write_layout(tmp_path / "Lib" / "App", ("1", ONE))
    found = scan(tmp_path)
    assert found.images == ()
    run(found.problems[0].remedy)
    assert names(scan(tmp_path)) == ["lib/app:1"]


def test_a_symbolic_link_may_be_a_tag_of_a_layout_with_one_image(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "app", ("1", ONE))
    (tmp_path / "app:latest").symlink_to("app")
    (tmp_path / "other").symlink_to("app")
    found = scan(tmp_path)
    assert names(found) == ["app:1", "app:latest"]
    assert {each.path for each in found.images} == {"app"}
    assert list(reasons(found, tmp_path)) == ["other"]
    assert f"oci:{layout}:TAG" in found.problems[0].remedy


# -- what is not whole -------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["manifest", "layer", "child"])
@pytest.mark.parametrize(
    "kind", ["missing", "cut off", "a FIFO", "a directory", "a socket", "a device", "/etc/passwd"]
)
def test_a_broken_image_does_not_hide_its_neighbours_in_the_same_layout(
    tmp_path: Path, what: str, kind: str
) -> None:
    bad = index(image("child"))
    layout = write_layout(tmp_path / "app", ("1", ONE), ("bad", bad), ("3", TWO))
    file = {
        "manifest": manifest_file(layout, bad),
        "layer": layer_file(layout, image("child")),
        "child": manifest_file(layout, image("child")),
    }[what]
    if kind == "missing":
        file.unlink()
    elif kind == "cut off":
        os.truncate(file, 1)
    else:
        become(file, kind)
    found = scan(tmp_path)
    assert names(found) == ["app:1", "app:3"]
    assert found.unfinished == {("app", "bad")}
    assert list(reasons(found, tmp_path)) == ["app:bad"]
    assert "skopeo copy " in found.problems[0].remedy
    if kind != "missing":
        assert f"rm -r {file}; " in found.problems[0].remedy


def test_a_manifest_of_other_bytes_is_refused(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "app", ("1", ONE))
    file = manifest_file(layout, ONE)
    file.write_bytes(file.read_bytes().swapcase())
    assert "it was damaged or changed" in reasons(scan(tmp_path), tmp_path)["app:1"]


def test_a_manifest_may_have_four_mebibytes_and_no_more(tmp_path: Path) -> None:
    large, larger = (
        Built(ONE.raw.ljust(size), ONE.media_type, ONE.files) for size in (MANIFEST_BYTES, MANIFEST_BYTES + 1)
    )
    write_layout(tmp_path / "app", ("4", large), ("5", larger))
    found = scan(tmp_path)
    assert names(found) == ["app:4"]
    assert "has 4194305 bytes, more than 4194304" in reasons(found, tmp_path)["app:5"]


@pytest.mark.parametrize("where", ["blobs", "blobs/sha256"])
def test_blobs_that_lie_elsewhere_are_refused(tmp_path: Path, where: str) -> None:
    root = tmp_path / "images"
    layout = write_layout(root / "app", ("1", ONE))
    (layout / where).rename(tmp_path / "elsewhere")
    (layout / where).symlink_to(tmp_path / "elsewhere")
    found = scan(root)
    assert found.images == ()
    assert reasons(found, root) == {"app": f"its {where} is a symbolic link, not a directory"}
    assert found.hidden == ("app",)


@pytest.mark.parametrize("where", ["blobs", "blobs/sha256"])
def test_below_blobs_that_nginx_may_not_enter_nothing_is_served(tmp_path: Path, where: str) -> None:
    layout = write_layout(tmp_path / "app", ("1", ONE))
    (layout / where).chmod(0o700)
    found = scan(tmp_path)
    assert found.images == ()
    assert (found.hidden, found.unfinished) == ((), frozenset()), "what became private is withdrawn"
    run(found.problems[0].remedy)
    assert names(scan(tmp_path)) == ["app:1"]


def test_a_private_copy_is_told_how_to_be_opened(tmp_path: Path) -> None:
    """umoci writes every file for its owner only; index.json is for nobody but us."""
    layout = write_layout(tmp_path / "app", ("1", ONE), ("2", TWO))
    manifest_file(layout, ONE).chmod(0o600)
    (layout / "index.json").chmod(0o600)
    found = scan(tmp_path)
    assert names(found) == ["app:2"]
    run(found.problems[0].remedy)
    assert names(scan(tmp_path)) == ["app:1", "app:2"]


@pytest.mark.parametrize("file", ["index.json", "oci-layout"])
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty, as skopeo leaves it for a moment"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"\xff", id="no UTF-8"),
        pytest.param(b'{"schemaVersion": 2, "manifests": [{}]}', id="half a descriptor"),
        pytest.param(b'{"imageLayoutVersion": "2.0.0"}', id="another version"),
        pytest.param(None, id="missing"),
    ],
)
def test_while_the_files_of_a_layout_cannot_be_read_nothing_is_taken_for_deleted(
    tmp_path: Path, file: str, raw: bytes | None
) -> None:
    for name in ("app", "thing:1"):
        layout = write_layout(tmp_path / name, ("1", ONE))
        if raw is None:
            (layout / file).unlink()
        else:
            (layout / file).write_bytes(raw)
    write_image(tmp_path / "good:1", TWO)
    found = scan(tmp_path)
    assert names(found) == ["good:1"]
    assert found.hidden == ("app",)
    assert found.unfinished == {("thing", "1")}
    assert list(reasons(found, tmp_path)) == ["app", "thing:1"]


@pytest.mark.parametrize("file", ["index.json", "oci-layout"])
@pytest.mark.parametrize("kind", ["a FIFO", "a directory", "/etc/passwd", "/dev/zero"])
def test_odd_files_in_a_layout_are_a_problem(tmp_path: Path, file: str, kind: str) -> None:
    layout = write_layout(tmp_path / "app", ("1", ONE))
    become(layout / file, kind)
    found = scan(tmp_path)
    assert found.images == ()
    assert found.hidden == ("app",)
    assert list(reasons(found, tmp_path)) == ["app"]


def test_a_first_copy_under_way_is_one_problem(tmp_path: Path) -> None:
    """skopeo writes `oci-layout` and index.json when all blobs are there."""
    layout = write_layout(tmp_path / "app", ("1", ONE))
    (layout / "oci-layout").unlink()
    (layout / "index.json").unlink()
    (layout / "oci-put-blob123").touch()
    found = scan(tmp_path)
    assert reasons(found, tmp_path) == {
        "app": "it has blobs and no oci-layout: a copy is under way, or was broken off"
    }


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "", f"sha512:{'0' * 127}"])
def test_a_strange_digest_in_the_index_is_a_problem_of_its_own(tmp_path: Path, digest: str) -> None:
    layout = write_layout(tmp_path / "app", ("1", ONE), ("2", TWO))
    raw = (layout / "index.json").read_text().replace(TWO.digest, digest)
    (layout / "index.json").write_text(raw)
    found = scan(tmp_path)
    assert names(found) == ["app:1"]
    assert len(found.problems) == 1
    run(found.problems[0].remedy)
    assert scan(tmp_path).problems == ()


# -- memory ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with layouts that are old enough for their timestamps to be trusted."""
    root = tmp_path_factory.mktemp("old")
    for name in ("kept", "changed", "tagged", "removed", "blob", "index"):
        write_layout(root / name, ("1", large("a")), ("2", index(image("b"))))
    made = time.time()
    until(time.time, lambda now: now > made + SETTLED_SECONDS)
    return root


def test_what_has_not_changed_is_not_read_again(old: Path) -> None:
    scanner = Scanner(old, reader=ANYBODY)
    assert reads(scanner.full)
    first = scanner.full()
    directories = scanner.directories
    for again in (scanner.light, scanner.full):
        assert not reads(again)
        found = again()
        assert found == first
        assert all(new is before for new, before in zip(found.images, first.images, strict=True))
        assert scanner.directories == directories


@pytest.mark.parametrize("depth", ["light", "full"])
def test_a_new_tag_is_seen_and_the_images_beside_it_are_the_same_as_before(old: Path, depth: str) -> None:
    layout = old / "tagged"
    write_index(layout, ("1", large("a")), ("2", index(image("b"))))
    scanner = Scanner(old, reader=ANYBODY)
    before = {each.digest: each for each in scanner.full().images if each.path == "tagged"}
    write_index(layout, ("1", large("a")), ("2", index(image("b"))), ("3", large("a")))
    found = getattr(scanner, depth)()
    assert [each.tag for each in found.images if each.path == "tagged"] == ["1", "2", "3"]
    assert all(
        each is before[each.digest] for each in found.images if each.path == "tagged" and each.tag != "3"
    )


@pytest.mark.parametrize("depth", ["light", "full"])
def test_an_index_that_was_changed_in_place_is_seen(old: Path, depth: str) -> None:
    scanner = Scanner(old, reader=ANYBODY)
    scanner.full()
    path = old / "index" / "index.json"
    raw = path.read_bytes()
    rewrite(path, raw.replace(b'"1"', b'"9"') if b'"1"' in raw else raw.replace(b'"9"', b'"1"'))
    found = getattr(scanner, depth)()
    expected = "9" if b'"1"' in raw else "1"
    assert expected in [each.tag for each in found.images if each.path == "index"]


def test_a_light_scan_sees_a_blob_that_was_removed(old: Path) -> None:
    scanner = Scanner(old, reader=ANYBODY)
    scanner.full()
    layer_file(old / "removed", image("b")).unlink()
    found = scanner.light()
    assert found.unfinished == {("removed", "2")}
    write_blob(old / "removed", image("b").blobs[max(image("b").blobs)])
    assert scanner.light().unfinished == frozenset()


def test_a_full_scan_sees_what_was_changed_in_place(old: Path) -> None:
    scanner = Scanner(old, reader=ANYBODY)
    scanner.full()
    manifest = manifest_file(old / "changed", large("a"))
    rewrite(manifest, manifest.read_bytes().swapcase())
    assert scanner.full().unfinished == {("changed", "1")}
    os.truncate(layer_file(old / "blob", image("b")), 1)
    assert scanner.full().unfinished == {("changed", "1"), ("blob", "2")}


def test_a_link_to_a_blob_from_elsewhere_is_no_change(old: Path) -> None:
    """Publishing makes such links."""
    scanner = Scanner(old, reader=ANYBODY)
    before = scanner.full()
    os.link(layer_file(old / "kept", large("a")), old.parent / "elsewhere")
    assert scanner.full() == before
