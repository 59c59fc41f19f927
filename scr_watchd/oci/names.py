"""Repository names, tags and digests: text that has passed its grammar, and nothing else.

Whatever holds one of these types may go into a path or an nginx file without another look: their
alphabets have no quote, no ``$``, no space and no control character.
"""

import hashlib
import re
from typing import Self

_NAME_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_NAME_COMPONENT}(?:/{_NAME_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")

NAME_LENGTH = 255
"""Longest repository name; clients limit host and name together to 255."""


class RepositoryName(str):
    """A repository name (distribution specification, "Pulling manifests")."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise ``ValueError``, saying what the name may hold, unless ``text`` is a name."""
        if len(text) > NAME_LENGTH:
            raise ValueError(f"a repository name has at most {NAME_LENGTH} characters")
        if not _NAME.fullmatch(text):
            raise ValueError(
                "a repository name has lower-case letters, digits, and single . _ - between them, "
                "in parts separated by /"
            )
        return cls(text)


class Tag(str):
    """A tag (distribution specification, "Pulling manifests"). Case matters."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise ``ValueError``, saying what a tag may hold, unless ``text`` is a tag."""
        if not _TAG.fullmatch(text):
            raise ValueError(
                "a tag has 1 to 128 letters, digits, . _ or -, and starts with a letter, a digit or _"
            )
        return cls(text)


class Digest(str):
    """``sha256:…`` or ``sha512:…`` in lower-case hex (image specification, "Digests")."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise ``ValueError`` unless ``text`` is a digest of a registered algorithm."""
        if not _DIGEST.fullmatch(text):
            raise ValueError("a digest is sha256: and 64, or sha512: and 128, lower-case hex digits")
        return cls(text)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Self:
        return cls(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")

    @property
    def algorithm(self) -> str:
        return self[:6]

    @property
    def hex(self) -> str:
        return self[7:]
