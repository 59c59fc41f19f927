"""The exceptions that end a command: with a sentence instead of a traceback, or because we are to end."""

import difflib
from collections.abc import Iterable


class ScrWatchdError(Exception):
    """Something that the person who started us can mend.

    ``message`` says what and where, ``hint`` what to do about it. ``status`` is the exit status:
    1 an operational failure, 2 a usage error, 78 a configuration error (sysexits' EX_CONFIG,
    for which a service manager should not try again).
    """

    def __init__(self, message: str, *, hint: str = "", status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status


class ConfigurationError(ScrWatchdError):
    """A setting that cannot be used; starting again without changing it is pointless."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint, status=78)


class Stopped(BaseException):
    """We were asked to end during a pass. It is cut off between two steps, as a crash would; no class of
    ``Exception``, so that nobody takes it for a failure of what was waited for."""


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """A hint about ``word``, which is none of the ``known``: the nearest of them, or ``otherwise``."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}?" if near else otherwise
