"""Horizon as a person sees it: a real, headless Chromium that logs in, chooses regions and reads pages.

Chromium and its driver are Debian's own (``browser-packages.txt``), of one source package and so of one version;
nothing is downloaded here. What a page must show is waited for, with a bound, and read off the page itself.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mrkolla.base.errors import LackError

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

_LIST = Path(__file__).parent.parent / "browser-packages.txt"
#: Seconds: that a page may take to show what it must (Horizon compresses its scripts when first asked); between looks.
PAGE_S, POLL_S = 90.0, 0.5
#: Size of the window, and so of a screenshot, in pixels.
WINDOW = (1400, 900)
#: Kind of thing -> path of the page that lists the project's own.
PAGES = {"images": "project/images/", "networks": "project/networks/", "instances": "project/instances/"}
#: The links of the region selector, in the menu of the page's header.
_REGION_LINKS = ".navbar .context-selection a[href*='switch_services_region']"


class BrowserError(Exception):
    """Horizon did not show what a person would need to see, or the browser died; one line."""


def packages() -> list[tuple[str, str]]:
    """(Debian package, its program) of everything that the browser needs."""
    rows = [line.split() for line in _LIST.read_text().splitlines() if line and not line.startswith("#")]
    return [(row[0], row[1]) for row in rows]


def need() -> None:
    """Raise LackError, with the command that mends it, unless Chromium, its driver and Selenium are there."""
    missing = [package for package, program in packages() if not shutil.which(program)]
    if missing:
        raise LackError(
            f"a browser is needed to look at Horizon, and {', '.join(missing)} is not installed:"
            f" apt-get install --no-install-recommends {' '.join(missing)}"
        )
    try:
        import selenium  # noqa: F401
    except ModuleNotFoundError as error:
        raise LackError("selenium is needed to look at Horizon and is not installed: pip install selenium") from error


def key_pin(url: str, ca: Path, timeout: float = 30) -> str:
    """The pin (base64 of SHA-256) of the public key that the server of ``url`` has, verified against ``ca`` first.

    Chromium has no option for a CA of one's own, but takes a key that it is told of. Raises BrowserError when the
    server does not answer, or its certificate is not of that CA or not for that address.
    """
    place = urlsplit(url)
    try:
        context = ssl.create_default_context(cafile=str(ca))
        with (
            socket.create_connection((place.hostname, place.port or 443), timeout=timeout) as plain,
            context.wrap_socket(plain, server_hostname=place.hostname) as secured,
        ):
            der = secured.getpeercert(binary_form=True)
            assert der is not None, "verified"
            certificate = x509.load_der_x509_certificate(der)
    except OSError as error:
        raise BrowserError(f"{url}: no TLS that {ca.name} vouches for: {error}") from error
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


class Browser:
    """One visit to Horizon at ``url``; screenshots go to the folder ``shots``. A context manager.

    ``pin`` is :func:`key_pin`'s, for https with a CA of one's own; ``log`` takes the driver's words. All methods raise
    BrowserError; entering raises LackError when the browser is not installed.
    """

    def __init__(self, url: str, shots: Path, *, pin: str | None = None, log: Path | None = None) -> None:
        self.url, self.shots, self.pin, self.log = url.rstrip("/") + "/", shots, pin, log
        self.root = self.url
        self._driver: Chrome | None = None

    @property
    def driver(self) -> Chrome:
        """Chromium's driver, while the context lasts."""
        assert self._driver is not None, "a context manager"
        return self._driver

    def __enter__(self) -> Browser:
        need()
        from selenium import webdriver
        from selenium.common.exceptions import WebDriverException

        paths = {package: shutil.which(program) or program for package, program in packages()}
        options = webdriver.ChromeOptions()
        options.binary_location = paths["chromium"]
        for argument in self.arguments():
            options.add_argument(argument)
        # A person's own proxy settings do not stand between the browser and the cloud.
        environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environ |= {"LANG": "C.UTF-8", "LANGUAGE": "en"}
        # More than its warnings would have each text that is typed, passwords too.
        quiet = ["--log-level=WARNING"]
        output = str(self.log) if self.log else os.devnull
        driver = paths["chromium-driver"]
        service = webdriver.ChromeService(driver, service_args=quiet, env=environ, log_output=output)
        self.shots.mkdir(parents=True, exist_ok=True)
        try:
            self._driver = webdriver.Chrome(options=options, service=service)
        except WebDriverException as error:
            raise BrowserError(f"Chromium does not start: {_first_line(error)}") from error
        self.driver.set_page_load_timeout(PAGE_S)
        return self

    def arguments(self) -> list[str]:
        """Chromium's options."""
        options = ["--headless=new", f"--window-size={WINDOW[0]},{WINDOW[1]}", "--lang=en", "--no-proxy-server"]
        # Small /dev/shm and no GPU are what containers have; nothing here calls home.
        options += ["--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        if os.geteuid() == 0:
            # Chromium's sandbox refuses root; the one site that is visited is the cloud's own.
            options.append("--no-sandbox")
        if self.pin:
            options.append(f"--ignore-certificate-errors-spki-list={self.pin}")
        return options

    def __exit__(self, *_: object) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.quit()

    # -- what a person does --------------------------------------------------------------------------------------

    def log_in(self, username: str, password: str, domain: str = "Default") -> None:
        """Fill the login form, send it, and wait for a page with ``username`` in its header."""
        with self._named("the login page"):
            self.driver.get(self.url)
            self._wait(lambda: self._all("#id_password") or self._all("#error-code"), "the login form")
            if errors := self._all("#error-code"):  # Chromium's own page: a certificate that it does not trust
                raise BrowserError(f"{self.url} is refused: {errors[0].text.strip() or self.driver.title}")
            self.root = self.driver.current_url.split("auth/login", maxsplit=1)[0]
            self.shoot("login")
            self._one("#id_username").send_keys(username)
            self._one("#id_password").send_keys(password)
            if fields := self._all("#id_domain"):
                fields[0].clear()
                fields[0].send_keys(domain)
            self._one("#loginBtn").click()
            self._wait(lambda: self._texts(".user-name") or self._alerts(), "the login")
            if username not in self._texts(".user-name"):
                self.shoot("login-refused")
                raise BrowserError(f"login as {username} refused: {'; '.join(self._alerts()) or 'the form came back'}")

    def regions(self) -> list[str]:
        """The regions that the selector in the page's header offers; none where Horizon has one region only."""
        with self._named("the region selector"):
            self._open_selector()
            self.shoot("regions")
            names = [link.text.strip() for link in self._region_links()]
            return sorted(dict.fromkeys(name for name in names if name))

    def chosen(self) -> str | None:
        """The region that the page's header says it shows; None where Horizon has one region only."""
        with self._named("the page's header"):
            return self._shown()

    def choose(self, region: str) -> None:
        """Choose ``region`` in the selector, as a person does, and wait until the header shows it.

        Each of Horizon's requests saves the whole session: one that was on its way while the region is chosen would
        put the earlier region back when it ends. So the page comes to rest first.
        """
        with self._named(f"choosing {region}"):
            self._rest()
            self._open_selector()
            links = [link for link in self._region_links() if link.text.strip() == region]
            if not links:
                raise BrowserError(f"the region selector does not offer {region}")
            links[0].click()
            self._wait(lambda: self._shown() == region, f"{region} in the page's header")

    def listed(self, kind: str, wanted: str | None, shot: str) -> list[str]:
        """Names in the table of the page ``kind`` (of PAGES); ``wanted`` has PAGE_S seconds to appear in it.

        A screenshot called ``shot`` shows the page as it was then.
        """
        with self._named(f"the page of {kind}"):
            self.driver.get(urljoin(self.root, PAGES[kind]))
            end = time.monotonic() + PAGE_S
            try:
                while True:
                    names = self._names()
                    if names is not None and (wanted is None or wanted in names):
                        self._rest()
                        return names
                    if time.monotonic() > end:
                        if names is None:
                            raise BrowserError(f"the page of {kind} has no table after {PAGE_S:.0f} s")
                        return names
                    time.sleep(POLL_S)
            finally:
                self.shoot(shot)

    def shoot(self, name: str) -> Path:
        """Write a screenshot of what is shown now."""
        path = self.shots / f"{name}.png"
        if not self.driver.save_screenshot(str(path)):
            raise BrowserError(f"the screenshot {path} cannot be written")
        return path

    # -- reading a page ------------------------------------------------------------------------------------------

    def _shown(self) -> str | None:
        shown = self._texts(".context-region")
        return shown[0] if shown else None

    def _names(self) -> list[str] | None:
        """The texts of all table cells and links in them; None while the page has no finished table.

        Horizon's two kinds of table (made by the server, or by the page's script) have nothing else in common.
        """
        script = """
            const tables = document.querySelectorAll('#content_body table, .page-body table, hz-dynamic-table table');
            const busy = Array.from(document.querySelectorAll('.modal-body .loader, .modal.loading, [dots]'))
                .some(one => one.offsetParent !== null);
            if (!tables.length || busy) return null;
            const found = [];
            for (const table of tables)
                for (const cell of table.querySelectorAll('tbody td, tbody td a'))
                    found.push(cell.innerText.trim());
            return found;
        """
        texts = self.driver.execute_script(script)
        # A cell of several lines holds a menu, or a row's hidden details.
        return None if texts is None else [text for text in texts if text and "\n" not in text]

    def _rest(self) -> None:
        """Wait until the page has loaded and none of its scripts' requests is open, twice in a row."""
        script = """
            let open = window.jQuery ? jQuery.active : 0;
            const made = window.angular && angular.element(document.body).injector();
            if (made) open += made.get('$http').pendingRequests.length;
            return document.readyState === 'complete' && open === 0;
        """
        states: list[bool] = []

        def resting() -> bool:
            states.append(bool(self.driver.execute_script(script)))
            return states[-2:] == [True, True]

        self._wait(resting, "a page at rest")

    def _open_selector(self) -> None:
        """Open the header's menu that holds the regions, unless it is open."""
        if any(link.is_displayed() for link in self._region_links()) or not self._region_links():
            return
        self._one(".navbar .context-overview").click()
        self._wait(lambda: any(link.is_displayed() for link in self._region_links()), "the region selector, open")

    def _region_links(self) -> list[Any]:
        return self._all(_REGION_LINKS)

    def _all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def _one(self, selector: str) -> Any:
        elements = self._all(selector)
        if not elements:
            raise BrowserError(f"{self.driver.current_url} has no '{selector}'")
        return elements[0]

    def _texts(self, selector: str) -> list[str]:
        return [text for text in (element.text.strip() for element in self._all(selector)) if text]

    def _alerts(self) -> list[str]:
        return [" ".join(text.split()) for text in self._texts(".alert-danger, .errorlist")]

    def _wait(self, ready: Callable[[], Any], what: str) -> None:
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + PAGE_S
        while True:
            try:
                if ready():
                    return
            except StaleElementReferenceException:
                pass  # the page was replaced while it was read: read the new one
            if time.monotonic() > end:
                raise BrowserError(f"{what} did not come within {PAGE_S:.0f} s at {self.driver.current_url}")
            time.sleep(POLL_S)

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        """Selenium's own errors as one line that says what was being done, and so those of a driver that is gone."""
        from selenium.common.exceptions import WebDriverException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except (WebDriverException, HTTPError) as error:
            raise BrowserError(f"{what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    message = (getattr(error, "msg", None) or str(error) or type(error).__name__).strip()
    return " ".join(message.splitlines()[0].split())[:300]
