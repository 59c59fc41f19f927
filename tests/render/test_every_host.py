"""`mirrors = { "*" = "*" }`: the host is the first directory. Still a closed world: what is asked of a host
comes from the directory of its name or not at all, and only a directory that looks like a host is one."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nginxes import binaries
from tests.render.site import Site, exchange, site, spellings
from tests.trees import Built, image

HOSTS = {
    "docker.io": "docker.io",
    "quay.io": "quay.io",
    "localhost": "localhost",
    "localhost:5000": "localhost_5000",
    "127.0.0.1:5000": "127.0.0.1_5000",
    "registry:5000": "registry_5000",
    "a-long--name.of-a.registry.example.org:65535": "a-long--name.of-a.registry.example.org_65535",
}
"""The directory of each host."""

PRIVATE = ["internal", "internal-5000", "internal__5000", "library", "localhosts", "5000"]
"""First directories that are nobody's registry."""

DIRECTORIES = [*HOSTS.values(), *PRIVATE]

# each directory has app, whose one tag is the directory's name: a list of tags says where it comes from
TREE: dict[str, dict[str, Built]] = {
    **{f"{directory}/app": {directory: image(directory)} for directory in DIRECTORIES},
    "docker.io/busybox": {"1": image("official")},
    "docker.io/library/alpine": {"3": image("alpine")},
    "localhost_5000/two": {"1": image("first"), "2": image("second")},
    "hub/app": {"hub": image("hub")},
    "app": {"root": image("root")},
    "internal/docker.io/app": {"deeper": image("deeper")},
}


@pytest.fixture(scope="module", params=binaries())
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param())


@pytest.fixture(scope="module")
def registry(program: str) -> Iterator[Site]:
    with (
        tempfile.TemporaryDirectory() as directory,
        site(Path(directory), TREE, program=program, mirrors={"*": ""}) as running,
    ):
        yield running
        assert not running.complaints()


def reached(registry: Site, host: str, name: str = "app") -> str | None:
    """The directory that a list of tags came from."""
    answer = registry.get(f"/v2/{name}/tags/list?ns={host}")
    if answer.status == 200:
        (tag,) = answer.json()["tags"]
        return str(tag)
    assert (answer.status, answer.code) in ((404, "NAME_UNKNOWN"), (400, "NAME_INVALID")), answer
    return None


@pytest.mark.parametrize(("host", "directory"), HOSTS.items())
def test_a_host_is_the_directory_of_its_name(registry: Site, host: str, directory: str) -> None:
    built = TREE[f"{directory}/app"][directory]
    for spelling in (host, host.replace(":", "%3A"), host.replace(":", "%3a")):
        assert reached(registry, spelling) == directory
        for reference in (directory, built.digest):
            answer = registry.get(f"/v2/app/manifests/{reference}?ns={spelling}")
            assert (answer.body, answer.header("OCI-Namespace")) == (built.raw, host)
        for digest, content in built.blobs.items():
            answer = registry.get(f"/v2/app/blobs/{digest}?ns={spelling}")
            assert (answer.body, answer.header("OCI-Namespace")) == (content, host)
        for path in (f"app/referrers/{built.digest}", "app/manifests/unknown", "unknown/tags/list"):
            assert registry.get(f"/v2/{path}?ns={spelling}").header("OCI-Namespace") == host
        other = registry.get(f"/v2/app/manifests/{TREE['app']['root'].digest}?ns={spelling}")
        assert (other.status, other.code) == (404, "MANIFEST_UNKNOWN")


def test_the_next_page_stays_with_its_host(registry: Site) -> None:
    answer = registry.get("/v2/two/tags/list?n=1&ns=localhost%3A5000")
    assert answer.header("Link") == '</v2/two/tags/list?n=1&last=1&ns=localhost:5000>; rel="next"'


@pytest.mark.parametrize(
    "host",
    [
        *PRIVATE,
        pytest.param("docker.io/../internal", id="a way out"),
        pytest.param("docker.io/%2e%2e/internal", id="an encoded way out"),
        pytest.param("docker.io%2f..%2finternal", id="an encoded slash"),
        pytest.param("docker.io/../../internal/docker.io", id="further out"),
        pytest.param("internal/docker.io", id="a directory deeper"),
        pytest.param("internal%2Fdocker.io", id="a directory deeper, encoded"),
        pytest.param("localhost_5000", id="a directory, not a host"),
        pytest.param("localhost:5000:5000", id="two ports"),
        pytest.param("localhost:", id="no port"),
        pytest.param("localhost:500000", id="a port of six digits"),
        pytest.param(":5000", id="a port alone"),
        pytest.param(".", id="here"),
        pytest.param("..", id="above"),
        pytest.param(".docker.io", id="a dot before"),
        pytest.param("docker.io.", id="a dot behind"),
        pytest.param("docker..io", id="two dots"),
        pytest.param("docker%2Eio", id="an encoded dot"),
        pytest.param("host", id="what a host is inside"),
        pytest.param("host:port", id="what a host with a port is inside"),
        pytest.param("0", id="what docker.io is inside"),
        pytest.param("-", id="what an unknown host is inside"),
        pytest.param("*", id="every host"),
        pytest.param("$scr_name", id="a variable"),
        pytest.param("docker.io%00", id="NUL"),
        pytest.param("docker.io%0a", id="line break"),
        pytest.param("a." * 200 + "io", id="too long"),
        pytest.param("a." * 1500 + "io", id="far too long"),
    ],
)
def test_nothing_else_is_reached(registry: Site, host: str) -> None:
    """Neither below that name nor at the root, and nothing of it is shown."""
    for name in ("app", "internal/app", "docker.io/app", "library/alpine"):
        answer = registry.get(f"/v2/{name}/tags/list?ns={host}")
        assert (answer.status, answer.code) == (404, "NAME_UNKNOWN"), name
        assert answer.header("OCI-Namespace") is None


def test_docker_hubs_official_images_are_found_as_ever(registry: Site) -> None:
    for name in ("library/busybox", "busybox"):
        assert registry.get(f"/v2/{name}/tags/list?ns=docker.io").json() == {"name": name, "tags": ["1"]}
    assert registry.get("/v2/library/alpine/tags/list?ns=docker.io").json()["tags"] == ["3"]
    assert registry.get("/v2/library/app/tags/list?ns=quay.io").status == 404


def test_without_a_host_names_are_names(registry: Site) -> None:
    for query in ("", "?ns="):
        for directory in DIRECTORIES:
            answer = registry.get(f"/v2/{directory}/app/tags/list{query}")
            assert (answer.json()["tags"], answer.header("OCI-Namespace")) == ([directory], None)
        assert registry.get(f"/v2/app/tags/list{query}").json()["tags"] == ["root"]


# -- any argument ------------------------------------------------------------------------------------

PIECES = [*HOSTS, *DIRECTORIES, "..", ".", "/", "%2f", "%2e", ":", "%3A", "_", "-", "5000", "\\", "$scr_repo"]
PIECES += ["|", "=", "%00", "%", "+", ";", "é", "A", "LOCALHOST", "//", "@", "[::1]", "%253A"]


def looks_like_a_host(directory: str) -> bool:
    return "." in directory or directory == "localhost" or bool(re.search(r"_[0-9]{1,5}\Z", directory))


@given(
    host=st.one_of(
        st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join),
        st.text(st.characters(codec="utf-8", exclude_characters="& #\r\n\t\0"), max_size=40),
    )
)
@settings(max_examples=300, deadline=None)
def test_whatever_host_is_named_only_the_directory_of_that_host_is_reached(registry: Site, host: str) -> None:
    request = f"GET /v2/app/tags/list?ns={host} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head, _, body = exchange(registry.nginx, request.encode()).partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if status != 200:
        assert status in (400, 404), head
        return
    found = re.search(rb'"tags":\["([^"]*)"\]', body)
    assert found, body
    directory = found[1].decode()
    if host == "":
        assert directory == "root"
        return
    assert re.sub(r":(?=[0-9]+\Z)", "_", unquote(host)) == directory
    assert looks_like_a_host(directory)
    assert f"oci-namespace: {unquote(host)}".encode() in head.lower()


# -- beside other hosts, below a prefix, with rules --------------------------------------------------


def test_a_host_of_the_table_comes_before_every_host(tmp_path: Path, program: str) -> None:
    mirrors = {"*": "", "docker.io": "hub/", "LOCALHOST:5000": "internal/"}
    with site(tmp_path, TREE, program=program, mirrors=mirrors) as running:
        assert reached(running, "docker.io") == "hub"
        assert reached(running, "localhost:5000") == "internal", "the operator said so"
        assert reached(running, "quay.io") == "quay.io"
        assert reached(running, "localhost") == "localhost"


def test_every_host_may_lie_below_a_prefix(tmp_path: Path, program: str) -> None:
    """As a bundle lies, or with name_prefix."""
    with site(tmp_path, TREE, program=program, mirrors={"*": "internal/"}) as running:
        assert reached(running, "docker.io") == "deeper"
        assert reached(running, "quay.io") is None


RULE = 'map $scr_repo $realm { default "images"; ~^(quay.io|localhost_5000)/ off; }'


def test_a_rule_for_a_repository_sees_what_is_meant(tmp_path: Path, program: str) -> None:
    """All is closed but two hosts: an open one must not lead into a closed one."""
    with site(
        tmp_path,
        TREE,
        program=program,
        http=f"include hash.conf; include http.conf; {RULE}",
        server="auth_basic $realm; auth_basic_user_file passwords; include server.conf;",
        files={"passwords": b"reader:{PLAIN}right\n"},
        mirrors={"*": ""},
    ) as running:
        for host, directory in HOSTS.items():
            expected = 200 if directory in ("quay.io", "localhost_5000") else 401
            path = f"/v2/app/manifests/{directory}"
            for spelling in (path, *spellings(path)[:-2]):
                assert running.get(f"{spelling}?ns={host}").status in (expected, 404), spelling
            assert running.get(f"{path}?ns={host}").status == expected
        for host in ("quay.io/../internal", "quay.io/..", "internal"):
            assert running.get(f"/v2/app/manifests/internal?ns={host}").status == 401
        assert running.get("/v2/../internal/app/manifests/internal?ns=quay.io").status in (400, 401, 404)
        assert running.get("/v2/internal/app/manifests/internal").status == 401
