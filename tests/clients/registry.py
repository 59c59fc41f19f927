"""What the clients pull from: a site with an nginx of an operator, in a network of its own.

127.0.0.1:5000 is plain HTTP, as in the quick start; https://registry.test has a certificate of a private
CA; https://private.test asks for a password too; http://hub.test is docker.io for docker, as docs/clients.md
has it. All serve the same tree.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scr_watchd.publish.nginx import inspect, temp_paths, user_directive
from tests.clients.real_images import Workshop, skopeo
from tests.daemons import daemon, public_directory
from tests.documents import block
from tests.engines import run
from tests.http import ask
from tests.networks import ADDRESS, network
from tests.nginxes import require
from tests.trees import Built, descriptor, digest_of, write_image
from tests.waiting import until

PLAIN, TLS, PRIVATE, FOR_DOCKER = "127.0.0.1:5000", "registry.test", "private.test", "hub.test"
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
        return digest_of((self.images / name / "manifest.json").read_bytes())

    def requests(self) -> list[str]:
        """What was asked so far and answered with 200: HOST PATH?QUERY."""
        lines = (self.directory / "access.log").read_text().splitlines()
        return [line.removeprefix("200 ") for line in lines if line.startswith("200 ")]


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
                process.says("^serving 7 images")
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
ALPINE = "library/alpine:3"
CONTENTS: Mapping[str, str] = {
    SINGLE: "an image",
    DOCKER: "an image",
    LIST: "for amd64",
    DOCKER_LIST: "for amd64",
    ALPINE: "the tree's own library/alpine",
    f"{HUB}/{ALPINE}": "docker.io's library/alpine",
}
"""What the file /content of each image says."""


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
    }
    for name, (source, *options) in recipes.items():
        target = registry.tag_directory(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        skopeo("copy", "--quiet", *options, source, f"dir:{target}")
    write_image(registry.tag_directory(ARTIFACT), artifact())


def artifact() -> Built:
    """Something that is no container image: an OCI manifest with a type of its own and one file."""
    empty, file = b"{}", b"a bill of materials"
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.sbom",
        "config": descriptor(empty, "application/vnd.oci.empty.v1+json"),
        "layers": [descriptor(file, "text/plain")],
    }
    files = {digest_of(content)[7:]: content for content in (empty, file)}
    return Built(json.dumps(document).encode(), str(document["mediaType"]), files)
