"""The report in a real Chromium: what a hand can ask of its figures, on a desk's width, a phone's, and paper."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from mrkolla import results
from mrkolla.check.browser import Browser
from tests import chromium, synthetic

PHONE = 390


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """The browser, from Debian."""
    chromium.ensure()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> results.RunFolder:
    folder = synthetic.run(tmp_path_factory.mktemp("results"), rtts=(0, 50, 100), samples=12, repetitions=2)
    results.write_all(folder)
    return folder


@pytest.fixture
def page(run, tmp_path) -> Iterator[Browser]:
    """The report, open, with all that it says to its console as an error at hand."""
    with Browser(f"file://{run.path}/report.html", tmp_path) as browser:
        browser.driver.get(f"file://{run.path}/report.html")
        yield browser


def console(page: Browser) -> list[str]:
    return [line["message"] for line in page.driver.get_log("browser")]


def scroll(page: Browser, chart: int) -> None:
    """Bring a chart into view, so that it is drawn."""
    page.driver.execute_script(
        "document.querySelector(`figure[data-chart='${arguments[0]}']`).scrollIntoView({block: 'center'})", chart
    )
    page._wait(
        lambda: page.driver.execute_script(
            "return Boolean(Chart.getChart(document.querySelector(`figure[data-chart='${arguments[0]}'] canvas`)))",
            chart,
        ),
        "the chart",
    )


def at(page: Browser, chart: int, dataset: int, index: int, *events: str) -> None:
    """Move the hand to a marker of a chart, and do there what ``events`` says."""
    page.driver.execute_script(
        """const chart = Chart.getChart(document.querySelector(`figure[data-chart='${arguments[0]}'] canvas`));
        const point = chart.getDatasetMeta(arguments[1]).data[arguments[2]];
        const edge = chart.canvas.getBoundingClientRect();
        for (const kind of arguments[3]) chart.canvas.dispatchEvent(new MouseEvent(kind,
            {clientX: edge.left + point.x, clientY: edge.top + point.y, bubbles: true}));""",
        chart, dataset, index, list(events),
    )  # fmt: skip


def hovered(page: Browser, chart: int) -> str:
    return page.driver.execute_script(
        """const chart = Chart.getChart(document.querySelector(`figure[data-chart='${arguments[0]}'] canvas`));
        return chart.tooltip.opacity ? chart.tooltip.body.flatMap((one) => one.lines).join(" ") : "";""", chart,
    )  # fmt: skip


def shown(page: Browser, chart: int) -> list[int]:
    """How many markers each series of a chart has; 0: it is switched off."""
    return page.driver.execute_script(
        """const chart = Chart.getChart(document.querySelector(`figure[data-chart='${arguments[0]}'] canvas`));
        return chart.data.datasets.map((set, place) => chart.isDatasetVisible(place) ? set.data.length : 0);""", chart,
    )  # fmt: skip


def switch(page: Browser, text: str) -> None:
    page.driver.execute_script(
        """[...document.querySelectorAll("#hand label")].find((one) => one.textContent === arguments[0])
        .querySelector("input").click()""", text,
    )  # fmt: skip


def test_a_marker_says_its_numbers_and_leads_to_its_links_and_slowest_operation(page, run):
    scroll(page, 0)
    at(page, 0, 0, 1, "mousemove")
    page._wait(lambda: hovered(page, 0), "the numbers of a marker")
    assert "OSR1, rtt" in hovered(page, 0) and "median" in hovered(page, 0) and "RTT" in hovered(page, 0)
    assert not page.driver.find_element("id", "lead").is_displayed()
    at(page, 0, 0, 1, "mousemove", "click")
    lead = page.driver.find_element("id", "lead")
    page._wait(lead.is_displayed, "what the marker leads to")
    said = " ".join(lead.text.split())
    assert said.startswith("close Point rtt") and "Slowest of this kind from OSR1:" in said
    assert "Its links (done)" in said and "before" in said and "after" in said
    lead.find_element("tag name", "button").click()
    assert not lead.is_displayed()
    assert console(page) == []


def test_regions_and_repetitions_are_switched_in_all_figures(page):
    scroll(page, 0)
    both = shown(page, 0)
    switch(page, "OSR2")
    assert sum(shown(page, 0)) < sum(both) and 0 in shown(page, 0)
    switch(page, "OSR2")
    assert shown(page, 0) == both
    switch(page, "1")
    assert shown(page, 0)[0] == both[0] / 2
    scroll(page, 8)  # one that is drawn later has what is switched off, too
    switch(page, "0")
    assert shown(page, 0)[0] == 0
    assert console(page) == []


def test_every_figure_of_the_page_can_be_drawn(page):
    count = page.driver.execute_script("return document.querySelectorAll('figure[data-chart]').length")
    for chart in range(count):
        scroll(page, chart)
        assert any(shown(page, chart)), chart
    assert count > 20
    assert console(page) == []


def test_on_a_phone_nothing_is_wider_than_the_screen(page):
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": PHONE, "height": 844, "deviceScaleFactor": 2, "mobile": True},
    )
    page.driver.refresh()
    scroll(page, 0)
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= PHONE
    wide = page.driver.execute_script("return document.querySelector('figure[data-chart] canvas').clientWidth")
    assert 300 < wide <= PHONE
    at(page, 0, 0, 1, "mousemove", "click")
    page._wait(page.driver.find_element("id", "lead").is_displayed, "what the marker leads to")
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= PHONE


def test_on_paper_the_figures_are_plain_svg(page):
    scroll(page, 0)
    switch(page, "OSR2")  # paper has all of it, whatever a hand has switched off
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    of = "return [...document.querySelectorAll('%s')].filter((one) => one.offsetParent !== null).length"
    assert page.driver.execute_script(of % "canvas") == 0
    assert page.driver.execute_script(of % "#hand, #lead") == 0
    pictures = page.driver.find_elements("css selector", "figure[data-chart] > img")
    assert all(picture.is_displayed() for picture in pictures[:3])
    assert pictures[0].get_attribute("src").startswith("data:image/svg+xml;base64,")
    printed = base64.b64decode(page.driver.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF") and b"/Subtype /Image" not in printed.split(b"/Type /Page\n")[0]


def test_without_scripts_the_pictures_are_there(run, tmp_path):
    with Browser(f"file://{run.path}/report.html", tmp_path) as page:
        page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        page.driver.get(f"file://{run.path}/report.html")
        assert page.driver.find_elements("tag name", "canvas") == []
        assert page.driver.find_elements("css selector", "figure[data-chart] > img")[0].is_displayed()
        assert not page.driver.find_element("id", "hand").is_displayed()
