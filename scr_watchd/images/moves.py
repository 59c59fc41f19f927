"""The commands that move an image and nothing else: what is good beside or below it must stay where it is."""

import os

from scr_watchd.words import shell

LAYOUT = ("oci-layout", "index.json", "blobs")


def free(path: str) -> str:
    """``path``, or what is like it and not there: ``PATH-2``."""
    number, wanted = 1, path
    while os.path.lexists(wanted):
        number += 1
        wanted = f"{path}-{number}"
    return wanted


def is_image(path: str) -> bool:
    return any(_is_file(f"{path}/{name}") for name in ("manifest.json", LAYOUT[0]))


def _is_file(path: str) -> bool:
    """A directory of that name is a tag."""
    return os.path.lexists(path) and not os.path.isdir(path)


def has_others(path: str) -> bool:
    """Whether other directories, which may be images, lie in that of an image."""
    try:
        with os.scandir(path) as entries:
            names = {each.name for each in entries if not each.is_file(follow_symlinks=False)}
    except OSError:
        return False
    own = {LAYOUT[-1]} if _is_file(f"{path}/{LAYOUT[0]}") else set()
    return any(not name.startswith(".") for name in names - own)


def have_in_common(one: str, two: str) -> bool:
    """Whether something in two directories has the same name, so that they cannot become one."""
    try:
        return one != two and not set(os.listdir(one)).isdisjoint(os.listdir(two))
    except OSError:
        return False


def move(path: str, target: str) -> str:
    """The command that moves the image at ``path`` to ``target``, which is free."""
    parent = os.path.dirname(target)
    begin = (
        "" if parent == os.path.dirname(path) or os.path.isdir(parent) else f"mkdir -p {shell(parent)} && "
    )
    if os.path.islink(path) or not has_others(path):
        return f"{begin}mv {shell(path)} {shell(target)}"
    begin = f"mkdir -p {shell(target)} && "
    if _is_file(f"{path}/{LAYOUT[0]}"):
        return f"{begin}mv {' '.join(shell(f'{path}/{each}') for each in LAYOUT)} {shell(target)}"
    return f"{begin}find {shell(path)} -maxdepth 1 -type f ! -name '.*' -exec mv -t {shell(target)} {{}} +"
