"""What the bytes of a manifest say: its media type, the content that it needs, what it is about.

Only the four media types that registries exchange are known. Serving a type that the manifest
itself chose would let an image run as HTML on the site's own origin.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec

from scr_watchd.oci.names import Digest

MANIFEST_BYTES = 4 * 1024 * 1024
"""Largest manifest that is read (distribution specification, "Pushing Manifests")."""


class MediaType(enum.StrEnum):
    """The manifest types that are served (image specification, "Media Types"; Docker v2.2)."""

    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
    OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
    DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
    OCI_INDEX = "application/vnd.oci.image.index.v1+json"

    @property
    def number(self) -> str:
        """What http.conf calls it, and its directory in the store."""
        return _NUMBER[self]


_NUMBER = {
    MediaType.DOCKER_MANIFEST: "0",
    MediaType.OCI_MANIFEST: "1",
    MediaType.DOCKER_LIST: "2",
    MediaType.OCI_INDEX: "3",
}
_INDEXES = {MediaType.DOCKER_LIST, MediaType.OCI_INDEX}
_WITH_SUBJECT = {MediaType.OCI_MANIFEST, MediaType.OCI_INDEX}

_PLATFORM_WORD = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ATTESTED = "vnd.docker.reference.type"
_NO_PLATFORM = "unknown/unknown"


class ManifestError(ValueError):
    """Bytes that are no manifest we serve; the text says why."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Content that a manifest refers to. ``optional`` content may be absent from the registry:
    a layer that its publisher forbids to redistribute and that clients fetch elsewhere, or what an index
    says of a platform without being one. ``platform`` is what the manifest of one is for."""

    digest: Digest
    size: int
    optional: bool = False
    platform: str = ""

    @property
    def called(self) -> str:
        """The platform, or what else tells it from the others of its index."""
        return self.platform or f"{self.digest[:19]}..."


@dataclass(frozen=True, slots=True)
class Referral:
    """What makes a manifest a referrer: the ``subject`` that it is about, and what lists of referrers
    say of it (distribution specification, "Listing Referrers")."""

    subject: Digest
    artifact_type: str
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest or index: ``manifests`` are an index's children, ``blobs`` the config
    and layers of an image, each once, in the order of the document."""

    media_type: MediaType
    manifests: tuple[Descriptor, ...]
    blobs: tuple[Descriptor, ...]
    referral: Referral | None = None


class _RawDescriptor(msgspec.Struct, rename="camel"):
    digest: str
    size: int
    media_type: str = ""
    urls: list[str] | None = None
    platform: msgspec.Raw = msgspec.Raw(b"null")  # whatever is in it and in the annotations, it is served
    annotations: msgspec.Raw = msgspec.Raw(b"null")


class _RawPlatform(msgspec.Struct):
    os: str
    architecture: str
    variant: str | None = None


class _RawManifest(msgspec.Struct, rename="camel"):
    schema_version: int
    media_type: str | None = None
    config: _RawDescriptor | None = None
    layers: list[_RawDescriptor] | None = None
    manifests: list[_RawDescriptor] | None = None
    subject: _RawDescriptor | None = None
    artifact_type: str | None = None
    annotations: msgspec.Raw = msgspec.Raw(b"null")  # whatever is in it, an image without subject is served


_decoder = msgspec.json.Decoder(_RawManifest)
_annotations = msgspec.json.Decoder(dict[str, str | None] | None)
_platform = msgspec.json.Decoder(_RawPlatform)


_FOREIGN = {
    b"\x1f\x8b": "gzip, not JSON",
    b"\x28\xb5\x2f\xfd": "zstd, not JSON",
    b"\xef\xbb\xbf": "JSON with a byte order mark, which must go",
    b"\xff\xfe": "UTF-16, not UTF-8",
    b"\xfe\xff": "UTF-16, not UTF-8",
    b"<": "HTML, such as the error page of a proxy, not JSON",
}


def foreign(raw: bytes) -> str:
    """What ``raw`` is instead of JSON, where that is known from how it begins; else nothing."""
    begin = raw.lstrip(b" \t\r\n")[:4] if raw[:1].isspace() else raw[:4]
    return next((what for magic, what in _FOREIGN.items() if begin.startswith(magic)), "")


def parse(raw: bytes) -> Manifest:
    """Read ``raw`` as one of the four manifest types, or raise ``ManifestError``.

    A document without ``mediaType`` is OCI (image specification, "Image Manifest"); one that is
    image and index at once is refused, because two clients would read two images in it.
    """
    document = _decode(raw)
    if document.schema_version == 1:
        raise ManifestError("it is a Docker schema 1 manifest, which current clients no longer pull")
    if document.schema_version != 2:
        raise ManifestError(f"schemaVersion is {document.schema_version}, not 2")
    if document.manifests is not None and (document.config or document.layers is not None):
        raise ManifestError("it has both layers and manifests: it must be an image or an index, not both")
    media_type = _media_type(document)
    if media_type in _INDEXES:
        if document.manifests is None:
            raise ManifestError("it calls itself an index but has no manifests")
        children = _descriptors(document.manifests, are_children=True)
        return Manifest(media_type, children, (), _referral(media_type, document))
    if document.manifests is not None:
        raise ManifestError("it calls itself an image but lists manifests")
    if document.config is None and not (media_type is MediaType.OCI_MANIFEST and document.artifact_type):
        raise ManifestError("it calls itself an image but has no config")
    config = [document.config] if document.config else []
    blobs = _descriptors([*config, *(document.layers or [])])
    return Manifest(media_type, (), blobs, _referral(media_type, document))


def _decode(raw: bytes) -> _RawManifest:
    try:
        return _decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise ManifestError(f"it is JSON, but no manifest: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if what := foreign(raw):
            raise ManifestError(f"it is {what}") from error
        raise ManifestError(f"it is not JSON: {error}" if raw.strip() else "it is empty") from error
    except RecursionError as error:
        raise ManifestError("it is nested too deeply") from error


def _media_type(document: _RawManifest) -> MediaType:
    if document.media_type is None:
        return MediaType.OCI_INDEX if document.manifests is not None else MediaType.OCI_MANIFEST
    try:
        return MediaType(document.media_type)
    except ValueError as error:
        raise ManifestError(f"its media type {document.media_type[:100]!a} is not served") from error


def _descriptors(raw: list[_RawDescriptor], *, are_children: bool = False) -> tuple[Descriptor, ...]:
    found: dict[Digest, Descriptor] = {}
    for item in raw:
        platform = _platform_of(item) if are_children else ""
        optional = bool(item.urls) and _is_foreign(item.media_type)
        if are_children:
            optional = platform == _NO_PLATFORM or _ATTESTED.encode() in bytes(item.annotations)
        try:
            new = _descriptor(item.digest, item.size, optional, "" if optional else platform)
        except ValueError as error:
            raise ManifestError(f"it refers to {item.digest[:100]!a}: {error}") from error
        if new.size < 0:
            raise ManifestError(f"the size of {new.digest} is {new.size}")
        known = found.get(new.digest, new)
        if known.size != new.size:
            raise ManifestError(f"it gives {new.digest} two sizes, {known.size} and {new.size}")
        found[new.digest] = new if known.optional else known
    return tuple(found.values())


@lru_cache(maxsize=4096)
def _descriptor(digest: str, size: int, optional: bool, platform: str) -> Descriptor:  # noqa: FBT001 - a key of the cache
    """The same object each time: images share layers, and a tree has many images."""
    return Descriptor(Digest.parse(digest), size, optional, platform)


def _platform_of(raw: _RawDescriptor) -> str:
    """``linux/arm64/v8``, as clients call it; empty where the index does not say, or says nonsense."""
    try:
        said = _platform.decode(raw.platform)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    words = [each for each in (said.os, said.architecture, said.variant) if each]
    return "/".join(words) if all(map(_PLATFORM_WORD.fullmatch, words)) else ""


def _referral(media_type: MediaType, document: _RawManifest) -> Referral | None:
    """Docker's types know no subject. The type of an artifact that names none is its config's."""
    if document.subject is None or media_type not in _WITH_SUBJECT:
        return None
    (subject,) = _descriptors([document.subject])
    artifact_type = document.artifact_type or (document.config.media_type if document.config else "")
    return Referral(subject.digest, artifact_type, _said(document.annotations))


def _said(raw: msgspec.Raw) -> dict[str, str]:
    """Annotations; ``null`` is empty, as it is for clients that are written in Go."""
    try:
        return {key: value or "" for key, value in (_annotations.decode(raw) or {}).items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"its annotations cannot be listed: {error}") from error


def _is_foreign(media_type: str) -> bool:
    return ".foreign." in media_type or ".nondistributable." in media_type
