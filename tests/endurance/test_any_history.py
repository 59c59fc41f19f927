"""Whatever happens in the tree, to the daemon and to nginx: what is served is what a naive model says.

The model reads the real tree file by file, and remembers what was served last. A tag that is complete in
the tree is served with that digest; one whose directory is there and incomplete is served as it was; any
other is not served. And all that is served has the bytes that its digests say.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from scr_watchd.commands.running import Keeper, Lasting, build
from scr_watchd.daemon.outcome import Unchanged
from scr_watchd.daemon.pulse import Pulse
from scr_watchd.daemon.systemd import Notifier
from scr_watchd.files import ANYBODY
from scr_watchd.images.sparse import Ripening
from scr_watchd.publish import master
from scr_watchd.publish.nginx import inspect
from scr_watchd.publish.outcome import Published
from scr_watchd.publish.publisher import STEPS
from scr_watchd.publish.reload import Reloading, find_master
from scr_watchd.publish.site import Site as PassSite
from scr_watchd.settings import Settings
from tests.daemons import Daemon, daemon, remove, start_nginx
from tests.endurance.hosts import (
    CHAOS_SECONDS,
    Reference,
    candidates,
    expected,
    host,
    image_of,
    layer,
    served,
    untrue,
)
from tests.trees import Built, image, index, without
from tests.waiting import until

pytestmark = pytest.mark.slow

PATHS = ["a:1", "a/1", "a:2", "a:RC1", "a:rc1", "a/b:1", "c/d:1", "c/d/2"]
base = layer("base", 1000)
POOL = [
    image_of("one", [base, b"one"]),
    image_of("two", [base, b"two"]),
    image("three"),
    index(image("three"), image("four")),
    without(index(image("five"), image("three")), image("five")),
]
CONTENTS = {name: content for built in POOL for name, content in built.files.items()}

paths = st.sampled_from(PATHS)
images = st.sampled_from(POOL)
hurry = st.booleans()
a_few = st.integers(1, 4)


class KilledError(BaseException):
    """The process was ended here."""


class History(RuleBasedStateMachine):
    """What happens to a tree; how it is looked at is for those below to say."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.last: dict[Reference, str] = {}
        self.ever: set[tuple[str, str]] = set()
        self.copies: dict[str, Iterator[None]] = {}
        self.damaged = False
        """Whether bytes that the store may need were taken from it: then it cannot keep what it had."""
        self.in_hurry = False
        self.in_place = False
        self.sparse: set[str] = set()
        """The indexes that were there without all of their children."""

    @initialize(grace=st.sampled_from([0, 3600]))
    def begin(self, grace: int) -> None:
        self.grace = grace
        self.host = self.stack.enter_context(host("--grace-seconds", grace, "--hold-seconds", 0))
        self.outside = self.host.images.parent / "outside"
        self.outside.mkdir()
        self.host.start()

    def teardown(self) -> None:
        self.stack.close()

    def directory(self, path: str) -> Path:
        return self.host.images / path

    def is_complete(self, path: str) -> bool:
        there = (each for found in candidates(self.host.images).values() for each in found)
        return any(each.path == path and each.digest for each in there)

    # -- writers ---------------------------------------------------------------------------------------

    @rule(path=paths, built=images, hurry=hurry)
    def drop(self, path: str, built: Built, *, hurry: bool) -> None:
        """A whole image, copied as skopeo does."""
        self.copies.pop(path, None)
        for _ in _copy_like_skopeo(self.directory(path), built):
            pass
        self.in_hurry = hurry

    @rule(path=paths, built=images, pieces=a_few, way=st.sampled_from(["skopeo", "cp"]))
    def begin_copy(self, path: str, built: Built, pieces: int, way: str) -> None:
        """A copy over whatever is there, of which only the beginning is done now."""
        copy = _copy_like_skopeo if way == "skopeo" else _copy_like_cp
        if way == "cp" and self.is_in_place(path):
            if self.is_served_elsewhere(*self.files(path)):
                return
            self.damaged = self.in_place = True
        self.copies[path] = copy(self.directory(path), built)
        self.write(path, pieces)

    @precondition(lambda self: self.copies)
    @rule(data=st.data(), pieces=a_few, hurry=hurry)
    def go_on_copying(self, data: st.DataObject, pieces: int, *, hurry: bool) -> None:
        path = data.draw(st.sampled_from(sorted(self.copies)))
        if self.is_served_elsewhere(*self.files(path)):
            return
        if self.is_in_place(path):
            self.in_place = True
        self.write(path, pieces)
        self.in_hurry = hurry

    @precondition(lambda self: self.copies)
    @rule(data=st.data())
    def break_off_a_copy(self, data: st.DataObject) -> None:
        del self.copies[data.draw(st.sampled_from(sorted(self.copies)))]

    def write(self, path: str, pieces: int) -> None:
        try:
            for _ in range(pieces):
                next(self.copies[path])
        except (StopIteration, OSError):  # it is done, or somebody took its directory away
            del self.copies[path]

    def is_in_place(self, path: str) -> bool:
        """Whether a copy to ``path`` may write to files that are there already."""
        return self.directory(path).is_dir()

    def is_served_elsewhere(self, *files: Path) -> bool:
        """Whether the store has one of ``files`` for a repository that it was moved away from. If it is
        cut off then, in place, that is not seen before that repository changes."""
        here = {file.stat().st_ino: str(file.relative_to(self.host.images).parent) for file in files}
        store = self.host.state / "store"
        return any(
            not here[inode].startswith((f"{repository}:", f"{repository}/"))
            for link in store.rglob(".blobs/sha256/*")
            for inode, repository in [(link.stat().st_ino, str(link.relative_to(store).parents[2]))]
            if inode in here
        )

    # -- people ----------------------------------------------------------------------------------------

    @rule(path=paths, hurry=hurry)
    def remove(self, path: str, *, hurry: bool) -> None:
        if self.directory(path).is_symlink():
            self.directory(path).unlink()
        elif self.directory(path).is_dir():
            remove(self.directory(path))
        self.in_hurry = hurry

    @rule(path=paths, data=st.data())
    def remove_a_file(self, path: str, data: st.DataObject) -> None:
        if files := self.files(path):
            data.draw(st.sampled_from(files)).unlink()

    @rule(path=paths, other=paths)
    def rename(self, path: str, other: str) -> None:
        """A tag gets another name; what has that name already goes, if there is something better."""
        source, destination = self.directory(path), self.directory(other)
        if not source.is_dir() or source.is_symlink() or path == other:
            return
        if os.path.lexists(destination):
            if destination.is_symlink() or not (self.is_complete(path) and self.files(other)):
                return
            destination.rename(self.outside / f"replaced-{len(os.listdir(self.outside))}")
        destination.parent.mkdir(parents=True, exist_ok=True)
        source.rename(destination)

    @rule(path=paths, other=paths)
    def swap(self, path: str, other: str) -> None:
        if path != other and self.is_complete(path) and self.is_complete(other):
            self.directory(path).rename(self.outside / "swapped")
            self.directory(other).rename(self.directory(path))
            (self.outside / "swapped").rename(self.directory(other))

    @rule(path=paths)
    def move_away_or_back(self, path: str) -> None:
        here, there = self.directory(path), self.outside / path.replace("/", "-")
        if here.is_dir() and not here.is_symlink() and not there.exists():
            here.rename(there)
        elif there.exists() and not os.path.lexists(here):
            here.parent.mkdir(parents=True, exist_ok=True)
            there.rename(here)

    @rule(names=st.sampled_from([("a", "e"), ("e", "a"), ("c", "f"), ("f", "c")]))
    def rename_a_directory_of_repositories(self, names: tuple[str, str]) -> None:
        old, new = map(self.directory, names)
        if old.is_dir() and not new.exists():
            old.rename(new)

    @rule(path=st.sampled_from(["a:latest", "c/d:latest", "g:1"]), other=paths)
    def link(self, path: str, other: str) -> None:
        """A symbolic link is one more tag."""
        link = self.directory(path)
        if self.is_complete(other) and not self.directory(other).is_symlink():
            link.unlink(missing_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(self.directory(other), link.parent))

    @rule()
    def hardlink(self) -> None:
        """As `hardlink -c` does: files of the same content become one."""
        first: dict[bytes, Path] = {}
        for path in PATHS:
            for file in self.files(path):
                original = first.setdefault(file.read_bytes(), file)
                if not original.samefile(file):
                    temporary = file.with_name(f"{file.name}.hardlink-temporary")
                    os.link(original, temporary)
                    temporary.rename(file)

    @rule(path=paths, data=st.data(), cut=st.booleans())
    def write_in_place(self, path: str, data: st.DataObject, *, cut: bool) -> None:
        """A blob becomes rotten, or is cut off."""
        blobs = [file for file in self.files(path) if file.name in CONTENTS and "." not in file.name]
        if blobs and self.is_complete(path):
            file = data.draw(st.sampled_from(blobs))
            if cut and self.is_served_elsewhere(file):
                return
            self.damaged = self.damaged or file.stat().st_nlink > 1
            self.in_place = True
            content = CONTENTS[file.name]
            _overwrite(file, content[:-1] if cut else content[:-1] + bytes([content[-1] ^ 1]))

    @rule()
    def mend(self) -> None:
        """What is rotten or cut off is written again, in place."""
        for path in PATHS:
            for file in self.files(path):
                if file.name in CONTENTS and file.read_bytes() != CONTENTS[file.name]:
                    _overwrite(file, CONTENTS[file.name])
                    self.in_place = True

    @rule(everything=st.booleans())
    def damage_the_store(self, *, everything: bool) -> None:
        """Links are lost: what is complete in the tree comes back, what is not is gone."""
        self.damaged = True
        store = self.host.state / "store"
        for link in sorted(store.rglob(".blobs/sha256/*"))[: None if everything else 1]:
            link.unlink()
        if everything:
            for copy in sorted(store.rglob(".manifests/*/[0-9a-f]*")):
                copy.unlink()

    def files(self, path: str) -> list[Path]:
        directory = self.directory(path)
        if not directory.is_dir() or directory.is_symlink():
            return []
        return sorted(each for each in directory.iterdir() if each.is_file())

    # -- nginx -----------------------------------------------------------------------------------------

    @rule()
    def somebody_reloads_nginx(self) -> None:
        assert self.host.site.process
        self.host.site.process.send_signal(signal.SIGHUP)

    @rule()
    def somebody_restarts_nginx(self) -> None:
        assert self.host.site.process
        self.host.site.process.terminate()
        self.host.site.process.wait(10)
        start_nginx(self.host.site, self.host.nginx)

    # -- what is served ---------------------------------------------------------------------------------

    def disagreement(self) -> str:
        """How what is served differs from the model, if it does."""
        now, tree, there = served(self.host.site), expected(self.host.images), candidates(self.host.images)
        self.sparse |= {each.sparse for found in there.values() for each in found if each.sparse}
        for reference in {*now, *tree, *there, *self.last}:
            if reference in tree:
                allowed: set[str | None] = {tree[reference]}
            elif reference in there:
                rotten = {each.digest for each in there[reference] if each.rotten}
                before = self.last.get(reference)
                sparse = {each.sparse for each in there[reference] if each.sparse}
                allowed = {before, *rotten, *sparse, *([None] if self.damaged else [])}
            else:
                allowed = {None}
            if now.get(reference) not in allowed:
                return f"{reference} is {now.get(reference)}, not {allowed}"
        every = {(name, digest) for (name, _), digest in now.items()}
        if self.grace and not self.damaged:
            every |= self.ever
        wrong = [each for pair in sorted(every) for each in untrue(self.host.site, *pair, self.sparse)]
        return "; ".join(wrong)

    def agree(self) -> None:
        self.last = served(self.host.site)
        if self.damaged:
            self.ever.clear()
        self.ever |= {(name, digest) for (name, _), digest in self.last.items()}
        self.in_hurry = self.in_place = False


class Passes(History):
    """Each look is one pass in this process: then all agrees, with no second look."""

    @initialize(grace=st.sampled_from([0, 3600]), quiet=st.sampled_from([0, 3600]))
    def begin(self, grace: int, quiet: int = 0) -> None:
        super().begin(grace)
        self.quiet = quiet
        self.lasting = Lasting()
        self.stack.callback(self.unlock)
        self.dies_at = ""
        self.restart()

    def unlock(self) -> None:
        for descriptor in self.lasting.locks.values():
            os.close(descriptor)

    @rule()
    def restart(self) -> None:
        binary = inspect(self.host.nginx)
        reloading = Reloading(
            way="signal",
            pid_file=lambda: self.host.site.directory / "nginx.pid",
            command=(),
            question=None,
            by_process=True,
            seconds=15,
        )
        config = self.host.site.config if os.geteuid() == 0 else None
        self.keeper: Keeper = build(
            Settings(
                root=self.host.images,
                state=self.host.state,
                grace_seconds=self.grace,
                hold_seconds=0,
                watch="poll",
            ),
            PassSite(binary, config, 30),
            reloading,
            reader=ANYBODY,
            worker_user=lambda: master.worker_user(find_master(reloading)),
            own_nginx=False,
            inbox=SimpleQueue(),
            pulse=Pulse(Notifier({})),
            lasting=self.lasting,
        )
        self.keeper.mirror.publisher.reached = self.reached
        self.keeper.mirror.ripe.ripening = Ripening(quiet_seconds=self.quiet, losing_seconds=self.quiet)

    @rule(step=st.sampled_from(STEPS))
    def the_next_pass_ends_here(self, step: str) -> None:
        self.dies_at = step
        self.in_hurry = True

    def reached(self, step: str) -> None:
        if step == self.dies_at:
            raise KilledError(step)

    @invariant()
    def all_agrees_after_one_pass(self) -> None:
        if self.in_hurry and not self.in_place:
            return
        try:
            self.look()
        except KilledError:
            self.restart()
            self.dies_at = ""
            self.look()
        wrong = self.disagreement()
        assert not wrong, f"{wrong}\n{self.keeper.mirror.found}\n{candidates(self.host.images)}"
        self.agree()

    def look(self) -> None:
        outcome = self.keeper.look()
        assert isinstance(outcome, Published | Unchanged), outcome
        self.keeper.reporter.report(outcome, self.keeper.mirror.found)


class Daemons(History):
    """Each look is waited for; the daemon is killed now and then."""

    @initialize(grace=st.sampled_from([0, 3600]))
    def begin(self, grace: int) -> None:
        super().begin(grace)
        self.start()

    def start(self) -> None:
        arguments = self.host.arguments("--quiet-seconds", "0.05")
        self.process: Daemon = self.stack.enter_context(daemon(*arguments))

    @rule()
    def kill(self) -> None:
        self.process.process.kill()
        self.process.process.wait()
        self.start()

    @rule(path=paths, built=images)
    def drop_and_kill(self, path: str, built: Built) -> None:
        self.drop(path, built, hurry=True)
        self.kill()

    @invariant()
    def all_agrees_in_time(self) -> None:
        if self.in_place:  # no file event tells of it, and the rescan may take ten seconds
            self.process.process.send_signal(signal.SIGHUP)
        until(self.disagreement, lambda wrong: not wrong, seconds=15)
        assert "Traceback" not in self.process.said()
        self.agree()


def _copy_like_skopeo(directory: Path, built: Built) -> Iterator[None]:
    """Everything goes first; then one file after the other, the manifest last."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in sorted(directory.iterdir()):
        path.unlink()
    yield
    (directory / "version").write_text("Directory Transport Version: 1.1\n")
    for name, content in built.files.items():
        if name.endswith(".json"):
            (directory / name).write_bytes(content)
        else:
            (directory / "dir-put-blob1").write_bytes(content)
            (directory / "dir-put-blob1").rename(directory / name)
        yield
    (directory / "manifest.json").write_bytes(b"")
    yield
    (directory / "manifest.json").write_bytes(built.raw)


def _copy_like_cp(directory: Path, built: Built) -> Iterator[None]:
    """Over what is there, the manifest first; a file grows under its name."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in {"manifest.json": built.raw, **built.files}.items():
        _overwrite(directory / name, content[: len(content) // 2])
        yield
        _overwrite(directory / name, content)


def _overwrite(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)


def _run(machine: type[History], *, examples: int, steps: int, shrink: bool) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(1, examples * CHAOS_SECONDS // 60),
            stateful_step_count=steps,
            phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_after_any_history_one_pass_makes_all_agree() -> None:
    _run(Passes, examples=30, steps=25, shrink=True)


def test_a_daemon_makes_all_agree_whatever_happens() -> None:
    # each wrong step takes its whole deadline: nobody could wait for a smaller example
    _run(Daemons, examples=6, steps=15, shrink=False)
