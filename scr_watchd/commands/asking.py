"""How a command asks something of a daemon: a file in its state directory, and a signal if it may."""

import os
from pathlib import Path

from scr_watchd.commands.owner import as_owner
from scr_watchd.commands.places import find_state
from scr_watchd.errors import ScrWatchdError
from scr_watchd.publish.holder import tell
from scr_watchd.publish.state import Request, State, request
from scr_watchd.settings import Settings
from scr_watchd.words import printable


def state_of(root: str | None, settings: Settings) -> State:
    """The state directory of a `serve` of ``root``, or else of the settings, or, where no daemon has
    been, of a `serve` of their root: in a container that is all there is."""
    if root:
        return State(find_state(Path(os.path.abspath(root))))
    own = State(settings.state)
    served = own if own.lock.exists() else State(find_state(settings.root))
    return served if served.lock.exists() else own


def ask(state: State, what: Request, text: str = "") -> bool:
    """Leave the request and tell the daemon; whether there is one. Without one it is found by the next.

    Raises ``ScrWatchdError`` if it cannot be left there.
    """
    held, pid = as_owner(state)
    try:
        request(held, what, text)
    except OSError as error:
        raise ScrWatchdError(
            f"cannot ask the daemon of {printable(str(state.path))}: {error.strerror}",
            hint="be the user that it runs as, and name its state directory with --state",
        ) from error
    if pid:
        tell(pid, held)
    return pid is not None
