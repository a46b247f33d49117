"""The catalogue of a service: what the provider's data file knows, and the user's own files above it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from functools import cache, cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from imgkit.catalogue.facts import Grid, InputFacts, Model, Origin, Prices, Retired, Rule, Tokens
from imgkit.errors import ConfigurationError

VARIABLE = "IMGKIT_MODELS"
"""Names files of the user's own, separated as in PATH."""

NEAR_DAYS = 60
"""A model that is shut down within so many days is told of."""

_NAMED = ("rules", "inputs", "prices", "tokens")

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
        for one in self._layered("retired"):
            if one["operation"] == operation and host_class in one["hosts"]:
                return Retired(
                    operation=operation,
                    hosts=tuple(one["hosts"]),
                    date=one.get("date"),
                    instead=one.get("instead", ""),
                    origin=one["origin"],
                )
        return None

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

    def _layered(self, table: str) -> Iterator[dict[str, Any]]:
        """Yield the entries of a list, the last file's first, each with its date, source and hosts."""
        for layer in reversed(self._layers):
            for one in layer.get(table, ()):
                yield {"hosts": layer.get("hosts", ["official"]), **one, "origin": _origin(one, layer)}

    @cached_property
    def _tables(self) -> dict[str, dict[str, Any]]:
        """What models refer to by name."""
        tables: dict[str, dict[str, Any]] = {table: {} for table in _NAMED}
        for layer in self._layers:
            for table in _NAMED:
                for name, one in layer.get(table, {}).items():
                    tables[table][name] = {**one, "origin": _origin(one, layer)}
        return tables

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], Model]:
        entries: dict[str, dict[str, Any]] = {}
        for layer in self._layers:
            for one in layer.get("models", ()):
                entries[one["id"]] = _entry(one, layer, entries)
        found: dict[tuple[str, str], Model] = {}
        for entry in entries.values():
            model = self._model(entry)
            found |= {(host, name): model for host in model.hosts for name in (model.id, *model.snapshots)}
        return found

    def _model(self, entry: Mapping[str, Any]) -> Model:
        return Model(
            id=entry["id"],
            snapshots=tuple(entry.get("snapshots", ())),
            hosts=tuple(entry["hosts"]),
            operations=tuple(entry.get("operations", ())),
            rules=tuple(self._rule(name, entry) for name in entry.get("rules", ())),
            shutdown=entry.get("shutdown"),
            inputs=_inputs(self._named("inputs", entry)),
            prices=_prices(self._named("prices", entry)),
            tokens=_tokens(self._named("tokens", entry)),
            origin=entry["origin"],
        )

    def _rule(self, name: str, entry: Mapping[str, Any]) -> Rule:
        one = self._named("rules", entry, name)
        assert one is not None, "a name was given"
        fields = {key: one[key] for key in _RULE_KEYS if key in one}
        grid = Grid(**one["grid"]) if "grid" in one else None
        when = {field: tuple(values) for field, values in one.get("when", {}).items()}
        return Rule(
            name=name,
            grid=grid,
            when=when,
            allowed=tuple(one.get("allowed", ())),
            origin=one["origin"],
            **fields,
        )

    def _named(self, table: str, entry: Mapping[str, Any], name: str | None = None) -> dict[str, Any] | None:
        name = entry.get(table) if name is None else name
        if name is None:
            return None
        if name not in self._tables[table]:
            raise ConfigurationError(f"models: {entry['id']!r} names {table}.{name}, which is not there")
        found: dict[str, Any] = self._tables[table][name]
        return found


def _entry(one: Mapping[str, Any], layer: Facts, known: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a model with what it has of the model that it is like, or of what an earlier file says of it."""
    base = dict(known.get(one.get("like", one["id"]), {}))
    if "like" in one:
        if not base:
            raise ConfigurationError(f"models: {one['id']!r} is like {one['like']!r}, which is not known")
        base.pop("snapshots", None)
    hosts = one.get("hosts") or layer.get("hosts") or base.get("hosts") or ["official"]
    return {**base, **one, "hosts": hosts, "origin": _origin(one, layer)}


_RULE_KEYS = ("field", "least", "most", "longest", "refused", "why", "sure")
_PRICE_KEYS = ("text_in", "image_in", "text_out", "image_out")


def _inputs(one: dict[str, Any] | None) -> InputFacts | None:
    if one is None:
        return None
    fields = {key: value for key, value in one.items() if key not in ("formats", "source", "as_of")}
    return InputFacts(formats=frozenset(one.get("formats", ())), **fields)


def _prices(one: dict[str, Any] | None) -> Prices | None:
    if one is None:
        return None
    amounts = {key: Decimal(str(one[key])) for key in _PRICE_KEYS if key in one}
    return Prices(currency=one["currency"], origin=one["origin"], **amounts)


def _tokens(one: dict[str, Any] | None) -> Tokens | None:
    if one is None:
        return None
    not_of = one.get("not_of", {})
    by_quality = {key: sizes for key, sizes in one.items() if isinstance(sizes, dict) and key != "not_of"}
    return Tokens(by_quality=by_quality, note=one.get("note", ""), not_of=not_of, origin=one["origin"])


def _origin(one: Mapping[str, Any], layer: Facts) -> Origin:
    source = one.get("source", "")
    return Origin(
        as_of=one.get("as_of", layer.get("as_of")), source=layer.get("sources", {}).get(source, source)
    )


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
    from imgkit.schemas.model_facts import MODEL_FACTS

    try:
        MODEL_FACTS.read(facts)
    except SchemaError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    return dict(facts)
