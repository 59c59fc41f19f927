"""The text of `scr-watchd generate`: the same for equal trees, and understood by a real nginx.

SCR_WATCHD_UPDATE_GOLDEN=1 pytest tests/render/test_single_file.py   writes tests/golden/ anew; read its diff.
"""

import os
import random
import re
import time
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scr_watchd.oci.catalog import Image, ManifestFile
from scr_watchd.oci.manifest import Descriptor, MediaType
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.render import single_file
from scr_watchd.render.single_file import LONGEST_NAME, ServerRoot, constants, trees
from tests.nginxes import binaries, nginx_with

GOLDEN = Path(__file__).parent.parent / "golden"
TOKEN_BYTES = 4095
LONG = ("x" * 200 + "/" + "y" * 200)[:LONGEST_NAME]


def digest(seed: str) -> Digest:
    return Digest(f"sha256:{sha256(seed.encode()).hexdigest()}")


def image(
    name: str, tag: str | None, *kinds: MediaType, path: str = "", blobs: Iterable[Digest] = ()
) -> Image:
    """An image whose manifests are of ``kinds``; nothing of it needs to exist."""
    path = path or f"{name}:{tag}"
    manifests = [
        ManifestFile(
            digest(f"{name}:{tag} {number}"),
            kind,
            2,
            f"{number}.manifest.json" if number else "manifest.json",
        )
        for number, kind in enumerate(kinds or [MediaType.OCI_MANIFEST])
    ]
    return Image(
        path,
        RepositoryName.parse(name),
        None if tag is None else Tag.parse(tag),
        tuple(manifests),
        tuple(Descriptor(each, 1) for each in blobs),
    )


def small() -> list[Image]:
    """One of everything that is rendered in a way of its own."""
    layer = digest("layer")
    return [
        image("alpine", "3.20", MediaType.DOCKER_MANIFEST, blobs=[digest("config"), layer]),
        image("alpine", "RC1", blobs=[layer, Digest(f"sha512:{'a1' * 64}")]),
        image("alpine", "latest", MediaType.OCI_INDEX, MediaType.OCI_INDEX, MediaType.OCI_MANIFEST),
        image("alpine/manifests", "list", MediaType.DOCKER_LIST, MediaType.DOCKER_MANIFEST),
        image("by-digest/only", None, path='.it\'s "odd"; {really} \\'),
        image("long/" + "name" * 40, f"sha256-{digest('signed').hex}.sig"),
    ]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("single.conf", trees(small(), server_root=ServerRoot.parse("/srv/images"), shown="/x")),
        (
            "single.variable.conf",
            trees(small()[:1], server_root=ServerRoot.parse("$registry_root/an odd 'one'/"), shown="/x"),
        ),
        ("single.empty.conf", trees([], server_root=ServerRoot.parse("/"), shown="/")),
    ],
)
def test_the_text_is_the_one_that_was_reviewed(name: str, found: tuple[bytes, tuple[object, ...]]) -> None:
    text, problems = found
    assert problems == ()
    if os.environ.get("SCR_WATCHD_UPDATE_GOLDEN"):
        (GOLDEN / name).write_bytes(text)
    assert text == (GOLDEN / name).read_bytes()


def test_equal_trees_have_equal_bytes() -> None:
    images = [image(f"group/{name}", str(tag)) for name in "abc" for tag in range(20)]
    first = trees(images, server_root=ServerRoot.parse("/srv"), shown="/srv")
    for seed in range(5):
        random.Random(seed).shuffle(images)
        assert trees(images, server_root=ServerRoot.parse("/srv"), shown="/srv") == first


@pytest.mark.parametrize(
    ("text", "variable", "path"),
    [
        ("/srv/images", "", "/srv/images"),
        ("/srv/images//", "", "/srv/images"),
        ("/", "", ""),
        ("$registry_root", "registry_root", ""),
        ("${registry_root}", "registry_root", ""),
        ("$registry_root/", "registry_root", ""),
        ("${a}/b c/", "a", "/b c"),
    ],
)
def test_a_server_root_is_a_path_or_begins_with_a_variable(text: str, variable: str, path: str) -> None:
    assert ServerRoot.parse(text) == ServerRoot(variable, path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "images",
        "./images",
        "$",
        "${}",
        "${a",
        "$a}",
        "$a b",
        "$a.b",
        "/$a",
        "$a/$b",
        "$ä",
        "/a\nb",
        "$a/\n",
    ],
)
def test_what_is_no_server_root(text: str) -> None:
    with pytest.raises(ValueError, match=r"nginx"):
        ServerRoot.parse(text)


def test_locations_are_in_the_order_in_which_nginx_keeps_them() -> None:
    """It sorts them by insertion: 3,000 in another order take seconds at every start and reload."""
    names = ["a", "a/b", "a-b", "a.b", "a/manifests", "ab", "a/b/c"]
    images = [image(name, tag) for name in names for tag in ("1", "A", "a", "1.0", "1-0", "_")]
    text = trees(images, server_root=ServerRoot.parse("/srv"), shown="/srv")[0].decode()
    for indent in ("", "    "):
        found = re.findall(rf"^{indent}(location|\}})(?: \S+ (\S+) {{)?$", text, re.MULTILINE)
        run: list[str] = []
        for kind, uri in found:
            if kind == "location":
                run.append(uri.replace("/", "\0"))
            elif indent:
                assert run == sorted(run)
                run = []
        assert run == sorted(run)


# -- a real nginx --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=binaries())
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param())


def test_a_list_of_any_length_is_put_together(program: str) -> None:
    lengths = [0, 1, 300, 5_000, 50_000]
    lists = {length: [f"item-{number:06}" for number in range(length)] for length in lengths}
    texts = {length: single_file._list("whole", items) for length, items in lists.items()}
    assert all(len(line) < TOKEN_BYTES for text in texts.values() for line in text.splitlines())
    assert max(len(text.splitlines()) for text in texts.values()) > 16 * 16 / 2, "several levels"
    server = "".join(
        f"location = /{length} {{ {text} return 200 '[$whole]'; }}" for length, text in texts.items()
    )
    with nginx_with("", server, program=program) as nginx:
        for length, items in lists.items():
            assert nginx.ask(f"/{length}").json() == items
        assert "variables_hash" not in (nginx.directory / "stderr").read_text()


WORDS = [
    "a",
    "b",
    "manifests",
    "blobs",
    "tags",
    "list",
    "v2",
    "default",
    "a-b",
    "a.b",
    "a__b",
    "sha256",
    LONG,
]
names = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map("/".join) | st.from_regex(
    r"\A[a-z0-9]{1,9}([._-][a-z0-9]{1,9}){0,3}\Z"
)
tags = st.sampled_from(["list", "manifests", "1", "A", "a", "sha256", "t" * 128]) | st.from_regex(
    r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z"
)
repositories = st.dictionaries(
    names.filter(lambda name: len(name) <= LONGEST_NAME), st.sets(tags, min_size=1, max_size=8), max_size=8
)


@pytest.mark.slow
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tree=repositories, unknown=names, variable=st.sampled_from(["", "$root"]))
def test_any_tree_is_read_by_nginx_and_lists_its_tags(
    tmp_path: Path, program: str, tree: dict[str, set[str]], unknown: str, variable: str
) -> None:
    """All images lie in one directory: whose they are is told by the digest in the headers."""
    (tmp_path / "one").mkdir(exist_ok=True)
    (tmp_path / "one" / "manifest.json").write_bytes(b"{}")
    images = [image(name, tag, path="one") for name, tags in tree.items() for tag in tags]
    root = ServerRoot.parse(variable or str(tmp_path))
    text, problems = trees(images, server_root=root, shown="")
    assert not problems
    files = {"registry.conf": text + constants()}
    server = f"set $root '{tmp_path}'; include registry.conf;"
    with nginx_with("", server, files=files, program=program) as nginx:
        assert nginx.ask("/v2/_catalog").json() == {"repositories": sorted(tree)}
        for name, found in tree.items():
            assert nginx.ask(f"/v2/{name}/tags/list").json() == {"name": name, "tags": sorted(found)}
            for tag in found:
                expected = digest(f"{name}:{tag} 0")
                for reference in (tag, expected):
                    answer = nginx.ask(f"/v2/{name}/manifests/{reference}")
                    assert (answer.status, answer.header("Docker-Content-Digest")) == (200, expected)
            assert nginx.ask(f"/v2/{name}/manifests/no-such-tag").code == "MANIFEST_UNKNOWN"
            assert nginx.ask(f"/v2/{name}/blobs/{digest('nothing')}").code == "BLOB_UNKNOWN"
        if unknown not in tree and len(unknown) <= 255:
            assert nginx.ask(f"/v2/{unknown}/tags/list").code == "NAME_UNKNOWN"
            assert nginx.ask(f"/v2/{unknown}/manifests/no-such-tag").status == 404


def test_how_long_nginx_takes_for_three_thousand_tags() -> None:
    """Reported and not asserted: `pytest tests/render/test_single_file.py -k how_long -s -n 0` shows it."""
    images = [
        image(
            f"project-{number % 100}",
            f"{number}",
            blobs=[digest(f"{layer} of {number}") for layer in ("config", "one", "two")],
        )
        for number in range(3000)
    ]
    text = trees(images, server_root=ServerRoot.parse("/srv/images"), shown="")[0] + constants()
    before = time.monotonic()
    with nginx_with("", "include registry.conf;", files={"registry.conf": text}) as nginx:
        seconds = time.monotonic() - before
        status = Path(f"/proc/{nginx.process.pid}/status").read_text()
        rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        assert len(nginx.ask("/v2/project-7/tags/list").json()["tags"]) == 30
    print(f"3,000 tags: {len(text) / 1e6:.1f} MB, nginx up in {seconds:.2f} s, with {rss / 1024:.0f} MB")  # noqa: T201
