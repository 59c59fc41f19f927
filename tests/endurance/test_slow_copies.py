"""Real copies over slow lines, to a running daemon: no half image is ever served, and no platform goes."""

import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.daemons import daemon
from tests.endurance.hosts import Host, host, image_of, layer, say
from tests.nginxes import require
from tests.trees import Built, index, write_layout
from tests.waiting import until

pytestmark = pytest.mark.slow

_BYTES = 12_000_000
_BYTES_PER_SECOND = 1_000_000  # one layer takes longer than a sparse index is waited for


def both(version: str) -> Built:
    platforms = [image_of(f"{version} {each}", [layer(f"{version} {each}", _BYTES)]) for each in "ab"]
    return index(*platforms, platforms=("linux/amd64", "linux/arm64"))


def rsync(source: Path, target: Path) -> None:
    subprocess.run(
        [require("rsync"), "-a", f"--bwlimit={_BYTES_PER_SECOND // 1000}", f"{source}/", target], check=True
    )


def tar(source: Path, target: Path) -> None:
    """index.json and one platform first."""
    target.mkdir(exist_ok=True)
    packed = subprocess.Popen(
        [require("tar"), "c", "-C", source, "oci-layout", "index.json", "blobs"], stdout=subprocess.PIPE
    )
    unpacked = subprocess.Popen([require("tar"), "x", "-C", target], stdin=subprocess.PIPE)
    assert packed.stdout is not None
    assert unpacked.stdin is not None
    line = threading.Event()  # never set: a slow line
    while piece := packed.stdout.read(_BYTES_PER_SECOND // 10):
        unpacked.stdin.write(piece)
        unpacked.stdin.flush()
        line.wait(0.1)
    with suppress(BrokenPipeError):
        unpacked.stdin.close()
    packed.stdout.close()
    assert (packed.wait(30), unpacked.wait(30)) == (0, 0)


def during(copy: Callable[[], None], look: Callable[[], str]) -> dict[str, float]:
    """What was seen while it was copied, and for how many seconds."""
    seen: dict[str, float] = {}
    thread = threading.Thread(target=copy)
    thread.start()
    while thread.is_alive():
        began = time.monotonic()
        now = look()
        thread.join(0.2)
        seen[now] = seen.get(now, 0) + time.monotonic() - began
    return seen


@pytest.mark.parametrize("copy", [rsync, tar])
def test_a_slow_copy_of_two_platforms_is_served_when_it_is_whole(
    tmp_path: Path, copy: Callable[[Path, Path], None]
) -> None:
    with host("--quiet-seconds", "0.1") as here:
        here.start()
        with daemon(*here.arguments()) as process:
            old, new = both("old"), both("new")
            target = here.images / "app"
            for before, built in (("", old), (old.digest, new)):
                source = write_layout(tmp_path / built.digest[7:15], ("1", built))
                seen = during(lambda source=source: copy(source, target), lambda: here.digest("app", "1"))  # type: ignore[misc]
                say(f"{copy.__name__}: {seen}")
                assert sum(seen.values()) > 2 * _BYTES / _BYTES_PER_SECOND * 0.8
                assert set(seen) <= {before, built.digest}
                until(lambda: here.digest("app", "1"), lambda now, built=built: now == built.digest)  # type: ignore[misc]
                assert _is_whole(here, built)
            assert "1 of its 2 platforms" not in process.said()


def _is_whole(here: Host, built: Built) -> bool:
    wanted = {**built.manifests}
    return all(here.site.ask(f"/v2/app/manifests/{each}").body == raw for each, raw in wanted.items())
