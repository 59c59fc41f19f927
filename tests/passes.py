"""Passes in this process, one call each: a real tree, a real store, a real nginx that reads what is rendered.

No loop and no sleeps, so that orders of events can be tried by the hundred. Nothing is signalled: what is
current counts as served.
"""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from queue import SimpleQueue

from scr_watchd.commands.running import Keeper, Lasting, build
from scr_watchd.daemon.mirror import Mirror
from scr_watchd.daemon.outcome import Outcome
from scr_watchd.daemon.pulse import Pulse
from scr_watchd.daemon.systemd import Notifier
from scr_watchd.files import ANYBODY
from scr_watchd.images.places import EVERYWHERE
from scr_watchd.publish.nginx import Nginx, inspect
from scr_watchd.publish.reload import Reloading
from scr_watchd.publish.site import Site
from scr_watchd.settings import Settings
from tests.nginxes import require


@cache
def _nginx() -> Nginx:
    return inspect(require("nginx"))


@dataclass
class Passes:
    """A daemon without its loop. ``at`` is called with the name of each step that is done."""

    settings: Settings
    at: Callable[[str], None] = lambda step: None
    nginx: Nginx = field(default_factory=lambda: _nginx())
    keeper: Keeper = field(init=False)
    mirror: Mirror = field(init=False)
    _lasting: Lasting = field(default_factory=Lasting)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin as a new process would, whose lock has made the state directory: none of the old one's
        is held any more."""
        self.close()
        self._lasting = Lasting()
        self.settings.state.mkdir(exist_ok=True)
        way = Reloading("none", Path, (), None, by_process=False, seconds=1)
        self.keeper = keeper = build(
            self.settings,
            Site(self.nginx, None, test_seconds=30),
            way,
            reader=ANYBODY,
            worker_user=lambda: ANYBODY,
            own_nginx=False,
            inbox=SimpleQueue(),
            pulse=Pulse(Notifier({})),
            lasting=self._lasting,
        )
        keeper.watch.close()
        self.mirror = keeper.mirror
        self.mirror.publisher.reached = lambda step: self.at(step)

    def close(self) -> None:
        """End: nothing is held any more."""
        for lock in self._lasting.locks.values():
            os.close(lock)
        self._lasting.locks.clear()

    def look(self, *, full: bool = True, hints: Collection[str] | None = None) -> Outcome:
        """One pass: at everything or, as soon as it is quiet, at ``hints``, which are paths (relative to the
        root) where something is said to have happened."""
        if hints is None:
            return self.mirror.run_pass(full=full)
        places = {EVERYWHERE if each == "." else each: True for each in hints}
        return self.mirror.run_pass(full=full, hints=places)

    def look_and_tell(self) -> dict[str, str]:
        self.look()
        return self.served()

    def served(self) -> dict[str, str]:
        """The digest of every tag that nginx was given."""
        return {
            f"{name}:{tag}": digest
            for (name, tag), digest in self.mirror.publisher.confirmed.catalog.tags().items()
        }
