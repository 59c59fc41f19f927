"""What today's tools write, pulled by real clients: images without all of their platforms, and bundles."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.clients.quick_start import serving
from tests.clients.real_images import Workshop, skopeo
from tests.documents import block
from tests.trees import digest_of

pytestmark = [pytest.mark.slow, pytest.mark.clients]


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
