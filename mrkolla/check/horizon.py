"""Horizon as a browser without JavaScript sees it: log in, choose a region, list its images."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import requests

TIMEOUT_S = 60


class HorizonError(Exception):
    """Horizon did not do what a person would see it do; one line."""


@dataclass
class LoginForm:
    """Horizon's login form: where it goes, its fields with their values, the choices of those that have some."""

    action: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    choices: dict[str, dict[str, str]] = field(default_factory=dict)  # field -> text -> value
    alerts: list[str] = field(default_factory=list)


class _FormReader(HTMLParser):
    """Reads the form that has a password field, and the page's alerts."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[LoginForm] = []
        self.alerts: list[str] = []
        self._form: LoginForm | None = None
        self._select: str | None = None
        self._option: tuple[str, bool] | None = None
        self._text = ""
        self._alert_depth = 0
        self._noscript = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "noscript":
            self._noscript = True
        elif tag == "form":
            self._form = LoginForm(action=values.get("action", ""))
            self.forms.append(self._form)
        elif tag == "input" and self._form and values.get("name"):
            self._form.fields[values["name"]] = values.get("value", "")
        elif tag == "select" and self._form and values.get("name"):
            self._select = values["name"]
            self._form.choices[self._select] = {}
        elif tag == "option" and self._select:
            self._option, self._text = (values.get("value", ""), "selected" in values), ""
        if tag in ("div", "ul", "p", "span", "li"):
            classes = values.get("class", "")
            if self._alert_depth or "alert-danger" in classes or "errorlist" in classes:
                self._alert_depth += 1

    def handle_data(self, data: str) -> None:
        if self._option:
            self._text += data
        if self._alert_depth and data.strip() and not self._noscript:
            self.alerts.append(" ".join(data.split()))

    def handle_endtag(self, tag: str) -> None:
        if tag == "noscript":
            self._noscript = False
        elif tag == "form":
            self._form = None
        elif tag == "select":
            self._select = None
        elif tag == "option" and self._option and self._select and self._form:
            value, selected = self._option
            self._form.choices[self._select][" ".join(self._text.split())] = value
            if selected or self._select not in self._form.fields:
                self._form.fields[self._select] = value
            self._option = None
        if tag in ("div", "ul", "p", "span", "li") and self._alert_depth:
            self._alert_depth -= 1


def read_login_form(page: str) -> LoginForm:
    """The login form of an HTML page; HorizonError when the page has none."""
    reader = _FormReader()
    reader.feed(page)
    for form in reader.forms:
        if "password" in form.fields and "csrfmiddlewaretoken" in form.fields:
            form.alerts = reader.alerts
            return form
    raise HorizonError("the page has no login form")


class Horizon:
    """One visit to Horizon at ``url`` (``ca``: what https is trusted by); all its methods raise HorizonError."""

    def __init__(self, url: str, ca: Path | None = None) -> None:
        self.url = url.rstrip("/") + "/"
        self.root = self.url
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.verify = str(ca) if ca else True
        self.http.headers["Accept-Language"] = "en"

    def log_in(self, username: str, password: str, domain: str = "Default") -> None:
        """Log in with the form, in the region of Keystone that the form has first."""
        page = self._request("GET", self.url)
        self._expect(page, 200, "the login page")
        form = read_login_form(page.text)
        target = urljoin(page.url, form.action or page.url)
        self.root = target.split("auth/login", maxsplit=1)[0]
        data = {name: value for name, value in form.fields.items() if not name.startswith("fake_")}
        data |= {"username": username, "password": password}
        if "domain" in data:
            data["domain"] = domain
        answer = self._request("POST", target, data=data, headers={"Referer": page.url}, allow_redirects=False)
        if answer.status_code == 200:
            alerts = " ".join(read_login_form(answer.text).alerts)
            raise HorizonError(f"login as {username} refused: {alerts or 'the login form came back'}")
        self._expect(answer, 302, "the login")
        if "auth/login" in answer.headers.get("Location", ""):
            raise HorizonError(f"login as {username} led back to the login page")

    def regions(self) -> tuple[list[str], str | None]:
        """The regions that the logged-in user can choose, and the chosen one."""
        session = self._json("api/keystone/user-session/")
        return sorted(session.get("available_services_regions") or []), session.get("services_region")

    def choose(self, region: str) -> None:
        """Choose ``region``, as its link in the page's header does."""
        url = urljoin(self.root, f"auth/switch_services_region/{quote(region)}/")
        back = urlsplit(urljoin(self.root, "project/images/")).path
        self._expect(self._request("GET", url, params={"next": back}, allow_redirects=False), 302, f"choosing {region}")
        offered, chosen = self.regions()
        if chosen != region:
            raise HorizonError(f"{region} cannot be chosen: {chosen} stays, offered are {', '.join(offered) or 'none'}")

    def images(self) -> list[str]:
        """Names of the images that the page of images shows in the chosen region."""
        page = self._request("GET", urljoin(self.root, "project/images/"), allow_redirects=False)
        self._expect(page, 200, "the page of images")
        # The page is filled from here by its script.
        return [image.get("name") or "" for image in self._json("api/glance/images/").get("items", [])]

    def _json(self, path: str) -> dict[str, Any]:
        headers = {"X-Requested-With": "XMLHttpRequest", "Accept": "application/json"}
        answer = self._request("GET", urljoin(self.root, path), headers=headers, allow_redirects=False)
        self._expect(answer, 200, path)
        try:
            return answer.json()
        except ValueError as error:
            raise HorizonError(f"{path}: the answer is no JSON") from error

    def _request(self, method: str, url: str, **keywords: Any) -> requests.Response:
        try:
            return self.http.request(method, url, timeout=TIMEOUT_S, **keywords)
        except requests.RequestException as error:
            raise HorizonError(
                f"{method} {url}: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
            ) from error

    def _expect(self, answer: requests.Response, status: int, what: str) -> None:
        if answer.status_code != status:
            where = answer.headers.get("Location")
            detail = f" (sent to {where})" if where else f": {' '.join(answer.text.split())[:120]}"
            raise HorizonError(f"{what} answered {answer.status_code} in place of {status}{detail}")
