"""The nginx program: what it is, what it says about a configuration. The only subprocesses.

The process that serves is another matter: see master.py.
"""

import contextlib
import grp
import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from scr_watchd.errors import ScrWatchdError
from scr_watchd.files import make_inside

_HTTP2_DIRECTIVE = (1, 25, 1)
_POLL_SECONDS = 0.1
_END_SECONDS = 0.2  # for what a reload command has to tidy up


@dataclass(frozen=True, slots=True)
class Nginx:
    """An nginx binary and what it was built with."""

    path: str
    version: tuple[int, ...]
    arguments: Mapping[str, str]

    @property
    def config(self) -> Path:
        return Path(self.arguments.get("--conf-path", "/etc/nginx/nginx.conf"))

    @property
    def pid_file(self) -> Path:
        return Path(self.arguments.get("--pid-path", "/run/nginx.pid"))

    @property
    def errors_to_stderr(self) -> list[str]:
        """Arguments that keep nginx from opening the log that it was built with, where it knows them."""
        return ["-e", "stderr"] if self.version >= (1, 19, 5) else []

    @property
    def has_tls(self) -> bool:
        return "--with-http_ssl_module" in self.arguments

    @property
    def has_http2(self) -> bool:
        return "--with-http_v2_module" in self.arguments

    @property
    def has_pcre_jit(self) -> bool:
        return "--with-pcre-jit" in self.arguments


@dataclass(frozen=True, slots=True)
class Refusal:
    """nginx's own words about a configuration that it refuses."""

    words: str


class NginxError(Exception):
    """nginx could not be asked: it is missing, or may not do what the test needs."""


class NoAnswerError(NginxError):
    """nginx was asked and hangs."""


def inspect(path: str, *, progress: Callable[[], None] = lambda: None) -> Nginx:
    """Ask the binary ``path`` (a name is looked up in PATH) what it is, by ``nginx -V``.

    Raises ``ScrWatchdError`` if there is no such program, or if it is no nginx.
    """
    found = shutil.which(path)
    if found is None:
        raise ScrWatchdError(
            f"there is no nginx: {path!r} is not a program",
            hint="install nginx (apt-get install nginx-light, or pip install 'scr-watchd[nginx]'), "
            "or name it with --nginx",
        )
    _, output = _run([found, "-V"], seconds=10, progress=progress)
    version = re.search(r"version: [^/\n]+/(\d+)\.(\d+)\.(\d+)", output)
    if version is None:
        raise ScrWatchdError(
            f"{found} is not nginx: it does not answer -V", hint="name nginx's program with --nginx"
        )
    arguments = re.findall(r"(--[a-z0-9_-]+)(?:=('[^']*'|\S+))?", output)
    return Nginx(found, tuple(map(int, version.groups())), dict(arguments))


def check(
    nginx: Nginx, generation: Path, *, scratch: Path, seconds: float, progress: Callable[[], None]
) -> Refusal | None:
    """Have nginx read the generation with nothing else around it; ``None`` if it accepts.

    ``scratch`` is a directory of ours that is emptied. Raises ``NginxError`` if there is no answer
    within ``seconds``.
    """
    words = {"GENERATION": inside_quotes(generation)}
    return _check("check.conf", words, nginx, scratch=scratch, seconds=seconds, progress=progress)


def check_certificate(
    nginx: Nginx, certificate: Path, *, scratch: Path, seconds: float, progress: Callable[[], None]
) -> Refusal | None:
    """Have nginx read a certificate with its key; the same otherwise."""
    words = {"TLS": tls(nginx, certificate)}
    return _check("certificate.conf", words, nginx, scratch=scratch, seconds=seconds, progress=progress)


def _check(
    name: str,
    words: Mapping[str, str],
    nginx: Nginx,
    *,
    scratch: Path,
    seconds: float,
    progress: Callable[[], None],
) -> Refusal | None:
    shutil.rmtree(scratch, ignore_errors=True)
    make_inside(scratch.parent, scratch.name)
    config = template(name, USER=user_directive(os.geteuid()), TEMP_PATHS=temp_paths(nginx, scratch), **words)
    (scratch / "check.conf").write_bytes(config)
    return _test(
        nginx,
        ["-p", str(scratch), "-c", str(scratch / "check.conf")],
        seconds=seconds,
        progress=progress,
        directory=scratch,
    )


def check_site(nginx: Nginx, config: Path, *, seconds: float, progress: Callable[[], None]) -> Refusal | None:
    """Have nginx read the site's own configuration; ``None`` if it accepts.

    No answer within ``seconds`` is a refusal: what hangs the test would hang nginx at a reload. Raises
    ``NginxError`` if this process lacks a permission that the test needs, so that the answer says
    nothing about the configuration.
    """
    try:
        refusal = _test(nginx, ["-c", str(config)], seconds=seconds, progress=progress)
    except NoAnswerError as error:
        return Refusal(str(error))
    if refusal is not None and re.search(r"\((?:1|13|30): ", refusal.words):  # EPERM, EACCES, EROFS
        raise NginxError(f"nginx -t may not do here what nginx does: {refusal.words}")
    return refusal


def whole_text(nginx: Nginx, config: Path, *, seconds: float, progress: Callable[[], None]) -> str | None:
    """Everything that nginx reads beginning with ``config``; ``None`` if it refuses that, which
    ``check_site`` tells of."""
    status, output = _run([nginx.path, "-T", "-q", "-c", str(config)], seconds=seconds, progress=progress)
    return output if status == 0 else None


def pid_file_of(nginx: Nginx, config: Path) -> Path:
    """The pid file that ``config`` names, else the one that the binary was built with."""
    try:
        text = config.read_text(errors="surrogateescape")
    except OSError:
        return nginx.pid_file
    found = re.search(r"(?:^|[;}])[ \t]*pid\s+[\"']?([^\s;\"']+)", text, re.MULTILINE)
    return Path(found[1]) if found and found[1].startswith("/") else nginx.pid_file


def run_reload_command(command: Iterable[str], *, seconds: float, progress: Callable[[], None]) -> None:
    """Run the operator's own way to reload nginx; raise ``NginxError`` with its words if it fails."""
    argv = list(command)
    try:
        status, output = _run(argv, seconds=seconds, progress=progress)
    except OSError as error:
        raise NginxError(f"{argv[0]} cannot be run: {error.strerror}") from error
    if status != 0:
        raise NginxError(f"{' '.join(argv)} failed with status {status}: {output.strip()}")


# -- configuration files of our own ----------------------------------------------------------------


def template(name: str, **words: str) -> bytes:
    """This package's nginx file ``name`` with its ``@WORDS@`` filled in."""
    text = _text(name)
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text.encode("utf-8", "surrogateescape")


@cache
def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text()


def tls(nginx: Nginx, certificate: Path) -> str:
    """Directives of a server that answers with ``certificate``, which has its key too."""
    # before 1.23.2 the key of tickets is never changed while nginx runs
    more = [] if nginx.version >= (1, 23, 2) else ["ssl_session_tickets off;"]
    if nginx.has_http2 and nginx.version >= _HTTP2_DIRECTIVE:
        more.append("http2 on;")
    words = {"CERTIFICATE": inside_quotes(certificate), "MORE": "\n        ".join(more)}
    return template("tls.conf", **words).decode("utf-8", "surrogateescape").rstrip()


def tls_of_listen(nginx: Nginx) -> str:
    """What ``listen`` has besides the address."""
    return " ssl http2" if nginx.has_http2 and nginx.version < _HTTP2_DIRECTIVE else " ssl"


def temp_paths(nginx: Nginx, directory: Path) -> str:
    """Directives that keep nginx's temporary files in ``directory``, for whatever it was built with
    absolute paths for; the rest is relative to its prefix already."""
    return "\n    ".join(
        f'{name}_temp_path "{inside_quotes(directory / name)}";'
        for argument in nginx.arguments
        if (name := _temp_name(argument))
    )


def _temp_name(argument: str) -> str:
    found = re.fullmatch(r"--http-([a-z-]+)-temp-path", argument)
    return found[1].replace("-", "_") if found else ""


def user_directive(uid: int) -> str:
    """The ``user`` line for workers that run as ``uid``; only root can choose, so none for others."""
    if os.geteuid() != 0:
        return ""
    entry = pwd.getpwuid(uid)
    return f"user {entry.pw_name} {grp.getgrgid(entry.pw_gid).gr_name};"


def inside_quotes(path: Path) -> str:
    """``path`` as it stands between double quotes in an nginx file."""
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


# -- running it ------------------------------------------------------------------------------------


def _test(
    nginx: Nginx,
    arguments: list[str],
    *,
    seconds: float,
    progress: Callable[[], None],
    directory: Path | None = None,
) -> Refusal | None:
    status, output = _run(
        [nginx.path, "-t", "-q", *nginx.errors_to_stderr, *arguments],
        seconds=seconds,
        progress=progress,
        directory=directory,
    )
    return None if status == 0 else Refusal(_words(output))


def _words(output: str) -> str:
    """nginx's messages without time stamps and the closing line that says no more than "failed"."""
    stamp = re.compile(r"^(?:nginx: |\d{4}/\d\d/\d\d \S+ (?=\[))|(?<=\]) \d+#\d+:")
    lines = [stamp.sub("", line) for line in output.splitlines()]
    telling = [line for line in lines if line and not line.endswith("test failed")]
    return "\n".join(telling or lines)


def _run(
    argv: list[str],
    *,
    seconds: float,
    progress: Callable[[], None] = lambda: None,
    directory: Path | None = None,
) -> tuple[int, str]:
    """Run ``argv`` to its end and return its status and output, or end it after ``seconds``, and when
    ``progress`` raises."""
    deadline = time.monotonic() + seconds
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=directory
    ) as process:
        try:
            while time.monotonic() < deadline:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    output, _ = process.communicate(timeout=_POLL_SECONDS)
                    return process.returncode, output.decode("utf-8", "replace")
                progress()
        finally:
            _end(process)  # else Popen's own end waits for it
    raise NoAnswerError(f"{' '.join(argv)} gave no answer for {seconds:g} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # of one that has ended, nothing
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)
        return
    process.kill()
