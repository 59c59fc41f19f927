"""config/nginx-rate-limit.conf: lists are limited, pulls are not."""

import re
from pathlib import Path

import pytest

from tests.nginxes import binaries
from tests.render.site import OURS, site, spellings
from tests.trees import image

EXAMPLE = (Path(__file__).parent.parent.parent / "config" / "nginx-rate-limit.conf").read_text()
APP = image("app")


@pytest.mark.parametrize("program", binaries())
def test_lists_are_limited_in_every_spelling_and_pulls_are_not(tmp_path: Path, program: object) -> None:
    assert callable(program)
    in_server = " ".join(re.findall(r"^# +(limit_req.*;)$", EXAMPLE, re.MULTILINE))
    assert in_server.count("limit_req") == 2
    slow = EXAMPLE.replace("10r/s", "1r/m")
    with site(
        tmp_path,
        {"lib/app": {"1": APP}},
        program=str(program()),
        http=f"{OURS} {slow}",
        server=f"{in_server} include server.conf;",
    ) as running:
        lists = ["/v2/lib/app/tags/list", "/v2/_catalog?n=1", f"/v2/lib/app/referrers/{APP.digest}"]
        assert [running.get(path).status for path in lists] == [200, 200, 200]
        for _ in range(20):
            running.get(lists[0])
        for path in (each for plain in lists for each in [plain, *spellings(plain)]):
            answer = running.get(path)
            assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS"), path
            assert answer.header("Content-Type") == "application/json"
        for path in ("/v2/", "/v2/lib/app/manifests/1", f"/v2/lib/app/manifests/{APP.digest}"):
            assert {running.get(path).status for _ in range(50)} == {200}
        for digest, content in APP.blobs.items():
            assert running.get(f"/v2/lib/app/blobs/{digest}").body == content
