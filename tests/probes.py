"""The probes of the container images and of config/kubernetes, run as they stand."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.test_house import HOUSE


def _commands() -> Iterator[tuple[str, str]]:
    dockerfile = (HOUSE / "Dockerfile").read_text()
    found = re.findall(r"HEALTHCHECK .*\\\n\s+CMD (.*)", dockerfile)
    yield from zip(("image", "sidecar image"), found, strict=True)
    for variant, place in (("all-in-one", "containers"), ("sidecar", "initContainers")):
        file = HOUSE / "config" / "kubernetes" / variant / "deployment.yaml"
        container = yaml.safe_load(file.read_text())["spec"]["template"]["spec"][place][0]
        for kind in ("livenessProbe", "readinessProbe"):
            if kind in container:
                shell, option, command = container[kind]["exec"]["command"]
                assert (shell, option) == ("sh", "-c")
                yield f"{variant} {kind}", command


COMMANDS = dict(_commands())


def that_pass(state: Path, scratch: Path) -> set[str]:
    """The names of those that are content with the daemon of ``state``."""
    program = scratch / "scr-watchd"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m scr_watchd "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{scratch}:{os.environ['PATH']}", "SCR_WATCHD_STATE": str(state)}
    return {
        name
        for name, command in COMMANDS.items()
        if subprocess.run(["sh", "-c", command], check=False, cwd=HOUSE, env=environment).returncode == 0
    }
