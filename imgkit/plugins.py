"""The plugins of a service: registered, checked, and frozen into a table that calls are made with."""

from __future__ import annotations

import importlib
import inspect
import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from imgkit import hookspecs
from imgkit.errors import ConfigurationError, ImgkitError, PluginError, UnknownPluginError
from imgkit.headers import FRAMING, header_problem
from imgkit.hooks.tokens import TokenNeeded
from imgkit.hookspecs import BackendSpec, PluginSpec, ProviderSpec
from imgkit.redact import scrub

if TYPE_CHECKING:
    from imgkit.call import Call, Event, Outcome
    from imgkit.models import ImageRequest
    from imgkit.wire import HttpRequest

BUILT_IN = ("imgkit.hooks.builtin",)
"""Modules that register what imgkit brings along, through the hooks that strangers use."""

Spec = TypeVar("Spec", BackendSpec, ProviderSpec, PluginSpec)


class PluginWarning(UserWarning):
    """A plugin that only watches has failed; the call went on without it."""


@dataclass(frozen=True, slots=True)
class Impl:
    """One implementation of one hook.

    Attributes:
        plugin: the plugin's registered name.
        hook: the hook's name.
        function: the bound implementation.
        argnames: the parameters that it takes.
    """

    plugin: str
    hook: str
    function: Callable[..., Any]
    argnames: tuple[str, ...]

    def __call__(self, **arguments: object) -> Any:
        """Call the implementation with the arguments it takes; its exceptions name the plugin."""
        try:
            return self.function(**{name: arguments[name] for name in self.argnames})
        except ImgkitError as error:
            if not self.plugin.startswith("imgkit."):
                error.add_note(f"raised by plugin {self.plugin!r} in {self.hook}")
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"plugin {self.plugin!r} failed in {self.hook} ({type(error).__name__}: "
                f"{scrub(str(error), limit=200)}): mend it, or leave it out of plugins=[…]",
                plugin=self.plugin,
                hook=self.hook,
            ) from error

    def wrong(self, what: str) -> PluginError:
        """Return the error for an answer that the hook does not allow."""
        return PluginError(
            f"plugin {self.plugin!r} {what} from {self.hook}: see its description in imgkit.hookspecs",
            plugin=self.plugin,
            hook=self.hook,
        )


@dataclass(frozen=True)
class HookTable:
    """The hook implementations of a service, in calling order. A call keeps the table it began with."""

    backends: tuple[Impl, ...] = ()
    providers: tuple[Impl, ...] = ()
    plugins: tuple[Impl, ...] = ()
    prepares: tuple[Impl, ...] = ()
    before_sends: tuple[Impl, ...] = ()
    authenticates: tuple[Impl, ...] = ()
    retry_waits: tuple[Impl, ...] = ()
    observers: tuple[Impl, ...] = ()
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
                return _headers_only(impl, request, answer)
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
                    _warn(f"an observer failed, and is not heard of again: {error}")

    def backend_specs(self) -> dict[str, BackendSpec]:
        """Return the backends by name. Raises `ConfigurationError` if two have one name."""
        return _collect(self.backends, BackendSpec)

    def provider_specs(self) -> dict[str, ProviderSpec]:
        """Return the providers by name. Raises `ConfigurationError` if two have one name."""
        return _collect(self.providers, ProviderSpec)

    def plugin_specs(self) -> dict[str, PluginSpec]:
        """Return the plugins by name. Raises `ConfigurationError` if two have one name."""
        return _collect(self.plugins, PluginSpec)


_FIELDS = {
    "imgkit_backends": "backends",
    "imgkit_providers": "providers",
    "imgkit_plugins": "plugins",
    "imgkit_prepare": "prepares",
    "imgkit_before_send": "before_sends",
    "imgkit_authenticate": "authenticates",
    "imgkit_retry_wait": "retry_waits",
    "imgkit_on_event": "observers",
}


def build_table(plugins: Sequence[object] = ()) -> HookTable:
    """Register the built-in plugins and then `plugins`, and freeze the result.

    Order: `plugins` are asked in the order given and before the built-in ones, so theirs wins where
    the first answer counts; ``tryfirst`` and ``trylast`` of pluggy move an implementation.

    Args:
        plugins: instances or modules.

    Raises:
        PluginError: a misspelt hook, a coroutine, a wrong parameter, a plugin given twice.
    """
    manager = pluggy.PluginManager("imgkit")
    manager.add_hookspecs(hookspecs.Hooks)
    for name in BUILT_IN:
        _register(manager, importlib.import_module(name), name)
    for plugin in reversed(plugins):  # pluggy asks the last registered first
        _register(manager, plugin, _name_of(plugin))
    impls: dict[str, Any] = {
        field: tuple(
            Impl(impl.plugin_name, hook, impl.function, tuple(impl.argnames))
            for impl in reversed(getattr(manager.hook, hook).get_hookimpls())
        )
        for hook, field in _FIELDS.items()
    }
    return HookTable(**impls)


def _warn(text: str) -> None:
    try:
        warnings.warn(text, PluginWarning, stacklevel=3)
    except PluginWarning:
        # Warnings are errors here; even so a picture that is paid for comes first.
        logging.getLogger("imgkit").warning(text)


def _name_of(plugin: object) -> str:
    if isinstance(plugin, str):
        raise UnknownPluginError(
            f"plugins: no plugin is known by the name {plugin!r}: give the object itself"
        )
    name = getattr(plugin, "__name__", None)
    return name if isinstance(name, str) else f"{type(plugin).__module__}.{type(plugin).__qualname__}"


def _register(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    for attribute in dir(type(plugin)) if not inspect.ismodule(plugin) else dir(plugin):
        function = getattr(plugin, attribute, None) if attribute.startswith("imgkit_") else None
        if function is None:
            continue
        if not hasattr(function, "imgkit_impl"):
            _refuse(name, f"{attribute} is not marked: put @imgkit.hookimpl above it")
        if attribute not in _FIELDS:
            _refuse(name, f"there is no hook {attribute!r}; there are {', '.join(_FIELDS)}")
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            _refuse(name, f"{attribute} is a coroutine, and hooks are synchronous")
    try:
        if manager.has_plugin(name):
            name = f"{name}#{sum(known.startswith(name) for known, _ in manager.list_name_plugin()) + 1}"
        manager.register(plugin, name)
    except (pluggy.PluginValidationError, ValueError) as error:
        _refuse(name, str(error))


def _refuse(plugin: str, why: str) -> None:
    raise PluginError(f"plugin {plugin!r}: {why}", plugin=plugin)


def _collect(impls: Iterable[Impl], kind: type[Spec]) -> dict[str, Spec]:
    found: dict[str, tuple[Spec, str]] = {}
    for impl in impls:
        for spec in impl() or ():
            if not isinstance(spec, kind):
                raise impl.wrong(f"returned a {type(spec).__name__} instead of a {kind.__name__}")
            if spec.name in found:
                raise ConfigurationError(
                    f"plugins {found[spec.name][1]!r} and {impl.plugin!r} both offer {spec.name!r}: "
                    "leave one of them out"
                )
            found[spec.name] = spec, impl.plugin
    return {name: spec for name, (spec, _) in sorted(found.items())}


def _pending(impl: Impl, needed: TokenNeeded) -> TokenNeeded:
    """Return what a plugin needs first, with its signing held to the rules of its hook."""
    sign = replace(impl, function=lambda request: needed.sign(request), argnames=("request",))
    return TokenNeeded(needed.fetch, lambda request: _headers_only(impl, request, sign(request=request)))


def _headers_only(impl: Impl, before: HttpRequest, after: HttpRequest | None) -> HttpRequest:
    if after is None:
        return before
    if type(after) is not type(before):
        raise impl.wrong(f"returned a {type(after).__name__}")
    if (after.method, after.url, after.body) != (before.method, before.url, before.body):
        raise impl.wrong("returned a request with another method, URL or body")
    problem = header_problem(after.headers, FRAMING)
    if problem is None and any(
        name != name.lower() or value is None for name, value in after.headers.items()
    ):
        problem = "names must be in lower case, and values text"
    if problem:
        raise impl.wrong(f"returned headers that cannot be sent ({problem})")
    return after
