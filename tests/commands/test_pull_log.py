"""Who pulls what: the commands of docs/operations.md, on a log of 100,000 lines."""

import gzip
import json
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.documents import block
from tests.nginxes import require


def line(
    days: float, name: str, tag: str, digest: str, *, status: int = 200, address: str = "10.0.0.1"
) -> str:
    """What the log_format of config/nginx-http.conf writes."""
    moment = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
    return f'{moment} {address} - GET {status} {name} {tag} {digest} "docker/28.0 go/go1.24"\n'


def digest(name: str) -> str:
    return f"sha256:{name:0>64}"


def run(directory: Path, script: str) -> list[str]:
    require("jq")
    script = script.replace("/var/log/nginx", str(directory)).replace("/var/lib/scr-watchd", str(directory))
    done = subprocess.run(["sh", "-eu", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_who_pulls_what_and_what_nobody_has_pulled(tmp_path: Path) -> None:
    tags = {f"r{number}": {"1": digest(f"{number}a"), "2": digest(f"{number}b")} for number in range(500)}
    record = {"repositories": {name: {"tags": each, "manifests": {}} for name, each in tags.items()}}
    (tmp_path / "published.json").write_text(json.dumps(record))
    # the first tag of each but the last ten, by its tag; the second by its digest alone
    busy = [
        line(number % 80, f"r{number % 490}", *pulled, address=f"10.0.0.{number % 5}")
        for number in range(50_000)
        for pulled in (("1", digest("other")), ("-", digest(f"{number % 490}b")))
    ]
    odd = [
        line(100, "r499", "1", digest("499a")),  # too long ago
        line(1, "r499", "2", "-", status=404),
        line(1, "r498", "1", digest("498a")),
    ]
    (tmp_path / "pulls.log").write_text("".join([*busy[:60_000], *odd]))
    (tmp_path / "pulls.log.2.gz").write_bytes(gzip.compress("".join(busy[60_000:]).encode()))

    began = time.monotonic()
    idle = run(tmp_path, block("docs/operations.md", "Who pulls what", "published.json"))
    assert time.monotonic() - began < 10
    expected = {f"r{number}:{tag}" for number in range(490, 500) for tag in "12"} - {"r498:1"}
    assert set(idle) == expected
    assert len(idle) == len(expected)

    counted = [
        each.split() for each in run(tmp_path, block("docs/operations.md", "Who pulls what", "uniq -c"))
    ]
    assert sum(int(each[0]) for each in counted) == 100_001
    assert ["1", "r498:1", "10.0.0.1"] in counted
    assert any(each[1] == f"r7@{digest('7b')}" for each in counted)
