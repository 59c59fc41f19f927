"""Cuts a release, and checks that every place has its version. CONTRIBUTING.md, "Releasing".

python -m tests.release check            what is built from this checkout has one version
python -m tests.release cut 0.2.0        cut CHANGELOG.md, bump, commit, check, and tag v0.2.0
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOUSE = Path(__file__).parent.parent
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")
_PLACES = {
    "scr_watchd/__init__.py": re.compile(r'^(__version__ = ")([^"]+)(")$', re.MULTILINE),
    "Dockerfile": re.compile(r"^(ARG VERSION=)(\S+)($)", re.MULTILINE),
}
_UNRELEASED = "## [Unreleased]\n"


def run(house: Path, *command: object) -> str:
    result = subprocess.run(
        [*map(str, command)], cwd=house, capture_output=True, text=True, check=False, timeout=600
    )
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def written(house: Path) -> dict[str, str]:
    """The version that each file of the checkout has."""
    found = {}
    for name, pattern in _PLACES.items():
        match = pattern.search((house / name).read_text())
        found[name] = match[2] if match else "none"
    headings = re.findall(r"^## \[([0-9][^\]]*)\]", (house / "CHANGELOG.md").read_text(), re.MULTILINE)
    return {**found, "CHANGELOG.md": headings[0] if headings else "none"}


def built(house: Path) -> dict[str, str]:
    """The version of each thing that is built: wheel, source archive, Debian package, and the label of
    the container image, which is the Dockerfile's."""
    with tempfile.TemporaryDirectory() as name:
        dist = Path(name)
        run(house, sys.executable, "-m", "venv", dist / "venv")
        python = dist / "venv" / "bin" / "python"
        run(house, python, "-m", "pip", "install", "--quiet", "hatchling")
        for what in ("wheel", "sdist"):
            run(house, python, "-m", "hatchling", "build", "-t", what, "-d", dist)
        run(house, "sh", "systemd/package/build.sh", "deb", dist)
        patterns = {
            "wheel": r"scr_watchd-(.+?)-py3-none-any\.whl",
            "source archive": r"scr_watchd-(.+)\.tar\.gz",
            "Debian package": r"scr-watchd_(.+)-1_[a-z0-9]+\.deb",
        }
        names = "\n".join(path.name for path in dist.iterdir())
        found = {what: re.search(pattern, names) for what, pattern in patterns.items()}
        return {what: match[1] if match else "none" for what, match in found.items()}


def disagreeing(versions: dict[str, str]) -> str:
    """Empty if all are one version, else a line for each."""
    if len(set(versions.values())) == 1:
        return ""
    return "\n".join(f"{place}: {version}" for place, version in versions.items())


def cut(house: Path, version: str, *, day: str) -> None:
    """Name what is unreleased ``version`` in CHANGELOG.md, write it wherever it stands, and commit that."""
    if not _VERSION.fullmatch(version):
        raise SystemExit(f"{version} is no version such as 0.2.0")
    if run(house, "git", "status", "--porcelain"):
        raise SystemExit("the checkout has changes; commit them first")
    if run(house, "git", "tag", "--list", f"v{version}"):
        raise SystemExit(f"v{version} is there already")
    log = house / "CHANGELOG.md"
    before, heading, rest = log.read_text().partition(_UNRELEASED)
    if not heading or rest.partition("\n## ")[0].strip() == "":
        raise SystemExit("CHANGELOG.md has nothing under Unreleased")
    log.write_text(f"{before}{heading}\n## [{version}] - {day}\n{rest}")
    for name, pattern in _PLACES.items():
        file = house / name
        file.write_text(pattern.sub(rf"\g<1>{version}\g<3>", file.read_text()))
    run(house, "git", "commit", "--all", "--message", f"Version {version}")


def main(arguments: list[str]) -> None:
    match arguments:
        case ["check"]:
            pass
        case ["cut", version]:
            cut(HOUSE, version, day=time.strftime("%Y-%m-%d"))
        case _:
            raise SystemExit(__doc__)
    versions = {**written(HOUSE), **built(HOUSE)}
    if wrong := disagreeing(versions):
        raise SystemExit(f"the places do not agree:\n{wrong}")
    (version,) = set(versions.values())
    if arguments[0] == "cut":
        run(HOUSE, "git", "tag", "--annotate", f"v{version}", "--message", f"Version {version}")
    print(f"{', '.join(versions)}: {version}")  # noqa: T201 - it speaks to a terminal


if __name__ == "__main__":
    main(sys.argv[1:])
