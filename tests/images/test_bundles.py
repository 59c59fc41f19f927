"""Layouts with images of several repositories, as hauler, zarf, k0s and `docker save a b` make them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from scr_watchd.files import ANYBODY
from scr_watchd.images.naming import repository_in
from scr_watchd.images.scan import Scanner
from scr_watchd.images.tree import Tree
from tests.remedies import run
from tests.trees import Built, descriptor, docker_save, image, write_blob, write_image, write_layout

ONE, TWO, THREE = image("one"), image("two"), image("three")
ALPINE, NGINX = "docker.io/library/alpine:3.20", "docker.io/library/nginx:3.20"


def scan(root: Path, prefix: str = "") -> Tree:
    return Scanner(root, reader=ANYBODY, prefix=prefix).full()


def served(found: Tree) -> dict[str, str]:
    return {
        f"{each.repository}:{each.tag}" if each.tag else f"{each.repository}@{each.digest}": each.digest
        for each in found.images
    }


def about(built: Built, seed: str = "signature") -> Built:
    return image(seed, subject=descriptor(built.raw, built.media_type))


def annotate(layout: Path, *annotations: dict[str, str]) -> None:
    """Add annotations to the entries of an index."""
    document: dict[str, Any] = json.loads((layout / "index.json").read_bytes())
    for entry, more in zip(document["manifests"], annotations, strict=False):
        entry.setdefault("annotations", {}).update(more)
    (layout / "index.json").write_text(json.dumps(document))


# -- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        pytest.param("3.20", "", id="a tag"),
        pytest.param("app", "", id="a word"),
        pytest.param("app:1", "app", id="without a host it gets none"),
        pytest.param("docker.io/library/app:1", "docker.io/library/app", id="with a host"),
        pytest.param("index.docker.io/library/app:1", "docker.io/library/app", id="docker.io's other name"),
        pytest.param("127.0.0.1:5000/app:1", "127.0.0.1_5000/app", id="with a port"),
        pytest.param("localhost:5000/app", "localhost_5000/app", id="without a tag"),
        pytest.param(f"quay.io/x/app@{ONE.digest}", "quay.io/x/app", id="with a digest"),
        pytest.param(f"quay.io/x/app:1@{ONE.digest}", "quay.io/x/app", id="with tag and digest"),
        pytest.param("quay.io/X/App:1", "quay.io/X/App", id="one that cannot be"),
        pytest.param("a b/c:1", "", id="nonsense"),
    ],
)
def test_the_repository_in_a_name(name: str, repository: str) -> None:
    assert repository_in(name) == repository


@pytest.mark.parametrize("make", [write_layout, docker_save])
def test_images_of_several_repositories_are_each_of_their_own(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "bundle", (ALPINE, ONE), (NGINX, TWO), ("quay.io/x/app:1", THREE))
    found = scan(tmp_path)
    assert found.problems == ()
    assert served(found) == {
        "bundle/docker.io/library/alpine:3.20": ONE.digest,
        "bundle/docker.io/library/nginx:3.20": TWO.digest,
        "bundle/quay.io/x/app:1": THREE.digest,
    }
    assert {each.path for each in found.images} == {"bundle"}
    assert found.images[0].place == f"bundle:{ALPINE}"
    assert "mirror/bundle/quay.io/x/app:1" in served(scan(tmp_path, "mirror/"))


@pytest.mark.parametrize("make", [write_layout, docker_save])
def test_full_names_of_one_repository_are_tags_of_the_directory(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "app", ("docker.io/library/x:1", ONE), ("docker.io/library/x:2", TWO))
    assert served(scan(tmp_path)) == {"app:1": ONE.digest, "app:2": TWO.digest}


def test_the_full_name_of_containerd_outranks_the_tag(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "app", ("1", ONE), ("2", TWO))
    annotate(layout, {"io.containerd.image.name": "docker.io/library/x:7"}, {"io.containerd.image.name": "?"})
    assert served(scan(tmp_path)) == {"app:7": ONE.digest, "app:2": TWO.digest}


def test_a_name_that_is_a_tag_is_one_of_the_directory_in_a_bundle_too(tmp_path: Path) -> None:
    write_layout(tmp_path / "bundle", (ALPINE, ONE), ("quay.io/x/app:1", TWO), ("latest", THREE))
    assert served(scan(tmp_path))["bundle:latest"] == THREE.digest


def test_a_name_from_inside_claims_nothing_outside(tmp_path: Path) -> None:
    write_layout(
        tmp_path / "bundle", ("../../app:1", ONE), ("a/../../app:1", ONE), ("/app:1", TWO), ("x/y:1", ONE)
    )
    found = scan(tmp_path)
    assert all(name.startswith("bundle/") for name in served(found))
    assert "bundle/x/y:1" in served(found)


def test_a_digest_in_a_name_is_an_image_without_a_tag(tmp_path: Path) -> None:
    """k0s has both for each image."""
    write_layout(
        tmp_path / "k0s",
        ("quay.io/k0s/a:1", ONE),
        (f"quay.io/k0s/a@{ONE.digest}", ONE),
        (f"quay.io/k0s/b@{TWO.digest}", TWO),
    )
    found = scan(tmp_path)
    assert found.problems == ()
    assert served(found) == {
        "k0s/quay.io/k0s/a:1": ONE.digest,
        f"k0s/quay.io/k0s/b@{TWO.digest}": TWO.digest,
    }


@pytest.mark.parametrize(
    ("name", "better"),
    [
        pytest.param("quay.io/X/App:1", "quay.io/x/app:1", id="upper case"),
        pytest.param("quay.io/a__-b/app:1", "quay.io/image:1", id="hopeless"),
        pytest.param("quay.io/x/app", "quay.io/x/app:latest", id="no tag"),
        pytest.param("127.0.0.1:5000/X:1.0+b", "127.0.0.1_5000/x:1.0_b", id="a port, and a + in the tag"),
    ],
)
@pytest.mark.parametrize("make", [write_layout, docker_save])
def test_a_name_that_cannot_be_is_told_a_better_one(
    tmp_path: Path, name: str, better: str, make: Any
) -> None:
    make(tmp_path / "it's", (ALPINE, ONE), (name, TWO))
    (tmp_path / "it's").rename(tmp_path / "its")
    found = scan(tmp_path)
    assert list(served(found)) == [f"its/{ALPINE}"]
    (problem,) = found.problems
    run(problem.remedy)
    found = scan(tmp_path)
    assert found.problems == ()
    expected = better if better != "quay.io/image:1" else "image:1"
    assert served(found) == {f"its/{ALPINE}": ONE.digest, f"its/{expected}": TWO.digest}


def test_a_repository_that_is_too_long_is_a_problem(tmp_path: Path) -> None:
    write_layout(tmp_path / "bundle", (ALPINE, ONE), (f"{'a' * 260}/b:1", TWO))
    found = scan(tmp_path)
    assert "has at most 255 characters" in found.problems[0].reason
    run(found.problems[0].remedy)
    assert scan(tmp_path).problems == ()


def test_names_follow_from_the_tree_alone(tmp_path: Path) -> None:
    scanner = Scanner(tmp_path, reader=ANYBODY)
    write_layout(tmp_path / "bundle", (ALPINE, ONE))
    assert served(scanner.full()) == {"bundle:3.20": ONE.digest}
    write_layout(tmp_path / "bundle", (ALPINE, ONE), (NGINX, TWO))
    assert served(scanner.light()) == served(scan(tmp_path))
    write_layout(tmp_path / "bundle", (NGINX, TWO))
    assert served(scanner.light()) == {"bundle:3.20": TWO.digest}


def test_two_images_of_one_name_are_a_problem_that_takes_none_away(tmp_path: Path) -> None:
    write_layout(tmp_path / "bundle", (ALPINE, ONE), (NGINX, TWO), (ALPINE, THREE))
    found = scan(tmp_path)
    before = served(found)
    assert found.problems[0].path == f"{tmp_path}/bundle:{ALPINE}"
    run(found.problems[0].remedy)
    assert served(scan(tmp_path)) == {**before, f"bundle/{ALPINE}-2": THREE.digest}
    assert scan(tmp_path).problems == ()


def test_what_is_not_complete_of_a_bundle_is_held_on_to_by_its_name(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "bundle", (ALPINE, ONE), (NGINX, TWO))
    (layout / "blobs" / "sha256" / max(TWO.blobs)[7:]).unlink()
    found = scan(tmp_path)
    assert list(served(found)) == [f"bundle/{ALPINE}"]
    assert found.unfinished == {("bundle/docker.io/library/nginx", "3.20")}
    assert found.problems[0].path == f"{layout}:{NGINX}"
    assert f"skopeo copy docker://SOURCE oci:{layout}:{NGINX}" in found.problems[0].remedy


def test_what_lies_at_its_own_path_outranks_a_bundle_above(tmp_path: Path) -> None:
    write_layout(tmp_path / "bundle", (ALPINE, ONE), (NGINX, TWO))
    write_image(tmp_path / "bundle" / ALPINE, THREE)
    write_layout(tmp_path / "bundle" / "docker.io", ("library/nginx:3.20", THREE), ("library/x:1", ONE))
    found = scan(tmp_path)
    assert served(found) == {
        f"bundle/{ALPINE}": THREE.digest,
        f"bundle/{NGINX}": THREE.digest,
        "bundle/docker.io/library/x:1": ONE.digest,
    }
    assert [each.path for each in found.problems] == [
        f"{tmp_path}/bundle:{ALPINE}",
        f"{tmp_path}/bundle:{NGINX}",
    ]
    assert all(": " not in each.remedy for each in found.problems), "words, and no command"
    shutil.rmtree(tmp_path / "bundle" / "docker.io")
    assert served(scan(tmp_path))[f"bundle/{ALPINE}"] == ONE.digest


# -- what belongs to images --------------------------------------------------------------------------


def hauler(layout: Path, *entries: tuple[str, Built, str]) -> Path:
    write_layout(layout, *((name, built) for name, built, _ in entries))
    annotate(layout, *({"kind": kind} if kind else {} for _, _, kind in entries))
    return layout


def test_signatures_of_hauler_have_the_name_of_their_image_and_get_the_tags_of_cosign(tmp_path: Path) -> None:
    sig, att, sbom, referrer = (image(seed) for seed in ("sig", "att", "sbom", "ref"))
    hauler(
        tmp_path / "store",
        (ALPINE, sig, "dev.hauler/sigs"),
        (ALPINE, ONE, "dev.hauler/image"),
        (ALPINE, att, "dev.hauler/atts"),
        (ALPINE, sbom, "dev.hauler/sboms"),
        (ALPINE, referrer, f"dev.hauler/referrers/{ONE.digest[7:]}"),
        (NGINX, TWO, ""),
    )
    found = scan(tmp_path)
    assert found.problems == ()
    alpine, tag = "store/docker.io/library/alpine", f"sha256-{ONE.digest[7:]}"
    assert served(found) == {
        f"{alpine}:3.20": ONE.digest,
        f"{alpine}:{tag}.sig": sig.digest,
        f"{alpine}:{tag}.att": att.digest,
        f"{alpine}:{tag}.sbom": sbom.digest,
        f"{alpine}@{referrer.digest}": referrer.digest,
        f"store/{NGINX}": TWO.digest,
    }


@pytest.mark.parametrize("first", ["the image", "its signature"])
@pytest.mark.parametrize("directory", ["app", "app:3.20"])
def test_what_has_a_subject_and_the_name_of_its_image_is_a_referrer(
    tmp_path: Path, first: str, directory: str
) -> None:
    both = [(ALPINE, ONE), (ALPINE, about(ONE))]
    write_layout(tmp_path / directory, *(both if first == "the image" else both[::-1]))
    found = scan(tmp_path)
    assert found.problems == ()
    signature = about(ONE).digest
    assert served(found) == {"app:3.20": ONE.digest, f"app@{signature}": signature}


def test_signatures_of_an_image_whose_directory_has_a_tag(tmp_path: Path) -> None:
    signature = image("sig")
    hauler(tmp_path / "app:1", (ALPINE, ONE, ""), (ALPINE, signature, "dev.hauler/sigs"))
    found = scan(tmp_path)
    assert found.problems == ()
    assert served(found) == {"app:1": ONE.digest, f"app:sha256-{ONE.digest[7:]}.sig": signature.digest}


def test_a_nameless_manifest_belongs_to_every_repository_that_has_its_subject(tmp_path: Path) -> None:
    signature, of_signature, of_nothing = about(ONE), about(about(ONE), "again"), about(image("not there"))
    write_layout(
        tmp_path / "bundle",
        (None, of_signature),
        (None, signature),
        (None, of_nothing),
        (ALPINE, ONE),
        ("quay.io/x/app:1", ONE),
        (NGINX, TWO),
    )
    found = scan(tmp_path)
    assert found.problems == ()
    by_digest = {name for name in served(found) if "@" in name}
    assert by_digest == {
        *(f"bundle/docker.io/library/alpine@{each.digest}" for each in (signature, of_signature)),
        *(f"bundle/quay.io/x/app@{each.digest}" for each in (signature, of_signature)),
        f"bundle@{of_nothing.digest}",
    }


def test_manifests_that_are_about_each_other_are_placed_once(tmp_path: Path) -> None:
    """No digest can be in its own manifest; a long chain can be."""
    chain = [about(ONE)]
    while len(chain) < 200:
        chain.append(about(chain[-1], f"{len(chain)}"))
    write_layout(tmp_path / "bundle", *((None, each) for each in chain), (ALPINE, ONE), (NGINX, TWO))
    found = scan(tmp_path)
    assert len([each for each in found.images if each.repository == "bundle/docker.io/library/alpine"]) == 201


def test_a_signature_whose_manifest_is_missing_takes_no_name(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "app", (ALPINE, ONE), (ALPINE, about(ONE)))
    (layout / "blobs" / "sha256" / about(ONE).digest[7:]).unlink()
    found = scan(tmp_path)
    assert served(found) == {"app:3.20": ONE.digest}
    write_blob(layout, about(ONE).raw)
    assert scan(tmp_path).problems == ()
