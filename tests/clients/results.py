"""What each client was seen to do, by Debian and day: results.json, and the table of docs/clients.md."""

import fcntl
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.documents import HOUSE

COLUMNS = (
    *("Docker v2s2", "OCI", "multi-arch", "sparse index", "bundle", "zstd", "zstd:chunked", "artifact"),
    *("referrers", "by digest", "resumed", "mirror", "private CA", "password"),
)
WRITING = bool(os.environ.get("WRITE_TABLE"))
DEBIANS = {"bookworm": "12", "trixie": "13", "sid": "sid"}

FILE = Path(__file__).parent / "results.json"
LOCK = FILE.with_suffix(".lock")
PAGE = HOUSE / "docs" / "clients.md"
BEGIN, END = "<!-- clients: written by python -m tests.clients -->", "<!-- clients: end -->"

PAGE_TEST = "test_the_page_has_the_table_of_what_was_recorded"

Cells = Mapping[str, str]


def read() -> dict[str, Any]:
    """By Debian: the day, and of each client its version and its cells."""
    found: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found


def cells(debian: str, client: str) -> Cells:
    """What is recorded of a client; of a Debian that was never tried, nothing."""
    told: Cells = read().get(debian, {}).get("clients", {}).get(client, {}).get("cells", {})
    return told


def write(debian: str, clients: Mapping[str, tuple[str, Cells]]) -> None:
    """Record all clients of one Debian, in the place of what was recorded of it; others do so meanwhile."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _write(debian, clients)


def _write(debian: str, clients: Mapping[str, tuple[str, Cells]]) -> None:
    record = {
        name: {"version": version, "cells": {column: found[column] for column in COLUMNS if column in found}}
        for name, (version, found) in clients.items()
    }
    every = {**read(), debian: {"on": f"{datetime.now(UTC):%Y-%m-%d}", "clients": record}}
    FILE.write_text(json.dumps({name: every[name] for name in DEBIANS if name in every}, indent=1) + "\n")


def table() -> str:
    """The table, a row for each version, the oldest first."""
    record = read()
    rows = [["", "Debian", *COLUMNS, "on"], ["---"] * (len(COLUMNS) + 3)]
    names = list(dict.fromkeys(name for each in record.values() for name in each["clients"]))
    for name in names:
        for debian in record:
            if found := record[debian]["clients"].get(name):
                cells = [found["cells"].get(column, "–") for column in COLUMNS]  # noqa: RUF001
                rows.append([f"{name} {found['version']}", DEBIANS[debian], *cells, record[debian]["on"]])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def on_the_page() -> tuple[str, str, str]:
    """The page before its table, the table, and the page behind it."""
    before, begin, rest = PAGE.read_text().partition(f"{BEGIN}\n\n")
    told, end, after = rest.partition(f"\n\n{END}")
    assert begin, f"{PAGE} has no place for the table"
    assert end
    return before + begin, told, end + after


def write_page() -> None:
    before, _, after = on_the_page()
    PAGE.write_text(f"{before}{table()}{after}")
