"""Renders the lists of referrers: a number for each subject, and its list, whole and by artifact type."""

from collections.abc import Mapping

from scr_watchd.oci.catalog import Referrer, Repository
from scr_watchd.oci.manifest import MediaType
from scr_watchd.oci.names import Digest
from scr_watchd.render import quote
from scr_watchd.render.maps import LongValues, base36, mapping

_FILTERS = 1000
"""How many artifact types can be asked for; nginx tries them one by one."""


def referrer_maps(numbered: list[tuple[str, Repository]], long_values: LongValues) -> list[str]:
    """The maps from a subject's digest and an artifact type to descriptors."""
    patterns = _patterns(numbered)
    numbers = _numbers(patterns)
    subjects: dict[str, list[str]] = {}
    lists: dict[str, str] = {}
    count = 0
    for rid, repository in numbered:
        for subject, referrers in _by_subject(repository).items():
            number = base36(count)
            count += 1
            subjects.setdefault(f"{subject.hex[:32]}@{rid}", []).append(f"{number}:{subject.hex[32:]}")
            for artifact_type, texts in _by_type(repository, referrers, numbers).items():
                lists[f"{number}#{artifact_type}"] = long_values.token(texts, separator=",")
    tokens = {key: long_values.token(entries, separator=" ") for key, entries in subjects.items()}
    return [
        mapping('"$scr_hx1@$scr_rid"', "scr_subject_known", tokens),
        _filter_map(patterns, numbers),
        mapping('"$scr_subject#$scr_wanted_type"', "scr_referrers", lists),
    ]


def _by_subject(repository: Repository) -> dict[Digest, dict[Digest, Referrer]]:
    found: dict[Digest, dict[Digest, Referrer]] = {}
    for digest, referrer in repository.referrers.items():
        found.setdefault(referrer.referral.subject, {})[digest] = referrer
    return dict(sorted(found.items()))


def _by_type(
    repository: Repository, referrers: Mapping[Digest, Referrer], numbers: Mapping[str, str]
) -> dict[str, list[str]]:
    """The descriptors of ``referrers``: all of them under "", and those of each type under its number."""
    found: dict[str, list[str]] = {"": []}
    for digest, referrer in referrers.items():
        text = _descriptor(digest, repository.manifests[digest], referrer)
        found[""].append(text)
        number = numbers.get(referrer.referral.artifact_type)
        if number is not None:
            found.setdefault(number, []).append(text)
    return found


def _descriptor(digest: Digest, media_type: MediaType, referrer: Referrer) -> str:
    referral = referrer.referral
    fields = [f'"mediaType":"{media_type.value}"', f'"digest":"{digest}"', f'"size":{referrer.size}']
    if referral.artifact_type:
        fields.append(f'"artifactType":{quote.json_string(referral.artifact_type)}')
    if referral.annotations:
        pairs = (
            f"{quote.json_string(key)}:{quote.json_string(value)}"
            for key, value in sorted(referral.annotations.items())
        )
        fields.append(f'"annotations":{{{",".join(pairs)}}}')
    return f"{{{','.join(fields)}}}"


def _patterns(numbered: list[tuple[str, Repository]]) -> dict[str, str]:
    """A pattern for each artifact type that there is, as far as nginx can be told it."""
    types = {referrer.referral.artifact_type for _, each in numbered for referrer in each.referrers.values()}
    return {each: rf"~^{_spellings(each)}\z" for each in sorted(types - {""})}


def _numbers(patterns: Mapping[str, str]) -> dict[str, str]:
    """A number for each artifact type that a client can ask for."""
    fit = [each for each, pattern in patterns.items() if len(pattern) <= quote.TOKEN_BYTES]
    return {each: base36(number) for number, each in enumerate(fit[:_FILTERS])}


def _filter_map(patterns: Mapping[str, str], numbers: Mapping[str, str]) -> str:
    """From the request's artifactType to its number. "-" is a type that nothing here has; if some
    could not be numbered, an unknown one is not filtered by, which the answer then does not claim."""
    unknown = "-" if len(numbers) == len(patterns) else "''"
    tokens = {patterns[each]: number for each, number in numbers.items()}
    return mapping("$arg_artifactType", "scr_wanted_type", {"": "''", **tokens}, default=unknown)


def _spellings(artifact_type: str) -> str:
    """A pattern for every way to write it in an address."""
    return "".join(
        chr(code) if code < 128 and chr(code).isalnum() else rf"(?:\x{code:02x}|%{_hex(code)})"
        for code in artifact_type.encode("utf-8", "surrogatepass")
    )


def _hex(code: int) -> str:
    """The two digits of an escape, in either case."""
    return "".join(f"[{digit}{digit.lower()}]" if digit.isalpha() else digit for digit in f"{code:02X}")
