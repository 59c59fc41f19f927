"""A network of its own for a test: every port is free, nothing leads out, and nobody else sees it."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tests.nginxes import require, require_root

ADDRESS = "192.0.2.1"  # of the documentation (RFC 5737): clients are stricter with it than with 127.0.0.1


@contextmanager
def network(*hosts: str) -> Iterator[tuple[str, ...]]:
    """The words to put before a command so that it runs in a network where ``hosts`` are ``ADDRESS``.

    There are also 127.0.0.1 and mounts of its own, for all such commands together.
    """
    require_root("only root can make a network of its own")
    busybox = require("busybox")
    with tempfile.NamedTemporaryFile("w", prefix="scrhosts") as names:
        names.write(f"127.0.0.1 localhost\n{ADDRESS} {' '.join(hosts)}\n")
        names.flush()
        script = (
            f"{busybox} ip link set lo up && {busybox} ip addr add {ADDRESS}/32 dev lo && "
            f"mount --bind {names.name} /etc/hosts && echo ready && exec sleep 3600"
        )
        holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script],
            stdout=subprocess.PIPE,
        )
        try:
            assert holder.stdout
            assert holder.stdout.readline() == b"ready\n"
            yield ("nsenter", "--target", str(holder.pid), "--net", "--mount")
        finally:
            holder.kill()
            holder.wait()
            if holder.stdout:
                holder.stdout.close()
