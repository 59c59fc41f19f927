"""Nobody's image stops another's: whatever one user drops, another's is pullable within five seconds."""

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

import pytest

from tests.commands.test_serve import images
from tests.daemons import daemon, free_port, scr_watchd
from tests.http import ask
from tests.trees import OCI_MANIFEST, descriptor, digest_of, image, write_blob, write_image
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away"),
]

__all__ = ["images"]  # a fixture

_ATTACKER, _VICTIM = 1001, 1002
_PROMISED_SECONDS = 5.0


@dataclass
class Layouts:
    """Writes OCI layouts of tiny artifacts, all with the same blob."""

    root: Path
    config: bytes = b"{}"

    def write(self, name: str, manifests: list[tuple[str, bytes]]) -> None:
        """Each of ``manifests`` with its tag; equal ones are one file."""
        directory = self.root / name
        write_blob(directory, self.config)
        entries = []
        for tag, raw in manifests:
            entry = descriptor(raw, OCI_MANIFEST)
            entries.append({**entry, "annotations": {"org.opencontainers.image.ref.name": tag}})
        for raw in {raw for _, raw in manifests}:
            write_blob(directory, raw)
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))


def manifest(seed: str, **extra: object) -> bytes:
    config = descriptor(b"{}", "application/vnd.oci.empty.v1+json")
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [config]}
    return json.dumps({**document, "artifactType": f"a/{seed}", **extra}).encode()


def dollars(root: Path) -> None:
    """1,000 artifacts with 16,000 ``$``, each of which is six bytes in nginx's file, twice."""
    for number in range(10):
        subject = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"%d" % number), "size": 1}
        artifacts = [
            (f"{each}", manifest(f"{each}", subject=subject, annotations={"a": "$" * 16_000}))
            for each in range(100)
        ]
        Layouts(root).write(f"dollars/{number}", artifacts)


def spellings(root: Path) -> None:
    """Tags that differ only in case, which nginx looks up all at once: 24,000 of a single file."""
    one = manifest("one")
    for number in range(2):
        names = [
            "".join(each)
            for each in islice(product(*zip("abcdefghijklmn", "ABCDEFGHIJKLMN", strict=True)), 12_000)
        ]
        Layouts(root).write(f"spelled/{number}", [(name, one) for name in names])


def repositories(root: Path) -> None:
    """Broken directories and long names by the thousand: each is a Problem, or a line of every list."""
    (root / "broken").mkdir()
    for number in range(3_000):
        (root / "broken" / f"{number}").mkdir()
        (root / "broken" / f"{number}" / "manifest.json").write_text("{")
    for number in range(500):
        name = "/".join([f"{number:040}"] * 6)
        Layouts(root).write(name, [("rc1", manifest("1")), ("RC1", manifest("2"))])


def give(path: Path, owner: int) -> None:
    for directory, _, names in os.walk(path):
        for each in (directory, *(f"{directory}/{name}" for name in names)):
            os.chown(each, owner, -1, follow_symlinks=False)


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        pytest.param(dollars, "in nginx's configuration, and there is room for", id="annotations"),
        pytest.param(spellings, "in case at most, and the first 32 are served", id="spellings"),
        pytest.param(
            repositories, "more like it have the same owner", id="broken directories and long names"
        ),
    ],
)
def test_whatever_one_user_drops_anothers_image_is_pullable_within_five_seconds(
    images: Path, attack: Callable[[Path], None], named: str
) -> None:
    """With the default settings. The attack is named in `status`, with its owner."""
    attack(images)
    give(images, _ATTACKER)
    os.chown(images, 0, -1)
    address = f"127.0.0.1:{free_port()}"
    with daemon("serve", images, "-l", address) as process:
        process.says(r"^serving \d+ images?", seconds=120)
        until(
            lambda: scr_watchd("status", images).stdout,
            lambda text: re.search(rf"\(of [^)]*uid {_ATTACKER}\)\n.*{named}", text),
            seconds=60,
        )
        # at rest: right after a publication another waits for `min_reload_seconds`, with or without attack
        until(
            lambda: json.loads(scr_watchd("status", images, "--json").stdout)["outcome"] == "unchanged",
            seconds=60,
        )
        aside = write_image(images.parent / "aside", image("mine"))
        give(aside, _VICTIM)
        aside.rename(images / "mine:1")
        began = time.monotonic()
        until(lambda: pulled(address), seconds=_PROMISED_SECONDS)
        print(f"{attack.__name__}: pulled after {time.monotonic() - began:.2f} s")  # noqa: T201 - with a failure
        assert scr_watchd("status", images).stdout.count(f"uid {_VICTIM}") == 0


def pulled(address: str) -> bool:
    """Whether the image can be had, with all that its manifest names."""
    answer = ask(address, "/v2/mine/manifests/1")
    if answer.status != 200:
        return False
    document = answer.json()
    digests = [each["digest"] for each in (document["config"], *document["layers"])]
    return all(digest_of(ask(address, f"/v2/mine/blobs/{each}").body) == each for each in digests)
