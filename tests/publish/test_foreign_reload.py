"""A reload is proven by new workers, and by none that somebody else's reload has started."""

import signal
from pathlib import Path

import pytest

from scr_watchd.publish.reload import Proof, Reloading, reload
from tests.nginxes import nginx_with
from tests.waiting import until

# many entries, after what is to be read: a reload that goes on for a while
SLOW = "".join(f"k{number} {number};" for number in range(400_000))
HTTP = f"map_hash_max_size 1048576; include answer.conf; map $uri $slow {{ {SLOW} }}"


def answer(text: str) -> bytes:
    return f'map $uri $answer {{ default "{text}"; }}'.encode()


@pytest.mark.slow
def test_workers_of_a_reload_that_somebody_else_began_prove_nothing() -> None:
    """Of certbot or logrotate, say: it has read the old configuration, and starts them after our HUP."""
    files = {"answer.conf": answer("old")}
    with nginx_with(HTTP, "location / { return 200 $answer; }", files=files) as nginx:
        pid_file = nginx.directory / "nginx.pid"
        how = Reloading("signal", lambda: pid_file, (), None, by_process=True, seconds=15)
        before = cpu_ticks(nginx.process.pid)
        nginx.process.send_signal(signal.SIGHUP)
        until(lambda: cpu_ticks(nginx.process.pid), lambda ticks: ticks > before + 1)
        (nginx.directory / "answer.conf").write_bytes(answer("new"))
        verdict = reload(how, "", progress=lambda: None)
        assert verdict.proof == Proof.CONFIRMED
        assert nginx.ask("/").body == b"new"


def cpu_ticks(pid: int) -> int:
    """proc_pid_stat(5), field 14."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])
