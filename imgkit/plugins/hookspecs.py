"""What a plugin may implement.

A plugin is any object or module with functions marked by `hookimpl`. Hooks are synchronous and never
block; a parameter that is not needed may be left out of the implementation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pluggy

from imgkit.models import Estimator, unknown_estimate

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from imgkit.models import HostClass, ImageRequest
    from imgkit.plugins.events import Call, Event, Outcome
    from imgkit.plugins.protocols import CacheStore, Ledger, Recorder
    from imgkit.plugins.tokens import TokenNeeded
    from imgkit.wire.messages import HttpRequest

hookspec = pluggy.HookspecMarker("imgkit")
hookimpl = pluggy.HookimplMarker("imgkit")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """A backend that can be asked for by name.

    Attributes:
        name: such as "requests".
        target: ``"module:Class"``, imported when a service is built with it. The class takes a
            `imgkit.wire.messages.BackendOptions` and implements `Backend` or `AsyncBackend`.
        flavor: "sync" for a `Backend`, "async" for an `AsyncBackend`.
        reaches_network: False for one that answers by itself: it needs no key and costs nothing.
        checks_peer: it refuses peers as `HttpRequest.public_peer_only` asks; otherwise result URLs
            are fetched from the API's own origin only.
        summary: one line for listings.
        install: how to get what it needs, for the message when its import fails.
    """

    name: str
    target: str
    flavor: Literal["sync", "async"]
    reaches_network: bool = True
    checks_peer: bool = False
    summary: str = ""
    install: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSpec:
    """A provider that can be asked for by name.

    Attributes:
        name: such as "openai".
        target: ``"module:Class"``, imported when a service is built with it. The class takes nothing
            and implements `imgkit.providers.base.Provider`.
        summary: one line for listings.
        install: how to get what it needs.
    """

    name: str
    target: str
    summary: str = ""
    install: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSpec:
    """A plugin that can be asked for by name: ``plugins=["logging"]``.

    Attributes:
        name: such as "logging".
        target: ``"module:Class"`` or ``"module:function"``, imported and called without arguments when
            a service is built with it; what it returns is the plugin.
        summary: one line for listings.
        install: how to get what it needs.
    """

    name: str
    target: str
    summary: str = ""
    install: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """What a service is built with, as far as plugins that keep something need to know. No secret in it.

    Attributes:
        backend, provider: their names.
        base_url: where the API is.
        host_class: "official", "compatible" or "offline".
        model: used where a request names none.
        timeout_s: total seconds that a call may take.
        state_folder: where imgkit keeps things between processes, None if it is to keep nothing.
        estimate: returns what a request may cost, all its pictures together; its second argument is how many
            partial pictures are wanted (``call.partial_images``).
    """

    backend: str
    provider: str
    base_url: str
    host_class: HostClass
    model: str | None
    timeout_s: float
    state_folder: Path | None
    estimate: Estimator = unknown_estimate


class Hooks:
    """The hooks, one method each. Collecting ones are called when plugins are loaded."""

    @hookspec
    def imgkit_backends(self) -> Iterable[BackendSpec]:
        """Return the backends that the plugin offers (collected from all plugins)."""
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_providers(self) -> Iterable[ProviderSpec]:
        """Return the providers that the plugin offers (collected from all plugins)."""
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_plugins(self) -> Iterable[PluginSpec]:
        """Return the plugins that can be asked for by name (collected from all plugins)."""
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_cache(self, settings: ServiceSettings) -> CacheStore | None:
        """Return where replies are kept, or None (the first answer counts); asked when a service is built.

        Args:
            settings: of the service.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_ledger(self, settings: ServiceSettings) -> Ledger | None:
        """Return what keeps account of calls, or None (collected); asked when a service is built.

        Args:
            settings: of the service.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_recorder(self, settings: ServiceSettings) -> Recorder | None:
        """Return what keeps requests and replies, or None (collected); asked when a service is built.

        Args:
            settings: of the service.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_commands(self, group: click.Group) -> Iterable[click.Command]:
        """Return commands to be added to `imgkit` (collected from the installed plugins).

        Called when the command line is given a command that is not imgkit's own.

        Args:
            group: the command `imgkit`.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_prepare(self, request: ImageRequest, call: Call) -> ImageRequest | None:
        """Return a changed request, or None to leave it (each plugin gets what the last one made).

        Args:
            request: checked and normalised; frozen, so change it with `dataclasses.replace`.
            call: the call.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_before_send(self, request: HttpRequest, call: Call) -> HttpRequest | None:
        """Return the request with other headers, or None to leave it; nothing else may change.

        Args:
            request: complete but for credentials; change it with `dataclasses.replace`.
            call: the call.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_authenticate(self, request: HttpRequest, call: Call) -> HttpRequest | TokenNeeded | None:
        """Return the request with credentials among its headers, or None (the first answer counts).

        Called for requests to the origin of ``call.base_url`` only, last of all, on each sending. A plugin
        that must wait for a token first returns a `TokenNeeded`.

        Args:
            request: what will be sent.
            call: the call.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_retry_wait(self, outcome: Outcome, call: Call) -> float | None:
        """Return the seconds to wait before the request is sent again, or None (the first answer counts).

        Called after each failure of a sending. A negative number means: give up, and ask nobody else.
        If no plugin answers, the call ends with the failure.

        Args:
            outcome: what is known of the failure, above all whether it may have been billed.
            call: the call.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_on_event(self, event: Event, call: Call) -> None:
        """Look at what happens. An observer that fails costs one warning, never a picture.

        Args:
            event: one of the classes of `imgkit.plugins.events`.
            call: the call.
        """
        raise AssertionError("a specification is not called")
