"""The one exception that ends a command with a sentence instead of a traceback."""


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
