"""Real images go in through skopeo and come back through skopeo, byte for byte."""

import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.quick_start import Registry, serving
from tests.clients.real_images import Sources, Workshop, assert_same, drop, kinds, pull, skopeo
from tests.daemons import (
    daemon,
    public_directory,
    remove,
    scr_watchd,
    site,
    start_nginx,
)
from tests.http import ask
from tests.nginxes import require
from tests.trees import descriptor, digest_of, image, write_image
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return kinds(Workshop(tmp_path_factory.mktemp("workshop")))


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving() as made:
        yield made


def can_be_pulled(address: str, name: str, tag: str) -> bytes:
    answer = ask(address, f"/v2/{name}/manifests/{tag}")
    return answer.body if answer.status == 200 else b""


@pytest.mark.parametrize("form", ["{name}:{tag}", "{name}/{tag}"])
@pytest.mark.parametrize("kind", ["oci", "v2s2", "list", "v2s2-list"])
def test_what_is_dropped_in_comes_back(
    sources: Sources,
    registry: Registry,
    tmp_path: Path,
    kind: str,
    form: str,
) -> None:
    address, images = registry.address, registry.images
    target = images / form.format(name="app", tag="1.0")
    target.parent.mkdir(exist_ok=True)
    drop(sources, kind, target)
    registry.serves("app:1.0", target)
    assert_same(pull(address, "app:1.0", tmp_path / "came"), target)


def test_a_tag_is_replaced_and_removed(sources: Sources, registry: Registry, tmp_path: Path) -> None:
    address, images = registry.address, registry.images
    target = drop(sources, "oci", images / "app:1.0")
    registry.serves("app:1.0", target)
    drop(sources, "changed", target)
    registry.serves("app:1.0", target)
    assert_same(pull(address, "app:1.0", tmp_path / "came"), target)
    remove(target)
    until(lambda: ask(address, "/v2/app/manifests/1.0").status, lambda status: status == 404)


def test_tags_can_be_listed_and_inspected(sources: Sources, registry: Registry) -> None:
    address, images = registry.address, registry.images
    for kind, name in (("oci", "app:1.0"), ("list", "app:2.0")):
        registry.serves(name, drop(sources, kind, images / name))
    assert '"Tags": [\n        "1.0",\n        "2.0"\n    ]' in skopeo(
        "list-tags", "--tls-verify=false", f"docker://{address}/app"
    )
    assert '"Architecture": "amd64"' in skopeo("inspect", "--tls-verify=false", f"docker://{address}/app:1.0")


def test_how_long_it_takes_from_drop_to_pull(sources: Sources, registry: Registry) -> None:
    """Reported and not asserted: `pytest -m slow -k how_long -s` shows the medians."""
    address, images = registry.address, registry.images
    seconds: dict[str, list[float]] = {"appear": [], "be replaced": [], "disappear": []}
    target = images / "app:1"
    for _ in range(5):
        for step, kind in (("appear", "oci"), ("be replaced", "changed"), ("disappear", "")):
            idle_since = time.monotonic()  # the shortest time between two reloads is not what is asked for
            until(lambda: time.monotonic(), lambda now: now > idle_since + 2.5)  # noqa: B023
            remove(target) if step == "disappear" else drop(sources, kind, target)
            start = time.monotonic()
            wanted = b"" if step == "disappear" else (target / "manifest.json").read_bytes()
            until(lambda: can_be_pulled(address, "app", "1"), lambda body: body == wanted)  # noqa: B023
            seconds[step].append(time.monotonic() - start)
    for step, values in seconds.items():
        print(f"until a tag can {step}: median {statistics.median(values):.2f} s of {len(values)}")  # noqa: T201


def test_push_is_refused_with_a_sentence(sources: Sources, registry: Registry) -> None:
    address = registry.address
    source, options = sources["oci"]
    result = subprocess.run(
        [require("skopeo"), "copy", *options, "--dest-tls-verify=false", source, f"docker://{address}/app:1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert "this registry is read-only" in result.stderr


def test_beside_an_nginx_of_somebody_else(sources: Sources, tmp_path: Path) -> None:
    nginx = require("nginx")
    with public_directory() as directory:
        images, state = directory / "images", directory / "state"
        images.mkdir()
        with site(directory / "site", state, program=nginx, start=False) as host:
            options = ("run", images, "--state", state, "--nginx-config", host.config, "--nginx", nginx)
            scr_watchd(*options, "--once")
            start_nginx(host, nginx)
            with daemon(*options) as process:
                serving = Registry(host.registry, images, process)
                for name, kind in (("library/both:1", "list"), ("app:1.0", "v2s2")):
                    (images / name).parent.mkdir(exist_ok=True)
                    target = drop(sources, kind, images / name)
                    serving.serves(name, target)
                    assert host.other().body == b"the other site"
                    assert_same(pull(host.registry, name, tmp_path / name.split(":")[1]), target)
            assert_same(pull(host.registry, "app:1.0", tmp_path / "afterwards"), images / "app:1.0")


def test_a_push_of_any_size_is_told_how_to_publish(
    sources: Sources, registry: Registry, tmp_path: Path
) -> None:
    pushed = drop(sources, "oci", tmp_path / "pushed")
    with pytest.raises(AssertionError, match=r"read-only; publish by copying into its images directory"):
        skopeo("copy", "--dest-tls-verify=false", f"dir:{pushed}", f"docker://{registry.address}/app:1")
    answer = ask(registry.address, "/v2/app/blobs/uploads/", method="POST", body=b"x" * 50_000_000)
    assert (answer.status, answer.code, answer.header("Allow")) == (405, "UNSUPPORTED", "GET, HEAD")


def test_what_is_about_an_image_is_found_and_comes_back(
    sources: Sources, registry: Registry, tmp_path: Path
) -> None:
    address, images = registry.address, registry.images
    subject = drop(sources, "oci", images / "app:1")
    raw = (subject / "manifest.json").read_bytes()
    sbom = image(
        "sbom",
        artifactType="application/spdx+json",
        subject=descriptor(raw, "application/vnd.oci.image.manifest.v1+json"),
        annotations={"of": 'app "1" for $5'},
    )
    dropped = images / "app:sbom"
    skopeo("copy", "--quiet", f"dir:{write_image(tmp_path / 'artifact', sbom)}", f"dir:{dropped}")
    registry.serves("app:sbom", dropped)
    found = ask(address, f"/v2/app/referrers/{digest_of(raw)}?artifactType=application%2Fspdx%2Bjson")
    assert found.header("OCI-Filters-Applied") == "artifactType"
    (entry,) = found.json()["manifests"]
    assert (entry["digest"], entry["annotations"]) == (sbom.digest, {"of": 'app "1" for $5'})
    assert_same(pull(address, f"app@{entry['digest']}", tmp_path / "came"), dropped)
