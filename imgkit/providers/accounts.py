"""Accounts at providers: the page with the keys, and the vendor whose form a key has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from imgkit.catalogue.catalogue import load_provider_data
from imgkit.errors import ConfigurationError, ImgkitError
from imgkit.plugins.hookspecs import ProviderSpec
from imgkit.plugins.registry import PluginList, build_hook_table, standard_plugins
from imgkit.plugins.table import NamedSpec
from imgkit.redact import Secret, safe_url

if TYPE_CHECKING:
    from imgkit.catalogue.facts import Facts

KEY_SHAPES = "imgkit.providers:key_shapes.toml"

ProviderSpecs = Mapping[str, NamedSpec[ProviderSpec]]


class KeyShape(NamedTuple):
    """The form of the keys of a vendor.

    Attributes:
        prefix: the first characters of a key.
        vendor: the vendor's name, or that of its provider.
        providers: names of the providers that take such keys.
        host: the vendor's domain, "" if it is unknown.
    """

    prefix: str
    vendor: str
    providers: tuple[str, ...] = ()
    host: str = ""


class Account:
    """The account that a service uses at its provider. The first question reads the facts.

    Args:
        provider: name of the provider.
        facts: the place of the provider's facts; None to find it by the name.
        list_specs: returns the known providers; None for the installed ones and imgkit's own.

    Example:
        >>> Account("bfl").console
        'https://dashboard.bfl.ai'
    """

    def __init__(
        self,
        provider: str,
        facts: str | None = None,
        list_specs: Callable[[], ProviderSpecs] | None = None,
    ) -> None:
        self._provider = provider
        self._facts = facts
        self._list_specs = list_specs or list_provider_specs
        self._accepted: tuple[Secret, str] | None = None  # the latest key, and its address

    @property
    def console(self) -> str | None:
        """The page with the keys, None if it is unknown."""
        console: str | None = self._data.get("account", {}).get("console")
        return console

    def check_key(self, key: Secret, source: str, base_url: str) -> None:
        """Refuse a key that has the form of another vendor's keys.

        Args:
            key: the key. The message does not show it.
            source: the origin of the key: a variable, or ``api_key``.
            base_url: the address of the provider's own host.

        Raises:
            ConfigurationError: The message names the vendor. Nothing was sent.
        """
        if (key, base_url) == self._accepted:
            return
        shapes = self.find_owners(key, base_url)
        if not shapes:
            self._accepted = key, base_url
            return
        del key  # tracebacks may show local variables
        vendors = " or ".join(dict.fromkeys(shape.vendor for shape in shapes))
        console = f" from {self.console}" if self.console else f" of provider {self._provider}"
        known = [name for shape in shapes for name in shape.providers if name in self._specs]
        raise ConfigurationError(
            f"{source} has the form of a key of {vendors}. {safe_url(base_url)} does not take it, so nothing "
            f"was sent. Give a key{console}.",
            hint=f'For a key of {vendors}, pass provider="{known[0]}".' if known else None,
            field="api_key" if source == "api_key" else "key",
        )

    def find_owners(self, key: Secret, base_url: str) -> list[KeyShape]:
        """Return the forms of other vendors that a key has, [] if it may be the provider's own."""

        def fits(prefix: str) -> bool:
            return key.reveal().startswith(prefix)

        names = {self._provider, self._data.get("provider")}
        host = urlsplit(base_url).hostname or ""
        own = [shape.prefix for shape in self._shapes if not names.isdisjoint(shape.providers)]
        own += self._data.get("account", {}).get("key_prefixes", ())
        own_length = max(map(len, filter(fits, own)), default=0)
        foreign = [
            shape
            for shape in (*self._shapes, *(() if own_length else self._plugin_shapes))
            if fits(shape.prefix)
            and names.isdisjoint(shape.providers)
            and not (shape.host and f".{host}".endswith(f".{shape.host}"))
            and len(shape.prefix) > own_length
            and (own or shape.prefix not in load_provider_data(KEY_SHAPES)["shared"])
        ]
        length = max((len(shape.prefix) for shape in foreign), default=0)
        return [shape for shape in foreign if len(shape.prefix) == length]

    @cached_property
    def _data(self) -> Facts:
        if self._facts is not None:
            return load_provider_data(self._facts) if self._facts else {}
        named = self._specs.get(self._provider)
        return {} if named is None else load_facts(named)

    @cached_property
    def _specs(self) -> ProviderSpecs:
        return self._list_specs()

    @cached_property
    def _shapes(self) -> tuple[KeyShape, ...]:
        """The forms that need no import: those of other vendors, and of imgkit's own providers."""
        keys = load_provider_data(KEY_SHAPES)["keys"]
        vendors = [
            KeyShape(key["prefix"], key["vendor"], tuple(key.get("providers", ())), key["host"])
            for key in keys
        ]
        named = {shape.prefix for shape in vendors}
        return (
            *vendors,
            *(each for each in _list_shapes(self._specs, is_own=True) if each.prefix not in named),
        )

    @cached_property
    def _plugin_shapes(self) -> tuple[KeyShape, ...]:
        """The forms of other packages' providers, whose classes are imported."""
        return tuple(_list_shapes(self._specs, is_own=False))


def list_provider_specs(plugins: PluginList | None = None) -> ProviderSpecs:
    """Return the specs of providers by name.

    Args:
        plugins: the plugins that register them; None for the installed ones and imgkit's own.
    """
    return build_hook_table(standard_plugins() if plugins is None else plugins).specs_by_name(ProviderSpec)


def load_facts(named: NamedSpec[ProviderSpec]) -> Facts:
    """Return the facts of a provider, {} if it has none or cannot be loaded.

    The facts of imgkit's own providers have the provider's name, so no class of them is imported.
    """
    from importlib import resources

    own = f"{named.spec.name}.toml"
    if named.origin.is_own and resources.files("imgkit.providers").joinpath(own).is_file():
        return load_provider_data(f"imgkit.providers:{own}")
    try:
        place = getattr(named.load(), "model_facts", None)
        return load_provider_data(place) if isinstance(place, str) and place else {}
    except (ImgkitError, ImportError, OSError, ValueError):
        return {}  # a broken plugin says so where its provider is used


def _list_shapes(specs: ProviderSpecs, *, is_own: bool) -> Iterator[KeyShape]:
    for name, named in specs.items():
        if named.origin.is_own == is_own:
            for prefix in load_facts(named).get("account", {}).get("key_prefixes", ()):
                yield KeyShape(prefix, f"provider {name}", (name,))
