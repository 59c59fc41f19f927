"""Odd and hostile trees: each is a word to its owner, and nothing to its neighbours."""

import json
import os
import re
import shutil
import socket
from pathlib import Path

import pytest

from scr_watchd.files import ANYBODY
from scr_watchd.images.scan import Scanner
from scr_watchd.images.tree import Tree
from scr_watchd.oci.manifest import MANIFEST_BYTES
from tests.remedies import run
from tests.scans import nothing
from tests.trees import OCI_INDEX, Built, image, index, make_images, write_image

ONE_LINE = re.compile(r"[ -~]+")
GOOD = {"neighbour": {"1": image("good")}}


def scan(root: Path) -> Tree:
    """Everything that is found, and the certainty that the neighbour is found in any case."""
    found = Scanner(root, reader=ANYBODY).full()
    assert "neighbour/1" in [each.path for each in found.images]
    for problem in found.problems:
        for text in (problem.path, problem.reason, problem.remedy):
            assert ONE_LINE.fullmatch(text)
    return found


def only_reason(root: Path) -> str:
    """Why the one image beside the neighbour is not served."""
    found = scan(root)
    assert len(found.images) == 1
    (problem,) = found.problems
    return problem.reason


def become(path: Path, kind: str) -> None:
    """Put something odd in the place of the file ``path``."""
    path.unlink()
    match kind:
        case "a FIFO":
            os.mkfifo(path)
        case "a directory":
            path.mkdir()
        case "a socket":
            with socket.socket(socket.AF_UNIX) as listener, pytest.MonkeyPatch.context() as patch:
                patch.chdir(path.parent)  # the path of a socket must be short
                listener.bind("socket")
            (path.parent / "socket").rename(path)
        case "a device":
            if os.geteuid() != 0:
                pytest.skip("only root makes devices")
            os.mknod(path, 0o020666, os.makedev(1, 5))
        case target:
            path.symlink_to(target)


@pytest.mark.parametrize("what", ["manifest", "blob", "child"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        pytest.param("a FIFO", "a FIFO", id="fifo"),
        pytest.param("a directory", "a directory", id="directory"),
        pytest.param("a socket", "a socket", id="socket"),
        pytest.param("a device", "a device", id="device"),
        pytest.param("/etc/passwd", "a symbolic link", id="link to passwd"),
        pytest.param("/dev/zero", "a symbolic link", id="link to zero"),
        pytest.param("version", "a symbolic link", id="link to a neighbour"),
    ],
)
def test_only_regular_files_are_manifests_and_blobs(tmp_path: Path, what: str, kind: str, said: str) -> None:
    child = image("child")
    built = index(child)
    root = make_images(tmp_path / "images", {**GOOD, "bad": {"1": built}})
    file = {
        "manifest": "manifest.json",
        "blob": next(iter(built.blobs))[7:],
        "child": f"{child.digest[7:]}.manifest.json",
    }[what]
    become(root / "bad" / "1" / file, kind)
    assert f"is {said}, not a regular file" in only_reason(root)


def padded(size: int) -> Built:
    built = image()
    return Built(built.raw.ljust(size), built.media_type, built.files)


def test_a_manifest_may_have_four_mebibytes_and_no_more(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {**GOOD, "large": {"1": padded(MANIFEST_BYTES)}})
    assert len(scan(root).images) == 2
    write_image(root / "large" / "1", padded(MANIFEST_BYTES + 1))
    assert "has 4194305 bytes, more than 4194304" in only_reason(root)


def document(**fields: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": {"digest": "sha256:0", "size": 1}, **fields}).encode()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b"", "it is empty", id="empty"),
        pytest.param(b"\0" * 4096, "not JSON", id="zeros, as after a power cut"),
        pytest.param(bytes(range(128, 256)), "not JSON", id="noise"),
        pytest.param(b'{"a":' * 100_000, "nested too deeply", id="deep objects"),
        pytest.param(b"[" * 100_000, "no manifest", id="deep lists"),
        pytest.param(b"\xef\xbb\xbf" + image().raw, "which must go", id="byte order mark"),
        pytest.param(image().raw.decode().encode("utf-16"), "it is UTF-16", id="UTF-16"),
        pytest.param(b'{"schemaVersion": NaN}', "not JSON", id="NaN"),
        pytest.param(document(config={"digest": f"sha256:{'0' * 64}", "size": -1}), "-1", id="negative size"),
        pytest.param(
            document(config={"digest": "sha256:../../etc/passwd", "size": 1}),
            "etc/passwd",
            id="digest as a path",
        ),
        pytest.param(
            document(config={"digest": f"sha256:{'0' * 64}\n", "size": 1}),
            "refers to",
            id="digest and newline",
        ),
        pytest.param(document(mediaType="text/html\n\x1b[2J"), "not served", id="terminal escape as type"),
        pytest.param(document(mediaType=OCI_INDEX), "no manifests", id="index of layers"),
        pytest.param(document(layers=[], manifests=[]), "both", id="layers and manifests"),
        pytest.param(b'{"schemaVersion": 1, "fsLayers": []}', "schema 1", id="schema 1"),
        pytest.param(b'{"schemaVersion": 2}', "no config", id="nothing in it"),
    ],
)
def test_a_strange_manifest_is_a_problem_of_its_own(tmp_path: Path, raw: bytes, reason: str) -> None:
    root = make_images(tmp_path / "images", {**GOOD, "bad": {"1": image()}})
    (root / "bad" / "1" / "manifest.json").write_bytes(raw)
    assert reason in only_reason(root)


STRANGE = [
    pytest.param(b"new\nline", id="newline"),
    pytest.param(b"trailing\n", id="trailing newline"),
    pytest.param(b"\xff\xfe", id="not UTF-8"),
    pytest.param("\N{ARABIC-INDIC DIGIT THREE}".encode(), id="arabic digit"),
    pytest.param("\N{FULLWIDTH LATIN SMALL LETTER A}".encode(), id="full width letter"),
    pytest.param(b"it's", id="single quote"),
    pytest.param(b'"quoted"', id="double quotes"),
    pytest.param(b"$(reboot)", id="dollar"),
    pytest.param(b"`reboot`", id="backquote"),
    pytest.param(b"back\\slash", id="backslash"),
    pytest.param(b"it's\\\n$x", id="all of them"),
    pytest.param(b"\x1b[2J", id="terminal escape"),
    pytest.param(b"-rf", id="option"),
    pytest.param(b"semi;colon {", id="nginx"),
    pytest.param(b"x" * 200 + b"+", id="long"),
]


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("place", ["{}/1", "a/{}/1", "a/{}", "{}:1", "a:{}", "a@{}"])
def test_a_strange_name_is_shown_and_can_be_mended_as_told(tmp_path: Path, name: bytes, place: str) -> None:
    root = make_images(tmp_path / "images", GOOD)
    strange = place.format(os.fsdecode(name))
    write_image(root / strange, image())
    assert "is not a reference" in only_reason(root)
    (problem,) = scan(root).problems
    before = scan(root).images
    run(problem.remedy)
    assert not (root / strange).exists()
    assert scan(root).problems == ()
    assert len(scan(root).images) == len(before) + 1, "it is an image now, and no other has gone"
    assert set(before) < set(scan(root).images)


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_name_behind_a_link_stays_printable(tmp_path: Path, name: bytes) -> None:
    """The name of the target appears in the Problem of somebody else."""
    root = make_images(tmp_path / "images", {**GOOD, ".": {"a:1": image("other")}})
    write_image(root / os.fsdecode(name) / "1", image())
    (root / "a").mkdir()
    (root / "a" / "1").symlink_to(Path("..", os.fsdecode(name), "1"))
    (root / "a" / "2").symlink_to(tmp_path / "outside")
    write_image(tmp_path / os.fsdecode(name), image())
    (tmp_path / "outside").symlink_to(os.fsdecode(name))
    reasons = {os.path.basename(problem.path): problem.reason for problem in scan(root).problems}
    assert "is there twice" in reasons["a:1"]
    assert "out of the images directory" in reasons["2"]


def test_a_file_of_a_strange_name_in_a_tag_is_nobodys_concern(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", GOOD)
    for name in (b"\xff", b"new\nline", b"x" * 255):
        (root / "neighbour" / "1" / os.fsdecode(name)).touch()
    assert scan(root).problems == ()


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", GOOD)
    (root / "neighbour" / "1" / "up").symlink_to("..")
    (root / "neighbour" / "1" / "self").symlink_to(".")
    (root / "neighbour" / "2").symlink_to("1/self/self/self")
    assert {(each.repository, each.tag) for each in scan(root).images} == {
        ("neighbour", "1"),
        ("neighbour", "2"),
        ("neighbour/1", "self"),
    }


@pytest.mark.parametrize(("where", "call"), [("a", 1), ("a/1", 2)])
def test_a_directory_that_becomes_a_link_under_way_is_not_followed(
    tmp_path: Path, where: str, call: int
) -> None:
    """The scanner tells of its progress when it has seen a directory, and before it opens it."""
    root = make_images(tmp_path / "images", {"a": {"1": image("public")}})
    secret = make_images(tmp_path / "secret", {"a": {"1": image("secret")}})
    calls: list[None] = []

    def exchange() -> None:
        calls.append(None)
        if len(calls) == call:
            shutil.rmtree(root / where)
            (root / where).symlink_to(secret / where)

    assert Scanner(root, reader=ANYBODY, progress=exchange).full().images == ()
    assert (root / where).is_symlink()


def test_a_directory_that_goes_away_under_way_is_no_problem(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"a": {"1": image()}})
    scanner = Scanner(root, reader=ANYBODY, progress=lambda: shutil.rmtree(root / "a", ignore_errors=True))
    assert scanner.full() == nothing(root)
