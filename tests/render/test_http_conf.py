"""The text of http.conf: the same for equal trees, within nginx's limits, and understood by a real nginx.

SCR_WATCHD_UPDATE_GOLDEN=1 pytest tests/render/test_http_conf.py   writes tests/golden/ anew; read its diff.
"""

import os
import random
import re
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scr_watchd.oci.catalog import Catalog, CatalogBuilder, Referrer, Repository
from scr_watchd.oci.manifest import MediaType, Referral
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.render import quote
from scr_watchd.render.http_conf import Fragment, Rendered, fixed, fragments_of, initial, render, static
from scr_watchd.render.lists import page_maps
from tests.nginxes import binaries, nginx_with
from tests.render.site import catalog_with, serving, site, store_of
from tests.trees import digest_of, image

GOLDEN = Path(__file__).parent.parent / "golden"

KEY_BYTES = 46  # what nginx's own map_hash_bucket_size of 64 holds
TOKEN_BYTES = 4095


def digest(seed: str) -> Digest:
    return Digest(f"sha256:{sha256(seed.encode()).hexdigest()}")


def small() -> Catalog:
    """One of everything that is rendered in a way of its own."""
    docker, oci, several, index = map(digest, ("docker", "oci", "list", "index"))
    long_name = "registry.example.org/a-team/with-a-name/of-more-than-45-characters"
    return Catalog(
        (
            Repository(
                RepositoryName("alpine"),
                {Tag("3.20"): docker, Tag("RC1"): oci, Tag("latest"): index, Tag("rc1"): several},
                {
                    docker: MediaType.DOCKER_MANIFEST,
                    oci: MediaType.OCI_MANIFEST,
                    several: MediaType.DOCKER_LIST,
                    index: MediaType.OCI_INDEX,
                },
                {oci: Referrer(644, Referral(docker, "application/spdx+json", {"it's": "$1"}))},
            ),
            Repository(RepositoryName("by/digest/only"), {}, {oci: MediaType.OCI_MANIFEST}),
            Repository(
                RepositoryName(long_name),
                {Tag(f"sha256-{digest('signed').hex}.sig"): oci, Tag("V" * 41): oci, Tag("v" * 41): docker},
                {oci: MediaType.OCI_MANIFEST, docker: MediaType.DOCKER_MANIFEST},
            ),
        )
    )


MIRRORS = {"docker.io": "", "registry.example.org:5000": "registry.example.org/"}


def text(rendered: Rendered) -> str:
    return rendered.files["http.conf"].decode()


def maps(rendered: Rendered) -> str:
    """The part of http.conf that depends on the tree."""
    assert text(rendered).count(fixed().decode()) == 1
    return text(rendered).replace(fixed().decode(), "# (the same for every tree)\n")


# -- golden files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rendered"),
    [
        ("small.http.conf", render(small(), store="/var/lib/scr-watchd/store")),
        ("closed.http.conf", render(small(), store="/srv/an odd 'store'", list_repositories=False)),
        ("empty.http.conf", render(Catalog(), store="/var/lib/scr-watchd/store")),
        ("mirrors.http.conf", render(small(), store="/store", mirrors={**MIRRORS, "*": "mirror/"})),
    ],
)
def test_the_maps_are_those_that_were_reviewed(name: str, rendered: Rendered) -> None:
    found = maps(rendered).replace(rendered.id, "(the id)")
    if os.environ.get("SCR_WATCHD_UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(found)
    assert found == (GOLDEN / name).read_text()


def test_workers_that_run_as_root_follow_no_link_in_the_store() -> None:
    first, second = render(small(), store="/store"), render(small(), store="/store", follow_links=False)
    differ = {name for name in first.files if first.files[name] != second.files[name]}
    assert differ == {"server.conf", "http.conf"}, "http.conf says the id"
    before, after = (each.files["server.conf"].decode().splitlines() for each in (first, second))
    assert set(after) - set(before) == {"    disable_symlinks on from=$scr_store;"}


def test_the_blocks_of_a_long_list_are_those_that_were_reviewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With tokens of 90 bytes, or the file would be long."""
    monkeypatch.setattr(quote, "TOKEN_BYTES", 90)
    catalog = catalog_with([("app", f"1.{number}", b"") for number in range(60)])
    lines = text(render(catalog, store="/store")).partition("map $scr_list $scr_items")
    found = "\n".join(
        [line for line in lines[0].splitlines() if "scr_chunk_" in line]
        + ["".join(lines[1:]).partition("map '' $scr_catalog_open")[0]]
    )
    if os.environ.get("SCR_WATCHD_UPDATE_GOLDEN"):
        (GOLDEN / "blocks.http.conf").write_text(found)
    assert found == (GOLDEN / "blocks.http.conf").read_text()


def test_the_maps_that_no_tree_changes_are_those_that_were_reviewed() -> None:
    found = "".join(page_maps())
    if os.environ.get("SCR_WATCHD_UPDATE_GOLDEN"):
        (GOLDEN / "pages.conf").write_text(found)
    assert found == (GOLDEN / "pages.conf").read_text()


# -- identity ------------------------------------------------------------------------------------------


def test_equal_catalogs_have_equal_bytes_in_whatever_order_they_were_found() -> None:
    entries = [(f"group/{name}", f"{tag}", b"%d" % tag) for name in "abc" for tag in range(20)]
    first = render(catalog_with(entries), store="/store")
    for seed in range(5):
        shuffled = entries.copy()
        random.Random(seed).shuffle(shuffled)
        again = render(catalog_with(shuffled), store="/store")
        assert (again.id, again.files) == (first.id, first.files)


def test_what_is_remembered_of_repositories_makes_no_difference() -> None:
    """They come, go, change, take another's number, and have names that need more than a line."""
    chance, repositories = random.Random(1), dict[str, Repository]()
    known: dict[RepositoryName, Fragment] = {}
    for step in range(200):
        name = chance.choice("abcdefgh")
        if chance.random() < 0.3:
            repositories.pop(name, None)
        else:
            tags = chance.sample(["1", "2", "latest", "Latest", "t" * 90], chance.randrange(1, 5))
            made = catalog_with([(name, tag, b"%d" % (step % 3)) for tag in tags])
            repositories[name] = made.repositories[0]
        catalog = Catalog(tuple(repositories[each] for each in sorted(repositories)))
        fragments = fragments_of(catalog, known)
        assert render(catalog, store="/s", fragments=fragments).files == render(catalog, store="/s").files
        known |= {each.repository.name: each for each in fragments}


def test_the_id_changes_with_whatever_is_served() -> None:
    base = [("alpine", "1", b"one"), ("alpine", "2", b"two")]
    catalogs = [
        base,
        [*base, ("alpine", "3", b"one")],
        [*base, ("debian", "1", b"one")],
        [("alpine", "1", b"two"), ("alpine", "2", b"one")],
        [("alpine", "1", b"one"), ("alpine", "2", b"one")],
        [("alpine", "1", b"one"), ("alpine", "l", b"two")],
        [("alpin3", "1", b"one"), ("alpin3", "2", b"two")],
        base[:1],
        [],
    ]
    rendered = [
        *(render(catalog_with(each), store="/store") for each in catalogs),
        render(catalog_with(base), store="/elsewhere"),
        render(catalog_with(base), store="/store", list_repositories=False),
        render(catalog_with(base), store="/store", mirrors=MIRRORS),
        render(_retyped(catalog_with(base)), store="/store"),
        initial(),
    ]
    assert len({each.id for each in rendered}) == len(rendered)


def _retyped(catalog: Catalog) -> Catalog:
    builder = CatalogBuilder()
    for repository in catalog.repositories:
        for each in repository.manifests:
            builder.manifest(repository.name, each, MediaType.DOCKER_MANIFEST)
        for tag, each in repository.tags.items():
            builder.tag(repository.name, tag, each)
    return builder.catalog()


def test_the_id_is_a_word_that_can_be_a_directory_and_is_what_nginx_answers() -> None:
    rendered = render(small(), store="/store")
    assert re.fullmatch(r"[0-9a-f]{16}", rendered.id)
    assert f"map '' $scr_generation {{ default {rendered.id}; }}\n" in text(rendered)
    assert re.fullmatch(r"initial-[0-9a-f]{16}", initial().id)


def test_what_only_a_digest_names_is_in_no_map_and_makes_another_id() -> None:
    child = Digest(f"sha256:{'c' * 64}")
    (repository,) = catalog_with([("a", "1", b"index")]).repositories
    before = render(Catalog((repository,)), store="/store")
    with_child = replace(repository, manifests={**repository.manifests, child: MediaType.OCI_MANIFEST})
    after = render(Catalog((with_child,)), store="/store")
    assert "c" * 32 not in text(after)
    assert after.id != before.id


def test_what_leaves_is_no_part_of_the_id() -> None:
    """Replicas agree on what is here to stay, and the end of a grace needs no reload."""
    catalog = catalog_with([("a", "1", b"one")])
    (repository,) = catalog.repositories
    leaving = {Digest(f"sha256:{'c' * 64}"): MediaType.OCI_MANIFEST}
    gone = Repository(RepositoryName("gone"), {}, {}, leaving=leaving)
    after = Catalog((replace(repository, leaving=leaving), gone))
    assert render(after, store="/store").id == render(catalog, store="/store").id


@pytest.mark.parametrize("media_type", MediaType)
def test_a_media_type_has_one_number(media_type: MediaType) -> None:
    found = re.findall(
        rf"^ +(\d) {re.escape(media_type.value)};$", static("http.conf").decode(), re.MULTILINE
    )
    assert found == [media_type.number]
    assert f".manifests/{media_type.number}/" in static("server.conf").decode().replace("$scr_type_no", "2")


# -- nginx's limits ------------------------------------------------------------------------------------


def keys(rendered: Rendered) -> list[str]:
    """The keys of the maps that depend on the tree."""
    return re.findall(r"^'([^'~][^']*)' '?[^']*'?;$", maps(rendered), re.MULTILINE)


def tokens(rendered: Rendered) -> list[str]:
    return re.findall(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s;{}'\"]+", maps(rendered))


def large() -> Catalog:
    """Names and tags of every length, many of them, and long lists."""
    wide = [
        (f"{'n' * 37}/{number:05d}" + "x" * (number % 210), f"T{'ag' * 20}", b"") for number in range(5000)
    ]
    signed = [("signed", f"sha256-{sha256(b'%d' % number).hexdigest()}.sig", b"") for number in range(2000)]
    tall = [("tall", f"{number:0{1 + number % 128}d}", b"") for number in range(5000)]
    return catalog_with([*wide, *signed, *tall])


def test_no_key_needs_larger_buckets_and_no_token_larger_buffers_than_nginx_has() -> None:
    rendered = render(large(), store="/store")
    assert len(keys(rendered)) > 20_000
    assert max(map(len, keys(rendered))) <= KEY_BYTES
    assert max(map(len, tokens(rendered))) <= TOKEN_BYTES


@pytest.mark.parametrize("length", [1, 38, 39, 40, 41, 45, 46, 47, 76, 77, 114, 115, 128])
def test_keys_of_every_length_fit(length: int) -> None:
    entries = [("n" * length, "t" * length, b""), ("N".lower() * length + "/x", "T" * length, b"")]
    rendered = render(catalog_with(entries), store="/store")
    assert max(map(len, keys(rendered))) <= KEY_BYTES


def test_every_variable_has_one_origin() -> None:
    """One that a map sets and a regular expression captures would be either."""
    whole = text(render(small(), store="/store"))
    mapped = re.findall(r"^map .* \$(\w+) \{", whole, re.MULTILINE)
    captured = set(re.findall(r"\(\?<(\w+)>", whole + static("server.conf").decode()))
    assert len(mapped) == len(set(mapped))
    assert not captured & set(mapped)


# -- quoting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "quoted"),
    [
        pytest.param("/var/lib/store", "'/var/lib/store'", id="plain"),
        pytest.param("/a b;{}#", "'/a b;{}#'", id="what nginx reads"),
        pytest.param("/it's", r"'/it\'s'", id="apostrophe"),
        pytest.param('/a"b', "'/a\"b'", id="quotation mark"),
        pytest.param("/a\\b", r"'/a\\b'", id="backslash"),
        pytest.param("/a\\", r"'/a\\'", id="backslash at the end"),
        pytest.param("/é/\udcff", "'/é/\udcff'", id="any bytes"),
    ],
)
def test_a_path_is_one_token(path: str, quoted: str) -> None:
    assert quote.path(path) == quoted


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/a$b", id="dollar"),
        pytest.param("/a${b}", id="variable"),
        pytest.param("/a\nb", id="line break"),
        pytest.param("/a\tb", id="tab"),
        pytest.param("/a\0b", id="NUL"),
        pytest.param("/a\x7fb", id="delete"),
        pytest.param("/" + "a" * 3900, id="too long"),
        pytest.param("/" + "'" * 2000, id="too long with its backslashes"),
        pytest.param("/" + "é" * 2000, id="too long in bytes"),
    ],
)
def test_a_path_that_nginx_cannot_be_told_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="nginx"):
        quote.path(path)
    with pytest.raises(ValueError, match="nginx"):
        render(Catalog(), store=path)


@pytest.mark.parametrize("program", binaries())
@pytest.mark.parametrize(
    "name",
    ['it\'s a "b" {c}; #d ~e é\udcff', "back\\slash\\", "~^default", "\\n"],
)
def test_nginx_finds_the_store_wherever_it_lies(tmp_path: Path, program: object, name: str) -> None:
    built = image("odd")
    assert callable(program)
    with site(tmp_path / name, {"alpine": {"1": built}}, program=str(program())) as running:
        assert running.get("/v2/alpine/manifests/1").body == built.raw
        for blob, content in built.blobs.items():
            assert running.get(f"/v2/alpine/blobs/{blob}").body == content


@pytest.mark.parametrize("program", binaries())
def test_nginx_reads_it_where_no_server_includes_the_locations(program: object) -> None:
    """Else a missing line would be a refusal of the whole site, and nobody would be told of the line."""
    assert callable(program)
    files = {"http.conf": render(small(), store="/store", mirrors=MIRRORS).files["http.conf"]}
    with nginx_with("include http.conf;", "return 200 mine;", files=files, program=str(program())) as running:
        assert running.ask("/v2/").body == b"mine"


# -- any tree ------------------------------------------------------------------------------------------

LETTERS = "abcxyz0189"
parts = st.text(LETTERS, min_size=1, max_size=60)
separators = st.sampled_from([".", "_", "__", "-", "--", "/", "/", "/"])
names = (
    st.lists(st.tuples(parts, separators), min_size=1, max_size=8)
    .map(lambda pieces: "".join(part + separator for part, separator in pieces) + "end")
    .filter(lambda name: len(name) <= 255)
)
some_tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True)
trees = st.dictionaries(names, st.lists(some_tags, min_size=1, max_size=12), max_size=12)
CONTENTS = [f"manifest {number}".encode() for number in range(5)]


def entries_of(tree: Mapping[str, list[str]]) -> dict[tuple[str, str], bytes]:
    """Every tag of ``tree`` and, for some, another one that differs in case or length only."""
    near = {
        (name, tag)
        for name, tags in tree.items()
        for each in tags
        for tag in (each, each.swapcase(), (each + "x")[:128])
    }
    return {key: CONTENTS[index % len(CONTENTS)] for index, key in enumerate(sorted(near))}


@pytest.mark.slow
@given(tree=trees)
@settings(max_examples=40, deadline=None)
def test_any_tree_stays_within_the_limits(tree: Mapping[str, list[str]]) -> None:
    entries = entries_of(tree)
    rendered = render(catalog_with([(*key, content) for key, content in entries.items()]), store="/store")
    assert max(map(len, keys(rendered)), default=0) <= KEY_BYTES
    assert max(map(len, tokens(rendered))) <= TOKEN_BYTES
    folded = [key.lower() for key in keys(rendered)]
    assert not re.search(r"[^a-z0-9.:=@_/-]", "".join(folded)), "a key that needs more than quotes"


@pytest.mark.parametrize("program", binaries())
@given(tree=trees)
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
def test_nginx_finds_every_name_and_tag_and_nothing_beside_them(
    tmp_path_factory: pytest.TempPathFactory, program: object, tree: Mapping[str, list[str]]
) -> None:
    entries = entries_of(tree)
    catalog = catalog_with([(*key, content) for key, content in entries.items()])
    by_digest = {digest_of(content): content for content in CONTENTS}
    store = store_of(tmp_path_factory.mktemp("store"), catalog, by_digest)
    assert callable(program)
    with serving(catalog, store=store, program=str(program()), http="include http.conf;") as running:
        for (name, tag), content in entries.items():
            assert running.get(f"/v2/{name}/manifests/{tag}").body == content, (name, tag)
        for name, tag in entries:
            for other in (name, tag.lower()), (name, tag[:-1]), (name[:38], tag), (name[:-1], tag):
                if all(other) and other not in entries:
                    assert running.get("/v2/{}/manifests/{}".format(*other)).status in (400, 404), other
        assert running.get("/v2/_catalog").json() == {"repositories": sorted({name for name, _ in entries})}
        for repository in catalog.repositories:
            found = running.get(f"/v2/{repository.name}/tags/list").json()
            assert found == {"name": repository.name, "tags": list(repository.tags)}


@pytest.mark.parametrize("program", binaries())
@pytest.mark.parametrize(
    ("http", "server"),
    [(initial(), render(small(), store="/store")), (render(small(), store="/store"), initial())],
)
def test_an_nginx_that_starts_while_the_first_generation_is_switched_to_starts(
    program: object, http: Rendered, server: Rendered
) -> None:
    """It may read one file of the initial generation, and one of the first."""
    assert callable(program)
    files = {"http.conf": http.files["http.conf"], "server.conf": server.files["server.conf"]}
    with nginx_with(
        "include http.conf;", "include server.conf;", files=files, program=str(program())
    ) as nginx:
        assert nginx.ask("/v2/alpine/manifests/1").status in (404, 503)
