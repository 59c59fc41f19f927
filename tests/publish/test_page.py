"""The page as a file of the store."""

import os
from pathlib import Path

import pytest

from scr_watchd.files import NotOursError
from scr_watchd.publish import page

NAME, OTHER = "a" * 64, "b" * 64


def generation(directory: Path, name: str, text: str) -> None:
    (directory / name).mkdir(parents=True)
    (directory / name / "server.conf").write_text(text)


def there(store: Path) -> list[str]:
    return sorted(each.name for each in (store / ".page").iterdir())


def test_it_is_written_once_and_mended(tmp_path: Path) -> None:
    page.keep(tmp_path / "store", NAME, b"page")
    file = tmp_path / "store" / ".page" / f"{NAME}.html"
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"page", 0o644)
    before = file.stat()
    page.keep(tmp_path / "store", NAME, b"page")
    assert file.stat() == before, "nothing was written"
    file.write_bytes(b"else")
    page.keep(tmp_path / "store", NAME, b"page")
    assert file.read_bytes() == b"page"
    file.unlink()
    (tmp_path / "elsewhere").write_bytes(b"mine")
    file.symlink_to(tmp_path / "elsewhere")
    page.keep(tmp_path / "store", NAME, b"page")
    assert file.read_bytes() == b"page"
    assert not file.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"


def test_it_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store" / ".page").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotOursError):
        page.keep(tmp_path / "store", NAME, b"page")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_only_pages_that_a_generation_names_stay(tmp_path: Path) -> None:
    store, generations = tmp_path / "store", tmp_path / "generations"
    page.keep(store, NAME, b"page")
    page.keep(store, OTHER, b"another")
    generation(generations, "now", f"try_files /{NAME}.html")
    generation(generations, "before", f"try_files /{OTHER}.html")
    page.prune(store, generations)
    assert there(store) == [f"{NAME}.html", f"{OTHER}.html"]
    (generations / "before" / "server.conf").write_text("of a version without a page")
    page.prune(store, generations)
    assert there(store) == [f"{NAME}.html"]
    (generations / "now" / "server.conf").write_text("browse is off")
    page.prune(store, generations)
    assert not (store / ".page").exists()
    page.prune(store, generations)
