"""Confirms a generation by asking nginx for it over HTTP, as a client would.

What answers may be anything: a proxy, a page to log in at, another registry, something that sends a byte
a second. So all of it has one deadline, and only the very answers of server.conf count.
"""

import base64
import http.client
import io
import select
import socket
import ssl
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Annotated, Any, TypeVar

import msgspec

from scr_watchd import threads
from scr_watchd.words import printable

_POLL_SECONDS = 0.02
_WAIT_SECONDS = 0.1  # between two calls of progress
_STEADY_SECONDS = 0.2  # old workers may answer a little longer: one answer proves little
_ATTEMPT_SECONDS = 5.0  # a worker that hangs is no reason not to ask the next
_BODY_BYTES = 4096
_WORDS = 200  # of an error, which may quote what came

# what server.conf says, so that the refusal of somebody on the way is not taken for ours
_REFUSALS = {
    401: b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}',
    403: b'{"errors":[{"code":"DENIED","message":"access refused"}]}',
}

T = TypeVar("T")


class _Answer(msgspec.Struct, forbid_unknown_fields=True):
    generation: Annotated[str, msgspec.Meta(pattern=r"\A(initial-)?[0-9a-f]{16}\Z")]


@dataclass(frozen=True, slots=True)
class Question:
    """Where to ask: ``url`` is that of the site, with or without ``/v2/_scr/generation``; ``host``
    stands in for the URL's in the Host header; ``credentials`` are ``user:password``."""

    url: str
    host: str = ""
    ca_file: Path | None = None
    credentials: str = ""


class CannotSeeError(Exception):
    """The question was refused, which says nothing about the generation."""


def wait_for_answer(
    question: Question, generation: str, *, seconds: float, progress: Callable[[], None]
) -> str:
    """Ask on fresh connections until only ``generation`` answers for 0.2 s.

    Returns an empty text then, else, after ``seconds``, what came instead. Raises ``CannotSeeError``
    if the site's access rules keep the answer from us.
    """
    deadline = time.monotonic() + seconds
    since: float | None = None
    said = ""
    while True:
        answer = _ask(question, deadline, progress)
        now = time.monotonic()
        if now < deadline or not said:  # the last may only have been cut short
            said = answer
        if answer != generation:
            since = None
        elif since is None:
            since = now
        elif now - since >= _STEADY_SECONDS:
            return ""
        if now >= deadline:
            return f"{question.url} answers with {said}, not with generation {generation}"
        progress()
        time.sleep(_POLL_SECONDS)


def _ask(question: Question, deadline: float, progress: Callable[[], None]) -> str:
    """The generation that answers, or a clause that says what does."""
    url = urllib.parse.urlsplit(question.url)
    headers = {"Connection": "close"}
    if question.host:
        headers["Host"] = question.host
    if question.credentials:
        headers["Authorization"] = "Basic " + base64.b64encode(question.credentials.encode()).decode()
    context = ssl.create_default_context(cafile=question.ca_file) if url.scheme == "https" else None
    connection: http.client.HTTPConnection
    if context is None:
        connection = http.client.HTTPConnection(url.netloc)
    else:
        connection = http.client.HTTPSConnection(url.netloc, context=context)
    try:
        with _connected(connection.host, connection.port, context, deadline, progress) as wire:
            connection.sock = wire  # as much of a socket as it needs
            connection.request("GET", "/v2/_scr/generation", headers=headers)
            response = connection.getresponse()
            body = response.read(_BODY_BYTES)
    except (OSError, http.client.HTTPException) as error:
        return f"an error ({printable(str(error))[:_WORDS]})"
    if response.status in _REFUSALS and body == _REFUSALS[response.status]:
        raise CannotSeeError(
            f"{question.url} answers {response.status} to scr-watchd: set confirm_credentials_file"
        )
    if response.status != 200:
        return f"status {response.status}, which is not scr-watchd's"
    try:
        if response.headers.get_content_type() == "application/json":
            return msgspec.json.decode(body, type=_Answer).generation
    except (msgspec.DecodeError, RecursionError):
        pass
    return "something that is not scr-watchd's"


# -- connections on which every step has the same deadline -------------------------------------------


@contextmanager
def _connected(
    host: str,
    port: int,
    context: ssl.SSLContext | None,
    deadline: float,
    progress: Callable[[], None],
) -> Iterator["_Wire"]:
    """A connection to the first of the addresses of ``host`` that takes one."""
    problem: OSError = ConnectionError(f"{host} has no address")
    for family, kind, protocol, _, address in _addresses(host, port, deadline, progress):
        until = min(deadline, time.monotonic() + _ATTEMPT_SECONDS)
        wire = _Wire(socket.socket(family, kind, protocol), until, progress)
        with closing(wire.reader):
            try:
                wire.connect(address)
            except OSError as error:
                problem = error
                continue
            if context is not None:
                wire.encrypt(context, host)
            yield wire
            return
    raise problem


_Address = tuple[int, int, int, str, Any]
"""Family, kind, protocol, name and what to connect to, as getaddrinfo(3) has them."""


def _addresses(host: str, port: int, deadline: float, progress: Callable[[], None]) -> list[_Address]:
    """What ``host`` means. A thread asks: the C library can be neither interrupted nor given a deadline."""
    with suppress(socket.gaierror):
        return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)]
    found: SimpleQueue[list[_Address] | OSError] = SimpleQueue()

    def look() -> None:
        try:
            found.put([*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except (OSError, UnicodeError, MemoryError) as error:
            found.put(OSError(str(error)))

    if not threads.start(look, name="resolver"):
        raise OSError("no thread can be started")
    while True:
        with suppress(Empty):
            answer = found.get(timeout=_WAIT_SECONDS)
            if isinstance(answer, OSError):
                raise answer
            return answer
        progress()
        if time.monotonic() >= deadline:
            raise TimeoutError(f"the name {host} was not resolved in time")


class _Wire:
    """What an HTTP client needs of a socket. Nothing outlasts ``until``, however the bytes drip."""

    def __init__(self, plain: socket.socket, until: float, progress: Callable[[], None]) -> None:
        self._socket = plain
        self._socket.settimeout(0)
        self._until = until
        self._progress = progress
        self.reader = _Reader(self)

    def connect(self, address: Any) -> None:
        self._act(lambda: self._socket.connect(address), select.POLLOUT)

    def encrypt(self, context: ssl.SSLContext, host: str) -> None:
        encrypted = context.wrap_socket(self._socket, server_hostname=host, do_handshake_on_connect=False)
        self._socket = encrypted
        self._act(encrypted.do_handshake, select.POLLIN)

    def sendall(self, data: bytes) -> None:
        while data:
            part = data
            data = data[self._act(lambda: self._socket.send(part), select.POLLOUT) :]  # noqa: B023 - at once

    def receive(self, buffer: Any) -> int:
        return self._act(lambda: self._socket.recv_into(buffer), select.POLLIN)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self.reader)

    def close(self) -> None:
        """Nothing: the client calls this before it has read the answer. The reader's end is the end."""

    def end(self) -> None:
        self._socket.close()

    def _act(self, act: Callable[[], T], waits_for: int) -> T:
        """What ``act`` returns once the socket is ready for it. Also what is always ready has an end."""
        while True:
            self._progress()
            if time.monotonic() >= self._until:
                raise TimeoutError("there is no whole answer in time")
            try:
                return act()
            except ssl.SSLWantReadError:
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            except BlockingIOError:
                events = waits_for
            poll = select.poll()
            poll.register(self._socket, events)
            left = min(_WAIT_SECONDS, self._until - time.monotonic())
            poll.poll(max(0.0, left) * 1000)


class _Reader(io.RawIOBase):
    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.receive(buffer)

    def close(self) -> None:
        super().close()
        self._wire.end()
