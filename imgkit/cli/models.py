"""The command `imgkit models`: facts about models, with dates and sources."""

from __future__ import annotations

import difflib
import json
import os
import sys
from datetime import date
from decimal import Decimal
from typing import Any

from imgkit.catalogue.adaptation import SHAPE
from imgkit.catalogue.catalogue import Catalogue, load_own_facts
from imgkit.catalogue.facts import FactSource, InputFacts, Model, Prices, Rule
from imgkit.catalogue.model_options import ModelOption, select_options
from imgkit.catalogue.rules import describe_rule, shutdown_notice
from imgkit.cli import console, report
from imgkit.cli.columns import format_pairs
from imgkit.cli.status_line import count_columns
from imgkit.errors import ConfigurationError
from imgkit.images.shapes import Grid
from imgkit.providers.listing import find_provider

COMMANDS = {"create_image": "create", "create_image_edit": "edit", "create_image_variation": "variation"}

MAX_SHAPES = 4
"""Longest list of sizes or ratios in the line about a model."""


def print_models(*, model: str | None, models: str | None, as_json: bool, provider: str | None = None) -> int:
    """Print all models, or all facts about a model; return the exit code.

    Args:
        model: the id or a snapshot of a model; None for all.
        models: a file of the user's own facts.
        as_json: print a JSON object instead of a table.
        provider: name of the provider; None for IMGKIT_PROVIDER, else openai.

    Raises:
        ConfigurationError: the model or the provider is unknown, or a file of facts cannot be read.
    """
    catalogue = load_catalogue(provider, models)
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
        entries = [{**to_json(entry), "options": _list_options(entry, catalogue)} for entry in listed]
        return console.write_bytes(report.encode_json({"models": entries}))
    if not listed:
        name = _name_provider(provider)
        console.print_message(
            f"imgkit: No facts about models of {name}. Any name that its API has works; --models FILE adds "
            f"facts. `imgkit providers {name}` shows the rest."
        )
    columns = count_columns(sys.stdout)
    if model is not None:
        lines = [listed[0].id, *_format_model(listed[0], catalogue, today, columns)]
    else:
        lines = format_pairs(
            [(entry.id, describe_model(entry, today)) for entry in listed], columns, indent=0
        )
    return console.write_text("".join(f"{line}\n" for line in lines))


def load_catalogue(provider: str | None, models: str | None) -> Catalogue:
    """Return the facts about the models of a provider.

    Args:
        provider: its name; None for IMGKIT_PROVIDER, else openai.
        models: a file of the user's own facts.

    Raises:
        ConfigurationError: the provider is unknown, or a file of facts cannot be read.
    """
    name = _name_provider(provider)
    return Catalogue(name, find_provider(name).load().model_facts, load_own_facts(models))


def _name_provider(provider: str | None) -> str:
    return provider or os.environ.get("IMGKIT_PROVIDER") or "openai"


def describe_model(model: Model, today: date) -> str:
    """Return a line about a model: operations, shapes, prices, date and end."""
    operations = ", ".join(COMMANDS[name] for name in model.operations) or "any"
    end = ""
    if model.shutdown is not None:
        end = f"; {'shut down on' if model.shutdown <= today else 'until'} {model.shutdown}"
    as_of = f"read {model.origin.as_of}" if model.origin.as_of else "your own"
    rules = [rule for rule in model.rules if rule.field in SHAPE and not rule.refused]
    shapes = "".join(f"; {rule.field} {_describe_shape(rule)}" for rule in rules)
    return f"{operations}{shapes}; {format_prices(model)} ({as_of}){end}"


def _describe_shape(rule: Rule) -> str:
    """Return the shapes that a rule accepts, in few words."""
    if len(rule.allowed) > MAX_SHAPES:
        return f"{', '.join(map(str, rule.allowed[:MAX_SHAPES]))}, … ({len(rule.allowed)} values)"
    return describe_rule(rule)


def format_prices(model: Model) -> str:
    """Return the prices of a model, in words."""
    prices = model.prices
    if prices is None:
        return "prices unknown"
    by_token = (prices.text_in, prices.image_in, prices.image_out)
    parts = []
    if any(amount is not None for amount in by_token):
        shown = " / ".join("-" if amount is None else _format_amount(amount) for amount in by_token)
        parts.append(f"{shown} {prices.currency} per million tokens (text in / images in / out)")
    if prices.per_image is not None:
        parts.append(f"{_format_amount(prices.per_image)} {prices.currency} per image")
    if prices.per_megapixel is not None:
        parts.append(f"{_format_amount(prices.per_megapixel)} {prices.currency} per megapixel")
    for field, amounts in prices.per_image_by.items():
        by_value = ", ".join(f"{value} {_format_amount(amount)}" for value, amount in amounts.items())
        parts.append(f"{prices.currency} per image by {field}: {by_value}")
    return "; ".join(parts) or "prices unknown"


def _format_amount(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


def _format_model(model: Model, catalogue: Catalogue, today: date, columns: int) -> list[str]:
    """Return all facts about a model as lines, each with the number of its source."""
    sources: dict[str, int] = {}

    def cite(name: str, text: str, origin: FactSource) -> tuple[str, str]:
        return name, f"{text} [{sources.setdefault(str(origin), len(sources) + 1)}]"

    facts = [cite("hosts", ", ".join(model.hosts), model.origin)]
    if model.snapshots:
        facts.append(cite("also", ", ".join(model.snapshots), model.origin))
    facts.append(cite("operations", ", ".join(model.operations) or "any", model.origin))
    end = shutdown_notice(model, catalogue, today)
    facts += [cite("end", end, model.origin)] if end else []
    if model.prices is not None:
        facts.append(cite("prices", format_prices(model), model.prices.origin))
    inputs = model.inputs
    if inputs is not None:
        facts.append(cite("inputs", describe_inputs(inputs), inputs.origin))
    facts += [cite(rule.field, describe_rule(rule), rule.origin) for rule in model.rules]
    options = [
        cite(option.name, describe_option(option), option.origin)
        for option in select_options(catalogue.options, model.id).values()
    ]
    lines = format_pairs(facts, columns)
    if options:
        lines += ["options (--set NAME=VALUE)", *format_pairs(options, columns)]
    return [
        *lines,
        *format_pairs([(f"[{number}]", text) for text, number in sources.items()], columns, indent=0),
    ]


def describe_inputs(inputs: InputFacts) -> str:
    """Return the formats and limits of input images, in words."""
    parts = [", ".join(sorted(inputs.formats))] if inputs.formats else []
    if inputs.most_images is not None:
        parts.append(f"up to {inputs.most_images} images")
    if inputs.most_bytes is not None:
        parts.append(f"up to {inputs.most_bytes} bytes each")
    return "; ".join(parts) or "any"


def describe_option(option: ModelOption) -> str:
    """Return the values, the help and the models of an option, in words."""
    parts = [f"{option.values}."]
    if option.help:
        parts.append(option.help)
    if option.operations:
        parts.append(f"For {', '.join(COMMANDS[name] for name in option.operations)}.")
    if option.models:
        parts.append(f"Models: {', '.join(option.models)}.")
    return " ".join(parts)


def _list_options(model: Model, catalogue: Catalogue) -> list[dict[str, object]]:
    return list(map(option_to_json, select_options(catalogue.options, model.id).values()))


def option_to_json(option: ModelOption) -> dict[str, object]:
    """Return an option as JSON has it."""
    return _fact_to_json(option)


def to_json(model: Model) -> dict[str, object]:
    """Return the facts about a model as JSON has them."""
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


def _fact_to_json(fact: Rule | Prices | InputFacts | Grid | ModelOption) -> dict[str, Any]:
    """Return the fields of a fact that are set, as JSON has them."""
    members: dict[str, Any] = {}
    for name, value in fact._asdict().items():
        if name == "origin":
            members |= {"as_of": value.as_of and str(value.as_of), "source": value.source}
        elif isinstance(value, Grid):
            members[name] = _fact_to_json(value)
        elif value not in (None, (), {}, ""):
            members[name] = sorted(value) if isinstance(value, frozenset) else value
    return json.loads(json.dumps(members, default=str))  # type: ignore[no-any-return]  # an object, as above
