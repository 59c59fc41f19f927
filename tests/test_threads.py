"""Where no thread can be started any more: what a thread was for is done all the same, and nothing hangs."""

import json
import subprocess
import sys

import pytest

from tests.daemons import public_directory

_WHAT = {
    "sync": """
batch = Batch(root / "store", lambda: None)
def act():
    for path in paths:
        batch.change(path)
    batch.sync()
works = lambda: True
""",
    "hash": """
from hashlib import sha256
hasher = Hasher(root, lambda: None)
status = (root / "0").lstat()
digest = Digest.parse("sha256:" + sha256(b"x").hexdigest())
job = Job(".", "0", identity(status), digest)
act = lambda: hasher.submit(job, owner=("app", "1"), urgent=True)
def works():
    deadline = time.monotonic() + 10
    while not hasher.has_news and time.monotonic() < deadline:
        time.sleep(0.01)
    hasher.news()
    if hasher.result(job.identity, digest) is None:  # it had no memory for that
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        act()
        while not hasher.has_news and time.monotonic() < deadline:
            time.sleep(0.01)
        hasher.news()
    return hasher.result(job.identity, digest) is True
""",
    "watch": """
watch = Watch(root, lambda: None, events=True)
act = watch.ensure
works = lambda: watch.mode == "events" or "no file events: " in watch.state
""",
}
_SCRIPT = """
import os, resource, signal, sys, threading, time
from pathlib import Path
from scr_watchd.daemon.watch import Watch
from scr_watchd.oci.names import Digest
from scr_watchd.publish.batch import Batch
from scr_watchd.publish.hashing import Hasher, Job, identity

root = Path(sys.argv[1])
paths = [str(path) for path in root.iterdir() if path.is_file()]
threading.stack_size(1 << 20)
{what}
def child(limit):
    pid = os.fork()
    if pid:
        return pid
    status = 4
    try:
        signal.alarm(30)  # which ends it, whatever it waits for
        limit()
        act()
        status = 0 if works() else 1
    except MemoryError:
        status = 0  # the main thread has none either: the daemon ends, and is started again
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        os._exit(status)

{limits}
ended = [os.waitpid(each, 0)[1] for each in [child(limit) for limit in limits]]
print([os.waitstatus_to_exitcode(each) for each in ended])
"""
# A thread has memory for its stack and none, or hardly any, for its first words.
_MEMORY = """
def memory(more):
    base = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (base + more, resource.RLIM_INFINITY))
limits = [
    lambda more=threads * (1 << 20) + more: memory(more)
    for threads in (1, 2, 3)
    for more in range(-4096, 65536, 8192)
]
"""
_PROCESSES = """
def processes():
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(54321)
        os.setuid(54321)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
limits = [processes]
"""


@pytest.mark.parametrize("limits", [pytest.param(_MEMORY, id="memory"), pytest.param(_PROCESSES, id="tasks")])
@pytest.mark.parametrize("what", list(_WHAT))
def test_without_threads_nothing_hangs_and_all_is_done(what: str, limits: str) -> None:
    with public_directory() as root:
        for number in range(200):
            (root / str(number)).write_bytes(b"x")
        script = _SCRIPT.format(what=_WHAT[what], limits=limits)
        result = subprocess.run(
            [sys.executable, "-c", script, str(root)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert result.returncode == 0, result.stderr
    ended = json.loads(result.stdout)
    assert set(ended) == {0}, f"{ended}, of which -14 hung:\n{result.stderr}"
