"""What others may have written is read by `files.read_regular`: bounded, no link, no FIFO, no device."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "scr_watchd"

_WAYS = {
    "open", "fdopen", "open_code", "read_text", "read_bytes", "mmap", "sendfile",
    "copy_file_range", "copyfile", "copyfileobj", "copy2", "copytree",
}  # fmt: skip

# Every other way to open or read a file, by module and function, and why it may.
ALLOWED = {
    "cli.main": "/dev/null, to write to",
    "commands/owner._find": "O_PATH: it opens without reading",
    "commands/places._ignored_by_git": "to write, O_EXCL",
    "commands/run._question": "the operator's credentials, named in the settings",
    "daemon/watch._count_watches": "/proc",
    "daemon/watch._Mounts.__init__": "/proc, to be told of changes",
    "files._open_or_make": "directories, O_NOFOLLOW",
    "files.create": "to write, O_EXCL",
    "files.mounts": "/proc",
    "files.open_directory": "directories; this is the way",
    "files.open_inside": "directories; this is the way to make them, too",
    "files.read_regular": "this is the way",
    "publish/hashing._hashing": "blobs of any size: regular files only, and a buffer of one size",
    "publish/holder.is_daemon": "/proc, so many bytes of it",
    "publish/holder.running": "the lock: regular files only, and twenty bytes",
    "publish/master._blocks_hang_up": "/proc",
    "publish/master._command": "/proc",
    "publish/master._stat": "/proc",
    "publish/master.worker_user": "/proc",
    "publish/nginx._text": "of the package",
    "publish/nginx.pid_file_of": "the operator's nginx.conf, which root's nginx reads too",
    "publish/place._probe": "to write, O_EXCL",
    "publish/place.lock": "the store's lock, which is not read",
    "publish/state._lock": "the lock: regular files only, and twenty bytes",
    "publish/batch._fsync_all": "what was written just now, which is not read",
    "publish/copying.mount_id": "/proc",
    "publish/placing.Placing._judged": "O_PATH: it opens without reading",
    "render/http_conf.static": "of the package",
    "render/page.page": "of the package",
    "settings._read": "the operator's settings",
}


def readers(tree: ast.AST, inside: str = "") -> Iterator[str]:
    """The functions below ``tree`` that open or read a file some other way."""
    for node in ast.iter_child_nodes(tree):
        here = inside
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            here = f"{inside}.{node.name}"
        if isinstance(node, ast.Name | ast.Attribute | ast.alias):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
            if isinstance(node, ast.alias):  # from os import open as look
                name = node.name
            if name in _WAYS:
                yield here
        yield from readers(node, here)


def test_only_a_few_functions_open_files_themselves() -> None:
    found = {
        f"{path.relative_to(PACKAGE).with_suffix('')}{function}"
        for path in PACKAGE.rglob("*.py")
        for function in readers(ast.parse(path.read_text()))
    }
    assert found - ALLOWED.keys() == set(), "use files.read_regular or read_file, or say why not"
    assert ALLOWED.keys() - found == set(), "these need no permission any more"


def test_no_way_to_open_a_file_is_overlooked() -> None:
    ways = (
        "open(p)", "io.open(p)", "os.open(p, 0)", "p.open()", "Path(p).read_text()", "read = p.read_bytes",
        "from os import open as look", "from shutil import copyfile", "os.fdopen(3)",
    )  # fmt: skip
    for way in ways:
        assert list(readers(ast.parse(f"def function():\n    {way}"))) == [".function"], way
