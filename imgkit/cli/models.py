"""`imgkit models`: what is known of them, with its date and source."""

from __future__ import annotations

import json
import os
from datetime import date
from pkgutil import resolve_name
from typing import Any

from imgkit.catalogue.catalogue import Catalogue, load_own_facts
from imgkit.catalogue.facts import FactSource, Grid, InputFacts, Model, Prices, Rule
from imgkit.catalogue.rules import describe_rule, shutdown_notice
from imgkit.cli import console as streams
from imgkit.cli import exit_codes as exits
from imgkit.errors import UnknownProviderError
from imgkit.plugins.registry import load_hook_table
from imgkit.redact import format_suggestion

_SHORT = {"create_image": "create", "create_image_edit": "edit", "create_image_variation": "variation"}


def show(*, model: str | None, models: str | None, as_json: bool) -> int:
    """Print the models, or all that is known of one; return the exit code.

    Args:
        model: id or snapshot of the one that is wanted.
        models: file of the user's own facts.
        as_json: one object instead of a table.

    Raises:
        ConfigurationError: the provider, or a file of facts, cannot be read.
    """
    catalogue = _catalogue(models)
    listed = catalogue.list_models()
    if model is not None:
        listed = [one for one in listed if model in (one.id, *one.snapshots)]
        if not listed:
            known = [one.id for one in catalogue.list_models()]
            streams.tell(
                f"imgkit: nothing is known of {model!r}{format_suggestion(model, known)}; "
                "it would pass unchecked"
            )
            return exits.BUG
    today = date.today()
    if as_json:
        entries = [_entry(one) for one in listed]
        return streams.send_text(json.dumps({"schema_version": 1, "models": entries}) + "\n")
    if model is not None:
        return streams.send_text("\n".join(_described(listed[0], catalogue, today)) + "\n")
    width = max(len(one.id) for one in listed)
    lines = [_line(one, width, today) for one in listed]
    return streams.send_text("\n".join(lines) + "\n")


def _catalogue(models: str | None) -> Catalogue:
    name = os.environ.get("IMGKIT_PROVIDER") or "openai"
    spec = load_hook_table().provider_specs().get(name)
    if spec is None:
        raise UnknownProviderError(f"IMGKIT_PROVIDER is {name}, which no plugin offers: change or unset it")
    return Catalogue(name, resolve_name(spec.target).model_facts, load_own_facts(models))


def _line(model: Model, width: int, today: date) -> str:
    operations = ", ".join(_SHORT[one] for one in model.operations) or "any"
    end = ""
    if model.shutdown is not None:
        end = f"; {'gone since' if model.shutdown <= today else 'ends'} {model.shutdown}"
    as_of = f"read {model.origin.as_of}" if model.origin.as_of else "your own"
    return f"{model.id:<{width}}  {operations:<12}  {_prices(model)}  ({as_of}){end}"


def _prices(model: Model) -> str:
    prices = model.prices
    if prices is None:
        return "prices not known"
    amounts = (prices.text_in, prices.image_in, prices.image_out)
    shown = " / ".join("-" if one is None else f"{one.normalize():f}" for one in amounts)
    return f"{shown} {prices.currency} per million tokens (text in / pictures in / out)"


def _described(model: Model, catalogue: Catalogue, today: date) -> list[str]:
    """Return all that is known of a model as lines, each with the number of its source."""
    sources: dict[str, int] = {}

    def line(name: str, text: str, origin: FactSource) -> str:
        return f"  {name:<18} {text} [{sources.setdefault(str(origin), len(sources) + 1)}]"

    lines = [model.id, line("hosts", ", ".join(model.hosts), model.origin)]
    if model.snapshots:
        lines.append(line("also", ", ".join(model.snapshots), model.origin))
    lines.append(line("operations", ", ".join(model.operations) or "any", model.origin))
    end = shutdown_notice(model, catalogue, today)
    lines += [line("end", end, model.origin)] if end else []
    if model.prices is not None:
        lines.append(line("prices", _prices(model), model.prices.origin))
    inputs = model.inputs
    if inputs is not None:
        formats = ", ".join(sorted(inputs.formats))
        most = f"up to {inputs.most_images} of up to {inputs.most_bytes} bytes"
        lines.append(line("inputs", f"{formats}; {most}", inputs.origin))
    lines += [line(rule.field, describe_rule(rule), rule.origin) for rule in model.rules]
    return [*lines, *(f"[{number}] {source}" for source, number in sources.items())]


def _entry(model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "snapshots": list(model.snapshots),
        "hosts": list(model.hosts),
        "operations": list(model.operations),
        "shutdown": model.shutdown and str(model.shutdown),
        "as_of": model.origin.as_of and str(model.origin.as_of),
        "source": model.origin.source,
        "prices": None if model.prices is None else _facts(model.prices),
        "inputs": None if model.inputs is None else _facts(model.inputs),
        "rules": [_facts(rule) for rule in model.rules],
    }


def _facts(thing: Rule | Prices | InputFacts | Grid) -> dict[str, Any]:
    """Return the fields of a fact as JSON has them, those that are set."""
    told: dict[str, Any] = {}
    for name, value in thing._asdict().items():
        if name == "origin":
            told |= {"as_of": value.as_of and str(value.as_of), "source": value.source}
        elif isinstance(value, Grid):
            told[name] = _facts(value)
        elif value not in (None, (), {}):
            told[name] = sorted(value) if isinstance(value, frozenset) else value
    return json.loads(json.dumps(told, default=str))  # type: ignore[no-any-return]  # an object, as above
