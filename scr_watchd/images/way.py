"""Whether nginx may enter the images directory, and every directory above it."""

import os
import stat
from pathlib import Path

from scr_watchd.files import Reader
from scr_watchd.oci.catalog import Problem
from scr_watchd.words import printable, shell


def closed_to(reader: Reader, root: str | Path) -> Problem | None:
    """The first directory on the way to ``root``, or ``root`` itself, that ``reader`` may not enter."""
    real = Path(os.path.realpath(root))
    for each in (*reversed(real.parents), real):
        status = each.stat()
        if not reader.may_enter(status):
            return Problem(
                printable(str(root)),
                f"nginx may not enter {printable(str(each))} (mode {stat.S_IMODE(status.st_mode):04o})",
                f"Permit it: chmod o+x {shell(str(each))}",
                status.st_uid,
            )
    return None
