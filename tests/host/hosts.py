"""A mirror host: a machine with a real systemd, an nginx with a site of its own, and images to drop in."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from tests.machines import Machine, booted
from tests.trees import image
from tests.waiting import until

STATE = "/var/lib/scr-watchd"
IMAGES = f"{STATE}/images"
OTHER = 8080
SECONDS = 30


@contextmanager
def mirror_host() -> Iterator[Machine]:
    """A machine that has never seen scr-watchd, with the images a and b in /srv/images."""
    with booted() as machine:
        # an overlay has no hard links; a manual page index takes seconds to make
        machine.sh(
            f"mkdir -p {STATE}; mount -t tmpfs -o mode=755 images {STATE}; rm -f /var/lib/man-db/auto-update;"
            "useradd --create-home deploy; rm -f /etc/nginx/sites-enabled/*;"
            "echo 127.0.0.1 registry.example.com >> /etc/hosts"
        )
        machine.write(
            "/etc/nginx/conf.d/other.conf",
            f"server {{ listen {OTHER}; error_log /var/log/nginx/other.log;"
            'location / { return 200 "the other site"; } }',
        )
        machine.sh("systemctl enable --now nginx")
        for name in ("a", "b"):
            built = image(name)
            for file, content in {**built.files, "version": b"1.1", "manifest.json": built.raw}.items():
                machine.write(f"/srv/images/{name}/{file}", content)
        yield machine


def status(machine: Machine) -> str:
    return machine.show("scr-watchd", "StatusText")


def until_status(machine: Machine, pattern: str) -> None:
    until(lambda: status(machine), lambda text: re.search(pattern, text), seconds=SECONDS)


def registry(machine: Machine, path: str) -> tuple[int, str]:
    return machine.ask(path, host="registry.example.com")


def pulls(machine: Machine, reference: str) -> bool:
    """Whether skopeo gets the image, every blob of it; logs why not."""
    got = machine.run(
        "sh", "-euc",
        "rm -rf /root/got;"
        "skopeo copy --quiet --src-tls-verify=false docker://registry.example.com/$0 dir:/root/got",
        reference, check=False,
    )  # fmt: skip
    logging.getLogger(__name__).info("%s %s", reference, got.stderr)
    return got.returncode == 0
