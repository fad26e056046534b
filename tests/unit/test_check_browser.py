"""Horizon in a browser: what is compared, what is refused; the browser itself is a fake that shows prepared pages.

The real one, with a real Chromium, is in tests/integration and tests/e2e.
"""

from __future__ import annotations

import shutil
import sys
from types import SimpleNamespace

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from urllib3.exceptions import MaxRetryError

from mrkolla.base.errors import InputError, LackError
from mrkolla.check import BROWSER, CloudView, RegionView, browser, check
from mrkolla.check.browser import BrowserError
from mrkolla.check.shown import region_findings, selector_findings

THINGS = {
    "images": {"OSR1": "check-OSR1", "OSR2": "check-OSR2"},
    "networks": {"OSR1": "net-OSR1", "OSR2": "net-OSR2"},
}


class FakeBrowser:
    """Pages by (region, kind); ``loses`` is how many choices Horizon forgets."""

    def __init__(self, pages: dict | None = None, offered: list[str] | None = None, loses: int = 0) -> None:
        self.pages = pages or {(r, k): [THINGS[k][r], "public"] for k in THINGS for r in THINGS[k]}
        self.offered = ["OSR1", "OSR2"] if offered is None else offered
        self.shown, self.loses, self.choices = "OSR1", loses, 0

    def regions(self) -> list[str]:
        return self.offered

    def chosen(self) -> str:
        return self.shown

    def choose(self, region: str) -> None:
        if region not in self.offered:
            raise BrowserError(f"the region selector does not offer {region}")
        self.choices += 1
        if self.choices > self.loses:
            self.shown = region

    def listed(self, kind: str, wanted: str | None, shot: str) -> list[str]:
        found = self.pages[self.shown, kind]
        if isinstance(found, Exception):
            raise found
        return found


def test_pages_of_the_right_regions_have_no_finding():
    page = FakeBrowser()
    assert selector_findings(page, "AR", ["OSR1", "OSR2"]) == []
    assert region_findings(page, "OSR1", THINGS) == []
    assert region_findings(page, "OSR2", THINGS) == []


def test_a_region_that_the_selector_lacks_and_one_too_many():
    found = selector_findings(FakeBrowser(offered=["OSR1", "OSR9"]), "AR", ["OSR1", "OSR2"])
    assert [(f.region, f.service, f.expected, f.found) for f in found] == [
        ("OSR2", "dashboard", "OSR2", "OSR1, OSR9"),
        ("AR", "dashboard", "no OSR9", "OSR9"),
    ]
    (one,) = region_findings(FakeBrowser(offered=["OSR1"]), "OSR2", THINGS)
    assert (one.region, one.what, one.found) == (
        "OSR2",
        "region in Horizon",
        "the region selector does not offer OSR2",
    )


def test_without_a_selector_two_regions_are_missing_and_one_is_not():
    assert len(selector_findings(FakeBrowser(offered=[]), "AR", ["OSR1", "OSR2"])) == 2
    assert selector_findings(FakeBrowser(offered=[]), "AR", ["OSR1"]) == []
    assert region_findings(FakeBrowser(offered=[]), "OSR1", {"images": {"OSR1": "check-OSR1"}}, selector=False) == []


def test_another_regions_image_is_named():
    page = FakeBrowser({("OSR2", "images"): ["check-OSR1"], ("OSR2", "networks"): ["net-OSR2"]})
    found = region_findings(page, "OSR2", THINGS)
    assert [(f.region, f.service, f.what, f.expected, f.found) for f in found] == [
        ("OSR2", "image", "images in the browser", "check-OSR2", "check-OSR1"),
        ("OSR2", "image", "images in the browser (of OSR1)", "not check-OSR1", "check-OSR1"),
    ]


def test_a_page_that_does_not_come_names_its_service_and_the_next_page_is_looked_at():
    page = FakeBrowser({("OSR1", "images"): BrowserError("no table"), ("OSR1", "networks"): []})
    found = region_findings(page, "OSR1", THINGS)
    assert [(f.service, f.expected, f.found) for f in found] == [
        ("image", "check-OSR1", "no table"),
        ("network", "net-OSR1", "an empty table"),
    ]


def test_a_choice_that_horizon_forgets_is_made_again_but_not_for_ever():
    page = FakeBrowser(loses=2)
    assert region_findings(page, "OSR2", THINGS) == []
    assert page.choices == 3
    found = region_findings(FakeBrowser(loses=99), "OSR2", THINGS)
    assert {f.found for f in found} == {"the page's header says OSR1, 3 times, after OSR2 was chosen"}


def test_a_missing_browser_is_one_line_with_the_command_that_mends_it(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(LackError) as lack:
        browser.need()
    assert str(lack.value).endswith("apt-get install --no-install-recommends chromium chromium-driver")
    assert "\n" not in str(lack.value)
    # The check says so before it makes anything in the cloud.
    view = CloudView((RegionView("AR", "AR", "192.0.2.10"),), "http://192.0.2.10:5000", {}, screenshots=tmp_path)
    with pytest.raises(LackError, match="chromium-driver"):
        check(view, parts=(BROWSER,))


def test_a_missing_selenium_is_one_line(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setitem(sys.modules, "selenium", None)
    with pytest.raises(LackError, match="pip install selenium"):
        browser.need()


def test_a_check_in_the_browser_needs_a_folder(monkeypatch):
    monkeypatch.setattr(browser, "need", lambda: None)
    view = CloudView((RegionView("AR", "AR", "192.0.2.10"),), "http://192.0.2.10:5000", {})
    with pytest.raises(InputError, match="folder for its screenshots"):
        check(view, parts=(BROWSER,))


def test_the_browser_calls_nobody_and_trusts_one_key_alone(tmp_path):
    plain = browser.Browser("http://192.0.2.10", tmp_path).arguments()
    assert "--no-proxy-server" in plain
    assert not [word for word in plain if "certificate" in word]
    pinned = browser.Browser("https://192.0.2.9", tmp_path, pin="abc=").arguments()
    assert "--ignore-certificate-errors-spki-list=abc=" in pinned
    assert "--ignore-certificate-errors" not in pinned


def test_https_that_does_not_answer_is_one_line(tmp_path):
    (tmp_path / "root.crt").write_text("")
    with pytest.raises(BrowserError, match=r"root\.crt"):
        browser.key_pin("https://127.0.0.1:1", tmp_path / "root.crt", timeout=2)


def test_a_driver_that_is_gone_is_one_line(tmp_path):
    def gone(*_: object) -> None:
        raise MaxRetryError(None, "/session/1/elements", "refused")  # type: ignore[arg-type]

    page = browser.Browser("http://127.0.0.1:9", tmp_path)
    page._driver = SimpleNamespace(find_elements=gone, get=gone)  # type: ignore[assignment]
    for look in (page.chosen, page.regions, lambda: page.listed("images", None, "shot"), lambda: page.log_in("a", "b")):
        with pytest.raises(BrowserError, match="Max retries exceeded"):
            look()


def test_a_page_that_was_replaced_meanwhile_is_one_line(tmp_path):
    def replaced(*_: object) -> None:
        raise StaleElementReferenceException("stale element")

    page = browser.Browser("http://127.0.0.1:9", tmp_path)
    page._driver = SimpleNamespace(find_elements=lambda *_: [1], current_url="x")  # type: ignore[assignment]
    page._driver.find_elements = replaced  # type: ignore[method-assign]
    with pytest.raises(BrowserError, match="the page's header: stale element"):
        page.chosen()
