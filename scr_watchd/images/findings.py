"""What a walk finds besides images: Problems, tags that may be under way, and what it could not look into."""

from contextlib import suppress
from dataclasses import dataclass, field

from scr_watchd.errors import cure
from scr_watchd.images.reference import Place, RefusedError, place
from scr_watchd.oci.catalog import Problem, Reference
from scr_watchd.words import printable, shell


@dataclass(slots=True)
class Findings:
    """``root`` is the tree as messages show it, ``prefix`` what goes before every repository name. Paths are
    relative to the root; see ``Tree`` for what is unfinished and what hidden."""

    root: str
    prefix: str
    problems: list[Problem] = field(default_factory=list)
    unfinished: set[Reference] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)

    def at(self, path: str, owner: int) -> "_At":
        """Collects what goes wrong in a block at ``path``, so that it hides nothing beside it."""
        return _At(self, path, owner)

    def problem(self, path: str, reason: str, remedy: str, owner: int) -> None:
        self.problems.append(Problem(printable(self.full(path)), reason, remedy, owner))

    def is_unfinished(self, where: Place) -> None:
        if where.tag is not None:
            self.unfinished.add((where.repository, where.tag))

    def is_unfinished_path(self, path: str) -> None:
        with suppress(RefusedError):  # a name that is no tag: there is nothing to hold on to
            self.is_unfinished(place(path, prefix=self.prefix))

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
