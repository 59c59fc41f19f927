"""The store mends itself: what was copied again, rotted, was lost, or was linked by others."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from scr_watchd.files import ANYBODY, NotOursError, open_directory
from scr_watchd.images.scan import Scanner
from scr_watchd.oci.catalog import Image
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.publish.hashing import Hasher
from scr_watchd.publish.place import StorePlace
from scr_watchd.publish.proof import Unseen
from tests.nginxes import require
from tests.stores import Stored, Taken
from tests.trees import OCI_MANIFEST, Built, descriptor, digest_of, image, index, make_images, write_image
from tests.waiting import until

ONE = Tag("1")
LARGE = 65 * 1024 * 1024  # more than what is hashed at once


class Tree:
    """An images tree, its store, and one who looks and takes, like a pass of the daemon."""

    def __init__(
        self,
        root: Path,
        store: Path,
        *,
        symbolic: bool = False,
        verify: bool = True,
        trusting: bool = False,
    ) -> None:
        self.root = root
        self.path = store
        obstacle = "the test says so" if symbolic else ""
        place = StorePlace(store, str(store), str(root), obstacle)
        hasher = Hasher(root, lambda: None) if verify else None
        self.store = Stored(place, root, hasher=hasher, trusting=trusting)
        self.scanner = Scanner(root, reader=ANYBODY)

    def take(self) -> Taken:
        return self.store.take(self.scanner.full())

    def take_until_done(self) -> Taken:
        """Take until no image waits for its hashes."""
        taken = self.take()
        while taken.waiting:
            taken = self.hear()
        return taken

    def hear(self) -> Taken:
        """Wait for news of hashes, and take."""
        until(lambda: self.store.has_news, seconds=20)
        return self.take()

    def blob(self, digest: str, name: str = "app") -> Path:
        return self.path / name / ".blobs" / "sha256" / digest[7:]

    def manifest(self, digest: str, name: str = "app") -> Path:
        found = (self.path / name / ".manifests").glob(f"*/{digest[7:]}")
        return next(found, self.path / "nowhere")

    def serves(self, built: Built, name: str = "app") -> bool:
        """Whether nginx would find every byte of ``built``."""
        return all(
            self.blob(digest, name).is_file() and self.blob(digest, name).read_bytes() == content
            for digest, content in built.blobs.items()
        ) and all(
            self.manifest(digest, name).is_file() and self.manifest(digest, name).read_bytes() == raw
            for digest, raw in built.manifests.items()
        )

    def stored(self, built: Built, name: str = "app") -> Image | None:
        return self.store.image(RepositoryName(name), ONE, Digest(built.digest))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_images(tmp_path / "images", {"app": {"1": image("one")}})


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Tree:
    return Tree(root, tmp_path / "store")


def test_a_symbolic_link_is_not_followed_through_a_directory_that_is_a_link_by_now(
    root: Path, tmp_path: Path
) -> None:
    tree = Tree(root, tmp_path / "store", symbolic=True)
    tree.take_until_done()
    assert tree.stored(image("one")) is not None
    (root / "app").rename(tmp_path / "private")
    (root / "app").symlink_to(tmp_path / "private")
    assert tree.stored(image("one")) is None


def test_what_cannot_be_doubted_by_a_link_is_not_proven(root: Path, tmp_path: Path) -> None:
    """A file on another mount refuses one, like another owner's where that is forbidden."""
    tree = Tree(root, tmp_path / "store")
    tree.take_until_done()
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file, open_directory("/dev/shm") as directory:
        status = os.stat(file.fileno())
        unseen = Unseen(directory, os.path.basename(file.name), status)
        tree.store.store.prover.end(began=time.time() + 3600, unseen=[unseen])
    assert (tmp_path / "store" / ".proven").stat().st_mtime < status.st_ctime


def disk_usage(*paths: Path) -> int:
    """Like du --apparent-size: every file counts once, however many links it has."""
    sizes = {}
    for path in paths:
        for each in path.rglob("*"):
            status = each.lstat()
            if not each.is_dir():
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def recopy(directory: Path, built: Built) -> None:
    """Like skopeo: everything is removed, then written again."""
    for path in directory.iterdir():
        path.unlink()
    write(directory, built)


def large(seed: str = "large", *, layers: int = 1) -> Built:
    """An image whose hashes must be waited for."""
    config = json.dumps({"seed": seed}).encode()
    contents = [config, *(f"{seed} {number}".encode().ljust(LARGE, b"\0") for number in range(layers))]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(content, "application/vnd.oci.image.layer.v1.tar") for content in contents[1:]],
    }
    files = {digest_of(content)[7:]: content for content in contents}
    return Built(json.dumps(document).encode(), OCI_MANIFEST, files)


def write(directory: Path, built: Built) -> Path:
    """Write an image; the zeros at the end of a large file take no disk."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "version").write_text("Directory Transport Version: 1.1\n")
    for name, content in built.files.items():
        with (directory / name).open("wb") as file:
            file.write(content.rstrip(b"\0"))
            file.truncate(len(content))
    (directory / "manifest.json").write_bytes(built.raw)
    return directory


def rot(path: Path) -> Path:
    """Change the first byte in place: the inode and the size stay."""
    with path.open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    return path


def a_blob(built: Built) -> str:
    """The digest of the largest blob."""
    return max(built.blobs, key=lambda digest: len(built.blobs[digest]))


def reasons(taken: Taken) -> list[tuple[str, str]]:
    return [(problem.path, problem.reason) for problem in taken.problems]


def rotten(directory: Path, digest: str) -> tuple[str, str]:
    return (str(directory), f"the bytes of {directory / digest[7:]} are not those that its name says")


def names(taken: Taken) -> list[str]:
    return sorted(f"{each.repository}:{each.tag}" for each in taken.images)


# -- copied again ------------------------------------------------------------------------------------


def test_a_tag_that_was_copied_again_unchanged_costs_no_disk(tree: Tree) -> None:
    tree.take()
    before = disk_usage(tree.root, tree.path)
    for _ in range(3):
        recopy(tree.root / "app" / "1", image("one"))
        assert disk_usage(tree.root, tree.path) > before
        taken = tree.take()
        assert (len(taken.images), taken.problems) == (1, ())
        assert disk_usage(tree.root, tree.path) == before
        for digest in image("one").blobs:
            assert tree.blob(digest).samefile(tree.root / "app" / "1" / digest[7:])
    assert list(tree.path.rglob(".*.new")) == []


def test_a_large_one_is_relinked_once_its_bytes_are_known(tree: Tree) -> None:
    built = large()
    directory = write(tree.root / "big" / "1", built)
    assert tree.take().waiting == 1
    taken = tree.take_until_done()
    assert (names(taken), taken.problems) == (["app:1", "big:1"], ())
    before = disk_usage(tree.root, tree.path)
    recopy(directory, built)
    taken = tree.take()
    assert (len(taken.images), taken.waiting) == (2, 0), "the old bytes do as well meanwhile"
    assert not tree.blob(a_blob(built), "big").samefile(directory / a_blob(built)[7:])
    until(lambda: tree.hear() and tree.blob(a_blob(built), "big").samefile(directory / a_blob(built)[7:]))
    assert disk_usage(tree.root, tree.path) == before


def test_repositories_that_share_files_cost_no_disk_either(tree: Tree) -> None:
    """`hardlink -c` has made one file of two, and of both links of the store."""
    write(tree.root / "other" / "1", image("one"))
    link_equal_files(tree.root)
    tree.take()
    before = disk_usage(tree.root, tree.path)
    for _ in range(2):
        for name in ("app", "other"):
            recopy(tree.root / name / "1", image("one"))
        tree.take()
        link_equal_files(tree.root)
        tree.take()
        assert disk_usage(tree.root, tree.path) == before


def test_tags_with_files_of_their_own_cost_what_these_cost(tree: Tree) -> None:
    write(tree.root / "app" / "2", image("one"))
    tree.take()
    before = disk_usage(tree.root, tree.path)
    for tag in ("1", "2", "1"):
        recopy(tree.root / "app" / tag, image("one"))
        assert tree.take().problems == ()
        assert disk_usage(tree.root, tree.path) == before
    assert tree.serves(image("one"))


def test_a_rotten_copy_keeps_the_good_old_bytes(tree: Tree) -> None:
    tree.take()
    built = image("one")
    recopy(tree.root / "app" / "1", built)
    rot(tree.root / "app" / "1" / a_blob(built)[7:])
    for _ in range(2):
        taken = tree.take()
        assert (taken.images, reasons(taken)) == ((), [rotten(tree.root / "app" / "1", a_blob(built))])
        assert tree.serves(built)
        assert tree.stored(built)
    recopy(tree.root / "app" / "1", built)
    assert tree.take().problems == ()


def test_a_rotten_copy_is_a_problem_although_another_tag_has_the_same_bytes(tree: Tree) -> None:
    built = image("one")
    shutil.copytree(tree.root / "app" / "1", tree.root / "app" / "2", copy_function=os.link)
    tree.take()
    recopy(tree.root / "app" / "2", built)
    rot(tree.root / "app" / "2" / a_blob(built)[7:])
    for _ in range(2):
        taken = tree.take()
        assert names(taken) == ["app:1"]
        assert reasons(taken) == [rotten(tree.root / "app" / "2", a_blob(built))]
        assert tree.serves(built)


# -- rotten ------------------------------------------------------------------------------------------


def test_a_blob_with_wrong_bytes_is_never_linked_and_its_file_is_named(tree: Tree) -> None:
    built = image("new")
    directory = write(tree.root / "new" / "1", built)
    rot(directory / a_blob(built)[7:])
    taken = tree.take()
    assert names(taken) == ["app:1"], "it hides nothing beside it"
    assert reasons(taken) == [rotten(directory, a_blob(built))]
    assert taken.problems[0].remedy == f"Copy it again: skopeo copy docker://SOURCE dir:{directory}"
    assert not os.path.lexists(tree.blob(a_blob(built), "new"))


def test_a_large_blob_with_wrong_bytes_is_never_linked_either(tree: Tree) -> None:
    built = large()
    directory = write(tree.root / "new" / "1", built)
    rot(directory / a_blob(built)[7:])
    taken = tree.take_until_done()
    assert (names(taken), reasons(taken)) == (["app:1"], [rotten(directory, a_blob(built))])
    assert not os.path.lexists(tree.blob(a_blob(built), "new"))


@pytest.mark.parametrize("links", ["hard", "symbolic"])
def test_what_rots_in_place_is_served_no_more(root: Path, tmp_path: Path, links: str) -> None:
    tree = Tree(root, tmp_path / "store", symbolic=links == "symbolic")
    built = image("one")
    tree.take()
    rot(root / "app" / "1" / a_blob(built)[7:])
    for _ in range(2):
        taken = tree.take()
        assert (taken.images, reasons(taken)) == ((), [rotten(root / "app" / "1", a_blob(built))])
        assert not os.path.lexists(tree.blob(a_blob(built)))
        assert tree.stored(built) is None, "nor is it pinned"
    recopy(root / "app" / "1", built)
    assert tree.take().problems == ()
    assert tree.serves(built)


@pytest.mark.parametrize("links", ["hard", "symbolic"])
def test_what_is_large_and_rots_in_place_is_served_no_more(root: Path, tmp_path: Path, links: str) -> None:
    tree = Tree(root, tmp_path / "store", symbolic=links == "symbolic")
    built = large()
    directory = write(root / "app" / "1", built)
    tree.take_until_done()
    rot(directory / a_blob(built)[7:])
    tree.take()
    taken = until(tree.hear, lambda taken: taken.problems)
    assert (taken.images, reasons(taken)) == ((), [rotten(directory, a_blob(built))])
    assert not os.path.lexists(tree.blob(a_blob(built)))


@pytest.mark.parametrize("links", ["hard", "symbolic"])
@pytest.mark.parametrize("victim", ["1", "2"])
def test_a_tag_with_good_bytes_of_its_own_outlives_the_rot_of_another(
    root: Path, tmp_path: Path, links: str, victim: str
) -> None:
    """The store has one link for both, and it may lead to the file that rots."""
    tree = Tree(root, tmp_path / "store", symbolic=links == "symbolic")
    built = image("one")
    write(root / "app" / "2", built)
    tree.take()
    rot(root / "app" / victim / a_blob(built)[7:])
    for _ in range(2):
        taken = tree.take()
        assert names(taken) == ["app:1" if victim == "2" else "app:2"]
        assert reasons(taken) == [rotten(root / "app" / victim, a_blob(built))]
        assert tree.serves(built)


def test_a_file_that_rots_is_rotten_in_every_repository_that_has_it(tree: Tree) -> None:
    shutil.copytree(tree.root / "app", tree.root / "other", copy_function=os.link)
    tree.take()
    rot(tree.root / "app" / "1" / a_blob(image("one"))[7:])
    taken = tree.take()
    assert (taken.images, len(taken.problems)) == ((), 2)


def test_one_file_under_two_names_has_only_one_of_the_digests(tree: Tree) -> None:
    built, other = large("good"), large("evil")
    directory = write(tree.root / "app" / "1", built)
    lying = write(tree.root / "app" / "2", other)
    (lying / a_blob(other)[7:]).unlink()
    os.link(directory / a_blob(built)[7:], lying / a_blob(other)[7:])
    taken = tree.take_until_done()
    assert (names(taken), reasons(taken)) == (["app:1"], [rotten(lying, a_blob(other))])


def test_on_a_first_start_all_is_published_at_once_and_rot_is_reported_later(
    root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root / "app", root / "other", copy_function=os.link)
    write(root / "good" / "1", image("good"))
    tree = Tree(root, tmp_path / "store", trusting=True)
    built = image("one")
    rot(root / "app" / "1" / a_blob(built)[7:])
    assert names(tree.take()) == ["app:1", "good:1", "other:1"]
    tree.store.hash_the_rest()
    taken = until(tree.hear, lambda taken: len(taken.problems) == 2)
    assert names(taken) == ["good:1"]
    assert not os.path.lexists(tree.blob(a_blob(built)))
    assert not os.path.lexists(tree.blob(a_blob(built), "other"))
    write(root / "new" / "1", built)
    rot(root / "new" / "1" / a_blob(built)[7:])
    assert names(tree.take()) == ["good:1"], "from then on nothing is trusted"


def test_without_verification_bytes_are_not_read(root: Path, tmp_path: Path) -> None:
    rot(root / "app" / "1" / a_blob(image("one"))[7:])
    tree = Tree(root, tmp_path / "store", verify=False)
    taken = tree.take()
    assert (names(taken), taken.problems) == (["app:1"], ())
    before = disk_usage(tree.root, tree.path)
    recopy(root / "app" / "1", image("one"))
    tree.take()
    assert disk_usage(tree.root, tree.path) == before


def test_many_repositories_with_one_large_file_wait_for_it_once(tree: Tree) -> None:
    built = large()
    write(tree.root / "r0" / "1", built)
    for number in range(1, 4):
        shutil.copytree(tree.root / "r0", tree.root / f"r{number}", copy_function=os.link)
    assert tree.take().waiting == 4
    heard = 0
    while (taken := tree.hear()).waiting:
        heard += 1
    assert len(taken.images) == 5
    assert heard <= 1, "the configuration and the layer are read once each"


# -- lost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", ["hard", "symbolic"])
@pytest.mark.parametrize(
    "lose",
    [
        pytest.param("app/.blobs/sha256/*", id="links"),
        pytest.param("app/.blobs/sha256", id="the directory of links"),
        pytest.param("app", id="a repository"),
        pytest.param("app/.manifests/1/*", id="copies"),
        pytest.param("app/.manifests/1", id="the directory of copies"),
        pytest.param("app/.manifests", id="the manifests"),
        pytest.param("", id="the store"),
    ],
)
def test_what_the_store_lost_is_there_again(root: Path, tmp_path: Path, lose: str, links: str) -> None:
    write(root / "app" / "deep" / "1", image("deep"))
    tree = Tree(root, tmp_path / "store", symbolic=links == "symbolic")
    tree.take()
    lost = min(tree.path.glob(lose)) if lose else tree.path
    if lost.is_dir():
        shutil.rmtree(lost)
    else:
        lost.unlink()
    taken = tree.take()
    assert (names(taken), taken.problems) == (["app/deep:1", "app:1"], ())
    assert tree.store.is_there
    assert tree.serves(image("one"))
    assert tree.serves(image("deep"), "app/deep")


def test_a_link_that_others_exchanged_leads_to_the_tree_again(tree: Tree) -> None:
    tree.take()
    built = image("one")
    blob = tree.blob(a_blob(built))
    blob.with_name("x").write_bytes(bytes(len(built.blobs[a_blob(built)])))
    blob.with_name("x").rename(blob)
    tree.take()
    assert tree.serves(built)


def test_a_manifest_that_others_wrote_to_is_not_what_is_stored(tree: Tree) -> None:
    """After `hardlink -c` a copy may be one file with the tree's, which `cp` writes to."""
    tree.take()
    built = image("one")
    copy = tree.manifest(built.digest)
    copy.unlink()
    os.link(tree.root / "app" / "1" / "manifest.json", copy)
    (tree.root / "app" / "1" / "manifest.json").write_bytes(built.raw + b"\n")
    assert tree.stored(built) is None


# -- of version 0.1, which kept the manifests of all repositories in one directory --------------------


def as_0_1_left_it(tree: Tree) -> Path:
    """Move every copy to where that version had it."""
    former = tree.path / ".manifests" / "sha256"
    former.mkdir(parents=True)
    for copy in tree.path.rglob("*/.manifests/?/*"):
        copy.rename(former / copy.name)
    for directory in (*tree.path.rglob("*/.manifests/?"), *tree.path.glob("*/.manifests")):
        directory.rmdir()
    return former


def test_what_0_1_published_and_the_tree_lost_stays(tree: Tree) -> None:
    built = index(image("a"), image("b"))
    write(tree.root / "app" / "2", built)
    tree.take()
    former = as_0_1_left_it(tree)
    again = Tree(tree.root, tree.path)
    (tree.root / "app" / "2" / "manifest.json").unlink()
    stays = again.store.image(RepositoryName("app"), Tag("2"), Digest(built.digest))
    assert stays
    taken = again.take()
    again.store.prune((*taken.images, stays))
    assert former.exists(), "nginx may still read what 0.1 told it"
    again.store.prune_former()
    assert not former.parent.exists()
    assert again.serves(built)
    assert again.serves(image("one"))


# -- linked by others --------------------------------------------------------------------------------


def link_equal_files(*paths: Path) -> None:
    result = subprocess.run(
        [require("hardlink"), "-c", *map(str, paths)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_hardlink_over_the_tree_and_a_store_inside_it_changes_nothing(root: Path) -> None:
    write(root / "other" / "1", index(image("one"), image("two")))
    write(root / "app" / "2", image("one"))
    tree = Tree(root, root / ".scr-watchd" / "store")
    tree.take()
    tree.store.prune(tree.take().images)
    copies = {path: path.stat().st_mtime for path in tree.path.rglob(".manifests/*/*")}
    assert len(copies) == 1 + 3
    for _ in range(2):
        link_equal_files(root)
        taken = tree.take()
        tree.store.prune(taken.images)
        assert (names(taken), taken.problems) == (["app:1", "app:2", "other:1"], ())
        for path, moment in copies.items():
            status = path.stat()
            assert (status.st_nlink, status.st_mtime) == (1, moment), "a copy, with the time of its ETag"
        assert tree.serves(image("one"))
        assert tree.serves(index(image("one"), image("two")), "other")
        recopy(root / "app" / "2", image("one"))
        assert tree.take().problems == ()


def test_symbolic_links_of_a_former_run_become_hard_ones_and_serve_until_then(
    root: Path, tmp_path: Path
) -> None:
    built, big = image("one"), large()
    write(root / "big" / "1", big)
    Tree(root, tmp_path / "store", symbolic=True).take_until_done()
    assert all(path.is_symlink() for path in (tmp_path / "store").rglob(".blobs/sha256/*"))
    tree = Tree(root, tmp_path / "store")
    assert tree.stored(built), "what is served can be pinned"
    taken = tree.take()
    assert (names(taken), taken.waiting) == (["app:1", "big:1"], 0)
    for name, each in (("app", built), ("big", big)):
        for digest in each.blobs:
            assert not tree.blob(digest, name).is_symlink()
        assert tree.serves(each, name)


def test_hard_links_of_a_former_run_serve_where_none_can_be_made(root: Path, tmp_path: Path) -> None:
    Tree(root, tmp_path / "store").take()
    tree = Tree(root, tmp_path / "store", symbolic=True)
    assert tree.take().problems == ()
    assert tree.serves(image("one"))


def test_hard_links_of_a_tree_that_was_moved_to_another_disk_give_their_bytes_back(
    root: Path, tmp_path: Path
) -> None:
    Tree(root, tmp_path / "store").take()
    moved = shutil.copytree(root, tmp_path / "moved")
    tree = Tree(moved, tmp_path / "store", symbolic=True)
    assert tree.take_until_done().problems == ()
    assert tree.serves(image("one"))
    shutil.rmtree(root)
    assert tree.serves(image("one"))
    assert tree.blob(a_blob(image("one"))).is_symlink(), "nothing holds what was removed"


# -- where no hard link can be made ------------------------------------------------------------------


def test_links_onto_another_mount_are_symbolic(root: Path) -> None:
    elsewhere = Path("/dev/shm")
    if elsewhere.stat().st_dev == root.stat().st_dev:
        pytest.skip("/dev/shm is no mount of its own here")
    path = elsewhere / f"scr-watchd-test-{os.getpid()}"
    try:
        tree = Tree(root, path)  # it believes in hard links, until one fails
        taken = tree.take()
        assert (names(taken), taken.problems) == (["app:1"], ())
        assert tree.serves(image("one"))
        assert tree.blob(a_blob(image("one"))).is_symlink()
        recopy(root / "app" / "1", image("one"))
        assert tree.take().problems == ()
        assert tree.serves(image("one"))
    finally:
        shutil.rmtree(path, ignore_errors=True)


def test_a_file_with_as_many_links_as_there_can_be_is_copied(tree: Tree, tmp_path: Path) -> None:
    digest = a_blob(image("one"))
    file = tree.root / "app" / "1" / digest[7:]
    full = tmp_path / "full"
    full.mkdir()
    try:
        for number in range(65_001):
            os.link(file, full / str(number))
    except OSError as error:
        assert error.errno == errno.EMLINK  # noqa: PT017 - it is a condition of the test
    else:
        pytest.skip("this file system allows any number of links")
    assert tree.take().waiting == 1
    assert names(tree.hear()) == ["app:1"]
    assert not tree.blob(digest).is_symlink()
    assert not tree.blob(digest).samefile(file)
    assert tree.serves(image("one"))
    assert tree.stored(image("one")), "what is served can be pinned"
    (full / "0").unlink()
    (full / "1").unlink()
    again = Tree(tree.root, tree.path)
    assert names(again.take()) == ["app:1"]
    assert again.blob(digest).samefile(file)


# -- what stays, and what goes -----------------------------------------------------------------------


def test_what_only_the_store_has_is_counted_once(tree: Tree) -> None:
    built = image("one")
    shutil.copytree(tree.root / "app" / "1", tree.root / "app" / "2", copy_function=os.link)
    images = tree.take().images
    assert tree.store.only_here(images) == 0
    shutil.rmtree(tree.root / "app" / "1")
    assert tree.store.only_here(images) == 0
    shutil.rmtree(tree.root / "app" / "2")
    assert tree.store.only_here(images) == sum(len(content) for content in built.blobs.values())
    assert tree.store.only_here([*images, *images]) == tree.store.only_here(images[:1])


def test_prune_keeps_what_images_that_are_leaving_need(tree: Tree) -> None:
    one, two = image("one"), image("two")
    tree.take()
    leaving = tree.stored(one)
    assert leaving
    recopy(tree.root / "app" / "1", two)
    taken = tree.take()
    tree.store.prune([*taken.images, leaving])
    assert tree.serves(one)
    assert tree.serves(two)
    tree.store.prune(taken.images)
    assert tree.stored(one) is None
    assert tree.serves(two)
    assert {path.name for path in tree.blob(a_blob(two)).parent.iterdir()} == {
        digest[7:] for digest in two.blobs
    }


def test_prune_keeps_what_an_image_has_already_that_waits_for_the_rest(tree: Tree) -> None:
    """Else two large layers would never be there together, if others are published meanwhile."""
    built = large(layers=2)
    directory = write(tree.root / "big" / "1", built)
    slow = list(built.blobs)[-1][7:]
    assert tree.take().waiting == 1
    until(lambda: _touch_and_take(tree, directory / slow) and len(_links(tree, "big")) == 2, seconds=20)
    taken = tree.take()
    assert taken.waiting == 1
    tree.store.prune(taken.images)
    assert len(_links(tree, "big")) == 2
    assert names(tree.take_until_done()) == ["app:1", "big:1"]


def _touch_and_take(tree: Tree, path: Path) -> Taken:
    os.utime(path)  # it changed, so that its hash is not known yet, whatever the thread has done
    return tree.take()


def _links(tree: Tree, name: str) -> list[Path]:
    return list((tree.path / name / ".blobs" / "sha256").iterdir())


def test_prune_touches_nothing_but_its_own(tree: Tree) -> None:
    """A store that was chosen by hand may have been a directory of something else."""
    foreign = [
        tree.path / "precious.txt",
        tree.path / "photos" / "1.jpg",
        tree.path / "app" / "notes",
        tree.path / ".manifests" / "notes",
        tree.path / ".blobs" / "directory" / "file",
    ]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    empty = tree.path / "empty" / "directory"
    empty.mkdir(parents=True)
    write(tree.root / "gone" / "deep" / "1", image("gone"))
    tree.take()
    shutil.rmtree(tree.root / "gone")
    tree.store.prune(tree.take().images)
    assert [path for path in foreign if not path.exists()] == []
    assert empty.is_dir()
    assert not (tree.path / "gone").exists()
    assert tree.serves(image("one"))
    shutil.rmtree(tree.root / "app")
    tree.store.prune(tree.take().images)
    assert [path for path in foreign if not path.exists()] == []
    assert not (tree.path / "app" / ".blobs").exists()


def test_the_way_to_a_repository_that_a_crash_left_half_is_no_obstacle(tree: Tree) -> None:
    (tree.path / "app").mkdir(parents=True)
    (tree.path / "app" / ".blobs").mkdir()
    digest = a_blob(image("one"))
    tree.blob(digest).parent.mkdir()
    tree.blob(digest).with_name(f".{digest[7:]}.new").symlink_to("nowhere")
    manifests = tree.path / "app" / ".manifests" / "1"
    manifests.mkdir(parents=True)
    (manifests / f".{image('one').digest[7:]}.new").write_text("{")
    taken = tree.take()
    tree.store.prune(taken.images)
    assert names(taken) == ["app:1"]
    assert tree.serves(image("one"))
    assert list(tree.path.rglob(".*.new")) == []


def test_a_problem_of_a_root_that_is_no_utf8_is_printable(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/im\xffages"))
    directory = write_image(root / "app" / "1", image("one"))
    scan = Scanner(root, reader=ANYBODY).full()
    next(path for path in directory.iterdir() if len(path.name) == 64).write_bytes(b"longer than before")
    store = Stored(StorePlace(tmp_path / "store", "/x", str(root), ""), root)
    (problem,) = store.take(scan.images).problems
    assert problem.path == rf"{tmp_path}/im\xffages/app/1"
    assert str(problem).isascii()


@pytest.mark.parametrize("where", ["app/.blobs", "app/.blobs/sha256", "app/.manifests", "app"])
def test_nothing_is_pruned_or_linked_through_a_directory_that_is_a_link(
    tree: Tree, tmp_path: Path, where: str
) -> None:
    """Who could put one into a store once would have root remove whatever it leads to."""
    tree.take()
    victims = tmp_path / "victims"
    for name in ("precious", ".blobs/precious", ".blobs/sha256/precious", "sha256/precious"):
        path = victims / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"precious")
    shutil.move(tree.path / where, tmp_path / "away")
    (tree.path / where).symlink_to(victims)
    before = sorted(victims.rglob("*"))
    again = Tree(tree.root, tree.path)
    with pytest.raises(NotOursError, match="somebody else's"):
        again.take()
    with contextlib.suppress(NotADirectoryError):
        again.store.prune(())
    assert sorted(victims.rglob("*")) == before
