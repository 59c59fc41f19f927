"""No remedy takes away what is good: each is run as printed, and what was served before is served after."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scr_watchd.files import ANYBODY
from scr_watchd.images.scan import Scanner
from scr_watchd.oci.names import Digest
from tests.fuzzing import modest
from tests.images.test_any_tree import Node, names, plant, trees
from tests.images.test_mistakes import archive, convertible
from tests.remedies import command, run
from tests.trees import docker_save, image, index, make_images, write_image, write_layout

A, B, C = image("a"), image("b"), image("c")


def served(root: Path) -> dict[str, Digest]:
    """What can be pulled by tag and by digest."""
    images = Scanner(root, reader=ANYBODY).full().images
    tags = {f"{each.repository}:{each.tag}": each.digest for each in images if each.tag}
    return tags | {f"{each.repository}@{own.digest}": own.digest for each in images for own in each.manifests}


def nested_in(path: str) -> Callable[[Path], None]:
    """An image in a wrong place, and good ones in its directory."""

    def make(root: Path) -> None:
        write_image(root / path, A)
        write_image(root / path / "1", B)
        write_layout(root / path / "lib", ("2", C))

    return make


def broken(path: str) -> Callable[[Path], None]:
    """An image that is cut off, and good ones in its directory."""

    def make(root: Path) -> None:
        nested_in(path)(root)
        (root / path / min(A.blobs)[7:]).unlink()

    return make


def layout_in(path: str, *called: str | None) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        write_layout(root / path, *zip(called, (A, B, C), strict=False))
        write_image(root / path / "other", C)

    return make


def copied_twice(root: Path) -> None:
    """`cp -r new tree/x:3` twice."""
    write_image(root / "x:3", A)
    write_image(root / "x:3" / "new", A)


def linked(root: Path) -> None:
    write_image(root.parent / "outside", A)
    (root / "app:1").symlink_to(root.parent / "outside")
    (root / "app:2").symlink_to("nowhere")
    (root / "app:3").symlink_to("/etc")


def unpacked(path: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        file = archive(root / ".save" / "app.tar", "docker-archive")
        (root / path).mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-x", "-f", file, "-C", root / path], check=True)
        write_image(root / ".new", B)  # somebody prepares another

    return make


def unpacked_beside_images(root: Path) -> None:
    unpacked("app")(root)
    write_image(root / "app" / "1", B)


def several_in_a_tag(root: Path) -> None:
    write_layout(root / "app:1", ("1", A), ("2", B))
    write_image(root / "app" / "7", C)
    write_image(root / "app-layout" / "7", C)


def two_of_one_name(root: Path) -> None:
    write_image(root / "app" / "1", A)
    write_image(root / "app:1", B)
    write_image(root / "lib:1", A)
    write_layout(root / "lib", ("1", B), ("1", C))


def bundled_twice(root: Path) -> None:
    docker_save(root / "bundle", ("docker.io/a:1", A), ("docker.io/b:1", B))
    write_layout(root / "bundle" / "docker.io" / "a", ("1", C), ("2", B))


def a_digest_that_is_none(root: Path) -> None:
    layout = write_layout(root / "app", ("1", A), ("2", B))
    raw = (layout / "index.json").read_text().replace(B.digest, "md5:0")
    (layout / "index.json").write_text(raw)


def upper_case(root: Path) -> None:
    make_images(root, {"Lib/app": {"1": A}, "lib/app": {"1": B}, "lib": {"app:2": C}, "Foo": {"1": A}})
    write_layout(root / "foo", ("2", B))
    write_layout(root / "Foo", ("2", C))


def ports(root: Path) -> None:
    make_images(root, {"localhost:5000/lib": {"app:1": A, "app:2": B}, "localhost_5000/lib": {"app:3": C}})


def a_part_that_is_no_tag(root: Path) -> None:
    """129 letters are a name, and no tag."""
    nested_in(f"app/{'a' * 129}")(root)


def closed(root: Path) -> None:
    write_image(root / "app:1", A).chmod(0o700)
    (write_image(root / "app:2", B) / min(B.blobs)[7:]).chmod(0o600)


def packed(root: Path) -> None:
    archive(root / ".s" / "app.tar", "oci-archive").rename(root / "app:1.tar")


MISTAKES: dict[str, Callable[[Path], object]] = {
    "a tag without a repository": nested_in("app"),
    "a broken image": broken("x/1"),
    "a broken image whose files are others'": broken("x:1"),
    "a name that is hopeless": nested_in("a b/\N{SNOWMAN}"),
    "an image copied into itself": copied_twice,
    "links": linked,
    "an unpacked archive": unpacked("app:1"),
    "an unpacked archive without a tag": unpacked("thing"),
    "an unpacked archive beside images": unpacked_beside_images,
    "several images in a tag": several_in_a_tag,
    "two images of one name": two_of_one_name,
    "a bundle above an image": bundled_twice,
    "a digest that is none": a_digest_that_is_none,
    "upper case": upper_case,
    "HOST:PORT": ports,
    "a part that is no tag": a_part_that_is_no_tag,
    "a tag of Helm": nested_in("chart/1.0+2"),
    "a layout without names": layout_in("app", None),
    "a layout with several images without names": layout_in("app", None, None),
    "a layout with names that are none": layout_in("app", "a+b", "1"),
    "a layout in upper case": layout_in("App", "1"),
    "what nginx may not read": closed,
    "an archive": packed,
    "an image in the root": lambda root: write_image(root, index(A, B)),
    "a layout in the root": lambda root: write_layout(root, ("1", A), ("2", B)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_remedy_takes_away_nothing_that_is_served(tmp_path: Path, mistake: str) -> None:
    """Each as printed; the images of a tree that has nothing to do with it are there too."""
    root, source = tmp_path / "images", write_image(tmp_path / "source", convertible())
    make_images(root, {"neighbour": {"1": A, "2": index(A, B)}, "app": {"9": B}, "x": {"9": C}})
    write_layout(root / "quiet", ("1", A), ("2", B))
    MISTAKES[mistake](root)
    before = served(root)
    assert {"neighbour:1", "neighbour:2", "app:9", "x:9", "quiet:1", "quiet:2"} <= before.keys()
    for _ in range(9):
        problems = [each for each in Scanner(root, reader=ANYBODY).full().problems if command(each.remedy)]
        if not problems:
            return
        remedy = (
            problems[0].remedy.replace("docker://SOURCE", f"dir:{source}").replace(", or remove it: ", " # ")
        )
        run(remedy)
        after = served(root)
        assert before.items() <= after.items(), f"{remedy} took something away"
        before = after
    pytest.fail("it is not cured")


@pytest.mark.slow
@modest
@given(st.dictionaries(names, trees, max_size=4))
def test_no_remedy_of_any_tree_takes_away_what_is_served(content: Mapping[bytes, Node]) -> None:
    with TemporaryDirectory() as top:
        root = Path(top, "images")
        root.mkdir()
        plant(bytes(root), content)
        tried: set[str] = set()
        while remedy := next((each for each in remedies(root) if each not in tried), ""):
            tried.add(remedy)
            before = served(root)
            with suppress(AssertionError):  # a command that fails is no harm
                run(remedy)
            assert before.items() <= served(root).items(), f"{remedy} took something away"
            if len(tried) == 8:
                break


def remedies(root: Path) -> Iterator[str]:
    """Those that can be run here, where there is nothing to copy from."""
    for problem in Scanner(root, reader=ANYBODY).full().problems:
        text = command(problem.remedy)
        if text and not any(each in text for each in ("SOURCE", "cp -r", "skopeo")):
            yield problem.remedy
