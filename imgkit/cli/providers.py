"""The command `imgkit providers`: the providers, their abilities, options and models."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import date

from imgkit.catalogue.catalogue import Catalogue, load_own_facts
from imgkit.catalogue.facts import FactSource, InputFacts, PaceFacts
from imgkit.catalogue.rules import describe_rule
from imgkit.cli import console, report
from imgkit.cli.columns import format_columns, format_pairs
from imgkit.cli.models import (
    COMMANDS,
    describe_inputs,
    describe_model,
    describe_option,
    option_to_json,
    to_json,
)
from imgkit.cli.status_line import count_columns
from imgkit.plugins.hookspecs import ProviderSpec
from imgkit.plugins.table import NamedSpec
from imgkit.providers.listing import (
    ProviderInfo,
    describe_provider,
    find_provider,
    list_limits,
    list_providers,
)

_COLUMNS = ("provider", "operations", "mask", "n", "stream", "job", "prices", "key variable")
_MASKS = {"transparent": "alpha", None: "-"}


def print_providers(*, name: str | None, as_json: bool) -> int:
    """Print all providers, or one with its options and models; return the exit code.

    Args:
        name: the name of a provider; None for all.
        as_json: print a JSON object instead of text.

    Raises:
        ConfigurationError: the provider is unknown.
    """
    width = count_columns(sys.stdout)
    if name is None:
        providers = list_providers()
        if as_json:
            entries = list(map(_to_json, providers))
            return console.write_bytes(report.encode_json({"providers": entries}))
        rows = [_format_row(info) for info in providers]
        return console.write_text("\n".join(format_columns(_COLUMNS, rows, width)) + "\n")
    named = find_provider(name)
    info = describe_provider(named)
    catalogue = _load_catalogue(named, info)
    if as_json:
        entry = {**_to_json(info), **_facts_to_json(catalogue)}
        return console.write_bytes(report.encode_json({"providers": [entry]}))
    return console.write_text("\n".join(_describe(info, catalogue, width)) + "\n")


def _load_catalogue(named: NamedSpec[ProviderSpec], info: ProviderInfo) -> Catalogue:
    """Return the facts about a provider, with those of the user; a broken provider has none of its own."""
    facts = "" if info.problem else named.load().model_facts
    return Catalogue(info.name, facts, load_own_facts(None))


def _format_row(info: ProviderInfo) -> tuple[str, ...]:
    if info.problem is not None:
        return (info.name, "cannot be loaded", "", "", "", "", "", f"`imgkit providers {info.name}` says why")
    operations = " ".join(COMMANDS[name] for name in info.operations)
    return (
        info.name,
        operations,
        _MASKS.get(info.mask, info.mask or "-"),
        str(info.max_images_per_request or "?"),
        "yes" if info.streams else "-",
        "yes" if info.runs_jobs else "-",
        {"own server": "own", "no": "unknown"}.get(info.prices, info.prices),
        " ".join(info.key_variables) or "-",
    )


def _describe(info: ProviderInfo, catalogue: Catalogue, width: int) -> Iterator[str]:
    """Yield the lines about a provider: abilities, options, models, unconfirmed facts and sources."""
    yield from format_pairs(
        [("", f"{info.name}: {info.summary}" if info.summary else info.name)], width, indent=0
    )
    if info.problem is not None:
        yield from format_pairs([("problem", info.problem)], width)
        return
    sources: dict[str, int] = {}

    def cite(origin: FactSource) -> str:
        return f"[{sources.setdefault(str(origin), len(sources) + 1)}]"

    abilities = list(_list_abilities(info, catalogue))
    pace = _find_pace(catalogue)
    if pace is not None:
        abilities.append(("pace", f"{_describe_pace(pace)} {cite(pace.origin)}"))
    yield from format_pairs(abilities, width)
    options = [
        (option.name, f"{describe_option(option)} {cite(option.origin)}")
        for option in catalogue.options.values()
    ]
    if options or catalogue.has_open_options:
        yield "options (--set NAME=VALUE)"
        yield from format_pairs(options, width)
        if catalogue.has_open_options:
            yield from format_pairs(
                [("", "Any other option is sent unchecked: models have their own.")], width
            )
    today = date.today()
    models = [
        (model.id, f"{describe_model(model, today)} {cite(model.origin)}")
        for model in catalogue.list_models()
    ]
    if models:
        yield "models"
        yield from format_pairs(models, width)
    unconfirmed = dict.fromkeys([*catalogue.unconfirmed, *_list_doubts(catalogue, cite)])
    if unconfirmed:
        yield "unconfirmed"
        yield from format_pairs([("", phrase) for phrase in unconfirmed], width)
    yield from format_pairs([(f"[{number}]", source) for source, number in sources.items()], width, indent=0)


def _list_abilities(info: ProviderInfo, catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    if info.distribution:
        yield "plugin", info.distribution
    yield "address", info.base_url or "your own (--base-url)"
    variables = " or ".join(info.key_variables)
    console_page = f"; {info.console} has your keys" if info.console else ""
    yield "key", f"{variables}{'' if info.needs_key else ', optional'}{console_page}"
    for name, fields in info.operations.items():
        yield COMMANDS[name], "any field" if fields is None else ", ".join(fields)
    if info.emulates_variations:
        yield "variation", "by an edit"
    yield "mask", f"{info.mask} pixels may change" if info.mask else "none"
    most = info.max_images_per_request
    yield "images", f"up to {most} a request; imgkit splits more" if most else "unknown"
    yield "seed", "yes" if info.takes_seed else "no"
    yield "stream", "yes" if info.streams else "no"
    yield "jobs", "yes" if info.runs_jobs else "no"
    yield "prices", _explain_prices(info, catalogue)
    sure, count = info.facts
    if count:
        others = "; the others only warn" if sure < count else ""
        yield "facts", f"{sure} of {count} rules are confirmed{others}"


def _find_pace(catalogue: Catalogue) -> PaceFacts | None:
    """Return the limits on the pace at the provider's own hosts, or at servers of its dialect."""
    return catalogue.find_pace("official") or catalogue.find_pace("compatible")


def _describe_pace(pace: PaceFacts) -> str:
    """Return the limits on a line, such as "24 requests in flight, 60 images per minute"."""
    limits = []
    for name in PaceFacts._fields[:4]:
        most = getattr(pace, name)
        if most is not None:
            words = name.replace("s_", "_", 1) if most == 1 else name
            limits.append(f"{most:g} {words.replace('_', ' ')}")
    return ", ".join(limits) + ("" if pace.sure else "; doubtful")


def _pace_to_json(pace: PaceFacts) -> dict[str, object]:
    as_of, source = pace.origin
    members = pace._asdict() | {"as_of": as_of and str(as_of), "source": source}
    del members["origin"]
    return members


def _explain_prices(info: ProviderInfo, catalogue: Catalogue) -> str:
    models = catalogue.list_models()
    priced = [model for model in models if model.prices is not None]
    match info.prices:
        case "reply":
            return "the reply tells the cost"
        case "own server":
            return "none: your own server"
        case "no":
            return "unknown"
    return f"known for {len(priced)} of {len(models)} models"


def _list_doubts(catalogue: Catalogue, cite: Callable[[FactSource], str]) -> Iterator[str]:
    """Yield the rules that nobody has confirmed, each with its first model and its source."""
    models = catalogue.list_models()
    for limit in list_limits(models):
        if limit.sure:
            continue
        named = [model.id for model in models if limit in (*model.rules, model.inputs)]
        place = f"{named[0]} and {len(named) - 1} more" if len(named) > 1 else named[0]
        if isinstance(limit, InputFacts):
            subject, text = "input images", describe_inputs(limit)
        else:
            subject, text = limit.field, describe_rule(limit)
        yield f"{subject} of {place}: {text.removesuffix('; doubtful')} {cite(limit.origin)}"


def _to_json(info: ProviderInfo) -> dict[str, object]:
    members = asdict(info)
    members["facts"] = dict(zip(("confirmed", "all"), info.facts, strict=True))
    return members


def _facts_to_json(catalogue: Catalogue) -> dict[str, object]:
    pace = _find_pace(catalogue)
    return {
        "as_of": catalogue.as_of and str(catalogue.as_of),
        "unconfirmed": list(catalogue.unconfirmed),
        "open_options": catalogue.has_open_options,
        "pace": None if pace is None else _pace_to_json(pace),
        "options": list(map(option_to_json, catalogue.options.values())),
        "models": list(map(to_json, catalogue.list_models())),
    }
