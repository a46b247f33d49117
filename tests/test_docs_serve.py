"""docs/serve.md: its tables agree with the server, and its tests run as those of its readers do."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from imgkit.cli.serve_command import build_serve_command
from imgkit.server import arriving_bodies, envelopes, frames, received_bodies, silent_clients
from imgkit.server.envelopes import _CODES
from imgkit.server.served_service import IN_MEMORY_BYTES
from imgkit.server.settings import TOKEN_VARIABLE, ServerSettings
from imgkit.server.silent_clients import WRITE_S
from imgkit.testing import WireServer, answer, canary, reply
from tests.support.nested_pytest import run_pytest

pytest_plugins = ["pytester"]

PAGE = (Path(__file__).parents[1] / "docs/serve.md").read_text("utf-8")


def read_section(title: str) -> str:
    """Return the text of a section of the page."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def read_rows(title: str) -> list[list[str]]:
    """Return the cells of the table of a section."""
    lines = re.findall(r"(?m)^\|(.+)\|$", read_section(title))
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


def test_lists_the_options_of_the_command_and_their_defaults() -> None:
    """Names each option of the server itself, with the default that the command has."""
    options = {
        option.opts[0]: option
        for option in build_serve_command().params
        if isinstance(option, click.Option) and option.opts[0].startswith("--")
    }
    rows = {cells[0].strip("`"): cells[1].strip("`") for cells in read_rows("Options")}
    own = list(options)[: list(options).index("--max-cost") + 1]
    assert list(rows) == own
    for name, default in rows.items():
        given = options[name].default
        if default in ("none", "off", "no limit", "IMGKIT_MODEL", TOKEN_VARIABLE):
            assert not isinstance(given, str | int | float) or given is False, name
        else:
            assert float(default) == given if default.isdecimal() else default == given, name


def test_lists_the_statuses_of_the_server() -> None:
    """Gives each status and code that the server has for an error of imgkit."""
    listed = {(cells[0], code) for cells in read_rows("Errors") for code in re.findall(r"`(\w+)`", cells[1])}
    for status, code, _ in _CODES.values():
        assert (str(status), code) in listed or code == "api_error", code
    assert envelopes.MAYBE_BILLED == 424


def test_lists_the_limits_of_the_server() -> None:
    """Gives the limits that the server has."""
    limits = dict(read_rows("Limits"))
    settings = ServerSettings()
    assert limits["whole body"].startswith(f"{settings.max_body_bytes >> 20} MiB")
    assert limits["texts of a body, images left out"] == f"{received_bodies.MAX_TEXT_BYTES >> 20} MiB"
    uploads = limits["images of all requests on the disk"]
    assert uploads.startswith(f"{settings.max_uploads_bytes >> 30} GiB,")
    assert limits["parts of a form, values of a JSON body"] == (
        f"{received_bodies.MOST_FIELDS}, {received_bodies.MOST_VALUES}"
    )
    assert limits["time for the head"] == f"{silent_clients.HEAD_S:g} seconds"
    assert limits["silence within a body"].startswith(f"{arriving_bodies.READ_S:g} seconds")
    assert arriving_bodies.LEAST_BYTES_PER_S == 1024
    size = f"{frames.BLOCK_BYTES * 4 // 3 >> 10} KiB"
    assert limits[f"time in which a client must read the next {size} of a reply"] == f"{WRITE_S:g} seconds"
    assert silent_clients.UNREAD_S == WRITE_S
    assert limits["connections that wait for a request"].startswith(f"{silent_clients.MOST_SILENT},")
    assert f"more than {IN_MEMORY_BYTES >> 10} KiB" in read_section("Limits")
    assert f"last\n  {settings.repeat_s:g} seconds" in read_section("Repeated requests are joined")
    assert settings.link_s == 3600


def test_the_tests_of_the_page(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paints offline, records through the server with a key, and replays when the API is gone."""
    [block] = re.findall(r"(?ms)^```python\n(.*?)^```", read_section("In tests"))
    pytester.makepyfile(f"import base64\nfrom openai import OpenAI\n\n{block}")
    with WireServer(reply(200, answer())) as api:
        monkeypatch.setenv("OPENAI_BASE_URL", api.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", canary.KEY)
        run_pytest(pytester, "--imgkit-record=once").assert_outcomes(passed=2)
        assert api.posts == 1
    monkeypatch.delenv("OPENAI_API_KEY")
    run_pytest(pytester).assert_outcomes(passed=2)
    assert canary.find_secret(folders=[pytester.path]) == []
