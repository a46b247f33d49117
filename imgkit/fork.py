"""Callbacks that run in forked child processes.

This module imports nothing else of imgkit.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


def run_in_forked_children(callback: Callable[[], object]) -> None:
    """Register a callback for each child that this process forks. Does nothing where fork is missing.

    Callbacks run in the order of their registration and stay registered forever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=callback)


class ForkRegistry(Generic[T]):
    """A weak set of objects to reset in each forked child.

    Example::

        >>> class Store:
        ...     def reset(self) -> None: ...
        >>> stores = ForkRegistry(Store.reset)
        >>> store = Store()
        >>> stores.add(store)

    Args:
        reset: receives each object that is still alive, in the child.
    """

    def __init__(self, reset: Callable[[T], object]) -> None:
        self._objects: weakref.WeakSet[T] = weakref.WeakSet()
        self._reset = reset
        run_in_forked_children(self._reset_all)

    def add(self, item: T) -> None:
        """Reset `item` in children that are forked from now on."""
        self._objects.add(item)

    def _reset_all(self) -> None:
        for item in list(self._objects):
            self._reset(item)
