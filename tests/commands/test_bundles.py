"""Bundles as users see them: through the daemon, `status`, `check` and `wait`."""

import pytest

from tests.commands.test_never_wrong import started
from tests.commands.test_run import Host, host
from tests.commands.test_wait_and_verify import wait_for
from tests.daemons import daemon, scr_watchd
from tests.trees import docker_save, image, write_blob
from tests.waiting import until

pytestmark = pytest.mark.slow

__all__ = ["host", "started"]  # fixtures

ALPINE, NGINX = (
    ("docker.io/library/alpine:3.20", image("alpine")),
    ("docker.io/library/nginx:3.20", image("nginx")),
)
PORT = ("127.0.0.1:7100/app:1", image("app"))


def test_names_that_change_are_said_everywhere(started: Host) -> None:
    with daemon(*started.arguments()) as process:
        docker_save(started.images / "bundle", ALPINE)
        assert wait_for(started, "bundle:3.20").stdout == f"{ALPINE[1].digest}\n"
        docker_save(started.images / "bundle", ALPINE, NGINX, PORT)
        assert wait_for(started, f"bundle/{NGINX[0]}").stdout == f"{NGINX[1].digest}\n"
        assert wait_for(started, "bundle/127.0.0.1_7100/app:1").stdout == f"{PORT[1].digest}\n"
        old, new = "bundle:3.20", f"bundle/{ALPINE[0]}"
        process.says(rf"{old} is called {new} now, because its layout has images of several repositories")
        for command in ("status", "check"):
            more = (started.images,) if command == "check" else ()
            said = scr_watchd(command, *more, "--state", started.state)
            assert said.returncode == 0
            assert f"  {old} -> {new}\n" in said.stdout
    assert started.site.tags("bundle") == []
    assert started.site.ask("/v2/bundle/127.0.0.1_7100/app/manifests/1").body == PORT[1].raw


def test_wait_says_what_is_wrong_with_an_image_of_a_bundle(started: Host) -> None:
    layout = docker_save(started.images / "bundle", ALPINE, NGINX)
    blob = layout / "blobs" / "sha256" / max(NGINX[1].blobs)[7:]
    content = blob.read_bytes()
    blob.unlink()
    with daemon(*started.arguments()):
        result = wait_for(started, f"bundle/{NGINX[0]}")
        assert result.returncode == 3
        assert result.stdout.startswith(f"{layout}:{NGINX[0]}: blob ")
        assert wait_for(started, f"bundle/{ALPINE[0]}").returncode == 0
        write_blob(layout, content)
        assert wait_for(started, f"bundle/{NGINX[0]}").returncode == 0


def test_a_bundle_is_a_mirror_as_it_came(started: Host) -> None:
    docker_save(started.images / "bundle", ALPINE, NGINX, PORT)
    config = started.site.directory / "mirrors.toml"
    config.write_text('[mirrors]\n"docker.io" = "bundle/docker.io"\n')
    with daemon(*started.arguments("-c", config)):
        path = "/v2/library/nginx/manifests/3.20?ns=docker.io"
        until(lambda: started.site.ask(path).status, lambda status: status == 200)
        assert started.site.ask(path).body == NGINX[1].raw
        assert started.site.ask("/v2/library/nginx/manifests/3.20").status == 404
