"""What serves and what asks: nginx, Debian's docker-registry, wrk. All on 127.0.0.1, all ended by pid."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from scr_watchd.publish.nginx import inspect, temp_paths, user_directive
from tests.benchmarks import measure
from tests.benchmarks.trees import Target
from tests.clients.real_images import skopeo
from tests.daemons import free_port
from tests.http import ask
from tests.nginxes import require
from tests.waiting import until

CONNECTIONS = 16
_ACCEPT = "Accept: application/vnd.oci.image.manifest.v1+json"
_HERE = Path(__file__).parent

RECOMMENDED = "sendfile on; tcp_nopush on; sendfile_max_chunk 512k;"
"""What config/ and serve say about serving."""


@dataclass(frozen=True)
class Serving:
    """A server under load or not."""

    port: int
    pid: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cpu(self) -> float:
        return measure.cpu_of_family(self.pid)


@dataclass(frozen=True)
class Load:
    """What one run of wrk got, and what the server spent on it."""

    requests: int
    bytes: int
    seconds: float
    cpu: float

    @property
    def requests_a_second(self) -> float:
        return self.requests / self.seconds

    @property
    def requests_a_cpu_second(self) -> float:
        return self.requests / self.cpu

    @property
    def megabytes_a_cpu_second(self) -> float:
        return measure.megabytes(self.bytes) / self.cpu


def load(
    server: Serving, path: str, *, seconds: int, connections: int = CONNECTIONS, accept: str = _ACCEPT
) -> Load:
    """Have wrk ask for ``path`` as fast as it can; fails if any answer is not 2xx."""
    before = server.cpu()
    result = subprocess.run(
        [
            require("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s",
            "-H", accept, "-s", str(_HERE / "wrk.lua"), f"http://{server.address}{path}",
        ],
        capture_output=True, text=True, check=True, timeout=seconds + 60,
    )  # fmt: skip
    counted = json.loads(result.stdout.splitlines()[-1])
    assert not counted["failed"], f"{counted['failed']} requests for {path} failed"
    return Load(counted["requests"], counted["bytes"], counted["seconds"], server.cpu() - before)


@contextmanager
def nginx(
    directory: Path, http: str, server: str, *, workers: int = 1, main: str = "pcre_jit on;"
) -> Iterator[Serving]:
    """An nginx with this text in ``http {}`` and in its one server, up and answering."""
    directory.mkdir(exist_ok=True)
    binary = inspect(require("nginx"))
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(
        f"daemon off;\npid {directory}/nginx.pid;\nerror_log {directory}/error.log notice;\n"
        f"{user_directive(os.geteuid())}\n"
        f"worker_processes {workers}; {main} events {{ worker_connections 1024; }}\n"
        f"http {{ access_log off; keepalive_requests 1000000; {temp_paths(binary, directory)}\n{http}\n"
        f"server {{ listen 127.0.0.1:{port}; {server} }} }}\n"
    )
    process = subprocess.Popen([binary.path, "-p", str(directory), "-c", str(config)])
    with _ending(process):
        until(lambda: _answers(process, port, "/v2/"), seconds=60)
        yield Serving(port, process.pid)


def nginx_test(directory: Path, http: str, server: str) -> measure.Usage:
    """What `nginx -t` takes to read this text."""
    directory.mkdir(exist_ok=True)
    binary = inspect(require("nginx"))
    config = directory / "test.conf"
    config.write_text(
        f"pid {directory}/test.pid; error_log stderr warn; events {{ }}\n"
        f"http {{ {temp_paths(binary, directory)}\n{http}\n"
        f"server {{ listen unix:{directory}/test.sock; {server} }} }}\n"
    )
    usage = measure.run([binary.path, "-t", "-q", "-p", directory, "-c", config])
    (directory / "test.sock").unlink(missing_ok=True)
    return usage


@contextmanager
def docker_registry(directory: Path, root: Path, *images: Target) -> Iterator[Serving]:
    """Debian's docker-registry, with ``images`` of the tree ``root`` pushed to it and nothing else."""
    directory.mkdir()
    port = free_port()
    config = directory / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{cache: {{blobdescriptor: inmemory}}, filesystem: {{rootdirectory: {directory}/data}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([require("docker-registry"), "serve", str(config)], stdout=log, stderr=log)
    with _ending(process):
        until(lambda: _answers(process, port, "/v2/"), seconds=30)
        for image in images:
            skopeo(
                "copy", "--quiet", "--insecure-policy", "--preserve-digests", "--dest-tls-verify=false",
                f"dir:{root}/{image.directory}", f"docker://127.0.0.1:{port}/{image.repository}:{image.tag}",
            )  # fmt: skip
        yield Serving(port, process.pid)
    shutil.rmtree(directory)


@contextmanager
def inotify_loop(images: Path, included: Path, site: Path, config: Path) -> Iterator[int]:
    """An inotifywait loop around original.py and `nginx -s reload`; yields its process id."""
    require("inotifywait")
    generator = f"/usr/bin/env python3 {_HERE / 'original.py'}"
    with (site / "loop.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "sh", str(_HERE / "loop.sh"), str(images), str(included), generator,
                require("nginx"), "-p", str(site), "-c", str(config),
            ],
            stderr=log,
        )  # fmt: skip
    try:
        directories = sum(1 for _ in images.rglob("*") if _.is_dir()) + 1
        until(lambda: _watches(process.pid) >= directories, seconds=60)
        yield process.pid
    finally:
        for pid in reversed(measure.family(process.pid)):
            subprocess.run(["kill", str(pid)], check=False)
        process.wait(10)


def _watches(pid: int) -> int:
    """How many directories the processes below ``pid`` watch."""
    count = 0
    for each in measure.family(pid):
        with suppress(OSError):  # it ended meanwhile
            for information in Path(f"/proc/{each}/fdinfo").iterdir():
                with suppress(OSError):
                    count += information.read_text().count("inotify wd:")
    return count


def _answers(process: subprocess.Popen[bytes], port: int, path: str) -> bool:
    assert process.poll() is None, f"it ended with status {process.returncode}"
    try:
        return ask(f"127.0.0.1:{port}", path).status == 200
    except OSError:
        return False


@contextmanager
def _ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
