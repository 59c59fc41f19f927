"""Does as a Problem says: a remedy is a command that cures."""

import subprocess

from scr_watchd.images.tree import Tree
from tests.nginxes import require


def command(remedy: str) -> str:
    """The command in a remedy: what follows the first colon."""
    return remedy.partition(": ")[2]


def run(remedy: str, *, source: str = "") -> None:
    """Run the command of ``remedy``, with ``source`` for the place that it cannot know."""
    text = command(remedy).replace("docker://SOURCE", source or "docker://SOURCE")
    for program in ("skopeo", "jq"):
        if f"{program} " in text:
            require(program)
    result = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, f"{text}: {result.stderr}"


def cure(found: Tree, *, source: str = "") -> None:
    """Run the remedy of the only Problem of ``found``."""
    (problem,) = found.problems
    run(problem.remedy, source=source)
