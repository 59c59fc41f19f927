"""`scr-watchd check` and `scr-watchd status`."""

import json
import os
from pathlib import Path

import pytest

from scr_watchd.publish import place
from tests.daemons import public_directory, public_path, scr_watchd
from tests.private_mounts import mount, run_with_private_mounts, unmount
from tests.trees import image, make_images, write_image, write_layout

__all__ = ["public_path"]  # a fixture


def test_check_of_a_tree_in_order_exits_0(tmp_path: Path) -> None:
    built = image("a")
    make_images(tmp_path, {"library/alpine": {"3.20": built}})
    result = scr_watchd("check", tmp_path)
    assert result.returncode == 0
    assert f"library/alpine:3.20  {built.digest}" in result.stdout
    assert result.stdout.endswith(f"{tmp_path}: 1 to serve, 0 not\n")


def test_check_names_each_problem_with_its_remedy_and_exits_3(tmp_path: Path) -> None:
    make_images(tmp_path, {"good": {"1": image("good")}})
    os.makedirs(tmp_path / "fifo" / "1")
    os.mkfifo(tmp_path / "fifo" / "1" / "manifest.json")
    half = write_image(tmp_path / "half" / "1", image("half"))
    (half / "manifest.json").unlink()
    private = write_image(tmp_path / "private" / "1", image("private"))
    private.chmod(0o700)
    for odd in (b"quo'te:1", b"new\nline:1", b"dol$lar:1", b"\xff\xfe:1"):
        write_image(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + odd)), image("odd"))
    result = scr_watchd("check", tmp_path, "--json")
    assert result.returncode == 3
    content = json.loads(result.stdout)
    assert [each["repository"] for each in content["images"]] == ["good"]
    assert [each["path"].removeprefix(f"{tmp_path}/") for each in content["problems"]] == [
        r"\xff\xfe:1", "dol$lar:1", "fifo/1", "half/1", r"new\x0aline:1", "private/1", "quo'te:1",
    ]  # fmt: skip
    assert all(each["reason"] and each["remedy"] for each in content["problems"])
    text = scr_watchd("check", tmp_path).stdout
    assert f"not served: {tmp_path}/fifo/1\n  manifest.json is a FIFO, not a regular file\n" in text


@pytest.mark.parametrize("where", ["alpine:3.20", "alpine/3.20"])
def test_check_of_one_image(tmp_path: Path, where: str) -> None:
    built = image("a")
    write_image(tmp_path / where, built)
    write_image(tmp_path / "other:1", image("b"))
    result = scr_watchd("check", tmp_path / where)
    assert result.returncode == 0, result.stdout
    assert f"alpine:3.20  {built.digest}" in result.stdout
    assert "other" not in result.stdout
    next(path for path in (tmp_path / where).iterdir() if len(path.name) == 64).write_bytes(b"")
    assert scr_watchd("check", tmp_path / where).returncode == 3


@pytest.mark.parametrize("closed", ["above", "above/images"])
def test_every_command_says_that_nginx_cannot_enter_a_directory_on_the_way(
    tmp_path: Path, closed: str
) -> None:
    """One judgement: `check` and `generate` called it all in order, and nginx answered 403."""
    root = make_images(tmp_path / "above" / "images", {"app": {"1": image("a")}})
    (tmp_path / closed).chmod(0o700)
    here = [f"not served: {root}", f"  nginx may not enter {tmp_path / closed} (mode 0700)"]
    remedy = f"  Permit it: chmod o+x {tmp_path / closed}"
    checked = scr_watchd("check", "--root", root)
    assert checked.returncode == 3
    assert checked.stdout.splitlines()[1:4] == [*here, remedy]
    assert "0 to serve, 1 not" in checked.stdout
    other = scr_watchd("check", root)  # may be for `serve`, which may enter what is its user's
    alone = f"{remedy}, or use an nginx of its own: scr-watchd serve {root}"
    if os.geteuid() == 0:
        assert other.stdout.splitlines()[1:4] == [*here, alone]
    else:
        assert other.stdout.endswith("1 to serve, 0 not\n")
    generated = scr_watchd("generate", root, "-o", tmp_path / "registry.conf")
    assert generated.returncode == 3
    assert generated.stderr.splitlines() == [*here, remedy]
    assert (tmp_path / "registry.conf").exists()  # for an nginx of the owner's
    assert scr_watchd("generate", root, "--server-root", "/elsewhere").returncode == 0
    ran = scr_watchd("run", "--once", root, "--state", tmp_path / "state", "--reload", "none")
    assert f"not served: {root}: nginx may not enter {tmp_path / closed} (mode 0700)" in ran.stderr


def test_check_tells_which_lines_would_make_replacing_gapless() -> None:
    run_with_private_mounts(images_that_cannot_be_linked)


def images_that_cannot_be_linked() -> None:
    with public_directory() as directory:
        images, state = directory / "images", directory / "state"
        write_image(images / "app:1", image("a"))
        state.mkdir()
        options = ("check", "--root", images, "--state", state)
        assert "gap" not in scr_watchd(*options).stdout
        mount("--bind", images, images)
        assert "gap" not in scr_watchd(*options).stdout, "the store can lie in the root"
        mount("-o", "remount,bind,ro", images)
        result = scr_watchd(*options)
        assert result.returncode == 0
        assert f"no hard link can be made from {images} (mount {images})" in result.stdout
        assert f"ReadWritePaths={directory} " in result.stdout
        assert [path.name for path in state.iterdir()] == [], "check changes nothing"
        unmount(images)
        mount("-t", "tmpfs", "-o", "mode=2775,gid=65534", "disk", images)
        write_image(images / "app:1", image("a"))
        told = scr_watchd(*options).stdout
        assert f"chmod +t {images} " in told, "a group writes there"
        assert "ReadWritePaths" not in told, "that would not bring two disks together"
        told = place.gap(root=images, state=state, of_serve=True)
        assert f"scr-watchd serve {images} --state DIRECTORY " in told
        assert "in the settings" not in told, "serve has none"
        images.chmod(0o3775)
        assert "gap" not in scr_watchd(*options).stdout
        unmount(images)


def test_check_of_nothing_is_a_sentence(tmp_path: Path) -> None:
    result = scr_watchd("check", tmp_path / "nothing")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"scr-watchd: there is no directory {tmp_path}/nothing\n")


def test_status_where_nothing_ever_ran_exits_4(tmp_path: Path) -> None:
    result = scr_watchd("status", "--state", tmp_path)
    assert result.returncode == 4
    assert result.stdout == (
        f"not running, and never was in {tmp_path}\nstart it:   scr-watchd run --state {tmp_path}\n"
    )
    assert json.loads(scr_watchd("status", "--json", "--state", tmp_path).stdout) == {"running": False}


@pytest.mark.parametrize("layout", [False, True], ids=["dir", "oci"])
def test_check_takes_a_tree_with_an_image_in_its_root_for_a_tree(tmp_path: Path, *, layout: bool) -> None:
    root = tmp_path / "The Parent" / "images"
    write_image(root / "app:1", image("good"))
    if layout:
        write_layout(root, ("1", image("lost")))
    else:
        write_image(root, image("lost"))
    said = scr_watchd("check", root).stdout
    assert "lies in the root itself" in said
    assert f"{root}: 1 to serve, 1 not" in said
    assert scr_watchd("check", root / "app:1").stdout.endswith(": 1 to serve, 0 not\n")


def test_check_names_what_is_empty(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"app": {"1": image()}})
    write_layout(root / "layout")
    (root / "layout" / "ingest").mkdir()  # oras leaves it
    (root / "lib" / "it's:1").mkdir(parents=True)
    result = scr_watchd("check", root)
    assert result.returncode == 0
    empty = result.stdout.partition("empty: ")[2]
    assert empty.startswith(f"{root}/lib/it's:1\n  Copy an image into it, or remove it: rmdir ")
    assert "empty: " not in empty
