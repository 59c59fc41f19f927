"""`scr-watchd run`: the daemon beside an nginx that somebody else runs."""

import argparse
import grp
import logging
import math
import os
import pwd
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from scr_watchd.commands import options
from scr_watchd.commands.judging import Judge, judge_of
from scr_watchd.commands.running import Inbox, Keeper, Lasting, build, keep
from scr_watchd.commands.signals import signals
from scr_watchd.daemon.logs import set_up_logging
from scr_watchd.daemon.loop import Wake
from scr_watchd.daemon.outcome import Failed
from scr_watchd.daemon.pulse import Pulse
from scr_watchd.daemon.systemd import Notifier
from scr_watchd.errors import ConfigurationError, Stopped
from scr_watchd.files import ANYBODY, Reader
from scr_watchd.publish import master, nginx
from scr_watchd.publish.master import NotRunningError
from scr_watchd.publish.outcome import Rejected, Unconfirmed
from scr_watchd.publish.reload import Reloading, find_master
from scr_watchd.publish.site import Site
from scr_watchd.publish.state import State, locked
from scr_watchd.settings import NAMES, Settings, show

if TYPE_CHECKING:
    from scr_watchd.publish.answering import Question

log = logging.getLogger("scr_watchd")

_OF_SERVE = {"tls_cert", "tls_key", "htpasswd"}  # a site has its own way to name these

_ABOUT = """\
Your nginx: watch the images tree, and keep an nginx that somebody else runs serving it.

That nginx includes three files, as config/ shows:
  http {   include /var/lib/scr-watchd/nginx/current/hash*.conf;      # first, optional
           include /var/lib/scr-watchd/nginx/current/http*.conf; }
  server { include /var/lib/scr-watchd/nginx/current/server*.conf; }

examples:
  scr-watchd run                           as the systemd service does
  scr-watchd run --once                    make one pass, and end
  scr-watchd run /srv/images --state /srv/scr-watchd
  scr-watchd run --print-config            every setting, and where it comes from

SIGHUP reads the settings again and looks at everything. SIGTERM ends it; nginx goes on serving.
"""


def parser() -> argparse.ArgumentParser:
    made = options.parser("run", _ABOUT, [name for name in NAMES if name not in _OF_SERVE])
    made.add_argument("root", nargs="?", metavar="ROOT", help="the images tree, like --root")
    made.add_argument("--once", action="store_true", help="make one pass and end: 0 published, 3 problems")
    made.add_argument("--print-config", action="store_true", help="print every setting with its origin")
    return made


def run(arguments: argparse.Namespace) -> int:
    settings, origins = _load(arguments)
    if arguments.print_config:
        print(show(settings, origins))
        return 0
    set_up_logging(settings.log_format)
    pulse = Pulse(Notifier())
    inbox: Inbox = SimpleQueue()
    lasting = Lasting()

    def made(now: Settings, judge: Judge) -> Keeper:
        site, reloading, reader = _site(now, pulse)
        keeper = build(
            now,
            site,
            reloading,
            reader=reader,
            worker_user=lambda: _worker_user(reloading),
            own_nginx=False,
            inbox=inbox,
            pulse=pulse,
            lasting=lasting,
        )
        judge.watch_over(keeper, keep_lock=lock.keep)
        keeper.mirror.host.is_reader_known = bool(now.nginx_user)
        return keeper

    def rebuild() -> Keeper:
        new, origins = _load(arguments)
        if new.state != settings.state:
            raise ConfigurationError("another state directory needs a restart")
        return made(new, judge_of(new, origins))

    judge = judge_of(settings, origins)
    judge.check_state()  # before anything is written there
    with locked(State(settings.state)) as lock, signals(inbox, pulse, hangup=Wake.RELOAD):
        judge.check_state()
        pulse.beat = lock.beat
        keeper = made(settings, judge)
        if arguments.once:
            return _once(keeper)
        keep(keeper, inbox, pulse, rebuild=rebuild, tend=_tend)
    return 0


def _tend() -> float:
    master.reap_orphans()
    return math.inf


def _once(keeper: Keeper) -> int:
    keeper.reporter.patient = False
    try:
        outcome = keeper.look()
    except Stopped:
        log.warning("stopped during the pass; the next run goes on")
        return 1
    keeper.watch.close()
    found = keeper.mirror.found
    keeper.reporter.report(outcome, found)
    match outcome:
        case Failed() | Rejected():
            return 1
        case Unconfirmed():
            return options.EXIT_PROBLEMS
        case _:
            return options.EXIT_PROBLEMS if found.problems else 0


def _load(arguments: argparse.Namespace) -> tuple[Settings, dict[str, str]]:
    overrides = {"root": os.path.abspath(arguments.root)} if arguments.root else {}
    return options.load(arguments, **overrides)


def _site(settings: Settings, pulse: Pulse) -> tuple[Site, Reloading, Reader]:
    """The nginx of ``settings``, and who must be able to read what it serves, if that is set."""
    program = nginx.inspect(settings.nginx, progress=pulse)
    config = Path(settings.nginx_config) if settings.nginx_config else program.config

    def pid_file() -> Path:
        return Path(settings.nginx_pid_file or nginx.pid_file_of(program, config))

    reloading = Reloading(
        way=settings.reload,
        pid_file=pid_file,
        command=settings.reload_command,
        question=_question(settings),
        by_process=settings.confirm in ("auto", "process"),
        seconds=settings.confirm_seconds,
    )
    # nginx -t as another user fails on its pid file and on private keys, which says nothing
    testable = os.geteuid() == 0
    site = Site(program, config if testable else None, settings.nginx_test_seconds, pulse)
    return site, reloading, _reader(settings.nginx_user)


def _question(settings: Settings) -> "Question | None":
    if settings.confirm in ("auto", "process", "none"):
        return None
    # it brings an HTTP client and TLS, which only who asks for it should pay
    from scr_watchd.publish.answering import Question

    credentials = ""
    if settings.confirm_credentials_file:
        try:
            credentials = Path(settings.confirm_credentials_file).read_text().strip()
        except OSError as error:
            raise ConfigurationError(f"confirm_credentials_file cannot be read: {error}") from error
    return Question(
        url=settings.confirm,
        host=settings.confirm_host,
        ca_file=Path(settings.confirm_ca_file) if settings.confirm_ca_file else None,
        credentials=credentials,
    )


def _reader(user: str) -> Reader:
    if not user:
        return ANYBODY
    try:
        entry = pwd.getpwnam(user)
    except KeyError as error:
        raise ConfigurationError(f"nginx_user: there is no user {user}") from error
    groups = {group.gr_gid for group in grp.getgrall() if user in group.gr_mem}
    return Reader(entry.pw_uid, frozenset({entry.pw_gid, *groups}))


def _worker_user(how: Reloading) -> Reader | None:
    try:
        return master.worker_user(find_master(how))
    except NotRunningError:
        return None
