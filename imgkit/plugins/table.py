"""The hooks of a service's plugins, frozen into the table that calls are made with."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from imgkit.errors import ConfigurationError, ImgkitError, PluginError
from imgkit.plugins.hookspecs import BackendSpec, PluginSpec, ProviderSpec
from imgkit.plugins.tokens import TokenNeeded
from imgkit.redact import scrub
from imgkit.wire.headers import FRAMING, header_problem

if TYPE_CHECKING:
    from imgkit.models import ImageRequest
    from imgkit.plugins.events import Call, Event, Outcome
    from imgkit.wire.messages import HttpRequest

Spec = TypeVar("Spec", BackendSpec, ProviderSpec, PluginSpec)


class PluginWarning(UserWarning):
    """A plugin could not be loaded, or one that only watches has failed; imgkit went on without it."""


class PluginSource(NamedTuple):
    """Where a plugin comes from.

    Attributes:
        plugin: its registered name.
        distribution: the installed distribution that brings it along, "" where none does.
        version: of the distribution.
    """

    plugin: str
    distribution: str = ""
    version: str = ""

    @property
    def own(self) -> bool:
        """Whether it is a part of imgkit itself."""
        return not self.distribution and self.plugin.startswith("imgkit.")

    @property
    def way_out(self) -> str:
        """How to do without the plugin."""
        if self.distribution:
            return f"block it with IMGKIT_BLOCK_PLUGINS={self.plugin}"
        return "leave it out of plugins=[…]"

    def __str__(self) -> str:
        whence = f" ({self.distribution} {self.version})" if self.distribution else ""
        return f"plugin {self.plugin!r}{whence}"

    def error(self, text: str, *, hook: str = "") -> PluginError:
        """Return an error that names the plugin and its distribution, also in its message."""
        return PluginError(f"{self}{text}", plugin=self.plugin, distribution=self.distribution, hook=hook)


class HookImpl(NamedTuple):
    """One implementation of one hook.

    Attributes:
        origin: the plugin that it belongs to.
        hook: the hook's name.
        function: the bound implementation.
        argnames: the parameters that it takes.
        rank: -1 for ``tryfirst``, 1 for ``trylast``, else 0.
    """

    origin: PluginSource
    hook: str
    function: Callable[..., Any]
    argnames: tuple[str, ...]
    rank: int = 0

    @property
    def plugin(self) -> str:
        """The plugin's registered name."""
        return self.origin.plugin

    @property
    def distribution(self) -> str:
        """The distribution that the plugin came with, "" where none did."""
        return self.origin.distribution

    def __call__(self, **arguments: object) -> Any:
        """Call the implementation with the arguments it takes; its exceptions name the plugin."""
        try:
            if len(self.argnames) < len(arguments):
                arguments = {name: arguments[name] for name in self.argnames}
            return self.function(**arguments)
        except ImgkitError as error:
            if not self.origin.own:
                error.add_note(f"raised by {self.origin} in {self.hook}")
            raise
        except (Exception, SystemExit) as error:
            raise self.origin.error(
                f" failed in {self.hook} ({describe_error(error)}): mend it, or {self.origin.way_out}",
                hook=self.hook,
            ) from error

    def offers(self, kind: type[Spec]) -> tuple[Spec, ...]:
        """Return what a collecting hook offers. Raises `PluginError` if that is something else."""
        answer = self()
        try:
            specs = tuple(answer if answer is not None else ())
        except TypeError:
            raise self.wrong(f"returned a {type(answer).__name__}") from None
        for spec in specs:
            if not isinstance(spec, kind):
                raise self.wrong(f"returned a {type(spec).__name__} instead of a {kind.__name__}")
        return specs

    def wrong(self, what: str) -> PluginError:
        """Return the error for an answer that the hook does not allow."""
        return self.origin.error(
            f" {what} from {self.hook}: see its description in imgkit.plugins.hookspecs", hook=self.hook
        )


@dataclass(frozen=True, slots=True)
class NamedSpec(Generic[Spec]):
    """Something that can be asked for by name, and who offers it."""

    spec: Spec
    origin: PluginSource

    def load(self) -> Any:
        """Import and return what the spec names.

        Raises:
            PluginError: the import fails, in whatever way; how to get what is missing.
        """
        try:
            return resolve_name(self.spec.target)
        except (Exception, SystemExit) as error:
            raise self.problem(
                f"cannot be loaded from {self.spec.target} ({describe_error(error)})"
            ) from error

    def make(self) -> Any:
        """Load what the spec names, and call it without arguments.

        Raises:
            PluginError: the import or the call fails.
        """
        kind = self.load()
        try:
            return kind()
        except ImgkitError:
            raise
        except (Exception, SystemExit) as error:
            raise self.problem(f"cannot be made ({describe_error(error)})") from error

    def problem(self, what: str) -> PluginError:
        """Return the error that says what is wrong with it, and how to get what it needs."""
        how = f" ({self.spec.install})" if self.spec.install else ""
        named = repr(self.spec.name)
        by = "" if self.origin.own else f" of {self.origin}"
        return PluginError(
            f"{named}{by} {what}: install what is missing{how}",
            plugin=self.spec.name if self.origin.own else self.origin.plugin,
            distribution=self.origin.distribution,
        )


@dataclass(frozen=True)
class HookTable:
    """The hook implementations of a service, in calling order. A call keeps the table it began with."""

    backends: tuple[HookImpl, ...] = ()
    providers: tuple[HookImpl, ...] = ()
    plugins: tuple[HookImpl, ...] = ()
    prepares: tuple[HookImpl, ...] = ()
    before_sends: tuple[HookImpl, ...] = ()
    authenticates: tuple[HookImpl, ...] = ()
    retry_waits: tuple[HookImpl, ...] = ()
    caches: tuple[HookImpl, ...] = ()
    ledgers: tuple[HookImpl, ...] = ()
    recorders: tuple[HookImpl, ...] = ()
    commands: tuple[HookImpl, ...] = ()
    observers: tuple[HookImpl, ...] = ()
    warned: set[str] = field(default_factory=set, compare=False)

    def prepare(self, request: ImageRequest, call: Call) -> ImageRequest:
        """Fold `imgkit_prepare` over the request."""
        for impl in self.prepares:
            changed = impl(request=request, call=call)
            if changed is not None:
                if type(changed) is not type(request):
                    raise impl.wrong(f"returned a {type(changed).__name__}")
                request = changed
        return request

    def before_send(self, request: HttpRequest, call: Call) -> HttpRequest:
        """Fold `imgkit_before_send` over the request."""
        for impl in self.before_sends:
            request = _headers_only(impl, request, impl(request=request, call=call))
        return request

    def authenticate(self, request: HttpRequest, call: Call) -> HttpRequest | TokenNeeded:
        """Return the request as the first plugin that answers signs it; unchanged if none does.

        Where signing must wait for something that may block, what to run first comes back instead.
        """
        for impl in self.authenticates:
            answer = impl(request=request, call=call)
            if isinstance(answer, TokenNeeded):
                return _pending(impl, answer)
            if answer is not None:
                return _signed(impl, request, answer)
        return request

    def retry_wait(self, outcome: Outcome, call: Call) -> float | None:
        """Return the seconds to wait before another try, None to end the call with its failure."""
        for impl in self.retry_waits:
            wait_s = impl(outcome=outcome, call=call)
            if wait_s is None:
                continue
            if isinstance(wait_s, bool) or not isinstance(wait_s, int | float) or wait_s != wait_s:
                raise impl.wrong(f"returned a {type(wait_s).__name__}")
            return float(wait_s) if wait_s >= 0 else None
        return None

    def notify(self, event: Event, call: Call) -> None:
        """Tell all observers; one that fails is warned of once, and costs nothing else."""
        for impl in self.observers:
            try:
                impl(event=event, call=call)
            except ImgkitError as error:
                if impl.plugin not in self.warned:
                    self.warned.add(impl.plugin)
                    warn(f"an observer failed, and is not heard of again: {error}")

    def specs_by_name(self, kind: type[Spec]) -> dict[str, NamedSpec[Spec]]:
        """Return what can be asked for by name: backends, providers or plugins.

        Args:
            kind: `BackendSpec`, `ProviderSpec` or `PluginSpec`.

        Raises:
            ConfigurationError: two have one name.
            PluginError: a plugin offers something else.
        """
        impls: tuple[HookImpl, ...] = getattr(self, OFFERING[kind])
        found: dict[str, NamedSpec[Spec]] = {}
        for impl in impls:
            for spec in impl.offers(kind):
                if spec.name in found:
                    raise ConfigurationError(
                        f"{found[spec.name].origin} and {impl.origin} both offer {spec.name!r}: "
                        "leave one of them out"
                    )
                found[spec.name] = NamedSpec(spec, impl.origin)
        return dict(sorted(found.items()))

    def backend_specs(self) -> dict[str, BackendSpec]:
        """Return the backends by name. Raises `ConfigurationError` if two have one name."""
        return {name: offer.spec for name, offer in self.specs_by_name(BackendSpec).items()}

    def provider_specs(self) -> dict[str, ProviderSpec]:
        """Return the providers by name. Raises `ConfigurationError` if two have one name."""
        return {name: offer.spec for name, offer in self.specs_by_name(ProviderSpec).items()}

    def plugin_specs(self) -> dict[str, PluginSpec]:
        """Return the plugins by name. Raises `ConfigurationError` if two have one name."""
        return {name: offer.spec for name, offer in self.specs_by_name(PluginSpec).items()}


OFFERING: dict[type, str] = {BackendSpec: "backends", ProviderSpec: "providers", PluginSpec: "plugins"}
"""What plugins offer by name, and where the table has the hooks that say so."""


def describe_error(error: BaseException) -> str:
    """Return class and text of somebody else's exception, fit for a message."""
    return f"{type(error).__name__}: {scrub(str(error), limit=200)}"


def call_plugin(origin: PluginSource, hook: str, method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a method of what a plugin supplies; its exceptions name the plugin.

    Args:
        origin: of the plugin.
        hook: by which it supplies the thing.
        method: to be called with `arguments`.
        *arguments: of the method.

    Raises:
        ImgkitError: what the method raises, as a `PluginError` where it is something else.
    """
    kind = hook.removeprefix("imgkit_")
    try:
        return method(*arguments)
    except ImgkitError as error:
        if not origin.own:
            error.add_note(f"raised by the {kind} of {origin}")
        raise
    except Exception as error:
        raise origin.error(
            f" failed in its {kind} ({describe_error(error)}): mend it, or {origin.way_out}", hook=hook
        ) from error


def warn(text: str) -> None:
    """Warn of a plugin; where warnings are errors, log it instead.

    Args:
        text: what happened.
    """
    try:
        warnings.warn(text, PluginWarning, stacklevel=3)
    except PluginWarning:
        # Warnings are errors here; even so a picture that is paid for comes first.
        logging.getLogger("imgkit").warning(text)


def _pending(impl: HookImpl, needed: TokenNeeded) -> TokenNeeded:
    """Return what a plugin needs first, with its signing held to the rules of its hook."""
    sign = impl._replace(function=lambda request: needed.sign(request), argnames=("request",))
    return TokenNeeded(needed.fetch, lambda request: _signed(impl, request, sign(request=request)))


def _signed(impl: HookImpl, before: HttpRequest, after: HttpRequest | None) -> HttpRequest:
    """Return a signed request that knows which of its headers are credentials."""
    if after is None:
        return before
    secret = frozenset(_changes(impl, before, after))
    return after.with_headers(after.headers, secret)


def _headers_only(impl: HookImpl, before: HttpRequest, after: HttpRequest | None) -> HttpRequest:
    if after is None:
        return before
    _changes(impl, before, after)
    return after


def _changes(impl: HookImpl, before: HttpRequest, after: HttpRequest) -> dict[str, str]:
    """Return the headers that a plugin has set. Raises `PluginError` for more, or what cannot be sent."""
    if type(after) is not type(before):
        raise impl.wrong(f"returned a {type(after).__name__}")
    if (after.method, after.url, after.body) != (before.method, before.url, before.body):
        raise impl.wrong("returned a request with another method, URL or body")
    if not isinstance(after.headers, Mapping):
        raise impl.wrong(f"returned headers that cannot be sent ({header_problem(after.headers, FRAMING)})")
    had = before.headers
    changed = {name: value for name, value in after.headers.items() if name not in had or had[name] != value}
    problem = header_problem(changed, FRAMING)
    if problem is None and any(name != name.lower() or value is None for name, value in changed.items()):
        problem = "names must be in lower case, and values text"
    if problem:
        raise impl.wrong(f"returned headers that cannot be sent ({problem})")
    return changed
