"""A plain HTTP client for TCP addresses and Unix sockets; it follows and hides nothing."""

import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Response:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The header's value; fails if it is there more than once."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} is there {len(values)} times: {values}"
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error as the distribution specification writes it."""
        (error,) = self.json()["errors"]
        return str(error["code"])


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self._path)


def ask(
    address: str, path: str, *, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b""
) -> Response:
    """Ask ``address``, which is HOST:PORT or the path of a Unix socket, on a connection of its own."""
    connection = (
        _UnixConnection(address)
        if address.startswith("/")
        else http.client.HTTPConnection(address, timeout=10)
    )
    try:
        connection.request(
            method, path, body=body or None, headers={"Connection": "close", **(headers or {})}
        )
        answer = connection.getresponse()
        return Response(answer.status, tuple(answer.getheaders()), answer.read())
    finally:
        connection.close()
