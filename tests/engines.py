"""Container engines for tests: a dockerd and a containerd of their own, beside the machine's.

Each has its own directory, socket and mounts, and is gone at the end of the test. Nothing of
/var/lib, /run or /etc is touched: what is mounted over these is seen by the engine alone.
"""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.nginxes import require, require_root
from tests.waiting import until


@dataclass(frozen=True)
class Containerd:
    """A running containerd, asked by ``ctr``."""

    directory: Path
    process: subprocess.Popen[bytes]
    before: tuple[str, ...] = ()

    @property
    def socket(self) -> str:
        return f"{self.directory}/containerd.sock"

    def ctr(self, *arguments: object, seconds: float = 60) -> str:
        """What ``ctr`` printed; fails with what it complained of."""
        # it is ctr that pulls, and containerd that keeps
        return run(
            *self.before, program("ctr", self.before), "--address", self.socket, *arguments, seconds=seconds
        )


@dataclass(frozen=True)
class Dockerd:
    """A running dockerd, asked by ``docker``; containers need ``--network=host``."""

    directory: Path
    process: subprocess.Popen[bytes]
    environment: Mapping[str, str] = field(default_factory=dict)
    client: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        return f"unix://{self.directory}/docker.sock"

    def docker(self, *arguments: object, seconds: float = 60) -> str:
        """What ``docker`` printed; fails with what it complained of."""
        return run(
            *self.client, program("docker", self.client), *arguments, seconds=seconds, **self.variables
        )

    @property
    def variables(self) -> dict[str, str]:
        """By which any docker client finds this dockerd, and nothing of its user's."""
        return {
            "DOCKER_HOST": self.address,
            "DOCKER_CONFIG": f"{self.directory}/client",
            "DOCKER_BUILDKIT": "0",
            **self.environment,
        }


@contextmanager
def containerd(directory: Path | None = None, *, before: tuple[str, ...] = ()) -> Iterator[Containerd]:
    """A containerd with its state in ``directory`` (a short path: its sockets lie there), which stays.

    ``before`` are words before its command, such as those of a network of its own.
    """
    containerd_here = program("containerd", before)
    with _private(directory) as place:
        (place / "containerd.toml").write_text(
            f"""
version = 2
root = "{place}/containerd-root"
state = "{place}/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[plugins."io.containerd.metadata.v1.bolt"]
content_sharing_policy = "isolated"  # what one namespace has another must pull
[grpc]
address = "{place}/containerd.sock"
"""
        )
        command = [containerd_here, "--config", place / "containerd.toml"]
        log, socket = place / "containerd.log", place / "containerd.sock"
        with _started(command, log, socket, before=before) as process:
            yield Containerd(place, process, before)


@contextmanager
def dockerd(
    *options: object,
    directory: Path | None = None,
    files: Mapping[str, bytes] | None = None,
    before: tuple[str, ...] = (),
    client: tuple[str, ...] = (),
    features: Mapping[str, bool] | None = None,
) -> Iterator[Dockerd]:
    """A dockerd, with a containerd of its own and further ``options`` of its command line.

    ``files`` are what it finds below /etc/docker, such as ``certs.d/HOST:PORT/ca.crt``; ``before`` are
    words before its command, and ``client`` before that of its client; ``features`` are in its settings.
    """
    with _private(directory) as place:
        (place / "etc").mkdir(exist_ok=True)
        for name, content in (files or {}).items():
            (place / "etc" / name).parent.mkdir(parents=True, exist_ok=True)
            (place / "etc" / name).write_bytes(content)
        (place / "none.json").write_text(json.dumps({"features": dict(features)} if features else {}))
        command = [
            program("dockerd", before), "--bridge=none", "--iptables=false",
            "--config-file", place / "none.json", "--data-root", place / "docker-root",
            "--exec-root", place / "docker-run", "--pidfile", place / "docker.pid",
            "-H", f"unix://{place}/docker.sock", *options,
        ]  # fmt: skip
        # it starts a containerd of its own unless it finds the machine's; both must see the same mounts
        mounts = (
            "if [ -d /run/containerd ]; then mount -t tmpfs none /run/containerd; fi && "
            f"mkdir -p /etc/docker && mount --bind {place}/etc /etc/docker && exec"
        )
        log, socket = place / "dockerd.log", place / "docker.sock"
        with _started(command, log, socket, before=before, mounts=mounts) as process:
            made = Dockerd(place, process, client=client)
            until(lambda: _answers(made), seconds=30)
            yield made


def program(name: str, before: tuple[str, ...]) -> str:
    """The path of a program, and its mere name in a root of another Debian, which ``before`` lead into."""
    return name if "chroot" in before else require(name)


def run(program: str, *arguments: object, seconds: float = 60, **environment: str) -> str:
    """What ``program`` printed; fails with what it complained of."""
    result = subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        env={**os.environ, **environment},
    )
    told = f"{Path(program).name} {' '.join(map(str, arguments))}"
    assert result.returncode == 0, f"{told}: exit {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout


@contextmanager
def _private(directory: Path | None) -> Iterator[Path]:
    require_root("only root can run a container engine like this")
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="screng") as name:
        yield Path(name)


@contextmanager
def _started(
    command: list[object], log: Path, socket: Path, *, before: tuple[str, ...], mounts: str = "exec"
) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon with mounts and processes of its own: whatever it leaves behind goes with it."""
    alone = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*before, *alone, "sh", "-c", f'{mounts} "$@"', "sh", *map(str, command)],
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: _is_up(process, socket, log), seconds=30)
        yield process
    finally:
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGTERM)  # unshare itself ignores it
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _is_up(process: subprocess.Popen[bytes], socket: Path, log: Path) -> bool:
    assert process.poll() is None, f"it ended with {process.returncode}:\n{log.read_text()[-3000:]}"
    return socket.is_socket()


def _answers(engine: Dockerd) -> bool:
    try:
        return bool(engine.docker("version", "--format", "{{.Server.Version}}"))
    except AssertionError:
        assert engine.process.poll() is None, (engine.directory / "dockerd.log").read_text()[-3000:]
        return False
