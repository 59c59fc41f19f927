"""Another version renders another text for the same tree: forth and back, nginx restarted in between."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.commands.test_run import Host, host
from tests.daemons import scr_watchd, start_nginx
from tests.trees import image, write_image

pytestmark = pytest.mark.slow

__all__ = ["host"]  # a fixture

# What another version would be: the same code with another server.conf.
OTHER_VERSION = """
import sys
from scr_watchd.commands import run
from scr_watchd.render import http_conf

static = http_conf.static
http_conf.static = lambda name: static(name) + (b"# of another version\\n" if name == "server.conf" else b"")
sys.exit(run.run(run.parser().parse_args(sys.argv[1:])))
"""


def this_version(host: Host) -> int:
    return scr_watchd(*host.arguments("--once")).returncode


def other_version(host: Host) -> int:
    arguments = map(str, host.arguments("--once")[1:])
    return subprocess.run([sys.executable, "-c", OTHER_VERSION, *arguments], check=False).returncode


def restart(host: Host) -> None:
    assert host.site.process
    host.site.process.terminate()
    host.site.process.wait(10)
    start_nginx(host.site, host.nginx)


@pytest.mark.parametrize("between", [restart, lambda host: None], ids=["nginx restarted", "nginx reloaded"])
def test_an_upgrade_and_a_downgrade_change_no_answer(host: Host, between: Callable[[Host], None]) -> None:
    host.initial()
    start_nginx(host.site, host.nginx)
    built = image("first")
    write_image(host.images / "app:1", built)
    generations = []
    for version in (this_version, other_version, this_version, other_version):
        assert version(host) == 0
        between(host)
        assert host.site.ask("/v2/app/manifests/1").body == built.raw
        server_conf = (host.state / "nginx" / "current" / "server.conf").read_bytes()
        assert (b"another version" in server_conf) == (version is other_version)
        generations.append(host.site.generation())
    assert generations[0] == generations[2] != generations[1] == generations[3]


def test_notes_of_a_version_that_knew_more_are_taken_up(host: Host) -> None:
    host.initial()
    start_nginx(host.site, host.nginx)
    write_image(host.images / "app:1", image("first"))
    assert this_version(host) == 0
    published = host.state / "published.json"
    text = published.read_text()
    published.write_text(text.replace('{"generation"', '{"later":{"x":[1]},"generation"', 1))
    (host.images / "app:1" / "manifest.json").unlink()
    assert this_version(host) == 3
    assert host.site.tags("app") == ["1"], "the tag stays as it was published"
