"""How much of a repository is listed: what nginx holds in memory for a list must have an end."""

from collections.abc import Mapping

TAGS = 100_000
"""Most tags of a repository that are served."""

REFERRERS = 1_000
"""Most referrers of a subject that are listed."""

ANNOTATION_BYTES = 16 * 1024
"""Most bytes of annotations with which a referrer is listed."""

ARTIFACT_TYPE_LENGTH = 255
"""Longest artifact type with which a referrer is listed: RFC 6838, section 4.2, allows no longer one."""


def size_of(annotations: Mapping[str, str]) -> int:
    """In bytes, names and values together."""
    return sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
