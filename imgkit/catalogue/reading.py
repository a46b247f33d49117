"""From data files to facts: what models refer to is looked up, and each fact gets its date and source.

Imported when something is looked up, since many calls ask for nothing: their host or model is in no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any

from imgkit.catalogue.catalogue import Facts
from imgkit.catalogue.facts import FactSource, Grid, InputFacts, Model, Prices, Retired, Rule, Tokens
from imgkit.errors import ConfigurationError

_NAMED = ("rules", "inputs", "prices", "tokens")
_RULE_KEYS = ("field", "least", "most", "longest", "refused", "why", "sure")
_PRICE_KEYS = ("text_in", "image_in", "text_out", "image_out")


class Reader:
    """Reads the data of one provider.

    Args:
        layers: the files, the last of which wins.
    """

    def __init__(self, layers: Sequence[Facts]) -> None:
        self._layers = layers

    def models(self) -> dict[tuple[str, str], Model]:
        """Return all models by class of hosts and name, in the order of the files.

        Raises:
            ConfigurationError: one refers to what is not there.
        """
        entries: dict[str, dict[str, Any]] = {}
        for layer in self._layers:
            for one in layer.get("models", ()):
                entries[one["id"]] = _entry(one, layer, entries)
        found: dict[tuple[str, str], Model] = {}
        for entry in entries.values():
            model = self._model(entry)
            found |= {(host, name): model for host in model.hosts for name in (model.id, *model.snapshots)}
        return found

    def retired(self, operation: str, host_class: str) -> Retired | None:
        """Return what the last file knows that knows of an operation that a class of hosts lacks."""
        for layer in reversed(self._layers):
            for one in layer.get("retired", ()):
                hosts = one.get("hosts", layer.get("hosts", ["official"]))
                if one["operation"] == operation and host_class in hosts:
                    return Retired(
                        operation=operation,
                        hosts=tuple(hosts),
                        date=one.get("date"),
                        instead=one.get("instead", ""),
                        origin=_origin(one, layer),
                    )
        return None

    @cached_property
    def _tables(self) -> dict[str, dict[str, Any]]:
        """What models refer to by name."""
        tables: dict[str, dict[str, Any]] = {table: {} for table in _NAMED}
        for layer in self._layers:
            for table in _NAMED:
                for name, one in layer.get(table, {}).items():
                    tables[table][name] = {**one, "origin": _origin(one, layer)}
        return tables

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


def _origin(one: Mapping[str, Any], layer: Facts) -> FactSource:
    source = one.get("source", "")
    return FactSource(
        as_of=one.get("as_of", layer.get("as_of")), source=layer.get("sources", {}).get(source, source)
    )
