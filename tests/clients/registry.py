"""What the clients pull from: a site with an nginx of an operator, in a network of its own.

127.0.0.1:5000 is plain HTTP, as in the quick start; 127.0.0.1:5001 leads there, and can be cut; registry.test
has a certificate of a private CA; private.test asks for a password too; hub.test is docker.io for docker, as
docs/clients.md has it. All serve the same tree.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from scr_watchd.publish.nginx import inspect, temp_paths, user_directive
from tests.clients.real_images import Workshop, skopeo
from tests.daemons import daemon, public_directory
from tests.documents import block
from tests.engines import run
from tests.http import ask
from tests.networks import ADDRESS, network
from tests.nginxes import require
from tests.trees import Built, descriptor, digest_of, docker_save, write_image
from tests.waiting import until

PLAIN, CUT = "127.0.0.1:5000", "127.0.0.1:5001"
TLS, PRIVATE, FOR_DOCKER = "registry.test", "private.test", "hub.test"
USER, PASSWORD = "reader", "se:cret"
HUB = "docker.io"
"""Where the tree has what belongs to docker.io."""


@dataclass(frozen=True)
class Registry:
    """A running site; ``before`` are the words that lead into its network."""

    directory: Path
    before: tuple[str, ...]

    @property
    def images(self) -> Path:
        return self.directory / "images"

    @property
    def ca(self) -> Path:
        return self.directory / "tls" / "ca.crt"

    def tag_directory(self, name: str) -> Path:
        return self.images / name

    def digest(self, name: str) -> str:
        return digest_of((self.images / SAME.get(name, name) / "manifest.json").read_bytes())

    def requests(self, *statuses: int) -> list[str]:
        """What was answered with 200 or 206 so far, or with one of ``statuses``: HOST PATH?QUERY."""
        lines = (self.directory / "access.log").read_text().splitlines()
        found = [line.partition(" ")[::2] for line in lines]
        return [asked for status, asked in found if int(status) in (statuses or (200, 206))]

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Within, the first answer that CUT hands on ends in the middle of a large blob."""
        command = [*self.before, sys.executable, "-c", _CUT, *CUT.split(":"), *PLAIN.split(":")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


# Hands connections on; after three million bytes of one answer it ends that connection, once.
_CUT = """
import socket, sys, threading
host, port, to, its_port = sys.argv[1:]
spare = [3_000_000]
def hand_on(source, target, spare):
    passed = 0
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
            passed += len(piece)
            if spare and passed > spare[0]:
                spare.clear()
                break
    except OSError:
        pass
    for each in (source, target):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
with socket.create_server((host, int(port))) as server:
    print("ready", flush=True)
    while True:
        client, _ = server.accept()
        upstream = socket.create_connection((to, int(its_port)))
        threading.Thread(target=hand_on, args=(client, upstream, []), daemon=True).start()
        threading.Thread(target=hand_on, args=(upstream, client, spare), daemon=True).start()
"""


@contextmanager
def registry() -> Iterator[Registry]:
    """A site that serves real images of every kind."""
    with public_directory() as directory, network(TLS, PRIVATE, FOR_DOCKER) as before:
        made = Registry(directory, before)
        (directory / "images").mkdir()
        _make_certificates(directory / "tls")
        _make_images(made)
        state = directory / "state"
        (directory / "mirrors.toml").write_text(f'[mirrors]\n"docker.io" = "{HUB}"\n')
        config = directory / "nginx.conf"
        config.write_text(_site(directory, state))
        arguments = ("-c", directory / "mirrors.toml", "--state", state, "--nginx-config", config)
        with daemon("run", made.images, *arguments, before=before) as process:
            until(lambda: (state / "nginx" / "current").exists())
            with _nginx(directory, before):
                process.says(f"^serving {len(CONTENTS) + 2} images", seconds=30)
                yield made


@contextmanager
def _nginx(directory: Path, before: tuple[str, ...]) -> Iterator[None]:
    program = require("nginx")
    process = subprocess.Popen([*before, program, "-p", str(directory), "-c", f"{directory}/nginx.conf"])

    def is_up() -> bool:
        assert process.poll() is None, (directory / "error.log").read_text()
        try:
            return ask(f"{directory}/nginx.sock", "/v2/").status == 200
        except OSError:
            return False

    try:
        until(is_up)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _site(directory: Path, state: Path) -> str:
    include = f"include {state}/nginx/current/server*.conf;"
    tls = f"ssl_certificate {directory}/tls/site.crt; ssl_certificate_key {directory}/tls/site.key;"
    return f"""
{user_directive(os.geteuid())}
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
    log_format asked "$status $http_host $request_uri";
    access_log {directory}/access.log asked;
    {temp_paths(inspect(require("nginx")), directory)}
    include {state}/nginx/current/http*.conf;
    server {{ listen {PLAIN}; listen unix:{directory}/nginx.sock; {include} }}
    server {{ listen {ADDRESS}:443 ssl; server_name {TLS}; {tls} {include} }}
    server {{ listen {ADDRESS}:80; server_name {FOR_DOCKER}; {_rewrite()} {include} }}
    server {{
        listen {ADDRESS}:443 ssl; server_name {PRIVATE}; {tls} {include}
        auth_basic "images";
        auth_basic_user_file {directory}/tls/passwords;
    }}
}}
"""


def _rewrite() -> str:
    """docs/clients.md's line for a server that is docker.io to docker."""
    server = block("docs/clients.md", "A mirror for other registries", "rewrite")
    (line,) = re.findall(r"^ *(rewrite .*;)$", server, re.MULTILINE)
    return str(line)


def _make_certificates(directory: Path) -> None:
    """A private CA, a certificate of it for both names, and the file of passwords."""
    directory.mkdir()
    openssl = require("openssl")
    (directory / "names").write_text(f"subjectAltName=DNS:{TLS},DNS:{PRIVATE}")
    new = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
    where = {name: directory / name for name in ("ca.crt", "ca.key", "site.crt", "site.key", "site.csr")}
    run(
        openssl, "req", "-x509", *new, "-subj", "/CN=a private CA",
        "-keyout", where["ca.key"], "-out", where["ca.crt"],
    )  # fmt: skip
    run(
        openssl, "req", *new, "-subj", f"/CN={TLS}", "-keyout", where["site.key"], "-out", where["site.csr"],
    )  # fmt: skip
    run(
        openssl, "x509", "-req", "-days", "2", "-in", where["site.csr"], "-CA", where["ca.crt"],
        "-CAkey", where["ca.key"], "-CAcreateserial", "-extfile", directory / "names",
        "-out", where["site.crt"],
    )  # fmt: skip
    hashed = run(openssl, "passwd", "-apr1", PASSWORD).strip()
    (directory / "passwords").write_text(f"{USER}:{hashed}\n")


# -- the images ------------------------------------------------------------------------------------

SINGLE, DOCKER, LIST, DOCKER_LIST, ARTIFACT = "oci:1", "v2s2:1", "index:1", "list:1", "artifact:1"
ZSTD, CHUNKED, LARGE, SBOM = "zstd:1", "chunked:1", "large:1", "oci:sbom"
ALPINE = "library/alpine:3"
BUNDLED, WITH_PORT = "bundle/docker.io/library/alpine:3.20", "bundle/127.0.0.1_7100/lib/app:1"
SPARSE = "bundle/quay.io/x/both:1"
CONTENTS: Mapping[str, str] = {
    SINGLE: "an image",
    DOCKER: "an image",
    LIST: "for amd64",
    DOCKER_LIST: "for amd64",
    ALPINE: "the tree's own library/alpine",
    f"{HUB}/{ALPINE}": "docker.io's library/alpine",
    ZSTD: "in zstd",
    CHUNKED: "in chunks",
    LARGE: Random(0).randbytes(5_000_000).hex(),
    BUNDLED: "an image",
    WITH_PORT: "an image",
    SPARSE: "for amd64",
}
"""What the file /content of each image says."""
SAME = {BUNDLED: SINGLE, WITH_PORT: SINGLE, SPARSE: LIST}
"""What lies in a bundle has the digest of another image."""


def _make_images(registry: Registry) -> None:
    workshop = Workshop(registry.directory / "workshop")
    workshop.directory.mkdir()
    single = workshop.build("single", content=CONTENTS[SINGLE])
    both = workshop.build_list("both", amd64=CONTENTS[LIST], arm64="for arm64")
    own = workshop.build("own", content=CONTENTS[ALPINE])
    hub = workshop.build("hub", content=CONTENTS[f"{HUB}/{ALPINE}"])
    recipes = {
        SINGLE: (single, "--format", "oci"),
        DOCKER: (single, "--format", "v2s2", "--dest-compress"),
        LIST: (both, "--all"),
        DOCKER_LIST: (both, "--all", "--format", "v2s2"),
        ALPINE: (own, "--format", "oci"),
        f"{HUB}/{ALPINE}": (hub, "--format", "oci"),
        ZSTD: (workshop.build("zstd", content=CONTENTS[ZSTD]), *_COMPRESSED, "zstd"),
        CHUNKED: (workshop.build("chunked", content=CONTENTS[CHUNKED]), *_COMPRESSED, "zstd:chunked"),
        LARGE: (workshop.build("large", content=CONTENTS[LARGE]), "--format", "oci"),
    }
    for name, (source, *options) in recipes.items():
        target = registry.tag_directory(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        skopeo("copy", "--quiet", *options, source, f"dir:{target}")
    write_image(registry.tag_directory(ARTIFACT), artifact())
    one, two = (_built(registry.tag_directory(name)) for name in (SINGLE, LIST))
    write_image(registry.tag_directory(SBOM), artifact(descriptor(one.raw, one.media_type)))
    bundled = {name.removeprefix("bundle/").replace("_7100", ":7100"): SAME[name] for name in SAME}
    images = {SINGLE: one, LIST: _without_arm64(two)}
    docker_save(registry.images / "bundle", *((name, images[kind]) for name, kind in bundled.items()))


_COMPRESSED = ("--format", "oci", "--dest-compress", "--dest-compress-format")


def _built(directory: Path) -> Built:
    raw = (directory / "manifest.json").read_bytes()
    files = {each.name: each.read_bytes() for each in directory.iterdir() if each.name != "manifest.json"}
    return Built(raw, json.loads(raw)["mediaType"], files)


def _without_arm64(image: Built) -> Built:
    """As what was pulled for one platform only is saved."""
    (arm64,) = (
        each["digest"][7:]
        for each in json.loads(image.raw)["manifests"]
        if each["platform"]["architecture"] == "arm64"
    )
    child = json.loads(image.files[f"{arm64}.manifest.json"])
    absent = {f"{arm64}.manifest.json", *(each["digest"][7:] for each in (child["config"], *child["layers"]))}
    common = {
        each["digest"][7:]
        for name, raw in image.files.items()
        if name.endswith(".manifest.json") and name != f"{arm64}.manifest.json"
        for each in (json.loads(raw)["config"], *json.loads(raw)["layers"])
    }
    files = {name: raw for name, raw in image.files.items() if name not in absent - common}
    return Built(image.raw, image.media_type, files)


def artifact(subject: dict[str, object] | None = None) -> Built:
    """Something that is no container image: an OCI manifest with a type of its own and one file."""
    empty, file = b"{}", b"a bill of materials"
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.sbom",
        "config": descriptor(empty, "application/vnd.oci.empty.v1+json"),
        "layers": [descriptor(file, "text/plain")],
        **({"subject": subject} if subject else {}),
    }
    files = {digest_of(content)[7:]: content for content in (empty, file)}
    return Built(json.dumps(document).encode(), str(document["mediaType"]), files)
