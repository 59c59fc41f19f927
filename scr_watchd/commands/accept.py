"""`scr-watchd accept`: accept a held mass removal."""

import argparse

from scr_watchd.commands import options
from scr_watchd.commands.asking import ask, later, state_of

_ABOUT = """\
Accept a mass removal that is held: stop serving the images that vanished all at once.

examples:
  scr-watchd accept
  scr-watchd accept --state /srv/scr-watchd
"""


def parser() -> argparse.ArgumentParser:
    return options.parser("accept", _ABOUT, ("root", "state"))


def run(arguments: argparse.Namespace) -> int:
    settings, _ = options.load(arguments)
    state = state_of(None, settings)
    there = ask(state, "accept")
    print("the daemon lets go of what it holds" if there else later(state, None))
    return 0
