"""The configuration of the nginx that serves, which is the operator's: does nginx accept it, and has it the
lines that include us?"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scr_watchd.publish import included, nginx
from scr_watchd.publish.nginx import Nginx, NginxError


@dataclass(slots=True)
class Site:
    """``config`` is the main configuration of ``nginx``, ``None`` where it is not ours to test: another
    user's, another container's, or scr-watchd's own. ``untested`` says why it could not be tested, and
    ``is_refused`` whether nginx would not start with it."""

    nginx: Nginx
    config: Path | None
    test_seconds: float
    progress: Callable[[], None] = lambda: None
    untested: str = ""
    is_refused: bool = False
    _is_included: bool = False

    def test(self) -> str:
        """What nginx has against the configuration; nothing where it cannot be tested."""
        if self.config is None or not self.config.exists():
            return ""
        try:
            refusal = nginx.check_site(
                self.nginx, self.config, seconds=self.test_seconds, progress=self.progress
            )
        except NginxError as error:
            self.untested = f"what is published goes live without a test of {self.config}: {error}"
            return ""
        self.untested = ""
        return refusal.words if refusal else ""

    def missing_include(self, generation: str, *, current: Path) -> str:
        """What to add to the configuration if it does not include us. Once seen, it is believed."""
        if self._is_included or self.config is None or self.untested or not self.config.exists():
            return ""
        text = nginx.whole_text(self.nginx, self.config, seconds=self.test_seconds, progress=self.progress)
        if text is None:
            return ""
        wanted = included.missing(text, config=self.config, generation=generation, current=current)
        self._is_included = not wanted
        return wanted
