"""What a walk finds in a tree: tags wherever they may lie, and a word about everything else."""

import os
from pathlib import Path

import pytest

from scr_watchd.files import ANYBODY, me
from scr_watchd.images.scan import Scanner
from scr_watchd.images.tree import Tree
from tests.remedies import run
from tests.scans import nothing
from tests.trees import Built, image, index, make_images, write_image


def scan(root: Path) -> Tree:
    return Scanner(root, reader=ANYBODY).full()


def names(found: Tree) -> list[str]:
    return [f"{each.repository}:{each.tag}" for each in found.images]


def reasons(found: Tree, root: Path) -> dict[str, str]:
    """The reason of each Problem, by its path below the root."""
    return {os.path.relpath(problem.path, root): problem.reason for problem in found.problems}


def test_an_empty_tree_has_nothing(tmp_path: Path) -> None:
    assert scan(tmp_path) == nothing(tmp_path)


def test_tags_are_found_at_any_depth_and_in_both_forms(tmp_path: Path) -> None:
    root = make_images(
        tmp_path / "images",
        {
            "busybox": {"1": image("1"), "2": image("2")},
            "library/alpine": {"3.20": image("3")},
            "a/b/c/d": {"RC1": image("4")},
            ".": {"alpine:3.20": image("5")},
            "quay": {"app:v1": image("6")},
        },
    )
    found = scan(root)
    assert names(found) == [
        "a/b/c/d:RC1",
        "alpine:3.20",
        "busybox:1",
        "busybox:2",
        "library/alpine:3.20",
        "quay/app:v1",
    ]
    assert (found.problems, found.unfinished, found.hidden) == ((), frozenset(), ())


def test_a_prefix_goes_before_every_name(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"alpine": {"1": image()}, "busybox": {"2": image()}})
    (root / "busybox" / "2" / "manifest.json").write_bytes(b"")
    found = Scanner(root, reader=ANYBODY, prefix="mirror/").full()
    assert names(found) == ["mirror/alpine:1"]
    assert found.images[0].path == "alpine/1"
    assert found.unfinished == {("mirror/busybox", "2")}


def test_a_digest_leaf_is_served_by_digest_if_it_has_that_digest(tmp_path: Path) -> None:
    built = image("right")
    root = make_images(
        tmp_path / "images",
        {"lib": {f"alpine@{built.digest}": built, f"busybox@{built.digest}": image("wrong")}},
    )
    found = scan(root)
    assert [(each.repository, each.tag, each.digest) for each in found.images] == [
        ("lib/alpine", None, built.digest)
    ]
    assert "it was damaged or changed" in reasons(found, root)[f"lib/busybox@{built.digest}"]


def test_a_broken_manifest_does_not_hide_its_neighbours(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"a": {"1": image("1"), "2": image("2"), "3": image("3")}})
    (root / "a" / "2" / "manifest.json").write_bytes(b"{")
    found = scan(root)
    assert names(found) == ["a:1", "a:3"]
    assert list(reasons(found, root)) == ["a/2"]


def test_a_tag_may_lie_below_another_tag(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"a": {"1": image("1")}, "a/1": {"2": image("2")}})
    assert names(scan(root)) == ["a:1", "a/1:2"]


@pytest.mark.parametrize("manifest", [b"", b"{}", b'{"schemaVersion": 1}'])
def test_a_broken_tag_does_not_hide_what_lies_below_it(tmp_path: Path, manifest: bytes) -> None:
    root = make_images(tmp_path / "images", {"a": {"1": image("1")}, "a/1": {"2": image("2")}})
    (root / "a" / "1" / "manifest.json").write_bytes(manifest)
    found = scan(root)
    assert names(found) == ["a/1:2"]
    assert list(reasons(found, root)) == ["a/1"]


@pytest.mark.parametrize(
    "name",
    [
        ".git",
        ".scr-watchd",
        ".~tmp~",
        ".3.20.aBcDeF",
        "dir-put-blob123",
        "lost+found",
        "manifest.json.hardlink-temporary",
    ],
)
def test_temporary_and_hidden_names_are_ignored(tmp_path: Path, name: str) -> None:
    root = make_images(
        tmp_path / "images",
        {"a": {"1": image(), name: image()}, name: {"1": image()}, f"a/1/{name}": {"2": image()}},
    )
    (root / "a" / "1" / f"{name}.file").touch()
    found = scan(root)
    assert names(found) == ["a:1"]
    assert (found.problems, found.unfinished, found.hidden) == ((), frozenset(), ())


def test_files_beside_the_images_are_nobodys_concern(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"a": {"1": image()}})
    for where in (root, root / "a", root / "a" / "1"):
        (where / "README.md").write_text("hello")
    found = scan(root)
    assert names(found) == ["a:1"]
    assert (found.problems, found.unfinished) == ((), frozenset())


def test_an_image_in_the_root_itself_has_no_name(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"a": {"1": image("1")}})
    write_image(root, image("2"))
    found = scan(root)
    assert names(found) == ["a:1"]
    assert "in the root itself" in reasons(found, root)["."]


def test_a_tag_without_a_repository_is_told_how_to_get_one(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {".": {"alpine": image()}})
    found = scan(root)
    assert found.images == ()
    assert found.problems[0].remedy == f"Rename it: mv {root}/alpine {root}/alpine:latest"
    (root / "alpine").rename(root / "alpine:latest")
    assert names(scan(root)) == ["alpine:latest"]


def test_the_directories_of_skopeo_sync_are_told_how_to_be_renamed(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"localhost:5000/lib": {"alpine:3.9": image()}})
    found = scan(root)
    assert found.images == ()
    assert found.problems[0].remedy == f"Rename it: mv {root}/localhost:5000 {root}/localhost_5000"
    (root / "localhost:5000").rename(root / "localhost")
    assert names(scan(root)) == ["localhost/lib/alpine:3.9"]


def test_tags_that_differ_in_case_are_two_tags(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"a": {"RC1": image("1"), "rc1": image("2")}})
    assert names(scan(root)) == ["a:RC1", "a:rc1"]


def test_the_same_image_in_both_forms_is_one_tag(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"a": {"1": image()}, ".": {"a:1": image()}})
    found = scan(root)
    assert names(found) == ["a:1"]
    assert found.problems == ()


def test_two_images_for_one_tag_are_a_problem_and_the_first_is_served(tmp_path: Path) -> None:
    first = image("first")
    images = {"a": {"1": first, "2": image()}, ".": {"a:1": image("second")}}
    root = make_images(tmp_path / "images", images)
    found = scan(root)
    assert [(each.path, each.digest) for each in found.images] == [
        ("a/1", first.digest),
        ("a/2", image().digest),
    ]
    assert reasons(found, root) == {"a:1": "a:1 is there twice, as another image in a/1"}


def test_a_repository_deeper_than_a_name_can_be_is_a_problem(tmp_path: Path) -> None:
    deep = "/".join(["a"] * 140)
    root = make_images(tmp_path / "images", {deep: {"1": image()}, "b": {"1": image()}})
    found = scan(root)
    assert names(found) == ["b:1"]
    assert [problem.reason for problem in found.problems] == ["it lies too deep for a repository name"]


def test_a_root_that_is_gone_raises(tmp_path: Path) -> None:
    """A missing mount must not look like a deletion."""
    with pytest.raises(FileNotFoundError):
        scan(tmp_path / "images")


def test_a_root_that_is_a_file_raises(tmp_path: Path) -> None:
    (tmp_path / "images").touch()
    with pytest.raises(NotADirectoryError):
        scan(tmp_path / "images")


def test_the_root_may_be_a_symbolic_link(tmp_path: Path) -> None:
    make_images(tmp_path / "images", {"a": {"1": image()}})
    (tmp_path / "link").symlink_to("images")
    (tmp_path / "images" / "a" / "latest").symlink_to("1")
    assert names(scan(tmp_path / "link")) == ["a:1", "a:latest"]


# -- symbolic links ------------------------------------------------------------------------------


def test_a_symbolic_link_to_a_tag_is_a_tag(tmp_path: Path) -> None:
    built = image()
    root = make_images(tmp_path / "images", {"a": {"3.9.3": built}})
    (root / "a" / "3.9").symlink_to("3.9.3")
    (root / "a" / "3").symlink_to("3.9")
    (root / "b:3").symlink_to(root / "a" / "3.9.3")
    found = scan(root)
    assert names(found) == ["a:3", "a:3.9", "a:3.9.3", "b:3"]
    assert {each.path for each in found.images} == {"a/3.9.3"}
    assert {each.digest for each in found.images} == {built.digest}
    assert found.problems == ()


def test_a_symbolic_link_out_of_the_root_is_a_problem(tmp_path: Path) -> None:
    outside = write_image(tmp_path / "outside" / "1", image())
    root = make_images(tmp_path / "images", {"a": {"1": image()}})
    (root / "a" / "2").symlink_to(outside)
    (root / "a" / "3").symlink_to("../../outside/1")
    (tmp_path / "images-of-others").mkdir()
    (root / "a" / "4").symlink_to("../../images-of-others")
    found = scan(root)
    assert names(found) == ["a:1"]
    assert list(reasons(found, root)) == ["a/2", "a/3", "a/4"]
    assert all("out of the images directory" in problem.reason for problem in found.problems)
    assert found.problems[0].remedy == f"Copy the image instead: rm {root}/a/2 && cp -r {outside} {root}/a/2"
    for problem in found.problems:
        run(problem.remedy)
    assert names(scan(root)) == ["a:1", "a:2", "a:3"]
    assert scan(root).problems == ()


@pytest.mark.parametrize("where", ["a/2", "a", "dangling", "a/1/extra"])
@pytest.mark.parametrize("target", ["nothing", "loop"])
def test_a_symbolic_link_to_nothing_is_a_problem(tmp_path: Path, where: str, target: str) -> None:
    root = make_images(tmp_path / "images", {"b": {"1": image()}})
    link = root / where
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("nothing" if target == "nothing" else link.name)
    found = scan(root)
    assert names(found) == ["b:1"]
    assert reasons(found, root) == {where: "it is a symbolic link to nothing"}
    assert found.problems[0].remedy == f"Remove it: rm {link}"


def test_a_dangling_tag_is_not_taken_for_deleted(tmp_path: Path) -> None:
    """Its target may be on its way: it is renamed, or on a disk that is not mounted yet."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "latest").symlink_to("3.20")
    assert scan(tmp_path).unfinished == {("a", "latest")}


@pytest.mark.parametrize(
    ("link", "target"),
    [
        pytest.param("alpine", "library/alpine", id="in the root"),
        pytest.param("mirror/alpine", "../library/alpine", id="below"),
        pytest.param("alpine", "library", id="to a parent of repositories"),
        pytest.param("library/library", ".", id="to itself"),
        pytest.param("docker.io", ".", id="to the root"),
    ],
)
def test_a_symbolic_link_to_a_repository_is_a_problem(tmp_path: Path, link: str, target: str) -> None:
    root = make_images(tmp_path / "images", {"library/alpine": {"1": image()}})
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(target)
    found = scan(root)
    assert names(found) == ["library/alpine:1"]
    assert reasons(found, root) == {link: "it is a symbolic link to a repository; only a tag may be one"}


def test_a_symbolic_link_to_a_broken_tag_is_as_broken(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"a": {"1": image()}})
    (root / "a" / "1" / "manifest.json").write_bytes(b"")
    (root / "a" / "latest").symlink_to("1")
    found = scan(root)
    assert found.unfinished == {("a", "1"), ("a", "latest")}
    assert list(reasons(found, root)) == ["a/1", "a/latest"]


def test_a_symbolic_link_to_a_tag_that_is_being_copied_waits_with_it(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"a": {"1": image()}})
    (root / "a" / "1" / "manifest.json").unlink()
    (root / "a" / "latest").symlink_to("1")
    found = scan(root)
    assert found.unfinished == {("a", "1"), ("a", "latest")}
    assert list(reasons(found, root)) == ["a/1"]


def test_a_symbolic_link_to_a_file_is_no_tag(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"a": {"1": image()}})
    (root / "a" / "2").symlink_to("1/manifest.json")
    (root / "a" / "3").symlink_to("/etc/passwd")
    found = scan(root)
    assert names(found) == ["a:1"]
    assert found.problems == ()


def test_a_symbolic_link_does_not_lead_around_a_private_directory(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"private/a": {"1": image()}})
    (root / "public").mkdir()
    (root / "public" / "1").symlink_to("../private/a/1")
    (root / "private").chmod(0o700)
    found = scan(root)
    assert found.images == ()
    assert list(reasons(found, root)) == ["private", "public/1"]
    assert found.hidden == ()


# -- permissions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["a", "a/b", "a/b/1"])
def test_below_a_directory_that_nginx_may_not_enter_nothing_is_served(tmp_path: Path, where: str) -> None:
    root = make_images(tmp_path / "images", {"a/b": {"1": image()}, "c": {"1": image()}})
    (root / where).chmod(0o700)
    found = scan(root)
    assert names(found) == ["c:1"]
    assert reasons(found, root) == {where: "nginx may not enter it (mode 0700)"}
    assert found.problems[0].remedy == f"Permit it: chmod -R go+rX {root}/{where}"
    assert found.hidden == (), "what became private is not served any more, and nothing holds on to it"


def test_what_nginx_may_read_as_itself_is_served(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"a": {"1": image()}})
    (root / "a" / "1").chmod(0o700)
    assert names(Scanner(root, reader=me()).full()) == ["a:1"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_that_we_may_not_list_is_hidden_not_deleted(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", {"a": {"1": image()}, "c": {"1": image()}})
    (root / "a").chmod(0o311)
    found = scan(root)
    (root / "a").chmod(0o755)
    assert names(found) == ["c:1"]
    assert "scr-watchd cannot look into it" in reasons(found, root)["a"]
    assert found.hidden == ("a",)


@pytest.mark.parametrize("built", [image(), index(image("1"), image("2"))], ids=["image", "index"])
def test_the_remedy_for_a_private_copy_works(tmp_path: Path, built: Built) -> None:
    """A umask of 077 over ssh leaves a private directory and a private manifest behind."""
    root = make_images(tmp_path / "images", {"a": {"1": built}})
    (root / "a" / "1").chmod(0o700)
    (root / "a" / "1" / "manifest.json").chmod(0o600)
    command = scan(root).problems[0].remedy.removeprefix("Permit it: ")
    assert os.system(command) == 0
    assert names(scan(root)) == ["a:1"]
