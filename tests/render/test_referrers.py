"""Lists of referrers (distribution specification, "Listing Referrers"), against a model."""

import json
from collections.abc import Iterator
from hashlib import sha256
from itertools import product
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scr_watchd.oci.catalog import Catalog, CatalogBuilder, Referrer, Repository
from scr_watchd.oci.manifest import MediaType, Referral
from scr_watchd.oci.names import Digest, RepositoryName
from scr_watchd.render.quote import json_string
from tests.http import Response
from tests.nginxes import binaries
from tests.render.contract import error_headers, headers
from tests.render.site import Site, serving, site
from tests.trees import OCI_INDEX, OCI_MANIFEST, Built, descriptor, image, index

APP = RepositoryName("lib/app")
UNKNOWN = f"sha256:{'0' * 64}"
SPDX = "application/spdx+json"
ODD_TYPE = "application/vnd.a!b#c$d&e^f_g.h+i-j"

ANNOTATIONS = {
    "quotes": "\"'`",
    "dollar": "$scr_name ${scr_store} $1",
    "backslash": "\\ \\n \\\\ \\",
    "lines": "a\nb\r\nc\td\0e\x7f",
    "beyond ASCII": "ßé漢\U0001f600\u2028",
    "braces; {}": "};{#",
    "": "",
    "long": "\\" * 5000 + "x" * 5000,
}

SUBJECT = image("subject")


def about(subject: Built, seed: str, **fields: Any) -> Built:
    return image(seed, subject=descriptor(subject.raw, subject.media_type), **fields)


SBOM = about(SUBJECT, "sbom", artifactType=SPDX)
SIGNATURE = about(SUBJECT, "signature", artifactType="application/vnd.example+type", annotations=ANNOTATIONS)
TYPED_BY_CONFIG = about(SUBJECT, "typed by its config")
ODD = about(SUBJECT, "odd", artifactType=ODD_TYPE)
NO_TYPE = about(SUBJECT, "no type that can be asked for", artifactType="not a type")
OF_SIGNATURE = about(SIGNATURE, "of a signature", artifactType=SPDX)
OF_NOTHING = image(
    "of nothing here", subject={"mediaType": OCI_MANIFEST, "digest": UNKNOWN.replace("0", "9"), "size": 1}
)
OF_SHA512 = image("sha512", subject={"mediaType": OCI_MANIFEST, "digest": f"sha512:{'5' * 128}", "size": 1})
FALLBACK = index(about(SUBJECT, "in an index", artifactType=SPDX))
DOCKER = image(
    "docker",
    media_type="application/vnd.docker.distribution.manifest.v2+json",
    subject=descriptor(SUBJECT.raw, OCI_MANIFEST),
)

TREE = {
    "lib/app": {
        "1": SUBJECT,
        "sbom": SBOM,
        "signature": SIGNATURE,
        "config": TYPED_BY_CONFIG,
        "odd": ODD,
        "none": NO_TYPE,
        "deep": OF_SIGNATURE,
        "nothing": OF_NOTHING,
        "sha512": OF_SHA512,
        SUBJECT.digest.replace(":", "-"): FALLBACK,
        SUBJECT.digest.replace(":", "-") + ".sig": image("by cosign"),
        "docker": DOCKER,
    },
    "lib/copy": {"1": SUBJECT, "sbom": SBOM},
    "lib/none": {"1": SUBJECT},
}


def entry(built: Built) -> dict[str, Any]:
    """The descriptor that the specification wants for ``built``."""
    document = json.loads(built.raw)
    artifact_type = document.get("artifactType") or document["config"]["mediaType"]
    annotations = document.get("annotations")
    return {
        **descriptor(built.raw, OCI_MANIFEST),
        "artifactType": artifact_type,
        **({"annotations": annotations} if annotations else {}),
    }


CHILD = about(SUBJECT, "in an index", artifactType=SPDX)
OF_SUBJECT = sorted(
    map(entry, (SBOM, SIGNATURE, TYPED_BY_CONFIG, ODD, NO_TYPE, CHILD)), key=lambda each: each["digest"]
)


@pytest.fixture(scope="module", params=binaries())
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param())


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, program: str) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site"), TREE, program=program) as running:
        yield running
        assert not running.complaints()


def assert_lists(answer: Response, expected: list[dict[str, Any]], *, filtered: bool = False) -> None:
    assert answer.status == 200, answer
    assert answer.json() == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": expected}
    applied = {"OCI-Filters-Applied": "artifactType"} if filtered else {}
    assert headers(answer) == {**error_headers(answer), "Content-Type": OCI_INDEX, **applied}


@pytest.mark.parametrize(
    ("name", "subject", "expected"),
    [
        pytest.param("lib/app", SUBJECT.digest, OF_SUBJECT, id="an image"),
        pytest.param("lib/app", SIGNATURE.digest, [entry(OF_SIGNATURE)], id="a referrer"),
        pytest.param("lib/app", UNKNOWN.replace("0", "9"), [entry(OF_NOTHING)], id="what is not here"),
        pytest.param("lib/app", f"sha512:{'5' * 128}", [entry(OF_SHA512)], id="a sha512 digest"),
        pytest.param("lib/app", f"sha512:{'5' * 127}6", [], id="another with the same beginning"),
        pytest.param("lib/copy", SUBJECT.digest, [entry(SBOM)], id="another repository's"),
        pytest.param("lib/none", SUBJECT.digest, [], id="an image without any"),
        pytest.param("lib/app", UNKNOWN, [], id="an unknown digest"),
        pytest.param("lib/app", f"sha512:{'0' * 128}", [], id="an unknown sha512 digest"),
    ],
)
def test_the_referrers_of(registry: Site, name: str, subject: str, expected: list[dict[str, Any]]) -> None:
    path = f"/v2/{name}/referrers/{subject}"
    assert_lists(registry.get(path), expected)
    assert registry.get(path, method="HEAD").header("Content-Length") == registry.get(path).header(
        "Content-Length"
    )


SPELLINGS = [
    SPDX,
    quote(SPDX, safe=""),
    quote(SPDX, safe="").lower(),
    SPDX.replace("+", "%2b").replace("a", "a"),
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_referrers_are_asked_for_by_type_in_every_spelling(registry: Site, spelling: str) -> None:
    answer = registry.get(f"/v2/lib/app/referrers/{SUBJECT.digest}?artifactType={spelling}")
    assert_lists(answer, [each for each in OF_SUBJECT if each["artifactType"] == SPDX], filtered=True)


@pytest.mark.parametrize("safe", ["", "/", "/!$^"])
def test_a_type_of_any_characters_can_be_asked_for(registry: Site, safe: str) -> None:
    answer = registry.get(f"/v2/lib/app/referrers/{SUBJECT.digest}?artifactType={quote(ODD_TYPE, safe=safe)}")
    assert_lists(answer, [entry(ODD)], filtered=True)


@pytest.mark.parametrize(
    "unknown", ["application/none", "x", "a" * 2000, SPDX + "x", "application/SPDX+json", "%00"]
)
def test_of_an_unknown_type_there_are_none(registry: Site, unknown: str) -> None:
    path = f"/v2/lib/app/referrers/{SUBJECT.digest}"
    assert_lists(registry.get(f"{path}?artifactType={unknown}"), [], filtered=True)
    assert_lists(registry.get(f"{path}?artifactType="), OF_SUBJECT)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"/v2/unknown/referrers/{UNKNOWN}", 404, "NAME_UNKNOWN"),
        (f"/v2/UPPER/referrers/{UNKNOWN}", 400, "NAME_INVALID"),
        ("/v2/lib/app/referrers/sha256:123", 400, "DIGEST_INVALID"),
        (f"/v2/lib/app/referrers/{UNKNOWN[:-1]}G", 400, "DIGEST_INVALID"),
        (f"/v2/lib/app/referrers/md5:{'0' * 32}", 400, "DIGEST_INVALID"),
        ("/v2/lib/app/referrers/latest", 400, "DIGEST_INVALID"),
        ("/v2/lib/app/referrers/", 404, "UNSUPPORTED"),
    ],
)
def test_what_has_no_referrers(registry: Site, path: str, status: int, code: str) -> None:
    answer = registry.get(path)
    assert (answer.status, answer.code) == (status, code)
    assert answer.header("OCI-Filters-Applied") is None


def test_referrers_and_signatures_by_tag_can_be_pulled(registry: Site) -> None:
    for tag, built in TREE["lib/app"].items():
        assert registry.get(f"/v2/lib/app/manifests/{tag}").body == built.raw
        assert registry.get(f"/v2/lib/app/manifests/{built.digest}").body == built.raw


# -- any annotations -------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
referrals = st.builds(
    Referral,
    subject=st.sampled_from([Digest(f"sha256:{'a' * 32}{end * 32}") for end in "bcd"]),
    artifact_type=st.sampled_from(["", SPDX, ODD_TYPE, "a/b", "a/B", "no type"]) | texts,
    annotations=st.dictionaries(texts, texts, max_size=3),
)


def catalog_of_referrers(found: list[Referral]) -> Catalog:
    builder = CatalogBuilder()
    for number, referral in enumerate(found):
        digest = Digest(f"sha256:{sha256(b'%d' % number).hexdigest()}")
        builder.manifest(APP, digest, MediaType.OCI_MANIFEST)
        builder.referrer(APP, digest, Referrer(number, referral))
    return builder.catalog()


@given(found=st.lists(referrals, min_size=1, max_size=30))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_referrers_are_listed_as_the_model_says(program: str, found: list[Referral]) -> None:
    """Subjects whose digests begin alike, types that differ in case only, texts of any characters."""
    with serving(catalog_of_referrers(found), program=program) as running:
        expected = [
            (f"sha256:{sha256(b'%d' % number).hexdigest()}", number, referral)
            for number, referral in enumerate(found)
        ]
        expected.sort(key=lambda each: each[0])
        types = {None, "a/b", "a/B", SPDX, ODD_TYPE}
        for subject, wanted in product({each.subject for each in found}, types):
            path = f"/v2/{APP}/referrers/{subject}" + (f"?artifactType={quote(wanted)}" if wanted else "")
            answer = running.get(path)
            assert answer.status == 200
            assert answer.json()["manifests"] == [
                {
                    "mediaType": OCI_MANIFEST,
                    "digest": digest,
                    "size": size,
                    **({"artifactType": each.artifact_type} if each.artifact_type else {}),
                    **({"annotations": dict(each.annotations)} if each.annotations else {}),
                }
                for digest, size, each in expected
                if each.subject == subject and wanted in (None, each.artifact_type)
            ]
        assert not running.complaints()


@given(text=st.text())
def test_any_text_is_a_json_string_in_a_token(text: str) -> None:
    quoted = json_string(text)
    assert json.loads(quoted) == text
    assert quoted.isascii()
    assert not set(quoted[1:-1]) & set("\"'$\n")
    assert quoted.replace("\\u", "").count("\\") == 0


def test_types_of_any_length_are_listed_and_the_longest_can_be_asked_for(program: str) -> None:
    """A pattern that is too long for a token would keep nginx from reading all of http.conf."""
    subject = Digest(UNKNOWN)
    longest = "a" + "." * 126 + "/a" + "." * 126
    types = [longest, longest + ".", "a/" + "a" * 5000, "a/a" + "." * 300]
    referrers = {
        Digest(f"sha256:{number:064x}"): Referrer(1, Referral(subject, each))
        for number, each in enumerate(types)
    }
    repository = Repository(APP, {}, dict.fromkeys(referrers, MediaType.OCI_MANIFEST), referrers)
    with serving(Catalog((repository,)), program=program) as running:
        path = f"/v2/{APP}/referrers/{subject}"
        assert [each["artifactType"] for each in running.get(path).json()["manifests"]] == types
        (found,) = running.get(f"{path}?artifactType={quote(longest)}").json()["manifests"]
        assert found["artifactType"] == longest
        assert not running.complaints()


@pytest.mark.parametrize("artifact_type", ["not a type", "a/ß漢", 'a/b; c="d"', "%", "a/" + "x" * 253])
def test_also_what_is_no_media_type_can_be_asked_for(program: str, artifact_type: str) -> None:
    subject = Digest(UNKNOWN)
    catalog = catalog_of_referrers([Referral(subject, artifact_type), Referral(subject, "other/type")])
    with serving(catalog, program=program) as running:
        answer = running.get(f"/v2/{APP}/referrers/{subject}?artifactType={quote(artifact_type, safe='')}")
        (listed,) = answer.json()["manifests"]
        assert listed["artifactType"] == artifact_type
        assert answer.header("OCI-Filters-Applied") == "artifactType"


def test_a_type_beyond_those_that_can_be_numbered_is_not_filtered_by(program: str) -> None:
    """And the answer does not claim it."""
    many, one = Digest(UNKNOWN), Digest(UNKNOWN.replace("0", "1"))
    found = [Referral(many, f"a/{number:04d}") for number in range(1000)] + [Referral(one, "b/1000")]
    with serving(catalog_of_referrers(found), program=program) as running:
        listed = running.get(f"/v2/{APP}/referrers/{many}?artifactType=a/0001")
        assert len(listed.json()["manifests"]) == 1
        beyond = running.get(f"/v2/{APP}/referrers/{many}?artifactType=b/1000")
        assert len(beyond.json()["manifests"]) == 1000
        assert beyond.header("OCI-Filters-Applied") is None
