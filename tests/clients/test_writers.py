"""What today's tools write, pulled by real clients: images without all of their platforms, and bundles."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import registry as registries
from tests.clients.pullers import Client, Ctr, Docker, RefusedError, Skopeo, Wanted
from tests.clients.quick_start import serving
from tests.clients.real_images import Workshop, skopeo
from tests.clients.registry import CONTENTS, LIST, PLAIN, SINGLE, Registry
from tests.clients.test_matrix import client, clients
from tests.documents import block
from tests.engines import run
from tests.http import ask
from tests.trees import Built, digest_of, docker_save
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.clients]

__all__ = ["client", "clients"]  # fixtures

ALPINE, APP, SPARSE = "docker.io/library/alpine:3.20", "127.0.0.1:7100/lib/app:1", "quay.io/x/both:1"


def built(directory: Path) -> Built:
    raw = (directory / "manifest.json").read_bytes()
    files = {each.name: each.read_bytes() for each in directory.iterdir() if each.name != "manifest.json"}
    return Built(raw, json.loads(raw)["mediaType"], files)


def without_arm64(image: Built) -> Built:
    """As what was pulled for one platform only is saved."""
    (arm64,) = (
        each["digest"][7:]
        for each in json.loads(image.raw)["manifests"]
        if each["platform"]["architecture"] == "arm64"
    )
    child = json.loads(image.files[f"{arm64}.manifest.json"])
    absent = {f"{arm64}.manifest.json", *(each["digest"][7:] for each in (child["config"], *child["layers"]))}
    common = {
        each["digest"][7:]
        for name, raw in image.files.items()
        if name.endswith(".manifest.json") and name != f"{arm64}.manifest.json"
        for each in (json.loads(raw)["config"], *json.loads(raw)["layers"])
    }
    files = {name: raw for name, raw in image.files.items() if name not in absent - common}
    return Built(image.raw, image.media_type, files)


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    """A site with a bundle as `docker save` of Docker 29 writes one, of which an image is sparse."""
    with registries.registry() as made:
        single, both = (built(made.tag_directory(name)) for name in (SINGLE, LIST))
        docker_save(made.images / "bundle", (ALPINE, single), (APP, single), (SPARSE, without_arm64(both)))
        path = "/v2/bundle/quay.io/x/both/manifests/1"
        until(
            lambda: ask(f"{made.directory}/nginx.sock", path).status, lambda status: status == 200, seconds=30
        )
        yield made


def test_a_bundle_is_pulled(registry: Registry, client: Client) -> None:
    for name in (f"bundle/{ALPINE}", "bundle/127.0.0.1_7100/lib/app:1"):
        came = client.pull(Wanted(PLAIN, name))
        assert registry.digest(SINGLE) in came.digests
        assert came.content == CONTENTS[SINGLE]


def test_the_platform_that_is_there_is_pulled(registry: Registry, client: Client) -> None:
    wanted = Wanted(PLAIN, f"bundle/{SPARSE}")
    if isinstance(client, Skopeo):  # with --all it fails, as docs/clients.md says
        with pytest.raises(RefusedError, match=r"(?i)manifest unknown"):
            client.pull(wanted)
        return
    came = client.pull(wanted)
    assert registry.digest(LIST) in came.digests
    assert came.content == CONTENTS[LIST]


@pytest.mark.parametrize("name", ["docker", "containerd", "podman"])
def test_a_platform_that_is_absent_is_refused(
    registry: Registry, clients: dict[str, Client], name: str
) -> None:
    with pytest.raises(AssertionError, match=r"(?i)manifest unknown|not found"):
        pull_arm64(registry, clients[name])


def pull_arm64(registry: Registry, client: Client) -> None:
    reference = f"{PLAIN}/bundle/{SPARSE}"
    if isinstance(client, Docker):
        client.engine.docker("pull", "--quiet", "--platform", "linux/arm64", reference)
    elif isinstance(client, Ctr):
        client.engine.ctr("images", "pull", "--plain-http", "--platform", "linux/arm64", reference)
    else:
        place = registry.directory / "p"
        where = ("--root", place / "root", "--runroot", place / "run", "--storage-driver", "vfs")
        run(*registry.before, "podman", *where, "pull", "--tls-verify=false", "--arch", "arm64", reference)


def test_what_copies_one_platform_works_and_what_copies_all_does_not(tmp_path: Path) -> None:
    both = Workshop(tmp_path / "workshop").build_list("both", amd64="for amd64", arm64="for arm64")
    with serving() as registry:
        whole = tmp_path / "whole"
        skopeo("copy", "--quiet", "--all", both, f"dir:{whole}")
        raw = (whole / "manifest.json").read_bytes()
        children = {each["platform"]["architecture"]: each["digest"] for each in json.loads(raw)["manifests"]}
        (whole / f"{children['arm64'][7:]}.manifest.json").unlink()
        whole.rename(registry.images / "app:1")
        registry.process.says(r"^app:1 \(1 of 2 platforms: linux/amd64\) is there", seconds=20)
        line = block("docs/clients.md", "Images without all of their platforms", "--override-arch")
        line = line.replace("HOST", registry.address).replace(
            "skopeo copy", "skopeo copy --src-tls-verify=false"
        )
        for wrong in ("--override-os linux --override-arch arm64", "--all"):
            other = line.replace("--override-os linux --override-arch amd64", wrong)
            refused = subprocess.run(["sh", "-c", other], cwd=tmp_path, capture_output=True, check=False)
            assert refused.returncode != 0
            assert b"manifest unknown" in refused.stderr.lower()
        subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True)
        assert digest_of((tmp_path / "app:1" / "manifest.json").read_bytes()) == children["amd64"]
