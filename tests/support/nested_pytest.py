"""pytest within a test: in this process where possible, because a process takes seconds to start."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

import httpcore
import pytest
import yaml

import imgkit

TIMEOUT_S = 60
OPTIONS = ("-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-W", "error")
"""Hypothesis takes half of the time in which pytest starts."""

_ = (yaml.CSafeDumper, httpcore.RemoteProtocolError)
"""Loaded before pytester notes the modules to keep: PyYAML's C part works with the first copy only, and httpx
knows the errors of the first copy only."""


def run_pytest(pytester: pytest.Pytester, *args: str) -> Any:
    """Run pytest in this process, with warnings as errors."""
    import_all_modules()
    return pytester.runpytest_inprocess(*OPTIONS, *args)


def start_pytest(pytester: pytest.Pytester, *args: str) -> Any:
    """Run pytest in a subprocess, with warnings as errors."""
    return pytester.runpytest_subprocess(*OPTIONS, *args, timeout=TIMEOUT_S)


@cache
def import_all_modules() -> None:
    """Import all of imgkit. pytester forgets the modules that a run imports, but the rest keeps them."""
    for module in pkgutil.walk_packages(imgkit.__path__, "imgkit."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    importlib.import_module("tests.support.wire_backends")
