"""Paths and commands that a terminal shows and a shell understands, whatever a name holds."""

import os
import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scr_watchd.words import printable, shell

ONE_LINE = re.compile(r"[ -~]*")
file_names = st.binary(max_size=30).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("library/alpine:3.20", "library/alpine:3.20", id="as it is"),
        pytest.param("a b'c\"d$e", "a b'c\"d$e", id="ASCII of every kind"),
        pytest.param("a\nb", r"a\x0ab", id="newline"),
        pytest.param("\x1b[2J", r"\x1b[2J", id="terminal escape"),
        pytest.param("ä", r"\xc3\xa4", id="umlaut"),
        pytest.param("\udcff", r"\xff", id="a byte that is no UTF-8"),
        pytest.param("a\\x0ab", r"a\x5cx0ab", id="what looks escaped already"),
        pytest.param("\N{RIGHT-TO-LEFT OVERRIDE}", r"\xe2\x80\xae", id="text direction"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_text_is_shown_as_one_line_of_ascii(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "word"),
    [
        pytest.param("/srv/images/alpine:3.20", "/srv/images/alpine:3.20", id="as it is"),
        pytest.param("a b", "'a b'", id="space"),
        pytest.param("$(reboot)", "'$(reboot)'", id="command substitution"),
        pytest.param("a\nb", r"$'a\x0ab'", id="newline"),
        pytest.param("it's\n", r"$'it\'s\x0a'", id="quote and newline"),
        pytest.param("", "''", id="nothing"),
    ],
)
def test_text_is_quoted_for_a_shell(text: str, word: str) -> None:
    assert shell(text) == word


@settings(max_examples=100, deadline=None, database=None)
@given(st.lists(file_names, min_size=1, max_size=10))
def test_a_shell_reads_back_every_name(names: list[str]) -> None:
    words = [shell(name) for name in names]
    assert all(ONE_LINE.fullmatch(word) for word in words)
    read = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {' '.join(words)}"], capture_output=True, check=True
    )
    assert read.stdout.split(b"\0")[:-1] == [os.fsencode(name) for name in names]


@settings(max_examples=100, deadline=None, database=None)
@given(file_names, file_names)
def test_two_names_never_look_alike(one: str, other: str) -> None:
    assert ONE_LINE.fullmatch(printable(one))
    assert (printable(one) == printable(other)) == (one == other)
