"""`scr-watchd wait`, for who drops images in, and `scr-watchd verify`, for who doubts the disk."""

import os
import pty
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scr_watchd.commands.wait import _digest as digest_in
from scr_watchd.oci.names import RepositoryName, Tag
from tests.commands.test_never_wrong import rotten_image, started
from tests.commands.test_run import Host, host
from tests.daemons import daemon, remove, scr_watchd, since
from tests.nginxes import require_root
from tests.trees import image, make_images, write_image

__all__ = ["host", "started"]  # fixtures


# -- wait --------------------------------------------------------------------------------------------


def wait_for(host: Host, reference: str, *more: object) -> subprocess.CompletedProcess[str]:
    return scr_watchd("wait", reference, "--root", host.images, "--state", host.state, *more)


def test_wait_prints_the_digest_once_it_can_be_pulled(started: Host) -> None:
    built = image("first")
    with daemon(*started.arguments()):
        write_image(started.images / "app:1", built)
        result = wait_for(started, "app:1")
        assert (result.returncode, result.stdout) == (0, f"{built.digest}\n")
        assert started.site.ask("/v2/app/manifests/1").status == 200
        write_image(started.images / "lib" / "app" / "1", built)
        assert wait_for(started, "lib/app:1").stdout == f"{built.digest}\n"


def test_wait_says_why_an_image_is_not_served_and_what_to_do(started: Host) -> None:
    with daemon(*started.arguments()):
        directory = write_image(started.images / "app:1", image("first"))
        (directory / "manifest.json").write_text("{")
        result = wait_for(started, "app:1")
        assert result.returncode == 3
        reason, remedy = result.stdout.splitlines()
        assert reason.startswith(f"{directory}: manifest.json cannot be used")
        assert remedy.startswith("Wait for the copy to end, or repeat it: skopeo copy ")


def test_wait_names_a_directory_that_is_empty(started: Host) -> None:
    (started.images / "app" / "1").mkdir(parents=True)
    with daemon(*started.arguments()):
        result = wait_for(started, "app:1", "--timeout", 1)
    assert (result.returncode, result.stdout) == (
        75,
        f"{started.images}/app/1 is empty: copy an image into it\n",
    )


def test_wait_waits_for_the_new_image_where_one_is_replaced(started: Host) -> None:
    """An old digest would be no news; here nginx cannot take the new one yet."""
    require_root("only root has the whole site tested")
    first, second = image("first"), image("second")
    with daemon(*started.arguments()):
        write_image(started.images / "app:1", first)
        assert wait_for(started, "app:1").stdout == f"{first.digest}\n"
        foreign = started.site.directory / "conf.d" / "foreign.conf"
        foreign.write_text("nonsense on;\n")
        remove(started.images / "app:1")
        write_image(started.images / "app:1", second)
        result = wait_for(started, "app:1", "--timeout", "1")
        assert result.returncode == 75
        assert result.stdout.startswith("app:1 is not published yet: nginx refuses the site's configuration")
        foreign.unlink()
        result = wait_for(started, "app:1")
        assert (result.returncode, result.stdout) == (0, f"{second.digest}\n")
        assert started.site.ask("/v2/app/manifests/1").body == second.raw


@pytest.mark.parametrize("file", ["1/manifest.json", "manifest.json", "index.json"])
@pytest.mark.parametrize("kind", ["FIFO", "endless", "huge"])
def test_wait_ends_in_time_whatever_the_manifest_is(tmp_path: Path, file: str, kind: str) -> None:
    """It would hang at a FIFO, and 3 GB are more than it may take here."""
    path = tmp_path / ("app:1" if file == "manifest.json" else "app") / file
    path.parent.mkdir(parents=True)
    (path.parent / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    match kind:
        case "FIFO":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case _:
            with path.open("wb") as stream:
                stream.truncate(3 << 30)
    wait = [sys.executable, "-m", "scr_watchd", "wait", "app:1", "--timeout", "0.2"]
    began = time.monotonic()
    result = subprocess.run(
        ["prlimit", f"--as={1 << 30}", *wait, "--root", tmp_path, "--state", tmp_path / "state"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (4, ""), "no daemon runs"
    assert since(began) < 20


def test_wait_follows_no_link_out_of_the_tree(tmp_path: Path) -> None:
    """What lies elsewhere is not what the daemon serves; a link within the tree is."""
    elsewhere = write_image(tmp_path / "elsewhere" / "app" / "1", image("first"))
    (tmp_path / "images").mkdir()
    inside = write_image(tmp_path / "images" / "lib" / "1", image("second"))
    for name, target in (("out", elsewhere), ("in", inside)):
        (tmp_path / "images" / name).mkdir()
        (tmp_path / "images" / name / "1").symlink_to(target)
    root = tmp_path / "images"
    found = {
        name: digest_in(
            root, [root / f"{name}:1", root / name / "1", root / name], RepositoryName(name), Tag("1")
        )
        for name in ("out", "in")
    }
    assert found == {"out": None, "in": image("second").digest}


def test_wait_ends_where_nothing_can_come(started: Host) -> None:
    write_image(started.images / "app:1", image("first"))
    result = wait_for(started, "app:1", "--timeout", "0.2")
    assert (result.returncode, result.stdout) == (
        4,
        (
            f"the daemon of {started.state} does not run; start it: "
            f"scr-watchd run {started.images} --state {started.state}\n"
        ),
    )
    assert wait_for(started, "app").returncode == 2
    with daemon(*started.arguments()) as process:
        process.says("^serving 1 image")
        result = wait_for(started, "app:2", "--timeout", "0.2")
    assert result.returncode == 3
    assert result.stdout.startswith("there is no app:2: neither ")


# -- verify -----------------------------------------------------------------------------------------


def test_verify_of_a_tree_in_order_exits_0(tmp_path: Path) -> None:
    make_images(tmp_path, {"app": {"1": image("first"), "2": image("second")}})
    result = scr_watchd("verify", tmp_path)
    assert (result.returncode, result.stdout) == (0, f"{tmp_path}: 2 images read, 0 rotten, 0 incomplete\n")
    assert result.stderr == ""


def test_verify_names_every_image_with_a_rotten_blob(tmp_path: Path) -> None:
    make_images(tmp_path, {"app": {"1": image("first")}})
    file = rotten_image(tmp_path / "lib" / "app:1", image("second"))
    shutil.copytree(file.parent, tmp_path / "lib" / "app:2", copy_function=os.link)
    half = write_image(tmp_path / "half:1", image("half"))
    (half / "manifest.json").unlink()
    result = scr_watchd("verify", tmp_path)
    assert result.returncode == 3
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"rotten: lib/app:1: {file} cannot be read, or its bytes are not those")
    assert lines[1].startswith(f"rotten: lib/app:2: {tmp_path}/lib/app:2/")
    assert lines[2].startswith(f"incomplete: {half}: it has no manifest.json")
    assert lines[3:] == [f"{tmp_path}: 3 images read, 2 rotten, 1 incomplete"]


def test_verify_of_nothing_is_a_sentence(tmp_path: Path) -> None:
    result = scr_watchd("verify", tmp_path / "nothing")
    assert result.returncode == 1
    assert result.stderr == f"scr-watchd: {tmp_path}/nothing cannot be read: No such file or directory\n"


@pytest.fixture
def slow_tree(tmp_path: Path) -> Path:
    """Two images of 0.5 MB, and one of links to the first: `--rate 1` takes a second for them."""
    for seed in ("a", "b"):
        write_image(tmp_path / f"{seed}:1", image(seed * 500_000, layers=0))
    shutil.copytree(tmp_path / "a:1", tmp_path / "a:2", copy_function=os.link)
    return tmp_path


def test_verify_keeps_to_its_rate(slow_tree: Path) -> None:
    start = time.monotonic()
    assert scr_watchd("verify", slow_tree, "--rate", "1").returncode == 0
    assert since(start) > 0.9  # and for how long at most, only an idle machine could say


def test_verify_shows_on_a_terminal_how_far_it_is(slow_tree: Path) -> None:
    status, text = verify_on_a_terminal(slow_tree, lambda _: None)
    shares = [int(share) for share in re.findall(r"\r\[#* *\] +(\d+)% of 2 MB", text)]
    assert (status, len(shares) > 0) == (0, True)
    assert shares == sorted(shares)
    assert shares[-1] <= 100
    assert text.endswith("\r" + " " * 60 + "\r"), "and wipes it away"


def test_verify_goes_on_where_an_image_is_removed_meanwhile(slow_tree: Path) -> None:
    def remove_the_last(_: str) -> None:
        shutil.rmtree(slow_tree / "b:1", ignore_errors=True)

    status, _ = verify_on_a_terminal(slow_tree, remove_the_last)
    assert (status, (slow_tree / "b:1").exists()) == (0, False)


def verify_on_a_terminal(root: Path, seen: Callable[[str], None]) -> tuple[int, str]:
    """The exit status of a slow verify, and what it wrote to its terminal; ``seen`` is told of that."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "scr_watchd", "verify", str(root), "--rate", "1"],
        stdout=subprocess.DEVNULL,
        stderr=end,
    )
    os.close(end)
    text = ""
    try:
        while more := os.read(terminal, 4096):
            text += more.decode()
            seen(text)
    except OSError:
        pass  # so Linux says that nobody has the other end any more
    finally:
        os.close(terminal)
    return process.wait(20), text
