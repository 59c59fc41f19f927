"""Who pulls at the first answer of a tag gets all of it, though old workers still answer beside new ones."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemons import daemon
from tests.endurance.hosts import Host, host, say
from tests.http import Response, ask
from tests.trees import Built, digest_of, image, index, write_image

pytestmark = pytest.mark.slow

_DROPS = 40
_PULLS = 6  # of each, so that each of eight workers, old and new, is likely to be asked


def _drop(images: Path, name: str, tag: str, built: Built) -> None:
    """Copy an image aside and move it in, over what was there."""
    new = images / ".new"
    write_image(new, built)
    there = images / f"{name}:{tag}"
    if there.exists():
        there.rename(images / ".old")
    new.rename(there)
    shutil.rmtree(images / ".old", ignore_errors=True)


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param(lambda number: (f"new-{number}", "1"), id="a new repository"),
        pytest.param(lambda number: ("app", f"new-{number}"), id="a new tag"),
        pytest.param(lambda number: ("app", "replaced"), id="a replaced tag"),
    ],
)
def test_no_request_by_digest_fails_from_the_first_answer_on(
    reference: Callable[[int], tuple[str, str]],
) -> None:
    failures, asked, late = [], 0, 0.0
    with host("--quiet-seconds", "0.05") as made:
        made.site.config.write_text(
            made.site.config.read_text().replace("worker_processes 2;", "worker_processes 4;")
        )
        write_image(made.images / "app:replaced", image("before"))
        made.start()
        with daemon(*made.arguments()) as process:
            process.says("^serving")
            for number in range(_DROPS):
                name, tag = reference(number)
                built = index(image(f"{number}a"), image(f"{number}b"))
                _drop(made.images, name, tag, built)
                _wait_for_the_first_answer(made, name, tag, built)
                first = time.monotonic()
                for _ in range(_PULLS):
                    for kind, contents in (("manifests", built.manifests), ("blobs", built.blobs)):
                        for digest in contents:
                            answer = _asked(made, name, f"{kind}/{digest}")
                            asked += 1
                            if answer.status != 200 or digest_of(answer.body) != digest:
                                failures.append((name, tag, kind, answer.status))
                    if _asked(made, name, f"manifests/{tag}").body != built.raw:
                        late = max(late, time.monotonic() - first)
    say(f"{asked} by digest, {len(failures)} failed; by tag from before for {late:.2f} s at most")
    assert not failures


def _wait_for_the_first_answer(host: Host, name: str, tag: str, built: Built) -> None:
    """Without a rest in between: the time in which both old and new workers answer is short."""
    deadline = time.monotonic() + 10
    while _asked(host, name, f"manifests/{tag}").body != built.raw:
        assert time.monotonic() < deadline


def _asked(host: Host, name: str, path: str) -> Response:
    """On a connection of its own, and without waiting for a reload to end."""
    return ask(host.site.registry, f"/v2/{name}/{path}")
