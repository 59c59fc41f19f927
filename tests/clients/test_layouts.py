"""Real OCI layouts, from skopeo and umoci, go in and come back byte for byte."""

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.quick_start import Registry, serving
from tests.clients.real_images import Workshop, skopeo
from tests.http import ask
from tests.nginxes import require
from tests.remedies import run
from tests.trees import digest_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where each kind of image comes from."""
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    return {
        "single": workshop.build("single"),
        "changed": workshop.build("changed", content="another version"),
        "list": workshop.build_list("both", amd64="for amd64", arm64="for arm64"),
    }


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving() as made:
        yield made


def drop(source: str, layout: Path, tag: str, *options: str) -> str:
    """Copy into a layout; returns the digest that it has there."""
    layout.parent.mkdir(exist_ok=True)
    skopeo("copy", "--quiet", "--all", *options, source, f"oci:{layout}:{tag}")
    manifests = json.loads((layout / "index.json").read_bytes())["manifests"]
    named = {each.get("annotations", {}).get("org.opencontainers.image.ref.name"): each for each in manifests}
    return str(named[tag]["digest"])


def pull(address: str, name: str, target: str) -> None:
    skopeo("copy", "--quiet", "--all", "--src-tls-verify=false", f"docker://{address}/{name}", target)


def content(layout: Path, digest: str) -> dict[str, bytes]:
    """Every manifest and blob below ``digest``, by digest."""
    found = {digest: (layout / "blobs" / digest.replace(":", "/")).read_bytes()}
    document = json.loads(found[digest])
    for each in document.get("manifests", []):
        found |= content(layout, each["digest"])
    for each in [*document.get("layers", []), *([document["config"]] if "config" in document else [])]:
        found[each["digest"]] = (layout / "blobs" / each["digest"].replace(":", "/")).read_bytes()
    return found


@pytest.mark.parametrize("name", ["app", "library/app"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("single", ()), ("list", ()), ("single", ("--dest-compress-format", "zstd", "--dest-compress"))],
    ids=["one platform", "two platforms", "zstd"],
)
def test_what_is_dropped_as_a_layout_comes_back(
    sources: dict[str, str],
    registry: Registry,
    tmp_path: Path,
    name: str,
    kind: str,
    options: tuple[str, ...],
) -> None:
    layout = registry.images / name
    digest = drop(sources[kind], layout, "1.0", *options)
    registry.process.says(rf"^{name}:1.0 is there.*{digest}")
    pull(registry.address, f"{name}:1.0", f"oci:{tmp_path}/came:1.0")
    assert content(tmp_path / "came", digest) == content(layout, digest)
    pull(registry.address, f"{name}:1.0", f"dir:{tmp_path}/directory")
    assert digest_of((tmp_path / "directory" / "manifest.json").read_bytes()) == digest
    if options:
        assert b"tar+zstd" in content(layout, digest)[digest]


def test_tags_are_added_replaced_and_removed_in_one_layout(
    sources: dict[str, str], registry: Registry, tmp_path: Path
) -> None:
    layout, address = registry.images / "app", registry.address
    first = drop(sources["single"], layout, "1.0")
    registry.process.says(rf"^app:1.0 is there.*{first}")
    both = drop(sources["list"], layout, "2.0")
    registry.process.says(rf"^app:2.0 is there.*{both}")
    second = drop(sources["changed"], layout, "1.0")
    registry.process.says(rf"^app:1.0 was replaced.*{second}")
    assert first != second
    pull(address, "app:1.0", f"oci:{tmp_path}/came:1.0")
    assert content(tmp_path / "came", second) == content(layout, second)
    pull(address, f"app@{first}", f"oci:{tmp_path}/before:1.0")
    assert content(tmp_path / "before", first) == content(layout, first)
    assert '"1.0",\n        "2.0"\n' in skopeo("list-tags", "--tls-verify=false", f"docker://{address}/app")
    umoci("rm", "--image", f"{layout}:2.0")
    registry.process.says(r"^app:2.0 is gone")


def test_a_layout_that_umoci_wrote(registry: Registry, tmp_path: Path) -> None:
    """Its files are for their owner only, and it deletes what no tag needs."""
    layout = registry.images / "app"
    umoci("init", "--layout", layout)
    umoci("new", "--image", f"{layout}:1.0")
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "file").write_text("hello")
    umoci("insert", "--image", f"{layout}:1.0", "--tag", "1.1", tmp_path / "content", "/content")
    umoci("tag", "--image", f"{layout}:1.1", "latest")
    subprocess.run(["chmod", "-R", "go+rX", layout], check=True)
    for tag in ("1.0", "1.1", "latest"):
        registry.process.says(rf"^app:{tag} is there")
        pull(registry.address, f"app:{tag}", f"oci:{tmp_path}/{tag}:x")
        (entry,) = json.loads((tmp_path / tag / "index.json").read_bytes())["manifests"]
        assert content(tmp_path / tag, entry["digest"]) == content(layout, entry["digest"])
    umoci("rm", "--image", f"{layout}:1.0")
    umoci("gc", "--layout", layout)
    registry.process.says(r"^app:1.0 is gone")
    pull(registry.address, "app:1.1", f"oci:{tmp_path}/again:x")


def test_an_image_that_was_dropped_without_a_tag(
    sources: dict[str, str], registry: Registry, tmp_path: Path
) -> None:
    layout = registry.images / "app"
    skopeo("copy", "--quiet", sources["single"], f"oci:{layout}")
    problem = registry.process.says(
        r"not served: (.*/app): (sha256:\S+) has no name in it.*\. (Name it: .*)$"
    )
    pull(registry.address, f"app@{problem[2]}", f"dir:{tmp_path}/by-digest")
    run(problem[3])
    registry.process.says(rf"^app:latest is there.*{problem[2]}")
    pull(registry.address, "app:latest", f"dir:{tmp_path}/by-tag")


def test_pulls_see_no_gap_while_a_layout_is_copied_again(sources: dict[str, str], registry: Registry) -> None:
    """skopeo empties index.json and a manifest for a moment, each time."""
    layout = registry.images / "app"
    digests = {drop(sources["changed"], layout, "1.0"), drop(sources["single"], layout, "1.0")}
    steady = drop(sources["list"], layout, "2.0")
    for name in ("app:1.0", "app:2.0"):
        registry.process.says(rf"^{name} is there")
    faults, stop = [], threading.Event()

    def ask_again_and_again() -> None:
        while not stop.is_set():
            moving = ask(registry.address, "/v2/app/manifests/1.0")
            other = ask(registry.address, "/v2/app/manifests/2.0")
            blobs = [each["digest"] for each in json.loads(moving.body).get("layers", [])]
            answers = [ask(registry.address, f"/v2/app/blobs/{each}") for each in blobs]
            seen = [moving.status, other.status, *(each.status for each in answers)]
            right = digest_of(moving.body) in digests and digest_of(other.body) == steady
            if set(seen) != {200} or not right or [digest_of(each.body) for each in answers] != blobs:
                faults.append((seen, moving.body[:100]))

    asker = threading.Thread(target=ask_again_and_again)
    asker.start()
    try:
        for number in range(16):
            drop(sources["changed" if number % 2 else "single"], layout, "1.0")
    finally:
        stop.set()
        asker.join()
    assert faults == []


def umoci(*arguments: object) -> None:
    result = subprocess.run(
        [require("umoci"), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, f"umoci {arguments}: {result.stderr}"
