"""A mirror that is copied anew every night, unchanged, must not grow."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.clients.real_images import skopeo
from tests.daemons import daemon
from tests.endurance.hosts import Host, expected, host, image_of, layer, say, served
from tests.nginxes import require
from tests.trees import Built, write_image
from tests.waiting import until

pytestmark = pytest.mark.slow

NIGHTS = 10
TAGS = 15  # in each of two repositories
MARGIN = 1.01

bases = [layer(f"base {number}", 300_000) for number in range(2)]
upstream: dict[str, Built] = {
    f"{name}:{tag}": image_of(f"{name} {tag}", [*bases, layer(f"{name} {tag}", 50_000)])
    for name in ("app", "tool")
    for tag in range(TAGS)
}


@pytest.mark.parametrize("hardlink", [False, True], ids=["plain", "with-hardlink"])
def test_ten_nightly_copies_of_an_unchanged_tree_cost_no_disk(tmp_path: Path, *, hardlink: bool) -> None:
    for name, built in upstream.items():
        write_image(tmp_path / name, built)
    with host("--grace-seconds", "1") as here:
        _night(here, tmp_path, hardlink=hardlink)
        here.start()
        with daemon(*here.arguments()) as process:
            process.says(f"^serving {len(upstream)} images")
            first = until(lambda: _disk_usage(here), lambda _: served(here.site) == expected(here.images))
            evenings = [first]
            for _ in range(NIGHTS):
                _night(here, tmp_path, hardlink=hardlink)
                evenings.append(_disk_usage(here))
            last = until(lambda: _disk_usage(here), lambda usage: usage <= first * MARGIN, seconds=30)
            assert last >= first / MARGIN
            assert served(here.site) == expected(here.images)
            assert "Traceback" not in process.said()
    say(f"the first night {first / 2**20:.2f} MiB, after {NIGHTS} more {last / 2**20:.2f} MiB")
    say(f"right after each night {', '.join(f'{each / 2**20:.1f}' for each in evenings)} MiB")


def _night(here: Host, source: Path, *, hardlink: bool) -> None:
    for name in upstream:
        skopeo("copy", "-q", f"dir:{source / name}", f"dir:{here.images}/{name}")
    if hardlink:
        subprocess.run([require("hardlink"), "-c", here.images], check=True, capture_output=True)


def _disk_usage(here: Host) -> int:
    """The bytes of the tree, the store and the state on disk; each inode counts once."""
    blocks = {}
    for top in (here.images, here.state):
        for directory, _, names in os.walk(top):
            for name in (".", *names):
                try:
                    status = os.lstat(f"{directory}/{name}")
                except FileNotFoundError:
                    continue  # a copy under way
                blocks[status.st_dev, status.st_ino] = status.st_blocks
    return 512 * sum(blocks.values())
