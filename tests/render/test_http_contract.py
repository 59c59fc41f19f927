"""What clients are answered, as DESIGN's HTTP contract has it, by a real nginx: once with nothing around
the registry, once in a site whose own settings would spoil it and whose `map` comes before ours."""

import json
import os
import re
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from scr_watchd.oci.catalog import Catalog, Repository
from scr_watchd.oci.manifest import MediaType
from scr_watchd.oci.names import Digest, RepositoryName
from scr_watchd.render.http_conf import initial
from tests.nginxes import binaries, nginx_with
from tests.render import contract
from tests.render.contract import (
    ALPINE,
    COSIGN,
    ENDPOINTS,
    NO_BLOB,
    SITE_HTTP,
    SITE_SERVER,
    Contract,
    error_headers,
    headers,
    misses_what_vanishes,
)
from tests.render.site import (
    AFTER_ANOTHER_MAP,
    OURS,
    Site,
    catalog_with,
    exchange,
    serving,
    site,
    store_of,
    stored,
)
from tests.trees import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    Built,
    digest_of,
    image,
    make_images,
)

KEYWORDS = ("default", "include", "volatile", "hostnames")

# Names that are one another's beginnings. nginx finds the long ones in pieces of 38 characters.
LONGEST_NAME = ("long/" * 51)[:254] + "x"
NAME_LENGTHS = (45, 46, 47, 77, 114, 200, 255)
LONG_NAMES = [LONGEST_NAME[: length - 1] + "x" for length in NAME_LENGTHS]
LONGEST_TAG = ("Abc_" * 32)[:128]
LONG_TAGS = [LONGEST_TAG[:length] for length in (40, 41, 75, 76, 77, 114, 115, 127, 128)]

TREE: dict[str, dict[str, Built]] = {
    **contract.TREE,
    "alpine": {
        **contract.TREE["alpine"],
        COSIGN.replace(".sig", ".SIG"): image("another signature"),
        **{tag: image(f"long {tag}") for tag in LONG_TAGS},
        LONGEST_TAG.upper(): image("long and upper case"),
        LONGEST_TAG[:40].upper(): image("of forty and upper case"),
        **{word: image(word) for word in KEYWORDS},
    },
    "a/b/c/d": {"1": image("deep in the tree")},
    "x/blobs/manifests/tags": {"list": image("named like an endpoint")},
    **{word: {word: image(f"{word} of {word}")} for word in KEYWORDS},
    **{name: {"1": image(f"name {len(name)}")} for name in LONG_NAMES},
}

ALONE = (OURS, "include server.conf;")
IN_A_SITE = (f"{SITE_HTTP} {AFTER_ANOTHER_MAP}", f"{SITE_SERVER} include server.conf;")


@pytest.fixture(scope="module", params=[ALONE, IN_A_SITE], ids=["alone", "in a site"])
def surroundings(request: pytest.FixtureRequest) -> tuple[str, str]:
    http, server = request.param
    return http, server


@pytest.fixture(scope="module", params=binaries())
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param())


@pytest.fixture(scope="module")
def registry(
    tmp_path_factory: pytest.TempPathFactory, program: str, surroundings: tuple[str, str]
) -> Iterator[Site]:
    http, server = surroundings
    with site(tmp_path_factory.mktemp("site"), TREE, program=program, http=http, server=server) as running:
        yield running
        assert not running.complaints()


class TestContract(Contract):
    tree = TREE


# -- the endpoints that are no files ---------------------------------------------------------------


def test_the_generation_can_be_asked_for(registry: Site) -> None:
    answer = registry.get("/v2/_scr/generation")
    assert (answer.status, answer.json()) == (200, {"generation": registry.rendered.id})
    assert headers(answer) == error_headers(answer) | {"Cache-Control": "no-store"}


def test_a_closed_catalog_is_no_endpoint(program: str, surroundings: tuple[str, str]) -> None:
    http, server = surroundings
    catalog = catalog_with([("secret", "1", b"")])
    with serving(catalog, program=program, http=http, server=server, list_repositories=False) as running:
        answer = running.get("/v2/_catalog")
        assert (answer.status, answer.code) == (404, "UNSUPPORTED")
        assert b"secret" not in answer.body
        assert running.get("/v2/secret/tags/list").json()["tags"] == ["1"]
        assert not running.complaints()


def test_an_empty_tree_has_empty_lists(program: str, surroundings: tuple[str, str]) -> None:
    http, server = surroundings
    with serving(Catalog(), program=program, http=http, server=server) as running:
        assert running.get("/v2/_catalog").json() == {"repositories": []}
        assert running.get("/v2/any/tags/list").code == "NAME_UNKNOWN"


# -- manifests -------------------------------------------------------------------------------------


def tags() -> list[tuple[str, str, Built]]:
    return [(name, tag, built) for name, images in TREE.items() for tag, built in images.items()]


@pytest.mark.parametrize(
    "tag",
    [
        "Rc1",
        "rC1",
        "3.2",
        "3.200",
        "Default",
        COSIGN.replace(".sig", ".Sig"),
        LONGEST_TAG.lower(),
        LONGEST_TAG[:38],
        LONGEST_TAG[:39],
        LONGEST_TAG[:42],
        LONGEST_TAG[:126],
        LONGEST_TAG[:76].lower(),
        LONGEST_TAG[:40].lower(),
        LONGEST_TAG[:75] + "x",
    ],
)
def test_a_tag_is_known_only_as_it_is_spelled(registry: Site, tag: str) -> None:
    """nginx's maps ignore case, and find long keys piece by piece."""
    answer = registry.get(f"/v2/alpine/manifests/{tag}")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize(
    "name",
    [
        *(LONGEST_NAME[:length] for length in (38, 39, 44, 76, 78, 152)),
        LONGEST_NAME[:253] + "y",
        LONGEST_NAME[:46] + "y",
        "alpin",
        "alpinee",
        "a/b/c",
        "a/b",
        "b/c/d",
        "x/blobs",
        "x",
        "defaul",
    ],
)
def test_a_part_of_a_name_is_no_name(registry: Site, name: str) -> None:
    name = name.rstrip("/")
    for path in ("tags/list", "manifests/1", f"manifests/{ALPINE.digest}", f"blobs/{NO_BLOB}"):
        answer = registry.get(f"/v2/{name}/{path}")
        assert (answer.status, answer.code) == (404, "NAME_UNKNOWN"), path


# -- blobs -----------------------------------------------------------------------------------------


def test_a_blob_belongs_to_its_repository_only(registry: Site) -> None:
    for name in ("multi", "a/b/c/d", LONGEST_NAME):
        answer = registry.get(f"/v2/{name}/blobs/{next(iter(ALPINE.blobs))}")
        assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")


@pytest.mark.parametrize("digest_end", ["0" * 32, "f" * 32])
def test_half_a_digest_is_no_digest(registry: Site, digest_end: str) -> None:
    """A manifest is looked up by the first half of its digest."""
    answer = registry.get(f"/v2/alpine/manifests/{ALPINE.digest[:-32]}{digest_end}")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


def test_digests_that_begin_alike_are_told_apart(tmp_path: Path, program: str) -> None:
    """Nobody will ever find two, so their files are forged."""
    mine, also_mine, other = (Digest(f"sha256:{'a' * 32}{end * 32}") for end in "bcd")
    catalog = Catalog(
        (
            Repository(
                RepositoryName("mine"),
                {},
                {mine: MediaType.DOCKER_LIST, also_mine: MediaType.OCI_INDEX},
            ),
            Repository(RepositoryName("other"), {}, {other: MediaType.OCI_MANIFEST}),
        )
    )
    store = store_of(tmp_path, catalog, {each: each.encode() for each in (mine, also_mine, other)})
    with serving(catalog, store=store, program=program) as running:
        assert running.get(f"/v2/mine/manifests/{mine}").header("Content-Type") == DOCKER_LIST
        assert running.get(f"/v2/mine/manifests/{also_mine}").header("Content-Type") == OCI_INDEX
        assert running.get(f"/v2/mine/manifests/{other}").code == "MANIFEST_UNKNOWN"
        assert running.get(f"/v2/other/manifests/{mine}").code == "MANIFEST_UNKNOWN"


def test_what_a_digest_names_is_there_before_the_lists_know_of_it(tmp_path: Path, program: str) -> None:
    """An old worker answers for what a new generation published, and both for what is in its grace."""
    tree = {"new": {"1": ALPINE, "docker": image("v2s2", media_type=DOCKER_MANIFEST)}}
    stored(make_images(tmp_path / "images", tree), tmp_path / "store")
    with serving(catalog_with([("here", "1", b"")]), store=tmp_path / "store", program=program) as running:
        for built in tree["new"].values():
            for digest, raw in built.manifests.items():
                answer = running.get(f"/v2/new/manifests/{digest}")
                assert (answer.status, answer.body) == (200, raw)
                assert answer.header("Content-Type") == json.loads(raw)["mediaType"]
            for digest, content in built.blobs.items():
                assert running.get(f"/v2/new/blobs/{digest}").body == content
        for path in ("manifests/1", f"manifests/{NO_BLOB}"):
            assert running.get(f"/v2/new/{path}").code == "MANIFEST_UNKNOWN"
        assert running.get(f"/v2/new/blobs/{NO_BLOB}").code == "BLOB_UNKNOWN"
        assert running.get("/v2/new/tags/list").status == 404
        assert running.get("/v2/_catalog").json() == {"repositories": ["here"]}


def test_what_one_repository_has_another_has_not(tmp_path: Path, program: str) -> None:
    stored(make_images(tmp_path / "images", {"one": {"1": ALPINE}}), tmp_path / "store")
    with serving(catalog_with([("here", "1", b"")]), store=tmp_path / "store", program=program) as running:
        blob = next(iter(ALPINE.blobs))
        for name, codes in (("here", ("MANIFEST_UNKNOWN", "BLOB_UNKNOWN")), ("none", ("NAME_UNKNOWN",) * 2)):
            answers = (
                running.get(f"/v2/{name}/manifests/{ALPINE.digest}"),
                running.get(f"/v2/{name}/blobs/{blob}"),
            )
            assert tuple((answer.status, answer.code) for answer in answers) == tuple(
                (404, code) for code in codes
            )
        assert running.get(f"/v2/one/blobs/{ALPINE.digest}").code == "BLOB_UNKNOWN", "it is a manifest"
        assert running.get(f"/v2/one/manifests/{blob}").code == "MANIFEST_UNKNOWN", "it is a blob"


# -- conditions ------------------------------------------------------------------------------------


def test_manifests_of_equal_size_have_different_etags(registry: Site) -> None:
    """nginx makes an ETag from time and size: the stored copy's time comes from its digest."""
    etags = {
        (answer := registry.get(f"/v2/{name}/manifests/{tag}")).header("Content-Length"): set[str | None]()
        for name, tag, _ in tags()
    }
    seen = {built.digest for _, _, built in tags()}
    for digest in seen:
        name = next(name for name, _, built in tags() if built.digest == digest)
        answer = registry.get(f"/v2/{name}/manifests/{digest}")
        etags[answer.header("Content-Length")].add(answer.header("ETag"))
    assert sum(map(len, etags.values())) == len(seen)
    assert any(len(each) > 1 for each in etags.values()), "no two manifests have the same size"


# -- errors ----------------------------------------------------------------------------------------


def test_the_connection_stays_open_after_an_error(registry: Site) -> None:
    requests = [
        "GET /v2/Alpine/tags/list HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v2/alpine/manifests/unknown HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ]
    answers = exchange(registry.nginx, "".join(requests).encode())
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"400", b"404", b"200"]


def test_a_file_that_vanished_is_not_found(
    tmp_path: Path, program: str, surroundings: tuple[str, str]
) -> None:
    http, server = surroundings
    with site(tmp_path, {"alpine": {"1": ALPINE}}, program=program, http=http, server=server) as running:
        misses_what_vanishes(running)


def test_a_directory_in_the_place_of_a_file_is_an_error_and_no_list(
    tmp_path: Path, program: str, surroundings: tuple[str, str]
) -> None:
    http, server = surroundings
    with site(tmp_path, {"alpine": {"1": ALPINE}}, program=program, http=http, server=server) as running:
        file = running.blob_file("alpine", "1", next(iter(ALPINE.blobs)))
        file.unlink()
        file.mkdir()
        (file / "manifest.json").write_text("private")
        answer = running.get(f"/v2/alpine/blobs/{next(iter(ALPINE.blobs))}")
        assert b"private" not in answer.body
        assert answer.status != 200


def test_too_many_requests_are_said_with_the_status_of_the_site(program: str) -> None:
    http = f"limit_req_zone $scheme zone=few:1m rate=1r/m; {OURS}"
    for status in (429, 503):
        server = f"limit_req zone=few; limit_req_status {status}; include server.conf;"
        with serving(
            catalog_with([("alpine", "1", b"")]), program=program, http=http, server=server
        ) as running:
            answers = [running.get("/v2/alpine/tags/list") for _ in range(3)]
            assert answers[-1].status == status
            assert answers[-1].code == "TOOMANYREQUESTS"
            assert headers(answers[-1]) == error_headers(answers[-1])


def test_a_warning_is_in_every_answer_and_says_what_was_set(tmp_path: Path, program: str) -> None:
    """But in that of a bad range, to which nginx lets nothing be added."""
    text = """it's "this" \\mirror\\ that {moves}; # on Monday\\"""
    root, store = make_images(tmp_path / "images", {"alpine": {"3.20": ALPINE}}), tmp_path / "store"
    with serving(stored(root, store), store=store, program=program, warning=text) as running:
        for path, method in [*product(ENDPOINTS, ("GET", "HEAD")), ("/v2/_scr/", "GET"), ("/v2/", "PUT")]:
            said = running.get(path, method=method).header("Warning")
            assert said is not None, path
            quoted = re.fullmatch(r'299 - "((?:[^"\\]|\\.)*)"', said)
            assert quoted, said
            assert re.sub(r"\\(.)", r"\1", quoted[1]) == text


@pytest.mark.parametrize("mark", ["\\", "'", '"', "a"])
def test_the_longest_warning_fits(program: str, mark: str) -> None:
    with serving(Catalog(), program=program, warning=mark * 1000) as running:
        assert running.get("/v2/").header("Warning") == quote_header(mark * 1000)


def quote_header(text: str) -> str:
    return '299 - "{}"'.format(re.sub(r'(["\\])', r"\\\1", text))


# -- other spellings of a URL ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v2/alpine/../multi/manifests/3.20",
        "/v2/alpine/%2e%2e/multi/manifests/3.20",
        "/v2/alpine%2f..%2fmulti/manifests/3.20",
        "/v2/alpine/manifests/../../multi/manifests/3.20",
        "/v2/alpine/manifests/%2e%2e%2f.manifests%2fsha256%2f" + ALPINE.digest[7:],
        "/v2/.manifests/sha256/" + ALPINE.digest[7:],
        "/v2/alpine/.blobs/sha256/" + next(iter(ALPINE.blobs))[7:],
        "/v2/alpine/.blobs/blobs/" + next(iter(ALPINE.blobs)),
        "/v2/alpine/%252e%252e/multi/manifests/oci",
        "/v2/multi/blobs/..%2f..%2f..%2falpine%2f.blobs%2f" + next(iter(ALPINE.blobs)),
        "/v2/multi/%2e./alpine/.%2e/multi/blobs/" + next(iter(ALPINE.blobs)),
        "/v2/multi/%00/blobs/" + next(iter(ALPINE.blobs)),
        "/v2/multi%00/manifests/oci",
        "/v2/alpine/manifests/3.20%00",
        "/v2/alpine/manifests/3.20%0a",
        "/v2/alpine/manifests/3.20/",
        "/v2/alpine/manifests/3.20|",
        "/v2/alpine/manifests/.*",
        "/v2/alpine/manifests/3%2e20:0",
        "/v2/alpine:0/manifests/3.20",
        "/v2/=alpine/manifests/3.20",
        "/v2/alpine/blobs/" + next(iter(ALPINE.blobs)) + "%0a",
        "/v2/alpine/blobs/" + next(iter(ALPINE.blobs)) + "/",
        "/V2/alpine/manifests/3.20",
        "/v2alpine/manifests/3.20",
        "/v2/../../../../etc/passwd",
        "/v2/%2e%2e/%2e%2e/etc/passwd",
        "/v2/..%2f..%2f..%2fetc%2fpasswd",
    ],
)
def test_no_spelling_leads_to_what_it_does_not_name(registry: Site, path: str) -> None:
    answer = registry.get(path)
    assert answer.status in (400, 404), answer
    assert ALPINE.raw not in answer.body


@pytest.mark.parametrize(
    "path",
    [
        "/v2/a/manifests/" + ":" * 7000 + "/",
        "/v2/" + "a/manifests/" * 580,
        "/v2/" + "a/blobs/b/tags/list/manifests/" * 230,
        "/v2/" + "a-" * 3500 + "/tags/list",
        "/v2/" + "a" * 7000 + "/tags/list",
        "/v2/" + "a/" * 3500 + "tags/list",
        "/v2/alpine/manifests/" + "A" * 7000,
    ],
    ids=["colons", "manifests", "everything", "hyphens", "letters", "slashes", "tag"],
)
def test_a_very_long_url_is_an_ordinary_error(registry: Site, path: str) -> None:
    """No expression may try piece after piece: one such request would take a fifth of a second."""
    seconds = []
    for _ in range(3):
        before = time.monotonic()
        answer = registry.get(path)
        seconds.append(time.monotonic() - before)
        assert answer.status in (400, 404)
        assert answer.code in ("NAME_INVALID", "MANIFEST_UNKNOWN", "UNSUPPORTED")
    assert min(seconds) < 0.1


# -- large trees -----------------------------------------------------------------------------------

MANY_TAGS = [f"{number:05d}" for number in range(20_000)]
WIDE_TAGS = [f"release-{number:010d}" for number in range(300)]
MANY_NAMES = [f"group-{number % 50}/project-{number}" for number in range(3000)]
SPELLINGS = ["".join(each) for each in product(*((c, c.upper()) for c in "letter"), ["-of-a-tag"])]
CONTENTS = [f"manifest {number}".encode() for number in range(7)]
BY_DIGEST = {digest_of(content): content for content in CONTENTS}


@pytest.fixture(scope="module")
def large(
    tmp_path_factory: pytest.TempPathFactory, program: str, surroundings: tuple[str, str]
) -> Iterator[Site]:
    catalog = catalog_with(
        [
            *(("many", tag, CONTENTS[int(tag) % 7]) for tag in MANY_TAGS),
            *(("wide", tag, CONTENTS[int(tag[8:]) % 7]) for tag in WIDE_TAGS),
            *((name, "latest", CONTENTS[number % 7]) for number, name in enumerate(MANY_NAMES)),
            *(("spelled", tag, CONTENTS[number % 7]) for number, tag in enumerate(SPELLINGS)),
        ]
    )
    http, server = surroundings
    store = store_of(tmp_path_factory.mktemp("large"), catalog, BY_DIGEST)
    with serving(catalog, store=store, program=program, http=http, server=server) as running:
        yield running


def test_twenty_thousand_tags_of_one_repository(large: Site) -> None:
    assert large.get("/v2/many/tags/list").json() == {"name": "many", "tags": MANY_TAGS}
    for tag in MANY_TAGS[::97]:
        assert large.get(f"/v2/many/manifests/{tag}").body == CONTENTS[int(tag) % 7]
    assert large.get("/v2/many/manifests/20000").code == "MANIFEST_UNKNOWN"


def test_a_list_longer_than_nginx_can_read_in_one_piece(large: Site) -> None:
    assert large.get("/v2/wide/tags/list").json() == {"name": "wide", "tags": WIDE_TAGS}


def test_more_spellings_of_one_tag_than_nginx_can_read_in_one_piece(large: Site) -> None:
    for number, tag in enumerate(SPELLINGS):
        assert large.get(f"/v2/spelled/manifests/{tag}").body == CONTENTS[number % 7]
    assert large.get("/v2/spelled/manifests/Spelling").code == "MANIFEST_UNKNOWN"


def test_three_thousand_repositories(large: Site) -> None:
    assert large.get("/v2/_catalog").json() == {
        "repositories": sorted(["many", "wide", "spelled", *MANY_NAMES])
    }
    for number in range(0, len(MANY_NAMES), 31):
        answer = large.get(f"/v2/{MANY_NAMES[number]}/manifests/latest")
        assert answer.body == CONTENTS[number % 7]
        assert large.get(f"/v2/{MANY_NAMES[number]}/tags/list").json()["tags"] == ["latest"]


def test_with_hash_conf_nginx_has_no_warnings(large: Site, surroundings: tuple[str, str]) -> None:
    if "hash.conf" in surroundings[0]:
        assert "hash" not in large.log()


# -- before the first generation -------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_before_the_first_generation_everything_is_503_and_nothing_is_unknown(
    program: str, surroundings: tuple[str, str], method: str
) -> None:
    http, server = surroundings
    rendered = initial()
    with nginx_with(http, server, files=rendered.files, program=program) as running:
        for path in ENDPOINTS:
            answer = running.ask(path, method=method, body=os.urandom(2_000_000) if method == "PUT" else b"")
            assert answer.status == 503, path
            assert headers(answer) == error_headers(answer) | {
                "Cache-Control": "no-store",
                "Retry-After": "2",
                "Content-Length": answer.header("Content-Length") or "",
            }
            if method == "GET":
                assert answer.code == "UNAVAILABLE"
        assert running.ask("/v2extra").status != 503, "the site's own URLs are its own"
