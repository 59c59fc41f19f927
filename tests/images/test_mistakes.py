"""What people drop that is no image in place: each is told the command that cures it, and it does."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from scr_watchd.files import ANYBODY
from scr_watchd.images.scan import Scanner
from scr_watchd.images.tree import Tree
from tests.clients.real_images import skopeo
from tests.remedies import cure, run
from tests.trees import (
    OCI_MANIFEST,
    Built,
    descriptor,
    digest_of,
    image,
    index,
    make_images,
    write_image,
    write_layout,
)


def scan(root: Path) -> Tree:
    return Scanner(root, reader=ANYBODY).full()


def names(found: Tree) -> list[str]:
    return [f"{each.repository}:{each.tag}" for each in found.images]


def convertible(content: bytes = b"hello") -> Built:
    """An image that skopeo can convert: its layer is a tar, and its config knows it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as layer:
        member = tarfile.TarInfo("content")
        member.size = len(content)
        layer.addfile(member, io.BytesIO(content))
    diff = packed.getvalue()
    rootfs = {"type": "layers", "diff_ids": [digest_of(diff)]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(diff, "application/vnd.oci.image.layer.v1.tar")],
        }
    ).encode()
    return Built(raw, OCI_MANIFEST, {digest_of(each)[7:]: each for each in (config, diff)})


def archive(file: Path, kind: str) -> Path:
    """What `docker save`, or `podman save --format oci-archive`, writes."""
    source = write_image(file.parent / ".source", convertible())
    file.parent.mkdir(exist_ok=True)
    skopeo("copy", "--quiet", f"dir:{source}", f"{kind}:{file}:localhost/app:7")
    return file


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("packed", ["", "gz", "tgz", "xz", "bz2"])
def test_the_remedy_for_an_archive_copies_the_image_out_of_it(tmp_path: Path, kind: str, packed: str) -> None:
    file = archive(tmp_path / "lib" / "app.tar", kind)
    if packed:
        pack = {"tgz": "gzip", "gz": "gzip", "xz": "xz", "bz2": "bzip2"}[packed]
        subprocess.run([pack, file], check=True)
    if packed == "tgz":
        Path(f"{file}.gz").rename(file.with_suffix(".tgz"))
    found = scan(tmp_path)
    assert found.images == ()
    assert found.problems[0].reason == "it is an archive, and images are directories"
    cure(found)
    found = scan(tmp_path)
    assert names(found) == ["lib/app:latest"]
    assert found.problems == ()
    assert {each.name for each in (tmp_path / "lib").iterdir()} == {"app:latest", ".source"}


def test_the_remedy_for_an_archive_overwrites_no_image(tmp_path: Path) -> None:
    write_image(tmp_path / "app:latest", image())
    archive(tmp_path / "app.tar", "docker-archive")
    cure(scan(tmp_path))
    assert names(scan(tmp_path)) == ["app:latest", "app:new"]


def test_an_archive_that_is_called_name_and_tag_becomes_that(tmp_path: Path) -> None:
    """`docker save -o images/app:1.tar app:1`; skopeo would take the colon for its own."""
    archive(tmp_path / "app.tar", "docker-archive").rename(tmp_path / "app:1.tar")
    cure(scan(tmp_path))
    assert names(scan(tmp_path)) == ["app:1"]
    assert scan(tmp_path).problems == ()


def test_an_archive_with_a_name_that_no_image_has_is_called_image(tmp_path: Path) -> None:
    archive(tmp_path / "app.tar", "docker-archive").rename(tmp_path / "My App!.tar")
    cure(scan(tmp_path))
    assert names(scan(tmp_path)) == ["image:latest"]


@pytest.mark.parametrize("path", ["app", "app:1", "lib/app:1", "lib/app"])
def test_the_remedy_for_an_unpacked_archive_converts_it(tmp_path: Path, path: str) -> None:
    """`docker save app | tar -x -C images/app`."""
    file = archive(tmp_path / ".save" / "app.tar", "docker-archive")
    (tmp_path / path).mkdir(parents=True)
    subprocess.run(["tar", "-x", "-f", file, "-C", tmp_path / path], check=True)
    assert scan(tmp_path).problems[0].reason == "it is an archive of docker save, unpacked"
    cure(scan(tmp_path))
    found = scan(tmp_path)
    assert found.problems == ()
    expected = {"app": "app:latest", "app:1": "app:1", "lib/app:1": "lib/app:1", "lib/app": "lib/app:latest"}
    assert names(found) == [expected[path]]


def test_the_files_of_an_image_are_no_archives(tmp_path: Path) -> None:
    write_image(tmp_path / "app:1", image())
    (tmp_path / "app:1" / "extra.tar").write_bytes(b"")
    assert scan(tmp_path).problems == ()


def test_the_remedy_for_an_image_in_the_root_itself_gives_it_a_name(tmp_path: Path) -> None:
    """`skopeo copy ... dir:images`."""
    write_image(tmp_path, index(image("a"), image("b")))
    write_image(tmp_path / "image:latest", image("there already"))
    (tmp_path / ".hidden").touch()
    (tmp_path / "signature-1").touch()
    cure(scan(tmp_path))
    found = scan(tmp_path)
    assert names(found) == ["image:latest", "image:latest-2"]
    assert found.problems == ()
    assert {each.name for each in tmp_path.iterdir()} == {".hidden", "image:latest", "image:latest-2"}


def test_the_remedy_for_a_layout_in_the_root_itself_gives_it_a_name(tmp_path: Path) -> None:
    """`skopeo copy ... oci:images:1`."""
    write_layout(tmp_path, ("1", image("a")))
    write_image(tmp_path / "other:1", image("b"))
    found = scan(tmp_path)
    assert names(found) == ["other:1"]
    cure(found)
    assert names(scan(tmp_path)) == ["image:1", "other:1"]
    assert scan(tmp_path).problems == ()


@pytest.mark.parametrize("beside", [None, image("there")], ids=["alone", "beside the right name"])
@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        pytest.param("Foo/1", "foo:1", id="upper case"),
        pytest.param("Foo:1", "foo:1", id="upper case, as skopeo sync names it"),
        pytest.param("Lib/Foo:RC1", "lib/foo:RC1", id="upper case twice"),
        pytest.param("localhost:5000/lib/app:3.9", "localhost_5000/lib/app:3.9", id="skopeo sync --scoped"),
        pytest.param("Registry.example.com:5000/Lib/app:1", "registry.example.com_5000/lib/app:1", id="all"),
    ],
)
def test_the_remedy_for_a_wrong_name_renames_all_of_it(
    tmp_path: Path, wrong: str, right: str, beside: Built | None
) -> None:
    root = tmp_path / "the images"
    write_image(root / wrong, image("wrong"))
    if beside is not None:
        write_image(root / right.partition("/")[0].partition(":")[0] / "x", beside)
    cure(scan(root))
    found = scan(root)
    assert right in names(found)
    assert found.problems == ()


def test_a_wrong_name_whose_right_one_is_taken_gets_another_tag(tmp_path: Path) -> None:
    make_images(tmp_path, {".": {"Foo:1": image("a"), "foo:1": image("b")}})
    cure(scan(tmp_path))
    found = scan(tmp_path)
    assert {f"{each.repository}:{each.tag}": each.digest for each in found.images} == {
        "foo:1": image("b").digest,
        "foo:1-2": image("a").digest,
    }
    assert found.problems == ()


def test_one_rename_is_for_all_images_below(tmp_path: Path) -> None:
    make_images(tmp_path, {"localhost:5000/lib": {"a:1": image("a"), "b:1": image("b")}})
    remedies = {each.remedy for each in scan(tmp_path).problems}
    assert len(remedies) == 1
    run(remedies.pop())
    assert names(scan(tmp_path)) == ["localhost_5000/lib/a:1", "localhost_5000/lib/b:1"]
