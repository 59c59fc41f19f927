"""Where it ends: what each part costs us, watchdog and nginx at 100,000 and at 250,000 tags."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scr_watchd.daemon.resolve import catalog_of
from scr_watchd.daemon.watch import Watch
from scr_watchd.files import ANYBODY
from scr_watchd.images.scan import Scanner
from scr_watchd.oci.catalog import Catalog
from scr_watchd.render.http_conf import render
from tests.benchmarks import measure, mirrors, servers
from tests.benchmarks.book import Book
from tests.benchmarks.figures import Bench, dropping
from tests.benchmarks.mirrors import Mirror, cpu_seconds
from tests.benchmarks.trees import make_tree

SIZES = (100_000, 250_000)
Line = tuple[str, str]


def measure_limits(directory: Path, say: Callable[[str], None], sizes: tuple[int, ...] = SIZES) -> None:
    for tags in sizes:
        place = directory / str(tags)
        place.mkdir()
        mirror = Mirror(make_tree(place / "images", tags, heavy=directory / "heavy"), place)
        say(f"\n| {tags:,} tags | |\n|---|---|")
        for group in (_daemon, _passes, _watchdog, _nginx):
            for what, figure in group(mirror):
                say(f"| {what} | {figure} |")
        shutil.rmtree(place)


def _daemon(mirror: Mirror) -> Iterator[Line]:
    with mirrors.site(mirror) as (_, config):
        with mirrors.running(mirror, config, seconds=1800) as daemon:
            yield "first start to READY", f"{daemon.seconds_to_ready:.1f} s"
        with mirrors.running(mirror, config, seconds=1800) as daemon:
            yield "start with its state kept", f"{daemon.seconds_to_ready:.1f} s"
            yield "memory of the daemon, idle", f"{daemon.resident():.0f} MB"
            peak = measure.megabytes(measure.status(daemon.process.pid, "VmHWM"))
            yield "and at its peak", f"{peak:.0f} MB"
            yield "CPU of a rescan", f"{daemon.rescan():.1f} s"
    bench = Bench(Book(), mirror, seconds=1, patience=1, runs=1)
    with dropping(bench) as (ours, _):
        ours()
        usage = ours()
        yield "from drop to pull", f"{usage.wall:.1f} s"
        yield "CPU of that, nginx included", f"{usage.cpu:.1f} s"


def _passes(mirror: Mirror) -> Iterator[Line]:
    scanner = Scanner(mirror.tree.root, reader=ANYBODY)
    yield "scan that reads everything, CPU", f"{cpu_seconds(scanner.full):.1f} s"
    yield "full scan, CPU", f"{cpu_seconds(scanner.full):.1f} s"
    yield "light scan, CPU", f"{cpu_seconds(scanner.light):.1f} s"
    catalogs: list[Catalog] = []
    images = scanner.light().images
    yield "catalog, CPU", f"{cpu_seconds(lambda: catalogs.append(catalog_of(images))):.1f} s"
    yield "render, CPU", f"{cpu_seconds(lambda: render(catalogs[0], store='/store')):.1f} s"


def _watchdog(mirror: Mirror) -> Iterator[Line]:
    watch = Watch(mirror.tree.root, lambda: None, events=True)
    before, began = measure.status(os.getpid(), "VmRSS"), time.monotonic()
    yield "watching every directory, CPU", f"{cpu_seconds(watch.ensure):.1f} s"
    grown = measure.megabytes(measure.status(os.getpid(), "VmRSS") - before)
    yield "and", f"{time.monotonic() - began:.1f} s, {grown:.0f} MB"
    watch.close()


def _nginx(mirror: Mirror) -> Iterator[Line]:
    size = measure.megabytes((mirror.current / "http.conf").stat().st_size)
    yield "http.conf", f"{size:.1f} MB"
    usage = servers.nginx_test(mirror.directory / "parse", mirror.http, mirror.server)
    yield "`nginx -t`, CPU", f"{usage.cpu:.2f} s"
    with servers.nginx(mirror.directory / "ours", mirror.http, mirror.server) as serving:
        peak = measure.megabytes(measure.status(serving.pid, "VmHWM"))
        yield "nginx's master, peak", f"{peak:.0f} MB"
        path = mirror.tree.last.manifest_path
        yield "manifest by tag", f"{servers.load(serving, path, seconds=3).requests_a_second:,.0f} requests/s"
