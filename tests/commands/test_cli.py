"""The porch: names of commands, help, hints, exit statuses, settings."""

import importlib
import re
import resource
import tomllib
from pathlib import Path

import pytest

from scr_watchd import __version__
from scr_watchd.cli import main
from scr_watchd.commands import COMMANDS
from scr_watchd.settings import NAMES
from tests.daemons import public_path, scr_watchd
from tests.trees import image, make_images

__all__ = ["public_path"]  # a fixture


def test_the_first_line_of_the_help_says_your_nginx_and_our_nginx() -> None:
    first = scr_watchd("--help").stdout.splitlines()[0]
    assert "your nginx" in first
    assert "our nginx" in first


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command: str) -> None:
    result = scr_watchd(command, "--help")
    assert result.returncode == 0
    assert "examples:" in result.stdout


def test_the_version() -> None:
    assert scr_watchd("--version").stdout == f"scr-watchd {__version__}\n"


def test_a_lone_path_is_a_hint_to_serve(tmp_path: Path) -> None:
    result = scr_watchd(tmp_path)
    assert result.returncode == 2
    assert f"scr-watchd serve {tmp_path}" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        pytest.param(["serv"], "no command 'serv'", "did you mean serve?", id="a command"),
        pytest.param(
            ["serve", "--lisen", "80"], "no option --lisen", "did you mean --listen?", id="an option"
        ),
        pytest.param(
            ["run", "--conf=x"], "no option --conf", "did you mean --config?", id="an option and a value"
        ),
        pytest.param(
            ["serve", "--confirm", "none"], "means nothing to", "serve --help", id="of another command"
        ),
        pytest.param(
            ["status", "a", "b"], "'b' is one argument too many", "status --help", id="one too many"
        ),
        pytest.param(["wait"], "required: NAME:TAG", "wait --help", id="one is missing"),
        pytest.param(
            ["wait", "app"], "'app' has no tag", "scr-watchd wait app:latest", id="a tag is missing"
        ),
        pytest.param(
            ["wait", "app:"], "'app:' has no tag", "scr-watchd wait app:latest", id="a tag is empty"
        ),
        pytest.param(["wait", "a:50/b"], "'a:50/b' has no tag", "wait a:50/b:latest", id="a port is no tag"),
    ],
)
def test_a_wrong_word_is_answered_by_the_right_one(arguments: list[str], said: str, hint: str) -> None:
    result = scr_watchd(*arguments)
    assert result.returncode == 2
    wrong, right = result.stderr.splitlines()
    assert said in wrong
    assert hint in right


def test_serve_says_that_a_file_is_no_directory(tmp_path: Path) -> None:
    file = tmp_path / "image.tar"
    file.touch()
    result = scr_watchd("serve", file)
    assert result.returncode == 1
    assert f"{file} is a file" in result.stderr
    assert "scr-watchd serve ROOT" in result.stderr


def test_the_help_of_serve_has_its_own_defaults_and_settings_only() -> None:
    shown = " ".join(scr_watchd("serve", "--help").stdout.split())
    assert "default ROOT/.scr-watchd" in shown
    assert "default /var/lib/scr-watchd " not in f"{shown} "
    assert "--confirm " not in shown
    assert "serve: " not in shown
    assert shown.startswith("usage: scr-watchd serve [options] [ROOT] Our nginx")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        pytest.param([], 2, id="nothing"),
        pytest.param(["publish"], 2, id="an unknown command"),
        pytest.param(["check", "--nonsense"], 2, id="an unknown flag"),
        pytest.param(["run", "--quiet-seconds", "soon"], 78, id="a value of the wrong kind"),
        pytest.param(["run", "--watch", "magic"], 78, id="a word that is none of the choices"),
        pytest.param(["run", "--server-root", "relative"], 78, id="a relative path"),
        pytest.param(["run", "--state", "/tmp/a$b"], 78, id="a path that nginx cannot be told"),
        pytest.param(["run", "--reload", "command"], 78, id="a command that is missing"),
        pytest.param(["run", "--confirm", "maybe"], 78, id="a confirmation that is none"),
        pytest.param(["run", "--config", "/nothing.toml"], 78, id="a file that is missing"),
        pytest.param(["serve", "/", "-l", "nowhere"], 2, id="no address"),
    ],
)
def test_exit_statuses_of_what_cannot_start(arguments: list[str], status: int) -> None:
    result = scr_watchd(*arguments)
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr


def test_print_config_names_the_origin_of_each_value(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('quiet_seconds = 1\nmax_wait_seconds = 7\nwatch = "poll"\ncatalog = false\n')
    result = scr_watchd(
        "run", "--print-config", "--config", config, "--watch", "auto", SCR_WATCHD_MAX_WAIT_SECONDS="9"
    )
    lines = result.stdout.splitlines()
    assert f"quiet_seconds = 1.0  # {config}" in lines
    assert "max_wait_seconds = 9.0  # SCR_WATCHD_MAX_WAIT_SECONDS" in lines
    assert 'watch = "auto"  # flag' in lines
    assert f"catalog = false  # {config}" in lines
    assert "min_reload_seconds = 2.0  # default" in [line.replace("= 2 ", "= 2.0 ") for line in lines]
    assert set(tomllib.loads(result.stdout)) == set(NAMES)


@pytest.mark.parametrize(
    ("text", "environment", "message", "hint"),
    [
        pytest.param("quiet_second = 1", {}, "no setting quiet_second", "quiet_seconds", id="in the file"),
        pytest.param(
            "",
            {"SCR_WATCHD_ROOTS": "/x"},
            "no setting SCR_WATCHD_ROOTS",
            "SCR_WATCHD_ROOT?",
            id="in the environment",
        ),
        pytest.param(
            "", {"SCR_WATCHD_LISEN": "80"}, "no setting SCR_WATCHD_LISEN", "SCR_WATCHD_LISTEN", id="of serve"
        ),
        pytest.param("quiet_seconds = 'x", {}, "is not TOML", "", id="not TOML"),
        pytest.param("quiet_seconds = 'x'", {}, "quiet_seconds", "", id="a wrong type"),
    ],
)
def test_a_wrong_setting_is_named_with_the_nearest_right_one(
    tmp_path: Path, text: str, environment: dict[str, str], message: str, hint: str
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    result = scr_watchd("run", "--config", config, **environment)
    assert result.returncode == 78
    assert re.search(message, result.stderr)
    assert hint in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("docker.io", "cannot be 'docker.io'", id="no prefix"),
        pytest.param("https://docker.io=hub", "no host", id="an address"),
        pytest.param("docker.io/library=hub", "no host", id="a path"),
        pytest.param("*=hub", "has 'hub' for every host", id="every host in one place"),
        pytest.param("*=", "has '' for every host", id="every host everywhere"),
        pytest.param("*=../*", "a repository name has lower-case", id="every host outside"),
        pytest.param("docker.io=*", "a repository name has lower-case", id="a host that is any"),
        pytest.param("a=b A=c", "one host twice", id="a host twice"),
        pytest.param("docker.io=Hub", "a repository name has lower-case", id="a prefix that is no name"),
        pytest.param("docker.io=../hub", "a repository name has lower-case", id="a prefix that is a way out"),
    ],
)
def test_mirrors_that_cannot_be_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "images").mkdir()
    result = scr_watchd(
        "run",
        "--once",
        "--root",
        str(tmp_path / "images"),
        "--state",
        str(tmp_path / "state"),
        "--mirrors",
        text,
    )
    assert result.returncode == 78, result.stderr
    assert said in result.stderr


@pytest.mark.parametrize("text", ["it costs $1", "zwei\nZeilen", "gelöscht", "a\tb", "x" * 1001])
def test_a_warning_that_no_header_can_say_is_refused(tmp_path: Path, text: str) -> None:
    result = scr_watchd("run", "--once", tmp_path, "--state", tmp_path / "state", "--warning", text)
    assert result.returncode == 78
    assert "warning (from flag) cannot be" in result.stderr
    assert "at most 1,000 ASCII characters, without $" in result.stderr


def test_mirrors_are_a_table_or_pairs(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[mirrors]\n"docker.io" = "hub"\n"[::1]:5000" = ""\n')
    shown = scr_watchd("run", "--print-config", "-c", str(file)).stdout
    assert f'mirrors = {{"docker.io" = "hub", "[::1]:5000" = ""}}  # {file}' in shown
    again = scr_watchd("run", "--print-config", "--mirrors", "docker.io=hub [::1]:5000=").stdout
    assert 'mirrors = {"docker.io" = "hub", "[::1]:5000" = ""}  # flag' in again


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        pytest.param(
            ["accept", "--state", "{tmp}/none"], "no daemon ever ran in {tmp}/none", "--state", id="no daemon"
        ),
        pytest.param(
            ["generate", "{tmp}/images", "-o", "{tmp}/none/file"],
            "{tmp}/none: No such file or directory",
            "which directory of that path is missing",
            id="a directory that is missing",
        ),
    ],
)
def test_the_remedy_is_for_what_is_wrong(tmp_path: Path, arguments: list[str], said: str, hint: str) -> None:
    make_images(tmp_path / "images", {"app": {"1": image("a")}})
    result = scr_watchd(*(each.replace("{tmp}", str(tmp_path)) for each in arguments))
    assert result.returncode == 1
    first, second = result.stderr.splitlines()[-2:]
    assert said.replace("{tmp}", str(tmp_path)) in first
    assert hint in second


def test_what_a_stopped_daemon_needs_is_the_command_that_started_it(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"app": {"1": image("a")}})
    start = f"scr-watchd serve {root}"
    assert f"start it:   {start}\n" in scr_watchd("status", root).stdout
    assert f"start it: {start}\n" in scr_watchd("wait", "app:1", root, "--timeout", "0").stdout
    (root / ".scr-watchd").mkdir()
    assert scr_watchd("prune", root).stdout.endswith(f"when it starts: {start}\n")


def test_what_the_machine_lacks_is_a_line_with_what_to_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    importlib.import_module("scr_watchd.commands.check")  # which needs descriptors
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert main(["check", str(tmp_path)]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    said = capsys.readouterr().err
    assert "Too many open files" in said
    assert "hint: Permit more open files" in said
