"""A real headless browser that opens pages of ours and listens for what they complain of."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.cluster.runs import DEADLINE_S

QUIET = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync""".split()
PHONE = 390
PATIENCE_MS = 1000 * DEADLINE_S
expect.set_options(timeout=PATIENCE_MS)


_browsers: list[Browser] = []


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """All pages that are opened meanwhile are its own. Nothing can run an event loop in this thread before it is closed."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs a browser: apt-get install chromium")
    with sync_playwright() as playwright:
        _browsers.append(playwright.chromium.launch(executable_path=chromium, args=QUIET))
        yield _browsers[-1]
        _browsers.pop().close()


@contextlib.contextmanager
def opened(
    url: str,
    width: int = 1200,
    height: int = 900,
    colours: str = "light",
    cookies: Sequence[Any] = (),
    own_page: bool = True,
) -> Iterator[Page]:
    """The page. One of our own must neither write to the console nor raise nor ask another host for anything."""
    complaints: list[str] = []
    with contextlib.nullcontext(_browsers[-1]) if _browsers else browser() as started:
        view = {"width": width, "height": height}
        context = started.new_context(viewport=view, color_scheme=colours, reduced_motion="reduce")  # type: ignore[arg-type]
        context.add_cookies(list(cookies))
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: None if same_place(request.url, url) else complaints.append(request.url))
        page.goto(url)
        yield page
        context.close()
    assert complaints == [] or not own_page


def same_place(asked: str, url: str) -> bool:
    return asked.split("/")[:3] == url.split("/")[:3] or asked.startswith("data:")
