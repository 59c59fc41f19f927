"""Passes in this process, one call each: a real tree, a real store, a real nginx that reads what is rendered.

No loop and no sleeps, so that orders of events can be tried by the hundred. Nothing is signalled: what is
current counts as served.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from scr_watchd.commands.running import Lasting, build
from scr_watchd.daemon.mirror import ALL, Mirror
from scr_watchd.daemon.outcome import Outcome
from scr_watchd.daemon.pulse import Pulse
from scr_watchd.daemon.systemd import Notifier
from scr_watchd.files import ANYBODY
from scr_watchd.publish.nginx import inspect
from scr_watchd.publish.reload import Reloading
from scr_watchd.publish.site import Site
from scr_watchd.settings import Settings
from tests.nginxes import require


@dataclass
class Passes:
    """A daemon without its loop. ``at`` is called with the name of each step that is done."""

    settings: Settings
    at: Callable[[str], None] = lambda step: None
    mirror: Mirror = field(init=False)
    _lasting: Lasting = field(default_factory=Lasting)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin as a new process would, whose lock has made the state directory: none of the old one's
        is held any more."""
        for lock in self._lasting.locks.values():
            os.close(lock)
        self._lasting = Lasting()
        self.settings.state.mkdir(exist_ok=True)
        way = Reloading("none", Path, (), None, by_process=False, seconds=1)
        keeper = build(
            self.settings,
            Site(inspect(require("nginx")), None, test_seconds=30),
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

    def look(self, *, full: bool = True, hints: Mapping[str, bool] = ALL) -> Outcome:
        return self.mirror.run_pass(full=full, hints=hints)

    def look_and_tell(self) -> dict[str, str]:
        self.look()
        return self.served()

    def served(self) -> dict[str, str]:
        """The digest of every tag that nginx was given."""
        return {
            f"{name}:{tag}": digest
            for (name, tag), digest in self.mirror.publisher.confirmed.catalog.tags().items()
        }
