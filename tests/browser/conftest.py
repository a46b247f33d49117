"""Fixtures: a Chromium, servers, and pages that must load nothing from elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.support.processes import ChildProcesses, child_processes

expect.set_options(timeout=20_000)  # a busy machine is slow to start servers and to paint

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


def start_server(children: ChildProcesses, home: Path, *options: str, **environment: str) -> str:
    """Start `imgkit serve`, and return its origin, which is its first line of output."""
    command = [sys.executable, "-m", "imgkit", "serve", "--port", "0", *options]
    variables = os.environ | {"IMGKIT_HOME": str(home)} | environment
    server = children.start(command, stdout=PIPE, text=True, env=variables)
    assert server.stdout is not None
    return str(server.stdout.readline().strip())


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A function that starts a server with options, and returns its origin."""
    with child_processes() as children:
        yield partial(start_server, children, tmp_path)


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of a server without options, which many tests use."""
    with child_processes() as children:
        yield start_server(children, tmp_path_factory.mktemp("home"))


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
