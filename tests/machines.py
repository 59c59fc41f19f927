"""A Debian machine with a real systemd as its PID 1, in namespaces: this machine's files and none of its
services. What it writes is gone with it; it has no network but its own loopback."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.nginxes import cannot, require, require_root
from tests.waiting import until

_SCRIPT = Path(__file__).with_name("machine.sh")
_UNSHARE = (
    *("setpriv", "--pdeathsig", "KILL"),  # if pytest is killed, so is the machine
    *("unshare", "--fork", "--pid", "--kill-child"),
    *("--mount", "--uts", "--ipc", "--net", "--cgroup"),
)
_ASK = """
import http.client, json, sys
host, port, path = sys.argv[1:]
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
connection.request("GET", path, headers={"Host": host})
answer = connection.getresponse()
json.dump([answer.status, answer.read().decode("utf-8", "replace")], sys.stdout)
"""
# asks again and again on new connections until its input ends; says what failed, and how often it asked
_KEEP_ASKING = """
import hashlib, http.client, select, sys
host, port, *paths = sys.argv[1:]
asked = 0
while not select.select([sys.stdin], [], [], 0.02)[0]:
    path = paths[asked % len(paths)]
    asked += 1
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            print("failed:", path, answer.status, flush=True)
        elif "sha256:" in path and hashlib.sha256(body).hexdigest() != path[-64:]:
            print("failed:", path, "other bytes", flush=True)
        connection.close()
    except OSError as error:
        print("failed:", path, error, flush=True)
print("asked", asked)
"""


@dataclass(frozen=True)
class Machine:
    """A booted machine; ``pid`` is its PID 1 as seen from here."""

    pid: int

    def argv(self, *command: object) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "-m", "-p", "-u", "-i", "-n", "-C", *map(str, command)]

    def run(
        self, *command: object, check: bool = True, content: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """Run a program there as root, with ``content`` on its standard input."""
        result = subprocess.run(
            self.argv(
                "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", *command
            ),
            input=content,
            capture_output=True,
            check=False,
            timeout=120,
        )
        done = subprocess.CompletedProcess(
            result.args, result.returncode, result.stdout.decode(), result.stderr.decode()
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}{self.log()}"
        return done

    def sh(self, script: str) -> str:
        """Run lines of a shell; the first that fails ends it."""
        return self.run("sh", "-euc", script).stdout

    def write(self, path: str, content: str | bytes) -> None:
        data = content.encode() if isinstance(content, str) else content
        self.run("sh", "-euc", f"mkdir -p $(dirname {path}); cat > {path}", content=data)

    def ask(self, path: str, *, host: str = "localhost", port: int = 80) -> tuple[int, str]:
        """What the server there answers: status and body."""
        status, body = json.loads(self.run("/usr/bin/python3", "-Ic", _ASK, host, port, path).stdout)
        return int(status), str(body)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def log(self) -> str:
        """The journal's last lines, for whoever reads a failure."""
        command = self.argv("journalctl", "--no-pager", "--lines=40", "--output=cat")
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    @contextlib.contextmanager
    def asking(self, port: int, *paths: str, host: str = "localhost") -> Iterator[None]:
        """All the while a client asks the site at ``port`` for ``paths``; fails if one request fails, or if
        what comes by a digest has another."""
        client = subprocess.Popen(
            self.argv("/usr/bin/python3", "-Ic", _KEEP_ASKING, host, port, *(paths or ("/",))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield
        finally:
            said, _ = client.communicate(timeout=20)  # ends its input
        asked = re.search(r"asked (\d+)", said)
        assert asked, said
        assert "failed" not in said, said


@contextlib.contextmanager
def booted() -> Iterator[Machine]:
    """A machine until the end of the test; skips, but never in CI, where none can be booted."""
    require_root("only root can boot a systemd")
    for program in ("setpriv", "unshare", "nsenter", "/lib/systemd/systemd"):
        require(program)
    with tempfile.TemporaryDirectory(prefix="scrmachine") as name, _cgroup() as cgroup:
        log = Path(name, "log")
        Path(name, "root").mkdir()
        join = f"echo 0 > {shlex.quote(str(cgroup))}/cgroup.procs; " if cgroup else ""
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-ec", f'{join}exec "$@"', "sh", *_UNSHARE, "sh", str(_SCRIPT), f"{name}/root"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            yield _up(process, log)
        finally:
            process.kill()  # and with it, by --kill-child, all of the machine
            process.wait(10)


def _up(process: subprocess.Popen[bytes], log: Path) -> Machine:
    def state() -> tuple[Machine | None, str]:
        if process.poll() is not None:
            return None, "ended"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if not children or b"systemd" not in Path(f"/proc/{children[0]}/cmdline").read_bytes():
            return None, "starting"
        machine = Machine(int(children[0]))
        told = machine.run("systemctl", "is-system-running", check=False).stdout.strip()
        return machine, told

    machine, told = until(state, lambda it: it[1] in ("running", "degraded", "ended"), seconds=30)
    if machine is None:
        cannot(f"a systemd cannot be booted here: {log.read_text().strip()}")
    failed = machine.run("systemctl", "list-units", "--failed", "--plain", "--no-legend").stdout
    assert told == "running", f"{failed}\n{machine.log()}"
    return machine


@contextlib.contextmanager
def _cgroup() -> Iterator[Path | None]:
    """A control group of its own, so that its systemd touches none of ours; ``None`` where there are none."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in mounts if " - cgroup2 " in line]
    own = re.search(r"^0::(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    made = None
    if points and own:
        made = Path(f"{points[0]}{own[1].rstrip('/')}", f"scr-test-{os.getpid()}")
        try:
            made.mkdir()
        except OSError:
            made = None
    try:
        yield made
    finally:
        if made is not None:
            until(lambda: _remove(made))


def _remove(cgroup: Path) -> bool:
    for path, _, _ in os.walk(cgroup, topdown=False):
        try:
            os.rmdir(path)
        except OSError:
            return False
    return True
