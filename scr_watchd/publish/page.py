"""The page for people as a file of the store: STORE/.page/NAME.html."""

import os
from contextlib import suppress
from pathlib import Path

from scr_watchd.files import make_directory, make_inside, open_directory, read_file, write_atomically

_DIRECTORY = ".page"
_SERVER_CONF_BYTES = 1 << 20


def keep(store: Path, name: str, content: bytes) -> None:
    """Have the page ``name`` in ``store``, whole; asked in each pass, as the store may be removed."""
    path = store / _DIRECTORY / f"{name}.html"
    with suppress(OSError):
        status = path.lstat()
        if (status.st_size, status.st_mtime, status.st_nlink) == (len(content), _moment(name), 1):
            return
    make_directory(store)
    make_inside(store, _DIRECTORY)
    write_atomically(path, content)
    os.utime(path, (_moment(name), _moment(name)), follow_symlinks=False)


def prune(store: Path, generations: Path) -> None:
    """Remove every page of ``store`` that none of ``generations`` names."""
    texts = []
    for each in generations.iterdir():
        with suppress(OSError):
            texts.append(read_file(each / "server.conf", limit=_SERVER_CONF_BYTES))
    with suppress(FileNotFoundError), open_directory(store) as opened:
        with open_directory(_DIRECTORY, within=opened) as directory:
            for file in os.listdir(directory):
                if not any(os.fsencode(file) in text for text in texts):
                    os.unlink(file, dir_fd=directory)
            is_empty = not os.listdir(directory)
        if is_empty:
            os.rmdir(_DIRECTORY, dir_fd=opened)


def _moment(name: str) -> int:
    """A modification time made of the content: nginx's ETag is that and the size, and replicas agree."""
    return 946_684_800 + int(name[:8], 16) % 631_152_000
