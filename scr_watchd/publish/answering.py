"""Confirms a generation by asking nginx for it over HTTP, as a client would."""

import base64
import http.client
import ssl
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

_POLL_SECONDS = 0.02
_STEADY_SECONDS = 0.2  # old workers may answer a little longer: one answer proves little
_TIMEOUT_SECONDS = 2


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
    while True:
        answer = _ask(question)
        now = time.monotonic()
        if answer != generation:
            since = None
        elif since is None:
            since = now
        elif now - since >= _STEADY_SECONDS:
            return ""
        if now >= deadline:
            return f"{question.url} answers with {answer}, not with generation {generation}"
        progress()
        time.sleep(_POLL_SECONDS)


def _ask(question: Question) -> str:
    """The generation that answers, or a clause that says what does."""
    parts = urllib.parse.urlsplit(question.url)
    headers = {"Connection": "close"}
    if question.host:
        headers["Host"] = question.host
    if question.credentials:
        headers["Authorization"] = "Basic " + base64.b64encode(question.credentials.encode()).decode()
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=question.ca_file)
        connection = http.client.HTTPSConnection(parts.netloc, timeout=_TIMEOUT_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/v2/_scr/generation", headers=headers)
        response = connection.getresponse()
        body = response.read(4096)
    except (OSError, http.client.HTTPException) as error:
        return f"an error ({error})"
    finally:
        connection.close()
    if response.status in (401, 403):
        raise CannotSeeError(
            f"{question.url} answers {response.status} to scr-watchd: set confirm_credentials_file"
        )
    if response.status != 200:
        return f"status {response.status}"
    try:
        return msgspec.json.decode(body, type=dict[str, str]).get("generation", "no generation")
    except msgspec.DecodeError:
        return "something that is not scr-watchd's"
