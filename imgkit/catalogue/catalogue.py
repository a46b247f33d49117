"""The catalogue of a service: the provider's data file, overridden by the user's own files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import date
from fnmatch import fnmatchcase
from functools import cache, cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgkit.errors import ConfigurationError
from imgkit.files import read_regular_file

if TYPE_CHECKING:
    from imgkit.catalogue.facts import Facts, Model, PaceFacts, Retired
    from imgkit.catalogue.model_options import ModelOption
    from imgkit.catalogue.reading import Reader

VARIABLE = "IMGKIT_MODELS"
MAX_FACTS_BYTES = 16 * 1024 * 1024
"""The variable with the paths of the user's own files, separated as in PATH."""

NEAR_DAYS = 60
"""Days before a model's shutdown in which imgkit warns of it."""


class Catalogue:
    """The data about the models of one provider. The first lookup reads the files.

    Args:
        provider: name of the provider.
        shipped: ``"package:file"`` of the provider's data, "" for none.
        own: the user's own data; later entries override earlier entries.

    Example:
        >>> catalogue = Catalogue("openai", "imgkit.providers:openai.toml")
        >>> catalogue.find_model("gpt-image-1", "official").operations
        ('create_image', 'create_image_edit')
    """

    def __init__(self, provider: str, shipped: str = "", own: Iterable[Facts] = ()) -> None:
        self._provider = provider
        self._shipped = shipped
        self._own = tuple(facts for facts in own if facts.get("provider", provider) == provider)

    @property
    def has_own(self) -> bool:
        """True if the user gave data of their own."""
        return bool(self._own)

    def find_model(self, name: str | None, host_class: str) -> Model | None:
        """Return the data about a model on a class of hosts, by its id or the id of a snapshot."""
        if name is None or (host_class != "official" and not self._own):
            return None
        return self._by_name.get((host_class, name))

    def list_models(self) -> list[Model]:
        """Return all models, in the order of the files."""
        return list({model.id: model for model in self._by_name.values()}.values())

    def list_live_ids(self, today: date) -> list[str]:
        """Return the ids of the official host's models without a near or past shutdown date."""
        return [
            model.id
            for model in self.list_models()
            if "official" in model.hosts
            and (model.shutdown is None or (model.shutdown - today).days > NEAR_DAYS)
        ]

    def find_retirement(self, operation: str, host_class: str) -> Retired | None:
        """Return the data about an operation that a class of hosts does not have, else None."""
        return self._reader.find_retirement(operation, host_class)

    def find_pace(self, host_class: str) -> PaceFacts | None:
        """Return the limits on the pace of an account at a class of hosts, None for none known."""
        return self._reader.find_pace(host_class)

    @property
    def as_of(self) -> date | None:
        """The date of the provider's own data."""
        return load_provider_data(self._shipped).get("as_of") if self._shipped else None

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The server's values for fields that a request leaves out."""
        return self._merge_tables("defaults")

    @property
    def max_images_per_request(self) -> int | None:
        """The most images of a request in this dialect, for models without a limit of their own."""
        count: int | None = self._merge_tables("dialect").get("most_pictures")
        return count

    @property
    def has_open_options(self) -> bool:
        """Whether models may have options that the data does not list."""
        return bool(self._merge_tables("dialect").get("open_options"))

    @property
    def tells_cost(self) -> bool:
        """Whether replies tell the cost."""
        return bool(self._merge_tables("dialect").get("tells_cost"))

    @property
    def unconfirmed(self) -> tuple[str, ...]:
        """Assumptions that nobody has confirmed against the API, as phrases."""
        return tuple(phrase for layer in self._layers for phrase in layer.get("unconfirmed", ()))

    @property
    def has_own_options(self) -> bool:
        """Whether the options are those of a file of the user, which the provider reads and checks."""
        return bool(self._merge_tables("dialect").get("own_options"))

    @cached_property
    def options(self) -> Mapping[str, ModelOption]:
        """The options beside the shared parameters, by name."""
        from imgkit.catalogue.model_options import read_options

        return read_options(self._layers)

    @property
    def account(self) -> Mapping[str, Any]:
        """The page of the provider that shows keys, the form of a key, and a free request that needs it."""
        return self._merge_tables("account")

    @property
    def tokens_beside(self) -> Mapping[str, Any]:
        """Token counts of input images (minimum, maximum) and of a partial image."""
        return self._merge_tables("tokens_beside")

    @cached_property
    def _layers(self) -> tuple[Facts, ...]:
        return (*((load_provider_data(self._shipped),) if self._shipped else ()), *self._own)

    def _merge_tables(self, table: str) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for layer in self._layers:
            merged |= layer.get(table, {})
        return merged

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], Model]:
        # Services without own data share the models: building them takes milliseconds.
        return self._reader.read_models() if self._own else _load_shipped_models(self._shipped)

    @cached_property
    def _reader(self) -> Reader:
        from imgkit.catalogue.reading import Reader

        return Reader(self._layers)


@cache
def _load_shipped_models(place: str) -> dict[tuple[str, str], Model]:
    from imgkit.catalogue.reading import Reader

    return Reader((load_provider_data(place),) if place else ()).read_models()


@cache
def load_provider_data(place: str) -> Facts:
    """Return the content of a provider's data file.

    Args:
        place: ``"package:file"``.
    """
    import tomllib
    from importlib import resources

    package, _, file = place.partition(":")
    return tomllib.loads(resources.files(package).joinpath(file).read_text("utf-8"))


def is_listed(model: str, patterns: Iterable[str]) -> bool:
    """Return whether a model fits one of some patterns.

    >>> is_listed("acme/paint-2", ["acme/paint-*"])
    True
    """
    return any(fnmatchcase(model, pattern) for pattern in patterns)


def load_own_facts(given: object) -> list[Facts]:
    """Return the user's own data: the files in ``IMGKIT_MODELS``, then the argument ``models=``.

    Args:
        given: the argument: a path, a mapping with the content of such a file, or None.

    Raises:
        ConfigurationError: A file cannot be read, or the data does not fit the schema.
    """
    paths = os.environ.get(VARIABLE, "").split(os.pathsep)
    own_facts = [_read_facts(Path(path), f"{VARIABLE}: ") for path in paths if path]
    if isinstance(given, Mapping):
        own_facts.append(_check_facts(given, "models"))
    elif isinstance(given, str | PathLike):
        own_facts.append(_read_facts(Path(given), "models: "))
    elif given is not None:
        raise ConfigurationError(
            "models must be the path of a TOML file, or a mapping with its content.", field="models"
        )
    return own_facts


def _read_facts(path: Path, where: str) -> Facts:
    import tomllib

    try:
        facts = tomllib.loads(read_regular_file(path, MAX_FACTS_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(
            f"{where}{str(path)[:200]!r} cannot be read: {problem}.", field=where.removesuffix(": ")
        ) from None
    return _check_facts(facts, f"{where}{path}")


def _check_facts(facts: Mapping[str, Any], where: str) -> Facts:
    from imgkit.schemas.model_facts import MODEL_FACTS_SCHEMA
    from imgkit.schemas.typed_schema import SchemaError

    try:
        return MODEL_FACTS_SCHEMA.read(facts)
    except SchemaError as error:
        raise ConfigurationError(f"{where}: {error}", field=where.partition(":")[0]) from None
