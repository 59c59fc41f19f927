"""How a daemon gives back the memory that it does not need."""

import ctypes
import gc

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE_PIECE_BYTES = 256 * 1024


def give_back() -> None:
    """Have what a pass needs for a moment, such as the text of all maps, go back to the system when it is
    freed: once it has freed such a piece, glibc would take the next from its heap, where small ones
    keep it (mallopt(3), M_MMAP_THRESHOLD)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # other C libraries have none
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_PIECE_BYTES)


def collect(*, everything: bool = False) -> None:
    """Collect the cycles of this pass, and of it alone: Python's own collector would go through all that
    is known of a large tree several times in each pass, for as long as the pass itself takes. A cycle
    that outlives its pass waits for ``everything``."""
    if everything:
        gc.unfreeze()
    gc.collect()
    gc.freeze()
