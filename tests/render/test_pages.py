"""Pages of lists, against a model: the items after `last`, at most `n` of them, and where to go on."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.benchmarks import measure
from tests.http import Response
from tests.nginxes import binaries
from tests.render.refusals import PASSWORDS, RIGHT
from tests.render.site import OURS, Site, catalog_with, serving
from tests.waiting import until

LONGEST_PAGE = 1000
LONGEST_WHOLE = 1024 * 1024

CHARACTERS = "-.0129ABYZ_abyz"
some_tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,6}", fullmatch=True)
alike = st.text(CHARACTERS, max_size=4).map(lambda end: f"v{end}")
tag_lists = st.lists(some_tags | alike, max_size=40, unique=True)

# Lists that are cut into blocks, around and beyond the longest page.
NUMBERS = [f"{number:05d}" for number in range(3000)]
BUILDS = [
    f"{major}.{minor}.{patch}-rc{patch}" for major in range(14) for minor in range(15) for patch in range(15)
]
LONG = [f"{'very-long-' * 11}{number:04d}-{'x' * (number % 14)}" for number in range(1200)]
CASES = [
    f"{first}{second}{third}" for first in CHARACTERS[2:] for second in CHARACTERS for third in CHARACTERS
]
# With quotes and commas the first two have 1 MiB, to the byte, and one byte more.
WHOLE, PAGED = (
    [f"{number:04d}{'x' * (122 if number < longer else 121)}" for number in range(8192)] for longer in (1, 2)
)
LARGE = {
    "whole": WHOLE,
    "paged": PAGED,
    "numbers": NUMBERS,
    "builds": BUILDS,
    "long": LONG,
    "cases": CASES,
    "one": ["1"],
}


def page(items: Sequence[str], n: int | None, last: str) -> tuple[list[str], bool]:
    """What the specification wants, and whether there is more. Of a list that is too long to be answered
    whole there are only pages."""
    after = [item for item in sorted(items) if item > last]
    if n is None and len(",".join(f'"{item}"' for item in items)) <= LONGEST_WHOLE:
        return after, False
    count = LONGEST_PAGE if n is None else min(n, LONGEST_PAGE)
    return after[:count], bool(count) and len(after) > count


def address(path: str, n: object, last: str, *, encode: bool = False) -> str:
    arguments = [
        *([f"n={n}"] if n is not None else []),
        *([f"last={quote(last, safe='') if encode else last}"] if last else []),
    ]
    return f"{path}?{'&'.join(arguments)}"


def assert_is_page(answer: Response, path: str, items: Sequence[str], n: int | None, last: str) -> None:
    expected, more = page(items, n, last)
    assert answer.status == 200, answer
    document = answer.json()
    assert document.get("tags", document.get("repositories")) == expected
    size = LONGEST_PAGE if n is None else n
    link = f'<{path}?n={size}&last={expected[-1]}>; rel="next"' if more else None
    assert answer.header("Link") == link


@pytest.fixture(scope="module", params=binaries())
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param())


@pytest.fixture(scope="module", params=["off", "on"], ids=["interpreted", "compiled"])
def jit(request: pytest.FixtureRequest) -> str:
    """Compiled expressions have another limit, that of their stack."""
    return f"pcre_jit {request.param};"


@pytest.fixture(scope="module")
def registry(program: str, jit: str) -> Iterator[Site]:
    entries = [(name, tag, b"") for name, items in LARGE.items() for tag in items]
    with serving(catalog_with(entries), program=program, main=jit) as running:
        yield running
        assert not running.complaints()


sizes = st.none() | st.integers(0, 12) | st.sampled_from([99, 100, 101, 110, 999, 1000, 1001, 5000])


def near(items: Sequence[str]) -> st.SearchStrategy[str]:
    """Items, what is just before or behind one, and their beginnings."""
    return st.sampled_from(items).flatmap(
        lambda item: st.sampled_from(
            [
                item,
                item[:-1],
                item[: len(item) // 2],
                item[:-1] + "-",
                item[:-1] + "z",
                item + "0",
                item + "zzz",
            ]
        )
    )


@given(data=st.data(), n=sizes, name=st.sampled_from(sorted(LARGE)))
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_page_of_a_long_list_is_what_the_model_says(
    registry: Site, data: st.DataObject, n: int | None, name: str
) -> None:
    last = data.draw(st.just("") | near(LARGE[name]) | some_tags | alike)
    path = f"/v2/{name}/tags/list"
    assert_is_page(registry.get(address(path, n, last)), path, LARGE[name], n, last)


parts = st.from_regex(r"[a-z0-9]{1,3}", fullmatch=True)
names = st.lists(parts, min_size=1, max_size=20).map("/".join)


@pytest.mark.slow
@given(tree=st.dictionaries(names, tag_lists, max_size=12), data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_page_of_any_tree_is_what_the_model_says(
    program: str, tree: dict[str, list[str]], data: st.DataObject
) -> None:
    tree = {name: items for name, items in tree.items() if items}
    entries = [(name, tag, b"") for name, items in tree.items() for tag in items]
    with serving(catalog_with(entries), program=program) as running:
        lists = {
            "/v2/_catalog": list(tree),
            **{f"/v2/{name}/tags/list": items for name, items in tree.items()},
        }
        for path, items in lists.items():
            for _ in range(5):
                n = data.draw(sizes)
                last = data.draw(st.just("") | (near(items) if items else some_tags))
                for encode in (False, True):
                    if last.count("/") <= 16 or not encode:
                        answer = running.get(address(path, n, last, encode=encode))
                        assert_is_page(answer, path, items, n, last)
        assert not running.complaints()


def pages(running: Site, path: str, authorization: str = "") -> list[list[str]]:
    """What is found from ``path`` on by whoever follows the links."""
    found, link = [], f"<{path}>"
    while link:
        answer = running.get(link.partition("<")[2].partition(">")[0], Authorization=authorization)
        assert answer.status == 200, answer
        document = answer.json()
        found.append(document.get("tags", document.get("repositories")))
        link = answer.header("Link") or ""
        assert len(found) <= 100, link
    return found


@pytest.mark.parametrize(
    ("path", "items", "count"),
    [
        pytest.param("/v2/builds/tags/list?n=700", BUILDS, 5, id="in pages of 700"),
        pytest.param("/v2/_catalog?n=2", list(LARGE), 4, id="of repositories"),
        pytest.param("/v2/whole/tags/list", WHOLE, 1, id="of exactly one MiB"),
        pytest.param("/v2/paged/tags/list", PAGED, 9, id="of one byte more"),
        pytest.param("/v2/paged/tags/list?n=", PAGED, 9, id="with an empty n"),
        pytest.param("/v2/paged/tags/list?last=0", PAGED, 9, id="with last alone"),
        pytest.param("/v2/paged/tags/list?n=9999", PAGED, 9, id="with a large n"),
    ],
)
def test_the_links_lead_through_all_of_a_list(
    registry: Site, path: str, items: Sequence[str], count: int
) -> None:
    found = pages(registry, path)
    assert list(chain(*found)) == sorted(items)
    assert len(found) == count


def test_pages_that_nobody_asked_for_stay_in_their_mirror_and_behind_its_rule(program: str) -> None:
    name = f"{'long/' * 49}app"
    with serving(
        catalog_with([(f"hub/{name}", tag, b"") for tag in PAGED]),
        program=program,
        http=f'{OURS} map $scr_repo $realm {{ default off; ~^hub/ "images"; }}',
        server="auth_basic $realm; auth_basic_user_file passwords; include server.conf;",
        files=PASSWORDS,
        mirrors={"docker.io": "hub/"},
    ) as running:
        path = f"/v2/{name}/tags/list"
        refused = running.get(f"{path}?ns=docker.io")
        assert (refused.status, refused.header("Link")) == (401, None)
        assert list(chain(*pages(running, f"{path}?ns=docker.io", RIGHT))) == PAGED
        link = running.get(f"{path}?ns=docker.io", Authorization=RIGHT).header("Link")
        assert link == f'<{path}?n=1000&last={PAGED[999]}&ns=docker.io>; rel="next"'


@pytest.mark.parametrize("path", ["/v2/one/tags/list", "/v2/_catalog"])
@pytest.mark.parametrize(
    "arguments",
    [
        "n=-1",
        "n=x",
        "n=1.5",
        "n=0x1",
        "n=%31",
        "n=1%20",
        "last=%22",
        "last=a|b",
        "last=a%00",
        f"last={'a' * 256}",
    ],
)
def test_a_page_that_cannot_be_is_a_bad_request(registry: Site, path: str, arguments: str) -> None:
    answer = registry.get(f"{path}?{arguments}")
    assert (answer.status, answer.code) == (400, "PAGINATION_NUMBER_INVALID")
    assert answer.header("Link") is None


def test_a_bad_page_of_an_unknown_repository_is_an_unknown_repository(registry: Site) -> None:
    assert registry.get("/v2/unknown/tags/list?n=x").code == "NAME_UNKNOWN"


@pytest.mark.parametrize("n", ["1000", "1001", "00001001", "9" * 50])
def test_a_page_has_at_most_a_thousand_items_and_says_that_there_are_more(registry: Site, n: str) -> None:
    answer = registry.get(f"/v2/numbers/tags/list?n={n}")
    assert answer.json()["tags"] == NUMBERS[:1000]
    assert answer.header("Link") == f'</v2/numbers/tags/list?n={n}&last=00999>; rel="next"'


def test_a_page_can_be_asked_for_without_its_body(registry: Site) -> None:
    whole = registry.get("/v2/numbers/tags/list?n=3")
    head = registry.get("/v2/numbers/tags/list?n=3", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    for name in ("Link", "Content-Length", "Content-Type"):
        assert head.header(name) == whole.header(name) is not None


@pytest.mark.slow
def test_fifty_thousand_tags_of_one_repository_are_listed(program: str) -> None:
    tags = [f"v1.{number // 250}.{number % 250}" for number in range(50_000)]
    with serving(catalog_with([("big", tag, b"") for tag in tags]), program=program) as running:
        path = "/v2/big/tags/list"
        for n, last in (
            (None, ""),
            (None, tags[77]),
            (1, ""),
            (1000, tags[49_000]),
            (10, "v" * 128),
            (7, "v1.3"),
        ):
            assert_is_page(running.get(address(path, n, last)), path, tags, n, last)
        assert not running.complaints()


@pytest.mark.slow
def test_a_page_of_a_very_long_list_is_found_whatever_it_is_asked_after(program: str, jit: str) -> None:
    """nginx's regular expressions end after ten million steps, and what they would have found is then
    taken for empty. The longest `last` among the longest names needs the most of them."""
    names = [f"{'long/' * 49}{number:010d}" for number in range(30_000)]
    with serving(catalog_with([(name, "1", b"") for name in names]), program=program) as running:
        path = "/v2/_catalog"
        assert list(chain(*pages(running, path))) == names
        for last in (
            "A" * 255,
            "m" * 255,
            "l" * 255,
            names[-1][:-1] + "-",
            names[20_000][:-1] + "x",
            names[77],
        ):
            for n in (3, None):
                assert_is_page(running.get(address(path, n, last)), path, names, n, last)
        assert not running.complaints()


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/v2/big/tags/list",
        "/v2/big/tags/list?last=0",
        "/v2/big/tags/list?n=20000",
        f"/v2/big/tags/list?n=1000&last={'m' * 128}",
        "/v2/_catalog",
    ],
)
def test_each_slow_reader_of_a_long_list_costs_nginx_a_few_megabytes(program: str, path: str) -> None:
    """nginx holds an answer, and all of which it was put together, until the last byte is read."""
    readers = 40
    tags = [f"{letter}{number:05d}{'x' * 122}" for letter in "an" for number in range(10_000)]
    entries = [("big", tag, b"") for tag in tags]
    names = [(f"{'long/' * 49}{number:010d}", "1", b"") for number in range(8_000)]
    with serving(
        catalog_with(entries if "big" in path else names),
        program=program,
        server="limit_rate 1k; include server.conf;",
    ) as running:
        master = running.nginx.process.pid
        workers = until(
            lambda: [*map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split())],
            lambda found: len(found) == 2,
        )
        before = sum(measure.status(worker, "VmRSS") for worker in workers)
        with ExitStack() as connections:
            for _ in range(readers):
                connection = connections.enter_context(socket.socket(socket.AF_UNIX))
                connection.settimeout(30)
                connection.connect(running.nginx.socket)
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert connection.recv(12) == b"HTTP/1.1 200"
            peak = sum(measure.status(worker, "VmHWM") for worker in workers)
        assert measure.megabytes(peak - before) / readers < 6
