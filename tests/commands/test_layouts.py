"""OCI layouts as users see them: through the daemon, `check`, `wait` and `verify`."""

import json
from pathlib import Path

import pytest

from tests.commands.test_never_wrong import started
from tests.commands.test_run import Host, host
from tests.commands.test_wait_and_verify import wait_for
from tests.daemons import daemon, public_path, remove, scr_watchd
from tests.trees import image, write_image, write_index, write_layout
from tests.waiting import until

__all__ = ["host", "public_path", "started"]  # fixtures

ONE, TWO = image("one"), image("two")


def blob_file(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def test_tags_of_a_layout_appear_are_replaced_and_disappear(started: Host) -> None:
    layout = started.images / "library" / "app"
    with daemon(*started.arguments()) as process:
        write_layout(layout, ("1", ONE), ("2", TWO))
        until(lambda: started.site.tags("library/app"), lambda tags: tags == ["1", "2"])
        for digest, content in ONE.blobs.items():
            assert started.site.ask(f"/v2/library/app/blobs/{digest}").body == content
        write_index(layout, ("1", TWO), ("2", TWO))
        process.says(rf"^library/app:1 was replaced.*{TWO.digest}")
        assert started.site.ask("/v2/library/app/manifests/1").body == TWO.raw
        write_index(layout, ("2", TWO))
        until(lambda: started.site.tags("library/app"), lambda tags: tags == ["2"])
        remove(layout)
        until(lambda: started.site.tags("library/app"), lambda tags: tags == [])


@pytest.mark.slow
def test_while_a_layout_is_copied_again_what_was_published_stays(started: Host) -> None:
    """skopeo writes index.json anew, from nothing, and a manifest too."""
    layout = write_layout(started.images / "app", ("1", ONE), ("2", TWO))
    raw = (layout / "index.json").read_bytes()
    with daemon(*started.arguments()) as process:
        until(lambda: started.site.tags("app"), lambda tags: tags == ["1", "2"])
        (layout / "index.json").write_bytes(b"")
        process.says(r"not served: .*/app: its index.json cannot be used: a copy is under way")
        assert started.site.tags("app") == ["1", "2"]
        status = json.loads(scr_watchd("status", "--state", started.state, "--json").stdout)
        assert sorted(status["pinned"]) == ["app:1", "app:2"]
        (layout / "index.json").write_bytes(raw)
        blob_file(layout, ONE.digest).write_bytes(b"")
        process.says(r"not served: .*/app:1: manifest sha256:.* has 0 bytes instead of")
        assert started.site.ask("/v2/app/manifests/1").body == ONE.raw
        assert started.site.ask("/v2/app/manifests/2").body == TWO.raw
        blob_file(layout, ONE.digest).write_bytes(ONE.raw)
        status = until(
            lambda: json.loads(scr_watchd("status", "--state", started.state, "--json").stdout),
            lambda status: not status["pinned"] and not status["problems"],
        )


def test_wait_knows_the_tags_of_a_layout(started: Host) -> None:
    layout = started.images / "app"
    with daemon(*started.arguments()):
        write_layout(layout, ("1", ONE))
        assert wait_for(started, "app:1").stdout == f"{ONE.digest}\n"
        write_layout(layout, ("1", TWO))
        assert wait_for(started, "app:1").stdout == f"{TWO.digest}\n", "not the digest of before"
        blob_file(layout, max(ONE.blobs)).unlink()
        write_index(layout, ("1", TWO), ("2", ONE))
        result = wait_for(started, "app:2")
        assert result.returncode == 3
        assert result.stdout.startswith(f"{layout}:2: blob sha256:")
        result = wait_for(started, "app:3", "--timeout", "0.2")
        assert (result.returncode, result.stdout[:18]) == (3, "there is no app:3:")


def test_check_of_one_layout(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "app", ("1", ONE), ("2", TWO))
    write_image(tmp_path / "other:1", ONE)
    result = scr_watchd("check", layout)
    assert result.returncode == 0, result.stdout
    assert f"app:1  {ONE.digest}\napp:2  {TWO.digest}\n" in result.stdout
    assert "other" not in result.stdout
    blob_file(layout, max(TWO.blobs)).unlink()
    result = scr_watchd("check", layout)
    assert result.returncode == 3
    assert f"not served: {layout}:2\n" in result.stdout
    assert f"app:1  {ONE.digest}" in result.stdout


def test_check_says_how_to_name_an_image_without_a_name(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "app", (None, ONE))
    result = scr_watchd("check", tmp_path)
    assert result.returncode == 3
    assert f"app  {ONE.digest}\n" in result.stdout
    assert f"  Name it: mv {layout} {layout}:latest\n" in result.stdout


@pytest.mark.parametrize("name", ["app", "app:1"])
def test_verify_reads_layouts_too(tmp_path: Path, name: str) -> None:
    layout = write_layout(tmp_path / name, ("1", ONE))
    digest, content = max(ONE.blobs.items())
    assert scr_watchd("verify", tmp_path).stdout == f"{tmp_path}: 1 images read, 0 rotten, 0 incomplete\n"
    file = blob_file(layout, digest)
    file.write_bytes(content[:-1] + b"!")
    result = scr_watchd("verify", tmp_path)
    assert result.returncode == 3
    assert result.stdout.startswith(f"rotten: app:1: {file} cannot be read")
