"""The pages say what is true: tests run their blocks, links lead somewhere, settings have their defaults."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from scr_watchd.commands import serve
from scr_watchd.settings import NAMES, Settings
from tests.benchmarks import report
from tests.documents import HOUSE, Block, anchor, block, found, pages, read, text

NOT_RUN = {
    ("ARCHITECTURE.md", "The picture", ""): "a picture",
    ("ARCHITECTURE.md", "The rooms", ""): "a picture; tests/test_house.py has the ladder",
    ("CONTRIBUTING.md", "Set-up, and the one command", ""): "how these tests are run",
    ("CONTRIBUTING.md", "Releasing", ""): "it releases; tests/test_release.py does so elsewhere",
    (
        "README.md",
        "Two commands",
        "pip install",
    ): "needs a package index; tests/test_install.py does the same",
    ("README.md", "From another machine", ""): "no certificate here; tests/commands/test_tls.py has its own",
    ("README.md", "Your own nginx", ""): "the files of config/ have these lines, and are run",
    ("README.md", "A container", ""): "tests/containers builds and runs it as docs/containers.md has it",
    ("README.md", "The first image", ""): "needs the internet; tests/clients drops images from elsewhere",
    ("docs/clients.md", "What was pulled", "python -m"): "how a test is run",
    ("docs/clients.md", "What was pulled", "HOST"): "a pattern; tests/clients/pullers.py writes that file",
    (
        "docs/clients.md",
        "A mirror for other registries",
        "[mirrors]",
    ): "tests/clients/registry.py has its own",
    (
        "docs/clients.md",
        "A mirror for other registries",
        "# containerd:",
    ): "tests/clients/pullers.py has its own",
    ("docs/clients.md", "A mirror for other registries", "# k3s:"): "no k3s here",
    ("docs/clients.md", "A mirror for every registry", "# k3s:"): "no k3s here",
    ("docs/clients.md", "A mirror for other registries", "# podman, CRI-O:"): "tests/clients has its own",
    ("docs/clients.md", "A mirror for other registries", "registry-mirrors"): "given to dockerd as a flag",
    ("docs/containers.md", "Kubernetes", ""): "no cluster here; tests/containers runs the same pods",
    (
        "docs/generate.md",
        "generate: one file, no daemon",
        "-o",
    ): "tests/commands/test_generate.py has its own",
    (
        "docs/generate.md",
        "generate: one file, no daemon",
        "listen",
    ): "tests/commands/test_generate.py has its own",
    ("docs/images.md", "Dropping images in", "v2s2"): "needs the internet",
    ("docs/images.md", "Dropping images in", "dir:images/alpine:3.20\n"): "needs the internet",
    ("docs/images.md", "Dropping images in", "tar -c"): "needs the internet and ssh",
    ("docs/images.md", "Dropping images in", "wait"): "needs ssh",
    ("docs/images.md", "What happens to a broken one", ""): "what a command prints; its tests have the words",
    ("docs/nginx.md", "What nginx includes", "http {"): "the files of config/ have these lines, and are run",
    ("docs/nginx.md", "What nginx includes", "curl"): "a name of an example",
    ("docs/nginx.md", "Access rules", ""): "tests/render/test_access_rules.py has its own",
    ("docs/operations.md", "What is wrong?", ""): "what a command prints; its tests have the words",
    ("docs/operations.md", "Metrics", ""): "node_exporter is another's",
    ("docs/operations.md", "How it works", ""): "a picture",
    ("docs/service.md", "Fedora, RHEL, SUSE", "FOR="): "tests/host/test_rpm.py builds it for more of them",
    ("docs/service.md", "SELinux", ""): "no SELinux here, as the page says",
    (
        "docs/serve.md",
        "It works like this",
        "",
    ): "needs an image in containers-storage; tests/clients has its own",
    (
        "docs/serve.md",
        "From another machine",
        "scr-watchd serve",
    ): "takes port 443; tests/commands/test_tls.py has its own",
    ("tests/benchmarks/README.md", "Benchmarks", ""): "minutes; test_benchmarks.py runs what --quick does",
    ("tests/benchmarks/README.md", "Profiling", ""): "a sketch",
}
"""The blocks that no test runs, each with its reason: page, heading, and words that only this block has."""

TAKEN = {*HOUSE.glob("config/**/*"), *HOUSE.glob("systemd/**/*"), HOUSE / "Dockerfile"}
SOURCES = {*TAKEN, *HOUSE.glob("scr_watchd/**/*"), *HOUSE.glob("tests/**/*.py"), HOUSE / ".ci" / "run"}


# -- blocks ------------------------------------------------------------------------------------------


def calls(file: Path) -> Iterator[tuple[str, ...]]:
    """The arguments of every call of tests.documents.block in ``file``."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "block":
            assert not node.keywords, f"{file}:{node.lineno}: give block its words in their order"
            words = [each.value for each in node.args if isinstance(each, ast.Constant)]
            assert len(words) == len(node.args), f"{file}:{node.lineno}: give block literals"
            yield tuple(map(str, words))


def run_by_tests() -> dict[Block, Path]:
    files = [
        file for file in HOUSE.glob("tests/**/*.py") if "from tests.documents import" in file.read_text()
    ]
    return {found(*words): file for file in files for words in calls(file)}


def test_each_block_is_run_by_a_test_or_has_a_reason() -> None:
    run, listed = set(run_by_tests()), [found(*words) for words in NOT_RUN]
    assert len(listed) == len(set(listed)), "a block is listed twice"
    assert run & set(listed) == set(), "what is run needs no reason"
    assert {block for page in pages() for block in read(page).blocks} == run | set(listed)


def test_ci_runs_the_very_test_command_of_the_readme() -> None:
    *_, command = (HOUSE / ".ci" / "run").read_text().strip().splitlines()
    assert f"{command}\n" == block("README.md", "Two commands", "pytest")


def test_what_is_measured_can_be_written_into_its_page(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(text("docs/performance.md"))
    report.into_page(page, "the new table\n")
    begin, _, rest = page.read_text().partition(f"{report.BEGIN}\n\nthe new table\n\n{report.END}")
    assert text("docs/performance.md").startswith(begin)
    assert text("docs/performance.md").endswith(rest)


def test_the_figures_of_the_readme_are_those_of_their_page() -> None:
    _, _, rest = text("docs/performance.md").partition(report.BEGIN)
    table, _, _ = rest.partition(report.END)
    begin, end = report.FIGURES
    figures = report.chosen(table)
    assert figures.count("\n| ") == 6, "a row of README.md is no longer measured"
    assert f"{begin}\n\n{figures}\n{end}" in text("README.md")
    assert len(text("README.md").splitlines()) <= 220


@pytest.mark.parametrize("page", [page for page in pages() if page.startswith("docs/")])
def test_each_page_begins_with_whom_it_is_for(page: str) -> None:
    assert re.match(r"# .+\n\n\*For whoever .+\.\*\n\n", text(page))


# -- links -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages())
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    directory = (HOUSE / page).parent
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"(?ms)^ *```.*?^ *```$|`[^`\n]*`", "", text(page)))
    lost = []
    for link in links:
        file, _, fragment = link.partition("#")
        target = (directory / file).resolve() if file else HOUSE / page
        if link.startswith("https://"):
            continue
        if not target.is_file() or (fragment and fragment not in anchors(target)):
            lost.append(link)
    assert lost == []


def anchors(page: Path) -> list[str]:
    return [anchor(heading) for heading in read(str(page.relative_to(HOUSE))).headings]


@pytest.mark.parametrize("page", [page for page in pages() if page != "CHANGELOG.md"])
def test_no_two_headings_of_a_page_have_one_name(page: str) -> None:
    names = anchors(HOUSE / page)
    assert len(names) == len(set(names))


def test_whoever_names_a_page_or_its_heading_names_one_that_is_there() -> None:
    """Comments and messages: ``docs/nginx.md, "Access rules"``."""
    lost = []
    for file in SOURCES:
        if not file.is_file() or file.suffix in (".pyc", ".svg") or file == Path(__file__):
            continue
        for page, heading in re.findall(r'\b(docs/[\w-]+\.md)(?:,\s+"([^"]+)")?', file.read_text()):
            if page not in pages() or (heading and heading not in read(page).headings):
                lost.append(f"{file.relative_to(HOUSE)}: {page} {heading}")
    assert lost == []


def test_every_page_is_reached_from_the_readme() -> None:
    named = set(re.findall(r"\]\((docs/[^)#]+\.md)", text("README.md")))
    assert named == {page for page in pages() if page.startswith("docs/")}


# -- the table of settings ---------------------------------------------------------------------------


def rows(page: str) -> list[tuple[str, str, str]]:
    """Name, footnote and default of each row of the table."""
    table = re.search(r"^\| setting \|.*\n\|---.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert table
    cells = [[cell.strip() for cell in line.split(" |")] for line in table[1].splitlines()]
    return [(name, mark.strip(), default) for (first, default, *_) in cells for name, mark in [_named(first)]]


def _named(cell: str) -> tuple[str, str]:
    parts = re.fullmatch(r"\| `(\w+)`( ¹)?", cell)
    assert parts, cell
    return parts[1], parts[2] or ""


def wanted() -> list[tuple[str, str, str]]:
    flags = {action.dest.removeprefix("setting_") for action in serve.parser()._actions}
    values = {name: shown(getattr(Settings(), name)) for name in NAMES}
    return [(name, "" if name in flags else "¹", values[name]) for name in NAMES]


def shown(value: object) -> str:
    if value == "" or isinstance(value, Mapping):
        return ""
    if isinstance(value, bool | tuple):
        return f"`{str(value).lower() if isinstance(value, bool) else list(value)}`"
    return f"`{value:g}`" if isinstance(value, float | int) else f"`{value}`"


def test_the_table_of_settings_has_each_with_its_default_and_whether_serve_takes_it() -> None:
    assert rows(text("docs/reference.md")) == wanted()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(r"^\| `grace_seconds`.*\n", "", id="a row is missing"),
        pytest.param(r"^\| `grace_seconds`.*\n", r"\g<0>\g<0>", id="a row is there twice"),
        pytest.param(r"^\| `grace_seconds`", "| `graceful`", id="a setting that is none"),
        pytest.param("`3600`", "`360`", id="another default"),
        pytest.param("`reload` ¹", "`reload`", id="no footnote"),
        pytest.param("`grace_seconds`", "`grace_seconds` ¹", id="a footnote too many"),
    ],
)
def test_what_is_wrong_in_the_table_is_seen(old: str, new: str) -> None:
    changed = re.sub(old, new, text("docs/reference.md"), flags=re.MULTILINE)
    assert rows(changed) != wanted()
