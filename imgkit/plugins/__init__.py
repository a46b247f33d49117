"""The door for plugin authors: hooks, events, and the protocols that plugins implement.

The room holds hook specifications and the registry. It knows no backend, no provider and no default plugin.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgkit.plugins.engines import Engine as Engine
    from imgkit.plugins.engines import EngineHost as EngineHost
    from imgkit.plugins.engines import EngineTask as EngineTask
    from imgkit.plugins.events import CacheHit as CacheHit
    from imgkit.plugins.events import Call as Call
    from imgkit.plugins.events import Cancelled as Cancelled
    from imgkit.plugins.events import Event as Event
    from imgkit.plugins.events import Failed as Failed
    from imgkit.plugins.events import FirstByte as FirstByte
    from imgkit.plugins.events import JobProgress as JobProgress
    from imgkit.plugins.events import Outcome as Outcome
    from imgkit.plugins.events import Progress as Progress
    from imgkit.plugins.events import Retrying as Retrying
    from imgkit.plugins.events import Sent as Sent
    from imgkit.plugins.events import Started as Started
    from imgkit.plugins.events import Succeeded as Succeeded
    from imgkit.plugins.hookspecs import BackendSpec as BackendSpec
    from imgkit.plugins.hookspecs import EngineSpec as EngineSpec
    from imgkit.plugins.hookspecs import PluginSpec as PluginSpec
    from imgkit.plugins.hookspecs import ProviderSpec as ProviderSpec
    from imgkit.plugins.hookspecs import ServiceSettings as ServiceSettings
    from imgkit.plugins.hookspecs import hookimpl as hookimpl
    from imgkit.plugins.protocols import Busy as Busy
    from imgkit.plugins.protocols import CacheStore as CacheStore
    from imgkit.plugins.protocols import DeferrableReservation as DeferrableReservation
    from imgkit.plugins.protocols import Entry as Entry
    from imgkit.plugins.protocols import Exchanged as Exchanged
    from imgkit.plugins.protocols import Failure as Failure
    from imgkit.plugins.protocols import Guard as Guard
    from imgkit.plugins.protocols import Hit as Hit
    from imgkit.plugins.protocols import JobLedger as JobLedger
    from imgkit.plugins.protocols import Lease as Lease
    from imgkit.plugins.protocols import LeaseResult as LeaseResult
    from imgkit.plugins.protocols import Ledger as Ledger
    from imgkit.plugins.protocols import NonblockingLedger as NonblockingLedger
    from imgkit.plugins.protocols import NonblockingReservation as NonblockingReservation
    from imgkit.plugins.protocols import Recorder as Recorder
    from imgkit.plugins.protocols import ReplyKeeper as ReplyKeeper
    from imgkit.plugins.protocols import Reservation as Reservation
    from imgkit.plugins.protocols import SentMarks as SentMarks
    from imgkit.plugins.protocols import SharingReservation as SharingReservation
    from imgkit.plugins.protocols import Sink as Sink
    from imgkit.plugins.tokens import Token as Token
    from imgkit.plugins.tokens import TokenNeeded as TokenNeeded
    from imgkit.plugins.tokens import TokenSource as TokenSource
    from imgkit.redact import Secret as Secret
    from imgkit.wire.messages import Head as Head
    from imgkit.wire.messages import HttpRequest as HttpRequest

_EXPORTS = {
    "imgkit.plugins.engines": ("Engine", "EngineHost", "EngineTask"),
    "imgkit.plugins.events": (
        "CacheHit",
        "Call",
        "Cancelled",
        "Event",
        "Failed",
        "FirstByte",
        "JobProgress",
        "Outcome",
        "Progress",
        "Retrying",
        "Sent",
        "Started",
        "Succeeded",
    ),
    "imgkit.plugins.hookspecs": (
        "BackendSpec",
        "EngineSpec",
        "PluginSpec",
        "ProviderSpec",
        "ServiceSettings",
        "hookimpl",
    ),
    "imgkit.plugins.protocols": (
        "Busy",
        "CacheStore",
        "DeferrableReservation",
        "Entry",
        "Exchanged",
        "Failure",
        "Guard",
        "Hit",
        "JobLedger",
        "Lease",
        "LeaseResult",
        "Ledger",
        "NonblockingLedger",
        "NonblockingReservation",
        "Recorder",
        "ReplyKeeper",
        "Reservation",
        "SentMarks",
        "SharingReservation",
        "Sink",
    ),
    "imgkit.plugins.tokens": (
        "Token",
        "TokenNeeded",
        "TokenSource",
    ),
    "imgkit.redact": ("Secret",),
    "imgkit.wire.messages": (
        "Head",
        "HttpRequest",
    ),
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(_import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
