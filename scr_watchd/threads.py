"""Starts threads of which nobody waits in vain.

``threading.Thread.start`` waits for ever for a thread that ran out of memory before it could say that it
runs, and no signal ends that wait.
"""

import _thread
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

_SECONDS = 1.0


def start(work: Callable[[], None], *, name: str) -> bool:
    """Whether a thread called ``name`` does ``work`` now; if not, the caller may. Our end waits for none.

    A thread that comes later than a second is one too many, so two may do ``work``.
    """
    try:
        began: SimpleQueue[bool] = SimpleQueue()

        def run() -> None:
            began.put(True)  # noqa: FBT003 - it is an answer
            work()

        thread = threading.Thread(target=run, name=name, daemon=True)

        def launch() -> None:
            try:
                thread.start()  # here, because it may never return
            except (RuntimeError, MemoryError):
                began.put(False)  # noqa: FBT003 - likewise

        _thread.start_new_thread(launch, ())
        return began.get(timeout=_SECONDS)
    except (RuntimeError, MemoryError, Empty):
        return False
