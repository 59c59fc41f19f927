"""One case: something fails in a pass, and what is so afterwards."""

import errno
import gc
import os
import shutil
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scr_watchd.daemon.outcome import Failed
from scr_watchd.errors import ScrWatchdError, cure
from scr_watchd.publish import hashing, proof
from tests.failing import worlds
from tests.failing.calls import ERRORS, Calls, Failure
from tests.failing.scenarios import Scenario
from tests.failing.worlds import World, asking, descriptors, differences, picture, wrong

_COUNTED = -1  # no call has this number: all are counted, and none fails


@dataclass
class Stage:
    """Where cases of one ``scenario`` are played, each in the same empty ``directory``, since what nginx
    reads names it."""

    calls: Calls
    directory: Path
    scenario: Scenario
    wanted: dict[str, object] = field(default_factory=dict)
    """What lies in the state directory when nothing has failed."""
    tags: dict[str, str] = field(default_factory=dict)
    events: set[tuple[str, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        proof._INLINE_BYTES = 0 if self.scenario.hashes else 64 << 20
        hashing._RETRY_SECONDS = 0
        self.calls.refuse_links(are_refused=self.scenario.copies)
        for _ in range(2):  # the first imports what it needs
            world = self._begin()
            self._act(world, Failure(errno.EIO, _COUNTED))
            world.settle()
            self.wanted, self.tags, self.events = picture(world), world.served(), world.said.events
            self._end(world)
        gc.collect()
        gc.freeze()

    def cases(self) -> Iterator[Failure]:
        """Every call that the pass makes with every error that it may fail with, by turns for once and from
        then on."""
        for turn, error in enumerate(ERRORS):
            for others in (False, True):
                count = Failure(error, _COUNTED, others=others)
                world = self._begin()
                number = self._act(world, count)
                world.settle()
                self._end(world)
                for each in range(number):
                    yield Failure(error, each, lasting=(each + turn) % 2 == 1, others=others)

    def play(self, failure: Failure) -> list[str]:
        """Play a case; what is wrong then. Fewer calls than that may have been made."""
        before = descriptors()
        world = self._begin()
        faults = list(self._faults(world, failure))
        world.settle()
        self._end(world)
        gc.collect()
        if left := descriptors().items() - before.items():
            faults.append(f"left open: {left}")
        return [f"{self.scenario}, {failure}: {each}" for each in faults]

    def _begin(self) -> World:
        """A world in which the pass is to be made."""
        scenario = self.scenario
        world = worlds.made(self.directory / "world", scenario.settings)
        scenario.prepare(world.settings.root)
        if not scenario.is_first:
            world.look()
            world.settle()
        scenario.change(world.settings.root)
        world.said.lines.clear()
        world.said.events.clear()
        return world

    def _act(self, world: World, failure: Failure) -> int:
        """Make the pass; how many calls it makes that might fail so."""
        with asking(), self.calls.failing(failure) as counted:
            if self.scenario.restarts:
                world.start()
            world.outcome = world.look()
            if failure.others:
                world.rest()
        return counted()

    def _end(self, world: World) -> None:
        world.end()
        shutil.rmtree(self.directory / "world")

    def _faults(self, world: World, failure: Failure) -> Iterator[str]:
        before = world.served()
        try:
            self._act(world, failure)
        except (OSError, ScrWatchdError) as error:
            if not self.scenario.restarts or world.outcome is not None:  # a start may be in vain
                yield f"raised {error!r}\n{traceback.format_exc()}"
        except Exception:  # noqa: BLE001 - whatever it is, it is a fault
            yield f"raised\n{traceback.format_exc()}"
        yield from wrong(world, tags=before.keys() & self.tags.keys())
        if isinstance(world.outcome, Failed):
            yield from _unhelpful(world.outcome, failure)
        if failure.number // 2 % 2 or world.outcome is None:
            world.start()
        again = world.look()
        if world.is_waiting:
            world.settle()
        yield from (f"afterwards {each}" for each in differences(picture(world), self.wanted))
        if world.served() != self.tags:
            yield f"afterwards {again} serves {world.served()}"
        yield from (f"afterwards {each}" for each in wrong(world, tags=set(self.tags)))
        if not self.events <= world.said.events:
            yield f"never said {self.events - world.said.events}, but {world.said.lines}"


def _unhelpful(outcome: Failed, failure: Failure) -> Iterator[str]:
    error = OSError(failure.error, os.strerror(failure.error))
    if str(error.strerror) not in outcome.reason or cure(error) not in outcome.reason:
        yield f"does not say what is missing and what to do: {outcome.reason}"
