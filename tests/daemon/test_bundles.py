"""A layout whose images get other names, through whole passes."""

from collections.abc import Iterator

import pytest

from scr_watchd.settings import Settings
from tests.daemons import public_directory
from tests.passes import Passes
from tests.trees import image, write_index, write_layout

NGINX = ("docker.io/library/nginx:1", image("nginx"))
MANY = [(f"docker.io/library/alpine:{number}", image(f"{number}")) for number in range(12)]


@pytest.fixture(params=[False, True], ids=["", "restarted"])
def passes(request: pytest.FixtureRequest) -> Iterator[Passes]:
    """Of a published layout of one repository with many tags; `restarted` after its index has changed."""
    with public_directory() as directory:
        layout = write_layout(directory / "images" / "bundle", *MANY, NGINX)
        write_index(layout, *MANY)
        made = Passes(Settings(root=directory / "images", state=directory / "state"))
        made.look()
        assert made.served() == {f"bundle:{number}": built.digest for number, (_, built) in enumerate(MANY)}
        write_index(layout, *MANY, NGINX)
        if request.param:
            made.start()
        yield made


def test_a_second_repository_renames_all_of_a_layout_and_says_so(passes: Passes) -> None:
    for full in (True, False):
        passes.look(full=full)
        assert passes.served() == {f"bundle/{name}": built.digest for name, built in (*MANY, NGINX)}
        found = passes.mirror.found
        assert not found.held, "nothing has vanished"
        assert {f"{old[0]}:{old[1]}": f"{new[0]}:{new[1]}" for old, new in found.renamed} == {
            f"bundle:{number}": f"bundle/{name}" for number, (name, _) in enumerate(MANY)
        }
    write_index(passes.settings.root / "bundle", *MANY)
    passes.look()
    assert passes.served() == {f"bundle:{number}": built.digest for number, (_, built) in enumerate(MANY)}
    assert passes.mirror.found.renamed == ()
    assert not passes.mirror.found.held


def test_what_a_bundle_cannot_tell_of_stays(passes: Passes) -> None:
    passes.look()
    before = passes.served()
    (passes.settings.root / "bundle" / "index.json").write_bytes(b"")
    passes.look()
    assert passes.served() == before
