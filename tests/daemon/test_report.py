"""What is said, and that it is said once."""

import logging
from pathlib import Path

import pytest

from scr_watchd.daemon import notices
from scr_watchd.daemon.outcome import Failed, Found, Unchanged
from scr_watchd.daemon.report import Reporter
from scr_watchd.daemon.status import read
from scr_watchd.daemon.systemd import Notifier
from scr_watchd.oci.catalog import Problem, Reference
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.publish.outcome import Changes, Published, Rejected, Unconfirmed
from tests.render.site import catalog_with

APP: Reference = (RepositoryName("app"), Tag("1"))
DIGEST = Digest(f"sha256:{'a' * 64}")
PROBLEM = Problem("/images/b/1", "it is broken", "Mend it.")
OTHER = Digest(f"sha256:{'b' * 64}")
BEFORE = catalog_with([("app", "1", b"before")])
NONE = Changes({}, {}, {})


@pytest.fixture
def reporter(tmp_path: Path) -> Reporter:
    return Reporter(
        tmp_path / "status.json", tmp_path / "metrics.prom", Notifier({}), tmp_path / "images", tmp_path
    )


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="scr_watchd")
    return caplog


def said(lines: pytest.LogCaptureFixture) -> list[str]:
    """What was said since the last time."""
    found = [record.getMessage() for record in lines.records]
    lines.clear()
    return found


def publish(reporter: Reporter, outcome: Published, found: Found, *, now: float) -> None:
    """As a pass does: the changes are told at once, and the outcome when it has ended."""
    reporter.tell(outcome.changes, BEFORE, outcome.generation, found)
    reporter.report(outcome, found, now=now)


def test_each_image_that_appears_is_replaced_or_disappears_is_a_line(
    reporter: Reporter, lines: pytest.LogCaptureFixture
) -> None:
    reporter.address = "127.0.0.1:5000"
    found = Found(repositories=1, tags=1)
    publish(reporter, Published("g1", Changes({APP: DIGEST}, {}, {})), found, now=0)
    assert said(lines) == [
        f"app:1 is there: docker pull 127.0.0.1:5000/app:1 ({DIGEST})", "serving 1 image in 1 repository",
    ]  # fmt: skip
    publish(reporter, Published("g2", Changes({}, {APP: DIGEST}, {})), found, now=1)
    publish(reporter, Published("g3", Changes({}, {}, {APP: DIGEST})), Found(), now=2)
    assert said(lines) == [
        f"app:1 was replaced ({DIGEST})", "serving 1 image in 1 repository",
        "app:1 is gone", "serving 0 images in 0 repositories",
    ]  # fmt: skip


def test_what_is_there_and_is_no_longer_served_is_not_called_gone(
    reporter: Reporter, lines: pytest.LogCaptureFixture
) -> None:
    """A rotten image of an old tree was announced, and then "is gone"."""
    rotten = Problem(f"{reporter.root}/app/1", "a blob is not what its name says", "Copy it again")
    found = Found(problems=(rotten,))
    publish(reporter, Published("g1", Changes({}, {}, {APP: DIGEST})), found, now=0)
    assert said(lines)[0] == "app:1 is no longer served: a blob is not what its name says"


@pytest.mark.parametrize(
    ("is_container", "has_mount", "how"),
    [
        pytest.param(False, False, "this adds one: skopeo copy ", id="on a machine"),
        pytest.param(True, True, "where that directory is mounted from: skopeo copy ", id="in a container"),
        pytest.param(True, False, 'docker run -v "$PWD/images:/var/lib/images"', id="without a volume"),
    ],
)
def test_how_the_first_image_comes(is_container: bool, has_mount: bool, how: str) -> None:  # noqa: FBT001
    root = Path("/var/lib/images")
    assert how in notices.first_image(root, is_container=is_container, has_mount=has_mount)


def test_many_changes_are_counted(reporter: Reporter, lines: pytest.LogCaptureFixture) -> None:
    reporter.address = "127.0.0.1:5000"
    added = {(RepositoryName("app"), Tag(str(number))): DIGEST for number in range(30)}
    found = Found(repositories=1, tags=30, example=APP)
    publish(reporter, Published("g", Changes(added, {}, {})), found, now=0)
    assert said(lines) == [
        "images: 30 appeared", "serving 30 images in 1 repository",
        "for example: docker pull 127.0.0.1:5000/app:1",
    ]  # fmt: skip


def test_a_problem_is_said_once_it_stays(reporter: Reporter, lines: pytest.LogCaptureFixture) -> None:
    outcome, found = Unchanged("g"), Found(problems=(PROBLEM,))
    again = reporter.report(outcome, found, now=100)
    assert "not served" not in " ".join(said(lines))
    assert again <= 103
    for now in (101, 103.5, 110, 120):
        reporter.report(outcome, found, now=now)
    assert said(lines) == ["not served: /images/b/1: it is broken. Mend it."]
    reporter.report(Unchanged("g"), Found(), now=130)
    reporter.report(outcome, found, now=140)
    reporter.report(outcome, found, now=144)
    assert said(lines) == ["not served: /images/b/1: it is broken. Mend it."], "it came back"


def test_a_copy_that_never_ends_is_said_after_ten_minutes(
    reporter: Reporter, lines: pytest.LogCaptureFixture
) -> None:
    outcome, found = Unchanged("g"), Found(tags=1, repositories=1, pinned=(APP,))
    for now in (0, 300, 599):
        reporter.report(outcome, found, now=now)
    assert "as it was" not in " ".join(said(lines))
    for now in (600, 700, 5000):
        reporter.report(outcome, found, now=now)
    (line,) = said(lines)
    assert line.startswith("app:1 is served as it was 10 minutes ago")


def test_trouble_is_said_once_and_so_is_its_end(reporter: Reporter, lines: pytest.LogCaptureFixture) -> None:
    trouble = Rejected("the site's", '[emerg] unknown directive "x" in /etc/nginx/a.conf:1')
    reporter.report(Unchanged("g"), Found(), now=0)
    said(lines)
    for now in range(1, 5):
        reporter.report(trouble, Found(), now=now)
    (line,) = said(lines)
    assert "/etc/nginx/a.conf:1" in line
    assert "Repair that file" in line
    for now in range(5, 9):
        reporter.report(Unchanged("g"), Found(), now=now)
    assert said(lines) == ["all is well again"]


def test_the_status_tells_what_is_served_from_what_was_found(reporter: Reporter, tmp_path: Path) -> None:
    def status() -> tuple[str, int, str, bool]:
        found = read(tmp_path / "status.json")
        assert found
        return found.outcome, found.images, found.generation, found.confirmed

    reporter.report(Published("g1", NONE), Found(repositories=1, tags=1), now=0)
    assert status() == ("published", 1, "g1", True)
    reporter.report(Rejected("ours", "words"), Found(repositories=1, tags=2), now=1)
    assert status() == ("rejected", 1, "g1", True)
    reporter.report(Unconfirmed("g2", NONE, "reason"), Found(repositories=1, tags=2), now=2)
    assert status() == ("unconfirmed", 2, "g2", False)
    reporter.report(Failed("the disk is full"), Found(), now=3)
    assert status() == ("failed", 2, "g2", False)


def test_a_status_that_cannot_be_written_is_said_and_stops_nothing(
    tmp_path: Path, lines: pytest.LogCaptureFixture
) -> None:
    missing = tmp_path / "missing"
    reporter = Reporter(missing / "status.json", missing / "metrics.prom", Notifier({}), tmp_path, tmp_path)
    for now in (0, 1, 30):
        reporter.report(Published("g1", NONE), Found(repositories=1, tags=1), now=now)
    unwritten = [line for line in said(lines) if "cannot be written" in line]
    assert len(unwritten) == 2, "each is said once"
    missing.mkdir()
    reporter.report(Unchanged("g1"), Found(repositories=1, tags=1), now=31)
    assert (missing / "status.json").exists()
    assert (missing / "metrics.prom").exists()


def test_for_machines_each_tag_is_a_line_with_fields(
    reporter: Reporter, lines: pytest.LogCaptureFixture
) -> None:
    reporter.for_machines = True
    many: dict[Reference, Digest] = {
        (RepositoryName("many"), Tag(str(number))): DIGEST for number in range(30)
    }
    found = Found(repositories=2, tags=31)
    publish(reporter, Published("g1", Changes(many, {APP: DIGEST}, {})), found, now=0)
    events = [record.event for record in lines.records if hasattr(record, "event")]
    assert len(events) == 31
    (replaced,) = (each for each in events if each.action == "replaced")
    assert (replaced.repository, replaced.tag, replaced.generation) == ("app", "1", "g1")
    assert replaced.digest == DIGEST
    assert replaced.before == BEFORE.tags()[APP]


def test_what_is_refused_or_held_is_said_by_each_process(
    reporter: Reporter, lines: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def events() -> list[tuple[str, str | None, str | None]]:
        found = [record.event for record in lines.records if hasattr(record, "event")]
        lines.clear()
        return [(each.action, each.repository, each.tag) for each in found]

    problems = tuple(Problem(f"{tmp_path}/images/b/{tag}", "it is broken", "Mend it.") for tag in range(30))
    found = Found(tags=1, problems=problems, held={APP: DIGEST}, held_since=1)
    expected = [("held", "app", "1"), *(("refused", "b", str(tag)) for tag in range(30))]
    after = Reporter(tmp_path / "status.json", tmp_path / "m.prom", Notifier({}), reporter.root, tmp_path)
    for each in (reporter, after):
        each.for_machines, each.patient = True, False
        each.report(Unchanged("g"), found, now=0)
        assert events() == expected
        each.report(Unchanged("g"), found, now=9)
        assert events() == []
