"""Words for Problems: paths that a terminal can show, and commands that a shell can run."""

import os
import re
import shlex

_SAFE = re.compile(r"[ -~]*")


def printable(text: str) -> str:
    r"""``text`` as one line of ASCII: anything else, bytes that are no UTF-8 too, as ``\xNN``."""
    if _SAFE.fullmatch(text) and "\\" not in text:
        return text
    return "".join(
        chr(byte) if 32 <= byte < 127 and byte != 92 else f"\\x{byte:02x}" for byte in os.fsencode(text)
    )


def shown(text: str) -> str:
    r"""``text`` of a program, such as what ``printable`` made, as one line of ASCII: all else as ``\xNN``,
    but a backslash as it is."""
    if _SAFE.fullmatch(text):
        return text
    return "".join(
        chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in text.encode("utf-8", "surrogatepass")
    )


def without_controls(text: str) -> str:
    """``text`` in any language, of any number of lines, and nothing that a terminal would obey."""
    return "".join(each if each.isprintable() or each == "\n" else shown(each) for each in text)


def shell(text: str) -> str:
    """``text`` as one word of a shell command, printable."""
    if _SAFE.fullmatch(text):
        return shlex.quote(text)
    escaped = printable(text).replace("'", "\\'")
    return f"$'{escaped}'"


def copy_again(skopeo: str, *, options: str = "", stale: str = "") -> str:
    """The command that copies the image that skopeo calls ``skopeo`` again, without what is ``stale``:
    in an OCI layout skopeo replaces no file, and into a strange directory it writes none."""
    remove = f"rm -r {shell(stale)}; " if stale else ""
    return f"{remove}skopeo copy {options}docker://SOURCE {shell(skopeo)}"
