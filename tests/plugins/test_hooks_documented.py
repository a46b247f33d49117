"""Every hook is documented with its exact parameters, and tested."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from imgkit.plugins.hookspecs import Hooks

HERE = Path(__file__).parents[1]
HOOKS = [name for name in vars(Hooks) if name.startswith("imgkit_")]


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_has_its_heading(name: str) -> None:
    """The plugin page has a heading with the name and parameters of each hook."""
    parameters = list(inspect.signature(getattr(Hooks, name)).parameters)[1:]
    page = (HERE.parent / "docs" / "write-a-plugin.md").read_text("utf-8")
    assert f"\n### {name}({', '.join(parameters)})\n" in page


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_has_a_test(name: str) -> None:
    """At least one test implements each hook."""
    tests = [path.read_text("utf-8") for path in HERE.rglob("test_*.py") if path != Path(__file__)]
    assert any(f"def {name}(" in text or f".{name} = " in text for text in tests)


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_describes_its_parameters(name: str) -> None:
    """The docstring of each hook describes each parameter."""
    hook = getattr(Hooks, name)
    for parameter in list(inspect.signature(hook).parameters)[1:]:
        assert f"{parameter}:" in (hook.__doc__ or "")
