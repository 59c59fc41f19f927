"""Signatures and SBOMs across an air gap, as docs/clients.md has it: made at a registry in one network,
carried as OCI layouts, verified at ours in another network."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import make_pair
from tests.clients.real_images import Workshop, skopeo
from tests.daemons import daemon, public_directory, scr_watchd
from tests.documents import block
from tests.engines import run
from tests.networks import ADDRESS, network
from tests.nginxes import SUITES, require
from tests.roots import PACKAGES, root
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.clients]

SOURCE, MIRROR = "registry.example.com", "mirror.example.com"
ONE, SEVERAL, OLD, VERIFY = (
    block("docs/clients.md", "Signatures across an air gap", "--to-oci-layout app:1"),
    block("docs/clients.md", "Signatures across an air gap", "--to-oci-layout-path"),
    block("docs/clients.md", "Signatures across an air gap", "oras resolve"),
    block("docs/clients.md", "Signatures across an air gap", "notation verify"),
)
COSIGN, NOTATION, SBOM = (
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.cncf.notary.signature",
    "application/spdx+json",
)
POLICY = {
    "version": "1.0",
    "trustPolicies": [
        {
            "name": "ours",
            "registryScopes": [f"{MIRROR}/team/app"],
            "signatureVerification": {"level": "strict"},
            "trustStores": ["ca:team.example.com"],
            "trustedIdentities": ["*"],
        }
    ],
}


@dataclass(frozen=True)
class Tools:
    """The clients of another Debian in one of the networks, and what they keep at home."""

    home: Path
    words: tuple[str, ...]
    certificate: Path

    def __call__(self, lines: str, *, seconds: float = 60) -> str:
        """Run lines of a shell at home."""
        variables = {"HOME": self.home, "SSL_CERT_FILE": self.certificate, "COSIGN_PASSWORD": "secret"}
        settings = [f"{name}={value}" for name, value in variables.items()]
        script = f"cd {self.home}\n{lines}"
        return run(*self.words, "env", *settings, "sh", "-euc", script, seconds=seconds)

    def refuse(self, line: str) -> None:
        with pytest.raises(
            AssertionError, match=r"no (matching )?(signatures|attestations)|invalid signature"
        ):
            self(line)


@dataclass(frozen=True)
class Crossing:
    """What was signed, and its tools on the other side, where ``images`` are served at MIRROR."""

    suite: str
    images: Path
    tools: Tools

    @property
    def is_new(self) -> bool:
        """cosign 3, notation, and an oras that puts several repositories into one layout."""
        return "notation" in PACKAGES[self.suite]


@pytest.fixture(scope="module", params=[each for each in SUITES if "cosign" in PACKAGES[each]])
def crossing(request: pytest.FixtureRequest) -> Iterator[Crossing]:
    require("docker-registry")
    suite: str = request.param
    with public_directory() as directory:
        (directory / "home").mkdir()
        sign_and_copy(directory, suite)
        images = directory / "images"
        (images / "team").mkdir(parents=True)
        for layout, target in (("app", "team/app"), ("old", "team/old"), ("bundle", "bundle")):
            if (directory / "home" / layout).exists():
                (directory / "home" / layout).rename(images / target)
        certificate, key = make_pair(directory, "mirror", host=MIRROR)
        tls = ("--tls-cert", certificate, "--tls-key", key)
        with (
            network(MIRROR) as before,
            daemon("serve", images, "-l", f"{ADDRESS}:443", *tls, before=before) as process,
            root(suite).entered(before) as words,
        ):
            process.says(r"^serving \d+ images")
            yield Crossing(suite, images, Tools(directory / "home", words, certificate))


def sign_and_copy(directory: Path, suite: str) -> None:
    with source(directory) as (before, certificate), root(suite).entered(before) as words:
        tools = Tools(directory / "home", words, certificate)
        workshop = Workshop(directory / "workshop")
        workshop.directory.mkdir()
        for name, tag in (("app", "1"), ("tool", "2"), ("old", "1")):
            skopeo("copy", "--quiet", workshop.build(name), f"oci:{tools.home}/{name}.made:{tag}")
            tools(f"oras cp --from-oci-layout {name}.made:{tag} {SOURCE}/team/{name}:{tag}")
        is_new = "notation" in PACKAGES[suite]
        sign = "cosign sign --yes --key cosign.key --tlog-upload=false"
        tools("cosign generate-key-pair && mkdir other && cd other && cosign generate-key-pair")
        tools(f"echo '{{}}' >sbom && oras attach --artifact-type {SBOM} {SOURCE}/team/app:1 sbom:{SBOM}")
        old = f"{sign} {'--use-signing-config=false --new-bundle-format=false' if is_new else ''}"
        tools(f"{old} {SOURCE}/team/old@$(oras resolve {SOURCE}/team/old:1)")
        if is_new:
            tools("notation cert generate-test --default team.example.com")
            for name in ("app:1", "tool:2"):
                image = f"{SOURCE}/team/{name.partition(':')[0]}@$(oras resolve {SOURCE}/team/{name})"
                tools(f"{sign} --use-signing-config=false {image} && notation sign {image}")
            (tools.home / ".config" / "notation" / "trustpolicy.json").write_text(json.dumps(POLICY))
            tools(SEVERAL)
        tools(ONE)
        tools(OLD)


@contextmanager
def source(directory: Path) -> Iterator[tuple[tuple[str, ...], Path]]:
    """A registry that knows no referrers, at SOURCE: the words that lead into its network, and its CA."""
    certificate, key = make_pair(directory, "source", host=SOURCE)
    config = directory / "registry.yml"
    document = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": f"{directory}/registry"}},
        "http": {"addr": f"{ADDRESS}:443", "tls": {"certificate": str(certificate), "key": str(key)}},
    }
    config.write_text(json.dumps(document))
    with network(SOURCE) as before, started(before, config, directory / "registry.log"):
        yield before, certificate


@contextmanager
def started(before: tuple[str, ...], config: Path, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*before, require("docker-registry"), "serve", config], stdout=output, stderr=output
        )
    try:
        until(lambda: "listening on" in log.read_text())
        yield
    finally:
        process.terminate()
        process.wait(10)


def assert_verified(crossing: Crossing, image: str, *options: str) -> None:
    """By its key and by no other."""
    verify = f"cosign verify {' '.join(options)} --insecure-ignore-tlog {MIRROR}/{image} --key"
    digest = crossing.tools(f"oras resolve {MIRROR}/{image}").strip()
    assert f'"docker-manifest-digest":"{digest}"' in crossing.tools(f"{verify} cosign.pub")
    crossing.tools.refuse(f"{verify} other/cosign.pub")


def test_a_signature_of_cosign_is_verified_by_its_key(crossing: Crossing) -> None:
    if crossing.is_new:
        assert_verified(crossing, "team/app:1")
    assert_verified(crossing, "team/old:1", *(["--new-bundle-format=false"] if crossing.is_new else []))
    crossing.tools.refuse(f"cosign verify --insecure-ignore-tlog --key other/cosign.pub {MIRROR}/team/app:1")


def test_the_lines_of_the_page_verify_everything(crossing: Crossing) -> None:
    lines = VERIFY if crossing.is_new else VERIFY.splitlines()[-1]
    said = crossing.tools(lines)
    for kind in (COSIGN, NOTATION, SBOM) if crossing.is_new else (SBOM,):
        assert kind in said
    if crossing.is_new:
        assert f"Successfully verified signature for {MIRROR}/team/app@sha256:" in said
        with pytest.raises(AssertionError, match="no applicable trust policy"):
            crossing.tools(f"notation verify {MIRROR}/team/old:1")


def test_a_bill_of_materials_comes_as_it_went(crossing: Crossing) -> None:
    found = json.loads(
        crossing.tools(f"oras discover --format json --artifact-type {SBOM} {MIRROR}/team/app:1")
    )
    (entry,) = found.get("referrers", found.get("manifests"))
    crossing.tools(f"rm -rf came && oras pull -o came {MIRROR}/team/app@{entry['digest']}")
    assert (crossing.tools.home / "came" / "sbom").read_text() == "{}\n"


def test_several_repositories_of_one_layout_keep_their_signatures(crossing: Crossing) -> None:
    if not crossing.is_new:
        assert not (crossing.images / "bundle").exists()
        return
    for name in ("app:1", "tool:2"):
        assert_verified(crossing, f"bundle/{SOURCE}/team/{name}")
        kinds = crossing.tools(f"oras discover {MIRROR}/bundle/{SOURCE}/team/{name}")
        assert all(kind in kinds for kind in (COSIGN, NOTATION))


def test_check_and_list_say_what_is_about_what(crossing: Crossing) -> None:
    told = {name: scr_watchd(name, crossing.images) for name in ("check", "list")}
    assert told["check"].returncode == 0, told["check"].stdout
    assert "empty" not in told["check"].stdout, "oras leaves a directory for what it writes"
    kinds = (COSIGN, NOTATION, SBOM) if crossing.is_new else (SBOM,)
    for kind in kinds:
        assert re.search(
            rf"^team/app  sha256:\S+  about 1 \({re.escape(kind)}\)$", told["check"].stdout, re.MULTILINE
        )
        assert re.search(rf"^team/app .* 1 \({re.escape(kind)}\)$", told["list"].stdout, re.MULTILINE)
    assert re.search(r"^team/old:sha256-\S+\.sig  sha256:\S+  about 1$", told["check"].stdout, re.MULTILINE)
