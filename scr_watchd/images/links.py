"""Symbolic links in the tree: one is a tag if it leads to a tag directory inside the root."""

import errno
import os
import stat

from scr_watchd.images.findings import Findings
from scr_watchd.images.moves import is_image
from scr_watchd.images.reference import RefusedError
from scr_watchd.words import printable, shell


def target(path: str, root: str, found: Findings) -> str | None:
    """Where the link ``path`` leads, relative to ``root``, which has no link in it; ``None`` if that is no
    directory. Raises ``RefusedError`` if it leads to nothing, or out of the root."""
    link = f"{root}/{path}"
    try:
        # first: the kernel refuses a chain of 41 links, which realpath would follow by recursion
        is_directory = stat.S_ISDIR(os.stat(link).st_mode)
        real = os.path.realpath(link)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        found.is_unfinished_path(path)
        raise RefusedError(
            "it is a symbolic link to nothing", f"Remove it: rm {shell(found.full(path))}"
        ) from None
    if not is_directory:
        return None
    if not f"{real}/".startswith(f"{root}/"):
        shown = shell(found.full(path))
        raise RefusedError(
            f"it is a symbolic link out of the images directory, to {printable(real)}",
            f"Copy the image instead: rm {shown} && cp -r {shell(real)} {shown}"
            if is_image(real)
            else f"Remove it: rm {shown}",
        )
    return os.path.relpath(real, root)


def to_layout(link: str, layout: str) -> RefusedError:
    """A link to a whole layout; both are paths as messages show them."""
    return RefusedError(
        "it is a symbolic link to an OCI layout, which is a repository; only a tag may be one",
        f"Give the image another tag in its layout instead: rm {shell(link)}; skopeo "
        f"copy --all {shell(f'oci:{layout}:TAG')} {shell(f'oci:{layout}:NEW')}",
    )


def to_repository() -> RefusedError:
    return RefusedError(
        "it is a symbolic link to a repository; only a tag may be one",
        "Link each tag by itself: ln -s ../OLD/TAG NEW/TAG",
    )
