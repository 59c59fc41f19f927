"""TLS and passwords of `serve`: where they come from, what is odd about them, and when they are looked at."""

import grp
import logging
import os
import pwd
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from scr_watchd.commands.places import make_private
from scr_watchd.errors import ConfigurationError, ScrWatchdError
from scr_watchd.files import Reader, read_file
from scr_watchd.publish.certificate import Certificate, UnfitError
from scr_watchd.publish.nginx import Nginx
from scr_watchd.publish.server import Server
from scr_watchd.settings import Settings, can_be_included
from scr_watchd.trust import weak_place
from scr_watchd.words import shell

log = logging.getLogger("scr_watchd")

_LOOK_SECONDS = 10.0
_PASSWORD_BYTES = 16 << 20


@dataclass(slots=True)
class Secrets:
    """``certificate`` is what nginx reads, ``passwords`` the operator's own file, which its workers read."""

    certificate: Certificate | None
    passwords: Path | None
    worker_uid: int
    _said: dict[str, str] = field(default_factory=dict)
    _untold: bool = False
    _look_at: float = 0.0

    def begin(self) -> None:
        """Take them for the first time. Raises ``ConfigurationError`` if nginx could not."""
        if self.certificate is not None:
            self.certificate.begin()
            self._warn("certificate", self.certificate.warning)
        if self.passwords is not None:
            try:
                self._warn("passwords", self._odd(self.passwords))
            except OSError as error:
                raise ConfigurationError(
                    f"htpasswd {self.passwords} cannot be read: {error.strerror}",
                    hint="printf 'puller:%s\\n' \"$(openssl passwd -apr1)\" > FILE makes one",
                ) from error

    def look(self, server: Server, *, now: bool = False) -> float:
        """Have nginx use what was renewed, every ten seconds, or ``now``; when (monotonic) to be called
        again."""
        if not now and time.monotonic() < self._look_at:
            return self._look_at
        self._look_at = time.monotonic() + _LOOK_SECONDS
        if self.passwords is not None:
            try:
                self._warn("passwords", self._odd(self.passwords))
            except OSError as error:
                gone = f"htpasswd {self.passwords} cannot be read: {error.strerror}. Nobody can pull"
                self._warn("passwords", gone)
        if self.certificate is not None:
            self._renew(self.certificate, server)
        return self._look_at

    def _renew(self, certificate: Certificate, server: Server) -> None:
        try:
            self._untold |= certificate.renew()
        except (UnfitError, ScrWatchdError, OSError) as error:
            log.error("the certificate stays as it was: %s", error)  # noqa: TRY400 - a sentence will do
        if not self._untold:
            return
        missing = server.reload()
        if missing:  # the next look tries again
            log.error("the certificate was renewed, and nginx does not use it yet: %s", missing)
            return
        self._untold = False
        log.info("the certificate was renewed, and nginx uses it")
        self._warn("certificate", certificate.warning)

    def _odd(self, path: Path) -> str:
        """What the operator should mend in his passwords, though nginx takes them. Raises ``OSError``."""
        content = read_file(Path(os.path.realpath(path)), limit=_PASSWORD_BYTES)
        obstacle = _closed_to(self.worker_uid, path)
        if obstacle:
            return f"{obstacle}, so every request fails: nginx's workers read htpasswd themselves"
        if any(line.partition(b":")[2].startswith(b"$2") for line in content.splitlines()):
            return (
                f"htpasswd {path} has bcrypt passwords ($2), which nginx checks at each request: 15 "
                "a second instead of 5,500. Make them with openssl passwd -apr1"
            )
        return ""

    def _warn(self, of: str, text: str) -> None:
        if text and text != self._said.get(of):
            log.warning("%s", text)
        self._said[of] = text


def secrets_of(
    settings: Settings, program: Nginx, *, worker_uid: int, progress: Callable[[], None]
) -> Secrets:
    """What ``settings`` name. Raises ``ScrWatchdError`` if it cannot work."""
    certificate = None
    if settings.tls_cert:
        if not program.has_tls:
            raise ConfigurationError(
                f"{program.path} was built without TLS", hint="name another with --nginx"
            )
        certificate = Certificate(
            Path(settings.tls_cert),
            Path(settings.tls_key),
            _private_place(settings),
            program,
            seconds=settings.nginx_test_seconds,
            progress=progress,
        )
    return Secrets(certificate, Path(settings.htpasswd) if settings.htpasswd else None, worker_uid)


def _private_place(settings: Settings) -> Path:
    """Where the copy of the key lies: never among the images, which are copied, mirrored, and others'."""
    state, root = Path(os.path.realpath(settings.state)), Path(os.path.realpath(settings.root))
    if not state.is_relative_to(root) and not weak_place(settings.state):
        return settings.state
    place = make_private(settings.root)
    if not can_be_included(str(place)):
        raise ConfigurationError(
            f"nginx cannot read a certificate in {place}", hint="name another with TMPDIR"
        )
    return place


def _closed_to(uid: int, path: Path) -> str:
    """What keeps the worker user from ``path``, with the command that helps; empty if nothing does."""
    if uid == os.geteuid():
        return "" if os.access(path, os.R_OK) else f"{path} cannot be read"
    entry = pwd.getpwuid(uid)
    reader = Reader(uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)))
    real = Path(os.path.realpath(path))
    closed = next((each for each in reversed(real.parents) if not reader.may_enter(each.stat())), None)
    if closed is not None:
        return f"{entry.pw_name} may not enter {closed} (chmod o+x {shell(str(closed))})"
    if reader.may_read(real.stat()):
        return ""
    group = grp.getgrgid(entry.pw_gid).gr_name
    file = shell(str(real))
    return f"{entry.pw_name} may not read {path} (chgrp {group} {file} && chmod g+r {file})"
