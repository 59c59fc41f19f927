"""What a walk finds besides images: Problems, tags that may be under way, and what it could not look into."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from scr_watchd.errors import cure
from scr_watchd.images.reference import Place, RefusedError, place
from scr_watchd.oci.catalog import Problem, Reference
from scr_watchd.words import printable, shell


@dataclass(slots=True)
class Findings:
    """``root`` is the tree as messages show it, ``prefix`` what goes before every repository name. All else
    is by path, relative to the root: see ``Tree`` for what is unfinished and what hidden. ``links`` are
    symbolic links, and where each leads, empty for nowhere. ``vanishing`` are tags that were in the look
    before, and that count as unfinished until another look finds them gone as well."""

    root: str
    prefix: str
    problems: dict[str, list[Problem]] = field(default_factory=dict)
    unfinished: dict[str, set[Reference]] = field(default_factory=dict)
    vanishing: dict[str, set[Reference]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)

    def knows(self, path: str) -> bool:
        """Whether something is said of the very ``path``."""
        return path in self.problems or path in self.unfinished or path in self.hidden

    @property
    def paths(self) -> set[str]:
        return {*self.problems, *self.unfinished, *self.vanishing, *self.hidden, *self.links}

    @property
    def waiting(self) -> set[Reference]:
        """The tags that are unfinished, or vanishing."""
        return {tag for some in (self.unfinished, self.vanishing) for tags in some.values() for tag in tags}

    def move(self, paths: Iterable[str], into: "Findings") -> None:
        """Have ``into`` say what is said of ``paths``, and this no more."""
        for path in paths:
            for mine, theirs in zip(self.by_path, into.by_path, strict=True):
                if path in mine:
                    theirs[path] = mine.pop(path)
            if path in self.hidden:
                self.hidden.remove(path)
                into.hidden.add(path)

    def take(self, found: "Findings") -> None:
        """Say what was ``found`` as well."""
        found.move(found.paths, self)

    @property
    def by_path(self) -> tuple[dict[str, Any], ...]:
        return self.problems, self.unfinished, self.vanishing, self.links

    def at(self, path: str, owner: int) -> "_At":
        """Collects what goes wrong in a block at ``path``, so that it hides nothing beside it."""
        return _At(self, path, owner)

    def problem(self, path: str, reason: str, remedy: str, owner: int) -> None:
        self.told(path, [Problem(printable(self.full(path)), reason, remedy, owner)])

    def told(self, path: str, problems: Iterable[Problem]) -> None:
        """Of what lies at ``path``."""
        if found := list(problems):
            self.problems.setdefault(path, []).extend(found)

    def is_unfinished(self, path: str, *tags: Reference) -> None:
        if tags:
            self.unfinished.setdefault(path, set()).update(tags)

    def is_unfinished_at(self, path: str, where: Place) -> None:
        if where.tag is not None:
            self.is_unfinished(path, (where.repository, where.tag))

    def is_unfinished_path(self, path: str) -> None:
        with suppress(RefusedError):  # a name that is no tag: there is nothing to hold on to
            self.is_unfinished_at(path, place(path, prefix=self.prefix))

    def full(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def collect(self, path: str, error: BaseException, owner: int) -> bool:
        """Whether ``error`` is the tree's, and is told of now."""
        match error:
            case RefusedError():
                self.problem(path, error.reason, error.remedy, owner)
            case FileNotFoundError() | NotADirectoryError():
                # it went away, or was replaced, while we looked: the next pass sees what it is now
                self.is_unfinished_path(path)
            case OSError():
                self.hidden.add(path)
                self.problem(
                    path,
                    f"scr-watchd cannot look into it: {error.strerror}",
                    f"Permit it: chmod -R go+rX {shell(self.full(path))}"
                    if isinstance(error, PermissionError)
                    else cure(error, "Look for a failing disk or mount: dmesg | tail"),
                    owner,
                )
            case _:
                return False
        return True


class _At:
    """A class, since there is one for each directory, and a generator takes three times as long."""

    __slots__ = ("_findings", "_owner", "_path")

    def __init__(self, findings: Findings, path: str, owner: int) -> None:
        self._findings = findings
        self._path = path
        self._owner = owner

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        return error is not None and self._findings.collect(self._path, error, self._owner)
