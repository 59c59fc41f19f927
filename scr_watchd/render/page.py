"""The page at /v2/_scr/: one file, which is the same for every tree, and what server.conf says of it."""

import base64
import re
from functools import cache
from hashlib import sha256
from importlib.resources import files

_LOCATION = re.compile(rb"    # -- the page for people.*?\n    }\n\n", re.DOTALL)
_INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


@cache
def page() -> bytes:
    """The bytes of the page."""
    return files(__package__).joinpath("page.html").read_bytes()


@cache
def name() -> str:
    """What its file is called, which changes with it: a generation goes with the page that it names."""
    return sha256(page()).hexdigest()


def with_page(server_conf: bytes) -> bytes:
    """``server_conf`` with the location of the page complete."""
    return server_conf.replace(b"@PAGE@", name().encode()).replace(b"@POLICY@", _policy().encode())


def without_page(server_conf: bytes) -> bytes:
    return _LOCATION.sub(b"", server_conf)


@cache
def _policy() -> str:
    """What a browser lets the page do: run its own script, wear its own style, ask its own server."""
    hashes = {
        kind: f"'sha256-{base64.b64encode(sha256(text).digest()).decode()}'"
        for kind, text in _INLINE.findall(page())
    }
    return (
        f"default-src 'none'; script-src {hashes[b'script']}; style-src {hashes[b'style']}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
