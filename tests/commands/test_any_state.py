"""Whatever lies in STATE and in the tree: a command ends soon, with a declared status, and prints nothing
that a terminal would obey."""

import contextlib
import fcntl
import io
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scr_watchd import cli
from scr_watchd.daemon.status import Status
from scr_watchd.publish.holder import is_daemon, running
from scr_watchd.publish.state import MOST_PID, REQUESTS, State, left, requested
from tests.fuzzing import ends_within, modest
from tests.trees import image, write_image

_PRINTABLE = re.compile(r"[ -~\n]*")
_SECONDS = 20

Odd = Literal["FIFO", "directory", "link", "endless", "huge", "socket"]
Content = bytes | Odd

odd: st.SearchStrategy[Odd] = st.sampled_from(["FIFO", "directory", "link", "endless", "huge", "socket"])
texts = st.text(max_size=20) | st.sampled_from(
    ["\x1b]0;owned\x07", "\x9b31m", "\n", "a/1", "app", "1", "sha256:" + "0" * 64, "\\x1b", "\u202e", ""]
)
numbers = st.integers() | st.floats(allow_nan=False) | st.sampled_from([10**400, -1, 0, 1, 2**63])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(texts, below, max_size=4),
    max_leaves=10,
)
counts = st.integers(0, 2**53)
problems = st.lists(
    st.fixed_dictionaries(
        {"path": texts, "reason": texts, "remedy": texts}, optional={"owner": st.none() | counts}
    ),
    max_size=3,
)

unlinked = st.lists(
    st.fixed_dictionaries(dict.fromkeys(("kind", "path", "reason", "remedy"), texts) | {"size": counts}),
    max_size=3,
)
unripe = st.lists(
    st.fixed_dictionaries(
        {"image": texts, "reason": texts, "until": st.floats(allow_nan=False, allow_infinity=False)}
    ),
    max_size=2,
)


sights = st.fixed_dictionaries(
    {},
    optional={
        "up": st.none() | st.booleans(),
        "reason": texts,
        "pid": st.sampled_from([0, 1, 10**7, os.getpid()]),
        "way": st.sampled_from(["signal", "process", "command", "none"]),
        "pid_file": texts | st.sampled_from(["/dev/zero", "/proc/self/fd", "/etc/passwd"]),
        "namespace": st.sampled_from([1, os.stat("/proc/self/ns/pid").st_ino]),
    },
)


def _likely(name: str, default: object) -> st.SearchStrategy[Any]:
    """Of the right type, so that it is read and shown."""
    match default:
        case bool():
            return st.booleans()
        case int():
            return counts
        case str():
            return texts
        case None:
            return st.none() | st.floats(allow_nan=False, allow_infinity=False)
        case _ if name == "problems":
            return problems
        case _ if name == "unlinked":
            return unlinked
        case _ if name == "unripe":
            return unripe
        case _ if name == "renamed":
            return st.lists(st.tuples(texts, texts), max_size=2)
        case _ if name == "nginx":
            return sights
        case _ if name == "reader":
            return st.tuples(st.none() | st.integers(0, 9), st.lists(st.integers(0, 9), max_size=2))
        case _:
            return st.lists(texts, max_size=2)


fields = {name: _likely(name, getattr(Status(), name)) for name in Status.__struct_fields__}
right = st.fixed_dictionaries({}, optional=fields)
wrong = st.builds(
    lambda made, name, value: {**made, name: value}, right, st.sampled_from(sorted(fields)), values
)
statuses = right | right | wrong
digests = st.sampled_from([f"sha256:{each * 64}" for each in "01a"] + ["sha512:0", ""])
repositories = st.fixed_dictionaries(
    {
        "tags": st.dictionaries(texts | st.just("1"), digests, max_size=3),
        "manifests": st.dictionaries(
            digests, st.just("application/vnd.oci.image.manifest.v1+json") | texts, max_size=3
        ),
    },
    optional={
        "leaving": st.dictionaries(digests, numbers, max_size=2),
        "referrers": values,
        "listed": values,
    },
)
records = st.fixed_dictionaries(
    {"generation": texts, "repositories": st.dictionaries(texts | st.just("app"), repositories, max_size=3)},
    optional={
        "format": st.sampled_from([1, 1, 1, 2, "1"]),
        "held_since": numbers,
        "root_inode": numbers,
        "lost": values | st.fixed_dictionaries({"since": numbers, "gone": values, "came": numbers}),
    },
)


def _file(likely: st.SearchStrategy[Any]) -> st.SearchStrategy[Content | None]:
    written = (likely | values).map(lambda content: json.dumps(content).encode())
    cut = st.tuples(written, st.integers(0, 60)).map(lambda each: each[0][: -each[1] - 1])
    deep = st.sampled_from([b'{"a":' + b"[" * 100_000, b"[" * 100_000, b'{"problems":' + b"[" * 100_000])
    raw = st.binary(max_size=60) | st.just(b'{"root":"\\ud800"}') | st.just(b'{"pid":1e999}')
    return st.one_of(st.none(), written, written, written, cut, deep, raw, odd)


pids = st.sampled_from([b"-1", b"0", b"1", b"99999999999999999999", b"12 34", b"\x1b[2J", b"1_0", b"\xb2"])
locks = (
    st.none() | pids | st.binary(max_size=30) | st.integers(0, 10**7).map(lambda n: f"{n}\n".encode()) | odd
)


def put(path: Path, content: Content | None) -> None:
    match content:
        case None:
            pass
        case bytes():
            path.write_bytes(content)
        case "FIFO":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to("/etc/passwd")
        case "endless":
            path.symlink_to("/dev/zero")
        case "huge":
            with path.open("wb") as file:
                file.truncate(3 << 30)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(path.parent):
                listener.bind(path.name)


@contextlib.contextmanager
def a_host() -> Iterator[tuple[Path, Path]]:
    with TemporaryDirectory() as name:
        state = Path(name) / "state"
        state.mkdir()
        root = Path(name) / "images"
        write_image(root / "app:1", image("first"))
        yield root, state


def _descriptors() -> set[int]:
    with os.scandir("/proc/self/fd") as entries:
        found = {int(each.name) for each in entries}
    return {each for each in found if os.path.lexists(f"/proc/self/fd/{each}")}


def command(*arguments: object) -> tuple[int, str]:
    """The exit status of a command, in this process, and all that it printed. What it leaves open, such as
    the state that it holds, would be closed with its process."""
    said = io.StringIO()
    before = _descriptors()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), ends_within(_SECONDS):
        status = cli.main([str(each) for each in arguments])
    for descriptor in _descriptors() - before:
        os.close(descriptor)
    assert _PRINTABLE.fullmatch(said.getvalue()), repr(said.getvalue())
    return status, said.getvalue()


@modest
@given(_file(statuses), locks, st.booleans())
@example(status=b'{"only_stored_bytes":1' + 400 * b"0" + b"}", lock=None, held=False)
@example(status=b'{"message":"\\u001b]0;owned\\u0007\\u009b","held":["\\u202e"]}', lock=None, held=False)
def test_status_says_what_any_state_holds(status: Content | None, lock: Content | None, held: bool) -> None:  # noqa: FBT001
    with a_host() as (_, state), contextlib.ExitStack() as stack:
        put(state / "status.json", status)
        put(state / "lock", lock)
        if held and isinstance(lock, bytes):
            file = stack.enter_context((state / "lock").open("rb"))
            fcntl.flock(file, fcntl.LOCK_EX)
        code, _ = command("status", "--state", state)
        assert code in (0, 1, 3, 4, 5, 75)
        assert code == 1 or (code != 4) == bool(held and isinstance(lock, bytes))
        as_json, said = command("status", "--state", state, "--json")
        assert as_json == code
        assert code == 1 or "running" in json.loads(said)
        pid = running(State(state))
        assert pid is None or 0 <= pid <= MOST_PID
        if pid:
            is_daemon(pid, State(state))


@modest
@given(_file(records), _file(statuses), _file(values), st.booleans())
def test_wait_ends_whatever_is_written(
    published: Content | None,
    status: Content | None,
    manifest: Content | None,
    layout: bool,  # noqa: FBT001
) -> None:
    with a_host() as (root, state):
        put(state / "published.json", published)
        put(state / "status.json", status)
        path = root / "odd" / "1"
        path.mkdir(parents=True)
        if layout:
            put(path / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        put(path / ("index.json" if layout else "manifest.json"), manifest)
        for reference in ("app:1", "odd:1"):
            arguments = (reference, "--timeout", "0", "--root", root, "--state", state)
            assert command("wait", *arguments)[0] in (0, 1, 3, 4, 75)
        assert command("check", root, "--state", state)[0] in (0, 3)


@modest
@given(_file(texts))
def test_what_is_no_request_asks_for_nothing(content: Content | None) -> None:
    with a_host() as (_, path), ends_within(_SECONDS):
        state = State(path)
        for what in REQUESTS:
            put(path / f"{what}.request", content)
            text = requested(state, what)
            assert text is None or len(text) <= 64
            assert isinstance(content, bytes) or text is None
        assert bool(left(state)) == (content is not None)


def test_the_strategies_reach_what_is_shown() -> None:
    """Else they would prove nothing: what has the right types is read and printed."""
    made = shown = 0

    @modest
    @given(right)
    def look(status: dict[str, Any]) -> None:
        nonlocal made, shown
        made += 1
        with a_host() as (_, state):
            put(state / "status.json", json.dumps(status).encode())
            shown += command("status", "--state", state)[0] == 4

    look()
    assert shown == made


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param("status.json", ["status"], id="status"),
        pytest.param(
            "published.json", ["wait", "app:1", "--timeout", "0", "--root", "/var/empty"], id="wait"
        ),
    ],
)
def test_a_huge_file_is_a_sentence(name: str, arguments: list[str], tmp_path: Path) -> None:
    put(tmp_path / name, "huge")
    code, said = command(*arguments, "--state", tmp_path)
    assert code == 1
    assert "has 3221225472 bytes, more than" in said
