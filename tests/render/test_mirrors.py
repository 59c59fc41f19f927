"""`?ns=HOST`: a closed world. What is asked of a mirrored host comes from below its prefix or not at all."""

import json
import re
from collections.abc import Iterator
from itertools import product

import pytest

from tests.documents import block
from tests.http import Response
from tests.nginxes import binaries
from tests.render.site import Site, site
from tests.trees import descriptor, image

LONG = "a" * 200
ALPINE, OWN, QUAY, HUB, LIBRARY, OFFICIAL, LONG_ONE, LONGER = (
    image(seed) for seed in ("alpine", "own", "quay", "hub", "library", "official", "long", "longer")
)
SBOM = image("sbom", artifactType="a/b", subject=descriptor(ALPINE.raw, ALPINE.media_type))
TREE = {
    "alpine": {"3": OWN},
    "hub/library/alpine": {"3": ALPINE, "4": HUB, "sbom": SBOM},
    "hub/alpine": {"3": HUB},
    "hub/busybox": {"1": OFFICIAL},
    f"hub/{LONG}": {"1": LONG_ONE},
    "hub/team/app": {"1": HUB},
    "quay/team/app": {"1": QUAY},
    "quay/library/only": {"1": LIBRARY},
    "quay/plain": {"1": LIBRARY},
    "internal/app": {"1": OWN},
}
LONG_HOST = f"{'registry.' * 20}example.org:5000"
MIRRORS = {
    "docker.io": "hub/",
    "Quay.Example.org:8443": "quay/",
    "[::1]:5000": "quay/",
    LONG_HOST: "quay/",
    "default": "quay/",
    "all.example.org": "",
}


@pytest.fixture(scope="module", params=binaries())
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param())


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, program: str) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site"), TREE, program=program, mirrors=MIRRORS) as running:
        yield running
        assert not running.complaints()


@pytest.fixture(scope="module")
def without_mirrors(tmp_path_factory: pytest.TempPathFactory, program: str) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site"), TREE, program=program) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "tag", "host", "expected"),
    [
        pytest.param("library/alpine", "3", "docker.io", ALPINE, id="below its prefix"),
        pytest.param("library/busybox", "1", "docker.io", OFFICIAL, id="an official image without library"),
        pytest.param(f"library/{LONG}", "1", "docker.io", LONG_ONE, id="one with a long name"),
        pytest.param("team/app", "1", "docker.io", HUB, id="one of a team"),
        pytest.param("team/app", "1", "quay.example.org:8443", QUAY, id="the same of another host"),
        pytest.param("team/app", "1", "QUAY.EXAMPLE.ORG%3a8443", QUAY, id="a host in another spelling"),
        pytest.param("team/app", "1", "[::1]:5000", QUAY, id="an address"),
        pytest.param("team/app", "1", "%5B%3a%3a1%5D%3A5000", QUAY, id="an address, encoded"),
        pytest.param("team/app", "1", LONG_HOST, QUAY, id="a long host"),
        pytest.param("team/app", "1", LONG_HOST.replace(":", "%3A"), QUAY, id="a long host, encoded"),
        pytest.param("team/app", "1", "default", QUAY, id="a host that is nginx's word"),
        pytest.param("alpine", "3", "all.example.org", OWN, id="a host that mirrors all"),
        pytest.param("alpine", "3", "", OWN, id="none"),
        pytest.param("hub/library/alpine", "3", "", ALPINE, id="none, by its own name"),
        pytest.param("alpine", "3", "docker.io", HUB, id="a name that is not normalized"),
        pytest.param("library/plain", "1", "quay.example.org:8443", None, id="library of another host"),
        pytest.param("library/alpine", "5", "docker.io", None, id="a tag that is not there"),
        pytest.param("quay/team/app", "1", "docker.io", None, id="outside of its prefix"),
        pytest.param("x/../quay/team/app", "1", "docker.io", None, id="a way out"),
        pytest.param("alpine", "3", "unknown.example.org", None, id="an unknown host"),
        pytest.param("alpine", "3", "docker.io.", None, id="almost a host"),
        pytest.param("alpine", "3", "-", None, id="what an unknown host is inside"),
        pytest.param("alpine", "3", "0", None, id="what a host is inside"),
        pytest.param("alpine", "3", "$scr_name", None, id="a variable"),
        pytest.param("library/library/alpine", "3", "docker.io", None, id="library twice"),
    ],
)
def test_where_a_request_leads(registry: Site, name: str, tag: str, host: str, expected: object) -> None:
    answer = registry.get(f"/v2/{name}/manifests/{tag}?ns={host}")
    if expected is None:
        assert answer.status == 404
        assert answer.code in ("NAME_UNKNOWN", "MANIFEST_UNKNOWN", "UNSUPPORTED")
        return
    assert (answer.status, answer.body) == (200, expected.raw)  # type: ignore[attr-defined]
    for digest, content in expected.blobs.items():  # type: ignore[attr-defined]
        assert registry.get(f"/v2/{name}/blobs/{digest}?ns={host}").body == content
    assert tag in registry.get(f"/v2/{name}/tags/list?ns={host}").json()["tags"]
    assert registry.get(f"/v2/{name}/manifests/{expected.digest}?ns={host}").status == 200  # type: ignore[attr-defined]


def test_a_library_that_is_there_comes_before_what_could_stand_for_it(registry: Site) -> None:
    assert registry.get("/v2/library/alpine/tags/list?ns=docker.io").json()["tags"] == ["3", "4", "sbom"]


def test_lists_and_links_stay_in_the_mirror_and_show_only_the_tables_spelling(registry: Site) -> None:
    answer = registry.get("/v2/library/alpine/tags/list?n=1&ns=DOCKER.io")
    assert answer.json() == {"name": "library/alpine", "tags": ["3"]}
    assert answer.header("Link") == '</v2/library/alpine/tags/list?n=1&last=3&ns=docker.io>; rel="next"'
    listed = registry.get(f"/v2/library/alpine/referrers/{ALPINE.digest}?ns=docker.io").json()["manifests"]
    assert [each["digest"] for each in listed] == [SBOM.digest]


def test_other_endpoints_do_not_mind_a_host(registry: Site) -> None:
    for host in ("docker.io", "unknown.example.org"):
        assert registry.get(f"/v2/?ns={host}").json() == {}
        assert registry.get(f"/v2/_catalog?ns={host}").json() == {"repositories": sorted(TREE)}


def test_only_the_first_host_counts(registry: Site) -> None:
    assert registry.get("/v2/team/app/manifests/1?ns=docker.io&ns=default").body == HUB.raw
    assert registry.get("/v2/team/app/manifests/1?ns=none.example.org&ns=docker.io").status == 404


HOSTILE = [
    '"><script>',
    "%0d%0aX-Evil:1",
    "${scr_name}",
    "docker.io%00",
    "docker.io/../quay",
    "docker.io|library",
    "a" * 4000,
]


def test_nothing_of_a_host_is_ever_shown(registry: Site) -> None:
    paths = (
        "alpine/tags/list",
        "alpine/manifests/3",
        "library/alpine/tags/list?n=1",
        f"alpine/referrers/{ALPINE.digest}",
    )
    for path, host in product(paths, HOSTILE):
        answer = registry.get(f"/v2/{path}{'&' if '?' in path else '?'}ns={host}")
        assert (answer.status, answer.code) == (404, "NAME_UNKNOWN"), (path, host)
        assert host not in json.dumps(answer.json()) + str(answer.headers)


def test_without_mirrors_a_host_means_nothing(without_mirrors: Site) -> None:
    for host in ("docker.io", "unknown.example.org", *HOSTILE):
        answer: Response = without_mirrors.get(f"/v2/alpine/tags/list?n=1&ns={host}")
        assert answer.json() == {"name": "alpine", "tags": ["3"]}
        assert answer.header("Link") is None
    assert without_mirrors.get("/v2/library/alpine/manifests/3?ns=docker.io").status == 404


RULE = 'map $scr_repo $realm { default off; ~^(internal|hub/library)/ "images"; }'


def test_a_rule_for_a_repository_holds_through_every_mirror(
    tmp_path_factory: pytest.TempPathFactory, program: str
) -> None:
    """It is about the repository that is meant, not about the address."""
    with site(
        tmp_path_factory.mktemp("site"),
        TREE,
        program=program,
        http=f"include hash.conf; include http.conf; {RULE}",
        server="auth_basic $realm; auth_basic_user_file passwords; include server.conf;",
        files={"passwords": b"reader:{PLAIN}right\n"},
        mirrors=MIRRORS,
    ) as running:
        digest, blob = OWN.digest, next(iter(OWN.blobs))
        for host in ("", "all.example.org", "ALL.example.org"):
            for rest in (
                "manifests/1",
                f"manifests/{digest}",
                f"blobs/{blob}",
                "tags/list",
                f"referrers/{digest}",
            ):
                assert running.get(f"/v2/internal/app/{rest}?ns={host}").status == 401, (host, rest)
        assert running.get("/v2/library/alpine/manifests/3?ns=docker.io").status == 401
        assert running.get("/v2/hub/library/alpine/manifests/3").status == 401
        assert running.get("/v2/library/busybox/manifests/1?ns=docker.io").status == 200


@pytest.mark.parametrize("mirrors", [{}, {"docker.io": "docker.io/", "quay.io": "quay/"}])
@pytest.mark.parametrize("ns", ["", "?ns=docker.io"])
def test_a_mirror_for_dockers_daemon_is_one_line_more(
    tmp_path_factory: pytest.TempPathFactory, program: str, mirrors: dict[str, str], ns: str
) -> None:
    """Docker asks at the root, and names the host only if containerd keeps its images."""
    server = block("docs/clients.md", "A mirror for other registries", "rewrite")
    (line,) = re.findall(r"^ +(rewrite .*;)$", server, re.MULTILINE)
    tree = {"docker.io/library/alpine": {"3": ALPINE}, "docker.io/team/app": {"1": HUB}}
    with site(
        tmp_path_factory.mktemp("site"),
        tree,
        program=program,
        server=f"{line} include server.conf;",
        mirrors=mirrors,
    ) as running:
        assert running.get(f"/v2/{ns}").json() == {}
        assert running.get("/v2/_scr/generation").status == 200
        assert running.get("/v2/docker.io/library/alpine/manifests/3").body == ALPINE.raw
        assert running.get(f"/v2/library/alpine/manifests/3{ns}").body == ALPINE.raw
        assert running.get(f"/v2/library/alpine/tags/list{ns}").json()["tags"] == ["3"]
        blob, content = next(iter(HUB.blobs.items()))
        assert running.get(f"/v2/team/app/blobs/{blob}{ns}").body == content
        assert running.get(f"/v2/team/other/manifests/1{ns}").code == "NAME_UNKNOWN"
