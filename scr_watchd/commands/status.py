"""`scr-watchd status`: what the daemon serves now, and what it does not."""

import argparse
import contextlib
import math
import pwd
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from scr_watchd.commands import options
from scr_watchd.commands.asking import state_of, to_start
from scr_watchd.commands.owner import as_owner
from scr_watchd.daemon import status as statuses
from scr_watchd.daemon.progress import recent
from scr_watchd.daemon.status import Status, UnripeStatus, about_links, counted, size
from scr_watchd.errors import ScrWatchdError
from scr_watchd.publish.holder import is_daemon, running
from scr_watchd.publish.sight import Sight, look_again
from scr_watchd.publish.state import State, silent_seconds
from scr_watchd.words import printable, shell

_ABOUT = """\
What the daemon serves now, and what it does not.

examples:
  scr-watchd status                        of the service
  scr-watchd status ./images               of `scr-watchd serve ./images`
  scr-watchd status --json | jq .generation
  scr-watchd status --watch                what comes, and how far it is

exit status: 0 fine, 3 something is not served or not confirmed, 4 the daemon does not run, or hangs,
5 nginx does not run, 75 nothing has been published yet
"""

_WATCH_SECONDS = 1.0
_CLEAR = "\x1b[H\x1b[2J"
_HANGING_SECONDS = 60.0  # a daemon that goes on says so every ten


_HANGS = """\
hanging:    {} gave no sign of life for {} s: it waits for a disk, or was stopped.
            Look at the disk of the images and of the state, or end it{} and start it again
"""


def parser() -> argparse.ArgumentParser:
    made = options.parser("status", _ABOUT, ("root", "state"))
    made.add_argument("root", nargs="?", metavar="ROOT", help="the images tree of a `serve`")
    how = made.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for programs")
    how.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    return made


def run(arguments: argparse.Namespace) -> int:
    settings, _ = options.load(arguments)
    state = state_of(arguments.root, settings)
    held, pid = as_owner(state)
    start = partial(to_start, state, arguments.root)
    if not arguments.watch:
        text, code = _seen(held, pid, state.path, start, as_json=arguments.json)
        print(text)
        return code
    shown, code = "", 0
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            text, code = _seen(held, pid, state.path, start, as_json=False)
            if sys.stdout.isatty():
                print(f"{_CLEAR}{text}", flush=True)
            elif text != shown:
                print(f"{text}\n", flush=True)
            shown = text
            time.sleep(_WATCH_SECONDS)
            held, pid = as_owner(state) if pid is None else (held, running(held))
    return code


def _seen(
    held: State, pid: int | None, path: Path, start: Callable[[Status | None], str], *, as_json: bool
) -> tuple[str, int]:
    """What there is to say of the state, and the exit status; ``start`` gives the command that starts it."""
    try:
        status = statuses.read(held.status)
        silent = silent_seconds(held) if pid is not None else 0.0
    except (OSError, ValueError) as error:
        raise ScrWatchdError(
            f"the status in {printable(str(path))} cannot be read: {printable(str(error))}"
        ) from error
    hanging = silent > _HANGING_SECONDS
    if status is not None:
        is_recent = pid is not None and not hanging
        status = statuses.seen(status, look_again(status.nginx, is_recent=is_recent))
    under_way = recent(held.progress) if pid is not None else ""
    code = _code(status, pid, hanging=hanging)
    if as_json:
        more = {"hanging": hanging, "under_way": under_way} if pid is not None else {}
        content = msgspec.to_builtins(status) if status else {}
        told = {"running": pid is not None, **more, **content}
        return msgspec.json.format(msgspec.json.encode(told), indent=1).decode(), code
    text = _text(status, pid, path, under_way)
    if pid is None:
        first, _, rest = text.partition("\n")
        text = f"{first}\n{'start it:':<12}{start(status)}\n{rest}".rstrip("\n")
    if hanging:
        known = pid is not None and is_daemon(pid, held)  # else its number may be anybody's
        who, how = (f"process {pid}", f" (kill -KILL {pid})") if known else ("the daemon", "")
        text = f"{_HANGS.format(who, int(silent), how)}\n{text}"
    return text, code


def _code(status: Status | None, pid: int | None, *, hanging: bool) -> int:
    if pid is None or hanging:
        return options.EXIT_NOT_RUNNING
    if status is not None and status.nginx.up is False:
        return options.EXIT_NGINX_NOT_RUNNING
    if status is None or not status.generation:
        return options.EXIT_NOT_YET
    fine = status.outcome in ("published", "unchanged") and not status.problems and not status.held
    return 0 if fine else options.EXIT_PROBLEMS


def _text(status: Status | None, pid: int | None, path: Path, under_way: str) -> str:
    if status is None:
        return (
            f"{_running(pid)}, first pass under way{under_way and ': '}{under_way}"
            if pid is not None
            else f"not running, and never was in {printable(str(path))}"
        )
    serves = status.nginx.up is not False and not status.own_nginx
    gone = "not running; nginx serves what was published last" if serves else "not running"
    rows = {
        "daemon": _running(pid) if pid is not None else gone,
        "nginx": _nginx(status.nginx),
        "state": status.message,
        "under way": under_way,
        "images": f"{status.images} in {counted(status.repositories, 'repository')}, from {status.root}",
        "generation": _generation(status),
        "watch": status.watch,
        "store": f"{status.store} ({status.links} links)"
        if not status.links.startswith("symbolic")
        else f"{status.store} ({status.links})",
    }
    lines = [f"{name + ':':<12}{value}" for name, value in rows.items() if value]
    if status.only_stored_bytes:
        lines.insert(
            -1, f"{'disk:':<12}{size(status.only_stored_bytes)} only in the store; see scr-watchd prune"
        )
    if status.copied_bytes:
        lines.insert(
            -1, f"{'copies:':<12}{size(status.copied_bytes)} in the store, where no link can be made"
        )
    if status.links_cost:
        lines += ["", status.links_cost]
    lines += about_links(status)
    if status.held:
        lines += [
            "",
            f"held since {_ago(status.held_since)}, because too many vanished at once; to let them go: ",
        ]
        lines[-1] += f"scr-watchd accept --state {shell(str(path))}"
        lines += [f"  {tag}" for tag in status.held]
    if status.pinned:
        lines += ["", "served as they were, because their directory holds no complete image now:"]
        lines += [f"  {tag}" for tag in status.pinned]
    lines += renamed(status)
    if status.partial:
        lines += ["", "served without all of their platforms:", *(f"  {each}" for each in status.partial)]
    lines += [line for each in status.unripe for line in ("", *unripe(each))]
    for problem in status.problems:
        whose = "" if problem.owner is None else f" (of {_user(problem.owner)})"
        lines += ["", f"not served: {problem.path}{whose}", f"  {problem.reason}", f"  {problem.remedy}"]
    return "\n".join(lines)


def renamed(status: Status) -> list[str]:
    if not status.renamed:
        return []
    names = [f"  {old} -> {new}" for old, new in status.renamed]
    return ["", "called otherwise now, because their layout has images of several repositories:", *names]


def unripe(image: UnripeStatus) -> list[str]:
    left = max(1, math.ceil(image.until - time.time()))
    return [
        f"not served yet: {image.image}",
        f"  {image.reason}",
        f"  A copy may be under way; if nothing comes, it is served without them in {left} s",
    ]


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name}, uid {uid}"
    except KeyError:
        return f"uid {uid}"


def _running(pid: int) -> str:
    return f"running (process {pid})" if pid else "running"


def _nginx(sight: Sight) -> str:
    if sight.up is None:
        return f"cannot be seen: {sight.reason}" if sight.reason else ""
    return f"running (process {sight.pid})" if sight.up else f"not running: {sight.reason}"


def _generation(status: Status) -> str:
    when = f"last confirmed {_ago(status.confirmed_at)}"
    if not status.generation:
        return "none yet"
    return f"{status.generation}, {when if status.confirmed else f'not confirmed ({when})'}"


def _ago(moment: float | None) -> str:
    if moment is None:
        return "never"
    seconds = max(0, int(time.time() - moment))
    for length, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"
