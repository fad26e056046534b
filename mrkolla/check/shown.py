"""What Horizon shows in a browser, compared with what each region has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mrkolla.check.browser import BrowserError
from mrkolla.check.model import Finding

#: What each kind of thing is a service of (in findings).
SERVICES = {"images": "image", "networks": "network", "instances": "compute"}
#: How often a region is chosen that Horizon does not keep.
TRIES = 3


def selector_findings(browser: Any, admin: str, osrs: Sequence[str]) -> list[Finding]:
    """Compare the region selector with the OSRs; ``admin`` is the AR, whose Horizon it is.

    With one OSR there is nothing to select, and Horizon shows no selector.
    """
    try:
        offered = browser.regions()
    except BrowserError as error:
        return [Finding(admin, "dashboard", "", "region selector", ", ".join(osrs), str(error))]
    findings = []
    if len(osrs) > 1 or offered:
        for name in osrs:
            if name not in offered:
                names = ", ".join(offered) or "no selector"
                findings.append(Finding(name, "dashboard", "", "region selector", name, names))
        for name in offered:
            if name not in osrs:
                findings.append(Finding(admin, "dashboard", "", "region selector", f"no {name}", name))
    return findings


def region_findings(
    browser: Any, region: str, things: Mapping[str, Mapping[str, str]], selector: bool = True
) -> list[Finding]:
    """Switch to ``region`` and compare its pages with ``things``: kind (of PAGES) -> region -> name of what is there.

    Each page must show the region's own thing, and none of another region's.
    """
    findings: list[Finding] = []
    try:
        if selector:
            browser.choose(region)
    except BrowserError as error:
        return [Finding(region, "dashboard", "", "region in Horizon", "chosen", str(error))]
    for kind, by_region in things.items():
        own_name, service = by_region.get(region), SERVICES[kind]
        try:
            listed = _of_region(browser, region, kind, own_name, selector)
        except BrowserError as error:
            findings.append(Finding(region, service, "", f"{kind} in the browser", own_name or "a table", str(error)))
            continue
        if own_name and own_name not in listed:
            names = ", ".join(sorted(set(listed)))[:200] or "an empty table"
            findings.append(Finding(region, service, "", f"{kind} in the browser", own_name, names))
        for other, name in by_region.items():
            if other != region and name in listed:
                what = f"{kind} in the browser (of {other})"
                findings.append(Finding(region, service, "", what, f"not {name}", name))
    return findings


def _of_region(browser: Any, region: str, kind: str, own: str | None, selector: bool) -> list[str]:
    """What the page ``kind`` lists when its header says ``region``; BrowserError when Horizon does not keep that."""
    for _ in range(TRIES):
        listed = browser.listed(kind, own, f"{region}-{kind}")
        shown = browser.chosen()
        if not selector or shown == region:
            return listed
        browser.choose(region)
    raise BrowserError(f"the page's header says {shown}, {TRIES} times, after {region} was chosen")
