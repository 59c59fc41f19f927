"""The clients of one Debian against every way an image can be served: a part of the table of docs/clients.md.

A cell is a pull from nginx by the real client: the digest must be that of the tree, the content that of the
image, and nginx must have been asked for it. "no" is what the client refuses. What is not as it is recorded
fails, unless it is written anew.
"""

import json
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from tests.clients import registry as registries
from tests.clients import results
from tests.clients.copiers import Crane, Oras, Skopeo
from tests.clients.pullers import Buildah, Client, Ctr, Docker, Podman, RefusedError, Wanted
from tests.clients.registry import (
    ALPINE,
    ARTIFACT,
    BUNDLED,
    CHUNKED,
    CONTENTS,
    CUT,
    DOCKER,
    DOCKER_LIST,
    FOR_DOCKER,
    HUB,
    LARGE,
    LIST,
    PASSWORD,
    PLAIN,
    PRIVATE,
    SBOM,
    SINGLE,
    SPARSE,
    TLS,
    USER,
    WITH_PORT,
    ZSTD,
    Registry,
    artifact,
)
from tests.clients.results import COLUMNS, WRITING
from tests.engines import containerd, dockerd, run
from tests.nginxes import cannot
from tests.roots import UnavailableError, root

KEEPING = ("docker", "docker with containerd's images", "containerd", "podman", "buildah", "skopeo")
COPYING = ("oras", "crane")
WITHOUT: dict[str, set[str]] = {
    **{name: {"referrers"} for name in KEEPING},
    "oras": {"mirror"},
    "crane": {"mirror", "referrers"},
}
"""What a client has no way to ask for, or to be told."""


_ABSENT = r"(?i)manifest ?unknown|not found|panic: sync/atomic"  # the last is how oras 1.2 says it
Cell = Callable[[str, Callable[[], str]], None]
"""Fills a cell with what a call finds."""


class Matrix:
    suite: ClassVar[str] = ""
    """A Debian of tests/roots.py; empty for this machine."""
    names: ClassVar[tuple[str, ...]] = ()

    @property
    def debian(self) -> str:
        return self.suite or str(platform.freedesktop_os_release().get("VERSION_CODENAME"))

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "client" in metafunc.fixturenames:
            metafunc.parametrize("client", self.names, indirect=True)

    @pytest.fixture(scope="class")
    @classmethod
    def registry(cls) -> Iterator[Registry]:
        with registries.registry() as made:
            yield made

    @pytest.fixture(scope="class")
    @classmethod
    def ran(cls) -> dict[str, dict[str, str]]:
        """What was found, by client and column."""
        return {name: {} for name in cls.names}

    @pytest.fixture(scope="class")
    @classmethod
    def clients(cls, registry: Registry) -> Iterator[dict[str, Client]]:
        directory, settings = registry.directory / "clients", registry.directory / "etc-containers"
        try:
            kept = root(cls.suite) if cls.suite else None
        except UnavailableError as error:
            cannot(str(error))
        mirror = f"--registry-mirror=http://{FOR_DOCKER}"
        with ExitStack() as stack:
            entered = kept.entered(registry.before) if kept else nullcontext(registry.before)
            words = stack.enter_context(entered)
            shutil.copytree((kept.directory if kept else Path("/")) / "etc/containers", settings)
            run(*words, "mount", "--bind", settings, "/etc/containers")
            engine = stack.enter_context(dockerd(mirror, before=words, client=words))
            made: list[Client] = [
                Docker(engine),
                Ctr(stack.enter_context(containerd(before=words)), directory),
                Podman(directory, settings, words, "podman"),
                Buildah(directory, settings, words, "buildah"),
                Skopeo(directory, settings, words, "skopeo"),
                Oras(directory, words, "oras"),
                Crane(directory, words, "crane"),
            ]
            name = "docker with containerd's images"
            if name in cls.names:
                features = {"containerd-snapshotter": True}
                today = dockerd(mirror, before=words, client=words, features=features)
                made.append(Docker(stack.enter_context(today), name))
            yield {each.name: each for each in made if each.name in cls.names}

    @pytest.fixture
    def client(self, request: pytest.FixtureRequest, clients: dict[str, Client]) -> Client:
        return clients[request.param]

    @pytest.fixture
    def cell(self, client: Client, ran: dict[str, dict[str, str]]) -> Cell:
        """Of this client; it must be what is recorded."""

        def fill(column: str, pull: Callable[[], str]) -> None:
            if column in WITHOUT[client.name]:
                return
            try:
                value, why = pull(), ""
            except RefusedError as error:
                value, why = "no", str(error)
            ran[client.name][column] = value
            told = results.cells(self.debian, client.name)
            assert WRITING or not told or value == told.get(column), f"{value}: {why}"

        return fill

    # -- the cells -----------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("column", "names"),
        [
            pytest.param("Docker v2s2", [DOCKER], id="v2s2"),
            pytest.param("OCI", [SINGLE], id="oci"),
            pytest.param("multi-arch", [LIST, DOCKER_LIST], id="multi-arch"),
            pytest.param("bundle", [BUNDLED, WITH_PORT], id="bundle"),
            pytest.param("zstd", [ZSTD], id="zstd"),
        ],
    )
    def test_each_kind_of_image(
        self, registry: Registry, client: Client, cell: Cell, column: str, names: list[str]
    ) -> None:
        def pull() -> str:
            for name in names:
                pulled(registry, client, Wanted(PLAIN, name), name)
            return "yes"

        cell(column, pull)

    def test_an_index_of_which_a_platform_is_absent(
        self, registry: Registry, client: Client, cell: Cell
    ) -> None:
        """What copies all platforms fails, and copies the one that is there if it is told which."""
        wanted = Wanted(PLAIN, SPARSE)

        def pull() -> str:
            with pytest.raises(RefusedError, match=_ABSENT):
                client.pull(replace(wanted, platform="linux/arm64"))
            if isinstance(client, Skopeo | Oras | Crane):
                with pytest.raises(RefusedError, match=_ABSENT):
                    client.pull(wanted)
                assert client.pull(replace(wanted, platform="linux/amd64")).content == CONTENTS[SPARSE]
                return "one platform"
            pulled(registry, client, wanted, SPARSE)
            return "yes"

        cell("sparse index", pull)

    def test_layers_in_chunks(self, registry: Registry, client: Client, cell: Cell) -> None:
        def pull() -> str:
            before = len(registry.requests(206))
            pulled(registry, client, Wanted(PLAIN, CHUNKED, by_ranges=True), CHUNKED)
            return "by ranges" if len(registry.requests(206)) > before else "yes"

        cell("zstd:chunked", pull)

    def test_an_artifact(self, registry: Registry, client: Client, cell: Cell) -> None:
        def fetch() -> str:
            before = len(registry.requests())
            assert registry.digest(ARTIFACT) in client.fetch(Wanted(PLAIN, ARTIFACT))
            asked = registry.requests()[before:]
            (file,) = (digest for digest, content in artifact().blobs.items() if content != b"{}")
            assert f"{PLAIN} /v2/artifact/blobs/{file}" in asked
            return "yes"

        cell("artifact", fetch)

    def test_what_is_about_an_image(self, registry: Registry, client: Client, cell: Cell) -> None:
        def discover() -> str:
            assert isinstance(client, Oras)
            found = json.loads(client.referrers(Wanted(PLAIN, SINGLE)))
            (entry,) = found.get("referrers", found.get("manifests"))
            assert entry["digest"] == registry.digest(SBOM)
            assert any("/v2/oci/referrers/" in line for line in registry.requests())
            return "yes"

        cell("referrers", discover)

    def test_by_digest(self, registry: Registry, client: Client, cell: Cell) -> None:
        def pull() -> str:
            for name in (SINGLE, DOCKER_LIST):
                pinned = f"{name.partition(':')[0]}@{registry.digest(name)}"
                pulled(registry, client, Wanted(PLAIN, pinned), name)
            return "yes"

        cell("by digest", pull)

    def test_a_connection_that_is_cut(self, registry: Registry, client: Client, cell: Cell) -> None:
        def pull() -> str:
            before = len(registry.requests(206))
            with registry.cut():
                pulled(registry, client, Wanted(CUT, LARGE), LARGE)
            return "by ranges" if len(registry.requests(206)) > before else "again"

        cell("resumed", pull)

    def test_a_private_ca(self, registry: Registry, client: Client, cell: Cell) -> None:
        def pull() -> str:
            with pytest.raises(RefusedError, match="certificate"):
                client.pull(Wanted(TLS, SINGLE, plain=False))
            pulled(registry, client, Wanted(TLS, SINGLE, plain=False, ca=registry.ca), SINGLE)
            return "yes"

        cell("private CA", pull)

    def test_a_password(self, registry: Registry, client: Client, cell: Cell) -> None:
        def pull() -> str:
            wanted = Wanted(PRIVATE, SINGLE, plain=False, ca=registry.ca)
            refused = r"(?i)unauthorized|no basic auth|authentication required|credential"
            with pytest.raises(RefusedError, match=refused):
                client.pull(wanted)
            pulled(registry, client, replace(wanted, credentials=f"{USER}:{PASSWORD}"), SINGLE)
            return "yes"

        cell("password", pull)

    def test_a_mirror_of_docker_io(self, registry: Registry, client: Client, cell: Cell) -> None:
        """There is no way to docker.io from here, and the tree has another ``library/alpine`` at its root.
        containerd asks for that and adds ``?ns=docker.io``; docker has a host of its own, the others a
        prefix."""
        mirror = {"docker": FOR_DOCKER, "containerd": PLAIN}.get(client.name.split()[0], f"{PLAIN}/{HUB}")

        def pull() -> str:
            wanted = Wanted("docker.io", ALPINE, mirror=mirror)
            asked = pulled(registry, client, wanted, f"{HUB}/{ALPINE}", host=mirror.partition("/")[0])
            assert client.name != "containerd" or all(line.endswith("?ns=docker.io") for line in asked), asked
            return "yes"

        cell("mirror", pull)

    def test_the_page_has_what_was_found(
        self, request: pytest.FixtureRequest, clients: dict[str, Client], ran: dict[str, dict[str, str]]
    ) -> None:
        if any(set(COLUMNS) - WITHOUT[name] != set(ran[name]) for name in self.names):
            pytest.skip("only a part of the table was pulled")
        if WRITING:
            found = {name: (clients[name].version(), ran[name]) for name in self.names}
            results.write(self.debian, found)


def pulled(registry: Registry, client: Client, wanted: Wanted, name: str, *, host: str = "") -> list[str]:
    """Pull ``wanted``, which must be the image ``name`` of the tree; return what nginx was asked."""
    before = len(registry.requests())
    came = client.pull(wanted)
    assert registry.digest(name) in came.digests
    assert came.content == CONTENTS[name]
    asked = [line for line in registry.requests()[before:] if line.startswith(f"{host or wanted.address} ")]
    assert any("/manifests/" in line for line in asked), asked
    assert any("/blobs/" in line for line in asked), asked
    return asked
