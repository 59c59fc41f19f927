"""How each figure is measured. Every function measures one group at one number of tags into a book.

They are also what to put under a profiler: `python -m tests.benchmarks --figures light --sizes 10000`.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path

from tests.benchmarks import measure, mirrors, original, servers
from tests.benchmarks.book import Book
from tests.benchmarks.floor import floor
from tests.benchmarks.measure import Sample, Usage, interleaved
from tests.benchmarks.mirrors import Mirror, Passes
from tests.benchmarks.servers import Serving, load
from tests.benchmarks.trees import TYPED, Target, Tree, link_tree, path_of
from tests.clients.real_images import skopeo
from tests.http import ask
from tests.trees import image, write_image
from tests.waiting import until

_RACY_SECONDS = 2.1  # what is younger is looked at again, because its timestamps may lie
_MANY_TAGS = 10_000  # with more than these one run takes so long that some are left out
_RELOAD = b": reconfiguring"


@dataclass(frozen=True)
class Bench:
    """What the figures of one size work with. ``seconds`` is how long a load lasts, ``patience`` how
    long an idle daemon is looked at."""

    book: Book
    mirror: Mirror
    seconds: int
    patience: int
    runs: int
    beside: Path | None = None
    """Another checkout, to be compared with."""

    @property
    def tree(self) -> Tree:
        return self.mirror.tree

    @property
    def tags(self) -> int:
        return self.tree.tags

    @property
    def original(self) -> Path:
        """The file of the original's shape for this tree."""
        path = self.mirror.directory / "original.conf"
        if not path.exists():
            path.write_text("".join(original.generate(str(self.tree.root))))
        return path

    def note(self, key: str, ours: Sample, theirs: Sample | None = None) -> None:
        self.book.note(key, self.tags, ours, theirs)

    def interleaved(self, *measures: Callable[[], float]) -> list[Sample]:
        return interleaved(*measures, runs=self.runs, warm_up=self.tags <= _MANY_TAGS)

    @contextmanager
    def ours(self) -> Iterator[Serving]:
        with servers.nginx(self.mirror.directory / "ours", self.mirror.http, self.mirror.server) as serving:
            yield serving

    @contextmanager
    def theirs(self) -> Iterator[Serving]:
        """An nginx of the original's shape; all else is as ours."""
        with servers.nginx(
            self.mirror.directory / "theirs", servers.RECOMMENDED, f"include {self.original};"
        ) as serving:
            yield serving

    @contextmanager
    def registry(self, *images: Target) -> Iterator[Serving]:
        """docker-registry with these images."""
        with servers.docker_registry(self.mirror.directory / "registry", self.tree.root, *images) as serving:
            yield serving


# -- nginx reads it ------------------------------------------------------------------------------------


def parse(bench: Bench) -> None:
    directory = bench.mirror.directory / "parse"

    def ours() -> float:
        return servers.nginx_test(directory, bench.mirror.http, bench.mirror.server).cpu

    def theirs() -> float:
        return servers.nginx_test(directory, "", f"include {bench.original};").cpu

    if bench.tags <= _MANY_TAGS:
        bench.note("parse-cpu", *bench.interleaved(ours, theirs))
    else:  # theirs takes twenty seconds
        (sample,) = bench.interleaved(ours)
        bench.note("parse-cpu", sample, Sample((theirs(),)))


# -- nginx serves it -----------------------------------------------------------------------------------


def small_blob(bench: Bench) -> None:
    """And the memory of those nginx, before they serve."""
    path = bench.tree.last.blob_path(0)
    with bench.ours() as ours, bench.theirs() as theirs:
        _memory(bench, ours, theirs)
        _loads(bench, [ours, theirs], path, "small-blob")


def _memory(bench: Bench, *servers: Serving) -> None:
    """Of the master, what it took to read the file; of the only worker, what it holds of its own."""
    masters, workers = [], []
    for each in servers:
        master, worker = measure.family(each.pid)
        masters.append(Sample((measure.megabytes(measure.status(master, "VmHWM")),)))
        workers.append(Sample((measure.megabytes(measure.status(worker, "RssAnon")),)))
    bench.note("parse-memory", *masters)
    bench.note("worker-memory", *workers)


def manifest(bench: Bench) -> None:
    """docker-registry holds this image only, whatever the size of the tree: that favours it."""
    with bench.ours() as ours, bench.registry(bench.tree.last) as theirs:
        _loads(bench, [ours, theirs], bench.tree.last.manifest_path, "manifest")


def digests(bench: Bench) -> None:
    """By digest, one of each type, and by tag, beside what another checkout makes of the same tree."""
    sides = [bench.mirror]
    if bench.beside is not None:
        sides.append(mirrors.publish_by(bench.beside, bench.mirror))
    paths = {f"digest-{name}": path_of(name) for name in TYPED} | {"tag": bench.tree.last.manifest_path}
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                servers.nginx(side.directory / f"{side.state_name}-site", side.http, side.server)
            )
            for side in sides
        ]
        for key, path in paths.items():
            if key != "tag" or bench.beside is not None:  # alone it is the figure manifest
                _loads(bench, running, path, key)
        if bench.beside is not None:
            peaks = [measure.megabytes(measure.status(each.pid, "VmHWM")) for each in running]
            bench.note("beside-parse-memory", *(Sample((peak,)) for peak in peaks))
    sizes = [measure.megabytes((side.current / "http.conf").stat().st_size) for side in sides]
    bench.note("config", *(Sample((size,)) for size in sizes))
    if bench.beside is not None:
        parsing = [
            lambda side=side: servers.nginx_test(side.directory / "parse", side.http, side.server).cpu
            for side in sides
        ]
        bench.note("beside-parse-cpu", *bench.interleaved(*parsing))


def large_blobs(bench: Bench) -> None:
    tree = bench.tree
    with bench.ours() as ours, bench.registry(tree.six, tree.hundred) as theirs:
        for key, target in (("six", tree.six), ("hundred", tree.hundred)):
            bench.note(key, *bench.interleaved(*_rates(bench, target.blob_path(-1), ours, theirs)))


def _loads(bench: Bench, running: list[Serving], path: str, key: str) -> None:
    """Requests a second and a CPU second, of the same runs; ours, and theirs if there is one."""
    walls: list[list[float]] = [[] for _ in running]

    def of(server: Serving, wall: list[float]) -> Callable[[], float]:
        def one() -> float:
            got = load(server, path, seconds=bench.seconds)
            wall.append(got.requests_a_second)
            return got.requests_a_cpu_second

        return one

    bench.note(key, *bench.interleaved(*map(of, running, walls)))
    bench.note(f"{key}-wall", *(Sample(tuple(each[-bench.runs :])) for each in walls))


def _rates(bench: Bench, path: str, *each: Serving) -> list[Callable[[], float]]:
    return [
        lambda server=server: load(server, path, seconds=bench.seconds, connections=4).megabytes_a_cpu_second  # type: ignore[misc]
        for server in each
    ]


# -- passes --------------------------------------------------------------------------------------------


def passes(bench: Bench) -> None:
    """Beside them the generator of the original's shape, which always reads everything."""
    until(time.time, lambda now: now > _newest(bench.tree) + _RACY_SECONDS)
    generator = ["/usr/bin/env", "python3", original.__file__, bench.tree.root]
    with mirrors.passes(bench.mirror) as here:
        here.full()
        ours = [here.light, here.full, _changing(bench.tree, here)]
        if bench.tags <= _MANY_TAGS:  # beyond, it takes long and says the same
            *samples, theirs = bench.interleaved(*ours, lambda: measure.run(generator).cpu)
        else:
            samples, theirs = bench.interleaved(*ours), None
    for key, sample in zip(("light", "full", "one"), samples, strict=True):
        bench.note(key, sample, theirs)
    shutil.rmtree(bench.tree.root / "bench")


def _changing(tree: Tree, here: Passes) -> Callable[[], float]:
    """Changes one tag and makes the pass that finds it; returns the CPU seconds of that pass."""
    number = count()

    def one() -> float:
        write_image(tree.root / "bench" / "changing", image(f"number {next(number)}"))
        return here.at("bench/changing")

    return one


def _newest(tree: Tree) -> float:
    return (tree.root / tree.last.directory / "manifest.json").stat().st_ctime


# -- the daemon starts ---------------------------------------------------------------------------------


def start(bench: Bench) -> None:
    """Beside an nginx that runs. Cold is without a state directory: every link is made. The first one
    stays, for the figures that follow."""
    numbers = count(1)

    def ready(mirror: Mirror) -> float:
        with mirrors.site(mirror) as (_, config), mirrors.running(mirror, config) as daemon:
            return daemon.seconds_to_ready

    def cold() -> float:
        is_first = not bench.mirror.state.exists()
        return ready(bench.mirror if is_first else bench.mirror.fresh(next(numbers)))

    runs = bench.runs if bench.tags <= _MANY_TAGS else 1
    for key, measured in (("cold", cold), ("warm", lambda: ready(bench.mirror))):
        bench.note(key, *interleaved(measured, runs=runs, warm_up=False))


# -- from drop to pull ---------------------------------------------------------------------------------


@dataclass
class Dropper:
    """Drops one image after another into a tree with skopeo, and pulls each."""

    root: Path
    serving: Serving
    source: Path
    numbers: Iterator[int]

    def drop(self) -> Usage:
        """From the last byte that skopeo wrote to the end of the first pull, and what nginx spent."""
        target = self.root / "bench" / f"dropped{next(self.numbers)}"
        target.parent.mkdir(exist_ok=True)
        before = self.serving.cpu()
        skopeo("copy", "--quiet", "--insecure-policy", f"dir:{self.source}", f"dir:{target}")
        written = (target / "manifest.json").stat().st_mtime_ns / 1e9
        path = f"/v2/bench/manifests/{target.name}"
        until(lambda: ask(self.serving.address, path).status == 200, seconds=60)
        for blob in self.source.glob("?" * 64):
            until(lambda blob=blob: self._has(blob.name), seconds=10)  # type: ignore[misc]
        return Usage(time.time() - written, self.serving.cpu() - before)

    def _has(self, hexadecimal: str) -> bool:
        return ask(self.serving.address, f"/v2/bench/blobs/sha256:{hexadecimal}").status == 200


def drop(bench: Bench) -> None:
    """With default settings; the loop has a tree of its own, of the same files. In turn with them the
    floor, of which each of our drops is a multiple."""
    with dropping(bench) as (our_drop, source), floor(bench.mirror) as floored:
        if bench.tags > _MANY_TAGS:  # the loop takes half a minute for each image there
            pairs = [(our_drop().wall, floored()) for _ in range(bench.runs)]
            drops, floors = (Sample(each) for each in zip(*pairs, strict=True))
            bench.note("drop", drops)
        else:
            with _looping(bench, source) as their_drop:
                rounds = [(our_drop(), their_drop(), floored()) for _ in range(bench.runs + 1)][1:]
            _note_drops(bench, [(ours, theirs) for ours, theirs, _ in rounds])
            drops = Sample(tuple(ours.wall for ours, _, _ in rounds))
            floors = Sample(tuple(each for _, _, each in rounds))
    bench.note("floor", floors)
    bench.note("drop-floors", Sample(tuple(each / floors.median for each in drops.values)))


@contextmanager
def dropping(bench: Bench) -> Iterator[tuple[Callable[[], Usage], Path]]:
    """The daemon at work; a call that drops an image, pulls it, and says what that took; the image."""
    source = write_image(bench.mirror.directory / "source", image("dropped"))
    with mirrors.site(bench.mirror) as (serving, config), mirrors.running(bench.mirror, config) as daemon:
        ours = Dropper(bench.tree.root, serving, source, count())
        daemon.settle()

        def our_drop() -> Usage:
            _until_it_may_reload(daemon)
            before = daemon.cpu()
            usage = ours.drop()
            return Usage(usage.wall, usage.cpu + daemon.cpu() - before)

        yield our_drop, source
    shutil.rmtree(bench.tree.root / "bench")


def _note_drops(bench: Bench, pairs: list[tuple[Usage, Usage]]) -> None:
    theirs = Sample(tuple(their.wall for _, their in pairs))
    bench.note("drop", Sample(tuple(our.wall for our, _ in pairs)), theirs)
    cpus = [Sample(tuple(each)) for each in zip(*((our.cpu, their.cpu) for our, their in pairs), strict=True)]
    bench.note("publish-cpu", *cpus)


@contextmanager
def _looping(bench: Bench, source: Path) -> Iterator[Callable[[], Usage]]:
    """An inotifywait loop over a second tree, and an nginx that reads what it writes."""
    tree = link_tree(bench.tree, bench.mirror.directory / "their-images")
    included = bench.mirror.directory / "loop.conf"
    included.write_text("".join(original.generate(str(tree.root))))
    directory = bench.mirror.directory / "loop"
    (tree.root / "bench").mkdir()  # a directory that appears is watched only after a moment
    with (
        servers.nginx(directory, servers.RECOMMENDED, f"include {included};", workers=2) as serving,
        servers.inotify_loop(tree.root, included, directory, directory / "nginx.conf") as pid,
    ):
        theirs = Dropper(tree.root, serving, source, count())

        def their_drop() -> Usage:
            before = measure.cpu_of_family(pid)
            usage = theirs.drop()
            return Usage(usage.wall, usage.cpu + measure.cpu_of_family(pid) - before)

        yield their_drop


def _until_it_may_reload(daemon: mirrors.Daemon) -> None:
    """Images come one at a time here: wait until the shortest time between two reloads is over."""
    last = daemon.log.stat().st_mtime
    until(time.time, lambda now: now > last + 2.2)


# -- the daemon is idle --------------------------------------------------------------------------------


def idle(bench: Bench) -> None:
    """No rescan comes while it is looked at; what one costs is measured by asking for some."""
    with (
        mirrors.site(bench.mirror) as (serving, config),
        mirrors.running(bench.mirror, config, "--rescan-seconds", 86400) as daemon,
    ):
        resident = daemon.resident()
        before, woken = measure.cpu_of_threads(daemon.process.pid), daemon.switches()
        load(serving, bench.tree.last.blob_path(0), seconds=bench.patience)
        spent, woken = measure.cpu_of_threads(daemon.process.pid) - before, daemon.switches() - woken
        rescan = Sample((daemon.rescan(),))
    bench.note("idle", Sample((100 * spent / bench.patience,)))
    bench.note("wakes", Sample((60 * woken / bench.patience,)))
    # every 10 s, or after fifty times what it costs
    bench.note("rescans", Sample(tuple(100 * cost / max(10, 50 * cost) for cost in rescan.values)))
    with bench.registry(bench.tree.last) as registry:
        theirs = measure.megabytes(measure.status(registry.pid, "VmRSS"))
    bench.note("resident", Sample((resident,)), Sample((theirs,)))


def burst(bench: Bench, *, images: int = 1000, seconds: float = 10) -> None:
    """Many images, evenly over some seconds; how soon after the last all can be pulled."""
    with mirrors.site(bench.mirror) as (serving, config), mirrors.running(bench.mirror, config) as daemon:
        _until_it_may_reload(daemon)
        with _reloads(config.with_name("error.log")) as reloads:
            began = time.monotonic()
            for number in range(images):
                due = began + number * seconds / images
                time.sleep(max(0, due - time.monotonic()))
                write_image(bench.tree.root / "bench" / f"burst{number}", image(f"burst {number}"))
            last = time.monotonic()
            until(lambda: len(_tags(serving)) == images, seconds=60)
            bench.note("burst", Sample((time.monotonic() - last,)))
        for tag in _tags(serving):
            assert ask(serving.address, f"/v2/bench/manifests/{tag}").status == 200
        gaps = [after - before for before, after in pairwise(reloads)]
        bench.note("burst-gap", Sample((min(gaps),)))
    shutil.rmtree(bench.tree.root / "bench")


@contextmanager
def _reloads(log: Path) -> Iterator[list[float]]:
    """When nginx began to read its configuration again, as its log tells."""
    moments: list[float] = []
    before = log.read_bytes().count(_RELOAD)
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            if log.read_bytes().count(_RELOAD) - before > len(moments):
                moments.append(time.monotonic())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield moments
    finally:
        done.set()
        thread.join()


def _tags(serving: Serving) -> list[str]:
    answer = ask(serving.address, "/v2/bench/tags/list")
    return list(answer.json()["tags"]) if answer.status == 200 else []


FIGURES: dict[str, Callable[[Bench], None]] = {
    "start": start,
    "parse": parse,
    "small-blob": small_blob,
    "manifest": manifest,
    "digests": digests,
    "large-blobs": large_blobs,
    "passes": passes,
    "drop": drop,
    "idle": idle,
    "burst": burst,
}
