"""Every code block of README and docs/ runs, in order, and prints what the page says."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
LANGUAGES = {"python", "sh", "text"}


def run_python(example: Example) -> None:
    """Run a block in the page's namespace and keep what it prints."""
    shown = io.StringIO()
    code = compile("\n" * example.line + str(example.parsed), str(example.path), "exec", dont_inherit=True)
    with contextlib.redirect_stdout(shown):
        exec(code, example.namespace)
    example.namespace["__shown__"] = shown.getvalue()


def run_shell(example: Example) -> None:
    """Run a block with bash; each command must succeed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", str(example.parsed)],
        env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    example.namespace["__shown__"] = done.stdout


def compare(example: Example) -> None:
    """Compare a text block with what the block before it printed; diagrams follow no block."""
    shown = example.namespace.pop("__shown__", None)
    if shown is not None:
        assert shown.strip() == str(example.parsed).strip()


def page(path: Path, namespace: dict[str, Any]) -> Document:
    parsers = [
        CodeBlockParser("python", run_python),
        CodeBlockParser("sh", run_shell),
        CodeBlockParser("text", compare),
    ]
    document = Sybil(parsers, path=str(path.parent)).parse(path)
    document.namespace.update(namespace)
    return document


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_blocks(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run in order in an empty folder."""
    monkeypatch.chdir(tmp_path)
    document = page(path, {"__name__": "__docs__"})
    examples = list(document.examples())
    for example in examples:
        example.evaluate()
    fences = re.findall(r"(?m)^```(.*)$", path.read_text("utf-8"))[::2]
    assert set(fences) <= LANGUAGES
    assert len(fences) == len(examples)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(path: Path) -> None:
    """Every relative link leads to a file that is there."""
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


def test_the_readme_is_short() -> None:
    """The README stays under 150 lines, and its first block runs offline."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) < 150
    assert "ImageService()" in text.split("```")[1]
