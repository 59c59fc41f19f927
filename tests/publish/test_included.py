"""Which line of a site is missing, told from what `nginx -T` prints."""

from pathlib import Path

import pytest

from scr_watchd.publish.included import missing

CONFIG, CURRENT = Path("/etc/nginx/nginx.conf"), Path("/var/lib/scr-watchd/nginx/current")
HTTP = f"# configuration file {CURRENT}/http.conf:\nmap '' $scr_generation {{ default 'abc'; }}"
SERVER = f"# configuration file {CURRENT}/server.conf:\nlocation = /v2/_scr/generation {{ }}"


def dump(*more: str, include: str = "include /etc/nginx/conf.d/*.conf;") -> str:
    main = f"# configuration file {CONFIG}:\nevents {{ }}\nhttp {{\n    {include}\n}}\n"
    site = "# configuration file /etc/nginx/sites-enabled/default:\n# a site\nserver {\n    listen 80;\n}\n"
    return "\n".join((main, site, *more))


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        pytest.param(dump(HTTP, SERVER), "", id="nothing"),
        pytest.param(
            dump(),
            "/etc/nginx/nginx.conf does not include it. Add to its http {}, in a file "
            "/etc/nginx/conf.d/00-scr-watchd.conf: include /var/lib/scr-watchd/nginx/current/http*.conf; and "
            "to a server {}, such as that of /etc/nginx/sites-enabled/default:2: "
            "include /var/lib/scr-watchd/nginx/current/server*.conf;",
            id="everything",
        ),
        pytest.param(
            dump(SERVER, include="include mime.types;"),
            "/etc/nginx/nginx.conf does not include all of it. Add to its http {}, in /etc/nginx/nginx.conf: "
            "include /var/lib/scr-watchd/nginx/current/http*.conf;",
            id="the part of http, where there is no conf.d",
        ),
        pytest.param(
            f"# configuration file {CONFIG}:\nhttp {{ }}\n{HTTP}",
            "/etc/nginx/nginx.conf does not include all of it. Add to a server {} (there is none yet): "
            "include /var/lib/scr-watchd/nginx/current/server*.conf;",
            id="the part of a server, where there is none",
        ),
        pytest.param(dump(HTTP, "alias $scr_blob_path;"), "", id="nothing, with locations of one's own"),
    ],
)
def test_the_missing_line_is_told_with_its_file(printed: str, told: str) -> None:
    assert missing(printed, config=CONFIG, generation="abc", current=CURRENT) == told
