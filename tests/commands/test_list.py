"""`scr-watchd list`: what takes how much of the disk, as `du` has it."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands.test_never_wrong import started
from tests.commands.test_run import Host, host
from tests.commands.test_wait_and_verify import wait_for
from tests.daemons import daemon, scr_watchd
from tests.trees import (
    Built,
    descriptor,
    digest_of,
    docker_save,
    image,
    index,
    make_images,
    without,
    write_image,
    write_layout,
)

pytestmark = pytest.mark.slow

__all__ = ["host", "started"]  # fixtures

AMD64, ARM64 = image("amd64"), image("arm64")
BOTH = index(AMD64, ARM64, platforms=("linux/amd64", "linux/arm64"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Images in every form, of which some share files."""
    root = make_images(tmp_path / "images", {"app": {"1": AMD64, "2": AMD64}, "lib/multi": {"1": BOTH}})
    write_layout(root / "layout", ("1", AMD64), ("2", BOTH))
    docker_save(root / "bundle", ("docker.io/a:1", without(BOTH, ARM64)), ("quay.io/b:1", image("b")))
    (root / "app:link").symlink_to("app/1")
    write_image(root / f"app@{ARM64.digest}", ARM64)
    (root / "notes").mkdir()
    (root / "notes" / "text").write_bytes(bytes(100_000))
    (root / "broken").mkdir()
    (root / "broken" / "1").mkdir()
    (root / "broken" / "1" / "manifest.json").write_text("{")
    return root


def listed(root: Path, *more: object) -> dict[str, Any]:
    result = scr_watchd("list", root, "--json", *more)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def du(*arguments: object) -> int:
    said = subprocess.run(
        ["du", "-B1", *map(str, arguments)], capture_output=True, text=True, check=True
    ).stdout
    return int(said.splitlines()[-1].split()[0])


def named(root: Path, *trees: Built) -> list[Path]:
    """The files of the tree that images name."""
    names = {name for built in trees for name in built.files} | {built.digest[7:] for built in trees}
    found = [each for each in root.rglob("*") if each.is_file() and not each.is_symlink()]
    return [
        each
        for each in found
        if each.name in {*names, "manifest.json"}
        and "broken" not in each.parts
        and each.parent.name != "bundle"
    ]


@pytest.mark.parametrize("linked", [False, True], ids=["as it came", "after hardlink"])
def test_the_totals_are_those_of_du(tree: Path, *, linked: bool) -> None:
    if linked:
        subprocess.run(["hardlink", "-c", tree], check=True, capture_output=True)
    found = listed(tree)
    files = named(tree, AMD64, ARM64, BOTH, image("b"))
    assert found["total"] == du("-c", *files)
    assert found["all"] == du("-s", tree)
    assert found["other"] == found["all"] - found["total"] > 100_000
    every = {(each.stat().st_dev, each.stat().st_ino): each.stat().st_blocks * 512 for each in files}
    assert found["total"] == sum(every.values())
    assert sum(each["own"] for each in found["images"]) <= found["total"]
    for each in found["images"]:
        assert each["own"] + each["shared"] == each["size"]


def test_what_images_share_is_told_from_what_only_one_has(tmp_path: Path) -> None:
    root = make_images(tmp_path, {"app": {"1": AMD64, "3": ARM64}})
    first = listed(root)["images"]
    assert all(each["own"] == each["size"] > 0 for each in first)
    subprocess.run(["cp", "-al", root / "app" / "1", root / "app" / "2"], check=True)
    sizes = {each["tag"]: (each["own"], each["shared"]) for each in listed(root)["images"]}
    assert sizes == {"1": (0, first[0]["size"]), "2": (0, first[0]["size"]), "3": (first[1]["size"], 0)}


def test_images_are_sorted_and_said_with_their_platforms(tree: Path) -> None:
    names = [f"{each['repository']}:{each['tag']}" for each in listed(tree)["images"]]
    assert names == sorted(names, key=lambda name: name.replace("None", "").split(":"))
    text = scr_watchd("list", tree).stdout
    assert re.search(rf"^lib/multi +1 +{BOTH.digest[7:19]} +linux/amd64,linux/arm64 +\d", text, re.MULTILINE)
    assert re.search(r"^bundle/docker.io/a +1 +[0-9a-f]{12} +linux/amd64 \(1 of 2\) +", text, re.MULTILINE)
    assert re.search(rf"^app +- +{ARM64.digest[7:19]} +- ", text, re.MULTILINE)
    assert re.search(r"^total  .* in 9 images$", text, re.MULTILINE)
    assert text.endswith("2 more are not complete, or not in order: scr-watchd check\n")


def test_the_config_says_the_platform_of_a_single_image(tmp_path: Path) -> None:
    built = image("one", layers=0)
    config = b'{"os": "linux", "architecture": "arm", "variant": "v7"}'
    raw = json.loads(built.raw)
    raw["config"] = descriptor(config, raw["config"]["mediaType"])
    write_image(
        tmp_path / "app:1", Built(json.dumps(raw).encode(), built.media_type, {digest_of(config)[7:]: config})
    )
    assert listed(tmp_path)["images"][0]["platforms"] == ["linux/arm/v7"]


def test_what_is_about_another_image_says_so(tmp_path: Path) -> None:
    """By its subject, or by cosign's tag; list and check alike."""
    about_both, about_arm64, about_another = (
        image(
            f"about {called}", subject=descriptor(raw, BOTH.media_type), artifactType="application/spdx+json"
        )
        for called, raw in (("both", BOTH.raw), ("arm64", ARM64.raw), ("another", b"{}"))
    )
    tags = {
        "1": BOTH,
        f"sha256-{BOTH.digest[7:]}.sig": image("signature"),
        "both": about_both,
        "arm64": about_arm64,
        "another": about_another,
    }
    root = make_images(tmp_path / "images", {"app": tags, "other": {"1": about_both}})
    absent = f"{digest_of(b'{}')[:19]}, which is not here"
    elsewhere = f"{BOTH.digest[:19]}, which is not here"
    sbom = " (application/spdx+json)"
    expected = {
        f"app:sha256-{BOTH.digest[7:]}.sig": "1",
        "app:both": f"1{sbom}",
        "app:arm64": f"a platform of 1{sbom}",
        "app:another": f"{absent}{sbom}",
        "other:1": f"{elsewhere}{sbom}",
    }
    told = re.findall(r"^(\S+)  sha256:\S+  about (.+)$", scr_watchd("check", root).stdout, re.MULTILINE)
    assert dict(told) == expected
    rows = scr_watchd("list", root).stdout.splitlines()
    column = rows[0].index("ABOUT")
    found = {":".join(row.split()[:2]): row[column:] for row in rows[1:] if row[column:]}
    assert found == expected
    fields = {f"{each['repository']}:{each['tag']}": each for each in listed(root)["images"]}
    assert fields["app:both"]["subject"] == BOTH.digest
    assert fields["app:both"]["artifactType"] == "application/spdx+json"
    assert fields["app:1"]["subject"] is None
    alone = scr_watchd("check", root / "app" / "both").stdout
    assert f"about {BOTH.digest[:19]}{sbom}\n" in alone, "what is not looked at may be there"


def test_one_repository_has_its_own_total_and_no_rest(tree: Path) -> None:
    found = listed(tree, "--repository", "lib/multi")
    assert [each["repository"] for each in found["images"]] == ["lib/multi"]
    assert found["total"] == found["images"][0]["own"] == found["images"][0]["size"]
    assert "other" not in found
    assert "other" not in scr_watchd("list", tree, "--repository", "lib/multi").stdout


def test_when_an_image_was_published_is_what_the_state_says(started: Host) -> None:
    write_image(started.images / "app:1", AMD64)
    with daemon(*started.arguments()):
        assert wait_for(started, "app:1").returncode == 0
    write_image(started.images / "app:2", ARM64)
    found = listed(started.images, "--root", started.images, "--state", started.state)
    one, two = found["images"]
    assert one["published"] == pytest.approx((started.images / "app:1").stat().st_ctime, abs=30)
    assert two["published"] is None


def test_nothing_is_said_of_a_tree_that_cannot_be_read(tmp_path: Path) -> None:
    result = scr_watchd("list", tmp_path / "nowhere")
    assert result.returncode == 1
    assert "cannot be read" in result.stderr


def test_progress_is_shown_on_a_terminal_that_waits(tmp_path: Path) -> None:
    """Here it is shown at once: a tree that takes a second would take the test minutes to make."""
    make_images(tmp_path, {"app": {str(number): AMD64 for number in range(50)}})
    ours, theirs = pty.openpty()
    code = "from scr_watchd.commands import list as l; l._QUIET_SECONDS = l._SHOW_SECONDS = 0; import sys; "
    code += f"from scr_watchd.cli import main; sys.exit(main(['list', {str(tmp_path)!r}]))"
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, check=True)
    assert b"directories and images" in os.read(ours, 65536)
