"""What the package brings besides the service, and the wheels for systems without packages of ours."""

import gzip
import subprocess
import tarfile
from pathlib import Path

import pytest

from scr_watchd.commands import COMMANDS
from scr_watchd.settings import NAMES
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


def run(*command: object) -> str:
    """What a program prints; fails if it complains or fails."""
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


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


def test_the_manual_page_is_clean_and_has_every_command_and_setting(tree: Path) -> None:
    page = tree / "usr/share/man/man1/scr-watchd.1.gz"
    shown = run(require("man"), "--warnings", "--local-file", page)
    for name in COMMANDS:
        assert f"scr-watchd {name}" in shown
    for name in NAMES:
        assert name in shown
    source = tree / "page.1"
    source.write_bytes(gzip.decompress(page.read_bytes()))
    run(require("groff"), "-ww", "-man", "-Tutf8", "-z", source)


PAGES = ["README.md", *(page for page in pages() if page.startswith("docs/"))]


def test_every_page_comes_with_the_package_and_the_manual_names_it(tree: Path) -> None:
    manual = gzip.decompress((tree / "usr/share/man/man1/scr-watchd.1.gz").read_bytes()).decode()
    for page in PAGES:
        assert (tree / "usr/share/doc/scr-watchd" / page).read_text() == text(page)
        assert page == "README.md" or Path(page).name in manual


def completed(tree: Path, *words: str) -> list[str]:
    """What a real bash offers for the last of ``words``."""
    script = """
        source "$1"; shift
        compopt() { :; }  # it works within an interactive completion only
        COMP_WORDS=(scr-watchd "$@") COMP_CWORD=$#
        _scr_watchd
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    file = tree / "usr/share/bash-completion/completions/scr-watchd"
    return run("bash", "-euc", script, "bash", file, *words).split()


def test_bash_completes_commands_options_words_and_files(tree: Path) -> None:
    assert completed(tree, "s") == ["serve", "status"]
    assert completed(tree, "run", "--nginx-p") == ["--nginx-pid-file"]
    assert completed(tree, "run", "--watch", "") == ["auto", "inotify", "poll"]
    assert completed(tree, "check", f"{tree}/us") == [f"{tree}/usr"]
    assert completed(tree, "run", "--config", f"{tree}/et") == [f"{tree}/etc"]
    assert set(COMMANDS) < set(completed(tree, ""))


def test_zsh_and_fish_complete_too(tree: Path) -> None:
    run(require("zsh"), "-n", tree / "usr/share/zsh/vendor-completions/_scr-watchd")
    fish = tree / "usr/share/fish/vendor_completions.d/scr-watchd.fish"
    for typed, offered in (
        ("st", "status"),
        ("run --nginx-p", "--nginx-pid-file"),
        ("run --watch in", "inotify"),
    ):
        said = run(require("fish"), "--no-config", "-c", f"source {fish}; complete -C 'scr-watchd {typed}'")
        assert [line.split("\t")[0] for line in said.splitlines()] == [offered]


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
