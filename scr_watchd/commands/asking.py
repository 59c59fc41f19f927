"""How a command asks something of a daemon: a file in its state directory, and a signal if it may."""

import os
from pathlib import Path

from scr_watchd.commands.owner import as_owner
from scr_watchd.commands.places import find_state
from scr_watchd.daemon import status as statuses
from scr_watchd.daemon.status import Status
from scr_watchd.errors import ScrWatchdError
from scr_watchd.publish.holder import tell
from scr_watchd.publish.state import Request, State, request
from scr_watchd.settings import Settings
from scr_watchd.words import printable, shell

_UNITS = [f"{place}/systemd/system/scr-watchd.service" for place in ("/etc", "/usr/lib", "/lib")]


def state_of(root: str | None, settings: Settings) -> State:
    """The state directory of a `serve` of ``root``, or else of the settings, or, where no daemon has
    been, of a `serve` of their root: in a container that is all there is."""
    if root:
        return State(find_state(Path(os.path.abspath(root))))
    own = State(settings.state)
    served = own if own.lock.exists() else State(find_state(settings.root))
    return served if served.lock.exists() else own


def to_start(state: State, root: str | None, status: Status | None) -> str:
    """The command that starts the daemon of ``state``, which `serve` of ``root`` had, or whoever wrote
    ``status``."""
    if root or (status and status.own_nginx):
        return f"scr-watchd serve {shell(root or (status.root if status else ''))}"
    if state.path.name == ".scr-watchd":
        return f"scr-watchd serve {shell(str(state.path.parent))}"
    defaults = Settings()
    if state.path == defaults.state and any(map(os.path.exists, _UNITS)):
        return "systemctl start scr-watchd"
    images = "" if status is None or status.root == str(defaults.root) else f" {shell(status.root)}"
    named = "" if state.path == defaults.state else f" --state {shell(str(state.path))}"
    return f"scr-watchd run{images}{named}"


def later(state: State, root: str | None) -> str:
    """What becomes of a request that no daemon reads."""
    start = to_start(state, root, statuses.last(state.status))
    return f"the daemon does not run; it will when it starts: {start}"


def ask(state: State, what: Request, text: str = "") -> bool:
    """Leave the request and tell the daemon; whether there is one. Without one it is found by the next.

    Raises ``ScrWatchdError`` if it cannot be left there.
    """
    path = printable(str(state.path))
    held, pid = as_owner(state)
    try:
        request(held, what, text)
    except FileNotFoundError as error:
        raise ScrWatchdError(
            f"no daemon ever ran in {path}", hint="name the state directory of the one you mean with --state"
        ) from error
    except OSError as error:
        raise ScrWatchdError(
            f"cannot ask the daemon of {path}: {error.strerror}",
            hint=f"ask as the user that it runs as, who owns that directory: sudo -u USER scr-watchd {what}"
            if isinstance(error, PermissionError)
            else f"look at the disk of {path}",
        ) from error
    if pid:
        tell(pid, held)
    return pid is not None
