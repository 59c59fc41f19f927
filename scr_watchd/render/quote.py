"""What fits into one nginx token, and how a path or a text becomes part of one. Everything else that is
rendered is a parsed name, tag or digest, whose alphabets need no more than quotes around them."""

import re

from scr_watchd.oci import bounds

TOKEN_BYTES = bounds.TOKEN_BYTES


def path(text: str) -> str:
    """``text`` as a quoted file path.

    nginx has no escape for ``$``, so a path with one cannot be written: ``ValueError``. So is one
    with a control character, which no operator means.
    """
    if "$" in text or any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError(f"nginx cannot be told a path with $ or a control character: {text!a}")
    escaped = _escaped_quotes(text, "'")
    if len(escaped.encode("utf-8", "surrogateescape")) > TOKEN_BYTES:
        raise ValueError("the path is too long for nginx")
    return f"'{escaped}'"


def warning(text: str) -> str:
    """``text``, which is ASCII without ``$``, as the value of a Warning header (RFC 7234, 5.5), quoted for
    HTTP and then for nginx; of an empty one nothing."""
    quoted = _escaped_quotes(text, '"')
    value = _escaped_quotes(f'299 - "{quoted}"' if text else "", "'")
    return f"'{value}'"


def _escaped_quotes(text: str, mark: str) -> str:
    return text.replace("\\", "\\\\").replace(mark, f"\\{mark}")


_ODD = re.compile(r"[^ !#%&(-\[\]-~]+")  # not ASCII, a control character, a quote, $ or a backslash


def json_string(text: str) -> str:
    """``text`` as a JSON string, to stand in a token in single quotes.

    nginx has no escape for ``$``, and reads backslashes of its own, but leaves ``\\u`` as it is.
    """
    return f'"{_ODD.sub(_escaped, text)}"'


def _escaped(found: re.Match[str]) -> str:
    """A run at a time: one character at a time, a list of 20 MB took seconds."""
    units = found[0].encode("utf-16-be", "surrogatepass").hex(" ", 2)
    return rf"\u{units}".replace(" ", r"\u")
