"""nginx may keep files of the store open: none of them ever changes under its name."""

import shutil
from collections.abc import Iterator

import pytest

from tests.daemons import daemon
from tests.endurance.hosts import Host, host
from tests.trees import Built, digest_of, image, write_image
from tests.waiting import until

_FOR_EVER = """
open_file_cache max=1000 inactive=1h;
open_file_cache_valid 1h;
open_file_cache_min_uses 1;
open_file_cache_errors on;
"""
_ASKED = 20  # each of two workers has a cache of its own


@pytest.fixture
def cached() -> Iterator[Host]:
    """A host whose nginx believes for an hour what it once saw of a file, with a daemon."""
    with host("--grace-seconds", 0) as made:
        (made.site.directory / "conf.d" / "cache.conf").write_text(_FOR_EVER)
        write_image(made.images / "app" / "1", image("first"))
        made.start()
        with daemon(*made.arguments()):
            yield made


def _answers(host: Host, tag: str, expected: Built) -> None:
    """Every worker answers with the image and all of its bytes, again and again."""
    until(lambda: host.digest("app", tag), lambda now: now == expected.digest)
    for _ in range(_ASKED):
        assert host.digest("app", tag) == host.digest("app", expected.digest) == expected.digest
        for blob in expected.blobs:
            answer = host.site.ask(f"/v2/app/blobs/{blob}")
            assert (answer.status, digest_of(answer.body)) == (200, blob)


def test_a_tag_is_never_stale_when_it_is_replaced_removed_and_added_again(cached: Host) -> None:
    tag = cached.images / "app" / "1"
    _answers(cached, "1", image("first"))
    for seed in ("second", "first"):
        shutil.rmtree(tag)
        write_image(tag, image(seed))
        _answers(cached, "1", image(seed))
    shutil.rmtree(tag)
    until(lambda: cached.site.ask("/v2/app/manifests/1").status, lambda now: now == 404)
    for _ in range(_ASKED):
        assert cached.digest("app", "1") == ""
    write_image(tag, image("second"))
    _answers(cached, "1", image("second"))


def test_what_was_asked_for_in_vain_is_there_as_soon_as_it_is_published(cached: Host) -> None:
    for _ in range(_ASKED):
        assert cached.site.ask(f"/v2/app/blobs/{min(image('later').blobs)}").status == 404
        assert cached.site.ask(f"/v2/app/manifests/{image('later').digest}").status == 404
        assert cached.digest("app", "2") == ""
    write_image(cached.images / "app" / "2", image("later"))
    _answers(cached, "2", image("later"))
