"""Run docs/test-your-image-code.md as its readers do: with pytest, in a folder of their own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from imgkit.testing import WireServer, answer, canary, png, reply
from tests.support.nested_pytest import run_pytest

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[1] / "docs/test-your-image-code.md"


def build_test_file() -> str:
    """Return a test module made of the blocks of the page that define tests, in their order."""
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text("utf-8"))
    return "from imgkit import ImageService\n\n" + "\n\n".join(
        block for block in blocks if "def test_" in block
    )


def script(line: Any) -> None:
    """Reply to each town with a different image."""
    assert json.loads(line.body)["model"] == "gpt-image-2"
    reply(200, answer(png(len(line.body))))(line)


def test_the_page(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs offline without cassettes, records from a server, and replays when the server is gone."""
    pytester.makepyfile(test_posters=build_test_file())
    with WireServer(script) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", canary.KEY)
        unrecorded = run_pytest(pytester)
        unrecorded.assert_outcomes(passed=1, failed=1, errors=2)
        unrecorded.stdout.fnmatch_lines(["*There is no cassette*test_real_poster.yaml*--imgkit-record=once*"])
        assert server.accepted == 0
        run_pytest(pytester, "--imgkit-record=once", "--record-mode=once").assert_outcomes(passed=4)
        assert server.posts == 4
    monkeypatch.delenv("OPENAI_API_KEY")
    run_pytest(pytester, "--block-network").assert_outcomes(passed=4)
    run_pytest(pytester, "-n", "2").assert_outcomes(passed=4)
    assert canary.find_secret(folders=[pytester.path]) == []
    source = (pytester.path / "test_posters.py").read_text()
    (pytester.path / "test_posters.py").write_text(source.replace('"Oslo"', '"Rome"'))
    changed = run_pytest(pytester)
    changed.assert_outcomes(passed=1, failed=3)
    (example,) = re.findall(r"(?m)^    (imgkit_body differs.*)$", PAGE.read_text("utf-8"))
    assert any(line.endswith(example) for line in changed.outlines)
