"""The reader that builds facts from data files, resolves references, and adds dates and sources.

The catalogue imports it with the first lookup. Many calls need none: no file has their host or model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any

from imgkit.catalogue.facts import (
    Facts,
    FactSource,
    InputFacts,
    Model,
    PaceFacts,
    Prices,
    Retired,
    Rule,
    Tokens,
)
from imgkit.errors import ConfigurationError
from imgkit.images.shapes import Grid

_NAMED = ("rules", "inputs", "prices", "tokens")
_RULE_KEYS = ("field", "least", "most", "longest", "refused", "why", "sure")
_PACE_KEYS = ("requests_in_flight", "images_in_flight", "requests_per_minute", "images_per_minute", "sure")
_PRICE_KEYS = ("text_in", "image_in", "text_out", "image_out", "per_image", "per_megapixel")


class Reader:
    """A reader of the data of one provider.

    Args:
        layers: the files' content; later files override earlier files.
    """

    def __init__(self, layers: Sequence[Facts]) -> None:
        self._layers = layers

    def read_models(self) -> dict[tuple[str, str], Model]:
        """Return all models by class of hosts and name, in the order of the files.

        Raises:
            ConfigurationError: A model refers to a missing table or model.
        """
        entries: dict[str, dict[str, Any]] = {}
        for layer in self._layers:
            for model in layer.get("models", ()):
                entries[model["id"]] = _merge_entry(model, layer, entries)
        models: dict[tuple[str, str], Model] = {}
        for entry in entries.values():
            built = self._build_model(entry)
            names = (built.id, *built.snapshots)
            models |= {(host, name): built for host in built.hosts for name in names}
        return models

    def find_retirement(self, operation: str, host_class: str) -> Retired | None:
        """Return the last file's data about an operation that a class of hosts lacks, else None."""
        for layer in reversed(self._layers):
            for entry in layer.get("retired", ()):
                hosts = entry.get("hosts", layer.get("hosts", ["official"]))
                if entry["operation"] == operation and host_class in hosts:
                    return Retired(
                        operation=operation,
                        hosts=tuple(hosts),
                        date=entry.get("date"),
                        instead=entry.get("instead", ""),
                        origin=_build_source(entry, layer),
                    )
        return None

    def find_pace(self, host_class: str) -> PaceFacts | None:
        """Return the last file's limits on the pace at a class of hosts, None for none."""
        for layer in reversed(self._layers):
            table = layer.get("pace")
            if table is not None and host_class in layer.get("hosts", ["official"]):
                limits = {key: table[key] for key in _PACE_KEYS if key in table}
                return PaceFacts(**limits, origin=_build_source(table, layer))
        return None

    @cached_property
    def _tables(self) -> dict[str, dict[str, Any]]:
        """The tables that models refer to, by kind and name."""
        tables: dict[str, dict[str, Any]] = {table: {} for table in _NAMED}
        for layer in self._layers:
            for table in _NAMED:
                for name, entry in layer.get(table, {}).items():
                    tables[table][name] = {**entry, "origin": _build_source(entry, layer)}
        return tables

    def _build_model(self, entry: Mapping[str, Any]) -> Model:
        return Model(
            id=entry["id"],
            snapshots=tuple(entry.get("snapshots", ())),
            hosts=tuple(entry["hosts"]),
            operations=tuple(entry.get("operations", ())),
            rules=tuple(self._build_rule(name, entry) for name in entry.get("rules", ())),
            shutdown=entry.get("shutdown"),
            inputs=_build_inputs(self._find_table("inputs", entry.get("inputs"), entry)),
            prices=_build_prices(self._find_table("prices", entry.get("prices"), entry)),
            tokens=_build_tokens(self._find_table("tokens", entry.get("tokens"), entry)),
            origin=entry["origin"],
        )

    def _build_rule(self, name: str, entry: Mapping[str, Any]) -> Rule:
        table = self._find_table("rules", name, entry) or {}
        fields = {key: table[key] for key in _RULE_KEYS if key in table}
        grid = Grid(**table["grid"]) if "grid" in table else None
        when = {field: tuple(values) for field, values in table.get("when", {}).items()}
        return Rule(
            name=name,
            grid=grid,
            when=when,
            operations=tuple(table.get("operations", ())),
            allowed=tuple(table.get("allowed", ())),
            origin=table["origin"],
            **fields,
        )

    def _find_table(self, kind: str, name: str | None, entry: Mapping[str, Any]) -> dict[str, Any] | None:
        if name is None:
            return None
        if name not in self._tables[kind]:
            raise ConfigurationError(
                f"models: {entry['id']!r} refers to {kind}.{name}, which is missing.", field="models"
            )
        table: dict[str, Any] = self._tables[kind][name]
        return table


def _merge_entry(
    model: Mapping[str, Any], layer: Facts, entries: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return a model's entry, merged over the entry that it is "like" or over an earlier file's entry."""
    base = dict(entries.get(model.get("like", model["id"]), {}))
    if "like" in model:
        if not base:
            raise ConfigurationError(
                f"models: {model['id']!r} is like {model['like']!r}, which is missing.", field="models"
            )
        base.pop("snapshots", None)
    hosts = model.get("hosts") or layer.get("hosts") or base.get("hosts") or ["official"]
    origin = _build_source(model, layer)
    if "like" in model and origin.as_of and not origin.source:
        origin = origin._replace(source=base["origin"].source)
    return {**base, **model, "hosts": hosts, "origin": origin}


def _build_inputs(table: dict[str, Any] | None) -> InputFacts | None:
    if table is None:
        return None
    fields = {key: value for key, value in table.items() if key not in ("formats", "source", "as_of")}
    return InputFacts(formats=frozenset(table.get("formats", ())), **fields)


def _build_prices(table: dict[str, Any] | None) -> Prices | None:
    if table is None:
        return None
    amounts = {key: Decimal(str(table[key])) for key in _PRICE_KEYS if key in table}
    by_field = {
        field: {value: Decimal(str(amount)) for value, amount in by_value.items()}
        for field, by_value in table.get("per_image_by", {}).items()
    }
    return Prices(currency=table["currency"], origin=table["origin"], per_image_by=by_field, **amounts)


def _build_tokens(table: dict[str, Any] | None) -> Tokens | None:
    if table is None:
        return None
    not_of = table.get("not_of", {})
    by_quality = {key: sizes for key, sizes in table.items() if isinstance(sizes, dict) and key != "not_of"}
    return Tokens(by_quality=by_quality, note=table.get("note", ""), not_of=not_of, origin=table["origin"])


def _build_source(table: Mapping[str, Any], layer: Facts) -> FactSource:
    source = table.get("source", "")
    return FactSource(
        as_of=table.get("as_of", layer.get("as_of")), source=layer.get("sources", {}).get(source, source)
    )
