"""Pulls images from a registry as many clients do, over connections that are kept, until its standard
input is closed; then it prints what it saw. A process of its own, so that a test does not slow it.

    python -m tests.endurance.loader HOST:PORT '[["app", "1", ["sha256:..."]], ...]' CLIENTS
"""

import http.client
import json
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

from tests.endurance.hosts import blobs_of, say

_PACE_SECONDS = 0.002  # between two requests of a client: the machine has other things to do
_CLOSED = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
_ACCEPT = "application/vnd.oci.image.manifest.v1+json"

Target = tuple[str, str, list[str]]


@dataclass
class Seen:
    """``statuses`` other than 200, and ``faults``, are what must not be; ``closed_idle`` are kept
    connections that nginx had closed before a request was answered, which was made again once."""

    pulls: int = 0
    requests: int = 0
    connections: int = 0
    closed_idle: int = 0
    mismatches: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, other: "Seen") -> None:
        for name in ("pulls", "requests", "connections", "closed_idle", "mismatches"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.statuses += other.statuses
        self.versions += other.versions
        self.faults += other.faults


class Client:
    """One client with one connection."""

    def __init__(self, address: str) -> None:
        self.seen = Seen()
        self._address = address
        self._connection: http.client.HTTPConnection | None = None

    def pull(self, name: str, tag: str, digests: list[str]) -> None:
        """A manifest by its tag, which must be one of ``digests``, and all of its blobs."""
        status, digest, raw = self._get(f"/v2/{name}/manifests/{tag}")
        if status != 200:
            return
        self.seen.versions[digest] += 1
        if digest not in digests or _digest(raw) != digest:
            self.seen.mismatches += 1
            self.seen.faults.append(f"{name}:{tag} is {digest}, its bytes are {_digest(raw)}")
            return
        for blob in blobs_of(json.loads(raw)):
            status, _, content = self._get(f"/v2/{name}/blobs/{blob}")
            if status == 200 and _digest(content) != blob:
                self.seen.mismatches += 1
                self.seen.faults.append(f"{name} blob {blob} is {_digest(content)}, {len(content)} bytes")
        self.seen.pulls += 1

    def _get(self, path: str) -> tuple[int, str, bytes]:
        reused = self._connection is not None
        try:
            answer = self._ask(path)
        except _CLOSED:
            self._connection = None
            if not reused:
                raise
            self.seen.closed_idle += 1
            answer = self._ask(path)
        self.seen.requests += 1
        if answer[0] != 200:
            self.seen.statuses[f"{answer[0]} {path.rpartition('/')[0]}"] += 1
        return answer

    def _ask(self, path: str) -> tuple[int, str, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._address, timeout=30)
            self._connection.connect()
            self.seen.connections += 1
        self._connection.request("GET", path, headers={"Accept": _ACCEPT})
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.will_close:
            self._connection.close()
            self._connection = None
        return answer.status, answer.getheader("Docker-Content-Digest", ""), body


def _digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def _work(client: Client, targets: list[Target], stop: threading.Event, seed: int) -> None:
    random = Random(seed)
    while not stop.wait(_PACE_SECONDS):
        try:
            client.pull(*random.choice(targets))
        except (OSError, http.client.HTTPException) as error:
            client.seen.faults.append(f"{type(error).__name__}: {error}")
            return


def main(address: str, targets: str, clients: str) -> None:
    stop = threading.Event()
    workers = [Client(address) for _ in range(int(clients))]
    threads = [
        threading.Thread(target=_work, args=(client, json.loads(targets), stop, number))
        for number, client in enumerate(workers)
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    total = Seen()
    for thread, client in zip(threads, workers, strict=True):
        thread.join()
        total.add(client.seen)
    say(json.dumps(vars(total)))


if __name__ == "__main__":
    main(*sys.argv[1:])
