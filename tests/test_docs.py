"""Tests of README.md, CONTRIBUTING.md and docs/: code blocks run, links lead to files, prose wraps."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

from tests.support.processes import run_process

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*.py") if "build" not in path.parts)
LANGUAGES = {"python", "sh", "text"}
DOORS = {"imgkit"} | {f"imgkit.{room}" for room in ("plugins", "backends", "providers", "engines", "testing")}
"""The modules that users and plugin authors import from."""

MAINTAINER_PAGES = {ROOT / "docs/architecture.md", ROOT / "docs/performance.md"}
"""Pages about the inside of imgkit: they import from rooms and have lines of their own width."""

USER_PAGES = [path for path in PAGES if path not in MAINTAINER_PAGES]
PROSE_COLUMNS = 100


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run_python(example: Example) -> None:
    """Run a block in the namespace of its page, and keep the output for the next block."""
    output = io.StringIO()
    code = compile("\n" * example.line + str(example.parsed), str(example.path), "exec", dont_inherit=True)
    with contextlib.redirect_stdout(output):
        exec(code, example.namespace)
    example.namespace["__output__"] = output.getvalue()


def run_shell(example: Example) -> None:
    """Run a block with bash; every command must succeed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    process = run_process(
        ["bash", "-euc", str(example.parsed)],
        env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    example.namespace["__output__"] = process.stdout


def compare_output(example: Example) -> None:
    """Compare a text block with the output of the block before it; a diagram follows no block."""
    output = example.namespace.pop("__output__", None)
    if output is not None:
        assert output.strip() == str(example.parsed).strip()


def parse_page(path: Path, namespace: dict[str, Any]) -> Document:
    parsers = [
        CodeBlockParser("python", run_python),
        CodeBlockParser("sh", run_shell),
        CodeBlockParser("text", compare_output),
    ]
    document = Sybil(parsers, path=str(path.parent)).parse(path)
    document.namespace.update(namespace)
    return document


def find_imports(code: str) -> set[str]:
    """Return the modules of imgkit that a program imports."""
    modules = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return {module for module in modules if module.partition(".")[0] == "imgkit"}


def read_prose(path: Path) -> list[str]:
    """Return the lines of a page outside code blocks, tables, headings and images."""
    text = re.sub(r"(?ms)^```.*?^```$", "", path.read_text("utf-8"))
    return [line for line in text.splitlines() if not line.startswith(("|", "#", "![", "    "))]


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_code_blocks(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the blocks of a page in order, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    document = parse_page(path, {"__name__": "__docs__"})
    examples = list(document.examples())
    for example in examples:
        example.evaluate()
    fences = re.findall(r"(?m)^```(.*)$", path.read_text("utf-8"))[::2]
    assert set(fences) <= LANGUAGES
    assert len(fences) == len(examples)


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_links(path: Path) -> None:
    """Every relative link leads to a file and, with a fragment, to a heading of that file."""
    for target, fragment in re.findall(r"\]\(([^)#:]+)(?:#([^)]+))?\)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target
        if fragment:
            headings = re.findall(r"(?m)^#+ (.+)$", (path.parent / target).read_text("utf-8"))
            assert fragment in {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings}


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_no_link_leads_to_a_package_registry(path: Path) -> None:
    """Links lead to the pages of a project, not to PyPI."""
    assert not re.search(r"https?://(pypi\.org|pypi\.python\.org)", path.read_text("utf-8"))


@pytest.mark.parametrize("path", USER_PAGES, ids=page_id)
def test_code_blocks_import_from_the_doors(path: Path) -> None:
    """Code blocks import from the documented modules only."""
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```$", path.read_text("utf-8"))
    assert set().union(*map(find_imports, blocks)) <= DOORS


@pytest.mark.parametrize("path", EXAMPLES, ids=page_id)
def test_examples_import_from_the_doors(path: Path) -> None:
    """Example packages import from the documented modules only."""
    assert find_imports(path.read_text("utf-8")) <= DOORS


@pytest.mark.parametrize("door", sorted(DOORS - {"imgkit"}))
def test_doors_show_the_same_names_to_type_checkers(door: str) -> None:
    """Every name of a door loads, and the type-checking imports name the same objects."""
    module = import_module(door)
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    typed = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert typed == {name: f"{module._HOMES[name]}.{name}" for name in module.__all__}
    assert all(getattr(module, name) is not None for name in module.__all__)


@pytest.mark.parametrize("path", USER_PAGES, ids=page_id)
def test_prose_wraps(path: Path) -> None:
    """Lines of prose have at most 100 columns."""
    assert [line for line in read_prose(path) if len(line) > PROSE_COLUMNS] == []


def test_the_readme_is_short() -> None:
    """The README stays under 190 lines, and its first block runs offline."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) < 190
    assert "ImageService()" in text.split("```")[1]


def test_the_readme_begins_with_the_problem() -> None:
    """Before the first code block, the README has one paragraph of three sentences and no list."""
    _, _, opening = (ROOT / "README.md").read_text("utf-8").split("```")[0].partition("\n")
    assert len(re.findall(r"[.?!](?=\s)", opening)) == 3
    assert not re.search(r"(?m)^[-*|#]", opening)
