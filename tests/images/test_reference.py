"""What a directory's place in the tree says, and the command that mends one that says nothing."""

import pytest

from scr_watchd.images.reference import Place, RefusedError, place
from scr_watchd.oci.names import Digest, RepositoryName, Tag

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("path", "repository", "tag"),
    [
        pytest.param("alpine/3.20", "alpine", "3.20", id="name and tag"),
        pytest.param("library/alpine/3.20", "library/alpine", "3.20", id="two parts and tag"),
        pytest.param("a/b/c/d/RC1", "a/b/c/d", "RC1", id="many parts and tag"),
        pytest.param("alpine:3.20", "alpine", "3.20", id="leaf with colon"),
        pytest.param("library/alpine:3.20", "library/alpine", "3.20", id="leaf with colon, below"),
    ],
)
def test_a_path_names_a_repository_and_a_tag(path: str, repository: str, tag: str) -> None:
    assert place(path) == Place(RepositoryName(repository), Tag(tag))


@pytest.mark.parametrize(
    ("path", "repository"),
    [
        pytest.param(f"alpine@{DIGEST}", "alpine", id="in the root"),
        pytest.param(f"library/alpine@{DIGEST}", "library/alpine", id="below"),
    ],
)
def test_a_leaf_may_have_a_digest_and_no_tag(path: str, repository: str) -> None:
    assert place(path) == Place(RepositoryName(repository), None, Digest(DIGEST))


def test_a_prefix_goes_before_the_repository() -> None:
    assert place("alpine/3.20", prefix="mirror/").repository == "mirror/alpine"
    assert place("alpine:3.20", prefix="mirror/").repository == "mirror/alpine"


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        pytest.param("3.20", "Rename it: mv /images/3.20 /images/3.20:latest", id="no repository"),
        pytest.param("Alpine/3.20", "Rename it: mv /images/Alpine /images/alpine", id="upper case directory"),
        pytest.param("a/Bee/c/1", "Rename it: mv /images/a/Bee /images/a/bee", id="upper case, deep"),
        pytest.param(
            "Alpine:RC1", "Rename it: mv /images/Alpine:RC1 /images/alpine:RC1", id="upper case leaf"
        ),
        pytest.param(
            "localhost:5000/lib/alpine:3.9",
            "Rename it: mv /images/localhost:5000 /images/localhost_5000",
            id="HOST:PORT of skopeo sync",
        ),
        pytest.param(
            "My Image/1",
            "Rename it: mkdir -p /images && mv '/images/My Image/1' /images/my-image:1",
            id="space",
        ),
        pytest.param(
            "alpine/a+b",
            "Rename it: mkdir -p /images && mv /images/alpine/a+b /images/alpine:a_b",
            id="a tag of Helm",
        ),
    ],
)
def test_a_path_that_is_no_reference_comes_with_the_command_that_mends_it(path: str, remedy: str) -> None:
    with pytest.raises(RefusedError) as refused:
        place(path, root="/images")
    assert refused.value.remedy == remedy


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("alpine:", id="empty tag"),
        pytest.param(":3.20", id="empty name"),
        pytest.param("alpine/:3.20", id="empty last part"),
        pytest.param("a:1:2", id="two colons"),
        pytest.param("a:1/2", id="tag below a leaf"),
        pytest.param("alpine@", id="empty digest"),
        pytest.param(f"@{DIGEST}", id="digest without name"),
        pytest.param(f"alpine@{DIGEST[:-1]}", id="short digest"),
        pytest.param("alpine@sha256:../../etc/passwd", id="a path for a digest"),
        pytest.param(f"alpine:1@{DIGEST}", id="tag and digest"),
        pytest.param("alpine/3.20\n", id="newline"),
        pytest.param("alpine\n/3.20", id="newline in the repository"),
        pytest.param("alpine/\N{ARABIC-INDIC DIGIT THREE}", id="arabic digit"),
        pytest.param("alpine/\udcff", id="a byte that is no UTF-8"),
        pytest.param('a"b/1', id="quote"),
        pytest.param("a$b/1", id="dollar"),
        pytest.param(f"{'a' * 256}/1", id="long name"),
        pytest.param(f"a/{'1' * 129}", id="long tag"),
    ],
)
def test_what_is_no_reference_is_refused_in_one_printable_line(path: str) -> None:
    with pytest.raises(RefusedError) as refused:
        place(path, root="/images")
    for text in (refused.value.reason, refused.value.remedy):
        assert text.isascii()
        assert text.isprintable()
