"""For tests: the report in the system's Chromium, opened from disk."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
READY = "main:not([aria-busy]) .section"


@contextmanager
def browser() -> Iterator[Any]:
    """The browser; skips where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="no Playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this system (`apt-get install chromium`)")
    with driver.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, headless=True, args=OPTIONS)
        yield found
        found.close()


class Visit:
    """A page that was opened from disk, and what went wrong in it.

    Attributes:
        page: Playwright's.
        folder: of the report.
        requests: every address that was asked for.
        faults: errors and warnings in the console, and errors that nobody caught.
    """

    def __init__(self, opened: Any, folder: Path, **context: Any) -> None:
        self.folder, self.requests, self.faults = folder, list[str](), list[str]()
        self.context = opened.new_context(
            **{"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce", **context}
        )
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on(
            "console", lambda said: self.faults.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))

    def go(self, address: str = "") -> Any:
        """Open the page anew at an address, such as `funnel?step=read`, and wait until it is there."""
        self.page.goto("about:blank")
        self.page.goto(f"{(self.folder / 'index.html').as_uri()}{'#/' + address if address else ''}")
        self.page.wait_for_selector(READY)
        return self.page

    def draw_all(self) -> None:
        """Wait until every chart is drawn: they are when they come near to what is seen, and the rest after that."""
        for chart in self.page.locator(".chart").all():
            chart.scroll_into_view_if_needed()
        self.until(
            "document.querySelectorAll('.chart').length === document.querySelectorAll('.chart[data-drawn]').length"
        )

    def until(self, claim: str) -> None:
        """Wait until a claim holds in the page (Playwright's own way is text run as code, which the page refuses)."""
        for _ in range(600):
            if self.page.evaluate(claim):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"not so after 30 s: {claim}")

    def foreign(self) -> list[str]:
        """Addresses outside the report's folder that were asked for."""
        own = self.folder.as_uri() + "/"
        return [url for url in self.requests if not url.startswith((own, "data:", "about:"))]
