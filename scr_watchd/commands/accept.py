"""`scr-watchd accept`: the images that vanished at once are meant to be gone."""

import argparse

from scr_watchd.commands import options
from scr_watchd.commands.asking import ask, later, state_of

_ABOUT = """\
Let go of images that vanished all at once and are held: they are meant to be gone.

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
