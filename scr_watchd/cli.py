"""From arguments to an exit status; nothing else."""

import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from scr_watchd import __version__
from scr_watchd.commands import COMMANDS
from scr_watchd.errors import ScrWatchdError, cure, did_you_mean
from scr_watchd.words import shell, without_controls

USAGE = f"""\
Drop a container image into a directory and stock nginx serves it: scr-watchd run beside your nginx, scr-watchd serve with our nginx.

usage: scr-watchd COMMAND [options]

commands:
{os.linesep.join(f"  {name:<10} {what}" for name, what in COMMANDS.items())}

examples:
  scr-watchd serve ./images                serve ./images on 127.0.0.1:5000
  scr-watchd run --once                    publish /var/lib/scr-watchd/images now, and end
  scr-watchd check ./images                look for what is wrong, change nothing
  skopeo copy docker://docker.io/library/alpine:3.20 dir:images/alpine:3.20
                                           add an image

scr-watchd COMMAND --help tells the rest. scr-watchd --version tells the version.
exit status: 0 done or asked to stop, 1 failed, 2 usage, 3 problems, 4 not running,
5 nginx not running, 75 not yet,
78 configuration
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if os.getpid() == 1:  # of a container: the kernel keeps from it what it does not handle
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until a command has a better end
    try:
        try:
            return _main(arguments)
        except BrokenPipeError:
            raise
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
            raise ScrWatchdError(what, hint=_remedy(error)) from error
    except ScrWatchdError as error:
        print(f"scr-watchd: {without_controls(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {without_controls(error.hint)}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # whoever read our output has seen enough; nothing more may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _main(arguments: list[str]) -> int:
    match arguments:
        case ["-h" | "--help" | "help", *_]:
            print(USAGE, end="")
            return 0
        case ["--version" | "-V", *_]:
            print(f"scr-watchd {__version__}")
            return 0
        case [name, *rest] if name in COMMANDS:
            command = importlib.import_module(f"scr_watchd.commands.{name}")
            status: int = command.run(command.parser().parse_args(rest))
            return status
        case [first, *_]:
            raise ScrWatchdError(f"there is no command {first!a}", hint=_hint(first), status=2)
        case _:
            print(USAGE, end="", file=sys.stderr)
            return 2


def _hint(first: str) -> str:
    if "/" in first or os.path.isdir(first):
        return f"to serve that directory: scr-watchd serve {first}"
    everything = f"the commands are {', '.join(COMMANDS)}; scr-watchd --help tells more"
    return did_you_mean(first, COMMANDS, everything)


def _remedy(error: OSError) -> str:
    path = str(error.filename or "")
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return "see which directory of that path is missing, or name another one"
        case errno.EACCES | errno.EPERM:
            return (
                f"see who may enter, read and write there: namei -l {shell(path)}" if path else "be who may"
            )
        case errno.ENOSPC | errno.EDQUOT:
            return "free some of the disk: df -h; df -i"
        case errno.EROFS:
            return "that disk is mounted read-only; name another place"
        case _:
            return cure(error, "look for a failing disk or mount: dmesg | tail")
