"""A real Chromium, without a window, and a site for it to look at."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scr_watchd.oci.catalog import Catalog
from scr_watchd.publish import page as pages
from scr_watchd.render.page import name, page
from tests.daemons import free_port
from tests.nginxes import cannot
from tests.render.site import Site, serving
from tests.waiting import until

PAGE = "/v2/_scr/"
WIDE = (1280, 860)
PHONE = (390, 844)

# Before anything else runs in the page: what it does against its policy, and whether foreign text ran.
_WITNESS = """
window.canary = 'alive';
window.violations = [];
document.addEventListener('securitypolicyviolation', event => violations.push(event.violatedDirective));
"""


@dataclass
class Chrome:
    """A browser and what tests want of it. ``base`` is where its site is, such as http://127.0.0.1:1."""

    driver: Any
    base: str = ""

    def open(self, place: str = "", *, user: str = "") -> None:
        """The page at ``place``, such as #/library/alpine, loaded anew."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.base.replace('://', f'://{user}@') if user else self.base}{PAGE}{place}")

    def go(self, place: str) -> None:
        """Another ``place`` of the page that is open."""
        self.run("location.hash = arguments[0]", place)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str = "body") -> str:
        return str(self.run("return document.querySelector(arguments[0])?.innerText || ''", selector))

    def texts(self, selector: str) -> list[str]:
        return list(
            self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)", selector)
        )

    def says(self, *words: str, selector: str = "body", seconds: float = 10) -> str:
        """Wait until all ``words`` are to be read in what ``selector`` selects."""
        seen = ""

        def look() -> bool:
            nonlocal seen
            seen = self.text(selector)
            return all(word in seen for word in words)

        try:
            until(look, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"no {words} in: {seen}") from error
        return seen

    def waits_for(self, script: str, *arguments: object, seconds: float = 10) -> Any:
        """Wait until ``script``, an expression, is true."""
        return until(lambda: self.run(f"return {script}", *arguments), seconds=seconds)

    def click(self, selector: str, words: str = "") -> None:
        """Click the first element of ``selector`` that has ``words``."""
        found = self.run(
            "return [...document.querySelectorAll(arguments[0])]"
            ".find(e => e.innerText.includes(arguments[1]))",
            selector,
            words,
        )
        assert found is not None, f"no {selector} with {words!r} in: {self.text()}"
        self.driver.execute_script("arguments[0].click()", found)

    def press(self, *keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(*keys)

    def asked(self) -> list[dict[str, Any]]:
        """What the page has asked for: ``name`` and ``responseEnd`` of each request."""
        entries = "performance.getEntriesByType('resource')"
        found = self.run(f"return {entries}.map(e => ({{name: e.name, responseEnd: e.responseEnd}}))")
        return [each for each in found if "/v2/" in each["name"]]

    def command(self, name: str, **parameters: object) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)

    def size(self, width: int, height: int) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 800,
        )

    def colours(self, scheme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", features=[feature])

    def offline(self, *, away: bool) -> None:
        self.command("Network.enable")
        self.command(
            "Network.emulateNetworkConditions",
            offline=away,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    @contextmanager
    def signing_in(self, answers: list[str]) -> Iterator[None]:
        """Answer each question for a password with the next of ``answers``, USER:PASSWORD or ""."""

        def answer(question: Any) -> None:
            user, _, password = answers.pop(0).partition(":")
            if user:
                question.provide_credentials(user, password)
            else:
                question.cancel()

        handler = self.driver.network.add_authentication_handler(callback=answer)
        try:
            yield
        finally:
            self.driver.network.remove_authentication_handler(handler)

    def hurt(self) -> list[str]:
        """What went against the page's policy, and whether text of an image ran as a script."""
        found = self.run("return [...window.violations, ...(window.canary === 'alive' ? [] : ['canary'])]")
        return list(found)

    def axe(self) -> list[str]:
        """What axe-core finds that is serious."""
        package = find_spec("axe_playwright_python")
        assert package is not None
        assert package.origin is not None
        script = Path(package.origin).with_name("axe.min.js")
        self.driver.execute_script(script.read_text())
        found = self.driver.execute_async_script("axe.run().then(arguments[0])")
        return [
            f"{each['id']}: {each['help']}: {json.dumps([node['html'][:160] for node in each['nodes'][:3]])}"
            for each in found["violations"]
            if each["impact"] in ("serious", "critical")
        ]


@contextmanager
def chrome() -> Iterator[Chrome]:
    """A Chromium of 1280 pixels; skips the test where there is none, but never in CI."""
    programs = [shutil.which(each) for each in ("chromium", "chromedriver")]
    if None in programs or not find_spec("selenium") or not find_spec("axe_playwright_python"):
        cannot("chromium, chromedriver, selenium or axe-core is not installed: sh tests/setup.sh")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(programs[0])
    options.enable_bidi = True
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{word}")
    driver = webdriver.Chrome(options=options, service=Service(str(programs[1])))
    try:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WITNESS})
        made = Chrome(driver)
        made.size(*WIDE)
        yield made
    finally:
        driver.quit()


@contextmanager
def browsing(
    chrome: Chrome, catalog: Catalog, store: Path, *, server: str = "", http: str = "", **more: Any
) -> Iterator[Site]:
    """``catalog`` with its ``store``, and the page, served where ``chrome`` looks; ``server`` and ``http``
    are further lines of the site."""
    pages.keep(store, name(), page())
    port = free_port()
    chrome.base = f"http://127.0.0.1:{port}"
    lines = f"listen 127.0.0.1:{port}; access_log access.log; {server} include server.conf;"
    with serving(
        catalog, store=store, server=lines, http=f"include hash.conf; {http} include http.conf;", **more
    ) as site:
        yield site


def requests(site: Site) -> list[str]:
    """What was asked of ``site``, with the status of each answer."""
    parts = [line.split('"') for line in (site.nginx.directory / "access.log").read_text().splitlines()]
    return [f"{each[1].rpartition(' ')[0]} {each[2].split()[0]}" for each in parts]
