"""Tests for plugin authors and users: contracts, a fault server, cassettes, sample replies.

Each contract is a class of pytest tests. Subclass a contract and return the object under test::

    from imgkit.testing import CacheStoreContract


    class TestMyStore(CacheStoreContract):
        def store(self, folder):
            return MyStore(folder)

pytest then runs the whole suite. The rest of the library imports nothing from this room.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from imgkit.testing.app_server import AppRequest as AppRequest
    from imgkit.testing.app_server import AppServer as AppServer
    from imgkit.testing.backend_contract import BackendContract as BackendContract
    from imgkit.testing.cache_store_contract import CacheStoreContract as CacheStoreContract
    from imgkit.testing.engine_contract import EngineContract as EngineContract
    from imgkit.testing.job_provider_contract import JobProviderContract as JobProviderContract
    from imgkit.testing.job_scripts import JobNews as JobNews
    from imgkit.testing.job_scripts import JobScript as JobScript
    from imgkit.testing.plugin_contract import PluginContract as PluginContract
    from imgkit.testing.provider_contract import ProviderContract as ProviderContract
    from imgkit.testing.samples import answer as answer
    from imgkit.testing.samples import png as png
    from imgkit.testing.scripted_jobs import ScriptedJobs as ScriptedJobs
    from imgkit.testing.service_cassettes import CassetteWarning as CassetteWarning
    from imgkit.testing.service_cassettes import cassette as cassette
    from imgkit.testing.streaming_provider_contract import (
        StreamingProviderContract as StreamingProviderContract,
    )
    from imgkit.testing.vcr_cassettes import register as register
    from imgkit.testing.vcr_cassettes import vcr_config as vcr_config
    from imgkit.testing.wire_server import CA_FILE as CA_FILE
    from imgkit.testing.wire_server import WireServer as WireServer
    from imgkit.testing.wire_server import reply as reply
    from imgkit.testing.wire_server import serve_fake as serve_fake

_EXPORTS = {
    "imgkit.testing.app_server": (
        "AppRequest",
        "AppServer",
    ),
    "imgkit.testing.backend_contract": ("BackendContract",),
    "imgkit.testing.cache_store_contract": ("CacheStoreContract",),
    "imgkit.testing.engine_contract": ("EngineContract",),
    "imgkit.testing.service_cassettes": (
        "CassetteWarning",
        "cassette",
    ),
    "imgkit.testing.vcr_cassettes": (
        "register",
        "vcr_config",
    ),
    "imgkit.testing.job_provider_contract": ("JobProviderContract",),
    "imgkit.testing.plugin_contract": ("PluginContract",),
    "imgkit.testing.provider_contract": ("ProviderContract",),
    "imgkit.testing.streaming_provider_contract": ("StreamingProviderContract",),
    "imgkit.testing.job_scripts": (
        "JobNews",
        "JobScript",
    ),
    "imgkit.testing.scripted_jobs": ("ScriptedJobs",),
    "imgkit.testing.samples": (
        "answer",
        "png",
    ),
    "imgkit.testing.wire_server": (
        "CA_FILE",
        "WireServer",
        "reply",
        "serve_fake",
    ),
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(_import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in ("pytest", "vcr"):
            raise
        raise ImportError(
            f"imgkit.testing.{name} needs {error.name}, which is not installed. "
            "Run: pip install 'imgkit-service[testing]'"
        ) from error


def __dir__() -> list[str]:
    return __all__
