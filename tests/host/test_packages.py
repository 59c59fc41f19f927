"""What the package brings besides the service, and the wheels for systems without packages of ours."""

import gzip
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.daemons import scr_watchd
from tests.documents import block, pages, text
from tests.host.hosts import IMAGES, OTHER, mirror_host, pulls, until_status
from tests.nginxes import require
from tests.packages import build, built_deb

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_deb(tmp_path_factory)


@pytest.fixture(scope="module")
def tree(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, unpacked."""
    directory = tmp_path_factory.mktemp("tree")
    subprocess.run(["dpkg-deb", "-x", deb, directory], check=True)
    return directory


def test_the_same_commit_gives_the_same_package(deb: Path, tmp_path: Path) -> None:
    assert build("deb", tmp_path).read_bytes() == deb.read_bytes()


def test_debians_own_checker_has_nothing_against_it(deb: Path) -> None:
    """Beyond what lintian-overrides explains."""
    result = subprocess.run(
        [require("lintian"), "--fail-on", "warning", deb],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (result.returncode, result.stdout) == (0, "")


PAGES = ["README.md", *(page for page in pages() if page.startswith("docs/"))]


def test_every_page_comes_with_the_package_and_the_manual_names_it(tree: Path) -> None:
    manual = gzip.decompress((tree / "usr/share/man/man1/scr-watchd.1.gz").read_bytes()).decode()
    for page in PAGES:
        assert (tree / "usr/share/doc/scr-watchd" / page).read_text() == text(page)
        assert page == "README.md" or Path(page).name in manual


def test_the_package_has_what_the_commands_print(tree: Path) -> None:
    """tests/commands/test_completion.py has the shells read it."""
    for path, command in (
        ("bash-completion/completions/scr-watchd", ("completion", "bash")),
        ("zsh/vendor-completions/_scr-watchd", ("completion", "zsh")),
        ("fish/vendor_completions.d/scr-watchd.fish", ("completion", "fish")),
    ):
        assert (tree / "usr/share" / path).read_text() == scr_watchd(*command).stdout
    manual = gzip.decompress((tree / "usr/share/man/man1/scr-watchd.1.gz").read_bytes()).decode()
    assert manual.splitlines()[1:] == scr_watchd("manual").stdout.splitlines()[1:]  # the first has the date


@pytest.mark.systemd
def test_the_wheelhouse_installs_without_network_by_the_documented_commands(tmp_path: Path) -> None:
    archive = build("wheelhouse", tmp_path)
    with tarfile.open(archive) as within:
        assert set(PAGES) <= {name.partition("/")[2] for name in within.getnames()}
    with mirror_host() as machine:
        machine.write(f"/root/{archive.name}", archive.read_bytes())
        with machine.asking(OTHER):
            machine.sh("cd /root\n" + block("docs/service.md", "Any other Linux"))
            until_status(machine, "^serving 0 images")
            machine.sh(f"cp -r /srv/images/a {IMAGES}/a:1")
            machine.run("scr-watchd", "wait", "a:1")
            assert pulls(machine, "a:1")
