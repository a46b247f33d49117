"""Errors of a call that sent nothing: a wrong setup, a wrong request, an exhausted budget."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from imgkit.errors.root import ImgkitError

if TYPE_CHECKING:
    from decimal import Decimal


class ConfigurationError(ImgkitError):
    """The service is set up wrongly. Nothing was sent."""


class UnknownBackendError(ConfigurationError):
    """No backend is registered under this name."""


class UnknownProviderError(ConfigurationError):
    """No provider is registered under this name."""


class UnknownPluginError(ConfigurationError):
    """No plugin is registered under this name."""


class PluginError(ConfigurationError):
    """A plugin raised, returned a wrong type, or does not match the hook specifications.

    Attributes:
        plugin: the name under which the plugin is registered.
        distribution: the installed distribution that contains the plugin, or "" where unknown.
        hook: the hook that imgkit was calling, or "" while loading.
    """

    def __init__(self, message: str, *, plugin: str, distribution: str = "", hook: str = "") -> None:
        super().__init__(message)
        self.plugin = plugin
        self.distribution = distribution
        self.hook = hook


class MissingKeyError(ConfigurationError):
    """The host needs an API key, and none was given."""


class MissingModelError(ConfigurationError):
    """The official host has no default model any more: the request must name a model."""


class ServiceClosedError(ConfigurationError):
    """The service is closed, or belongs to another event loop."""


class InvalidRequestError(ImgkitError):
    """The request is wrong. Nothing was sent.

    Example::

        >>> error = InvalidRequestError({"n": "must be at least 1."})
        >>> error.fields["n"]
        'must be at least 1.'

    Attributes:
        fields: the problems by flat path: ``{"n": "…", "image.1": "…"}``.
        hints: remedies in terms of the Python API, by the argument that each one changes:
            ``{"prepare": 'Or pass prepare="fit".'}``. Together they are the ``hint``.
    """

    hints: Mapping[str, str] = MappingProxyType({})

    def __init__(self, fields: Mapping[str, str], hints: Mapping[str, str] | None = None) -> None:
        self.fields = dict(fields)
        if hints:
            self.hints = dict(hints)
        super().__init__(
            "; ".join(f"{path}: {text}" for path, text in self.fields.items()),
            hint=" ".join(self.hints.values()) or None,
        )


class BudgetExceededError(ImgkitError):
    """A budget has no room for the call (see `imgkit.Budget`). Nothing was sent.

    Attributes:
        limit: limit of the budget in USD. The other amounts are in USD too.
        spent: amount spent so far. Calls with an unknown outcome count as spent.
        reserved: amount reserved for running calls.
        wanted: the highest possible cost of the call.
    """

    def __init__(
        self, message: str, *, limit: Decimal, spent: Decimal, reserved: Decimal, wanted: Decimal
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.spent = spent
        self.reserved = reserved
        self.wanted = wanted


class FixtureMissingError(ImgkitError):
    """No cassette has a recording of the request. Nothing was sent.

    Attributes:
        nearest: the most similar recorded request, None if none of this kind was recorded.
    """

    def __init__(self, message: str, *, nearest: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.nearest = nearest


class CacheMissError(ImgkitError):
    """The call used ``cache="only"``, and the cache has no such reply. Nothing was sent."""
