"""A tree that looks like a registry in use: what the screenshots of the documentation show.

Its layers are holes of the size that they say, so that it takes no room; serve it with ``--verify size``.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.trees import OCI_INDEX, OCI_MANIFEST, Built, descriptor, digest_of, write_image

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_EMPTY = b"{}"
_PURPOSE = "what your services say, and answers questions about it"


@dataclass(frozen=True)
class Made:
    """An image, and the sizes of the layers that it has as holes."""

    built: Built
    holes: dict[str, int]

    def write(self, directory: Path) -> None:
        write_image(directory, self.built)
        for digest, size in self.holes.items():
            with (directory / digest[7:]).open("wb") as file:
                os.truncate(file.fileno(), size)


def layer(seed: str, size: int, **more: Any) -> dict[str, Any]:
    return {"mediaType": _LAYER, "digest": digest_of(seed.encode()), "size": size, **more}


def manifest(
    config: bytes, config_type: str, layers: list[dict[str, Any]], files: Iterable[bytes] = (), **extra: Any
) -> Made:
    """An image of ``config``, and of ``layers`` that are holes but for those in ``files``."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        **extra,
        "config": descriptor(config, config_type),
        "layers": layers,
    }
    contents = {digest_of(content)[7:]: content for content in (config, *files)}
    holes = {each["digest"]: each["size"] for each in layers if each["digest"][7:] not in contents}
    return Made(Built(json.dumps(document).encode(), OCI_MANIFEST, contents), holes)


def program(
    name: str,
    version: str,
    created: str,
    *,
    architecture: str = "amd64",
    variant: str = "",
    sizes: tuple[int, ...] = (3_623_807, 41_230_112, 1_398, 811_004),
    **config: Any,
) -> Made:
    """A program on top of a small base, as a Dockerfile makes it."""
    commands = [
        f"ADD alpine-minirootfs-3.20.3-{architecture}.tar.gz / # buildkit",
        f"RUN /bin/sh -c apk add --no-cache ca-certificates && adduser -D -H -u 10001 {name} # buildkit",
        f"COPY /etc/{name} /etc/{name} # buildkit",
        f"COPY --link /out/{name} /usr/bin/{name} # buildkit",
    ][: len(sizes)]
    empty = [f"ENV {name.upper()}_VERSION={version}", f"USER {name}", f'ENTRYPOINT ["/usr/bin/{name}"]']
    history = [
        *({"created": created, "created_by": each, "comment": "buildkit.dockerfile.v0"} for each in commands),
        *({"created": created, "created_by": each, "empty_layer": True} for each in empty),
    ]
    document: dict[str, Any] = {
        "architecture": architecture,
        "os": "linux",
        **({"variant": variant} if variant else {}),
        "created": created,
        "config": {
            "User": name,
            "WorkingDir": f"/var/lib/{name}",
            "Entrypoint": [f"/usr/bin/{name}"],
            "Cmd": ["serve", "--config", f"/etc/{name}/{name}.yaml"],
            "ExposedPorts": {"8080/tcp": {}, "9090/tcp": {}},
            "Env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                f"{name.upper()}_VERSION={version}",
                "TZ=Etc/UTC",
            ],
            "Labels": {
                "org.opencontainers.image.title": name,
                "org.opencontainers.image.description": f"{name.capitalize()} keeps {_PURPOSE}.",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": "Apache-2.0",
                "org.opencontainers.image.source": f"https://git.example.com/platform/{name}",
                "org.opencontainers.image.documentation": f"https://docs.example.com/{name}/",
            },
            **config,
        },
        "history": history,
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    layers = [
        layer(f"{name}{version}{architecture}{number}" if number else f"base{architecture}", size)
        for number, size in enumerate(sizes)
    ]
    return manifest(json.dumps(document).encode(), _CONFIG, layers)


def platforms(children: list[tuple[str, Made]], *, absent: tuple[str, ...] = (), **extra: Any) -> Made:
    """An index of ``children`` by platform, such as linux/arm64, and of those that are ``absent``."""
    descriptors: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    holes: dict[str, int] = {}
    for platform, child in children:
        entry = descriptor(child.built.raw, OCI_MANIFEST) | {"platform": _platform(platform)}
        descriptors.append(entry)
        if platform not in absent:
            files |= child.built.files
            files[f"{child.built.digest[7:]}.manifest.json"] = child.built.raw
            holes |= child.holes
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors, **extra}
    return Made(Built(json.dumps(document).encode(), OCI_INDEX, files), holes)


def _platform(text: str) -> dict[str, str]:
    system, architecture, *variant = text.split("/")
    return {"architecture": architecture, "os": system} | ({"variant": variant[0]} if variant else {})


def artifact(artifact_type: str, content: bytes, media_type: str, **extra: Any) -> Made:
    blob = descriptor(content, media_type) | extra.pop("blob", {})
    return manifest(
        _EMPTY,
        "application/vnd.oci.empty.v1+json",
        [blob],
        [content],
        artifactType=artifact_type,
        **extra,
    )


def helm_chart(name: str, version: str) -> Made:
    chart = {
        "apiVersion": "v2",
        "name": name,
        "version": version,
        "appVersion": "2.11.0",
        "description": f"Installs {name} with its dashboards, and keeps it running through upgrades.",
        "home": f"https://docs.example.com/{name}/",
        "type": "application",
        "maintainers": [{"name": "Platform team", "email": "platform@example.com"}],
        "dependencies": [{"name": "common", "version": "2.x.x"}],
    }
    content = f"{name} {version}".encode() * 900
    blob = descriptor(content, "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    notes = {"org.opencontainers.image.created": "2026-11-02T09:11:00Z"}
    config = json.dumps(chart).encode()
    return manifest(config, "application/vnd.cncf.helm.config.v1+json", [blob], [content], annotations=notes)


def referring(made: Made, subject: Made) -> Made:
    """``made``, with ``subject`` as what it belongs to."""
    document = json.loads(made.built.raw) | {
        "subject": descriptor(subject.built.raw, subject.built.media_type)
    }
    return replace(made, built=replace(made.built, raw=json.dumps(document).encode()))


_PLATFORMS = (("linux/amd64", ""), ("linux/arm64", "v8"), ("linux/arm/v7", "v7"), ("linux/s390x", ""))


def across(name: str, version: str, created: str, *, count: int = 3, **more: Any) -> Made:
    children = []
    for platform, variant in _PLATFORMS[:count]:
        architecture = platform.split("/")[1]
        children.append(
            (platform, program(name, version, created, architecture=architecture, variant=variant))
        )
    return platforms(children, **more)


_LATER = ("2026-11-20T07:40:12Z", "2026-10-28T15:02:44Z", "2026-09-30T10:21:09Z", "2026-08-14T08:00:31Z")
_OTHERS = (
    "library/alpine:3.22.1 library/alpine:3.21.4 library/busybox:1.37 library/debian:13-slim "
    "library/debian:12-slim "
    "library/golang:1.25 library/nginx:1.30 library/nginx:1.28 library/node:24-slim library/postgres:18 "
    "library/postgres:17 library/python:3.14-slim library/python:3.13-slim library/redis:8 "
    "library/traefik:3.5 "
    "quay.io/prometheus/prometheus:v3.6.0 quay.io/prometheus/node-exporter:v1.9.1 "
    "quay.io/cilium/cilium:v1.18.2 "
    "quay.io/jetstack/cert-manager-controller:v1.19.0 ghcr.io/fluxcd/source-controller:v1.7.1 "
    "ghcr.io/fluxcd/kustomize-controller:v1.7.0 registry.k8s.io/coredns/coredns:v1.12.4 "
    "registry.k8s.io/pause:3.10 registry.k8s.io/etcd:3.6.4 platform/gateway:1.9.0 platform/worker:0.31.2 "
    "platform/ui:5.2.0 edge/camera/firmware:7.1 edge/camera/model:2026.4"
)


def make(root: Path) -> Path:
    """The showcase below ``root``."""
    for number, each in enumerate(_OTHERS.split()):
        name, _, tag = each.partition(":")
        made = across(name.rpartition("/")[2], tag, _LATER[number % 4], count=1 + number % 4)
        made.write(root / name / tag)
    ledger = root / "platform" / "ledger"
    versions = [f"2.{minor}.{patch}" for minor in range(11, 6, -1) for patch in (2, 1, 0)]
    for number, version in enumerate(versions):
        created = f"2026-{11 - number * 9 // 15:02}-{24 - number:02}T09:30:00Z"
        made = across("ledger", version, created, count=3 + (number < 9))
        made.write(ledger / version)
        if number == 0:
            made.write(ledger / "latest")
            _attach(ledger, made)
    across("ledger", "2.12.0-rc.1", "2026-11-23T16:44:00Z", count=2).write(ledger / "2.12.0-rc.1")
    program("ledger", "nightly", "2026-11-24T03:00:00Z").write(ledger / "nightly")
    for version in ("0.9.2", "0.9.1", "0.8.0"):
        helm_chart("ledger", version).write(root / "charts" / "ledger" / version)
    artifact(
        "application/vnd.example.policy.bundle.v1",
        b"package admission\n" * 4000,
        "application/vnd.example.policy.rego",
        blob={"annotations": {"org.opencontainers.image.title": "admission.rego"}},
        annotations={"org.opencontainers.image.created": "2026-10-04T12:00:00Z"},
    ).write(root / "policies" / "admission" / "2026-10")
    return root


def _attach(directory: Path, subject: Made) -> None:
    created = {"org.opencontainers.image.created": "2026-11-24T09:31:20Z"}
    for kind, media_type, size in (
        (
            "application/vnd.dev.sigstore.bundle.v0.3+json",
            "application/vnd.dev.sigstore.bundle.v0.3+json",
            4100,
        ),
        ("application/spdx+json", "application/spdx+json", 310_000),
        ("application/vnd.in-toto+json", "application/vnd.in-toto+json", 21_000),
    ):
        made = artifact(kind, b"x" * size, media_type, annotations=created)
        made = referring(made, subject)
        made.write(directory.with_name(f"{directory.name}@{made.built.digest}"))
