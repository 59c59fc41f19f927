"""The page as people see it: in a real Chromium, from a real nginx."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from scr_watchd.render.page import page
from tests.browser import showcase
from tests.browser.chrome import PHONE, WIDE, Chrome, browsing, chrome, requests
from tests.daemons import daemon, free_port, public_directory
from tests.http import ask
from tests.nginxes import require
from tests.render.site import catalog_with, store_of, stored
from tests.trees import OCI_MANIFEST, Built, descriptor, image, index, make_images

pytestmark = pytest.mark.slow

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chrome() as made:
        yield made


@pytest.fixture
def place() -> Iterator[Path]:
    with public_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def showcased() -> Iterator[str]:
    """The address of a `serve` of the showcase."""
    require("nginx")
    with public_directory() as directory:
        root = showcase.make(directory / "images")
        port = free_port()
        with daemon("serve", root, "--verify", "size", "--listen", port, "--rescan-seconds", 3600) as running:
            running.says("serving .* 27 repositories", seconds=60)
            yield f"http://127.0.0.1:{port}"


def config_with(seed: str, **config: object) -> Built:
    """A whole image whose configuration has ``config``."""
    content = f"layer of {seed}".encode()
    raw = json.dumps({"os": "linux", "architecture": "amd64", "seed": seed, **config}).encode()
    return showcase.manifest(raw, _CONFIG, [descriptor(content, _LAYER)], [content]).built


def test_the_way_from_the_front_to_a_layer_and_back(browser: Chrome, showcased: str) -> None:
    browser.base = showcased
    browser.driver.get(showcased + "/")
    browser.waits_for("location.pathname === '/v2/_scr/'")
    browser.says("27 repositories", "library", "registry.k8s.io")
    browser.click("#tree button", "platform")
    browser.click("#tree a", "ledger")
    browser.says("18 tags", "latest", "2.11.2", selector="main")
    browser.waits_for("document.querySelectorAll('.rows .chip').length > 30")
    tags = browser.texts(".rows .tag")
    assert tags[:5] == ["latest", "nightly", "2.12.0-rc.1", "2.11.2", "2.11.1"], "newest version first"
    browser.click(".segments button", "Name")
    browser.waits_for("document.querySelector('.rows .tag').innerText === '2.10.0'")
    browser.click(".rows .tag a", "2.11.2")
    said = browser.says("Layers and history", "Signatures", "SBOMs", "Attestations", selector="main")
    for words in ("RUN apk add", "LEDGER_VERSION", "/usr/bin/ledger", "8080/tcp", "41 MB", "4 layers"):
        assert words in said, words
    browser.click(".platforms a", "linux/arm64")
    browser.waits_for("document.querySelector('.facts').innerText.includes('linux/arm64')")
    assert browser.run("return location.hash") == "#/platform/ledger:2.11.2/linux%2Farm64"
    browser.driver.back()
    browser.waits_for("document.querySelector('.facts').innerText.includes('linux/amd64')")
    browser.driver.back()
    browser.says("18 tags", selector="main")


def test_a_link_leads_to_an_image_and_each_program_has_its_line(browser: Chrome, showcased: str) -> None:
    browser.base, host = showcased, showcased.removeprefix("http://")
    name = f"{host}/library/postgres:18"
    browser.open("#/library/postgres:18")
    browser.says(f"docker pull {name}")
    for tool, line in (
        ("podman", f"podman pull --tls-verify=false {name}"),
        ("skopeo", f"skopeo copy --src-tls-verify=false docker://{name} oci:postgres:18"),
        ("ctr", f"ctr images pull --plain-http {name}"),
        ("Kubernetes", f"image: {name}"),
    ):
        browser.click(".segments button", tool)
        browser.says(line)
    answer = ask(host, "/v2/library/postgres/manifests/18")
    browser.click("input[type=checkbox]")
    browser.says(f"image: {name}@{answer.header('Docker-Content-Digest')}")


def test_charts_and_artifacts_are_what_they_are(browser: Chrome, showcased: str) -> None:
    browser.base, host = showcased, showcased.removeprefix("http://")
    browser.open("#/charts/ledger:0.9.2")
    browser.says(
        "Helm chart", "Installs ledger", f"helm pull --plain-http oci://{host}/charts/ledger --version 0.9.2"
    )
    browser.open("#/policies/admission:2026-10")
    browser.says(
        "example.policy.bundle.v1",
        "admission.rego",
        f"oras pull --plain-http {host}/policies/admission:2026-10",
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_nothing_serious_is_found_by_axe_and_nothing_is_too_wide(
    browser: Chrome, showcased: str, scheme: str, size: tuple[int, int]
) -> None:
    browser.base = showcased
    browser.size(*size)
    browser.colours(scheme)
    try:
        for there, words in (
            ("", "27 repositories"),
            ("#/quay.io/", "prometheus"),
            ("#/platform/ledger", "46 MB"),
            ("#/platform/ledger:2.11.2", "Attestations"),
            ("#/charts/ledger:0.9.2", "Content"),
            ("#/platform/nothing", "It is not here"),
        ):
            browser.open(there)
            browser.says(words)
            assert browser.axe() == [], there
            assert browser.run("return document.documentElement.scrollWidth") <= size[0], there
            assert browser.hurt() == []
    finally:
        browser.size(*WIDE)
        browser.colours("light")


def test_the_keyboard_is_enough(browser: Chrome, showcased: str) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.base = showcased
    browser.open()
    browser.says("27 repositories", "library")
    browser.press("/")
    browser.press("prom")
    browser.says("2 of 27 repositories", "quay.io/prometheus/node-exporter")
    browser.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    browser.press(Keys.ENTER)
    browser.says("v3.6.0", selector="main")
    assert browser.run("return document.activeElement.id") == "main", "what is read next is what was opened"
    browser.press("/")
    browser.press(Keys.ESCAPE)
    browser.says("27 repositories", "platform", selector="nav")
    browser.press("/")
    browser.press("library/redis:8", Keys.ENTER)
    browser.says("docker pull", "library/redis:8", selector="main")


def test_ten_thousand_tags_cost_few_requests(browser: Chrome, place: Path) -> None:
    """A third of them in one repository, and 2,000 repositories in one directory."""
    built = config_with("many", created="2026-01-02T03:04:05Z")
    many = [("big/one", f"1.{number}.0", built.raw) for number in range(3000)]
    few = [(f"wide/n{number:04}", f"v{tag}", built.raw) for number in range(1750) for tag in range(4)]
    catalog = catalog_with([*many, *few])
    store = store_of(place / "store", catalog, {built.digest: built.raw})
    blobs = place / "store" / "big" / "one" / ".blobs" / "sha256"
    blobs.mkdir(parents=True)
    for name, content in built.files.items():
        (blobs / name).write_bytes(content)
    with browsing(browser, catalog, store):
        browser.open()
        browser.says("1,751 repositories")
        asked = browser.asked()
        assert len([each for each in asked if "_catalog" in each["name"]]) <= 20
        assert len(asked) <= 20, asked
        assert browser.run("return performance.now()") - max(each["responseEnd"] for each in asked) < 1000

        browser.open("#/big/one")
        shown = "document.querySelectorAll('.rows .tag').length >= 50 && performance.now()"
        moment = browser.waits_for(shown)
        lists = [each for each in browser.asked() if each["name"].endswith("/tags/list")]
        assert len(lists) == 1
        assert moment - lists[0]["responseEnd"] < 1000
        in_view = browser.waits_for(
            "(rows => rows.every(e => /amd64/.test(e.innerText)) && rows.length)"
            "([...document.querySelectorAll('.rows tbody tr')]"
            ".filter(e => e.getBoundingClientRect().top < innerHeight))"
        )
        manifests = [
            each for each in browser.asked() if "/manifests/" in each["name"] or "/blobs/" in each["name"]
        ]
        assert len(manifests) <= 3 * in_view
        assert browser.texts(".rows .tag")[0] == "1.2999.0"
        browser.run("scrollTo(0, document.documentElement.scrollHeight)")
        browser.waits_for("document.querySelectorAll('.rows .tag').length >= 150")


def test_hostile_texts_stay_texts(browser: Chrome, place: Path) -> None:
    markup = "<img src=x onerror=\"canary='dead'\"><script>canary='dead'</script><svg onload=canary='dead'>"
    links = "javascript:canary='dead'"
    hostile = config_with(
        "hostile",
        author=markup,
        created=markup,
        config={
            "Labels": {
                markup: markup,
                "org.opencontainers.image.source": links,
                "__proto__": markup,
                "huge": "x" * 90_000,
            },
            "Env": [f"A={markup}", markup, 7, None],
            "Entrypoint": [markup, {"onclick": links}],
            "Cmd": markup,
            "User": {"onclick": links},
            "ExposedPorts": {markup: {}},
        },
        history=[{"created_by": markup, "comment": markup}, 5, None, "text"],
    )
    document = json.loads(hostile.raw)
    document["annotations"] = {
        "org.opencontainers.image.description": markup + "‮gnp.exe",
        "org.opencontainers.image.url": links,
        "org.opencontainers.image.documentation": "https://docs.example.com/<b>",
        markup: links,
    }
    odd = Built(json.dumps(document).encode(), OCI_MANIFEST, hostile.files)
    kind = image("kind", artifactType="text/html<script>canary='dead'</script>")
    listed = index(image("a"), image("b"))
    document = json.loads(listed.raw)
    document["manifests"][0]["platform"] = {"os": markup, "architecture": [links], "variant": {"x": markup}}
    document["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": markup}
    document["annotations"] = [markup]
    many = Built(json.dumps(document).encode(), listed.media_type, listed.files)
    root = make_images(place / "images", {"evil/app": {"odd": odd, "kind": kind, "many": many}})
    with browsing(browser, stored(root, place / "store"), place / "store"):
        browser.open("#/evil/app")
        browser.says("odd", "kind", "many", selector="main")
        for tag, words in (("odd", "Labels"), ("kind", "text/html<script>"), ("many", "Platforms")):
            browser.open(f"#/evil/app:{tag}")
            browser.says("docker pull" if tag != "kind" else "oras pull", words, selector="main")
            browser.says("Manifest", selector="main")
            assert browser.hurt() == [], tag
            made = "document.querySelectorAll('main img, main script, main svg[onload], main iframe')"
            assert browser.run(f"return {made}.length") == 0
            hrefs = browser.run("return [...document.querySelectorAll('main a')].map(e => e.href)")
            assert all(each.startswith(("http://", "https://")) for each in hrefs), hrefs
        browser.open("#/evil/app:odd")
        said = browser.says("<img src=x onerror=", "\\u202egnp.exe", "Documentation", selector="main")
        assert "Source" not in said, "its address is no http address"
        for there in ("#/%", "#/<img src=x onerror=alert(1)>", "#/a:b:c", "#/../../etc", "#/a@sha256:0"):
            browser.open(there)
            browser.says("There is no such place", selector="main")
            assert browser.hurt() == []


def test_a_site_with_a_password_needs_no_word_here(browser: Chrome, place: Path) -> None:
    (place / "htpasswd").write_text("puller:{PLAIN}secret\n")
    root = make_images(place / "images", {"app": {"1": config_with("one")}})
    rule = f'auth_basic registry; auth_basic_user_file "{place}/htpasswd";'
    with browsing(browser, stored(root, place / "store"), place / "store", server=rule) as site:
        assert site.get("/v2/_scr/").status == 401
        browser.open(user="puller:secret")  # a browser goes on with what it was given
        browser.open("#/app:1")
        browser.says("1 repository", "docker pull", "linux/amd64")
        assert requests(site)[-1].endswith("200")


def test_a_repository_with_a_rule_is_asked_for_when_it_is_opened_and_not_again(
    browser: Chrome, place: Path
) -> None:
    (place / "htpasswd").write_text("puller:{PLAIN}secret\n")
    built = {"1": config_with("one"), "2": config_with("two")}
    root = make_images(place / "images", {"open": built, "internal/app": built})
    rules = f'auth_basic $realm; auth_basic_user_file "{place}/htpasswd";'
    realm = 'map $scr_repo $realm { default off; ~^internal/ "internal"; }'
    catalog = stored(root, place / "store")
    with (
        browsing(browser, catalog, place / "store", server=rules, http=realm) as site,
        browser.signing_in(["", "puller:secret"]),
    ):

        def asked() -> list[str]:
            return [line for line in requests(site) if "/v2/internal/" in line]

        browser.open()
        browser.says("2 repositories")
        browser.go("#/open")
        browser.says("2 tags")
        assert asked() == []
        browser.go("#/internal/app")
        browser.says("A sign-in is needed", "Sign in")
        assert asked() == ["GET /v2/internal/app/tags/list 401"]
        browser.go("#/open:1")
        browser.says("docker pull")
        browser.go("#/internal/app:1")
        browser.says("A sign-in is needed")
        browser.go("#/internal/app")
        browser.says("A sign-in is needed")
        assert len(asked()) == 1, "what was cancelled is not asked again unasked"
        browser.click("button", "Sign in")
        browser.says("2 tags", "amd64", selector="main")


def test_without_a_list_a_name_is_asked_for(browser: Chrome, place: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    root = make_images(place / "images", {"library/alpine": {"3.22": config_with("alpine")}})
    catalog = stored(root, place / "store")
    with browsing(browser, catalog, place / "store", list_repositories=False):
        browser.open()
        browser.says("does not list its repositories", "Type the name")
        browser.press("/")
        browser.press("library/alpine", Keys.ENTER)
        browser.says("1 tag", "3.22", selector="main")
        browser.press("/")
        browser.run("document.getElementById('filter').select()")
        browser.press("No Such", Keys.ENTER)
        browser.says("There is no such place")


def test_what_vanished_and_what_is_absent_is_said(browser: Chrome, place: Path) -> None:
    document = json.loads(index(config_with("amd"), config_with("arm"), config_with("gone")).raw)
    for each, architecture in zip(document["manifests"], ("amd64", "arm64", "s390x"), strict=True):
        each["platform"] = {"os": "linux", "architecture": architecture}
    whole = index(config_with("amd"), config_with("arm"), config_with("gone"))
    listed = Built(json.dumps(document).encode(), whole.media_type, whole.files)
    root = make_images(place / "images", {"app": {"1": listed, "2": config_with("two")}})
    catalog = stored(root, place / "store")
    with browsing(browser, catalog, place / "store") as site:
        site.manifest_file("app", "1", config_with("amd").digest).unlink()
        site.manifest_file("app", "1", config_with("gone").digest).unlink()
        site.manifest_file("app", "2", config_with("two").digest).unlink()
        browser.open("#/app")
        browser.says("not here any more", "arm64", selector="main")
        browser.go("#/app:1")
        browser.waits_for("document.querySelectorAll('.platforms .absent').length === 2")
        assert browser.texts(".platforms a") == ["linux/amd64\nabsent", "linux/arm64", "linux/s390x\nabsent"]
        browser.says("linux/arm64", "Layers", selector="main")  # the first that is here
        browser.click(".platforms a", "linux/s390x")
        browser.says("linux/s390x is absent here")
        browser.go("#/app:2")
        browser.says("It is not here", "Try again")


def test_a_large_configuration_is_named_and_not_fetched(browser: Chrome, place: Path) -> None:
    large = config_with("large", padding="x" * (1 << 20))
    root = make_images(place / "images", {"app": {"1": large}})
    with browsing(browser, stored(root, place / "store"), place / "store") as site:
        browser.open("#/app:1")
        browser.says("A large configuration", "1.0 MB", json.loads(large.raw)["config"]["digest"])
        assert not [line for line in requests(site) if "/blobs/" in line]


def test_a_network_that_goes_away_is_said_and_comes_back(browser: Chrome, place: Path) -> None:
    root = make_images(
        place / "images", {"app": {"1": config_with("one")}, "other": {"1": config_with("two")}}
    )
    with browsing(browser, stored(root, place / "store"), place / "store"):
        browser.open("#/app")
        browser.says("1 tag", selector="main")
        browser.offline(away=True)
        try:
            browser.go("#/other")
            browser.says("The registry cannot be reached")
        finally:
            browser.offline(away=False)
        browser.click("button", "Try again")
        browser.says("1 tag", selector="main")


def test_the_page_asks_nobody_else(browser: Chrome, showcased: str) -> None:
    browser.base = showcased
    browser.open("#/platform/ledger:2.11.2")
    browser.says("Attestations")
    entries = browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert all(each.startswith((f"{showcased}/v2/", "data:")) for each in entries), entries
    assert b"http://" not in page().replace(b"http://www.w3.org/2000/svg", b"")
