"""What nginx reads, and is known to read.

    stage -> check -> pending -> switch -> test the site -> reload -> confirm

It may be cut off between any two of these. What nginx includes is whole at every moment, and the next start
finishes the work: a generation that is switched to stays `pending` until it is confirmed.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from scr_watchd.files import NotRegularError
from scr_watchd.oci.catalog import Catalog
from scr_watchd.publish import nginx as programs
from scr_watchd.publish import readers as masters
from scr_watchd.publish import records
from scr_watchd.publish.generations import Generations
from scr_watchd.publish.outcome import Changes, Deferred, Published, Rejected, Unconfirmed
from scr_watchd.publish.readers import Readers
from scr_watchd.publish.records import Record
from scr_watchd.publish.reload import Proof, Reloading, is_astray, lingering_workers, reload
from scr_watchd.publish.site import Site
from scr_watchd.publish.state import State
from scr_watchd.words import printable

_HOLD_OFF_SECONDS = 60.0

Step = Literal[
    "scan", "store", "stage", "check", "pending", "switch", "site", "reload", "tell", "confirm", "prune"
]
STEPS: tuple[Step, ...] = get_args(Step)
"""Of a pass that publishes, in their order."""

Files = Mapping[str, bytes]


@dataclass(slots=True)
class Publisher:
    """The generations of one state directory. ``initial`` is the one that stands before the first: it
    answers 503. ``took`` is told how long a reload was, ``reached`` of each step that is done, and ``tell``
    what a generation that nginx answers from does to the tags of the catalog before."""

    state: State
    generations: Generations
    site: Site
    reloading: Reloading
    initial: tuple[str, Files]
    took: Callable[[float], None] = lambda _: None
    reached: Callable[[Step], None] = lambda _: None
    tell: Callable[[Changes, Catalog, str], None] = lambda *_: None
    current: Record = field(default_factory=lambda: Record("", Catalog()))
    """What the current generation was rendered from."""
    confirmed: Record = field(default_factory=lambda: Record("", Catalog()))
    """What nginx was last known to answer from."""
    is_confirmed: bool = False
    """Whether nginx is known to answer from the current generation."""
    _pending: Record | None = None
    _readers: Readers = field(default_factory=Readers)
    _reloaded_at: float = -math.inf

    def recall(self, is_whole: Callable[[Files], bool]) -> str:
        """Take up what the last daemon left: its generation, confirmed or pending, else the initial one.

        Returns what was wrong with its notes, or an empty text. Raises ``OSError`` if the state
        directory cannot be used.
        """
        damaged = []
        found: list[Record | None] = []
        for read in (records.read_published, records.read_pending):
            try:
                found.append(read(self.state))
            except (ValueError, NotRegularError) as error:
                found.append(None)
                why = printable(str(error))
                damaged.append(f"what was noted in {self.state.path} is damaged, and the tree decides: {why}")
        published, pending = found
        current = self.ensure_current()
        if is_whole(self.generations.read(current)):
            self.generations.vouch(current)
        else:
            damaged.append(f"the generation {current} is damaged, and made anew")
            current = self._start_again()
        if published is not None:
            self.current = self.confirmed = published
            self.is_confirmed = published.generation == current
        if pending is not None and pending.generation == current:
            self.current = self._pending = pending
            self.is_confirmed = False
        self._readers = masters.read(self.state.readers, current)
        return "; ".join(damaged)

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever published from this state directory."""
        return not self.current.generation and not self.confirmed.generation

    def ensure_current(self) -> str:
        """The id of the current generation; where it is gone, the initial one takes its place."""
        current = self.generations.current_id()
        if current is None:
            return self._start_again()
        if not self.generations.is_intact(current):
            self.is_confirmed = False
            self._readers = Readers()  # they may have read what is damaged
        return current

    def look_for_another(self) -> None:
        """See whether another nginx answers now than was told."""
        self.is_confirmed = self.is_confirmed and not is_astray(self.reloading, self._readers)

    def note(self, record: Record) -> None:
        """``record`` says something else of the current generation, which is confirmed: what leaves, say,
        of which no line tells."""
        if record != self.current:
            records.write_published(self.state, record)
        self.current = self.confirmed = record

    def publish(self, record: Record, files: Files | None) -> Published | Unconfirmed | Rejected | Deferred:
        """Have nginx answer from ``record``, whose generation has these ``files`` if it is another than the
        current one, or is damaged."""
        before = self.ensure_current()
        refused = self._lingering() or self._still_refused()
        if refused is None and files is not None:
            refused = self._switch(record, files, before=before)
        elif refused is None and not (self._pending is record and self.state.pending.exists()):
            self._note_pending(record)
        return self._reload(record) if refused is None else refused

    def tidy(self, *, before: str) -> None:
        """Remove every generation but the current one, the one ``before``, and what nginx reads."""
        self.generations.prune(keep=frozenset({before, self.confirmed.generation}))

    # -- what is current -----------------------------------------------------------------------------

    def _start_again(self) -> str:
        generation, files = self.initial
        self.generations.stage(generation, files)
        self._make_current(generation)
        return generation

    def _make_current(self, generation: str, *, readers: Readers | None = None) -> None:
        """It has no readers yet but those who came back to it."""
        self.is_confirmed = False
        self.generations.switch(generation)
        self._readers = Readers(readers.masters if readers else frozenset())

    def _switch(self, record: Record, files: Files, *, before: str) -> Rejected | None:
        """Make a generation current, unless nginx refuses it; then the one before stays."""
        candidate = self.generations.stage(record.generation, files)
        self.reached("stage")
        refusal = programs.check(
            self.site.nginx,
            candidate.path,
            scratch=self.state.path / "check",
            seconds=self.site.test_seconds,
            progress=self.site.progress,
        )
        if refusal is not None:
            self._discard(record)
            return Rejected("ours", refusal.words)
        self.reached("check")
        self._note_pending(record)
        self.reached("pending")
        readers, was_confirmed = self._readers, self.is_confirmed
        self._make_current(record.generation)
        self.reached("switch")
        words = self.site.test()
        if not words:
            self.reached("site")
            return None
        self._make_current(before, readers=readers)
        self.is_confirmed = was_confirmed
        self.state.pending.unlink(missing_ok=True)
        self._discard(record)
        without_us = self.site.test()
        self.site.is_refused = bool(without_us)
        return Rejected("the site's", without_us) if without_us else Rejected("ours", words)

    def _note_pending(self, record: Record) -> None:
        records.write_pending(self.state, record)
        self._pending = record

    def _discard(self, refused: Record) -> None:
        """Remove a generation that nginx refuses, unless it answers from it since a better day: that of a
        large tree has megabytes, and each look may make another."""
        if refused.generation != self.confirmed.generation:
            self.generations.discard(refused.generation)

    # -- what stands in the way ----------------------------------------------------------------------

    def _still_refused(self) -> Rejected | None:
        """Ask first where the site itself was refused, or where a generation is current and unconfirmed:
        nothing is switched or signalled before the site is in order."""
        is_pending = self.state.pending.exists()
        if not self.site.is_refused and not is_pending:
            return None
        words = self.site.test()
        self.site.is_refused = bool(words)
        if words and is_pending and self.confirmed.generation in self.generations:
            # a crash kept us from going back, and nginx could not even start like this
            self._make_current(self.confirmed.generation)
            self.state.pending.unlink()
            if not self.site.test():
                self.site.is_refused = False
                return Rejected("ours", words)
        return Rejected("the site's", words) if words else None

    def _lingering(self) -> Deferred | None:
        """Why a reload would better wait: each leaves workers behind that end with their last download,
        and each of those holds the whole of its configuration in memory."""
        if time.monotonic() - self._reloaded_at > _HOLD_OFF_SECONDS:
            return None
        reason = lingering_workers(self.reloading)
        return Deferred(reason) if reason else None

    # -- reload --------------------------------------------------------------------------------------

    def _reload(self, record: Record) -> Published | Unconfirmed:
        missing = self.site.missing_include(record.generation, current=self.generations.current)
        changes = Changes.between(self.confirmed.catalog, record.catalog)
        self.current = record
        self.is_confirmed = False
        if missing:  # a reload would be for nothing, and would seem to succeed
            return Unconfirmed(record.generation, changes, missing)
        began = time.monotonic()
        verdict = reload(self.reloading, record.generation, self._readers, progress=self.site.progress)
        self.reached("reload")
        self._reloaded_at = time.monotonic()
        if verdict.reader is not None:
            self._readers = replace(self._readers, masters=self._readers.masters | {verdict.reader})
        if verdict.proof is not Proof.ABSENT:
            self.took(self._reloaded_at - began)
        if verdict.proof in (Proof.ABSENT, Proof.MISSING):
            return Unconfirmed(record.generation, changes, verdict.reason)
        self.tell(changes, self.confirmed.catalog, record.generation)  # a crash may repeat it, not lose it
        self.reached("tell")
        masters.write(self.state.readers, record.generation, self._readers)
        records.confirm_pending(self.state)
        self.is_confirmed = True
        self.confirmed = record
        self.reached("confirm")
        return Published(record.generation, changes, verdict.reason)
