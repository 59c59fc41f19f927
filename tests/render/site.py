"""A whole site for tests: an images tree, its store, its three files, and a real nginx that reads them."""

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scr_watchd.daemon.resolve import catalog_of
from scr_watchd.files import ANYBODY
from scr_watchd.images.scan import Scanner
from scr_watchd.oci.catalog import Catalog, CatalogBuilder
from scr_watchd.oci.manifest import MediaType
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.publish.place import StorePlace
from scr_watchd.render.http_conf import Rendered, render
from tests.http import Response
from tests.nginxes import Running, nginx_with
from tests.stores import Stored
from tests.trees import Built, digest_of, make_images

OURS = "include hash.conf; include http.conf;"

# Somebody else's `map` comes first: nginx's hash sizes are then fixed, and hash.conf is left out.
AFTER_ANOTHER_MAP = "map $host $not_ours { default 1; } include http.conf;"


@dataclass
class Served:
    """A running nginx, and where the files lie that it serves."""

    nginx: Running

    def get(self, path: str, *, method: str = "GET", body: bytes = b"", **headers: str) -> Response:
        """Ask for ``path``; the underscores of ``headers`` stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.nginx.ask(path, method=method, headers=named, body=body)

    def log(self) -> str:
        """What nginx logged: warnings and errors."""
        return (self.nginx.directory / "stderr").read_text()

    def manifest_file(self, name: str, tag: str, digest: str) -> Path:
        """The file of the manifest, or of one of its children, that was dropped as ``name``:``tag``."""
        raise NotImplementedError

    def blob_file(self, name: str, tag: str, digest: str) -> Path:
        """The file of a blob that was dropped with ``name``:``tag``."""
        raise NotImplementedError


@dataclass
class Site(Served):
    """A running nginx with the store and the rendered files that it serves."""

    store: Path
    rendered: Rendered

    def manifest_file(self, name: str, tag: str, digest: str) -> Path:
        (found,) = (self.store / name / ".manifests").glob(f"*/{digest[7:]}")
        return found

    def blob_file(self, name: str, tag: str, digest: str) -> Path:
        return self.store / name / ".blobs" / digest.replace(":", "/")

    def complaints(self) -> list[str]:
        """What nginx logged that is about us, and is not only that it has smaller hashes than it could."""
        return [
            line
            for line in self.log().splitlines()
            if "could not build optimal" not in line
            and ("No such file" not in line or str(self.store) in line or "/dev/null" in line)
        ]


@contextmanager
def site(
    directory: Path,
    repositories: Mapping[str, Mapping[str, Built]],
    *,
    program: str | None = None,
    http: str = OURS,
    server: str = "include server.conf;",
    files: Mapping[str, bytes] | None = None,
    list_repositories: bool = True,
    mirrors: Mapping[str, str] | None = None,
) -> Iterator[Site]:
    """The tree of ``repositories``, taken into a store and served by ``program``."""
    root = make_images(directory / "images", repositories)
    catalog = stored(root, directory / "store")
    with serving(
        catalog,
        store=directory / "store",
        program=program,
        http=http,
        server=server,
        files=files,
        list_repositories=list_repositories,
        mirrors=mirrors,
    ) as running:
        yield running


@contextmanager
def serving(
    catalog: Catalog,
    *,
    store: Path = Path("/nowhere"),
    program: str | None = None,
    http: str = OURS,
    server: str = "include server.conf;",
    files: Mapping[str, bytes] | None = None,
    list_repositories: bool = True,
    mirrors: Mapping[str, str] | None = None,
    warning: str = "",
    main: str = "",
) -> Iterator[Site]:
    """``catalog`` alone: names and lists are answered, files only if ``store`` has them."""
    rendered = render(
        catalog,
        store=str(store),
        list_repositories=list_repositories,
        mirrors=mirrors or {},
        warning=warning,
    )
    every = {**rendered.files, **(files or {})}
    with nginx_with(http, server, files=every, program=program, main=main) as nginx:
        yield Site(nginx, store, rendered)


def stored(root: Path, store: Path) -> Catalog:
    """Scan ``root`` and take all of it into ``store``; nothing may be wrong with it."""
    scan = Scanner(root, reader=ANYBODY).full()
    assert not scan.problems, "\n".join(map(str, scan.problems))
    taken = Stored(StorePlace(store, str(store), str(root), ""), root).take(scan)
    images, problems = taken.images, taken.problems
    assert not problems, "\n".join(map(str, problems))
    return catalog_of(images)


def catalog_with(entries: Iterable[tuple[str, str, bytes]]) -> Catalog:
    """A catalog of ``NAME, TAG, MANIFEST``, without any tree."""
    builder = CatalogBuilder()
    for name, tag, content in entries:
        repository, digest = RepositoryName.parse(name), Digest.parse(digest_of(content))
        builder.manifest(repository, digest, MediaType.OCI_MANIFEST)
        builder.tag(repository, Tag.parse(tag), digest)
    return builder.catalog()


def store_of(directory: Path, catalog: Catalog, manifests: Mapping[str, bytes]) -> Path:
    """A store in ``directory`` that has the manifests of ``catalog``, by digest, and nothing else."""
    for repository in catalog.repositories:
        for digest, media_type in repository.manifests.items():
            path = directory / repository.name / ".manifests" / media_type.number / digest.hex
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(manifests[digest])
    return directory


def spellings(path: str) -> list[str]:
    """Other ways to write ``path``, which begins with /v2, that nginx takes for the same."""
    rest = path.removeprefix("/v2")
    return [
        "/%76%32" + rest,
        "/v%32" + rest,
        "/v2" + rest[:1] + rest[1:].replace("/", "%2F"),
        "/v2" + rest[:1] + rest[1:].replace("/", "%2f"),
        "/v2" + rest.replace("/", "%2f"),
        "/v2" + rest.replace("a", "%61"),
        "/" + path,
        path.replace("/", "//"),
        path.replace("/", "/./"),
        "/elsewhere/.." + path,
        "/v2/elsewhere/../.." + path,
        "/v2/%2e%2e" + path,
        path + ("&" if "?" in path else "?") + "ns=docker.io",
        path + "?",
    ]


def exchange(nginx: Running, request: bytes) -> bytes:
    """Send ``request`` as it is and return every byte of the answer, up to the end of the connection."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(nginx.socket)
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer
