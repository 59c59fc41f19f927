"""What was published last, in STATE/published.json and STATE/pending: a generation, its catalog, and what
stays for a while though the tree has it not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from scr_watchd.files import FileId, read_file, sync_directory, write_atomically
from scr_watchd.oci.catalog import Catalog, CatalogBuilder, Reference, Referrer
from scr_watchd.oci.manifest import MediaType, Referral
from scr_watchd.oci.names import Digest, RepositoryName, Tag
from scr_watchd.publish.state import State

RECORD_BYTES = 256 << 20  # a million tags


@dataclass(frozen=True, slots=True)
class Loss:
    """Which tags have ``gone`` from the tree ``since`` then (seconds since 1970), and how many others
    ``came`` meanwhile."""

    since: float = 0.0
    gone: Mapping[Reference, Digest] = field(default_factory=dict)
    came: int = 0

    @property
    def net(self) -> int:
        return len(self.gone) - self.came


@dataclass(frozen=True, slots=True)
class Record:
    """A generation, the catalog that it was rendered from, and why some of that is no longer in the
    tree: since when (seconds since 1970) a manifest is ``leaving``, by repository and digest, and
    since when removals are held; before that, what was ``lost``. ``root`` tells the images directory from
    another one in its place."""

    generation: str
    catalog: Catalog
    leaving: Mapping[tuple[RepositoryName, Digest], float] = field(default_factory=dict)
    held_since: float | None = None
    root: FileId = (0, 0)
    lost: Loss = field(default_factory=Loss)


_FORMAT = 1


class _ReferrerFile(msgspec.Struct, omit_defaults=True):
    size: int
    subject: str
    artifact_type: str = ""
    annotations: dict[str, str] = {}


class _RepositoryFile(msgspec.Struct, omit_defaults=True):
    tags: dict[str, str]
    manifests: dict[str, MediaType]
    referrers: dict[str, _ReferrerFile] = {}
    listed: bool = True
    leaving: dict[str, float] = {}


class _LossFile(msgspec.Struct, omit_defaults=True):
    since: float = 0.0
    gone: dict[str, dict[str, str]] = {}
    came: int = 0


class _RecordFile(msgspec.Struct):
    generation: str
    repositories: dict[str, _RepositoryFile]
    held_since: float | None = None
    root_inode: int = 0
    root_device: int = 0
    lost: _LossFile = msgspec.field(default_factory=_LossFile)
    format: int = _FORMAT


def write_pending(state: State, record: Record) -> None:
    """Note that nginx is about to be given ``record``, so that a start after a crash can go on."""
    write_atomically(state.pending, _encode(record))


def write_published(state: State, record: Record) -> None:
    """Note something else about the generation that nginx answers from already."""
    write_atomically(state.published, _encode(record))


def _encode(record: Record) -> bytes:
    repositories = {
        str(each.name): _RepositoryFile(
            dict(zip(map(str, each.tags), map(str, each.tags.values()), strict=True)),
            {str(digest): media_type for digest, media_type in each.pullable.items()},
            {str(digest): _referrer_file(referrer) for digest, referrer in each.referrers.items()},
            each.listed,
        )
        for each in record.catalog.repositories
    }
    for (name, digest), since in record.leaving.items():
        repository = repositories[str(name)]
        repository.leaving = {**repository.leaving, str(digest): since}
    gone: dict[str, dict[str, str]] = {}
    for (name, tag), digest in record.lost.gone.items():
        gone.setdefault(str(name), {})[str(tag)] = str(digest)
    return msgspec.json.encode(
        _RecordFile(
            record.generation,
            repositories,
            record.held_since,
            root_inode=record.root[1],
            root_device=record.root[0],
            lost=_LossFile(record.lost.since, gone, record.lost.came),
        )
    )


def _referrer_file(referrer: Referrer) -> _ReferrerFile:
    referral = referrer.referral
    return _ReferrerFile(
        referrer.size, str(referral.subject), referral.artifact_type, dict(referral.annotations)
    )


def confirm_pending(state: State) -> None:
    """nginx answers from the pending generation: it is the published one now, in one step."""
    state.pending.rename(state.published)
    sync_directory(state.path)


def read_pending(state: State) -> Record | None:
    return _read(state.pending)


def read_published(state: State) -> Record | None:
    return _read(state.published)


def _read(path: Path) -> Record | None:
    """The record in ``path``, ``None`` if there is none; ``ValueError`` if it is damaged."""
    try:
        content = msgspec.json.decode(read_file(path, limit=RECORD_BYTES), type=_RecordFile)
        if content.format != _FORMAT:
            raise ValueError(f"{path} is of another version (format {content.format})")
        builder = CatalogBuilder()
        leaving = {}
        for name_text, repository in content.repositories.items():
            name = RepositoryName.parse(name_text)
            for digest, media_type in repository.manifests.items():
                stays = repository.listed and digest not in repository.leaving
                (builder.manifest if stays else builder.leaving)(name, Digest.parse(digest), media_type)
            for digest, file in repository.referrers.items():
                referral = Referral(Digest.parse(file.subject), file.artifact_type, file.annotations)
                builder.referrer(name, Digest.parse(digest), Referrer(file.size, referral))
            for tag, digest in repository.tags.items():
                builder.tag(name, Tag.parse(tag), Digest.parse(digest))
            for digest, since in repository.leaving.items():
                leaving[name, Digest.parse(digest)] = since
        gone = {
            (RepositoryName.parse(name), Tag.parse(tag)): Digest.parse(digest)
            for name, tags in content.lost.gone.items()
            for tag, digest in tags.items()
        }
    except FileNotFoundError:
        return None
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    root = content.root_device, content.root_inode
    lost = Loss(content.lost.since, gone, content.lost.came)
    return Record(content.generation, builder.catalog(), leaving, content.held_since, root, lost)
