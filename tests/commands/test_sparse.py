"""Sparse indexes as users see them: through the daemon, `check`, `status`, `wait` and `generate`."""

import json
import re
import threading
from pathlib import Path

import pytest

from tests.commands.test_never_wrong import started
from tests.commands.test_run import Host, host
from tests.commands.test_wait_and_verify import wait_for
from tests.daemons import daemon, remove, scr_watchd
from tests.trees import docker_save, image, index, without, write_blob, write_image
from tests.waiting import until

pytestmark = pytest.mark.slow

__all__ = ["host", "started"]  # fixtures

AMD64, ARM64 = image("amd64"), image("arm64")
BOTH = index(AMD64, ARM64, platforms=("linux/amd64", "linux/arm64"))
SPARSE = without(BOTH, ARM64)


@pytest.mark.parametrize("watch", ["auto", "poll"])
def test_what_docker_saves_of_one_platform_is_served_after_ten_seconds(started: Host, watch: str) -> None:
    with daemon(*started.arguments("--watch", watch)) as process:
        docker_save(started.images / "app", ("docker.io/library/app:1", SPARSE))
        early = wait_for(started, "app:1", "--timeout", 3)
        assert early.returncode == 75
        assert early.stdout.startswith(
            "not served yet: app:1\n  1 of its 2 platforms is not there: linux/arm64\n"
        )
        status = scr_watchd("status", "--state", started.state)
        assert status.returncode == 0
        assert "not served yet: app:1\n  1 of its 2 platforms" in status.stdout
        check = scr_watchd("check", started.images, "--state", started.state)
        assert check.returncode == 75
        assert "not served yet: app:1" in check.stdout
        late = wait_for(started, "app:1", "--timeout", 15)
        assert (late.returncode, late.stdout) == (0, f"{BOTH.digest}\n")
        process.says(rf"^app:1 \(1 of 2 platforms: linux/amd64\) is there \({BOTH.digest}\)")
    assert started.site.ask("/v2/app/manifests/1").body == BOTH.raw
    assert started.site.ask(f"/v2/app/manifests/{AMD64.digest}").body == AMD64.raw
    absent = started.site.ask(f"/v2/app/manifests/{ARM64.digest}")
    assert (absent.status, absent.code) == (404, "MANIFEST_UNKNOWN")
    status = scr_watchd("status", "--state", started.state)
    assert "app:1 (1 of 2 platforms: linux/amd64)" in status.stdout
    check = scr_watchd("check", started.images)
    assert (check.returncode, "app:1 (1 of 2 platforms: linux/amd64)  sha256:" in check.stdout) == (0, True)
    listed = json.loads(scr_watchd("check", started.images, "--json").stdout)
    assert listed["images"][0]["absent"] == ["linux/arm64"]


def test_a_copy_that_writes_a_temporary_name_for_long_is_waited_for(started: Host) -> None:
    """As `rsync --bwlimit` does: no event tells of it, and for 13 s nothing but its size changes."""
    layout = docker_save(started.images / "app", ("docker.io/library/app:1", SPARSE))
    blobs = layout / "blobs" / "sha256"
    ended = threading.Event()
    temporary = blobs / f".{max(ARM64.blobs)[7:]}.Ab3dEf"

    def copy() -> None:
        with temporary.open("wb", buffering=0) as file:
            for _ in range(26):
                file.write(b".")
                if ended.wait(0.5):
                    return
        for content in ARM64.files.values():
            write_blob(layout, content)
        temporary.unlink()
        write_blob(layout, ARM64.raw)

    writer = threading.Thread(target=copy)
    with daemon(*started.arguments()) as process:
        writer.start()
        try:
            result = wait_for(started, "app:1", "--timeout", 40)
        finally:
            ended.set()
            writer.join()
        assert result.stdout == f"{BOTH.digest}\n"
        assert "1 of 2 platforms" not in process.said()
    assert started.site.ask(f"/v2/app/manifests/{ARM64.digest}").body == ARM64.raw


def test_a_platform_that_is_served_stays_and_the_status_says_until_when(started: Host) -> None:
    directory = write_image(started.images / "app:1", BOTH)
    with daemon(*started.arguments()):
        assert wait_for(started, "app:1").returncode == 0
        (directory / f"{ARM64.digest[7:]}.manifest.json").unlink()
        status = until(
            lambda: json.loads(scr_watchd("status", "--state", started.state, "--json").stdout),
            lambda status: status["unripe"],
        )
        assert 590 < status["unripe"][0]["until"] - directory.stat().st_ctime < 600.1
        assert status["pinned"] == ["app:1"]
        assert started.site.ask(f"/v2/app/manifests/{ARM64.digest}").body == ARM64.raw
        check = scr_watchd("check", started.images, "--state", started.state)
        assert re.search(r"it is served without them in (5\d\d|600) s", check.stdout)
        remove(directory)
        until(lambda: started.site.tags("app"), lambda tags: tags == [])


def test_generate_says_when_to_run_it_again(tmp_path: Path) -> None:
    write_image(tmp_path / "app:1", SPARSE)
    write_image(tmp_path / "app:2", AMD64)
    result = scr_watchd("generate", tmp_path)
    assert result.returncode == 3
    assert "not served yet: " in result.stderr
    assert "run this again in" in result.stderr
    assert BOTH.digest not in result.stdout
