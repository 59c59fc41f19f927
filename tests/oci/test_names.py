"""What is a name, a tag and a digest, and what only looks like one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scr_watchd.oci.names import NAME_LENGTH, Digest, RepositoryName, Tag

HEX = "0123456789abcdef" * 4
ALPHABET = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:")
anything = st.text(st.one_of(st.characters(), st.sampled_from("aZ0._-/:@")), max_size=40)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("alpine", id="one part"),
        pytest.param("library/alpine", id="two parts"),
        pytest.param("a/b/c/d/e/f", id="many parts"),
        pytest.param("0/1", id="digits only"),
        pytest.param("a.b/c_d/e__f/g---h", id="every separator"),
        pytest.param("a" * NAME_LENGTH, id="the longest"),
    ],
)
def test_a_repository_name_is_taken_as_it_is(text: str) -> None:
    assert RepositoryName.parse(text) == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("Alpine", id="upper case"),
        pytest.param("/alpine", id="leading slash"),
        pytest.param("alpine/", id="trailing slash"),
        pytest.param("a//b", id="empty part"),
        pytest.param("..", id="parent directory"),
        pytest.param("a/../b", id="parent directory inside"),
        pytest.param(".a", id="leading dot"),
        pytest.param("a-", id="trailing dash"),
        pytest.param("a..b", id="two dots"),
        pytest.param("a___b", id="three underscores"),
        pytest.param("a._b", id="two separators"),
        pytest.param("alpine\n", id="trailing newline"),
        pytest.param("al\npine", id="newline"),
        pytest.param("alpine:1", id="with a tag"),
        pytest.param("localhost:5000/alpine", id="with a port"),
        pytest.param("\N{ARABIC-INDIC DIGIT ONE}", id="arabic digit"),
        pytest.param("ä", id="umlaut"),
        pytest.param("\N{FULLWIDTH LATIN SMALL LETTER M}", id="full width letter"),
        pytest.param("a$b", id="dollar"),
        pytest.param('a"b', id="quote"),
        pytest.param("a b", id="space"),
        pytest.param("a;b", id="semicolon"),
        pytest.param("a\0b", id="nul"),
        pytest.param("a\udcffb", id="a byte that is no UTF-8"),
        pytest.param("a" * (NAME_LENGTH + 1), id="too long"),
    ],
)
def test_what_is_no_repository_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a repository name has"):
        RepositoryName.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("latest", id="word"),
        pytest.param("3.20", id="number"),
        pytest.param("RC1", id="upper case"),
        pytest.param("_", id="underscore"),
        pytest.param("v1.0--x__y..", id="separators anywhere but first"),
        pytest.param(f"sha256-{HEX}.sig", id="a signature of cosign"),
        pytest.param("t" * 128, id="the longest"),
    ],
)
def test_a_tag_is_taken_as_it_is(text: str) -> None:
    assert Tag.parse(text) == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(".", id="dot"),
        pytest.param("..", id="parent directory"),
        pytest.param("-rf", id="leading dash"),
        pytest.param("a/b", id="slash"),
        pytest.param("a:b", id="colon"),
        pytest.param("a+b", id="plus"),
        pytest.param("latest\n", id="trailing newline"),
        pytest.param("\N{ARABIC-INDIC DIGIT THREE}", id="arabic digit"),
        pytest.param("é", id="accent"),
        pytest.param("$tag", id="dollar"),
        pytest.param("a'b", id="quote"),
        pytest.param("a b", id="space"),
        pytest.param("\udcff", id="a byte that is no UTF-8"),
        pytest.param("t" * 129, id="too long"),
    ],
)
def test_what_is_no_tag_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a tag has 1 to 128"):
        Tag.parse(text)


@pytest.mark.parametrize("text", [f"sha256:{HEX}", f"sha512:{HEX}{HEX}"], ids=["sha256", "sha512"])
def test_a_digest_has_an_algorithm_and_hex_digits(text: str) -> None:
    digest = Digest.parse(text)
    assert f"{digest.algorithm}:{digest.hex}" == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(HEX, id="no algorithm"),
        pytest.param(f"md5:{HEX[:32]}", id="unknown algorithm"),
        pytest.param(f"sha256:{HEX[1:]}", id="too short"),
        pytest.param(f"sha256:{HEX}0", id="too long"),
        pytest.param(f"sha512:{HEX}", id="half a sha512"),
        pytest.param(f"sha256:{HEX.upper()}", id="upper case"),
        pytest.param(f"SHA256:{HEX}", id="upper case algorithm"),
        pytest.param(f"sha256:{HEX}\n", id="trailing newline"),
        pytest.param(f"sha256:{HEX[1:]}\N{ARABIC-INDIC DIGIT ONE}", id="arabic digit"),
        pytest.param("sha256:../../etc/passwd", id="a path"),
        pytest.param(f"sha256-{HEX}", id="dash for colon"),
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a digest is"):
        Digest.parse(text)


@settings(max_examples=100, deadline=None, database=None)
@given(anything)
def test_what_passes_needs_no_quoting_anywhere(text: str) -> None:
    for kind in (RepositoryName, Tag, Digest):
        try:
            parsed = kind.parse(text)
        except ValueError:
            continue
        assert parsed == text
        assert set(parsed) <= ALPHABET
        assert ".." not in parsed.split("/")
