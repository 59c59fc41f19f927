"""What answers at the URL of ``confirm`` may be anything, and may take any time."""

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scr_watchd.errors import Stopped
from scr_watchd.publish.answering import CannotSeeError, Question, wait_for_answer

ID = "0123456789abcdef"
OURS = b'{"generation":"' + ID.encode() + b'"}'
Send = Callable[[socket.socket], None]


@contextmanager
def server(send: Send, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that does ``send`` with each connection that it gets; its HOST:PORT."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), connection:
                if context is None:
                    send(connection)
                else:
                    with context.wrap_socket(connection, server_side=True) as encrypted:
                        send(encrypted)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def answer(body: bytes, *, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def sends(raw: bytes) -> Send:
    def send(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(raw)

    return send


def drips(first: bytes, again: bytes) -> Send:
    """Sends ``first``, then ``again`` four times a second, which no time limit of one read ever sees."""

    def send(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(first)
        while True:
            connection.sendall(again)
            time.sleep(0.25)

    return send


def floods(first: bytes, again: bytes) -> Send:
    def send(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(first)
        while True:
            connection.sendall(again * 1000)

    return send


def says_nothing(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.recv(4096)


def asked(address: str, *, scheme: str = "http", ca: Path | None = None, seconds: float = 1) -> str:
    question = Question(f"{scheme}://{address}/", ca_file=ca)
    return wait_for_answer(question, ID, seconds=seconds, progress=lambda: None)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ENDLESS = {
    "nothing": says_nothing,
    "a status line that drips": drips(b"", b"H"),
    "headers that drip": drips(HEAD + b"X: ", b"x"),
    "a body that drips": drips(HEAD + b"Content-Length: 4000\r\n\r\n", b" "),
    "chunks that drip": drips(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "endless interim answers": floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "endless empty header lines": floods(HEAD + b"X:", b" "),
    "an endless body": floods(HEAD + b"\r\n", b" "),
}


@pytest.mark.parametrize("send", [pytest.param(send, id=name) for name, send in ENDLESS.items()])
def test_nothing_prolongs_the_deadline(send: Send) -> None:
    with server(send) as address:
        began = time.monotonic()
        assert "not with generation" in asked(address)
        assert time.monotonic() - began < 4


def test_a_tls_handshake_that_drips_prolongs_nothing_either() -> None:
    with server(drips(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc", b"\0")) as address:
        began = time.monotonic()
        assert "not with generation" in asked(address, scheme="https")
        assert time.monotonic() - began < 4


@pytest.mark.parametrize("send", [pytest.param(ENDLESS[name], id=name) for name in list(ENDLESS)[:4]])
def test_a_stop_ends_it_at_once(send: Send) -> None:
    ends_at = time.monotonic() + 0.5

    def progress() -> None:
        if time.monotonic() >= ends_at:
            raise Stopped

    with server(send) as address, pytest.raises(Stopped):
        wait_for_answer(Question(f"http://{address}/"), ID, seconds=30, progress=progress)
    assert time.monotonic() - ends_at < 2


LOGIN = b"<html><body>Log in to the network</body></html>"
FOREIGN = {
    "a page to log in at": answer(LOGIN, kind="text/html"),
    "a redirect": answer(OURS, status="302 Found", more="Location: /v2/_scr/generation\r\n"),
    "ours as a page": answer(OURS, kind="text/html"),
    "ours as no 200": answer(OURS, status="203 Non-Authoritative Information"),
    "ours and more": answer(OURS[:-1] + b',"x":1}'),
    "a list": answer(b'["generation"]'),
    "another registry's": answer(b"{}"),
    "no id": answer(b'{"generation":"latest"}'),
    "an id with a line after it": answer(b'{"generation":"' + ID.encode() + b'\\n"}'),
    "nested too deep": answer(b'{"generation":' + b"[" * 4000),
    "compressed": answer(b"\x1f\x8b\x08" + bytes(4000), more="Content-Encoding: gzip\r\n"),
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "escape sequences": b"\x1b[2J\x1b]0;x\x07\r\n",
    "a proxy's 407": answer(LOGIN, status="407 Proxy Authentication Required"),
    "a proxy's 403": answer(LOGIN, status="403 Forbidden", kind="text/html"),
    "another registry's 401": answer(
        b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}',
        status="401 Unauthorized",
        more="Docker-Distribution-Api-Version: registry/2.0\r\n",
    ),
}


@pytest.mark.parametrize("raw", [pytest.param(raw, id=name) for name, raw in FOREIGN.items()])
def test_what_others_say_is_not_taken_for_ours(raw: bytes) -> None:
    with server(sends(raw)) as address:
        said = asked(address, seconds=0.5)
    assert "not with generation" in said
    assert said.isprintable()
    assert len(said) < 400


def test_ours_is_believed_once_it_is_all_that_comes() -> None:
    with server(sends(answer(OURS))) as address:
        assert asked(address) == ""
        assert asked(address.replace("127.0.0.1", "localhost")) == ""


def test_ours_may_come_in_pieces() -> None:
    def send(connection: socket.socket) -> None:
        connection.recv(4096)
        for byte in answer(OURS):
            connection.sendall(bytes([byte]))

    with server(send) as address:
        assert asked(address, seconds=5) == ""


def test_ours_is_believed_over_tls_from_a_known_authority_alone(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with server(sends(answer(OURS)), context) as address:
        assert asked(address, scheme="https", ca=certificate, seconds=5) == ""
        assert "certificate verify failed" in asked(address, scheme="https", seconds=1)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("401 Unauthorized", b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'),
        ("403 Forbidden", b'{"errors":[{"code":"DENIED","message":"access refused"}]}'),
    ],
)
def test_our_own_refusal_says_nothing(status: str, body: bytes) -> None:
    with server(sends(answer(body, status=status))) as address, pytest.raises(CannotSeeError):
        asked(address)


def test_a_name_that_nobody_knows_is_an_error() -> None:
    assert "an error (" in asked("no-such-host.invalid:80", seconds=0.5)
