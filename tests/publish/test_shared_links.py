"""A link of the store may lead to a file that several tags, or several repositories, are served from."""

import threading
from pathlib import Path

import pytest

from scr_watchd.oci.names import Digest, RepositoryName
from scr_watchd.publish.hashing import Hasher, Job, identity
from tests.publish.test_store_mends import ONE, Tree
from tests.trees import Built, image, write_image
from tests.waiting import until


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "images").mkdir()
    return Tree(tmp_path / "images", tmp_path / "store")


def overwrite(file: Path, content: bytes) -> None:
    with file.open("r+b") as stream:
        stream.truncate()
        stream.write(content)


def a_blob(built: Built) -> tuple[str, bytes]:
    return max(built.blobs.items())


def test_a_blob_that_is_cut_off_in_one_tag_is_served_whole_for_another(tree: Tree) -> None:
    """The link leads to the file of the tag that came first."""
    built = image("one")
    digest, content = a_blob(built)
    write_image(tree.root / "app:1", built)
    tree.take()
    write_image(tree.root / "app:2", built)
    tree.take()
    first = tree.root / "app:1" / digest[7:]
    assert tree.blob(digest).samefile(first)
    overwrite(first, content[:-1])
    assert [each.tag for each in tree.take().images] == ["2"]
    assert tree.serves(built)
    assert tree.blob(digest).samefile(tree.root / "app:2" / digest[7:])


def test_bytes_that_a_removed_tag_leaves_are_not_kept_twice(tree: Tree) -> None:
    built = image("one")
    digest, _ = a_blob(built)
    for tag in ("1", "2"):
        write_image(tree.root / f"app:{tag}", built)
        tree.take()
    (tree.root / "app:1").rename(tree.root.parent / "away")
    for path in sorted((tree.root.parent / "away").iterdir()):
        path.unlink()
    tree.take()
    assert tree.blob(digest).samefile(tree.root / "app:2" / digest[7:])
    assert tree.serves(built)


def test_a_file_that_rots_after_it_was_renamed_is_served_for_nobody(tree: Tree) -> None:
    """The repository that it came from may have it for a while yet, by a link to the same file."""
    built = image("one")
    digest, content = a_blob(built)
    write_image(tree.root / "old:1", built)
    tree.take()
    (tree.root / "old:1").rename(tree.root / "new:1")
    tree.take()
    assert tree.serves(built, "old")
    assert tree.serves(built, "new")
    overwrite(tree.root / "new:1" / digest[7:], content[:-1] + bytes([content[-1] ^ 1]))
    taken = tree.take()
    assert taken.images == ()
    (problem,) = taken.problems
    assert "new:1" in problem.path
    assert not tree.blob(digest, "new").exists()
    assert not tree.blob(digest, "old").exists()
    assert tree.store.image(RepositoryName("old"), ONE, Digest(built.digest)) is None


def test_the_thread_that_hashes_ends_when_there_is_nothing_to_do(tree: Tree) -> None:
    """Else each reading of the settings, which makes everything anew, would leave one behind."""
    built = image("one")
    directory = write_image(tree.root / "app:1", built)
    before = set(threading.enumerate())
    digest, _ = a_blob(built)
    status = (directory / digest[7:]).stat()
    for _ in range(3):
        hasher = Hasher(tree.root, lambda: None)
        job = Job("app:1", digest[7:], identity(status), Digest(digest))
        for number in range(2):
            hasher.submit(job, owner=("app", str(number)), urgent=False)
            until(lambda: hasher.has_news, seconds=20)  # noqa: B023 - called at once
            assert hasher.news() == {("app", str(number))}
        assert hasher.result(job.identity, job.digest)
    until(lambda: set(threading.enumerate()) <= before)
