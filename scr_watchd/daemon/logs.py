"""The format of the lines on standard error: for people, for the journal, for machines."""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TextIO

from scr_watchd.daemon.events import Event


class _Journal(logging.Formatter):
    """``<N>`` before each line, as systemd reads it (sd-daemon(3))."""

    _PRIORITIES: Mapping[int, int] = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6}

    def format(self, record: logging.LogRecord) -> str:
        priority = self._PRIORITIES.get(record.levelno, 6)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        event = getattr(record, "event", None)
        return json.dumps(
            {
                "time": moment.replace("+00:00", "Z"),
                "level": record.levelname.lower(),
                "message": super().format(record),
                **(asdict(event) if isinstance(event, Event) else {}),
            }
        )


class Terminal:
    """A line below the log that comes and goes, where standard error is a terminal."""

    def __init__(self) -> None:
        self._width = 0

    def show(self, text: str) -> None:
        if not sys.stderr.isatty():
            return
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        except OSError:
            columns = 80
        text = text[: columns - 1]
        self._write(f"\r{text:<{self._width}}")
        self._width = len(text)

    def wipe(self) -> None:
        if self._width:
            self._write(f"\r{'':<{self._width}}\r")
            self._width = 0

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            sys.stderr.write(text)
            sys.stderr.flush()


terminal = Terminal()


class _Handler(logging.StreamHandler[TextIO]):
    def emit(self, record: logging.LogRecord) -> None:
        terminal.wipe()
        super().emit(record)


def set_up_logging(form: str, environment: Mapping[str, str] = os.environ) -> None:
    """Lines of the given ``log_format`` on standard error."""
    if form == "auto":
        form = "journal" if environment.get("JOURNAL_STREAM") == _stream() else "text"
    handler = _Handler()
    handler.setFormatter({"journal": _Journal, "json": _Json, "text": _Text}[form]("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _stream() -> str:
    """Standard error as JOURNAL_STREAM names it (systemd.exec(5))."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return ""
    return f"{status.st_dev}:{status.st_ino}"
