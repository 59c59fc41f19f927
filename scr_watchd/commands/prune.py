"""`scr-watchd prune`: free what only the store holds."""

import argparse

from scr_watchd.commands import options
from scr_watchd.commands.asking import ask, later, state_of

_ABOUT = """\
Free the disk of images that were replaced or removed, before their grace period ends.
It spares what left in the last minute, so that pulls under way can end; --now does not.

examples:
  scr-watchd prune
  scr-watchd prune --now
  scr-watchd prune ./images                of `scr-watchd serve ./images`
"""


def parser() -> argparse.ArgumentParser:
    made = options.parser("prune", _ABOUT, ("root", "state"))
    made.add_argument("root", nargs="?", metavar="ROOT", help="the images tree of a `serve`")
    made.add_argument("--now", action="store_true", help="what left in the last minute too")
    return made


def run(arguments: argparse.Namespace) -> int:
    settings, _ = options.load(arguments)
    state = state_of(arguments.root, settings)
    there = ask(state, "prune", "now" if arguments.now else "")
    print("the daemon frees it now" if there else later(state, arguments.root))
    return 0
