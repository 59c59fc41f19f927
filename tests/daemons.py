"""Runs scr-watchd as its users do: as a process, seen from outside."""

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from scr_watchd.publish import master
from scr_watchd.publish.nginx import inspect, temp_paths, user_directive
from tests.http import Response, ask
from tests.waiting import until

_WORKERS = 2


@contextmanager
def public_directory() -> Iterator[Path]:
    """A temporary directory that everybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="scrtest") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(name="tmp_path")
def public_path() -> Iterator[Path]:
    """In the place of pytest's own, for modules that import it: nginx, or a judge, is to enter."""
    with public_directory() as directory:
        yield directory


def free_port() -> int:
    """A port that nobody listens on. Not one of those that the kernel gives to connections (ip(7),
    ip_local_port_range): another test's client would take it before our server does."""
    while True:
        port = _CHANCE.randrange(10_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


_CHANCE = random.SystemRandom()  # no two processes of one test run may draw the same


@dataclass
class Daemon:
    """A running scr-watchd and what it said."""

    process: subprocess.Popen[bytes]
    log: Path
    last_words: str = ""

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else self.last_words

    def says(self, pattern: str, *, seconds: float = 10) -> re.Match[str]:
        """Wait until a line matches ``pattern``; fails at once if the daemon ends without saying it."""

        def look() -> re.Match[str] | None:
            ended = self.process.poll() is not None
            found = re.search(pattern, self.said(), re.MULTILINE)
            assert found or not ended, f"it ended with {self.process.returncode}: {self.said()}"
            return found

        try:
            found = until(look, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"no line {pattern!r} in:\n{self.said()}") from error
        assert found
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(15)


def scr_watchd(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        _argv(*arguments),
        capture_output=True,
        text=True,
        timeout=60,
        env=_environment(environment),
        check=False,
    )


@contextmanager
def service_manager(address: Path, *, seconds: float) -> Iterator[Callable[[str], None]]:
    """Listens at ``address`` as a service manager does; what comes waits for a message with a line that
    matches, each for so many seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(address))
        notify.settimeout(seconds)

        def hear(pattern: str) -> None:
            while not re.search(pattern, notify.recv(4096).decode(), re.MULTILINE):
                pass

        yield hear


@contextmanager
def daemon(*arguments: object, before: tuple[str, ...] = (), **environment: str) -> Iterator[Daemon]:
    """Run a command that stays; ``before`` are words before it, such as ``unshare``. It is asked to
    end, and must have ended, by the end of the test."""
    with tempfile.NamedTemporaryFile(prefix="scrlog", suffix=".txt") as log:
        process = subprocess.Popen(
            [*before, *_argv(*arguments)],
            stderr=log,
            stdout=log,
            stdin=subprocess.DEVNULL,
            env=_environment(environment),
        )
        running = Daemon(process, Path(log.name))
        try:
            yield running
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    raise
            running.last_words = Path(log.name).read_text()
            print(running.last_words)  # noqa: T201 - pytest shows it with a failure


def _argv(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "scr_watchd", *map(str, arguments)]


def _environment(more: dict[str, str]) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SCR_WATCHD_")}
    return {**clean, **more}


@dataclass
class Site:
    """A real nginx with its own main configuration, as an operator has: two sites, one of them ours."""

    directory: Path
    port: int
    other_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def registry(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        return self.directory / "nginx.conf"

    def ask(self, path: str, **more: object) -> Response:
        """Ask when no reload is half done: for a tenth of a second old workers answer beside new ones."""
        until(lambda: self._workers_at_work() <= _WORKERS)
        return ask(self.registry, path, **more)  # type: ignore[arg-type]

    def _workers_at_work(self) -> int:
        if self.process is None:
            return 0
        return list(master.workers(master.Process(self.process.pid, 0)).values()).count(False)

    def other(self) -> Response:
        return ask(f"127.0.0.1:{self.other_port}", "/")

    def tags(self, name: str) -> list[str]:
        answer = self.ask(f"/v2/{name}/tags/list")
        return list(answer.json()["tags"]) if answer.status == 200 else []

    def generation(self) -> str:
        return str(self.ask("/v2/_scr/generation").json()["generation"])


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def processes_with(text: str) -> list[int]:
    """The processes whose command line has ``text``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in command:
                found.append(int(entry.name))
    return found


def remove(path: Path) -> None:
    shutil.rmtree(path)


def since(start: float) -> float:
    return time.monotonic() - start


@contextmanager
def site(directory: Path, state: Path, *, program: str, start: bool = True) -> Iterator[Site]:
    """A site that includes the generations of ``state``, and another beside it; files of
    ``directory``/conf.d are included too. With ``start`` False nginx is not started yet."""
    (directory / "conf.d").mkdir(parents=True)
    made = Site(directory, free_port(), free_port())
    binary = inspect(program)
    made.config.write_text(
        f"""
{user_directive(os.geteuid())}
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log info;
worker_processes {_WORKERS};
events {{ worker_connections 256; }}
http {{
    access_log off;
    {temp_paths(binary, directory)}
    include {state}/nginx/current/hash*.conf;
    include {state}/nginx/current/http*.conf;
    include {directory}/conf.d/*.conf;
    server {{
        listen 127.0.0.1:{made.port};
        include {state}/nginx/current/server*.conf;
    }}
    server {{
        listen 127.0.0.1:{made.other_port};
        location / {{ return 200 "the other site"; }}
    }}
}}
"""
    )
    if start:
        start_nginx(made, program)
    try:
        yield made
    finally:
        if made.process is not None:
            made.process.terminate()
            made.process.wait(10)


def start_nginx(site: Site, program: str) -> None:
    site.process = subprocess.Popen([program, "-p", str(site.directory), "-c", str(site.config)])
    until(lambda: _answers(site))


def _answers(site: Site) -> bool:
    try:
        return site.other().status == 200
    except OSError:
        return False
