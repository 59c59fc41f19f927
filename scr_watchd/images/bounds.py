"""Says what goes beyond the bounds of lists, and keeps tags within theirs. Referrers beyond theirs are
in no list, and can still be pulled; see ``CatalogBuilder``."""

from collections import Counter
from collections.abc import Iterable, Iterator

from scr_watchd.oci import bounds
from scr_watchd.oci.catalog import Image
from scr_watchd.oci.names import Digest, RepositoryName

Complaint = tuple[Image, str, str]
"""An image at fault, or one of several, the reason, and the remedy."""


def within_bounds(images: Iterable[Image]) -> tuple[tuple[Image, ...], list[Complaint]]:
    """``images`` without the tags beyond the bound, of which the first in ASCII order are kept, and
    what is to be said of every bound."""
    kept = tuple(images)
    complaints: list[Complaint] = []
    many = kept if len(kept) > bounds.TAGS else ()
    counts = Counter(image.repository for image in many if image.tag is not None)
    for name in [name for name, count in counts.items() if count > bounds.TAGS]:
        kept, beyond = _divided(kept, name)
        complaints.append(
            (
                beyond[0],
                f"{name} has {counts[name]:,} tags, and the first {bounds.TAGS:,} are served",
                "Remove tags, or divide the repository",
            )
        )
    return kept, [*complaints, *_of_referrers(kept)]


def _divided(images: tuple[Image, ...], name: RepositoryName) -> tuple[tuple[Image, ...], list[Image]]:
    tags = sorted(image.tag for image in images if image.repository == name and image.tag is not None)
    last = tags[bounds.TAGS - 1]
    beyond = [image for image in images if image.repository == name and (image.tag or "") > last]
    left_out = set(map(id, beyond))
    return tuple(image for image in images if id(image) not in left_out), beyond


def _of_referrers(images: Iterable[Image]) -> Iterator[Complaint]:
    found: dict[tuple[RepositoryName, Digest], dict[Digest, Image]] = {}
    refer = [
        (image, each.digest, each.referral)
        for image in images
        for each in image.manifests
        if each.referral is not None
    ]
    for image, digest, referral in refer:
        found.setdefault((image.repository, referral.subject), {})[digest] = image
        size = bounds.size_of(referral.annotations)
        if size > bounds.ANNOTATION_BYTES:
            reason = f"it has {size:,} bytes of annotations, and is listed as a referrer without them"
            remedy = f"Put them into a layer: at most {bounds.ANNOTATION_BYTES:,} bytes are listed"
            yield image, reason, remedy
        length = len(referral.artifact_type)
        if length > bounds.ARTIFACT_TYPE_LENGTH:
            reason = f"its artifact type has {length:,} characters, and it is listed without one"
            remedy = f"Make it again with a type of at most {bounds.ARTIFACT_TYPE_LENGTH} characters"
            yield image, reason, remedy
    for (name, subject), referrers in found.items():
        beyond = sorted(referrers)[bounds.REFERRERS :]
        if beyond:
            count = f"{len(referrers):,} referrers in {name}, and the first {bounds.REFERRERS:,} are listed"
            yield referrers[beyond[0]], f"{subject} has {count}", "Remove some of its signatures or SBOMs"
