"""A reload is proven by new workers, and by none that somebody else's reload has started."""

import signal
from pathlib import Path

import pytest

from scr_watchd.publish.master import workers
from scr_watchd.publish.readers import Readers
from scr_watchd.publish.reload import Proof, Reloading, find_master, reload
from tests.nginxes import nginx_with
from tests.waiting import until

# many entries, after what is to be read: a reload that goes on for a while
SLOW = "".join(f"k{number} {number};" for number in range(400_000))
HTTP = f"map_hash_max_size 1048576; include answer.conf; map $uri $slow {{ {SLOW} }}"


def answer(text: str) -> bytes:
    return f'map $uri $answer {{ default "{text}"; }}'.encode()


@pytest.mark.slow
@pytest.mark.parametrize("slow", [False, True])
def test_workers_of_a_reload_that_somebody_else_began_prove_nothing(*, slow: bool) -> None:
    """Of certbot or logrotate, say: it has read the old configuration, and starts them after we wanted
    ours. Also on a machine so busy that we look once in a while only."""
    files = {"answer.conf": answer("old")}
    with nginx_with(HTTP, "location / { return 200 $answer; }", files=files) as nginx:
        pid_file = nginx.directory / "nginx.pid"
        how = Reloading("signal", lambda: pid_file, (), None, by_process=True, seconds=15)
        first = set(workers(find_master(how)))
        before = cpu_ticks(nginx.process.pid)
        nginx.process.send_signal(signal.SIGHUP)
        until(lambda: cpu_ticks(nginx.process.pid), lambda ticks: ticks > before + 1)
        (nginx.directory / "answer.conf").write_bytes(answer("new"))

        def progress() -> None:
            if slow:  # until the other's workers are the only ones
                until(lambda: set(workers(find_master(how))), lambda now: now and not now & first)

        verdict = reload(how, "", Readers(), progress=progress)
        assert verdict.proof == Proof.CONFIRMED
        assert nginx.ask("/").body == b"new"


def cpu_ticks(pid: int) -> int:
    """proc_pid_stat(5), field 14."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])
