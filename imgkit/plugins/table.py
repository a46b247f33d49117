"""The hook table: the hook implementations of a service's plugins, in calling order.

imgkit uses a pluggy manager only to check and collect implementations. It orders and calls them by this
table: a call keeps the table it started with, and a failure names its plugin.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, TypeVarTuple

from imgkit.errors import ConfigurationError, ImgkitError, PluginError, PluginWarning
from imgkit.files import print_to_stderr
from imgkit.plugins.header_changes import find_changed_headers
from imgkit.plugins.hookspecs import BackendSpec, EngineSpec, PluginSpec, ProviderSpec
from imgkit.plugins.tokens import TokenNeeded
from imgkit.redact import scrub

if TYPE_CHECKING:
    from imgkit.models import ImageRequest
    from imgkit.plugins.events import Call, Event, Outcome
    from imgkit.wire.messages import HttpRequest

MAX_WAIT_S = 1e9  # longer than any call; an int beyond the range of float is possible
Spec = TypeVar("Spec", BackendSpec, ProviderSpec, PluginSpec, EngineSpec)
T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class PluginSource(NamedTuple):
    """The source of a plugin.

    Attributes:
        plugin: the plugin's registered name.
        distribution: the distribution that installed it, "" for none.
        version: the distribution's version.
    """

    plugin: str
    distribution: str = ""
    version: str = ""

    @property
    def is_own(self) -> bool:
        """Whether the plugin is a part of imgkit."""
        return not self.distribution and self.plugin.startswith("imgkit.")

    @property
    def removal_hint(self) -> str:
        """The way to do without the plugin, for messages."""
        if self.distribution:
            return f"block it with IMGKIT_BLOCK_PLUGINS={self.plugin}"
        return "leave it out of plugins=[…]"

    def __str__(self) -> str:
        whence = f" ({self.distribution} {self.version})" if self.distribution else ""
        return f"plugin {self.plugin!r}{whence}"

    def error(self, text: str, *, hook: str = "") -> PluginError:
        """Return a `PluginError` whose message starts with the plugin and its distribution."""
        return PluginError(f"{self}{text}", plugin=self.plugin, distribution=self.distribution, hook=hook)


class HookImpl(NamedTuple):
    """One implementation of one hook.

    Attributes:
        origin: the source of its plugin.
        hook: the hook's name.
        function: the bound implementation.
        argnames: names of its parameters.
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
        """The distribution that installed the plugin, "" for none."""
        return self.origin.distribution

    def __call__(self, **arguments: object) -> Any:
        """Call the implementation with the arguments that it takes.

        Raises:
            ImgkitError: raised by the plugin; a note names a plugin that is not imgkit's.
            PluginError: the plugin raised any other exception.
        """
        try:
            if len(self.argnames) < len(arguments):
                arguments = {name: arguments[name] for name in self.argnames}
            answer = self.function(**arguments)
            return list(answer) if hasattr(type(answer), "__next__") else answer
        except ImgkitError as error:
            if not self.origin.is_own:
                error.add_note(f"raised by {self.origin} in {self.hook}")
            raise
        except (Exception, SystemExit) as error:
            raise self.origin.error(
                f" failed in {self.hook} ({describe_error(error)}). Fix it, or {self.origin.removal_hint}.",
                hook=self.hook,
            ) from error

    def collect_specs(self, kind: type[Spec]) -> tuple[Spec, ...]:
        """Return the specs of a collecting hook.

        Raises:
            PluginError: the hook returned anything else.
        """
        answer = self()
        try:
            specs = tuple(answer if answer is not None else ())
        except TypeError:
            raise self.result_error(f"returned a {type(answer).__name__}") from None
        for spec in specs:
            if not isinstance(spec, kind):
                raise self.result_error(f"returned a {type(spec).__name__} instead of a {kind.__name__}")
        return specs

    def result_error(self, problem: str) -> PluginError:
        """Return the error for a result that the hook does not allow."""
        return self.origin.error(
            f" {problem} from {self.hook}. See its description in imgkit.plugins.", hook=self.hook
        )


class NamedSpec(Generic[Spec]):
    """A spec that users select by name.

    Attributes:
        spec: the spec.
        origin: the source of its plugin.
    """

    __slots__ = ("origin", "spec")

    def __init__(self, spec: Spec, origin: PluginSource) -> None:
        self.spec: Spec = spec
        self.origin = origin

    def load(self) -> Any:
        """Import and return the target of the spec.

        Raises:
            PluginError: the import fails; the message says how to install what is missing.
        """
        try:
            with print_to_stderr():
                return resolve_name(self.spec.target)
        except (Exception, SystemExit) as error:
            raise self.load_error(
                f"cannot be loaded from {self.spec.target} ({describe_error(error)})"
            ) from error

    def make(self, *arguments: object, **options: object) -> Any:
        """Load the target of the spec and call it.

        Args:
            arguments, options: the arguments of its target.

        Raises:
            PluginError: the import or the call fails.
        """
        kind = self.load()
        try:
            return kind(*arguments, **options)
        except ImgkitError:
            raise
        except (Exception, SystemExit) as error:
            raise self.load_error(f"cannot be created ({describe_error(error)})") from error

    def load_error(self, problem: str) -> PluginError:
        """Return the error for a target that cannot be used, with the way to install it."""
        command = f" ({self.spec.install})" if self.spec.install else ""
        is_own = self.origin.is_own
        owner = "" if is_own else f" of {self.origin}"
        return PluginError(
            f"{self.spec.name!r}{owner} {problem}. Install the missing package{command}.",
            plugin=self.spec.name if is_own else self.origin.plugin,
            distribution=self.origin.distribution,
        )


@dataclass(frozen=True)
class HookTable:
    """The hook implementations of a service, in calling order."""

    backends: tuple[HookImpl, ...] = ()
    providers: tuple[HookImpl, ...] = ()
    plugins: tuple[HookImpl, ...] = ()
    engines: tuple[HookImpl, ...] = ()
    prepares: tuple[HookImpl, ...] = ()
    before_sends: tuple[HookImpl, ...] = ()
    authenticates: tuple[HookImpl, ...] = ()
    retry_waits: tuple[HookImpl, ...] = ()
    caches: tuple[HookImpl, ...] = ()
    ledgers: tuple[HookImpl, ...] = ()
    recorders: tuple[HookImpl, ...] = ()
    sinks: tuple[HookImpl, ...] = ()
    guards: tuple[HookImpl, ...] = ()
    commands: tuple[HookImpl, ...] = ()
    observers: tuple[HookImpl, ...] = ()
    warned: set[str] = field(default_factory=set, compare=False)

    def prepare(self, request: ImageRequest, call: Call) -> ImageRequest:
        """Return the request after all `imgkit_prepare` hooks; each gets the result of the one before."""
        for impl in self.prepares:
            changed = impl(request=request, call=call)
            if changed is not None:
                if type(changed) is not type(request):
                    raise impl.result_error(f"returned a {type(changed).__name__}")
                request = changed
        return request

    def before_send(self, request: HttpRequest, call: Call) -> HttpRequest:
        """Return the request after all `imgkit_before_send` hooks; each gets the result of the one before."""
        for impl in self.before_sends:
            request = _with_new_headers(impl, request, impl(request=request, call=call))
        return request

    def authenticate(self, request: HttpRequest, call: Call) -> HttpRequest | TokenNeeded:
        """Return the request with the credentials of the first plugin that has some, or unchanged.

        A plugin that must fetch a token first returns `TokenNeeded` instead.
        """
        for impl in self.authenticates:
            signed = impl(request=request, call=call)
            if isinstance(signed, TokenNeeded):
                return _guard_token(impl, signed)
            if signed is not None:
                return _mark_credentials(impl, request, signed)
        return request

    def retry_wait(self, outcome: Outcome, call: Call) -> float | None:
        """Return the seconds to wait before the next attempt, None to end the call with its failure."""
        for impl in self.retry_waits:
            wait_s = impl(outcome=outcome, call=call)
            if wait_s is None:
                continue
            if isinstance(wait_s, bool) or not isinstance(wait_s, int | float) or wait_s != wait_s:
                raise impl.result_error(f"returned a {type(wait_s).__name__}")
            return float(min(wait_s, MAX_WAIT_S)) if wait_s >= 0 else None
        return None

    def notify(self, event: Event, call: Call) -> None:
        """Tell all observers. An observer that fails costs one warning."""
        for impl in self.observers:
            try:
                impl(event=event, call=call)
            except ImgkitError as error:
                if impl.plugin not in self.warned:
                    self.warned.add(impl.plugin)
                    warn(f"An observer failed; its further failures are not reported. {error}")

    def specs_by_name(self, kind: type[Spec]) -> dict[str, NamedSpec[Spec]]:
        """Return the specs of a kind by name, sorted.

        Args:
            kind: `BackendSpec`, `ProviderSpec`, `PluginSpec` or `EngineSpec`.

        Raises:
            ConfigurationError: two specs have the same name.
            PluginError: a hook returned anything else.
        """
        impls: tuple[HookImpl, ...] = getattr(self, SPEC_HOOKS[kind])
        found: dict[str, NamedSpec[Spec]] = {}
        for impl in impls:
            for spec in impl.collect_specs(kind):
                if spec.name in found:
                    raise ConfigurationError(
                        f"{found[spec.name].origin} and {impl.origin} both offer {spec.name!r}. "
                        "Leave one of them out."
                    )
                found[spec.name] = NamedSpec(spec, impl.origin)
        return dict(sorted(found.items()))

    def backend_specs(self) -> dict[str, BackendSpec]:
        """Return the backends by name. Raises `ConfigurationError` if two have the same name."""
        return {name: offer.spec for name, offer in self.specs_by_name(BackendSpec).items()}

    def provider_specs(self) -> dict[str, ProviderSpec]:
        """Return the providers by name. Raises `ConfigurationError` if two have the same name."""
        return {name: offer.spec for name, offer in self.specs_by_name(ProviderSpec).items()}

    def plugin_specs(self) -> dict[str, PluginSpec]:
        """Return the plugins by name. Raises `ConfigurationError` if two have the same name."""
        return {name: offer.spec for name, offer in self.specs_by_name(PluginSpec).items()}


SPEC_HOOKS: dict[type, str] = {
    BackendSpec: "backends",
    ProviderSpec: "providers",
    PluginSpec: "plugins",
    EngineSpec: "engines",
}
"""Fields of the table with the hooks that return specs, by the kind of spec."""


def describe_error(error: BaseException) -> str:
    """Return the class and the scrubbed text of a foreign exception, for a message."""
    try:
        text = str(error)
    except Exception:  # an exception of a plugin may be as broken as the plugin
        text = "its text cannot be read"
    return f"{type(error).__name__}: {scrub(text, limit=200)}"


def call_plugin(
    origin: PluginSource, hook: str, method: Callable[[*Arguments], T], *arguments: *Arguments
) -> T:
    """Call a method of a plugin's resource.

    Args:
        origin: source of the plugin.
        hook: the hook that returned the resource.
        method: the method.
        *arguments: its arguments.

    Raises:
        ImgkitError: raised by the method; a note names a plugin that is not imgkit's.
        PluginError: the method raised any other exception.
    """
    kind = hook.removeprefix("imgkit_").removesuffix("s")
    try:
        return method(*arguments)
    except ImgkitError as error:
        if not origin.is_own:
            error.add_note(f"raised by the {kind} of {origin}")
        raise
    except (Exception, SystemExit) as error:
        raise origin.error(
            f" failed in its {kind} ({describe_error(error)}). Fix it, or {origin.removal_hint}.", hook=hook
        ) from error


def warn(text: str) -> None:
    """Issue a `PluginWarning`, or log it where warnings are errors.

    Args:
        text: the message.
    """
    try:
        warnings.warn(text, PluginWarning, stacklevel=3)
    except PluginWarning:
        # An image that may be paid for comes before a strict warning filter.
        logging.getLogger("imgkit").warning(text)


def _guard_token(impl: HookImpl, needed: TokenNeeded) -> TokenNeeded:
    """Return the `TokenNeeded` of a plugin with functions that are held to the rules of the hook."""
    fetch = partial(call_plugin, impl.origin, impl.hook, needed.fetch)
    sign = impl._replace(function=lambda request: needed.sign(request), argnames=("request",))
    return TokenNeeded(fetch, lambda request: _mark_credentials(impl, request, sign(request=request)))


def _mark_credentials(impl: HookImpl, before: HttpRequest, after: HttpRequest | None) -> HttpRequest:
    """Return the signed request with its new headers marked as secret."""
    if after is None:
        return before
    secret = frozenset(find_changed_headers(before, after, impl.result_error))
    return after.with_headers(after.headers, secret)


def _with_new_headers(impl: HookImpl, before: HttpRequest, after: HttpRequest | None) -> HttpRequest:
    if after is None:
        return before
    find_changed_headers(before, after, impl.result_error)
    return after
