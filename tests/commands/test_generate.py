"""`scr-watchd generate`: what it prints is read by a real nginx, and answers like a registry."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from scr_watchd.render.http_conf import render
from scr_watchd.render.single_file import LONGEST_NAME
from tests.clients.real_images import Sources, Workshop, assert_same, drop, kinds, pull, skopeo
from tests.daemons import free_port, public_directory, public_path, scr_watchd
from tests.nginxes import Running, binaries, nginx_with
from tests.render import contract
from tests.render.contract import (
    ALPINE,
    DOCKER,
    ENDPOINTS,
    NESTED,
    NO_BLOB,
    NO_REFERENCE,
    SITE_HTTP,
    SITE_SERVER,
    WRITING,
    Contract,
    headers,
    is_error,
    misses_what_vanishes,
    refuses_a_push,
    serves,
)
from tests.render.refusals import PASSWORDS, RIGHT, is_refusal, refuses
from tests.render.site import Served, catalog_with, spellings
from tests.trees import (
    Built,
    image,
    make_images,
    write_image,
    write_layout,
)

__all__ = ["public_path"]  # a fixture

LONG_NAME = ("long." * 51)[: LONGEST_NAME - 1] + "x"
MANY_TAGS = [f"{'release' * 15}-{number:05d}" for number in range(80)]  # 9 KB of a list

MANY = image("many")

TREE: dict[str, dict[str, Built]] = {
    **contract.TREE,
    "alpine": {**contract.TREE["alpine"], "default": image("default"), "t" * 128: image("long")},
    "a": {"1": image("a")},
    "a/b": {"1": image("a/b")},
    "a/manifests": {"1": image("a/manifests"), "list": image("list")},
    "a/manifests/tags": {"1": image("a/manifests/tags")},
    "a/blobs": {"1": image("a/blobs")},
    "a/tags": {"list": image("a/tags")},
    "a-b/c": {"1": image("a-b/c")},
    "include/default": {"server": image("words of nginx")},
    **{
        LONG_NAME[-length:].strip("."): {"1": image(f"{length}"), "T." * 64: ALPINE}
        for length in (100, 170, 200)
    },
    LONG_NAME: {"1": image("longest"), "t." * 64: ALPINE, "t." * 63 + "tt": DOCKER},
    "many": dict.fromkeys(MANY_TAGS, MANY),
}

ALONE = ("", "include registry.conf;")
IN_A_SITE = (
    f"{SITE_HTTP} disable_symlinks on; map $host $not_ours {{ default 1; }}",
    SITE_SERVER
    + """
    location / { return 200 "the site"; }
    location ~ manifests { return 200 "a location of the site"; }
    set $scr_repo nobody; rewrite ^/old/(.*)$ /v2/$1;
    include registry.conf;
    """,
)


def generate(*arguments: object) -> bytes:
    """What the command prints; it must have nothing to complain of."""
    result = scr_watchd("generate", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.encode()


@dataclass
class Registry(Served):
    """An nginx that includes what was generated from ``root``."""

    root: Path

    def manifest_file(self, name: str, tag: str, digest: str) -> Path:
        child = self.blob_file(name, tag, f"{digest}.manifest.json")
        return child if child.exists() else child.with_name("manifest.json")

    def blob_file(self, name: str, tag: str, digest: str) -> Path:
        return self.root / name / tag / digest.partition(":")[2]

    def complaints(self) -> list[str]:
        """What nginx logged, but for the question whether it is up, to which a bare server has no page."""
        return [line for line in self.log().splitlines() if "html/index.html" not in line]


@contextmanager
def registry_of(
    root: Path,
    text: bytes,
    *,
    program: str | None = None,
    around: tuple[str, str] = ALONE,
    files: Mapping[str, bytes] | None = None,
) -> Iterator[Registry]:
    http, server = around
    with nginx_with(http, server, files={"registry.conf": text, **(files or {})}, program=program) as nginx:
        yield Registry(nginx, root)


@pytest.fixture(scope="module", params=binaries())
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param())


@pytest.fixture(scope="module", params=[ALONE, IN_A_SITE], ids=["alone", "in a site"])
def around(request: pytest.FixtureRequest) -> tuple[str, str]:
    http, server = request.param
    return http, server


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with public_directory() as directory:
        yield make_images(directory / "images", TREE)


@pytest.fixture(scope="module")
def registry(root: Path, program: str, around: tuple[str, str]) -> Iterator[Registry]:
    with registry_of(root, generate(root), program=program, around=around) as running:
        yield running
        assert not running.complaints()


class TestContract(Contract):
    tree = TREE


def test_a_catalog_has_no_pages(registry: Registry) -> None:
    whole, page = (registry.get(f"/v2/_catalog{query}") for query in ("", "?n=1"))
    assert (page.status, page.body, headers(page)) == (200, whole.body, headers(whole))


def test_a_name_may_end_as_an_endpoint_begins(registry: Registry) -> None:
    assert registry.get("/v2/a/blobs/tags/list").status == 200


def test_a_generation_is_no_endpoint(registry: Registry) -> None:
    is_error(registry.get("/v2/_scr/generation"), 404, "UNSUPPORTED")


@pytest.mark.parametrize("method", WRITING)
def test_nothing_can_be_pushed_by_a_malformed_digest(registry: Registry, method: str) -> None:
    refuses_a_push(registry, NO_REFERENCE, method)


def test_the_rest_of_the_site_is_its_own(registry: Registry, around: tuple[str, str]) -> None:
    if around == IN_A_SITE:
        assert registry.get("/").body == b"the site"
        assert registry.get("/v2extra").body == b"the site"
        assert registry.get("/my/manifests").body == b"a location of the site"
        assert registry.get("/old/alpine/manifests/3.20").body == ALPINE.raw


def test_an_oci_layout_is_served_from_where_its_blobs_lie(tmp_path: Path, program: str) -> None:
    write_layout(tmp_path / "library" / "app", ("1", ALPINE), ("nested", NESTED))
    write_layout(tmp_path / "app:1", (None, MANY))
    with registry_of(tmp_path, generate(tmp_path), program=program) as running:
        serves(running, "library/app", {"1": ALPINE, "nested": NESTED})
        serves(running, "app", {"1": MANY})
        assert running.complaints() == []


# -- what happens to the tree afterwards -------------------------------------------------------------


def test_a_file_that_vanished_is_not_found(tmp_path: Path, program: str, around: tuple[str, str]) -> None:
    root = make_images(tmp_path / "images", {"alpine": {"1": ALPINE}})
    with registry_of(root, generate(root), program=program, around=around) as running:
        misses_what_vanishes(running)


def test_what_becomes_a_link_later_is_refused(tmp_path: Path, program: str, around: tuple[str, str]) -> None:
    """Whoever may write to the tree must not have nginx read what lies elsewhere."""
    (tmp_path / "secret").write_text("secret")
    root = make_images(tmp_path / "images", {"alpine": {"1": ALPINE}})
    (tmp_path / "way").symlink_to("images")
    with registry_of(
        root, generate(root, "--server-root", tmp_path / "way"), program=program, around=around
    ) as running:
        digest = next(iter(ALPINE.blobs))
        assert running.get(f"/v2/alpine/blobs/{digest}").status == 200, "the way to the tree may be a link"
        for name in (digest[7:], "manifest.json"):
            (root / "alpine" / "1" / name).unlink()
            (root / "alpine" / "1" / name).symlink_to(tmp_path / "secret")
        for path in (f"blobs/{digest}", "manifests/1", f"manifests/{ALPINE.digest}"):
            answer = running.get(f"/v2/alpine/{path}")
            assert (answer.status, answer.code) == (403, "DENIED")


# -- access rules ------------------------------------------------------------------------------------


def location_of(text: str, url: str) -> str:
    """The `location` line of the file that nginx chooses for ``url``."""
    lines = re.findall(r'^ *location (?:(=|\^~|~) )?(\S+|".*") \{$', text, re.MULTILINE)
    exact = [path for kind, path in lines if kind == "=" and path == url]
    longest = max(
        (path for kind, path in lines if kind == "^~" and url.startswith(path)), key=len, default=""
    )
    patterns = [
        path.strip('"').replace("?<", "?P<").replace(r"\z", r"\Z") for kind, path in lines if kind == "~"
    ]
    inside = [pattern for pattern in patterns if longest == "/v2/" and re.search(pattern, url)]
    return str([*exact, *inside, longest][0])


def test_every_location_has_a_url_here(tmp_path: Path) -> None:
    text = generate(make_images(tmp_path, {"alpine": {"3.20": ALPINE}})).decode()
    lines = re.findall(r'^ *location (?:=|\^~|~) (\S+|".*") \{$', text, re.MULTILINE)
    assert len(lines) + len(re.findall(r"^location @", text, re.MULTILINE)) == text.count("location ") - len(
        re.findall(r"#.* location ", text)
    )
    more = [f"/v2/alpine/blobs/{digest}" for digest in ALPINE.blobs]
    known = {location_of(text, url) for url in [*ENDPOINTS, *more]}
    wanted = {line.strip('"').replace("?<", "?P<").replace(r"\z", r"\Z") for line in lines}
    assert known == wanted


@pytest.mark.parametrize(
    ("rules", "status", "code"),
    [
        ('auth_basic "images"; auth_basic_user_file passwords;', 401, "UNAUTHORIZED"),
        ("deny all;", 403, "DENIED"),
        (
            'satisfy any; deny all; auth_basic "images"; auth_basic_user_file passwords;',
            401,
            "UNAUTHORIZED",
        ),
        ("auth_request /auth; location = /auth { internal; return 403; }", 403, "DENIED"),
    ],
    ids=["auth_basic", "deny", "satisfy any", "auth_request"],
)
def test_who_may_not_read_gets_nothing_but_401_or_403(
    root: Path, program: str, rules: str, status: int, code: str
) -> None:
    around = ("", f"{rules} client_max_body_size 1k; include registry.conf;")
    with registry_of(root, generate(root), program=program, around=around, files=PASSWORDS) as running:
        refuses(running, ENDPOINTS, status, code)
        if status == 401:
            serves(running, "alpine", TREE["alpine"], authorization=RIGHT)
            assert running.get("/v2/_catalog", Authorization=RIGHT).status == 200
            assert running.get("/v2/", Authorization=RIGHT).json() == {}


def test_a_rule_for_some_repositories_holds_for_each_of_their_urls(tmp_path: Path, program: str) -> None:
    tree = {"public": {"1": image("public")}, "internal/app": {"1": image("internal")}}
    root = make_images(tmp_path, tree)
    around = (
        'map $scr_repo $realm { default off; ~^internal/ "internal images"; }',
        "auth_basic $realm; auth_basic_user_file passwords; include registry.conf;",
    )
    with registry_of(root, generate(root), program=program, around=around, files=PASSWORDS) as running:
        built = tree["internal/app"]["1"]
        for path in (
            "tags/list",
            "manifests/1",
            "manifests/unknown",
            f"manifests/{built.digest}",
            f"manifests/{NO_BLOB}",
            *(f"blobs/{digest}" for digest in built.blobs),
            f"blobs/{NO_BLOB}",
            "blobs/malformed",
        ):
            for name in ("internal/app", "internal/unknown"):
                url = f"/v2/{name}/{path}"
                for spelling in [url, *spellings(url), f"/v2/public/../{url[4:]}"]:
                    for method in ("GET", "HEAD", "PUT"):
                        answer = running.get(spelling, method=method)
                        assert is_refusal(answer, method=method, status=401, code="UNAUTHORIZED"), spelling
        serves(running, "internal/app", tree["internal/app"], authorization=RIGHT)
        serves(running, "public", tree["public"])
        assert running.get("/elsewhere").status == 404
        assert not [line for line in running.complaints() if "uninitialized" in line]


def test_too_many_requests_are_said_with_the_status_of_the_site(root: Path, program: str) -> None:
    for status in (429, 503):
        http = "limit_req_zone $scheme zone=few:1m rate=1r/m;"
        server = f"limit_req zone=few; limit_req_status {status}; include registry.conf;"
        with registry_of(root, generate(root), program=program, around=(http, server)) as running:
            answers = [running.get("/v2/alpine/manifests/3.20") for _ in range(3)]
            is_error(answers[-1], status, "TOOMANYREQUESTS")


# -- options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["mirror", "mirror/", "/mirror/", "a/b"])
def test_a_prefix_goes_before_every_name(tmp_path: Path, program: str, prefix: str) -> None:
    tree = {name: images for name, images in TREE.items() if len(name) < 50 and name != "many"}
    root = make_images(tmp_path, tree)
    with registry_of(root, generate(root, "--name-prefix", prefix), program=program) as running:
        name = prefix.strip("/")
        serves(running, f"{name}/alpine", TREE["alpine"])
        serves(running, f"{name}/a/manifests", TREE["a/manifests"])
        assert running.get("/v2/alpine/tags/list").code == "NAME_UNKNOWN"
        assert running.get("/v2/_catalog").json() == {
            "repositories": [f"{name}/{each}" for each in sorted(tree)]
        }


def test_the_tree_may_lie_elsewhere_on_the_server(root: Path, tmp_path: Path, program: str) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.symlink_to(root)
    text = generate(root, "--server-root", f"{elsewhere}/")
    assert str(root).encode() not in text
    with registry_of(root, text, program=program) as running:
        serves(running, "alpine", TREE["alpine"])


@pytest.mark.parametrize(
    ("option", "below"),
    [("$registry_root", ""), ("${registry_root}", ""), ("$registry_root/images", "/..")],
)
def test_the_site_may_say_in_a_variable_where_the_tree_lies(
    root: Path, program: str, option: str, below: str
) -> None:
    text = generate(root, "--server-root", option)
    assert str(root).encode() not in text
    around = ("", f"set $registry_root {os.path.normpath(f'{root}{below}')}; include registry.conf;")
    with registry_of(root, text, program=program, around=around) as running:
        serves(running, "alpine", TREE["alpine"])
        serves(running, "multi", TREE["multi"])
        assert not running.complaints()


def test_several_trees_share_a_server_and_one_set_of_constants(tmp_path: Path, program: str) -> None:
    """In whatever order they are included, and below other prefixes or none."""
    trees = {
        "": {"app": {"1": image("app")}, "many": dict.fromkeys(MANY_TAGS, MANY)},
        "mirror": {"app": {"1": image("mirror")}},
        "other/one": {"app": {"2": image("other")}, "many": {"3": MANY}},
    }
    files = {"constants.conf": generate("--only-constants")}
    for number, (prefix, tree) in enumerate(trees.items()):
        root = make_images(tmp_path / str(number), tree)
        files[f"{number}.conf"] = generate(root, "--omit-constants", "--name-prefix", prefix)
    for order in (["constants", "0", "1", "2"], ["2", "1", "constants", "0"], ["0", "1", "2", "constants"]):
        server = "".join(f"include {name}.conf;" for name in order)
        with nginx_with("", server, files=files, program=program) as nginx:
            running = Registry(nginx, tmp_path)
            for prefix, tree in trees.items():
                for name, images in tree.items():
                    serves(running, f"{prefix}/{name}".lstrip("/"), images)
            by_include = [
                f"{list(trees)[int(each)]}/{name}".lstrip("/")
                for each in order
                if each != "constants"
                for name in trees[list(trees)[int(each)]]
            ]
            assert running.get("/v2/_catalog").json() == {"repositories": by_include}
            assert running.get("/v2/mirror/unknown/tags/list").code == "NAME_UNKNOWN"
            assert running.get("/v2/mirror/app/manifests/1", method="PUT").status == 405
            assert not running.complaints()


def test_both_halves_are_the_whole(root: Path) -> None:
    assert generate(root) == generate(root, "--omit-constants") + generate("--only-constants")


def test_constants_alone_are_a_registry_without_images(tmp_path: Path, program: str) -> None:
    with registry_of(tmp_path, generate("--only-constants"), program=program) as running:
        assert running.get("/v2/").json() == {}
        assert running.get("/v2/_catalog").json() == {"repositories": []}
        assert running.get("/v2/any/manifests/1").code == "NAME_UNKNOWN"
        assert not running.complaints()


def test_the_root_is_the_working_directory_unless_named(root: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "scr_watchd", "generate"],
        cwd=root,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert result.stdout == generate(root)


def test_beside_the_files_of_a_daemon_in_the_same_nginx(root: Path, program: str) -> None:
    """Another server {} of this nginx is served by `scr-watchd run`."""
    rendered = render(catalog_with([("daemon", "1", b"x")]), store="/nowhere")
    http = 'include hash.conf; include http.conf; map $scr_repo $realm { default off; daemon "its"; }'
    other = "auth_basic $realm; auth_basic_user_file passwords; include server.conf;"
    with public_directory() as directory:
        extra = f"server {{ listen unix:{directory}/other.sock; {other} }}"
        files = {**rendered.files, **PASSWORDS, "registry.conf": generate(root)}
        with nginx_with(http, "include registry.conf;", files=files, program=program, extra=extra) as nginx:
            serves(Registry(nginx, root), "alpine", TREE["alpine"])
            daemons = Registry(Running(f"{directory}/other.sock", nginx.directory, nginx.process), root)
            assert daemons.get("/v2/daemon/tags/list").status == 401
            assert daemons.get("/v2/daemon/tags/list", Authorization=RIGHT).json()["tags"] == ["1"]


# -- output --------------------------------------------------------------------------------------------


def test_a_file_is_replaced_in_one_step_and_a_link_to_it_stays(root: Path, tmp_path: Path) -> None:
    live, link = tmp_path / "live.conf", tmp_path / "enabled.conf"
    live.write_text("# the old one\n")
    link.symlink_to("live.conf")
    old = live.stat().st_ino
    assert generate(root, "-o", link) == b""
    assert live.read_bytes() == generate(root)
    assert link.is_symlink()
    assert live.stat().st_ino != old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["enabled.conf", "live.conf"]


def test_many_at_once_leave_a_whole_file_at_every_moment(root: Path, tmp_path: Path) -> None:
    live = tmp_path / "live.conf"
    whole = generate(root)
    live.write_bytes(whole)
    command = [sys.executable, "-m", "scr_watchd", "generate", str(root), "-o", str(live)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(8)]
    while any(each.poll() is None for each in running):
        assert live.read_bytes() == whole
    assert [each.communicate(timeout=10)[1] for each in running] == [b""] * 8
    assert [each.returncode for each in running] == [0] * 8
    assert [path.name for path in tmp_path.iterdir()] == ["live.conf"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        pytest.param(["{tmp}/missing"], 1, "cannot be read", id="no such root"),
        pytest.param(["{tmp}/file"], 1, "cannot be read", id="a file"),
        pytest.param(["{tmp}/empty"], 1, "no image to serve", id="an unmounted disk"),
        pytest.param(["{tmp}/broken"], 1, "no image to serve", id="nothing but broken images"),
        pytest.param(["{tmp}/dollar$"], 1, "--server-root", id="a root that nginx cannot be told"),
        pytest.param(["{tmp}/images", "--name-prefix", "UPPER"], 2, "lower-case", id="a bad prefix"),
        pytest.param(["{tmp}/images", "--server-root", "images"], 2, "absolute", id="a relative root"),
        pytest.param(["{tmp}/images", "--server-root", "/a$b"], 2, "nginx cannot", id="a $ in the middle"),
        pytest.param(["{tmp}/images", "--server-root", "$"], 2, "variable", id="no variable"),
        pytest.param(["{tmp}/images", "--server-root", "$a b"], 2, "variable", id="a bad variable"),
        pytest.param(
            ["{tmp}/images", "--only-constants", "--omit-constants"], 2, "not allowed", id="nothing at all"
        ),
    ],
)
def test_what_fails_prints_nothing_and_leaves_the_live_file(
    tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    make_images(tmp_path / "images", {"app": {"1": ALPINE}})
    make_images(tmp_path / "dollar$", {"app": {"1": ALPINE}})
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    broken = make_images(tmp_path / "broken", {"app": {"1": ALPINE}})
    (broken / "app" / "1" / next(iter(ALPINE.blobs))[7:]).unlink()
    live = tmp_path / "live.conf"
    live.write_text("# the old one\n")
    named = [each.replace("{tmp}", str(tmp_path)) for each in arguments]
    for more in ([], ["-o", live]):
        result = scr_watchd("generate", *named, *more)
        assert (result.returncode, result.stdout) == (status, ""), result.stderr
        assert message in result.stderr
        assert "Traceback" not in result.stderr
    assert live.read_text() == "# the old one\n"


def test_a_directory_that_cannot_be_written_is_a_sentence(root: Path, tmp_path: Path) -> None:
    for output in (tmp_path / "missing" / "file", tmp_path, "/dev/stdout"):
        result = scr_watchd("generate", root, "-o", output)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("scr-watchd: ")
        assert "Traceback" not in result.stderr


def test_one_broken_image_hides_no_other(tmp_path: Path, program: str) -> None:
    root = make_images(tmp_path / "images", {"good": {"1": ALPINE}, "bad": {"1": DOCKER, "2": ALPINE}})
    (root / "bad" / "1" / next(iter(DOCKER.blobs))[7:]).unlink()
    live = tmp_path / "live.conf"
    result = scr_watchd("generate", root, "-o", live)
    assert (result.returncode, result.stdout) == (3, "")
    assert f"not served: {root}/bad/1\n  blob sha256:" in result.stderr
    assert "skopeo copy docker://SOURCE" in result.stderr
    with registry_of(root, live.read_bytes(), program=program) as running:
        serves(running, "good", {"1": ALPINE})
        serves(running, "bad", {"2": ALPINE})


# -- hostile directories -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        b"with space",
        b"quo'te",
        b'double"quote',
        b"back\\slash",
        b"trailing\\",
        b"semi;colon",
        b"{ braces }",
        b"#comment",
        b"new\\nline",
        b"*?[a]",
        b"percent%20",
        "umläut".encode(),
        b"\xff\xfe",
        b"@NAME@ @LIST@ @TAGS@ @BLOBS@",
        b"x" * 250,
    ],
)
def test_a_root_of_any_name_is_served(tmp_path: Path, program: str, name: bytes) -> None:
    root = make_images(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)), {"app": {"1": ALPINE}})
    assert generate(root, "-o", tmp_path / "registry.conf") == b""
    with registry_of(root, (tmp_path / "registry.conf").read_bytes(), program=program) as running:
        serves(running, "app", {"1": ALPINE})


@pytest.mark.parametrize("name", [b"dol$lar", b"new\nline", b"\x01", b"$scr_repo", b"d" * 250 + b"$"])
def test_a_path_that_nginx_cannot_be_told_is_a_problem_and_not_a_broken_file(
    tmp_path: Path, program: str, name: bytes
) -> None:
    """Names and tags are parsed, but a link may lead to a directory of any name."""
    root = make_images(tmp_path / "images", {"app": {"1": ALPINE}})
    target = os.fsdecode(os.fsencode(root) + b"/.hidden/" + name)
    write_image(Path(target), DOCKER)
    (root / "app" / "2").symlink_to(target)
    (root / "app" / "3").symlink_to(root / "app" / "1")
    result = scr_watchd("generate", root, "-o", tmp_path / "registry.conf")
    assert result.returncode == 3
    assert f"not served: {root}/app/2" in result.stderr
    assert "nginx cannot be told" in result.stderr
    with registry_of(root, (tmp_path / "registry.conf").read_bytes(), program=program) as running:
        serves(running, "app", {"1": ALPINE, "3": ALPINE})
        assert running.get(f"/v2/app/manifests/{DOCKER.digest}").code == "MANIFEST_UNKNOWN"


def test_a_link_may_lead_to_a_directory_of_an_odd_name(tmp_path: Path, program: str) -> None:
    root = make_images(tmp_path / "images", {"app": {"1": ALPINE}})
    odd = write_image(root / ".it's; {odd}", DOCKER)
    (root / "app" / "2").symlink_to(odd)
    with registry_of(root, generate(root), program=program) as running:
        serves(running, "app", {"1": ALPINE, "2": DOCKER})


def test_a_name_that_no_location_can_have_is_a_problem(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"app": {"1": ALPINE}, LONG_NAME[:-1] + "xx": {"1": DOCKER}})
    result = scr_watchd("generate", root)
    assert result.returncode == 3
    assert f"of more than {LONGEST_NAME} characters, and this has {LONGEST_NAME + 1}\n" in result.stderr
    assert LONG_NAME[:-1] not in result.stdout


# -- real clients --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return kinds(Workshop(tmp_path_factory.mktemp("workshop")))


@pytest.mark.slow
def test_real_images_come_back_as_they_went_in(sources: Sources, tmp_path: Path, program: str) -> None:
    root = tmp_path / "an odd 'root'"
    (root / "library").mkdir(parents=True)
    for kind in sources:
        drop(sources, kind, root / "library" / f"{kind}:1.0")
    address = f"127.0.0.1:{free_port()}"
    around = ("", f"listen {address}; include registry.conf;")
    with registry_of(root, generate(root, "--name-prefix", "mirror"), program=program, around=around):
        for kind in sources:
            name = f"mirror/library/{kind}:1.0"
            assert_same(pull(address, name, tmp_path / kind), root / "library" / f"{kind}:1.0")
            assert '"Architecture": "amd64"' in skopeo(
                "inspect", "--tls-verify=false", f"docker://{address}/{name}"
            )
        listed = skopeo("list-tags", "--tls-verify=false", f"docker://{address}/mirror/library/oci")
        assert '"Tags": [\n        "1.0"\n    ]' in listed
