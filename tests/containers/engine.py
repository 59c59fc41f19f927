"""A dockerd that builds and runs: with a network of its own, the ports that containers publish are in
there, and no port of this machine is taken."""

import contextlib
import ctypes
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.engines import dockerd
from tests.http import Response, ask
from tests.nginxes import cannot, require, require_root
from tests.waiting import until

_OWN_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
_CLONE_NEWNET = 0x40000000


@dataclass
class Engine:
    """A running dockerd. With a network of its own the ports that containers publish are in there."""

    directory: Path
    pid: int
    environment: Mapping[str, str]

    def run(self, *command: object, check: bool = True, **more: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command beside this dockerd: in its network, and with it as its docker."""
        result = subprocess.run(
            ["nsenter", "--target", str(self.pid), "--net", "--", *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={**os.environ, **self.environment},
            **more,
        )
        if check:
            assert result.returncode == 0, f"{command}:\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
        return result

    @contextmanager
    def start(self, *command: object) -> "Iterator[subprocess.Popen[bytes]]":
        """A command beside this dockerd that is ended at the end of the block."""
        with subprocess.Popen(
            ["nsenter", "--target", str(self.pid), "--net", "--", *map(str, command)]
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def docker(self, *arguments: object) -> str:
        """Run docker; return what it printed."""
        return self.run("docker", *arguments).stdout.strip()

    def shell(self, lines: str, directory: Path, **environment: str) -> str:
        """Run lines of a page in ``directory``; return what they printed."""
        script = f"cd '{directory}'\n{lines}"
        settings = [f"{name}={value}" for name, value in environment.items()]
        return self.run("env", *settings, "sh", "-euc", script).stdout

    def ask(self, address: str, path: str, **more: Any) -> Response:
        """Ask an address in the network of this dockerd."""

        def enter_and_ask() -> Response:
            with Path(f"/proc/{self.pid}/ns/net").open() as network:
                library = ctypes.CDLL(None, use_errno=True)
                assert library.setns(network.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            return ask(address, path, **more)

        with ThreadPoolExecutor(1) as thread:  # which is thrown away: setns concerns one thread
            return thread.submit(enter_and_ask).result()

    def status(self, address: str, path: str) -> int:
        """The status of an answer; 0 while nobody answers."""
        try:
            return self.ask(address, path).status
        except OSError:
            return 0

    def logs(self, container: str) -> str:
        result = self.run("docker", "logs", container)
        return result.stdout + result.stderr

    def says(self, container: str, text: str, *, seconds: float = 20) -> None:
        """Wait until a container has said ``text``."""
        try:
            until(lambda: text in self.logs(container), seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"no {text!r} in:\n{self.logs(container)}") from error

    def inspect(self, container: str, what: str) -> Any:
        """A field of a container, such as ``State.ExitCode``."""
        return json.loads(self.docker("inspect", "--format", f"{{{{json .{what}}}}}", container))

    def processes(self, container: str) -> list[tuple[str, str]]:
        """State and arguments of every process in a container."""
        lines = self.docker("top", container, "-eo", "pid,stat,args").splitlines()[1:]
        return [(line.split()[1], line.split(maxsplit=2)[2]) for line in lines]

    def remove_everything(self) -> None:
        for container in self.docker("ps", "-aq").split():
            self.docker("rm", "-f", "-v", container)


@contextmanager
def engine(directory: Path, *, network: bool) -> Iterator[Engine]:
    """A dockerd that keeps its images in ``directory``. With a network of its own, containers have
    networks, and no internet; without, there is this machine's for `--network=host`, and no other."""
    _require_what_it_needs()
    group = f"scr-watchd-tests-{os.getpid()}"
    before, options = (_OWN_NETWORK, ("--bridge=", "--iptables=true")) if network else ((), ())
    try:
        with dockerd("--cgroup-parent", f"/{group}", *options, directory=directory, before=before) as started:
            running = Engine(directory, started.process.pid, started.variables)
            yield running
            running.remove_everything()
    finally:
        for left in Path("/sys/fs/cgroup").glob(f"**/{group}"):
            with contextlib.suppress(OSError):
                left.rmdir()


@contextmanager
def place() -> Iterator[Path]:
    """A directory with a short name: paths of sockets are limited."""
    with tempfile.TemporaryDirectory(prefix="scrdock") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _require_what_it_needs() -> None:
    require_root("only root can run a dockerd")
    for program in ("docker", "debootstrap", "ip", "iptables"):
        require(program)
    if subprocess.run(["unshare", "--net", "true"], check=False).returncode != 0:
        cannot("this machine gives us no network namespace")
