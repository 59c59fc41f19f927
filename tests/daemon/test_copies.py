"""What refuses a hard link is copied, and never linked symbolically: real refusals, on real file systems."""

import json
import os
import shutil
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scr_watchd.files import Reader
from scr_watchd.oci.names import RepositoryName
from scr_watchd.publish.copying import Copying, Target, Unlinked, told
from scr_watchd.settings import Settings
from tests.daemons import daemon, free_port, public_directory, scr_watchd
from tests.http import ask
from tests.nginxes import require_root
from tests.passes import Passes
from tests.private_mounts import mount, run_with_private_mounts, unmount
from tests.trees import OCI_MANIFEST, Built, descriptor, digest_of, image, write_image
from tests.waiting import until

USER = 54321
BUILT = image("one")
APP = RepositoryName("app")
LAYER = digest_of(b"layer 0 of one")[7:]


def protects_links() -> bool:
    return Path("/proc/sys/fs/protected_hardlinks").read_text().strip() == "1"


@contextmanager
def disk(*options: str) -> Iterator[Path]:
    """A small disk of its own with ``images`` that everybody may write, and a ``state`` of USER's."""
    with public_directory() as directory:
        place = directory / "disk"
        place.mkdir()
        mount("-t", "tmpfs", *options, "tmpfs", place)
        try:
            # all that is imported late, since USER may not read where this Python lies
            write_image(place / "warm" / "images" / "app:1", BUILT)
            passes_on(place / "warm").look()
            subprocess.run(["rm", "-r", place / "warm"], check=True)
            (place / "state").mkdir()
            os.chown(place / "state", USER, USER)
            yield place
        finally:
            unmount(place)


def add(place: Path, name: str, built: Built, *odd: str) -> Path:
    """An image of root's whose files anybody may link, but for those ``odd``, which are set-uid programs."""
    made = write_image(place / "images" / name, built)
    for path in made.iterdir():
        path.chmod(0o4755 if path.name in odd else 0o666)
    return made


def become_user() -> None:
    os.setgroups([])
    os.setegid(USER)
    os.seteuid(USER)


@contextmanager
def as_root() -> Iterator[None]:
    os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(USER)


def passes_on(place: Path, **settings: object) -> Passes:
    return Passes(Settings(root=place / "images", state=place / "state", **settings))  # type: ignore[arg-type]


def blob(place: Path, name: str = "app", layer: str = LAYER) -> Path:
    return place / "state" / "store" / name / ".blobs" / "sha256" / layer


def copies_are_done(passes: Passes) -> None:
    """Look until nothing waits any more."""
    store = passes.mirror.store
    assert store is not None
    assert passes.mirror.found.waiting
    while passes.mirror.found.waiting:
        until(lambda: store.prover.hasher.has_news, seconds=20)
        passes.look()


def is_ready(place: Path) -> bool:
    """Whether a copy lies beside its place."""
    copy = place.with_name(f".{place.name}.copy")
    return copy.exists() and bool(copy.stat().st_mode & 0o044)


def in_child(act: Callable[[], None]) -> None:
    """``act`` as USER, in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            become_user()
            act()
        except BaseException:  # noqa: BLE001 - it is no pytest that goes on here
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


# -- a set-uid bit -----------------------------------------------------------------------------------


def a_set_uid_blob(verify: str = "new") -> None:
    with disk() as place:
        file = add(place, "app:1", BUILT, LAYER) / LAYER
        add(place, "other:1", image("other"))

        def act() -> None:
            passes = passes_on(place, verify=verify)
            passes.look()
            assert sorted(passes.served()) == ["other:1"], "it waits, and others do not"
            assert passes.mirror.found.waiting == 1
            copies_are_done(passes)
            assert sorted(passes.served()) == ["app:1", "other:1"]
            copy = blob(place).lstat()
            assert (stat.filemode(copy.st_mode), copy.st_nlink) == ("-rw-r--r--", 1)
            assert blob(place).read_bytes() == file.read_bytes()
            assert copy.st_mtime_ns == file.stat().st_mtime_ns
            found = passes.mirror.found
            assert found.copied_bytes == copy.st_size
            assert [(each.kind, each.remedy) for each in found.unlinked] == [
                ("copy", f"Take it away: chmod u-s,g-s {file}")
            ]
            for _ in range(2):
                passes.start()
                passes.look()
                assert blob(place).lstat().st_ino == copy.st_ino, "it is not made anew"
                assert passes.mirror.found.copied_bytes == copy.st_size
            assert not [path for path in blob(place).parent.iterdir() if path.name.startswith(".")]

        in_child(act)

        def again() -> None:
            passes = passes_on(place, verify=verify)
            passes.look()
            assert blob(place).samefile(file)
            assert (passes.mirror.found.copied_bytes, passes.mirror.found.unlinked) == (0, ())

        file.chmod(0o666)
        in_child(again)


def a_set_uid_blob_that_nobody_verifies() -> None:
    a_set_uid_blob(verify="size")


def a_set_uid_blob_that_is_not_what_its_name_says() -> None:
    with disk() as place:
        made = add(place, "app:1", BUILT)
        (made / LAYER).write_bytes((made / LAYER).read_bytes()[:-1] + b"?")
        (made / LAYER).chmod(0o4755)

        def act() -> None:
            passes = passes_on(place)
            passes.look()
            copies_are_done(passes)
            assert passes.served() == {}
            assert "are not those that its name says" in passes.mirror.found.problems[0].reason
            assert not blob(place).parent.exists()

        in_child(act)


def copies_of_what_the_tree_has_are_not_held_by_the_store_alone() -> None:
    """A tag goes, and has its grace; another has the same odd layer."""
    with disk() as place:
        made = add(place, "app:1", BUILT, LAYER)
        add(place, "app:2", image("one", annotations={"another": "manifest"}), LAYER)

        def act() -> None:
            passes = passes_on(place)
            passes.look()
            copies_are_done(passes)
            size = passes.mirror.found.copied_bytes
            assert size == (made / LAYER).stat().st_size
            with as_root():
                subprocess.run(["rm", "-r", made], check=True)
            for _ in range(2):
                passes.look()
                assert list(passes.served()) == ["app:2"]
                found = passes.mirror.found
                assert (found.leaving, found.copied_bytes, found.only_stored_bytes) == (1, size, 0)
                passes.start()

        in_child(act)


def a_daemon_that_may_not_link() -> None:
    """It is root's, without capabilities, as in a container."""
    with disk() as place:
        made = add(place, "app:1", BUILT, LAYER)
        os.chown(made / LAYER, USER, USER)
        (made / LAYER).chmod(0o4755)
        address = f"127.0.0.1:{free_port()}"
        as_in_a_container = ("setpriv", "--bounding-set=-all,+chown,+setuid,+setgid,+kill")
        os.chown(place / "state", 0, 0)
        serve = ("serve", place / "images", "--state", place / "state", "-l", address)
        with daemon(*serve, before=as_in_a_container) as process:
            process.says("^app:1 is there")
            for digest, content in BUILT.blobs.items():
                assert ask(address, f"/v2/app/blobs/{digest}").body == content
            assert not blob(place).is_symlink()
            assert not blob(place).samefile(made / LAYER)
            metrics = (place / "state" / "metrics.prom").read_text()
            assert f"scr_watchd_store_copied_bytes {(made / LAYER).stat().st_size}\n" in metrics
            size = f"{(made / LAYER).stat().st_size} bytes"
            for told in (
                scr_watchd("status", "--state", place / "state").stdout,
                scr_watchd("check", place / "images", "--state", place / "state").stdout,
            ):
                assert f"not a hard link: {size} are copies, of {made / LAYER}\n" in told
                assert f"  Take it away: chmod u-s,g-s {made / LAYER}\n" in told


# -- room --------------------------------------------------------------------------------------------


def a_full_disk() -> None:
    """A copy is not begun if less than a tenth would be free; a hole takes nothing."""
    with disk("-o", "size=8m") as place:
        content, holes = os.urandom(3 * 2**20), bytes(2**22) + b"end"
        large, sparse = digest_of(content)[7:], digest_of(holes)[7:]
        file = add(place, "app:1", with_layer(content), large) / large
        made = add(place, "sparse:1", with_layer(holes))
        (made / sparse).unlink()
        with (made / sparse).open("wb") as stream:
            stream.seek(2**22)
            stream.write(b"end")
        (made / sparse).chmod(0o4755)
        filler = place / "filler"
        filler.write_bytes(bytes(2**20 + 2**19))

        def act() -> None:
            passes = passes_on(place)
            passes.look()
            problem = passes.mirror.found.problems[0]
            assert f"a copy of its {len(content):,} bytes would leave less than 10 %" in problem.reason
            assert "set-uid" in problem.reason
            assert problem.remedy == f"Take it away: chmod u-s,g-s {file}"
            copies_are_done(passes)
            assert list(passes.served()) == ["sparse:1"]
            copy = blob(place, "sparse", sparse).lstat()
            assert (copy.st_size, copy.st_blocks * 512) == (len(holes), 4096)
            assert not [*blob(place, layer=large).parent.glob(".*")]

        in_child(act)
        filler.unlink()

        def more() -> None:
            passes = passes_on(place)
            passes.look()
            copies_are_done(passes)
            assert sorted(passes.served()) == ["app:1", "sparse:1"]

        in_child(more)


def with_layer(content: bytes) -> Built:
    config = b"{}"
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(content, "application/vnd.oci.image.layer.v1.tar")],
    }
    files = {digest_of(each)[7:]: each for each in (config, content)}
    return Built(json.dumps(document).encode(), OCI_MANIFEST, files)


def a_copy_that_waits_is_spared() -> None:
    with disk() as place:
        file = add(place, "app:1", BUILT, LAYER) / LAYER

        def act() -> None:
            passes = passes_on(place)
            images = passes.mirror.scanner.full().repositories[APP].images
            passes.look()
            until(lambda: is_ready(blob(place)))
            store = passes.mirror.store
            assert store is not None
            store.prune(APP, images)
            assert is_ready(blob(place))
            store.prune(APP, ())
            assert not blob(place).parent.exists()
            copies_are_done(passes)
            assert list(passes.served()) == ["app:1"], "it is made anew"

        in_child(act)

        def turns() -> None:
            """A link can be made while the copy lies ready, and then it cannot any more."""
            passes = passes_on(place)
            blob(place).unlink()
            passes.look()
            until(lambda: is_ready(blob(place)))
            with as_root():
                file.chmod(0o666)
            passes.look()
            assert list(passes.served()) == ["app:1"]
            assert {path.name for path in blob(place).parent.iterdir()} == {
                digest[7:] for digest in BUILT.blobs
            }
            with as_root():
                file.chmod(0o4755)
            blob(place).unlink()
            passes.look()
            copies_are_done(passes)
            assert list(passes.served()) == ["app:1"]
            assert blob(place).read_bytes() == file.read_bytes()

        in_child(turns)


def one_owner_whose_files_all_refuse() -> None:
    """He has not all of the others' links become symbolic."""
    with disk() as place:
        add(place, "app:1", BUILT)  # tmpfs lists what is new first
        for number in range(12):
            for path in add(place, f"his:{number}", BUILT).iterdir():
                os.chown(path, 1, 1)
                path.chmod(0o644)

        def act() -> None:
            passes = passes_on(place)
            passes.look()
            store = passes.mirror.store
            assert store is not None
            assert store.place.hard_links
            copies_are_done(passes)
            assert len(passes.served()) == 13, (sorted(passes.served()), passes.mirror.found)
            assert not any(path.is_symlink() for path in (place / "state" / "store").rglob("*"))

        in_child(act)


# -- an upgraded store -------------------------------------------------------------------------------


def links_of_a_former_version() -> None:
    """They serve until there are copies, which are made only if all of them fit."""
    with disk("-o", "size=16m") as place:
        contents = [os.urandom(3 * 2**20), os.urandom(3 * 2**20)]
        layers = [digest_of(each)[7:] for each in contents]
        files = [
            add(place, f"app:{number}", with_layer(each), layer) / layer
            for number, (each, layer) in enumerate(zip(contents, layers, strict=True))
        ]
        filler = place / "filler"
        filler.write_bytes(bytes(4 * 2**20 + 2**18))  # room for one

        def first() -> None:
            """As 0.1 left it."""
            passes = passes_on(place)
            for file in files:
                link = blob(place, layer=file.name)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file)
            passes.look()
            store = passes.mirror.store
            assert store is not None
            assert store.place.hard_links
            for _ in range(2):
                assert sorted(passes.served()) == ["app:0", "app:1"]
                assert [each.path for each in passes.mirror.found.unlinked] == list(map(str, files))
                assert {each.kind for each in passes.mirror.found.unlinked} == {"symbolic"}
                assert not store.prover.hasher.has_copies, "both, or none"
                assert all(blob(place, layer=layer).is_symlink() for layer in layers)
                passes.look()

        in_child(first)
        filler.unlink()

        def then() -> None:
            passes = passes_on(place)
            passes.look()
            assert sorted(passes.served()) == ["app:0", "app:1"]
            store = passes.mirror.store
            assert store is not None
            while any(blob(place, layer=layer).is_symlink() for layer in layers):
                assert sorted(passes.served()) == ["app:0", "app:1"]
                until(lambda: store.prover.hasher.has_news)
                passes.look()
            assert {each.kind for each in passes.mirror.found.unlinked} == {"copy"}
            assert passes.mirror.found.copied_bytes == sum(map(len, contents))
            for content, layer in zip(contents, layers, strict=True):
                assert blob(place, layer=layer).read_bytes() == content

        in_child(then)


# -- crashes -----------------------------------------------------------------------------------------


def killed_between_any_two_steps() -> None:
    with disk() as place:
        add(place, "app:1", BUILT, LAYER)

        def life(ends: str) -> Callable[[], None]:
            def act() -> None:
                passes = passes_on(place)
                passes.look()  # the copy is under way, or lies ready
                if ends == "copied":
                    until(lambda: is_ready(blob(place)))
                    return
                passes.at = lambda step: os._exit(0) if step == ends else None
                copies_are_done(passes)

            return act

        def last() -> None:
            passes = passes_on(place)
            passes.look()
            if not passes.served():
                copies_are_done(passes)
            assert list(passes.served()) == ["app:1"]
            assert blob(place).lstat().st_nlink == 1
            assert not [*blob(place).parent.glob(".*")]

        for ends in ("copied", "scan", "store", "stage", "switch"):
            in_child(life(ends))
            in_child(last)
            subprocess.run(["rm", "-r", place / "state"], check=True)
            (place / "state").mkdir()
            os.chown(place / "state", USER, USER)


def what_a_crash_left_of_an_image_that_is_gone_goes() -> None:
    with disk() as place:
        made = add(place, "app:1", BUILT, LAYER)
        (place / "images").chmod(0o777)

        def first() -> None:
            passes = passes_on(place)
            passes.look()
            until(lambda: is_ready(blob(place)))

        def then() -> None:
            passes = passes_on(place)
            passes.look()
            assert not blob(place).parent.exists()

        in_child(first)
        assert [*blob(place).parent.glob(".*.copy")]
        subprocess.run(["rm", "-r", made], check=True)
        in_child(then)


# -- mounts, and file systems ------------------------------------------------------------------------


def a_mount_below_the_root() -> None:
    with disk() as place:
        add(place, "app:1", BUILT)
        other = place / "images" / "other"
        other.mkdir()
        mount("-t", "tmpfs", "tmpfs", other)
        try:
            add(place, "other/app:1", BUILT)

            def act() -> None:
                passes = passes_on(place)
                passes.look()
                assert sorted(passes.served()) == ["app:1", "other/app:1"]
                assert blob(place, "other/app").is_symlink()
                assert not blob(place).is_symlink()
                for _ in range(2):
                    found = [(each.kind, each.path) for each in passes.mirror.found.unlinked]
                    assert found == [("mount", str(other))]
                    passes.start()
                    passes.look()

            in_child(act)
            told = subprocess.run(
                [sys.executable, "-m", "scr_watchd", "check", place / "images"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert f"not a hard link: {other}\n  it is a mount below the images" in told.stdout
        finally:
            unmount(other)


@contextmanager
def formatted(kind: str) -> Iterator[Path]:
    """A disk with a file system of that kind."""
    with public_directory() as directory:
        device, place = directory / "device", directory / "disk"
        place.mkdir()
        with device.open("wb") as stream:
            stream.truncate(512 * 2**20)
        subprocess.run([f"mkfs.{kind}", "-q", device], check=True)
        mount("-o", "loop", device, place)
        try:
            (place / "state").mkdir()
            yield place
        finally:
            unmount(place)


def many_links_on_ext4() -> None:
    """As root, who may link everything else."""
    with formatted("ext4") as place:
        file = add(place, "app:1", BUILT) / LAYER
        os.chown(file, USER, USER)
        file.chmod(0o640)
        full = place / "full"
        full.mkdir()
        for number in range(64_999):
            os.link(file, full / str(number))
        passes = passes_on(place)
        passes.mirror.host.worker_user = lambda: Reader(1, frozenset({USER}))
        passes.look()
        copies_are_done(passes)
        assert list(passes.served()) == ["app:1"]
        copy = blob(place).lstat()
        assert (copy.st_uid, copy.st_gid, stat.S_IMODE(copy.st_mode)) == (USER, USER, 0o640)
        assert not blob(place).samefile(file)
        assert "as many links as" in passes.mirror.found.unlinked[0].reason
        (full / "0").unlink()
        passes.start()
        passes.mirror.host.worker_user = lambda: Reader(1, frozenset({USER}))
        passes.look()
        assert blob(place).samefile(file)
        assert passes.mirror.found.copied_bytes == 0


def another_project_on_xfs() -> None:
    """EXDEV, which is no other mount: the owner of a file may choose its project."""
    with formatted("xfs") as place:
        file = add(place, "app:1", BUILT) / LAYER
        subprocess.run(["chattr", "-p", "7", "+P", place / "state"], check=True)
        for path in file.parent.iterdir():
            if path != file:
                subprocess.run(["chattr", "-p", "7", path], check=True)
        passes = passes_on(place)
        passes.look()
        store = passes.mirror.store
        assert store is not None
        assert store.place.hard_links
        copies_are_done(passes)
        assert blob(place).lstat().st_nlink == 1
        assert not blob(place).is_symlink()
        assert [each.reason for each in passes.mirror.found.unlinked] == [
            "it is in another volume or project of its file system"
        ]


@pytest.mark.skipif(not protects_links(), reason="fs.protected_hardlinks is off: nothing is refused")
@pytest.mark.parametrize(
    "scenario",
    [
        a_set_uid_blob,
        a_set_uid_blob_that_nobody_verifies,
        a_daemon_that_may_not_link,
        a_set_uid_blob_that_is_not_what_its_name_says,
        copies_of_what_the_tree_has_are_not_held_by_the_store_alone,
        a_full_disk,
        a_copy_that_waits_is_spared,
        one_owner_whose_files_all_refuse,
        links_of_a_former_version,
        killed_between_any_two_steps,
        what_a_crash_left_of_an_image_that_is_gone_goes,
        a_mount_below_the_root,
        many_links_on_ext4,
        another_project_on_xfs,
    ],
)
def test_what_refuses_a_hard_link(scenario: Callable[[], None]) -> None:
    if scenario is another_project_on_xfs and shutil.which("mkfs.xfs") is None:
        pytest.skip("there is no mkfs.xfs")
    run_with_private_mounts(scenario)


# -- who may read a copy -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "reader", "expected"),
    [
        pytest.param(0o4755, Reader(), 0o755, id="everybody"),
        pytest.param(0o640, Reader(7, frozenset({USER})), 0o640, id="its group"),
        pytest.param(0o600, Reader(USER), 0o600, id="its owner"),
        pytest.param(0o666, Reader(), 0o644, id="nobody may write"),
    ],
)
def test_who_may_read_the_file_may_read_its_copy(
    tmp_path: Path, mode: int, reader: Reader, expected: int
) -> None:
    require_root("only root can give files away")
    source = tmp_path / "source"
    source.write_bytes(b"x")
    os.chown(source, USER, USER)
    source.chmod(mode)
    (tmp_path / "store").mkdir()
    target = Target(tmp_path, "store", "hex", reader, 1)
    with source.open("rb") as opened, Copying(target) as copying:
        copying.write(b"x")
        copying.finish(opened.fileno())
    made = (tmp_path / "store" / ".hex.copy").stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (USER, USER, expected)


def a_copy_for_nobody_else() -> None:
    """Who cannot give the copy to the file's group gives it to nobody."""
    with disk() as place:
        source = place / "state" / "source"
        source.write_bytes(b"x")
        os.chown(source, USER, 7)

        def act() -> None:
            for mode, allowed in ((0o644, 0o644), (0o640, None), (0o604, None)):
                source.chmod(mode)
                target = Target(place, "state", "hex", Reader(8, frozenset({7})), 1)
                with source.open("rb") as opened, Copying(target) as copying:
                    copying.write(b"x")
                    try:
                        copying.finish(opened.fileno())
                    except PermissionError:
                        assert allowed is None
                        continue
                assert stat.S_IMODE((place / "state" / ".hex.copy").stat().st_mode) == allowed

        in_child(act)


def test_a_copy_has_no_readers_that_the_file_has_not() -> None:
    run_with_private_mounts(a_copy_for_nobody_else)


def test_few_words_for_many_files() -> None:
    files = [Unlinked("copy", f"/{number}", "why", "cure", 5) for number in range(3)]
    links = [Unlinked("symbolic", f"/{number}", "why", "cure") for number in range(30)]
    mounts = [Unlinked("mount", "/disk", "why", "cure")] * 2
    found = told((*files, *links, *mounts))
    assert found[0] == Unlinked("copy", "/0 and 2 more", "why", "cure", 15)
    assert [each.path for each in found[1:]] == [
        *(f"/{number}" for number in range(20)),
        "/20 and 9 more",
        "/disk",
    ]
