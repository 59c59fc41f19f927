"""What people drop that is not an image in place, and the command that would have been right."""

import os
from collections.abc import Container

from scr_watchd.images.moves import free
from scr_watchd.images.reference import RefusedError, is_name, is_tag
from scr_watchd.words import shell

LAYER = "layer.tar"
"""A file of each directory in an unpacked archive of ``docker save``."""

MANIFEST, LAYOUT = "manifest.json", "oci-layout"
_MANY_DIRECTORIES = 1000

_UNPACK = {
    ".tar": "",
    ".tar.gz": "gunzip",
    ".tgz": "gunzip",
    ".tar.bz2": "bunzip2",
    ".tar.xz": "unxz",
    ".tar.zst": "unzstd --rm -q",
}


_DECODE = {
    "gzip, not JSON": "gunzip",
    "zstd, not JSON": "unzstd",
    "JSON with a byte order mark, which must go": "tail -c +4",
    "UTF-16, not UTF-8": "iconv -f UTF-16 -t UTF-8",
}


def is_archive(raw: bytes) -> bool:
    """Whether a manifest.json is that of ``docker save``: a list, and no manifest."""
    return raw.lstrip().startswith(b"[") and b'"RepoTags"' in raw


def is_called_archive(file: str) -> bool:
    return file.endswith(tuple(_UNPACK)) and file != LAYER


def unpacked(path: str) -> RefusedError:
    """What ``docker save`` wrote, unpacked in ``path``."""
    parent, _, leaf = path.rpartition("/")
    new = free(f"{parent}/.new")
    target = path if ":" in leaf else free(f"{path}:latest")
    reason = "it is an archive of docker save, unpacked"
    if _has_images(path):
        return RefusedError(reason, "Move it away by hand, since other images lie in it")
    return RefusedError(
        reason,
        f"Convert it: tar -cC {shell(path)} -f {shell(f'{new}.tar')} . && "
        f"skopeo copy {shell(f'docker-archive:{new}.tar')} {shell(f'dir:{new}')} && "
        f"rm -r {shell(path)} {shell(f'{new}.tar')} && mv {shell(new)} {shell(target)}",
    )


def _has_images(path: str) -> bool:
    """Whether an image lies somewhere below a directory; also if that takes too long to say."""
    for number, (below, _, files) in enumerate(os.walk(path)):
        if number > _MANY_DIRECTORIES or (below != path and not {MANIFEST, LAYOUT}.isdisjoint(files)):
            return True
    return False


def not_json(file: str, what: str, copy: str) -> RefusedError:
    """What is wrong with ``file``, which is ``what`` no copy under way has; ``copy`` makes it anew."""
    unpack = _DECODE.get(what)
    name, new = os.path.basename(file), f"{os.path.dirname(file)}/.{os.path.basename(file)}.new"
    return RefusedError(
        f"{name} cannot be used: it is {what}",
        f"Unpack it: {unpack} <{shell(file)} >{shell(new)} && "
        f"chmod --reference={shell(file)} {shell(new)} && mv {shell(new)} {shell(file)}"
        if unpack
        else f"Copy it again: {copy}",
    )


def archive(path: str, beside: Container[str]) -> RefusedError | None:
    """What is wrong with a file, if it is an archive by its name; ``beside`` are the names beside it.

    Which kind of archive only its bytes would tell: the command tries both.
    """
    parent, _, file = path.rpartition("/")
    if not is_called_archive(file):
        return None
    ending = next(each for each in _UNPACK if file.endswith(each))
    stem = file.removesuffix(ending)
    name, _, tag = stem.partition(":")
    name = name.lower() if is_name(name.lower()) else "image"
    tags = (tag, "latest", "new", "newer", "TAG") if is_tag(tag) else ("latest", "new", "newer", "TAG")
    target = shell(f"dir:{parent}/{name}:{next(each for each in tags if f'{name}:{each}' not in beside)}")
    plain = f"{parent}/{stem}.tar"
    prepare = f"{_UNPACK[ending]} {shell(path)} && " if _UNPACK[ending] else ""
    if ":" in stem:  # which skopeo would take for the beginning of a reference
        colon, plain = plain, f"{parent}/{stem.replace(':', '-')}.tar"
        prepare += f"mv -n {shell(colon)} {shell(plain)} && "
    return RefusedError(
        "it is an archive, and images are directories",
        f"Copy the image out of it: {prepare}"
        f"skopeo copy --all {shell(f'oci-archive:{plain}')} {target} || "
        f"skopeo copy {shell(f'docker-archive:{plain}')} {target} && rm {shell(plain)}",
    )


def in_the_root(root: str) -> RefusedError:
    """An image whose files lie in the images directory itself."""
    target = free(f"{root}/image:latest")
    return RefusedError(
        "an image lies in the root itself, without repository and tag",
        f"Give it a name, such as {os.path.basename(target)}: mkdir {shell(target)} && "
        f"find {shell(root)} -maxdepth 1 -type f ! -name '.*' -exec mv -t {shell(target)} {{}} +",
    )


def layout_in_the_root(root: str) -> RefusedError:
    """An OCI layout that is the images directory itself."""
    target = free(f"{root}/image")
    files = " ".join(shell(f"{root}/{name}") for name in ("oci-layout", "index.json", "blobs"))
    return RefusedError(
        "an OCI layout lies in the root itself, without repository",
        f"Give it a name, such as {os.path.basename(target)}: "
        f"mkdir {shell(target)} && mv {files} {shell(target)}",
    )
