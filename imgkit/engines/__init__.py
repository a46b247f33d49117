"""The door for engine authors: what a worker of an engine calls, and the engines of imgkit.

An engine decides where the requests of a run are carried out. Runs find engines by their registered names.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgkit.engines.local import LocalEngine as LocalEngine
    from imgkit.engines.worker import carry_out_task as carry_out_task
    from imgkit.engines.worker import find_tasks as find_tasks

_EXPORTS = {
    "imgkit.engines.local": ("LocalEngine",),
    "imgkit.engines.worker": ("carry_out_task", "find_tasks"),
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(_import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
