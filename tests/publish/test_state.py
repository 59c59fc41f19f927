"""The state directory: its lock, its records, what commands ask for."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scr_watchd.errors import ScrWatchdError
from scr_watchd.oci.catalog import Catalog, CatalogBuilder, Referrer
from scr_watchd.oci.manifest import MediaType, Referral
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.publish import records
from scr_watchd.publish.holder import running
from scr_watchd.publish.records import Loss, Record
from scr_watchd.publish.state import State, answered, locked, request, requested

A, B, C = (Digest(f"sha256:{letter * 64}") for letter in "abc")
APP, GONE = RepositoryName("lib/app"), RepositoryName("gone")


def catalog() -> Catalog:
    builder = CatalogBuilder()
    builder.manifest(APP, A, MediaType.OCI_INDEX)
    builder.manifest(APP, B, MediaType.DOCKER_MANIFEST)
    builder.leaving(APP, C, MediaType.OCI_MANIFEST)
    builder.leaving(GONE, C, MediaType.OCI_MANIFEST)
    builder.referrer(APP, A, Referrer(7, Referral(B, "x/y", {"$": "\n\u00df"})))
    builder.referrer(APP, B, Referrer(8, Referral(C, "")))
    builder.tag(APP, Tag("RC1"), A)
    builder.tag(APP, Tag("rc1"), B)
    return builder.catalog()


LEAVING = {(APP, C): 1e9 + 0.5, (GONE, C): 2e9}


@pytest.fixture
def state(tmp_path: Path) -> State:
    (tmp_path / "state").mkdir()
    return State(tmp_path / "state")


# -- records -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(Record("0123456789abcdef", Catalog()), id="nothing published"),
        pytest.param(Record("0123456789abcdef", catalog(), LEAVING), id="repositories, one of them unlisted"),
        pytest.param(
            Record("0123456789abcdef", catalog(), LEAVING, 1e9 + 0.25, (2**31, 2**63)),
            id="with all that is noted of the tree",
        ),
        pytest.param(
            Record(
                "0123456789abcdef",
                catalog(),
                LEAVING,
                lost=Loss(5.5, {(GONE, Tag("1")): A, (APP, Tag("2")): A}, 3),
            ),
            id="what was lost",
        ),
    ],
)
def test_a_record_comes_back_as_it_was(state: State, record: Record) -> None:
    records.write_published(state, record)
    assert records.read_published(state) == record
    assert records.read_pending(state) is None
    records.write_pending(state, Record("fedcba9876543210", catalog(), {**LEAVING, (GONE, C): 3.0}))
    assert records.read_published(state) == record
    pending = records.read_pending(state)
    records.confirm_pending(state)
    assert records.read_published(state) == pending
    assert records.read_pending(state) is None
    assert [path.name for path in state.path.iterdir()] == ["published.json"]


def test_what_is_only_about_to_go_is_in_no_list(state: State) -> None:
    records.write_published(state, Record("x", catalog(), LEAVING))
    record = records.read_published(state)
    assert record
    assert {each.name: each.listed for each in record.catalog.repositories} == {APP: True, GONE: False}


def test_a_record_of_a_version_that_knew_less_can_be_read(state: State) -> None:
    state.published.write_text(
        json.dumps(
            {
                "generation": "0123456789abcdef",
                "repositories": {
                    "lib/app": {"tags": {"1": A}, "manifests": {A: MediaType.OCI_MANIFEST.value}}
                },
                "format": 1,
            }
        )
    )
    record = records.read_published(state)
    assert record
    assert record.catalog.tags() == {(APP, Tag("1")): A}
    assert record.catalog.repositories[0].listed
    assert (record.leaving, record.held_since, record.root) == ({}, None, (0, 0))


def test_a_record_of_a_version_that_knows_more_can_be_read(state: State) -> None:
    records.write_published(state, Record("x", catalog(), LEAVING))
    content = json.loads(state.published.read_text())
    content["news"] = {"of": "tomorrow"}
    content["repositories"]["lib/app"]["stars"] = 5
    state.published.write_text(json.dumps(content))
    assert records.read_published(state) == Record("x", catalog(), LEAVING)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty, as a power cut may leave it"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(b'{"generation":"x","repositories":{"lib/app":{"tags":{', id="cut off"),
        pytest.param(b"[]", id="another type"),
        pytest.param(b"{}", id="nothing in it"),
        pytest.param(b"[" * 100_000, id="nested without end"),
        pytest.param(b'{"generation":"x","repositories":' + b'{"a":' * 100_000, id="objects without end"),
        pytest.param(
            b'{"generation":"x","repositories":{"a;b":{"tags":{},"manifests":{"sha256:'
            + b"a" * 64
            + b'":"application/vnd.oci.image.manifest.v1+json"}}}}',
            id="a name that is none",
        ),
        pytest.param(
            b'{"generation":"x","repositories":{"a":{"tags":{},"manifests":{"sha256:zz":"x"}}}}',
            id="a digest that is none",
        ),
        pytest.param(
            b'{"generation":"x","repositories":{"a":{"tags":{},"manifests":{"sha256:'
            + b"a" * 64
            + b'":"text/html"}}}}',
            id="a media type that is none of ours",
        ),
        pytest.param(
            b'{"generation":"x","repositories":{"a":{"tags":{"$x":"sha256:'
            + b"a" * 64
            + b'"},"manifests":{}}}}',
            id="a tag that is none",
        ),
        pytest.param(
            b'{"generation":"x","repositories":{"a":{"tags":{},"manifests":{},"leaving":{"x":1.0}}}}',
            id="something that leaves and is no digest",
        ),
        pytest.param(b'{"generation":"x","repositories":{},"held_since":"now"}', id="a moment that is none"),
    ],
)
@pytest.mark.parametrize("which", ["published", "pending"])
def test_a_damaged_record_is_a_value_error(state: State, which: str, content: bytes) -> None:
    read: Callable[[State], Record | None] = getattr(records, f"read_{which}")
    getattr(state, which).write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read(state)


def test_a_crash_while_writing_leaves_the_old_record(state: State) -> None:
    records.write_published(state, Record("old", catalog(), LEAVING))
    (state.path / ".published.json.new").write_text('{"generation":"new"')
    assert records.read_published(state) == Record("old", catalog(), LEAVING)
    records.write_published(state, Record("new", catalog()))
    assert [path.name for path in state.path.iterdir()] == ["published.json"]


# -- the lock ----------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from scr_watchd.publish.state import State, locked
with locked(State(Path(sys.argv[1]))):
    print("locked", flush=True)
    sys.stdin.read()
"""


def hold(state: State) -> subprocess.Popen[str]:
    """Another process that has the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(state.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "locked\n"
    return process


def test_nobody_runs_where_nothing_is_or_where_the_daemon_has_ended(tmp_path: Path) -> None:
    state = State(tmp_path / "deep" / "state")
    assert running(state) is None
    with locked(state):
        assert running(state) == os.getpid()
    assert running(state) is None


def test_the_second_daemon_is_told_of_the_first_until_that_is_killed(state: State) -> None:
    with hold(state) as first:
        assert running(state) == first.pid
        with (
            pytest.raises(ScrWatchdError, match=rf"\(process {first.pid}\) works on {state.path}"),
            locked(state),
        ):
            pass
        assert running(state) == first.pid, "the refused one has not touched it"
        first.send_signal(signal.SIGKILL)
        first.wait(10)
        assert running(state) is None
        with locked(state):
            assert running(state) == os.getpid()


def test_who_looks_whether_a_daemon_runs_keeps_none_from_starting(state: State) -> None:
    look = "import sys; from pathlib import Path; from scr_watchd.publish.holder import running\n"
    look += "from scr_watchd.publish.state import State\n"
    look += "while running(State(Path(sys.argv[1]))) != int(sys.argv[2]): pass"
    with locked(state):
        pass
    looking = [
        subprocess.Popen([sys.executable, "-c", look, str(state.path), str(os.getpid())]) for _ in range(2)
    ]
    with locked(state):
        assert [each.wait(20) for each in looking] == [0, 0]


def test_a_lock_whose_file_is_removed_is_taken_again(state: State) -> None:
    with locked(state) as lock:
        lock.keep()
        shutil.rmtree(state.path)
        assert running(state) is None
        lock.keep()
        assert running(state) == os.getpid()
        state.lock.unlink()
        with hold(state) as other:
            with pytest.raises(ScrWatchdError, match=rf"\(process {other.pid}\) works on {state.path}"):
                lock.keep()
            other.kill()
        lock.keep()
        assert running(state) == os.getpid()


def test_a_lock_file_is_never_a_way_to_write_elsewhere(state: State, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    state.lock.symlink_to(tmp_path / "precious")
    with pytest.raises(ScrWatchdError, match="cannot write the state directory"), locked(state):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_state_directory_that_is_a_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with (
        pytest.raises(ScrWatchdError, match="cannot write the state directory"),
        locked(State(tmp_path / "state")),
    ):
        pass


# -- requests ----------------------------------------------------------------------------------------


def test_a_request_stays_until_it_is_answered(state: State) -> None:
    assert requested(state, "prune") is None
    request(state, "prune")
    assert requested(state, "prune") == ""
    request(state, "prune", "now")
    assert requested(state, "prune") == "now"
    assert requested(state, "accept") is None
    request(state, "accept")
    answered(state, "prune")
    answered(state, "prune")
    assert (requested(state, "prune"), requested(state, "accept")) == (None, "")
