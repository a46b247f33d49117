"""The command `imgkit models`: facts about models, with dates and sources."""

from __future__ import annotations

import difflib
import json
import os
from datetime import date
from pkgutil import resolve_name
from typing import Any

from imgkit.catalogue.catalogue import Catalogue, load_own_facts
from imgkit.catalogue.facts import FactSource, InputFacts, Model, Prices, Rule
from imgkit.catalogue.rules import describe_rule, shutdown_notice
from imgkit.cli import console, report
from imgkit.errors import ConfigurationError, UnknownProviderError
from imgkit.images.shapes import Grid
from imgkit.plugins.registry import load_hook_table

_COMMANDS = {"create_image": "create", "create_image_edit": "edit", "create_image_variation": "variation"}


def print_models(*, model: str | None, models: str | None, as_json: bool) -> int:
    """Print all models, or all facts about a model; return the exit code.

    Args:
        model: the id or a snapshot of a model; None for all.
        models: a file of the user's own facts.
        as_json: print a JSON object instead of a table.

    Raises:
        ConfigurationError: the model or the provider is unknown, or a file of facts cannot be read.
    """
    catalogue = load_catalogue(None, models)
    listed = catalogue.list_models()
    if model is not None:
        known = [entry.id for entry in listed]
        listed = [entry for entry in listed if model in (entry.id, *entry.snapshots)]
        if not listed:
            near = difflib.get_close_matches(model.lower()[:60], known, n=3)
            similar = f" Similar: {', '.join(near)}." if near else ""
            raise ConfigurationError(
                f"Unknown model {model!r}.{similar} `imgkit models` lists the known models; --models FILE "
                "adds your own."
            )
    today = date.today()
    if as_json:
        return console.write_bytes(report.encode_json({"models": list(map(_to_json, listed))}))
    if model is not None:
        return console.write_text("\n".join(_format_model(listed[0], catalogue, today)) + "\n")
    width = max(len(entry.id) for entry in listed)
    return console.write_text("".join(f"{_format_row(entry, width, today)}\n" for entry in listed))


def load_catalogue(provider: str | None, models: str | None) -> Catalogue:
    """Return the facts about the models of a provider.

    Args:
        provider: its name; None for IMGKIT_PROVIDER, else openai.
        models: a file of the user's own facts.

    Raises:
        ConfigurationError: the provider is unknown, or a file of facts cannot be read.
    """
    name = provider or os.environ.get("IMGKIT_PROVIDER") or "openai"
    spec = load_hook_table().provider_specs().get(name)
    if spec is None:
        raise UnknownProviderError(f"Unknown provider {name!r} in IMGKIT_PROVIDER. Change or unset it.")
    return Catalogue(name, resolve_name(spec.target).model_facts, load_own_facts(models))


def _format_row(model: Model, width: int, today: date) -> str:
    operations = ", ".join(_COMMANDS[name] for name in model.operations) or "any"
    end = ""
    if model.shutdown is not None:
        end = f"; {'shut down on' if model.shutdown <= today else 'until'} {model.shutdown}"
    as_of = f"read {model.origin.as_of}" if model.origin.as_of else "your own"
    return f"{model.id:<{width}}  {operations:<12}  {_format_prices(model)}  ({as_of}){end}"


def _format_prices(model: Model) -> str:
    prices = model.prices
    if prices is None:
        return "prices unknown"
    amounts = (prices.text_in, prices.image_in, prices.image_out)
    shown = " / ".join("-" if amount is None else f"{amount.normalize():f}" for amount in amounts)
    return f"{shown} {prices.currency} per million tokens (text in / images in / out)"


def _format_model(model: Model, catalogue: Catalogue, today: date) -> list[str]:
    """Return all facts about a model as lines, each with the number of its source."""
    sources: dict[str, int] = {}

    def format_fact(name: str, text: str, origin: FactSource) -> str:
        return f"  {name:<18} {text} [{sources.setdefault(str(origin), len(sources) + 1)}]"

    lines = [model.id, format_fact("hosts", ", ".join(model.hosts), model.origin)]
    if model.snapshots:
        lines.append(format_fact("also", ", ".join(model.snapshots), model.origin))
    lines.append(format_fact("operations", ", ".join(model.operations) or "any", model.origin))
    end = shutdown_notice(model, catalogue, today)
    lines += [format_fact("end", end, model.origin)] if end else []
    if model.prices is not None:
        lines.append(format_fact("prices", _format_prices(model), model.prices.origin))
    inputs = model.inputs
    if inputs is not None:
        formats = ", ".join(sorted(inputs.formats))
        limits = f"up to {inputs.most_images} images of up to {inputs.most_bytes} bytes each"
        lines.append(format_fact("inputs", f"{formats}; {limits}", inputs.origin))
    lines += [format_fact(rule.field, describe_rule(rule), rule.origin) for rule in model.rules]
    return [*lines, *(f"[{number}] {source}" for source, number in sources.items())]


def _to_json(model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "snapshots": list(model.snapshots),
        "hosts": list(model.hosts),
        "operations": list(model.operations),
        "shutdown": model.shutdown and str(model.shutdown),
        "as_of": model.origin.as_of and str(model.origin.as_of),
        "source": model.origin.source,
        "prices": None if model.prices is None else _fact_to_json(model.prices),
        "inputs": None if model.inputs is None else _fact_to_json(model.inputs),
        "rules": [_fact_to_json(rule) for rule in model.rules],
    }


def _fact_to_json(fact: Rule | Prices | InputFacts | Grid) -> dict[str, Any]:
    """Return the fields of a fact that are set, as JSON has them."""
    members: dict[str, Any] = {}
    for name, value in fact._asdict().items():
        if name == "origin":
            members |= {"as_of": value.as_of and str(value.as_of), "source": value.source}
        elif isinstance(value, Grid):
            members[name] = _fact_to_json(value)
        elif value not in (None, (), {}):
            members[name] = sorted(value) if isinstance(value, frozenset) else value
    return json.loads(json.dumps(members, default=str))  # type: ignore[no-any-return]  # an object, as above
