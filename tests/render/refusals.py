"""Who may not read: every way to ask all the same, and what the answer must be."""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from functools import partial

from tests.http import Response
from tests.render.site import Served, spellings

PASSWORDS = {"passwords": b"reader:{PLAIN}right\n"}
RIGHT = "Basic " + b64encode(b"reader:right").decode()
METHODS = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "MKCOL", "COPY", "BREW"]


def requests(urls: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Every method on every URL, also with ``?ns=``, and the methods that read on every spelling."""
    for url in urls:
        yield from ((method, url) for method in METHODS)
        for spelling in spellings(url):
            yield from ((method, spelling) for method in ("GET", "HEAD", "PUT"))


def is_refusal(answer: Response, *, method: str, status: int, code: str) -> bool:
    return (
        answer.status == status
        and answer.header("Content-Type") == "application/json"
        and answer.header("Docker-Distribution-Api-Version") == "registry/2.0"
        and answer.header("Docker-Content-Digest") is None
        and (answer.body == b"" if method == "HEAD" else answer.code == code)
    )


def refuses(
    running: Served,
    urls: Iterable[str],
    status: int,
    code: str,
    *,
    challenge: str = "",
    authorization: str = "",
) -> None:
    """Each of ``requests`` is refused, and with the ``WWW-Authenticate`` of ``challenge``, if any."""
    get = partial(running.get, Authorization=authorization) if authorization else running.get
    for method, url in requests(urls):
        answer = get(url, method=method)
        assert is_refusal(answer, method=method, status=status, code=code), (method, url, answer)
        if challenge:
            assert answer.header("WWW-Authenticate") == challenge, (method, url)
