"""The page on testing, run as its readers will: by pytest, in a folder of their own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from imgkit.testing import canary
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[1] / "docs/test-your-image-code.md"


def test_file() -> str:
    """Return the blocks of the page that are for a test file, in their order."""
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text("utf-8"))
    return "from imgkit import ImageService\n\n" + "\n\n".join(one for one in blocks if "def test_" in one)


test_file.__test__ = False  # type: ignore[attr-defined]  # a helper with a telling name


def run(pytester: pytest.Pytester, *args: str) -> Any:
    return pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-W", "error", *args)


def script(line: Any) -> None:
    """Answer each town with a picture of its own."""
    assert json.loads(line.body)["model"] == "gpt-image-2"
    reply(200, answer(png(len(line.body))))(line)


def test_the_page(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline without cassettes; recorded from a server; replayed with the server gone."""
    pytester.makepyfile(test_posters=test_file())
    with WireServer(script) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", canary.KEY)
        first = run(pytester)
        first.assert_outcomes(passed=1, failed=1, errors=2)
        first.stdout.fnmatch_lines(["*there is no cassette*test_real_poster.yaml*--imgkit-record=once*"])
        assert server.accepted == 0
        run(pytester, "--imgkit-record=once", "--record-mode=once").assert_outcomes(passed=4)
        assert server.posts == 4
    monkeypatch.delenv("OPENAI_API_KEY")
    run(pytester, "--block-network").assert_outcomes(passed=4)
    run(pytester, "-n", "2").assert_outcomes(passed=4)
    assert canary.found_in(folders=[pytester.path]) == []
    source = (pytester.path / "test_posters.py").read_text()
    (pytester.path / "test_posters.py").write_text(source.replace('"Oslo"', '"Rome"'))
    missed = run(pytester)
    missed.assert_outcomes(passed=1, failed=3)
    (example,) = re.findall(r"(?m)^    (imgkit_body differs.*)$", PAGE.read_text("utf-8"))
    assert any(line.endswith(example) for line in missed.outlines)
