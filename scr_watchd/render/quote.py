"""What fits into one nginx token, and how a path or a text becomes part of one. Everything else that is
rendered is a parsed name, tag or digest, whose alphabets need no more than quotes around them."""

import re
from collections.abc import Iterator

TOKEN_BYTES = 3900
"""Longest token that is written; nginx refuses one of more than 4095 bytes ("too long parameter")."""


def path(text: str) -> str:
    """``text`` as a quoted file path.

    nginx has no escape for ``$``, so a path with one cannot be written: ``ValueError``. So is one
    with a control character, which no operator means.
    """
    if "$" in text or any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError(f"nginx cannot be told a path with $ or a control character: {text!a}")
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    if len(escaped.encode("utf-8", "surrogateescape")) > TOKEN_BYTES:
        raise ValueError("the path is too long for nginx")
    return f"'{escaped}'"


_PLAIN = re.compile(r"[ !#%&(-\[\]-~]*")  # ASCII without control characters, quotes, $ and backslash


def json_string(text: str) -> str:
    """``text`` as a JSON string, to stand in a token in single quotes.

    nginx has no escape for ``$``, and reads backslashes of its own, but leaves ``\\u`` as it is.
    """
    if _PLAIN.fullmatch(text):
        return f'"{text}"'
    escaped = (
        each if _PLAIN.fullmatch(each) else "".join(f"\\u{unit:04x}" for unit in _utf_16(each))
        for each in text
    )
    return f'"{"".join(escaped)}"'


def _utf_16(character: str) -> Iterator[int]:
    raw = character.encode("utf-16-be", "surrogatepass")
    return (int.from_bytes(raw[start : start + 2]) for start in range(0, len(raw), 2))
