"""`scr-watchd generate`: one file for a `server {}`, served straight from the tree, without a daemon."""

import argparse
import fcntl
import os
import stat
import sys
import time
from pathlib import Path

from scr_watchd.commands import options
from scr_watchd.errors import ScrWatchdError
from scr_watchd.files import ANYBODY, open_directory, write_atomically
from scr_watchd.images.scan import Scanner
from scr_watchd.images.sparse import Ripening
from scr_watchd.images.tree import Tree
from scr_watchd.images.way import closed_to
from scr_watchd.oci.catalog import Problem
from scr_watchd.oci.names import RepositoryName
from scr_watchd.render import single_file
from scr_watchd.render.single_file import ServerRoot
from scr_watchd.words import printable

_ABOUT = """\
Print one nginx file that serves the images of a tree, to be included in a server {}. There is no daemon:
run it again when the images change, and reload nginx. It takes no settings from files or environment.

examples:
  scr-watchd generate ./images -o registry.conf && nginx -t && nginx -s reload
  scr-watchd generate ./images > registry.conf
  scr-watchd generate ./images --name-prefix mirror --server-root '$registry_root'
  scr-watchd generate --only-constants -o constants.conf
  scr-watchd generate ./others --name-prefix others --omit-constants -o others.conf

With -o the old file stays until the new one is complete; a shell's > empties it first. What is not served
is named on standard error, with the command that mends it.

exit status: 0 all is served, 3 something is not (the rest is printed), 1 failed, 2 usage; with 1 and 2
nothing is printed, and FILE is as it was
"""


def parser() -> argparse.ArgumentParser:
    made = options.Parser("generate", _ABOUT)
    made.add_argument("root", nargs="?", metavar="ROOT", default=".", help="the images tree; default .")
    made.add_argument("-o", "--output", metavar="FILE", help="replace FILE in one step, once all is known")
    made.add_argument(
        "--name-prefix", metavar="PREFIX", default="", help="goes before every name: PREFIX/NAME:TAG"
    )
    made.add_argument(
        "--server-root",
        metavar="PATH",
        help="the images tree as nginx sees it: a path, or a variable such as $registry_root, which the "
        "site sets; default ROOT",
    )
    which = made.add_mutually_exclusive_group()
    which.add_argument(
        "--omit-constants", action="store_true", help="without what may be only once in a server {}"
    )
    which.add_argument(
        "--only-constants", action="store_true", help="nothing but that; the tree is not looked at"
    )
    return made


def run(arguments: argparse.Namespace) -> int:
    if arguments.only_constants:
        _write(single_file.constants(), arguments.output)
        return 0
    root = Path(os.path.abspath(arguments.root))
    server_root = _server_root(arguments.server_root, root)
    scan = _scan(root, _prefix(arguments.name_prefix))
    scan = scan.without(Ripening().unripe(scan.images, scan.changed, now=time.time()))
    text, untold = single_file.trees(scan.images, server_root=server_root, shown=str(root))
    problems = (*scan.problems, *untold)
    if arguments.server_root is None and (closed := closed_to(ANYBODY, root)):
        problems = (closed, *problems)  # the file is written: an nginx of who owns that directory may enter
    _say(problems)
    for each in scan.unripe:
        print(
            f"not served yet: {printable(f'{root}/{each.image.place}')}\n  {each.reason}\n  A copy may be "
            f"under way: run this again in {each.until - time.time():.0f} s",
            file=sys.stderr,
        )
    if len(untold) == len(scan.images):
        raise ScrWatchdError(
            f"there is no image to serve in {printable(str(root))}, and nothing was written",
            hint="is it the right directory, and is its disk mounted? A registry without images is "
            "what --only-constants prints",
        )
    _write(text if arguments.omit_constants else text + single_file.constants(), arguments.output)
    return options.EXIT_PROBLEMS if problems or scan.unripe else 0


def _prefix(text: str) -> str:
    """What goes before each name: ``text`` and a slash, with or without which it may be written."""
    if not text:
        return ""
    try:
        return RepositoryName.parse(text.strip("/")) + "/"
    except ValueError as error:
        raise ScrWatchdError(
            f"--name-prefix cannot be {text!a}: {error}", hint="for example --name-prefix mirror", status=2
        ) from error


def _server_root(text: str | None, root: Path) -> ServerRoot:
    if text is None:
        try:
            return ServerRoot.parse(os.path.realpath(root))
        except ValueError as error:
            raise ScrWatchdError(
                f"the images cannot be served from where they lie: {error}",
                hint="move them, or name another way to them, as nginx sees it, with --server-root",
            ) from error
    try:
        return ServerRoot.parse(text)
    except ValueError as error:
        raise ScrWatchdError(
            f"--server-root cannot be {text!a}: {error}",
            hint="for example --server-root /srv/images, or --server-root '$registry_root'",
            status=2,
        ) from error


def _scan(root: Path, prefix: str) -> Tree:
    """Judged for everybody: who nginx is where this will be included is not known here."""
    try:
        return Scanner(root, reader=ANYBODY, prefix=prefix).full()
    except OSError as error:
        raise ScrWatchdError(
            f"{printable(str(root))} cannot be read: {error.strerror}",
            hint="name an images tree: scr-watchd generate ROOT",
        ) from error


def _say(problems: tuple[Problem, ...]) -> None:
    for problem in problems:
        print(
            f"not served: {problem.path}\n  {problem.reason}\n  {problem.remedy}", file=sys.stderr, flush=True
        )


def _write(text: bytes, output: str | None) -> None:
    """All of it, at the end: until then whatever is included today stays as it is."""
    if output is None:
        sys.stdout.buffer.write(text)
        sys.stdout.flush()
        return
    path = Path(os.path.realpath(output))  # a link, as in sites-enabled, stays one
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise ScrWatchdError(
            f"{output} is no regular file, and cannot be replaced",
            hint="leave -o out to print on standard output",
        )
    with open_directory(path.parent) as directory:
        fcntl.flock(directory, fcntl.LOCK_EX)  # two at once would write the same temporary file
        write_atomically(path, text)
