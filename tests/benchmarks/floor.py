"""The floor: what the disk and nginx need for a change, whoever makes it.

A finished generation is written and synced, `nginx -t` reads it once, nginx is told, and answers from it.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

from scr_watchd.publish.generations import Generations
from tests.benchmarks import servers
from tests.benchmarks.mirrors import Mirror
from tests.http import ask
from tests.waiting import until


@contextmanager
def floor(mirror: Mirror) -> Iterator[Callable[[], float]]:
    """A call that gives what ``mirror`` has published to an nginx of its own, under another id, and says
    how many seconds that took."""
    there = replace(mirror, state_name="floor")
    there.state.mkdir(exist_ok=True)  # as the lock of a daemon does
    generations = Generations(there.state / "nginx")
    files = {each.name: each.read_bytes() for each in mirror.current.iterdir()}
    published = mirror.current.resolve().name
    numbers = count()

    def finished() -> tuple[str, dict[str, bytes]]:
        new = f"{next(numbers):016x}"
        return new, {name: text.replace(published.encode(), new.encode()) for name, text in files.items()}

    new, texts = finished()
    generations.stage(new, texts)
    generations.switch(new)
    with servers.nginx(mirror.directory / "floor-site", there.http, there.server, workers=2) as serving:

        def one() -> float:
            new, texts = finished()
            began = time.monotonic()
            candidate = generations.stage(new, texts)
            http, server = (
                text.replace(str(there.current), str(candidate.path)) for text in (there.http, there.server)
            )
            servers.nginx_test(mirror.directory / "floor-test", http, server)
            generations.switch(new)
            os.kill(serving.pid, signal.SIGHUP)
            until(lambda: new in ask(serving.address, "/v2/_scr/generation").body.decode(), seconds=60)
            return time.monotonic() - began

        yield one
