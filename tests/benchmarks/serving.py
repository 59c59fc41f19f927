"""What nginx's own settings are worth: each against the recommended ones, in interleaved runs."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.benchmarks import servers
from tests.benchmarks.measure import Sample, interleaved
from tests.benchmarks.mirrors import Mirror
from tests.benchmarks.servers import RECOMMENDED, Serving, load
from tests.nginxes import require

_CACHE = "open_file_cache max=10000 inactive=20s; open_file_cache_valid 30s;"
_RUNS = 5


@dataclass(frozen=True)
class Variant:
    name: str
    http: str = RECOMMENDED
    main: str = "pcre_jit on;"
    workers: int = 1


VARIANTS = (
    Variant("recommended"),
    Variant("without tcp_nopush", http="sendfile on; sendfile_max_chunk 512k;"),
    Variant("without sendfile", http="tcp_nopush on;"),
    Variant("sendfile_max_chunk 2m, nginx's default", http="sendfile on; tcp_nopush on;"),
    Variant("sendfile_max_chunk 128k", http="sendfile on; tcp_nopush on; sendfile_max_chunk 128k;"),
    Variant("without pcre_jit", main=""),
    Variant("with open_file_cache", http=f"{RECOMMENDED} {_CACHE}"),
    Variant("with two workers", workers=2),
)


def measure_serving(mirror: Mirror, say: Callable[[str], None]) -> None:
    """Print a table: requests or megabytes a CPU second, and small requests beside large downloads."""
    mirror.publish()
    tree = mirror.tree
    ways: dict[str, Callable[[Serving], float]] = {
        "small blob, requests a CPU second": lambda server: _requests(server, tree.last.blob_path(0)),
        "manifest by tag": lambda server: _requests(server, tree.last.manifest_path),
        "tag list": lambda server: _requests(server, f"/v2/{tree.last.repository}/tags/list"),
        "blob of 100 MB, MB a CPU second": lambda server: (
            load(server, tree.hundred.blob_path(-1), seconds=1, connections=4).megabytes_a_cpu_second
        ),
        "small blobs a second beside four downloads": lambda server: _beside(
            server, tree.last.blob_path(0), tree.hundred.blob_path(-1)
        ),
    }
    with ExitStack() as stack:
        running = {
            variant.name: stack.enter_context(
                servers.nginx(
                    mirror.directory / f"variant{number}",
                    mirror.http.replace(RECOMMENDED, variant.http),
                    mirror.server,
                    workers=variant.workers,
                    main=variant.main,
                )
            )
            for number, variant in enumerate(VARIANTS)
        }
        for what, way in ways.items():
            measures = [lambda server=server, way=way: way(server) for server in running.values()]
            samples = interleaved(*measures, runs=_RUNS)
            say(f"\n| {what} | median | of recommended |\n|---|---|---|")
            for name, sample in zip(running, samples, strict=True):
                say(f"| {name} | {_cell(sample)} | {sample.median / samples[0].median:.2f} |")


def _requests(server: Serving, path: str) -> float:
    return load(server, path, seconds=1).requests_a_cpu_second


def _beside(server: Serving, small: str, large: str) -> float:
    with _downloads(server, large):
        return load(server, small, seconds=2, connections=4).requests_a_second


@contextmanager
def _downloads(server: Serving, path: str) -> Iterator[None]:
    """Four clients that download as fast as they can."""
    command = [require("wrk"), "-t1", "-c4", "-d4s", f"http://{server.address}{path}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        yield
        process.terminate()


def _cell(sample: Sample) -> str:
    return f"{sample.median:,.0f} ({sample.low:,.0f} to {sample.high:,.0f})"
