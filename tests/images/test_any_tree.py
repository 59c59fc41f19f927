"""Whatever lies in the tree: a scan never raises, and says nothing but what is so."""

import json
import os
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scr_watchd.files import ANYBODY
from scr_watchd.images.scan import Scanner
from scr_watchd.images.tree import Tree
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from tests.fuzzing import ends_within, modest
from tests.trees import Built, descriptor, image, index, make_images, without, write_image, write_layout

ONE_LINE = re.compile(r"[ -~]+")


class Link(bytes):
    """The text of a symbolic link."""


class LayoutOf(tuple[tuple[str | None, Built], ...]):
    """An OCI layout: what its images are called, and they."""


Node = Built | LayoutOf | Link | bytes | Mapping[bytes, Any]

names = st.one_of(
    st.sampled_from(
        [
            b"a",
            b"b",
            b"1",
            b"a:1",
            b"B",
            b"manifest.json",
            b"x@sha256:0",
            b".new",
            b"x.tar",
            b"oci-layout",
            b"index.json",
            b"blobs",
            b"sha256",
        ]
    ),
    st.binary(min_size=1, max_size=20).map(lambda raw: raw.replace(b"\0", b"0").replace(b"/", b":")),
).filter(lambda name: name not in {b".", b".."})
BOTH = index(image("1"), image("2"))
SIGNED = image("3", subject=descriptor(image("1").raw, image("1").media_type))
images = st.sampled_from([image("1"), image("2"), BOTH, without(BOTH, image("2")), SIGNED])
full = ["localhost:5000/app:3", "docker.io/a:1", "index.docker.io/a:1", f"a/b@{image('1').digest}", "X/y:1+2"]
called = st.none() | st.sampled_from(["1", "2", "a/b", *full]) | st.text(max_size=5)
layouts = st.lists(st.tuples(called, images), max_size=3).map(LayoutOf)
links = st.one_of(st.sampled_from([b".", b"..", b"../a", b"a/1", b"/", b"/etc/passwd", b"a:1"]), names).map(
    Link
)
trees: st.SearchStrategy[Node] = st.recursive(
    st.one_of(images, layouts, links, st.binary(max_size=20)),
    lambda below: st.dictionaries(names, below, max_size=4),
    max_leaves=12,
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values, max_size=3),
    max_leaves=6,
)


bombs = st.builds(
    lambda opening, count, tail: opening * count + tail,
    st.sampled_from([b"[", b'{"layers":[', b'{"config":', b'{"":', b"0", b"-", b'{"schemaVersion":']),
    st.integers(1, 200_000),
    st.sampled_from([b"", b"1e999", b"}"]),
).map(lambda bomb: bomb[:1_000_000])


def plant(path: bytes, node: Node) -> None:
    match node:
        case Built():
            write_image(Path(os.fsdecode(path)), node)
        case LayoutOf():
            write_layout(Path(os.fsdecode(path)), *node)
        case Link():
            os.symlink(node, path)
        case bytes():
            Path(os.fsdecode(path)).write_bytes(node)
        case _:
            os.makedirs(path, exist_ok=True)
            for name, below in node.items():
                plant(path + b"/" + name, below)


def check(root: Path) -> Tree:
    """Tree ``root``, and hold every word of the result against the tree."""
    scanner = Scanner(root, reader=ANYBODY)
    with ends_within(20):
        found = scanner.full()
    for each in found.images:
        assert RepositoryName.parse(each.repository) == each.repository
        assert each.tag is None or Tag.parse(each.tag) == each.tag
        directory = root / each.path
        assert directory.resolve() == Path(os.path.realpath(root), each.path)
        for manifest in each.manifests:
            content = (root / each.directory("sha256") / manifest.file).read_bytes()
            assert manifest.digest == f"sha256:{sha256(content).hexdigest()}"
            assert manifest.size == len(content)
        for blob in each.blobs:
            assert (
                root / each.directory("sha256") / Digest.parse(blob.digest).hex
            ).lstat().st_size == blob.size
    for problem in found.problems:
        for text in (problem.path, problem.reason, problem.remedy):
            assert ONE_LINE.fullmatch(text)
    assert len({(each.repository, each.tag or each.digest) for each in found.images}) == len(found.images)
    for again in (scanner.light(), scanner.full()):
        assert again == found
    return found


@modest
@given(st.dictionaries(names, trees, max_size=4))
def test_any_tree_is_scanned(content: Mapping[bytes, Node]) -> None:
    with TemporaryDirectory() as top:
        plant(os.fsencode(top), content)
        check(Path(top))


@modest
@given(
    names.filter(lambda name: name != b"manifest.json" and not name.startswith((b".", b"dir-put-blob"))),
    st.sampled_from(["{}/1", "a/{}", "{}"]),
)
def test_an_image_of_any_name_is_served_or_a_problem(name: bytes, place: str) -> None:
    with TemporaryDirectory() as top:
        write_image(Path(top, place.format(os.fsdecode(name))), image())
        found = check(Path(top))
        assert len(found.images) + len(found.problems) == 1


@modest
@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()) | bombs)
def test_any_bytes_as_a_manifest_are_a_problem_beside_an_image(raw: bytes) -> None:
    with TemporaryDirectory() as top:
        root = make_images(Path(top), {"a": {"1": image("1"), "2": image("2")}})
        (root / "a" / "1" / "manifest.json").write_bytes(raw)
        found = check(root)
        assert [each.path for each in found.images] == ["a/2"]
        assert found.unfinished == {("a", "1")}
        assert len(found.problems) == 1


@modest
@given(st.data())
def test_an_index_of_a_layout_with_any_value_exchanged_is_no_harm(data: st.DataObject) -> None:
    with TemporaryDirectory() as top:
        layout = write_layout(Path(top) / "app", ("1", image("1")), ("2", image("2")))
        document = json.loads((layout / "index.json").read_bytes())
        exchange(document, data)
        (layout / "index.json").write_text(json.dumps(document))
        write_image(Path(top) / "good:1", image("1"))
        found = check(Path(top))
        assert "good" in {each.repository for each in found.images}


@modest
@given(st.data())
def test_a_manifest_with_any_value_exchanged_is_whole_or_a_problem(data: st.DataObject) -> None:
    built = data.draw(images)
    document = json.loads(built.raw)
    exchange(document, data)
    with TemporaryDirectory() as top:
        changed = Built(json.dumps(document).encode(), built.media_type, built.files)
        found = check(make_images(Path(top), {"a": {"1": changed}}))
        assert len(found.images) + len(found.problems) == 1


def exchange(document: Any, data: st.DataObject) -> None:
    """Put any value in the place of one of ``document``'s."""
    target = document
    while isinstance(target, dict | list) and target:
        keys = list(target) if isinstance(target, dict) else range(len(target))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(target[key], dict | list) or data.draw(st.booleans()):
            target[key] = data.draw(json_values | st.sampled_from([image().digest, -1, 0, 2, 10**30]))
            break
        target = target[key]
