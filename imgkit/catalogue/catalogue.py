"""The catalogue of a service: what the provider's data file knows, and the user's own files above it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import date
from functools import cache, cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgkit.errors import ConfigurationError

if TYPE_CHECKING:
    from imgkit.catalogue.facts import Model, Retired
    from imgkit.catalogue.reading import Reader

VARIABLE = "IMGKIT_MODELS"
"""Names files of the user's own, separated as in PATH."""

NEAR_DAYS = 60
"""A model that is shut down within so many days is told of."""

Facts = Mapping[str, Any]
"""The content of a data file."""


class Catalogue:
    """What is known of the models of one provider. Files are read when something is looked up.

    Args:
        provider: name of the provider.
        shipped: ``"package:file"`` of the provider's data, "" for none.
        own: the user's own data, the last of which wins.
    """

    def __init__(self, provider: str, shipped: str = "", own: Iterable[Facts] = ()) -> None:
        self._provider = provider
        self._shipped = shipped
        self._own = tuple(one for one in own if one.get("provider", provider) == provider)

    @property
    def has_own(self) -> bool:
        """Whether the user gave data of their own."""
        return bool(self._own)

    def find(self, name: str | None, host_class: str) -> Model | None:
        """Return what is known of a model on a class of hosts, by its id or that of a snapshot."""
        if name is None or (host_class != "official" and not self._own):
            return None
        return self._by_name.get((host_class, name))

    def listed(self) -> list[Model]:
        """Return all models, in the order of the files."""
        return list({model.id: model for model in self._by_name.values()}.values())

    def live(self, today: date) -> list[str]:
        """Return the ids of the models of the official host that are not announced to end soon."""
        return [
            one.id
            for one in self.listed()
            if "official" in one.hosts and (one.shutdown is None or (one.shutdown - today).days > NEAR_DAYS)
        ]

    def retired(self, operation: str, host_class: str) -> Retired | None:
        """Return what is known of an operation that a class of hosts does not have any more."""
        return self._reader.retired(operation, host_class)

    @property
    def as_of(self) -> date | None:
        """The day the provider's own data was read."""
        return shipped(self._shipped).get("as_of") if self._shipped else None

    @property
    def defaults(self) -> Mapping[str, Any]:
        """What the server takes where a field is not given."""
        return self._merged("defaults")

    @property
    def most_pictures(self) -> int | None:
        """How many pictures a server of this dialect makes at once, as far as nothing else is known."""
        found: int | None = self._merged("dialect").get("most_pictures")
        return found

    @property
    def tokens_beside(self) -> Mapping[str, Any]:
        """Tokens of input pictures (from, to) and of a partial picture."""
        return self._merged("tokens_beside")

    @cached_property
    def _layers(self) -> tuple[Facts, ...]:
        return (*((shipped(self._shipped),) if self._shipped else ()), *self._own)

    def _merged(self, table: str) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for layer in self._layers:
            merged |= layer.get(table, {})
        return merged

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], Model]:
        return self._reader.models()

    @cached_property
    def _reader(self) -> Reader:
        from imgkit.catalogue.reading import Reader

        return Reader(self._layers)


@cache
def shipped(place: str) -> Facts:
    """Return the data of a provider; ``place`` is ``"package:file"``."""
    import tomllib
    from importlib import resources

    package, _, file = place.partition(":")
    return tomllib.loads(resources.files(package).joinpath(file).read_text("utf-8"))


def own_facts(given: object) -> list[Facts]:
    """Return the user's own data: of the files in ``IMGKIT_MODELS``, and what is given as ``models=``.

    Args:
        given: a path, a mapping in the form of such a file, or None.

    Raises:
        ConfigurationError: a file that cannot be read, or is not of that form.
    """
    named = os.environ.get(VARIABLE, "")
    found = [_read(Path(one), f"{VARIABLE}: ") for one in named.split(os.pathsep) if one]
    if isinstance(given, Mapping):
        found.append(_checked(given, "models"))
    elif isinstance(given, str | PathLike):
        found.append(_read(Path(given), "models: "))
    elif given is not None:
        raise ConfigurationError("models must be the path of a TOML file, or a mapping in its form")
    return found


def _read(path: Path, where: str) -> Facts:
    import tomllib

    try:
        with path.open("rb") as stream:
            facts = tomllib.load(stream)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"{where}{str(path)!r} cannot be read: {problem}") from None
    return _checked(facts, f"{where}{path}")


def _checked(facts: Mapping[str, Any], where: str) -> Facts:
    from imgkit.schemas.base import SchemaError
    from imgkit.schemas.model_facts import MODEL_FACTS_SCHEMA

    try:
        MODEL_FACTS_SCHEMA.read(facts)
    except SchemaError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    return dict(facts)
