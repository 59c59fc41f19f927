"""Events: which fields each has."""

import json
import logging
from datetime import UTC, datetime

import pytest

from scr_watchd.daemon import events
from scr_watchd.daemon.events import Event
from scr_watchd.daemon.logs import _Json
from scr_watchd.oci.catalog import Problem
from scr_watchd.publish.outcome import Changes
from tests.render.site import catalog_with
from tests.trees import digest_of


def test_a_publication_is_an_event_for_each_tag_that_differs() -> None:
    before = catalog_with([("app", "1", b"one"), ("app", "2", b"two"), ("gone", "1", b"gone")])
    after = catalog_with([("app", "1", b"one"), ("app", "2", b"new two"), ("new", "1", b"new")])
    found = list(events.of_publication(Changes.between(before, after), before, "g"))
    assert found == [
        Event("published", "new", "1", digest_of(b"new"), generation="g"),
        Event("replaced", "app", "2", digest_of(b"new two"), digest_of(b"two"), "g"),
        Event("removed", "gone", "1", before=digest_of(b"gone"), generation="g"),
    ]


@pytest.mark.parametrize(
    ("path", "repository", "tag"),
    [
        pytest.param("/images/app/1", "mirror/app", "1", id="a directory"),
        pytest.param("/images/lib/app:1", "mirror/lib/app", "1", id="a directory with a colon"),
        pytest.param(f"/images/app@sha256:{'a' * 64}", "mirror/app", None, id="a digest"),
        pytest.param("/images/UPPER/1", None, None, id="no name that can be"),
        pytest.param("/images", None, None, id="the root"),
        pytest.param("/var/store", None, None, id="elsewhere"),
    ],
)
def test_what_is_refused_is_named_by_its_path(path: str, repository: str | None, tag: str | None) -> None:
    problem = Problem(path, "it is broken", "Mend it.")
    found = events.of_problem(problem, root="/images", prefix="mirror/", generation="")
    assert (found.action, found.repository, found.tag) == ("refused", repository, tag)
    assert (found.reason, found.generation, found.digest) == ("it is broken. Mend it.", None, None)


def test_a_line_has_every_field_and_a_time_that_programs_read() -> None:
    record = logging.LogRecord("scr_watchd", logging.INFO, "", 0, "%s", ("app:1 is gone",), None)
    record.created = 1_800_000_000.25
    record.event = Event("removed", "app", "1", before="sha256:a", generation="g")
    found = json.loads(_Json("%(message)s").format(record))
    assert found == {
        "time": "2027-01-15T08:00:00.250000Z", "level": "info", "message": "app:1 is gone",
        "action": "removed", "repository": "app", "tag": "1", "digest": None, "before": "sha256:a",
        "generation": "g", "reason": None,
    }  # fmt: skip
    assert datetime.fromisoformat(found["time"]) == datetime.fromtimestamp(record.created, UTC)
