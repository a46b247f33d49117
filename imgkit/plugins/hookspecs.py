"""The hooks that a plugin may implement.

A plugin is any object or module with functions marked by `hookimpl`. Hooks are synchronous and never
block. An implementation may leave out parameters that it does not use.

>>> from imgkit import ImageService, hookimpl
>>> from dataclasses import replace
>>> class HouseStyle:
...     @hookimpl
...     def imgkit_prepare(self, request):
...         return replace(request, prompt=f"{request.prompt}, watercolor")
>>> with ImageService(plugins=[HouseStyle]) as images:
...     images.create_image("a fox", size="64x64")[0].about["prompt"]
'a fox, watercolor'
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import pluggy

from imgkit.models import Estimator, unknown_estimate

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from imgkit.models import HostClass, ImageRequest
    from imgkit.plugins.events import Call, Event, Outcome
    from imgkit.plugins.protocols import CacheStore, Guard, Ledger, Recorder, Sink
    from imgkit.plugins.tokens import TokenNeeded
    from imgkit.wire.messages import HttpRequest

hookspec = pluggy.HookspecMarker("imgkit")
hookimpl = pluggy.HookimplMarker("imgkit")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """A backend that users select by name.

    >>> from imgkit.plugins import BackendSpec
    >>> BackendSpec(name="acme", target="acme_http:AcmeBackend", flavor="sync").reaches_network
    True

    Attributes:
        name: such as "requests".
        target: ``"module:Class"``, imported when a service is built with it. The class takes an
            `imgkit.backends.BackendOptions` and implements `Backend` or `AsyncBackend`.
        flavor: "sync" for a `Backend`, "async" for an `AsyncBackend`.
        reaches_network: False for a backend that answers by itself: it needs no key and costs nothing.
        checks_peer: it refuses peers as `HttpRequest.public_peer_only` asks. Without that, result URLs
            are fetched from the API's own origin only.
        summary: one line for listings.
        install: command that installs its requirements, for the error of a failed import.
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
    """A provider that users select by name.

    >>> from imgkit.plugins import ProviderSpec
    >>> ProviderSpec(name="acme", target="acme_images:AcmeProvider").name
    'acme'

    Attributes:
        name: such as "openai".
        target: ``"module:Class"``, imported when a service is built with it. The class takes no arguments
            and implements `imgkit.providers.Provider`.
        summary: one line for listings.
        install: command that installs its requirements.
    """

    name: str
    target: str
    summary: str = ""
    install: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSpec:
    """A plugin that users select by name: ``plugins=["logging"]``.

    >>> from imgkit.plugins import PluginSpec
    >>> PluginSpec(name="house-style", target="acme_style:HouseStyle").name
    'house-style'

    Attributes:
        name: such as "logging".
        target: ``"module:Class"`` or ``"module:function"``, imported and called without arguments when a
            service is built with it. The result is the plugin.
        summary: one line for listings.
        install: command that installs its requirements.
    """

    name: str
    target: str
    summary: str = ""
    install: str = ""


class EngineSpec(NamedTuple):
    """An engine that users select by name: ``images.bulk(…, engine="dask")``.

    >>> from imgkit.plugins import EngineSpec
    >>> EngineSpec(name="acme", target="acme_engine:AcmeEngine").name
    'acme'

    Attributes:
        name: such as "local".
        target: ``"module:Class"``, imported when a run is built with it. The class takes the engine's options
            as keywords and implements `imgkit.plugins.Engine`.
        summary: one line for listings.
        install: command that installs its requirements.
    """

    name: str
    target: str
    summary: str = ""
    install: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """The settings of a service that plugins with resources need. It holds no secret.

    Attributes:
        backend, provider: their names.
        base_url: root of the API.
        host_class: "official", "compatible" or "offline".
        model: model of requests that name none.
        timeout_s: seconds that a whole call may take.
        state_folder: folder for data that outlives the process, None to keep nothing.
        estimate: returns the bounds of a request's cost, for all its images. The second argument is the
            number of partial images (``call.partial_images``).
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
    """The hooks, one method each. Collecting hooks are called when plugins are loaded."""

    @hookspec
    def imgkit_backends(self) -> Iterable[BackendSpec]:
        """Return the backends of the plugin. Collected from all plugins."""
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_providers(self) -> Iterable[ProviderSpec]:
        """Return the providers of the plugin. Collected from all plugins."""
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_plugins(self) -> Iterable[PluginSpec]:
        """Return plugins that users select by name. Collected from all plugins."""
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_engines(self) -> Iterable[EngineSpec]:
        """Return the engines of the plugin. Collected from all plugins."""
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_cache(self, settings: ServiceSettings) -> CacheStore | None:
        """Return the store of the cache, or None. The first result counts; called per service.

        Args:
            settings: the settings of the service.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_ledger(self, settings: ServiceSettings) -> Ledger | None:
        """Return a ledger of calls, or None. Collected from all plugins; called per service.

        Args:
            settings: the settings of the service.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_recorder(self, settings: ServiceSettings) -> Recorder | None:
        """Return a recorder of requests and replies, or None. Collected; called per service.

        Args:
            settings: the settings of the service.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_sinks(self, settings: ServiceSettings) -> Iterable[Sink] | None:
        """Return objects that receive every response, or None. Collected; called per service.

        Args:
            settings: the settings of the service.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_guards(self, settings: ServiceSettings) -> Iterable[Guard] | None:
        """Return objects that may refuse a request before it is sent, or None. Collected; called per service.

        Args:
            settings: the settings of the service.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_commands(self, group: click.Group) -> Iterable[click.Command]:
        """Return commands for the command line. Collected from the installed plugins.

        The command line calls it for a command that is not its own.

        Args:
            group: the command `imgkit`.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_prepare(self, request: ImageRequest, call: Call) -> ImageRequest | None:
        """Return a changed request, or None to leave it. Each plugin gets the result of the one before.

        Args:
            request: validated, normalized and frozen; change it with `dataclasses.replace`.
            call: the call.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_before_send(self, request: HttpRequest, call: Call) -> HttpRequest | None:
        """Return the request with other headers, or None to leave it. Nothing else may change.

        Args:
            request: complete but for credentials; change it with `dataclasses.replace`.
            call: the call.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_authenticate(self, request: HttpRequest, call: Call) -> HttpRequest | TokenNeeded | None:
        """Return the request with credentials in its headers, or None. The first result counts.

        imgkit calls it last, for every attempt, and only for requests to the origin of
        ``call.base_url``. A plugin that must fetch a token first returns a `TokenNeeded`.

        Args:
            request: the request as it will be sent.
            call: the call.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_retry_wait(self, outcome: Outcome, call: Call) -> float | None:
        """Return the seconds to wait before the next attempt, or None. The first result counts.

        imgkit calls it after every failed attempt. A negative number ends the call and asks no further
        plugin. Without a result the call ends with the failure.

        Args:
            outcome: the failed attempt, above all whether it may have been billed.
            call: the call.
        """
        raise AssertionError("a specification is not called")

    @hookspec
    def imgkit_on_event(self, event: Event, call: Call) -> None:
        """Observe an event. An observer that fails costs one warning, never an image.

        Args:
            event: an instance of one of the event classes in `imgkit.plugins`.
            call: the call.
        """
        raise AssertionError("a specification is not called")
