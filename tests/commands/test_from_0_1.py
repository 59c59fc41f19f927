"""From the real 0.1.0 to this version, and back, under load: no pull fails, and no name or rule is lost."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests import former
from tests.daemons import daemon, remove, scr_watchd, start_nginx
from tests.endurance.hosts import Host, host, served
from tests.http import ask
from tests.trees import Built, image, index, write_image, write_layout
from tests.waiting import meanwhile, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return former.code(tmp_path_factory.mktemp("former") / "code")


@dataclass
class Load:
    """Constant pulls by tag and by digest of all that is ``wanted``."""

    site: str
    wanted: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    pulled: int = 0

    def want(self, name: str, tag: str | None, built: Built) -> None:
        if tag is not None:
            self.wanted[f"/v2/{name}/manifests/{tag}"] = built.raw
        self.wanted |= {f"/v2/{name}/manifests/{each}": raw for each, raw in built.manifests.items()}
        self.wanted |= {f"/v2/{name}/blobs/{each}": content for each, content in built.blobs.items()}

    def pull(self) -> None:
        for path, content in self.wanted.items():
            try:
                answer = ask(self.site, path)
            except OSError as error:
                self.faults.append(f"{path}: {error!r}")
                continue
            if answer.status != 200 or answer.body != content:
                self.faults.append(f"{path}: {answer.status}")
            self.pulled += 1


@contextmanager
def under(load: Load) -> Iterator[None]:
    with meanwhile(lambda _: load.pull(), pause=0.005):
        yield
    assert load.pulled
    assert not load.faults, (len(load.faults), load.pulled, sorted(set(load.faults))[:9])


@contextmanager
def published_by_the_former(old: Path, *, links: str) -> Iterator[tuple[Host, Load]]:
    """A site of 0.1 with an access rule, and an image of each kind, one of them pinned and one leaving."""
    with TemporaryDirectory(dir="/dev/shm", prefix="scrtest") as elsewhere:
        Path(elsewhere).chmod(0o755)
        store = ("--store", elsewhere) if links == "symbolic" else ()
        with host("--quiet-seconds", "0.1", *store) as here:
            load = Load(here.site.registry)
            text = here.site.config.read_text().replace("user root root;", "user nobody nogroup;")
            rule = "auth_basic $realm; auth_basic_user_file htpasswd;\n        include"
            first, _, last = text.rpartition("    server {\n        listen 127.0.0.1:" + str(here.site.port))
            text = f'{first}    map $scr_repo $realm {{ default off; ~^secret/ "secret"; }}\n'
            text += "    server {\n        listen 127.0.0.1:" + str(here.site.port)
            text += last.replace(
                f"include {here.state}/nginx/current/server", f"{rule} {here.state}/nginx/current/server"
            )
            here.site.config.write_text(text)
            (here.site.directory / "htpasswd").touch(0o644)
            tree = {
                ("app", "1"): image("1"),
                ("app", "2"): index(image("2"), image("3")),
                ("layout", "a"): image("a"),
                ("layout", "b"): index(image("b"), image("c")),
                ("one", "9"): image("x"),
            }
            write_image(here.images / "app" / "1", tree["app", "1"])
            write_image(here.images / "app:2", tree["app", "2"])
            (here.images / "app:latest").symlink_to("app:2")
            write_layout(here.images / "layout", ("a", tree["layout", "a"]), ("b", tree["layout", "b"]))
            write_layout(here.images / "one:9", ("x", tree["one", "9"]))
            write_image(here.images / "secret" / "app:1", image("secret"))
            pinned, leaving = image("pinned"), image("leaving")
            write_image(here.images / "pinned:1", pinned)
            write_image(here.images / "gone:1", leaving)
            for (name, tag), built in tree.items():
                load.want(name, tag, built)
            load.want("app", "latest", tree["app", "2"])
            argv = [
                sys.executable,
                "-m",
                "scr_watchd",
                *map(str, here.arguments("--once", "--confirm-seconds", "0.1")),
            ]
            subprocess.run(argv, cwd=old, check=False, capture_output=True)
            start_nginx(here.site, here.nginx)
            with former.version(old, *here.arguments(), log=here.site.directory / "former.log"):
                until(lambda: here.digest("pinned", "1"), lambda digest: digest == pinned.digest)
                if links == "hard":
                    (here.images / "pinned:1" / "manifest.json").unlink()
                    remove(here.images / "gone:1")
                    until(lambda: here.digest("gone", "1"), lambda digest: not digest)
                    load.want("pinned", "1", pinned)
                    load.want("gone", None, leaving)
            assert here.site.ask("/v2/secret/app/manifests/1").status == 401
            yield here, load


def is_settled(here: Host, version: int) -> bool:
    status = json.loads((here.state / "status.json").read_text())
    return status["pid"] == version and bool(status["confirmed"]) and not status["waiting"]


@pytest.mark.parametrize("links", ["hard", "symbolic"])
def test_an_upgrade_from_the_first_version_loses_nothing(old: Path, links: str) -> None:
    with published_by_the_former(old, links=links) as (here, load):
        before = served(here.site)
        with under(load), daemon(*here.arguments()) as process:
            until(lambda: is_settled(here, process.process.pid))
            assert served(here.site) == before
            assert here.site.ask("/v2/secret/app/manifests/1").status == 401
            assert b"/.manifests/" in (here.state / "nginx/current/server.conf").read_bytes(), (
                "it is the new one's"
            )
            assert here.site.process
            assert here.site.process.poll() is None
            assert "Traceback" not in process.said()


@pytest.mark.parametrize("links", ["hard", "symbolic"])
def test_the_way_back_to_the_first_version_keeps_what_the_tree_has(old: Path, links: str) -> None:
    """What is pinned or leaving goes: the store of this version is none that 0.1 knows."""
    with published_by_the_former(old, links=links) as (here, load):
        with daemon(*here.arguments()) as process:
            until(lambda: is_settled(here, process.process.pid))
            before = served(here.site)
        load.wanted = {
            path: raw for path, raw in load.wanted.items() if not path.startswith(("/v2/pinned", "/v2/gone"))
        }
        log = here.site.directory / "former2.log"
        with under(load), former.version(old, *here.arguments(), log=log) as first:
            until(lambda: is_settled(here, first.pid))
            until(
                lambda: b"/.manifests/" in (here.state / "nginx/current/server.conf").read_bytes(),
                lambda new: not new,
            )
            now = served(here.site)
        assert {each: digest for each, digest in before.items() if each[0] != "pinned"} == {
            each: digest for each, digest in now.items() if each[0] != "pinned"
        }
        assert here.site.ask("/v2/secret/app/manifests/1").status == 401


def test_check_says_beforehand_which_names_an_upgrade_changes(old: Path) -> None:
    with published_by_the_former(old, links="hard") as (here, _):
        names = ("docker.io/library/alpine:3.20", image("alpine")), ("quay.io/other/app:1", image("other"))
        write_layout(here.images / "bundle", *names)
        with former.version(old, *here.arguments(), log=here.site.directory / "former3.log"):
            until(lambda: here.digest("bundle", "3.20"))
        found = scr_watchd("check", here.images, "--state", here.state).stdout
        assert "bundle:3.20 -> bundle/docker.io/library/alpine:3.20" in found
        assert "bundle:1 -> bundle/quay.io/other/app:1" in found
        with daemon(*here.arguments()) as process:
            until(lambda: is_settled(here, process.process.pid))
            assert here.digest("bundle/docker.io/library/alpine", "3.20") == image("alpine").digest
            assert not here.digest("bundle", "3.20")
