"""Fixtures: a Chromium, servers, and pages that must load nothing from elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.support.processes import start_process

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")

Serve = Callable[..., str]
Visit = Callable[..., Page]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A Chromium of this machine, without a window."""
    path = next((path for path in map(shutil.which, CHROMIUMS) if path), None)
    assert path, "No Chromium is installed: see `make browser`."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """A function that starts `imgkit serve` with options, and returns its origin."""

    def start(*options: str, **environment: str) -> str:
        command = [sys.executable, "-m", "imgkit", "serve", "--port", "0", *options]
        variables = os.environ | {"IMGKIT_HOME": str(tmp_path / "home")} | environment
        server = start_process(command, stdout=PIPE, text=True, env=variables)
        assert server.stdout is not None
        return server.stdout.readline().strip().removesuffix("/v1").removesuffix("/")

    return start


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    """A function that opens the page of a server in a new context.

    When the test ends, each page has requested addresses of its server only, and has logged nothing but
    requests that failed.
    """
    visits: list[tuple[str, Page, list[str], list[str]]] = []

    def open_page(origin: str, **options: Any) -> Page:
        page = chromium.new_context(**options).new_page()
        addresses: list[str] = []
        problems: list[str] = []

        def log(message: ConsoleMessage) -> None:
            if not message.text.startswith("Failed to load resource: "):
                problems.append(message.text)

        page.context.on("request", lambda request: addresses.append(request.url))
        page.on("console", log)
        page.on("pageerror", lambda error: problems.append(str(error)))
        visits.append((origin, page, addresses, problems))
        page.goto(f"{origin}/")
        return page

    yield open_page
    for origin, page, addresses, problems in visits:
        page.context.close()
        assert addresses
        assert not [url for url in addresses if not url.startswith((f"{origin}/", f"blob:{origin}/"))]
        assert problems == []
