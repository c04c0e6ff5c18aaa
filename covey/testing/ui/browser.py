"""`covey ui` as a process, and a Chromium that looks at it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from covey.errors import NotFound
from covey.testing.launch.processes import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
READY_S = 60.0
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\?token=\S+")
WIDE = (1280, 900)


def chromium() -> str | None:
    """The browser's program; None: there is none on this machine."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def served(*arguments: object) -> Iterator[str]:
    """`covey ui` with these options on a free port; the address with the token. It is ended with the context.

    Raises:
        NotFound: It ended, or said nothing; the message is what it printed.
    """
    command = [sys.executable, "-m", "covey.cli.main", "ui", "--port", "0", "--no-open", *map(str, arguments)]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            wait_until(lambda: bool(_printed(output, ADDRESS)) or process.poll() is not None, READY_S)
            addresses = _printed(output, ADDRESS)
            if not addresses:
                raise NotFound("\n".join(_printed(output, re.compile("(?s).+"))))
            yield addresses[0]
        finally:
            process.terminate()
            process.wait(READY_S)


def _printed(output: Any, pattern: re.Pattern[str]) -> list[str]:
    return pattern.findall(os.pread(output.fileno(), 1 << 16, 0).decode())


class Looked:
    """A page in a browser, and what went wrong in it.

    Attributes:
        page: Playwright's.
        wrong: Errors of scripts, and what the browser's console says is one (refusals by the page's policy too).
        requests: The addresses that were asked for.
    """

    def __init__(self, page: Page) -> None:
        self.page, self.wrong, self.requests = page, list[str](), list[str]()
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("request", lambda request: self.requests.append(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind == "error" and "Failed to load resource" not in text:  # as while the coordinator is away
            self.wrong.append(text)


@contextlib.contextmanager
def looking(size: tuple[int, int] = WIDE, *, dark: bool = False) -> Iterator[Looked]:
    """An empty page of a new Chromium without a window.

    Raises:
        NotFound: There is no Chromium.
    """
    from playwright.sync_api import sync_playwright

    program = chromium()
    if program is None:
        raise NotFound(f"none of {', '.join(NAMES)} is installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_arguments())
        try:
            width, height = size
            scheme: Any = "dark" if dark else "light"
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            yield Looked(page)
        finally:
            browser.close()


def enter(page: Page, address: str) -> None:
    """Open the address with the token, and wait for the page that it leads to."""
    page.goto(address)
    page.wait_for_url(address.partition("?")[0])


def _arguments() -> Sequence[str]:
    """Root has no sandbox; containers have a small /dev/shm."""
    return ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
