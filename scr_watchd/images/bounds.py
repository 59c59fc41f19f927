"""How much of a repository is listed: what nginx holds in memory for a list must have an end."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from scr_watchd.oci.catalog import Image, ManifestFile
from scr_watchd.oci.names import Digest, RepositoryName

TAGS = 100_000
"""Most tags of a repository that are served."""

REFERRERS = 1_000
"""Most referrers of a subject that are listed."""

ANNOTATION_BYTES = 16 * 1024
"""Most bytes of annotations with which a referrer is listed."""

Complaint = tuple[Image, str, str]
"""An image at fault, or one of several, the reason, and the remedy."""


def within_bounds(images: Iterable[Image]) -> tuple[list[Image], list[Complaint]]:
    """``images`` without what goes beyond a bound, and for each such bound what is to be said.

    The first tags in ASCII order are kept, and the first referrers by their digest, so that it is
    always the same ones. A referrer that is not listed can still be pulled.
    """
    kept = list(images)
    complaints: list[Complaint] = []
    counts = Counter(image.repository for image in kept if image.tag is not None)
    for name in [name for name, count in counts.items() if count > TAGS]:
        kept = _with_fewer_tags(kept, name, complaints)
    if any(manifest.referral for image in kept for manifest in image.manifests):
        excess = _excess_referrers(kept, complaints)
        kept = [_listed(image, excess, complaints) for image in kept]
    return kept, complaints


def _with_fewer_tags(images: list[Image], name: RepositoryName, complaints: list[Complaint]) -> list[Image]:
    tags = sorted(image.tag for image in images if image.repository == name and image.tag is not None)
    last = tags[TAGS - 1]
    beyond = [image for image in images if image.repository == name and (image.tag or "") > last]
    complaints.append(
        (
            beyond[0],
            f"{name} has {len(tags):,} tags, and {TAGS:,} are served: those up to {last}",
            "Remove tags, or divide the repository",
        )
    )
    left_out = set(map(id, beyond))
    return [image for image in images if id(image) not in left_out]


def _excess_referrers(images: list[Image], complaints: list[Complaint]) -> set[tuple[RepositoryName, Digest]]:
    """The manifests that are beyond the first referrers of their subject."""
    found: dict[tuple[RepositoryName, Digest], dict[Digest, Image]] = {}
    for image in images:
        for manifest in image.manifests:
            if manifest.referral is not None:
                found.setdefault((image.repository, manifest.referral.subject), {})[manifest.digest] = image
    excess = set()
    for (name, subject), referrers in found.items():
        beyond = sorted(referrers)[REFERRERS:]
        excess |= {(name, digest) for digest in beyond}
        if beyond:
            reason = f"{subject} has {len(referrers):,} referrers in {name}, and {REFERRERS:,} are listed"
            complaints.append((referrers[beyond[0]], reason, "Remove some of its signatures or SBOMs"))
    return excess


def _listed(image: Image, excess: set[tuple[RepositoryName, Digest]], complaints: list[Complaint]) -> Image:
    """``image`` without the referrals, or their annotations, that are beyond a bound."""
    if not any(manifest.referral for manifest in image.manifests):
        return image
    manifests: list[ManifestFile] = []
    for manifest in image.manifests:
        referral = manifest.referral
        if referral is not None and (image.repository, manifest.digest) in excess:
            referral = None
        elif referral is not None and (size := _size(referral.annotations)) > ANNOTATION_BYTES:
            reason = f"it has {size:,} bytes of annotations, and is listed as a referrer without them"
            remedy = f"Put them into a layer: at most {ANNOTATION_BYTES:,} bytes are listed"
            complaints.append((image, reason, remedy))
            referral = replace(referral, annotations={})
        manifests.append(replace(manifest, referral=referral))
    if tuple(manifests) == image.manifests:
        return image  # the very object that was found before, else its blobs would be hashed again
    return replace(image, manifests=tuple(manifests))


def _size(annotations: Mapping[str, str]) -> int:
    return sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
