"""The site's access rules hold for every URL of the registry: nothing answers before the access phase.

The URLs come from server.conf's own `location` lines, so that a new location cannot be forgotten.
"""

import base64
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from scr_watchd.render.http_conf import initial, static
from tests.nginxes import binaries, nginx_with
from tests.render.contract import serves
from tests.render.refusals import PASSWORDS, RIGHT, is_refusal, refuses, requests
from tests.render.site import OURS, Site, exchange, site, spellings
from tests.trees import image, index

PUBLIC = image("public")
INTERNAL = image("internal")
MULTI = index(image("amd64"), image("arm64"))
LONG = "internal/" + "long-" * 40 + "name"
TREE = {"public": {"1": PUBLIC}, "internal/app": {"1": INTERNAL, "multi": MULTI}, LONG: {"1": image("long")}}

WRONG = "Basic " + base64.b64encode(b"reader:wrong").decode()
BASIC = 'auth_basic "images"; auth_basic_user_file passwords;'

REALM = 'map $scr_repo $realm { default off; ~^internal/ "internal images"; }'

# At least one for each location of server.conf; some lead into the same.
URLS = [
    "/v2",
    "/v2/",
    "/v2/_catalog",
    "/v2/_scr/generation",
    "/v2/_scr/",
    "/v2/_catalog?n=1&last=a",
    "/v2/public/tags/list",
    "/v2/public/tags/list?n=1&last=0",
    "/v2/public/tags/list?n=bad",
    f"/v2/public/referrers/{PUBLIC.digest}",
    f"/v2/public/referrers/{PUBLIC.digest}?artifactType=a/b",
    "/v2/public/referrers/malformed",
    "/v2/public/manifests/1",
    f"/v2/public/manifests/{PUBLIC.digest}",
    f"/v2/public/blobs/{next(iter(PUBLIC.blobs))}",
    f"/v2/{LONG}/manifests/1",
    "/v2/unknown/tags/list",
    "/v2/unknown/manifests/1",
    "/v2/public/manifests/unknown",
    f"/v2/public/blobs/sha256:{'0' * 64}",
    "/v2/public/blobs/malformed",
    "/v2/public/blobs/uploads/",
    "/v2/public/manifests/sha256:malformed",
    f"/v2/public/manifests/sha512:{'0' * 128}",
    "/v2/public/manifests/%20",
    "/v2/UPPER/tags/list",
    "/v2/no/such/endpoint",
    "/v2/.manifests/sha256/",
]


def location_of(url: str) -> str:
    """The `location` line that nginx chooses for ``url``."""
    exact, prefixes, expressions = locations()
    path = url.replace("%20", " ").partition("?")[0]
    if path in exact:
        return f"= {path}"
    for expression in expressions:
        if path.startswith("/v2/") and re.search(_python(expression), path):
            return expression
    return next(prefix for prefix in prefixes if path.startswith(prefix))


def locations() -> tuple[list[str], list[str], list[str]]:
    """What server.conf's locations match: whole paths, prefixes, regular expressions in order."""
    lines = re.findall(r"^ *location (?:(=|\^~|~) )?(\S+) \{$", static("server.conf").decode(), re.MULTILINE)
    assert len(lines) == static("server.conf").count(b"location ") - static("server.conf").count(
        b"named location "
    )
    assert {kind for kind, text in lines if not text.startswith("@")} == {"=", "^~", "~"}
    return (
        [text for kind, text in lines if kind == "="],
        [text for kind, text in lines if kind == "^~"],
        [text.strip('"') for kind, text in lines if kind == "~"],
    )


def _python(expression: str) -> str:
    return expression.replace("(?<scr", "(?P<scr").replace(r"\z", r"\Z")


def test_every_location_has_a_url_here() -> None:
    exact, prefixes, expressions = locations()
    assert {location_of(url) for url in URLS} == {*(f"= {path}" for path in exact), *prefixes, *expressions}


@pytest.fixture(scope="module", params=binaries())
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@contextmanager
def guarded(directory: Path, program: str, rules: str, *, http: str = "") -> Iterator[Site]:
    """A site whose ``server {}`` has ``rules`` before our include."""
    with site(
        directory,
        TREE,
        program=program,
        http=f"{OURS} {http}",
        server=f"{rules} include server.conf;",
        files=PASSWORDS,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def with_password(images: Path, program: str) -> Iterator[Site]:
    with guarded(images, program, BASIC) as running:
        yield running


@pytest.fixture(scope="module")
def with_a_rule(images: Path, program: str) -> Iterator[Site]:
    """``internal/`` needs a password, and nginx hands slashes on as they come."""
    rules = "merge_slashes off; auth_basic $realm; auth_basic_user_file passwords;"
    with guarded(images, program, rules, http=REALM) as running:
        yield running


def assert_all_is_well(running: Site, authorization: str = "") -> None:
    """Who may read, reads."""
    get = partial(running.get, Authorization=authorization)
    assert get("/v2/").json() == {}
    for name, images in TREE.items():
        serves(running, name, images, authorization=authorization)
    assert get("/v2/_catalog").json() == {"repositories": sorted(TREE)}
    assert get("/v2/_scr/generation").json() == {"generation": running.rendered.id}
    assert get("/v2/unknown/tags/list").code == "NAME_UNKNOWN"
    assert get("/v2/public/manifests/1", method="PUT").status == 405


def test_without_the_password_there_is_nothing_but_401(with_password: Site) -> None:
    refuses(with_password, URLS, 401, "UNAUTHORIZED", challenge='Basic realm="images"')
    assert with_password.get("/v2/", Authorization=WRONG).code == "UNAUTHORIZED"


def test_with_the_password_all_is_there(with_password: Site) -> None:
    assert_all_is_well(with_password, RIGHT)


def test_a_refused_push_of_any_size_is_told_so(images: Path, program: str) -> None:
    with guarded(images, program, BASIC + "client_max_body_size 1k;") as running:
        for url in URLS:
            answer = running.get(url, method="PUT", body=b"x" * 1_000_000)
            assert is_refusal(answer, method="PUT", status=401, code="UNAUTHORIZED"), url


def test_a_denied_address_gets_nothing_but_403(images: Path, program: str) -> None:
    with guarded(images, program, "deny all;") as running:
        refuses(running, URLS, 403, "DENIED")
    with guarded(images, program, "allow unix:; deny all;") as running:
        assert_all_is_well(running)


def test_either_an_address_or_a_password_is_enough_if_the_site_says_so(images: Path, program: str) -> None:
    with guarded(images, program, f"satisfy any; deny all; {BASIC}") as running:
        refuses(running, URLS, 401, "UNAUTHORIZED", challenge='Basic realm="images"')
        assert_all_is_well(running, RIGHT)
    with guarded(images, program, f"satisfy any; allow unix:; deny all; {BASIC}") as running:
        assert_all_is_well(running)


def test_both_an_address_and_a_password_are_needed_otherwise(images: Path, program: str) -> None:
    with guarded(images, program, f"deny all; {BASIC}") as running:
        for url in URLS:
            assert running.get(url, Authorization=RIGHT).code == "DENIED", url


@contextmanager
def asking(images: Path, program: str, answers: str) -> Iterator[Site]:
    """A site that has another server decide, one that does ``answers``."""
    with tempfile.TemporaryDirectory(prefix="scrauth") as directory:
        other = f"server {{ listen unix:{directory}/auth; {answers} }}"
        rules = f"""
            auth_request /auth;
            location = /auth {{
                internal;
                proxy_pass http://unix:{directory}/auth:/;
                proxy_pass_request_body off;
                proxy_set_header Content-Length "";
            }}
        """
        with guarded(images, program, rules, http=other) as running:
            yield running


def test_another_server_may_decide(images: Path, program: str) -> None:
    answers = f"""
        add_header WWW-Authenticate 'Bearer realm="https://tokens.example/"' always;
        if ($http_authorization = "{RIGHT}") {{ return 204; }}
        if ($http_authorization = "{WRONG}") {{ return 403; }}
        return 401;
    """
    with asking(images, program, answers) as running:
        refuses(running, URLS, 401, "UNAUTHORIZED", challenge='Bearer realm="https://tokens.example/"')
        for url in URLS:
            assert running.get(url, Authorization=WRONG).code == "DENIED", url
        assert_all_is_well(running, RIGHT)


def test_nobody_is_let_in_while_the_other_server_is_broken(images: Path, program: str) -> None:
    with asking(images, program, "return 502;") as running:
        refuses(running, URLS, 500, "UNKNOWN", authorization=RIGHT)


# -- a rule for some repositories ------------------------------------------------------------------


def internal_urls() -> list[str]:
    return [
        "/v2/internal/app/tags/list",
        "/v2/internal/app/tags/list?n=1&last=0",
        f"/v2/internal/app/referrers/{INTERNAL.digest}",
        f"/v2/internal/app/referrers/{INTERNAL.digest}?artifactType=a/b",
        "/v2/internal/app/manifests/1",
        f"/v2/internal/app/manifests/{INTERNAL.digest}",
        *(f"/v2/internal/app/manifests/{digest}" for digest in MULTI.manifests),
        *(f"/v2/internal/app/blobs/{digest}" for digest in INTERNAL.blobs),
        f"/v2/{LONG}/tags/list",
        f"/v2/{LONG}/manifests/1",
        "/v2/internal/app/manifests/unknown",
        f"/v2/internal/app/blobs/sha256:{'0' * 64}",
        "/v2/internal/unknown/tags/list",
        "/v2/internal/app/blobs/malformed",
        "/v2/internal/app/manifests/sha256:malformed",
    ]


@pytest.mark.parametrize(
    "http", [f"{REALM} include http.conf;", f"{OURS} {REALM}"], ids=["map before ours", "map after ours"]
)
def test_a_rule_for_some_repositories_holds_for_each_of_their_urls(
    images: Path, program: str, http: str
) -> None:
    rules = "auth_basic $realm; auth_basic_user_file passwords; include server.conf;"
    with site(images, TREE, program=program, http=http, server=rules, files=PASSWORDS) as running:
        for url in internal_urls():
            for spelling in [url, *spellings(url), url + "?ns=public", f"/v2/public/../{url[4:]}"]:
                for method in ("GET", "HEAD", "PUT", "DELETE"):
                    answer = running.get(spelling, method=method)
                    assert is_refusal(answer, method=method, status=401, code="UNAUTHORIZED"), spelling
                    assert answer.header("WWW-Authenticate") == 'Basic realm="internal images"'
        assert running.get("/v2/public/manifests/1").body == PUBLIC.raw
        assert running.get("/v2/").json() == {}
        assert_all_is_well(running, RIGHT)


def test_a_rule_for_some_repositories_holds_through_a_mirror(images: Path, program: str) -> None:
    rules = "auth_basic $realm; auth_basic_user_file passwords; include server.conf;"
    mirrors = {"docker.io": "internal/", "all.example.org": ""}
    with site(
        images, TREE, program=program, http=f"{OURS} {REALM}", server=rules, files=PASSWORDS, mirrors=mirrors
    ) as running:
        for url in internal_urls():
            separator = "&" if "?" in url else "?"
            short = url.replace("/v2/internal/", "/v2/")
            for spelling in (f"{short}{separator}ns=docker.io", f"{url}{separator}NS=ALL.example.org"):
                for method in ("GET", "HEAD", "PUT"):
                    answer = running.get(spelling, method=method)
                    assert is_refusal(answer, method=method, status=401, code="UNAUTHORIZED"), spelling
        assert running.get("/v2/app/manifests/1?ns=docker.io", Authorization=RIGHT).body == INTERNAL.raw
        assert running.get("/v2/public/manifests/1?ns=all.example.org").body == PUBLIC.raw


@pytest.mark.parametrize(
    "url",
    [
        "/v2/INTERNAL/app/manifests/1",
        "/v2/Internal/app/tags/list",
        "/v2/internal/../internal/app/manifests/1",
        "/v2/public/manifests/%2e%2e/%2e%2e/internal/app/manifests/1",
        "/v2//internal//app//manifests//1",
        "/v2/public%2f..%2finternal/app/manifests/1",
        "/v2/public/blobs/../../internal/app/.blobs/blobs/" + next(iter(INTERNAL.blobs)),
        "/v2/public/blobs/" + next(iter(INTERNAL.blobs)),
        "/v2/public/manifests/" + INTERNAL.digest,
        "/v2/app/manifests/1?ns=internal",
        "/v2/internal%00/app/manifests/1",
        "/v2/ internal/app/manifests/1".replace(" ", "%20"),
        "/v2/%2finternal/app/manifests/1",
        "/v2/./internal/./app/tags/../manifests/1",
        # a digest is found by its path in the store, and no map of names stands in between
        *(
            f"/v2/{name}/{kind}/{digest}"
            for name in (
                "/internal/app",
                "//internal/app",
                "internal//app",
                "internal/app/",
                "%2finternal/app",
            )
            for kind, digest in (("manifests", INTERNAL.digest), ("blobs", min(INTERNAL.blobs)))
        ),
    ],
)
def test_no_spelling_gets_round_a_rule_for_some_repositories(with_a_rule: Site, url: str) -> None:
    answer = with_a_rule.get(url)
    assert answer.status in (400, 401, 404)
    assert INTERNAL.raw not in answer.body


# -- what is outside --------------------------------------------------------------------------------


def test_before_the_first_generation_the_rules_hold_too(program: str) -> None:
    files = {**initial().files, **PASSWORDS}
    with nginx_with(OURS, f"{BASIC} include server.conf;", files=files, program=program) as running:
        for method, url in requests(URLS):
            assert running.ask(url, method=method).status == 401, (method, url)
        assert running.ask("/v2/", headers={"Authorization": RIGHT}).status == 503


@pytest.mark.parametrize(
    ("request_line", "statuses"),
    [
        pytest.param("TRACE /v2/ HTTP/1.1", {405}, id="TRACE"),
        pytest.param("CONNECT /v2/ HTTP/1.1", {400, 401, 405}, id="CONNECT"),  # before 1.21.1 as any method
        pytest.param("get /v2/ HTTP/1.1", {400}, id="lower case"),
        pytest.param("GET /v2/%00 HTTP/1.1", {400}, id="NUL"),
        pytest.param("GET /v2/%zz HTTP/1.1", {400}, id="bad escape"),
        pytest.param("GET /v2/../.. HTTP/1.1", {400}, id="above the root"),
        pytest.param(f"GET /v2/{'a' * 9000} HTTP/1.1", {414}, id="too long"),
        pytest.param("GET v2/ HTTP/1.1", {400}, id="no slash"),
        pytest.param("GET /v2/ HTTP/9.9", {505}, id="unknown version"),
    ],
)
def test_what_nginx_itself_refuses_before_any_location_says_nothing_of_ours(
    with_password: Site, request_line: str, statuses: set[int]
) -> None:
    """The only answers without a password that are not 401; their bodies are nginx's own pages."""
    request = f"{request_line}\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = exchange(with_password.nginx, request.encode())
    status = int(answer.split()[1])
    assert status in statuses
    assert (b"registry/2.0" in answer) is (status == 401)
    assert b"public" not in answer
