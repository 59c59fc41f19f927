"""What takes its time is told while it does: hashing a large image, and the first look at a large tree."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scr_watchd.daemon.progress import Progress
from tests.commands.test_never_wrong import started
from tests.commands.test_nginx_down import status
from tests.commands.test_run import Host, host
from tests.commands.test_serve import images
from tests.daemons import daemon, free_port, scr_watchd, service_manager
from tests.trees import image, write_image
from tests.waiting import until

__all__ = ["host", "images", "started"]  # fixtures

SMALL = image("first", layers=0)
HUGE = 2_000_000_000
CHECKING = r"checking the bytes: \S+ \w+ of 2 GB \(\d+%\) of app:1/[0-9a-f]{12}\.\.\."


def drop_huge(images: Path) -> None:
    """An image whose layer takes seconds to read. Its digest is not right, which is not the question here."""
    directory = write_image(images.parent / "outside" / "app:1", image("first", layers=1))
    manifest = json.loads((directory / "manifest.json").read_text())
    (layer,) = manifest["layers"]
    layer["size"] = HUGE
    (directory / "manifest.json").write_text(json.dumps(manifest))
    with (directory / layer["digest"].partition(":")[2]).open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, HUGE)
    directory.rename(images / "app:1")


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        pytest.param(Progress(), "", id="nothing"),
        pytest.param(
            Progress(hashing=f"app:1/{'a' * 64}", done=1_200_000_000, size=16_000_000_000),
            "checking the bytes: 1.2 GB of 16 GB (8%) of app:1/aaaaaaaaaaaa...",
            id="hashing",
        ),
        pytest.param(
            Progress(looked=12345),
            "looking at the images for the first time: 12,345 directories so far",
            id="the first look",
        ),
    ],
)
def test_the_words(progress: Progress, text: str) -> None:
    assert str(progress) == text


def test_status_names_what_is_hashed_and_how_far_it_is(started: Host) -> None:
    with daemon(*started.arguments()) as process:
        process.says("^serving 0 images")  # the first look is over, which would be told too
        drop_huge(started.images)
        line = rf"(?m)^under way: +{CHECKING}$"
        until(lambda: status(started), lambda seen: re.search(line, seen[1]), seconds=20)
        until(lambda: "under way" in status(started)[1], lambda seen: not seen, seconds=60)
        assert not (started.state / "progress.json").exists()


@contextmanager
def on_a_terminal(*words: object) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A command whose standard error is a terminal; the other end of that, and the process."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "scr_watchd", *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=end,
    )
    os.close(end)
    try:
        yield terminal, process
    finally:
        process.terminate()
        process.wait(20)
        os.close(terminal)


def heard(terminal: int, pattern: str, *, seconds: float = 30) -> str:
    """All that was written there until a text that fits ``pattern``."""
    text = ""

    def more() -> re.Match[str] | None:
        nonlocal text
        if select.select([terminal], [], [], 0.1)[0]:
            text += os.read(terminal, 4096).decode()
        return re.search(pattern, text)

    until(more, seconds=seconds)
    return text


def test_serve_shows_it_on_a_terminal_and_wipes_it_for_each_line(images: Path) -> None:
    with on_a_terminal("serve", images, "-l", free_port(), "--rescan-seconds", "1") as (terminal, _):
        heard(terminal, "serving 0 images")
        drop_huge(images)
        heard(terminal, rf"\r{CHECKING}")
        write_image(images / "other:1", image("second"))
        said = heard(terminal, r"other:1 is there[^\r\n]*\r\n")
        assert re.search(r"\r +\rother:1 is there", said) or not re.search(CHECKING, said)


def test_wait_shows_it_on_a_terminal(started: Host) -> None:
    with daemon(*started.arguments()):
        drop_huge(started.images)
        words = ("wait", "app:1", "--root", started.images, "--state", started.state)
        with on_a_terminal(*words) as (terminal, _):
            heard(terminal, rf"\r{CHECKING}")


def test_the_service_manager_hears_it_and_then_how_it_is(started: Host) -> None:
    address = started.images.parent / "notify"
    with (
        service_manager(address, seconds=60) as hear,
        daemon(*started.arguments(), NOTIFY_SOCKET=str(address)),
    ):
        hear("^STATUS=serving 0 images")
        drop_huge(started.images)
        hear(f"^STATUS={CHECKING}$")
        hear("^STATUS=serving 0 images")


def test_the_first_look_at_a_large_tree_is_told(images: Path) -> None:
    """Every directory is a problem here, which is quickly made, and takes seconds to look at."""
    for name in map(str, range(100)):
        for tag in map(str, range(150)):
            write_image(images / name / tag, SMALL)
    looking = r"looking at the images for the first time: [\d,]+ directories so far"
    with on_a_terminal("serve", images, "-l", free_port()) as (terminal, _):
        heard(terminal, rf"\r{looking}")
        result = scr_watchd("status", images)
        assert (result.returncode, bool(re.search(looking, result.stdout))) == (75, True)


def test_status_watch_follows_until_it_is_told_to_end(started: Host) -> None:
    with daemon(*started.arguments()) as process:
        process.says("^serving 0 images")
        with daemon("status", "--watch", "--state", started.state) as watching:
            watching.says("^images: +0 in 0 repositories")
            write_image(started.images / "app:1", image("first"))
            watching.says("^images: +1 in 1 repository")
            assert watching.stop(signal.SIGINT) == 0
