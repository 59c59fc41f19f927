"""What refers to what, in words: which image a signature or an SBOM is about."""

import re
from collections.abc import Callable, Iterable

from scr_watchd.oci.catalog import Image
from scr_watchd.oci.names import Digest, RepositoryName
from scr_watchd.words import printable

# cosign's tags, and that of lists of referrers where a registry has none of its own
_BY_TAG = re.compile(r"sha256-([0-9a-f]{64})(?:\.(?:sig|att|sbom))?")


def subject(image: Image) -> Digest | None:
    """What ``image`` is about: its manifest says so, or its tag."""
    if referral := image.manifests[0].referral:
        return referral.subject
    named = _BY_TAG.fullmatch(image.tag or "")
    return Digest.parse(f"sha256:{named[1]}") if named else None


def fields(image: Image) -> dict[str, str | None]:
    """The same for programs."""
    meant, referral = subject(image), image.manifests[0].referral
    return {
        "subject": None if meant is None else str(meant),
        "artifactType": printable(referral.artifact_type) or None if referral else None,
    }


def about(images: Iterable[Image], *, are_all: bool = True) -> Callable[[Image], str]:
    """What each of ``images`` is about, in words; of most of them nothing. What is not among them is said not
    to be here, if they ``are_all``."""
    found: dict[tuple[RepositoryName, Digest], str] = {}
    for image in images:
        name = str(image.tag or image.digest[:19])
        for manifest in image.manifests:
            part = name if manifest is image.manifests[0] else f"a platform of {name}"
            if part == image.tag or (image.repository, manifest.digest) not in found:
                found[image.repository, manifest.digest] = part
    absent = ", which is not here" if are_all else ""

    def words(image: Image) -> str:
        meant = subject(image)
        if meant is None:
            return ""
        name = found.get((image.repository, meant)) or f"{meant[:19]}{absent}"
        kind = fields(image)["artifactType"]
        return f"{name} ({kind})" if kind else name

    return words
