"""The catalog is the same whatever the order in which the tree was read."""

from itertools import permutations

from scr_watchd.oci.catalog import Catalog, CatalogBuilder, Image, ManifestFile, Problem
from scr_watchd.oci.manifest import MediaType
from scr_watchd.oci.names import Digest, RepositoryName, Tag

A, B = (Digest.parse(f"sha256:{digit * 64}") for digit in "ab")
ALPINE, BUSYBOX = RepositoryName.parse("alpine"), RepositoryName.parse("busybox")


def test_everything_comes_out_in_ascii_order() -> None:
    """Tag lists must be in ASCII order: upper case before lower case."""
    builder = CatalogBuilder()
    for name in (BUSYBOX, ALPINE):
        builder.manifest(name, B, MediaType.OCI_MANIFEST)
        builder.manifest(name, A, MediaType.OCI_INDEX)
        for tag in ("b", "a", "_", "Z", "10", "9"):
            builder.tag(name, Tag.parse(tag), A)
    alpine, busybox = builder.catalog().repositories
    assert (alpine.name, busybox.name) == (ALPINE, BUSYBOX)
    assert list(alpine.tags) == ["10", "9", "Z", "_", "a", "b"]
    assert list(alpine.manifests) == [A, B]


def test_the_order_of_discovery_leaves_no_trace() -> None:
    def built(order: tuple[str, ...]) -> str:
        builder = CatalogBuilder()
        for tag in order:
            builder.tag(ALPINE, Tag.parse(tag), A)
            builder.manifest(ALPINE, A, MediaType.OCI_MANIFEST)
        return repr(builder.catalog())

    assert len({built(order) for order in permutations(("1", "2", "3"))}) == 1


def test_a_repository_of_digests_alone_has_no_tags() -> None:
    builder = CatalogBuilder()
    builder.manifest(ALPINE, A, MediaType.OCI_MANIFEST)
    catalog = builder.catalog()
    assert [repository.tags for repository in catalog.repositories] == [{}]
    assert catalog.tags() == {}


def test_tags_are_found_by_reference() -> None:
    builder = CatalogBuilder()
    builder.tag(ALPINE, Tag.parse("1"), B)
    builder.manifest(ALPINE, A, MediaType.OCI_MANIFEST)
    builder.manifest(ALPINE, B, MediaType.OCI_MANIFEST)
    assert builder.catalog().tags() == {(ALPINE, Tag.parse("1")): B}


def test_no_images_make_the_empty_catalog() -> None:
    assert CatalogBuilder().catalog() == Catalog()


def test_the_digest_of_an_image_is_that_of_its_first_manifest() -> None:
    files = tuple(ManifestFile(digest, MediaType.OCI_INDEX, 1, "manifest.json") for digest in (B, A))
    assert Image("alpine/1", ALPINE, None, files, ()).digest == B


def test_a_problem_reads_as_one_line() -> None:
    assert str(Problem("a/1", "it is empty", "Repeat it")) == "a/1: it is empty. Repeat it"
