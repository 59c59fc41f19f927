"""From what is in the tree, and what was published before, to what is to be served. Pure."""

from collections.abc import Callable, Iterable

from scr_watchd.images.scan import Scan
from scr_watchd.oci.catalog import Catalog, CatalogBuilder, Image, Reference
from scr_watchd.oci.names import Digest, RepositoryName, Tag

StoredImage = Callable[[RepositoryName, Tag, Digest], Image | None]


def pins(
    scan: Scan,
    images: Iterable[Image],
    published: Catalog,
    *,
    stored: StoredImage,
    prefix: str,
) -> tuple[Image, ...]:
    """The published images that stay because the tree does not say otherwise.

    A tag whose directory is there without a complete image is being copied, or was broken; one below
    a directory that cannot be looked into may be anything. Either stays as it was published, as long
    as ``stored`` still has all of it, and so does one that was scanned and is not among ``images``:
    it changed before it was in the store. A tag whose directory is gone is gone.
    """
    present = {(image.repository, image.tag) for image in images}
    there = scan.unfinished | {(image.repository, image.tag) for image in scan.images}
    pinned = []
    for (name, tag), digest in published.tags().items():
        if (name, tag) in present:
            continue
        if (name, tag) in there or _is_hidden(name.removeprefix(prefix), tag, scan.hidden):
            image = stored(name, tag, digest)
            if image is not None:
                pinned.append(image)
    return tuple(pinned)


def catalog_of(images: Iterable[Image]) -> Catalog:
    """The catalog that has every tag and every manifest of ``images``."""
    builder = CatalogBuilder()
    for image in images:
        for manifest in image.manifests:
            builder.manifest(image.repository, manifest.digest, manifest.media_type)
        if image.tag is not None:
            builder.tag(image.repository, image.tag, image.digest)
    return builder.catalog()


def references(images: Iterable[Image]) -> tuple[Reference, ...]:
    return tuple((image.repository, image.tag) for image in images if image.tag is not None)


def _is_hidden(name: str, tag: str, hidden: Iterable[str]) -> bool:
    paths = (f"{name}/{tag}", f"{name}:{tag}")
    return any(not each or path == each or path.startswith(f"{each}/") for each in hidden for path in paths)
