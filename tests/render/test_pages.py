"""Pages of lists, against a model: the items after `last`, at most `n` of them, and where to go on."""

from collections.abc import Iterator, Sequence
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scr_watchd.oci.catalog import Catalog, Repository
from scr_watchd.oci.names import RepositoryName
from tests.http import Response
from tests.nginxes import binaries
from tests.render.site import Site, catalog_with, serving

LONGEST_PAGE = 1000

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
LARGE = {"numbers": NUMBERS, "builds": BUILDS, "long": LONG, "cases": CASES, "one": ["1"]}


def page(items: Sequence[str], n: int | None, last: str) -> tuple[list[str], bool]:
    """What the specification wants, and whether there is more."""
    after = [item for item in sorted(items) if item > last]
    if n is None:
        return after, False
    count = min(n, LONGEST_PAGE)
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
    link = f'<{path}?n={n}&last={expected[-1]}>; rel="next"' if more else None
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


def test_the_links_lead_through_all_of_a_list(registry: Site) -> None:
    for path, items, n in (("/v2/builds/tags/list", BUILDS, 700), ("/v2/_catalog", list(LARGE), 2)):
        found, link = [], f"<{path}?n={n}>"
        while link:
            answer = registry.get(link.partition("<")[2].partition(">")[0])
            document = answer.json()
            found += document.get("tags", document.get("repositories"))
            link = answer.header("Link") or ""
        assert found == sorted(items)


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
    names = [RepositoryName(f"{'long/' * 49}{number:010d}") for number in range(30_000)]
    catalog = Catalog(tuple(Repository(name, {}, {}) for name in names))
    with serving(catalog, program=program) as running:
        path = "/v2/_catalog"
        for last in (
            "A" * 255,
            "m" * 255,
            "l" * 255,
            names[-1][:-1] + "-",
            names[20_000][:-1] + "x",
            names[77],
        ):
            answer = running.get(address(path, 3, last))
            assert_is_page(answer, path, names, 3, last)
        assert not running.complaints()
