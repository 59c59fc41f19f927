"""The page at /v2/_scr/: its file, its headers, and how it is left out."""

import base64
import re
from hashlib import sha256
from pathlib import Path

import pytest

from scr_watchd.oci.catalog import Catalog
from scr_watchd.publish import page as pages
from scr_watchd.render.http_conf import render
from scr_watchd.render.page import name, page
from tests.nginxes import binaries
from tests.render.site import Site, serving

INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


def test_it_is_one_small_file_with_nothing_from_elsewhere() -> None:
    text = page().decode()
    assert len(page()) < 60_000
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)[a-z]", text)
    assert not re.findall(
        r"\bsrc=|@import|url\(|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text
    )
    assert not re.findall(r"<[a-z][^>]*\s(?:style|on[a-z]+)=", text), "the policy lets none through"


@pytest.mark.parametrize("nginx", binaries())
def test_what_a_browser_is_told_of_it(tmp_path: Path, nginx: object) -> None:
    assert callable(nginx)
    pages.keep(tmp_path, name(), page())
    with serving(Catalog(), store=tmp_path, program=nginx()) as site:
        answer = site.get("/v2/_scr/")
        assert (answer.status, answer.body) == (200, page())
        assert answer.header("Content-Type") == "text/html; charset=utf-8"
        assert answer.header("X-Content-Type-Options") == "nosniff"
        assert answer.header("Referrer-Policy") == "same-origin"
        assert answer.header("Cache-Control") == "no-cache"
        assert answer.header("Docker-Distribution-Api-Version") == "registry/2.0"
        policy = answer.header("Content-Security-Policy") or ""
        for kind, text in INLINE.findall(page()):
            digest = base64.b64encode(sha256(text).digest()).decode()
            assert f"{kind.decode()}-src 'sha256-{digest}';" in policy
        for word in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert word in policy
        assert "unsafe" not in policy
        again = site.get("/v2/_scr/", If_None_Match=answer.header("ETag") or "")
        assert (again.status, again.body) == (304, b"")
        assert site.get("/v2/_scr/", method="HEAD").status == 200
        assert site.get("/v2/_scr/", method="POST").status == 405
        assert site.get("/v2/_scr/x").status == 404
        assert site.get("/v2/", Accept="text/html").body == b"{}", "a reader of /v2/ gets what he always got"
        assert site.complaints() == []


def test_where_its_file_is_gone_the_answer_is_an_error_of_the_registry(tmp_path: Path) -> None:
    with serving(Catalog(), store=tmp_path) as site:
        assert_unsupported(site)


def test_without_browse_there_is_none() -> None:
    rendered = render(Catalog(), store="/nowhere", browse=False)
    assert b"_scr/ " not in rendered.files["server.conf"]
    for word in (b"@PAGE@", b"@POLICY@"):
        assert word not in rendered.files["server.conf"]
        assert word not in render(Catalog(), store="/nowhere").files["server.conf"]
    assert rendered.id != render(Catalog(), store="/nowhere").id


def assert_unsupported(site: Site) -> None:
    answer = site.get("/v2/_scr/")
    assert (answer.status, answer.code) == (404, "UNSUPPORTED")
