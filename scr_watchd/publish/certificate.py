"""The certificate of `serve`: nginx reads one file of ours that has both certificate and key.

An operator's two files are replaced one after the other, and in between nginx refuses its whole
configuration, and with it every new image. So nginx reads a copy of both, which is replaced in one step,
once `nginx -t` has accepted the new one. What the operator names may be links: Kubernetes and certbot renew
by them.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from scr_watchd.errors import ConfigurationError, ScrWatchdError
from scr_watchd.files import create, open_inside, read_file, write_all
from scr_watchd.publish.nginx import Nginx, check_certificate
from scr_watchd.trust import weak_place
from scr_watchd.words import printable, shell

_PEM_BYTES = 1 << 20
_DIRECTORY = "tls"
_FILE, _NEW = "certificate.pem", "new.pem"
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n.*?-----END \1-----", re.DOTALL)

_Seen = tuple[int, int, int, int, int]


class UnfitError(Exception):
    """The operator's files cannot be used; the text says which and why."""


class Certificate:
    """What nginx reads of ``certificate`` and ``key``, in a directory of ours in ``place``, which nobody else
    may be able to exchange."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        place: Path,
        nginx: Nginx,
        *,
        seconds: float,
        progress: Callable[[], None],
    ) -> None:
        self._certificate, self._key = certificate, key
        self._place = place
        self._nginx = nginx
        self._seconds = seconds
        self._progress = progress
        self._content = b""
        self._seen: tuple[_Seen, ...] | None = None
        self.path = place / _DIRECTORY / _FILE

    def begin(self) -> None:
        """Take the files for the first time. Raises ``ConfigurationError`` if nginx would not."""
        try:
            self.renew()
        except UnfitError as error:
            raise ConfigurationError(str(error), hint="mend that file, or name another") from error

    def renew(self) -> bool:
        """Take what is new in the files; whether anything is. Raises ``UnfitError`` if that cannot be used,
        once for each change, and everything stays as it was."""
        seen = tuple(map(_seen, (self._certificate, self._key)))
        if seen == self._seen:
            return False
        self._seen = seen
        content = self._read()
        if content == self._content:
            return False
        self._replace(content, test=True)
        self._content = content
        return True

    def keep(self) -> None:
        """Have the file where nginx reads it: somebody may have tidied there."""
        if not self.path.exists():
            self._replace(self._content, test=False)

    def forget(self) -> None:
        """Remove the file; nginx has ended."""
        with suppress(OSError, ScrWatchdError):
            directory = self._open()
            try:
                os.unlink(_FILE, dir_fd=directory)
            finally:
                os.close(directory)

    @property
    def warning(self) -> str:
        """What the operator should mend though it works."""
        with suppress(OSError):
            mode = os.stat(self._key).st_mode & 0o777
            if mode & 0o004:
                key = str(self._key)
                return f"everybody may read the key {printable(key)} (mode {mode:04o}): chmod o= {shell(key)}"
        return ""

    def _read(self) -> bytes:
        certificates = [
            text for kind, text in _blocks("tls_cert", self._certificate) if kind.endswith("CERTIFICATE")
        ]
        keys = [text for kind, text in _blocks("tls_key", self._key) if kind.endswith("PRIVATE KEY")]
        if not certificates:
            raise UnfitError(f"tls_cert {self._certificate} holds no certificate (PEM)")
        if not keys:
            raise UnfitError(f"tls_key {self._key} holds no private key (PEM)")
        if b"ENCRYPTED" in keys[0]:  # nginx would ask for the passphrase, on the terminal
            raise UnfitError(f"tls_key {self._key} is encrypted; openssl pkey -in FILE decrypts it")
        return b"\n".join((*certificates, keys[0], b""))

    def _replace(self, content: bytes, *, test: bool) -> None:
        directory = self._open()
        try:
            descriptor = create(_NEW, within=directory)  # for nobody else: its mode is 0600
            try:
                write_all(descriptor, content)
            finally:
                os.close(descriptor)
            if test:
                self._test()
            os.rename(_NEW, _FILE, src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            os.close(directory)

    def _test(self) -> None:
        refusal = check_certificate(
            self._nginx,
            self.path.with_name(_NEW),
            scratch=self.path.with_name("check"),
            seconds=self._seconds,
            progress=self._progress,
        )
        if refusal is None:
            return
        if "key values mismatch" in refusal.words:
            raise UnfitError(f"tls_key {self._key} does not belong to the certificate {self._certificate}")
        words = refusal.words.replace(str(self.path.with_name(_NEW)), f"{self._certificate} with {self._key}")
        raise UnfitError(f"nginx refuses tls_cert or tls_key: {words}".partition("\n")[0])

    def _open(self) -> int:
        """A descriptor of our directory. Raises ``ScrWatchdError`` if it is not ours alone."""
        reason = weak_place(self._place)
        if reason:
            raise ScrWatchdError(f"{self._place}, where the key would lie, can be exchanged: {reason}")
        descriptor = open_inside(self._place, _DIRECTORY)
        if os.fstat(descriptor).st_uid != os.geteuid():
            os.close(descriptor)
            raise ScrWatchdError(f"{self.path.parent}, where the key would lie, is somebody else's")
        os.fchmod(descriptor, 0o700)
        return descriptor


def _seen(path: Path) -> _Seen:
    """What tells a file from what it was; of a missing one, nothing."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0, 0, 0, 0)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _blocks(setting: str, path: Path) -> list[tuple[str, bytes]]:
    """The kinds and the texts of what a PEM file (RFC 7468) holds."""
    try:
        content = read_file(Path(os.path.realpath(path)), limit=_PEM_BYTES)
    except OSError as error:
        raise UnfitError(f"{setting} {path} cannot be read: {error.strerror}") from error
    return [(match[1].decode(), match[0]) for match in _BLOCK.finditer(content)]
