"""The store: links and copies on a real file system."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scr_watchd.errors import Stopped
from scr_watchd.files import ANYBODY
from scr_watchd.images.scan import Scanner
from scr_watchd.oci.catalog import Image
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.publish.hashing import Hasher
from scr_watchd.publish.place import StorePlace, choose
from tests.stores import Stored
from tests.trees import image, index, make_images, write_image

APP, ONE = RepositoryName("app"), Tag("1")

Make = Callable[[], tuple[Stored, Scanner]]


@pytest.fixture(params=["hard", "symbolic"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Stored, Scanner]:
    root = make_images(tmp_path / "images", {"app": {"1": image("one")}})
    obstacle = "" if request.param == "hard" else "the test says so"
    place = StorePlace(tmp_path / "store", str(tmp_path / "store"), str(root), obstacle)
    return root, Stored(place, root), Scanner(root, reader=ANYBODY)


def blob_files(store: Stored, name: str = "app") -> dict[str, bytes]:
    directory = store.place.path / name / ".blobs" / "sha256"
    return (
        {f"sha256:{path.name}": path.read_bytes() for path in directory.iterdir()}
        if directory.exists()
        else {}
    )


def copies(store: Stored, name: str = "app") -> dict[str, Path]:
    return {path.name: path for path in (store.place.path / name / ".manifests").glob("*/*")}


def test_every_blob_is_linked_and_every_manifest_copied(made: tuple[Path, Stored, Scanner]) -> None:
    root, store, scanner = made
    built = index(image("a"), image("b"))
    write_image(root / "multi" / "1", built)
    taken = store.take(scanner.full())
    images, problems = taken.images, taken.problems
    assert (len(images), problems) == (2, ())
    assert blob_files(store, "multi") == built.blobs
    for digest, raw in built.manifests.items():
        copy = copies(store, "multi")[digest[7:]]
        assert copy.read_bytes() == raw
        assert copy.stat().st_nlink == 1
        assert copy.stat().st_mode & 0o777 == 0o644
    if store.place.hard_links:
        name = next(iter(built.blobs))[7:]
        assert (root / "multi" / "1" / name).samefile(store.place.path / "multi/.blobs/sha256" / name)
        assert (root / "multi" / "1" / name).stat().st_nlink == 2


def test_two_manifests_of_one_size_have_different_times_and_replicas_agree(tmp_path: Path) -> None:
    times = []
    for replica in ("a", "b"):
        root = make_images(tmp_path / replica / "images", {"app": {"1": image("one"), "2": image("two")}})
        place = StorePlace(tmp_path / replica / "store", "/x", str(root), "")
        store = Stored(place, root)
        store.take(Scanner(root, reader=ANYBODY).full())
        found = copies(store).values()
        times.append({path.name: (path.stat().st_size, path.stat().st_mtime) for path in found})
    assert times[0] == times[1]
    assert len(set(times[0].values())) == 2


def test_the_bytes_outlive_a_directory_that_is_wiped_where_links_are_hard(tmp_path: Path) -> None:
    built = image("one")
    root = make_images(tmp_path / "images", {"app": {"1": built}})
    store = Stored(StorePlace(tmp_path / "store", "/x", str(root), ""), root)
    store.take(Scanner(root, reader=ANYBODY).full())
    for path in (root / "app" / "1").iterdir():
        path.unlink()
    assert blob_files(store) == built.blobs
    found = store.image(APP, ONE, Digest(built.digest))
    assert found is not None
    assert {str(blob.digest) for blob in found.blobs} == set(built.blobs)


def test_an_image_of_which_the_store_lost_something_is_not_there(made: tuple[Path, Stored, Scanner]) -> None:
    _, store, scanner = made
    built = image("one")
    store.take(scanner.full())
    assert store.image(APP, ONE, Digest(built.digest)) is not None
    next((store.place.path / "app" / ".blobs" / "sha256").iterdir()).unlink()
    assert store.image(APP, ONE, Digest(built.digest)) is None
    assert store.image(RepositoryName("other"), ONE, Digest(built.digest)) is None


def test_prune_removes_what_no_image_needs_and_nothing_else(made: tuple[Path, Stored, Scanner]) -> None:
    root, store, scanner = made
    write_image(root / "app" / "2", image("two"))
    write_image(root / "gone" / "deep" / "1", image("gone"))
    store.take(scanner.full())
    for path in sorted((root / "gone").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    store.prune(store.take(scanner.full()).images)
    assert blob_files(store) == image("one").blobs | image("two").blobs
    assert not (store.place.path / "gone").exists()
    assert set(copies(store)) == {image(seed).digest[7:] for seed in ("one", "two")}


def test_repositories_whose_names_look_like_parts_of_the_store_do_not_collide(
    made: tuple[Path, Stored, Scanner],
) -> None:
    root, store, scanner = made
    names = ["manifests", f"manifests/sha256/{'a' * 64}", "app/sha256", "blobs"]
    for name in names:
        write_image(root / name / "1", image(name))
    taken = store.take(scanner.full())
    store.prune(taken.images)
    assert taken.problems == ()
    for name in names:
        assert blob_files(store, name) == image(name).blobs


def test_a_file_that_changed_since_the_scan_is_a_problem_and_not_published(
    made: tuple[Path, Stored, Scanner],
) -> None:
    root, store, scanner = made
    write_image(root / "other" / "1", image("other"))
    scan = scanner.full()
    blob = next(path for path in (root / "app" / "1").iterdir() if len(path.name) == 64)
    blob.write_bytes(b"longer than before")
    taken = store.take(scan.images)
    images, problems = taken.images, taken.problems
    assert [each.repository for each in images] == ["other"]
    assert "it changed while it was published" in problems[0].reason


def test_a_manifest_that_changed_since_the_scan_is_not_copied(made: tuple[Path, Stored, Scanner]) -> None:
    root, store, scanner = made
    scan = scanner.full()
    manifest = root / "app" / "1" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"layer", b"laier"))
    taken = store.take(scan.images)
    images, problems = taken.images, taken.problems
    assert (images, len(problems)) == ((), 1)
    assert copies(store) == {}


def test_a_blob_that_was_exchanged_for_a_symbolic_link_is_never_followed(
    made: tuple[Path, Stored, Scanner],
) -> None:
    root, store, scanner = made
    scan = scanner.full()
    blob = next(path for path in (root / "app" / "1").iterdir() if len(path.name) == 64)
    secret = root.parent / "secret"
    secret.write_bytes(b"x" * blob.stat().st_size)
    blob.unlink()
    blob.symlink_to(secret)
    taken = store.take(scan.images)
    images, problems = taken.images, taken.problems
    assert (images, len(problems)) == ((), 1)


def test_a_lost_store_is_built_again(made: tuple[Path, Stored, Scanner]) -> None:
    _, store, scanner = made
    scan = scanner.full()
    store.take(scan.images)
    shutil.rmtree(store.place.path)
    assert not store.is_there
    store.take(scan.images)
    assert blob_files(store) == image("one").blobs


def test_symbolic_links_move_on_when_the_directory_they_lead_to_goes(tmp_path: Path) -> None:
    built = image("shared")
    root = make_images(tmp_path / "images", {"app": {"1": built, "2": built}})
    store = Stored(StorePlace(tmp_path / "store", "/x", str(root), "the test says so"), root)
    scanner = Scanner(root, reader=ANYBODY)
    store.take(scanner.full())
    for tag in ("1", "2"):
        if (root / "app" / tag).exists():
            target = next((store.place.path / "app/.blobs/sha256").iterdir()).readlink()
            if f"/app/{tag}/" in str(target):
                shutil.rmtree(root / "app" / tag)
                break
    store.prune(store.take(scanner.full()).images)
    assert blob_files(store) == built.blobs


def test_symbolic_links_lead_where_nginx_sees_the_tree(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"app": {"1": image("one")}})
    store = Stored(StorePlace(tmp_path / "store", "/store", "/srv/images", "the test says so"), root)
    store.take(Scanner(root, reader=ANYBODY).full())
    for link in (tmp_path / "store/app/.blobs/sha256").iterdir():
        assert link.readlink() == Path(f"/srv/images/app/1/{link.name}")
    assert store.image(APP, ONE, Digest(image("one").digest)) is not None


@pytest.mark.parametrize("sample", [True, False], ids=["a tree with images", "an empty tree"])
def test_the_place_is_the_state_directory_where_hard_links_work(tmp_path: Path, sample: bool) -> None:  # noqa: FBT001
    root = make_images(tmp_path / "images", {"app": {"1": image("one")}} if sample else {})
    place = choose(root=root, state=tmp_path / "state", store=None, server_root=None)
    assert (place.path, place.obstacle) == (tmp_path / "state" / "store", "")
    assert {path.name for path in root.iterdir()} <= {"app"}
    assert list(place.path.iterdir()) == []


def test_the_place_is_inside_the_root_where_the_state_lies_on_another_mount(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"app": {"1": image("one")}})
    elsewhere = Path("/dev/shm")
    if elsewhere.stat().st_dev == root.stat().st_dev:
        pytest.skip("/dev/shm is no mount of its own here")
    state = elsewhere / f"scr-watchd-test-{os.getpid()}"
    try:
        place = choose(root=root, state=state, store=None, server_root="/srv/images")
        assert place.path == root / ".scr-watchd" / "store"
        assert place.seen_as == "/srv/images/.scr-watchd/store"
        forced = choose(root=root, state=state, store=state / "store", server_root=None)
        assert not forced.hard_links
        assert "Invalid cross-device link" in forced.obstacle
    finally:
        shutil.rmtree(state, ignore_errors=True)


def test_pruning_a_repository_of_many_tags_compares_each_but_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with each would take minutes for 50,000 tags."""
    tags = 300
    root = make_images(
        tmp_path / "images", {"app": {f"{n:03}": image(f"{n}", layers=0) for n in range(tags)}}
    )
    store, scanner = (
        Stored(StorePlace(tmp_path / "store", "/x", str(root), ""), root),
        Scanner(root, reader=ANYBODY),
    )
    store.prune(store.take(scanner.full()).images)
    write_image(root / "app" / f"{tags - 1:03}", image("another", layers=0))
    taken = store.take(scanner.full())
    compared = 0
    equal = Image.__eq__

    def counting(one: Image, other: object) -> bool:
        nonlocal compared
        compared += 1
        return equal(one, other)

    monkeypatch.setattr(Image, "__eq__", counting)
    assert store.prune(taken.images) == 2
    assert compared <= 10 * tags


def test_a_stop_ends_it_within_a_blob_that_is_hashed(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"app": {"1": image("x" * 3_000_000)}})
    place = StorePlace(tmp_path / "store", str(tmp_path / "store"), str(root), "")
    images = Scanner(root, reader=ANYBODY).full().images
    calls = 0

    def progress() -> None:
        nonlocal calls
        calls += 1
        if calls == 10:  # each of the three blobs is read in twelve pieces
            raise Stopped

    with pytest.raises(Stopped):
        Stored(place, root, hasher=Hasher(root, lambda: None), progress=progress).take(images)
    assert blob_files(Stored(place, root)) == {}
    assert Stored(place, root, hasher=Hasher(root, lambda: None)).take(images).images == images
