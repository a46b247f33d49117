"""Tests that imgkit offers to others: contracts for what plugins supply, and a server that fails as told.

Each contract is a class of tests for pytest. Subclass it in a test file, say what is to be tested, and get
the whole suite::

    from imgkit.testing import CacheStoreContract


    class TestMine(CacheStoreContract):
        def store(self, folder):
            return MyStore(folder)
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from imgkit.testing.backend import BackendContract as BackendContract
    from imgkit.testing.cache_store import CacheStoreContract as CacheStoreContract
    from imgkit.testing.cassettes import cassette as cassette
    from imgkit.testing.cassettes import vcr_config as vcr_config
    from imgkit.testing.plugin import PluginContract as PluginContract
    from imgkit.testing.provider import ProviderContract as ProviderContract
    from imgkit.testing.provider_streams import StreamingProviderContract as StreamingProviderContract
    from imgkit.testing.wire_server import WireServer as WireServer

_HOME = {
    "BackendContract": "backend",
    "CacheStoreContract": "cache_store",
    "PluginContract": "plugin",
    "ProviderContract": "provider",
    "StreamingProviderContract": "provider_streams",
    "WireServer": "wire_server",
    "cassette": "cassettes",
    "vcr_config": "cassettes",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'imgkit.testing' has no attribute {name!r}")
    try:
        return getattr(_import_module(f"imgkit.testing.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("pytest", "vcr"):
            raise
        raise ImportError(
            f"imgkit.testing.{name} needs {error.name}: pip install 'imgkit-service[testing]'"
        ) from error
