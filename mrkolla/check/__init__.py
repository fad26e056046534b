"""The check of a deployed cloud: is it what the plan says, and does it work for a person who uses it?

Endpoints, authentication settings, compute services, a guest in each region as a normal user, and Horizon. Nothing
here changes the cloud for longer than the check takes.
"""

from __future__ import annotations

from mrkolla.check.model import CloudView, Finding, GuestImage, RegionView, Report
from mrkolla.check.run import BROWSER, PARTS, check

__all__ = ["BROWSER", "PARTS", "CloudView", "Finding", "GuestImage", "RegionView", "Report", "check"]
