"""Every container client against every way an image can be served: the table of docs/clients.md.

    .venv/bin/python -m pytest -m clients tests/clients/test_matrix.py                     compares the table
    WRITE_TABLE=1 .venv/bin/python -m pytest -m clients tests/clients/test_matrix.py       writes it

A cell is a pull from nginx by the real client: the digest must be that of the tree, the content that of
the image, and nginx must have been asked for it.
"""

import os
import re
import shutil
from collections.abc import Iterator

import pytest

from tests.clients import registry as registries
from tests.clients.pullers import Buildah, Client, Ctr, Docker, Podman, RefusedError, Skopeo, Wanted
from tests.clients.registry import (
    ALPINE,
    ARTIFACT,
    CONTENTS,
    DOCKER,
    DOCKER_LIST,
    FOR_DOCKER,
    HUB,
    LIST,
    PASSWORD,
    PLAIN,
    PRIVATE,
    SINGLE,
    TLS,
    USER,
    Registry,
    artifact,
)
from tests.documents import HOUSE
from tests.engines import containerd, dockerd, run

pytestmark = [pytest.mark.slow, pytest.mark.clients]

PAGE = HOUSE / "docs" / "clients.md"
CLIENTS = ("docker", "containerd", "podman", "buildah", "skopeo")
COLUMNS = ("Docker v2s2", "OCI", "multi-arch", "artifact", "by digest", "mirror", "private CA", "password")

ran: set[tuple[str, str]] = set()
"""The cells that were pulled by this process."""
versions: dict[str, str] = {}


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with registries.registry() as made:
        yield made


@pytest.fixture(scope="module")
def clients(registry: Registry) -> Iterator[dict[str, Client]]:
    before, directory = registry.before, registry.directory / "clients"
    mirror = f"--registry-mirror=http://{FOR_DOCKER}"
    settings = directory / "etc-containers"
    shutil.copytree("/etc/containers", settings)
    run(*before, "mount", "--bind", settings, "/etc/containers")
    with dockerd(mirror, before=before) as docker, containerd(before=before) as container:
        made: list[Client] = [
            Docker(docker),
            Ctr(container, directory),
            Podman(directory, settings, before, "podman"),
            Buildah(directory, settings, before, "buildah"),
            Skopeo(directory, settings, before, "skopeo"),
        ]
        versions.update({each.name: each.version() for each in made})
        yield {each.name: each for each in made}


def pull(registry: Registry, client: Client, wanted: Wanted, name: str, *, host: str = "") -> list[str]:
    """Pull ``wanted``, which must be the image ``name`` of the tree; return what nginx was asked."""
    before = len(registry.requests())
    came = client.pull(wanted)
    assert registry.digest(name) in came.digests
    assert came.content == CONTENTS[name]
    asked = [line for line in registry.requests()[before:] if line.startswith(f"{host or wanted.address} ")]
    assert any("/manifests/" in line for line in asked), asked
    assert any("/blobs/" in line for line in asked), asked
    return asked


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, clients: dict[str, Client]) -> Client:
    return clients[request.param]


def passed(client: Client, column: str) -> None:
    ran.add((client.name, column))


@pytest.mark.parametrize(
    ("column", "names"),
    [
        pytest.param("Docker v2s2", [DOCKER], id="v2s2"),
        pytest.param("OCI", [SINGLE], id="oci"),
        pytest.param("multi-arch", [LIST, DOCKER_LIST], id="multi-arch"),
    ],
)
def test_each_kind_of_image(registry: Registry, client: Client, column: str, names: list[str]) -> None:
    for name in names:
        pull(registry, client, Wanted(PLAIN, name), name)
    passed(client, column)


def test_by_digest(registry: Registry, client: Client) -> None:
    for name in (SINGLE, DOCKER_LIST):
        pinned = f"{name.partition(':')[0]}@{registry.digest(name)}"
        pull(registry, client, Wanted(PLAIN, pinned), name)
    passed(client, "by digest")


def test_an_artifact_with_skopeo(registry: Registry, clients: dict[str, Client]) -> None:
    skopeo = clients["skopeo"]
    assert isinstance(skopeo, Skopeo)
    came = skopeo.copy(Wanted(PLAIN, ARTIFACT))
    went = registry.tag_directory(ARTIFACT)
    for path in went.iterdir():
        if path.name != "version":
            assert (came / path.name).read_bytes() == path.read_bytes(), path
    passed(skopeo, "artifact")


def test_an_artifact_with_containerd(clients: dict[str, Client]) -> None:
    ctr = clients["containerd"]
    assert isinstance(ctr, Ctr)
    assert ctr.fetch(Wanted(PLAIN, ARTIFACT)) == {**artifact().blobs, **artifact().manifests}
    passed(ctr, "artifact")


def test_a_private_ca(registry: Registry, client: Client) -> None:
    with pytest.raises(RefusedError, match="certificate"):
        client.pull(Wanted(TLS, SINGLE, plain=False))
    pull(registry, client, Wanted(TLS, SINGLE, plain=False, ca=registry.ca), SINGLE)
    passed(client, "private CA")


def test_a_password(registry: Registry, client: Client) -> None:
    open_door = Wanted(PRIVATE, SINGLE, plain=False, ca=registry.ca)
    with pytest.raises(RefusedError, match=r"(?i)unauthorized|no basic auth|authentication required"):
        client.pull(open_door)
    wanted = Wanted(PRIVATE, SINGLE, plain=False, ca=registry.ca, credentials=f"{USER}:{PASSWORD}")
    pull(registry, client, wanted, SINGLE)
    passed(client, "password")


def test_a_mirror_of_docker_io(registry: Registry, client: Client) -> None:
    """There is no way to docker.io from here, and the tree has another ``library/alpine`` at its root.
    containerd asks for that and adds ``?ns=docker.io``; docker has a host of its own, the others a prefix."""
    mirror, query = {"docker": (FOR_DOCKER, ""), "containerd": (PLAIN, "?ns=docker.io")}.get(
        client.name, (f"{PLAIN}/{HUB}", "")
    )
    wanted = Wanted("docker.io", ALPINE, mirror=mirror)
    asked = pull(registry, client, wanted, f"{HUB}/{ALPINE}", host=mirror.partition("/")[0])
    assert all(line.endswith(query) for line in asked), asked
    passed(client, "mirror")


# -- the table -------------------------------------------------------------------------------------

BEGIN, END = "<!-- clients: written by tests/clients/test_matrix.py -->", "<!-- clients: end -->"


def table() -> str:
    """The table of what was pulled, with the versions of the clients here."""
    rows = [["", *COLUMNS], ["---"] * (1 + len(COLUMNS))]
    for client in CLIENTS:
        cells = ["yes" if (client, column) in ran else "no" for column in COLUMNS]
        rows.append([f"{client} {versions.get(client, '')}", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def without_versions(text: str) -> str:
    return re.sub(r"(?m)^\| (\w+) [\d.]+ ", r"| \1 ", text)


def test_the_table_of_the_page_says_what_was_pulled() -> None:
    if {client for client, _ in ran} != set(CLIENTS) or {column for _, column in ran} != set(COLUMNS):
        pytest.skip("only a part of the table was pulled")
    before, begin, rest = PAGE.read_text().partition(f"{BEGIN}\n")
    told, end, after = rest.partition(f"\n{END}")
    assert begin, f"{PAGE} has no place for the table"
    assert end
    if os.environ.get("WRITE_TABLE"):
        PAGE.write_text(f"{before}{begin}\n{table()}\n{end}{after}")
        return
    assert without_versions(told.strip()) == without_versions(table())
