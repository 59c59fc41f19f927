"""Makes the screenshots of the documentation: python -m tests.browser. It needs pngquant too."""

import subprocess
import tempfile
from pathlib import Path

from tests.browser import showcase
from tests.browser.chrome import PHONE, WIDE, chrome
from tests.daemons import daemon, free_port
from tests.http import ask

_DOCS = Path(__file__).parents[2] / "docs"
_SHOTS = (
    ("page-tags-light", WIDE, "light", "#/platform/ledger", "arm/v7"),
    ("page-image-dark", (1280, 1640), "dark", "#/platform/ledger:2.11.2", "Attestations"),
    ("page-phone-tags-dark", PHONE, "dark", "#/platform/ledger", "46 MB"),
    ("page-phone-image-light", PHONE, "light", "#/platform/ledger:2.11.2", "Attestations"),
)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="scrshots") as name, chrome() as browser:
        Path(name).chmod(0o755)
        root = showcase.make(Path(name) / "images")
        port = free_port()
        with daemon("serve", root, "--verify", "size", "--listen", port, "--rescan-seconds", 3600) as running:
            running.says("serving .* 27 repositories", seconds=60)
            browser.base = f"http://127.0.0.1:{port}"
            _lose_a_platform(root, port)
            for shot, size, scheme, place, words in _SHOTS:
                browser.size(*size)
                browser.colours(scheme)
                browser.open(place)
                browser.says(words)
                # what tells of this run, and no reader's
                browser.run("document.activeElement.blur()")
                raw = Path(name) / f"{shot}.png"
                browser.driver.save_screenshot(str(raw))
                subprocess.run(
                    ["pngquant", "--force", "--strip", "--output", str(_DOCS / raw.name), "64", str(raw)],
                    check=True,
                )


def _lose_a_platform(root: Path, port: int) -> None:
    """Make one platform of an index absent, as where a part of it was copied."""
    children = ask(f"127.0.0.1:{port}", "/v2/platform/ledger/manifests/2.11.2").json()["manifests"]
    (digest,) = (each["digest"] for each in children if each["platform"].get("variant") == "v7")
    store = root / ".scr-watchd" / "store" / "platform" / "ledger" / ".manifests"
    for file in store.glob(f"*/{digest[7:]}"):
        file.unlink()


if __name__ == "__main__":
    main()
