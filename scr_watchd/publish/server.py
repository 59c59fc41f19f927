"""An nginx of our own, as a child: what `serve` runs."""

import contextlib
import math
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scr_watchd.errors import ScrWatchdError
from scr_watchd.files import make_inside, write_atomically
from scr_watchd.publish import master
from scr_watchd.publish.certificate import Certificate
from scr_watchd.publish.master import NotRunningError, Process
from scr_watchd.publish.nginx import (
    Nginx,
    inside_quotes,
    temp_paths,
    template,
    tls,
    tls_of_listen,
    user_directive,
)

_START_SECONDS = 10.0
_AGAIN_SECONDS = 1.0  # an image must not wait for long because nginx does not come back
# Downloads may end for a while; `docker stop` waits 10 s for all of us.
_STEPS = ((signal.SIGQUIT, 2.5), (signal.SIGTERM, 1.5), (signal.SIGKILL, 1.5))
_BACK_OFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0)
_POLL_SECONDS = 0.02
# Relative: nginx would name its own port, and a container's may be published as another.
_TO_THE_PAGE = "absolute_redirect off; return 302 /v2/_scr/;"
_A_LINE = (
    'types { } default_type text/plain; return 200 "This is a container registry, served by scr-watchd: '
    'docker pull $http_host/NAME:TAG\\n";'
)
_PASSWORDS = 'auth_basic "container images"; auth_basic_user_file "{}";'


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, and what to write after `docker pull`."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """``[HOST:]PORT``; raise ``ValueError`` for anything else. Without HOST this machine only."""
        host, colon, port = text.rpartition(":")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"{text!a} is not [HOST:]PORT")
        host = host.strip("[]") if colon and host else "127.0.0.1"
        if not host.replace(".", "").replace(":", "").replace("-", "").isalnum():
            raise ValueError(f"{host!a} is not a host")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def reachable(self) -> str:
        """The address by which a client on this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host)  # noqa: S104 - read, not bound
        return f"{host}:{self.port}" if host else str(self)

    def obstacle(self) -> str:
        """Why nobody can listen here now; empty if one can."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
                probe.listen()
            except OSError as error:
                return error.strerror or str(error)
        return ""


class Server:
    """An nginx in ``directory`` that serves the generation behind ``current``.

    ``worker_uid`` is whom its workers run as if we are root; ``progress`` is called while it waits for
    nginx, but not in ``stop``. ``judge`` raises ``ScrWatchdError`` while somebody else could exchange that
    directory: then nothing is written, started or removed there. Without ``browse`` the front has a line of
    text instead of the way to the page.
    """

    def __init__(
        self,
        nginx: Nginx,
        directory: Path,
        *,
        current: Path,
        worker_uid: int,
        progress: Callable[[], None] = lambda: None,
        judge: Callable[[], None] = lambda: None,
        browse: bool = True,
        certificate: Certificate | None = None,
        passwords: Path | None = None,
    ) -> None:
        self._nginx = nginx
        self._progress = progress
        self._directory = directory
        self._current = current
        self._worker_uid = worker_uid
        self._judge = judge
        self._front = _TO_THE_PAGE if browse else _A_LINE
        self._certificate = certificate
        self._passwords = passwords
        self._config = directory / "nginx.conf"
        self._address = Address("127.0.0.1", 0)
        self._child: subprocess.Popen[bytes] | None = None
        self._session = 0
        self._failures = 0
        self._started_at = -math.inf
        self.pid_file = directory / "nginx.pid"

    def end_leftovers(self) -> None:
        """End every nginx that works in our directory: what a killed predecessor left behind, or
        workers that outlived their master. Either would keep the port."""
        self._end_leftovers(self._progress)

    def _end_leftovers(self, progress: Callable[[], None]) -> None:
        left = master.of_session(self._session) if self._session else []
        if self._directory.is_dir():
            left += master.working_in(self._directory)
        _end(left, progress)
        with contextlib.suppress(ScrWatchdError):
            self._judge()
            self.pid_file.unlink(missing_ok=True)

    def start(self, address: Address) -> None:
        """Start nginx and wait until it answers. Raises ``ScrWatchdError`` if it does not."""
        self._address = address
        self._spawn()
        if not self._await(seconds=_START_SECONDS):
            if self._child is None or self._child.poll() is not None:
                raise ScrWatchdError("nginx did not start; its own words are above")
            self.stop()
            raise ScrWatchdError(f"nginx did not start within {_START_SECONDS:g} s")

    def _await(self, *, seconds: float) -> bool:
        """Wait until nginx answers, has ended, or ``seconds`` are over; whether it answers."""
        deadline = time.monotonic() + seconds
        while not (answers := self._answers()) and time.monotonic() < deadline:
            if self._child is None or self._child.poll() is not None:
                return False
            self._progress()
            time.sleep(_POLL_SECONDS)
        return answers

    def mended_pid_file(self) -> Path:
        """The pid file of a running nginx, written again, as is what nginx reads at a reload, if it was
        removed: our directory may lie in a tree that others mirror. Raises ``NotRunningError`` while it
        cannot be, or while somebody else could have written it: it would name whom we signal."""
        try:
            self._judge()
            is_whole = self.pid_file.exists() and self._config.exists()
            if self._certificate is not None:
                self._certificate.keep()
            if not is_whole and self._child is not None and self._child.poll() is None:
                self._write_config()
                write_atomically(self.pid_file, f"{self._child.pid}\n".encode())
        except (OSError, ScrWatchdError) as error:
            raise NotRunningError(f"nginx cannot be told: {error}") from error
        return self.pid_file

    def tend(self) -> tuple[str, float]:
        """Start nginx again if it ended. Returns what happened, or an empty text, and when
        (monotonic) to look again."""
        assert self._child is not None
        now = time.monotonic()
        ended = self._child.poll() is not None
        master.reap_orphans(keep=self._child.pid)  # workers that outlived a master are ours now
        if not ended:
            if self._failures and now > self._started_at + _BACK_OFF_SECONDS[-1]:
                self._failures = 0
            return "", math.inf
        wait = _BACK_OFF_SECONDS[min(self._failures, len(_BACK_OFF_SECONDS) - 1)]
        if now < self._started_at + wait:
            return "", self._started_at + wait
        status = self._child.returncode
        self._failures += 1
        try:
            self.end_leftovers()
            self._spawn()
            self._await(seconds=_AGAIN_SECONDS)
        except (
            OSError,
            ScrWatchdError,
        ) as error:  # its program, or our directory, is away: somebody upgrades, or tidies
            self._started_at = now
            return f"nginx cannot be started: {error}", now + _BACK_OFF_SECONDS[-1]
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return f"nginx ended {how}, and was started again", math.inf

    def reload(self) -> str:
        """Have nginx read its own files again; returns why it has not, or an empty text."""
        try:
            nginx = master.by_pid_file(self.mended_pid_file())
            if not master.wait_until_idle(nginx, seconds=_START_SECONDS, progress=self._progress):
                return f"nginx (process {nginx.pid}) was busy for {_START_SECONDS:g} s"
            before = set(master.workers(nginx))
            master.hang_up(nginx)
        except NotRunningError as error:
            return str(error)
        return master.wait_for_reload(nginx, before, seconds=_START_SECONDS, progress=self._progress)

    def stop(self) -> None:
        """End nginx, gracefully at first; afterwards no process of it is left."""
        child, self._child = self._child, None
        if self._certificate is not None:
            self._certificate.forget()
        if child is None:
            return
        for number, seconds in _STEPS:
            if child.poll() is not None:
                break
            child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(seconds)
        self._end_leftovers(lambda: None)

    def _write_config(self) -> None:
        self._judge()
        if self._certificate is not None:
            self._certificate.keep()
        make_inside(self._directory.parent, self._directory.name)
        write_atomically(
            self._config,
            template(
                "serve.conf",
                USER=user_directive(self._worker_uid),
                PID_FILE=inside_quotes(self.pid_file),
                PCRE_JIT="pcre_jit on;" if self._nginx.has_pcre_jit else "",
                TEMP_PATHS=temp_paths(self._nginx, self._directory),
                FRONT=self._front,
                CURRENT=inside_quotes(self._current),
                LISTEN=f"{self._address}{tls_of_listen(self._nginx) if self._certificate else ''}",
                TLS=tls(self._nginx, self._certificate.path) if self._certificate else "",
                PASSWORDS=_PASSWORDS.format(inside_quotes(self._passwords)) if self._passwords else "",
            ),
        )

    def _spawn(self) -> None:
        self._write_config()
        self._started_at = time.monotonic()
        # A session of its own: Ctrl-C is for us, and we end it in our own time.
        self._child = subprocess.Popen(
            [
                self._nginx.path,
                "-p",
                str(self._directory),
                *self._nginx.errors_to_stderr,
                "-c",
                str(self._config),
            ],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=self._directory,
        )
        self._session = self._child.pid

    def _answers(self) -> bool:
        try:
            return bool(master.workers(master.by_pid_file(self.pid_file)))
        except NotRunningError:
            return False


def _end(left: list[Process], progress: Callable[[], None]) -> None:
    """End them all at once: one after another they could take longer than anybody waits for us."""
    for number, seconds in _STEPS:
        for process in left:
            with contextlib.suppress(NotRunningError):
                master.send(process, number)
        deadline = time.monotonic() + seconds
        while (left := [each for each in left if master.alive(each)]) and time.monotonic() < deadline:
            progress()
            time.sleep(_POLL_SECONDS)
