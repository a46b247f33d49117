"""The examples in docstrings run, and editors complete the names that they use."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import jedi
import pytest

import imgkit

ROOT = Path(imgkit.__file__).parents[1]
NOT_IMPORTABLE_ALONE = {"imgkit.__main__"}
"""Importing it runs the command."""

SHOWN_BY = {"imgkit.errors": ("after_sending", "before_sending", "from_apis", "root")}
"""Packages whose modules only hold their parts: the package runs the examples of these."""

MODULES = sorted(
    {module.name for module in pkgutil.walk_packages(imgkit.__path__, "imgkit.")} - NOT_IMPORTABLE_ALONE
)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def has_examples(module: str) -> bool:
    package, _, name = module.rpartition(".")
    if name in SHOWN_BY.get(package, ()):
        return False
    if module in SHOWN_BY:
        return True
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ">>>" in file.read_text("utf-8")


@pytest.mark.parametrize("module", ["imgkit", *filter(has_examples, MODULES)])
def test_the_examples_of_a_module_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs every example in the docstrings of a module, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(importlib.import_module(module), optionflags=OPTIONS)
    assert results.attempted
    assert results.failed == 0


COMPLETIONS = {
    "names of the package": ("import imgkit\nimgkit.", {"ImageService", "AsyncImageService", "RetryPlugin"}),
    "names of a door": ("import imgkit.plugins\nimgkit.plugins.", {"hookimpl", "Call", "BackendSpec"}),
    "operations": (
        "from imgkit import ImageService\nImageService().",
        {"create_image", "create_image_edit", "create_image_variation", "stream_image", "dry_run"},
    ),
    "parameters": (
        "from imgkit import ImageService\nImageService().create_image('a fox', ",
        {"model=", "size=", "save_to=", "timeout_s="},
    ),
    "a response": (
        "from imgkit import ImageService\nImageService().create_image('a fox').",
        {"images", "usage", "cost", "warnings"},
    ),
    "an image": (
        "from imgkit import ImageService\nImageService().create_image('a fox')[0].",
        {"save", "data", "width"},
    ),
    "an awaited response": (
        "from imgkit import AsyncImageService\nasync def main():\n"
        "    async with AsyncImageService() as images:\n"
        "        response = await images.create_image_edit('a.png', 'blue')\n        response.",
        {"images", "usage", "cost", "warnings"},
    ),
    "a stream": (
        "from imgkit import ImageService\nwith ImageService().stream_image('a fox') as events:\n    events.",
        {"response", "close"},
    ),
}


@pytest.mark.parametrize("name", COMPLETIONS)
def test_editors_complete_names_parameters_and_results(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Completes statically in jedi, which Jupyter and many editors use."""
    monkeypatch.setattr(jedi.settings, "cache_directory", str(tmp_path))  # workers must not share it
    source, expected = COMPLETIONS[name]
    lines = source.splitlines()
    script = jedi.Script(source, path=ROOT / "example.py", project=jedi.Project(ROOT))
    found = {completion.name for completion in script.complete(len(lines), len(lines[-1]))}
    assert expected <= found
