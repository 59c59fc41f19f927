"""A registry as the quick start has it: `serve`, over a directory that is empty at first."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.daemons import Daemon, daemon, free_port, public_directory
from tests.nginxes import require
from tests.trees import digest_of


@dataclass
class Registry:
    """A running daemon: its address, and its images."""

    address: str
    images: Path
    process: Daemon

    def serves(self, name: str, target: Path) -> None:
        """Wait until the image in ``target`` is published and confirmed: no old worker answers then."""
        digest = digest_of((target / "manifest.json").read_bytes())
        self.process.says(rf"^{name} .*\({digest}\)")


@contextmanager
def serving() -> Iterator[Registry]:
    require("nginx")
    address = f"127.0.0.1:{free_port()}"
    with public_directory() as directory:
        (directory / "images").mkdir()
        with daemon("serve", directory / "images", "-l", address) as process:
            process.says("this adds one")
            yield Registry(address, directory / "images", process)
