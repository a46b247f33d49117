"""The options that a single API has: their types and ranges, as data, and the check of the given ones."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from imgkit.catalogue.facts import Facts, FactSource
from imgkit.redact import format_suggestion, is_secret_member
from imgkit.schemas.model_facts import OPTION_TYPES
from imgkit.wire.plain_values import show_value

SHARED_WORDS = frozenset(
    {"prompt", "model", "n", "size", "aspect_ratio", "resolution", "seed", "negative_prompt"}
)
"""Parameters of requests that are no options."""

_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


class ModelOption(NamedTuple):
    """An option of an API beside the parameters that all APIs share.

    Attributes:
        name: its name, as the API writes it.
        type: a name in `OPTION_TYPES`.
        help: a line about it.
        least, most: bounds of a number.
        allowed: the accepted values.
        models: patterns of the models that have it; () for all.
        operations: the operations that have it; () for all.
        origin: date and source.
    """

    name: str
    type: str
    help: str = ""
    least: float | None = None
    most: float | None = None
    allowed: tuple[Any, ...] = ()
    models: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    origin: FactSource = FactSource()

    @property
    def values(self) -> str:
        """The accepted values in words.

        >>> ModelOption("steps", "int", least=1, most=50).values
        'a whole number from 1 to 50'
        """
        if self.allowed:
            return " or ".join(map(str, self.allowed))
        word = _WORDS.get(self.type, f"a JSON {self.type}")
        if self.least is None and self.most is None:
            return word
        if self.most is None:
            return f"{word} from {self.least:.15g}"
        return (
            f"{word} up to {self.most:.15g}"
            if self.least is None
            else f"{word} from {self.least:.15g} to {self.most:.15g}"
        )

    def find_problem(self, value: object) -> str | None:
        """Return why a value does not fit, None for a good one."""
        kinds = OPTION_TYPES[self.type]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = type(value) in kinds
        if fits and is_number:
            number = float(value)  # type: ignore[arg-type]  # it is a number
            fits = (self.least is None or number >= self.least) and (self.most is None or number <= self.most)
        if fits and self.allowed:
            fits = value in self.allowed
        shown = "a hidden value" if is_secret_member(self.name) else show_value(value)
        return None if fits else f"It takes {self.values}, not {shown}."


def read_options(layers: tuple[Facts, ...]) -> dict[str, ModelOption]:
    """Return the options of a provider by the names of their tables, from its data files.

    Tables for several models may have the same ``name``.
    """
    options: dict[str, ModelOption] = {}
    for layer in layers:
        for name, entry in layer.get("options", {}).items():
            values = {key: value for key, value in entry.items() if key not in ("source", "as_of")}
            for key in ("allowed", "models", "operations"):
                values[key] = tuple(values.get(key, ()))
            source = layer.get("sources", {}).get(entry.get("source", ""), entry.get("source", ""))
            origin = FactSource(entry.get("as_of", layer.get("as_of")), source)
            options[name] = ModelOption(origin=origin, **{"name": name, **values})
    return options


def select_options(
    options: Mapping[str, ModelOption], model: str | None, operation: str | None = None
) -> dict[str, ModelOption]:
    """Return the options of a model and an operation by name; None stands for any.

    Of several tables for an option, the last that fits counts.
    """
    return {
        option.name: option
        for option in options.values()
        if (not option.models or model is None or any(fnmatchcase(model, each) for each in option.models))
        and (not option.operations or operation is None or operation in option.operations)
    }


def check_options(
    given: Mapping[str, Any], known: Mapping[str, ModelOption], provider: str, *, is_open: bool
) -> tuple[dict[str, str], list[str]]:
    """Return the problems of given options by field path, and warnings.

    Args:
        given: the options of a request.
        known: the options of its model and operation.
        provider: name of the provider.
        is_open: the API has options that its data does not list: an unknown name only warns.
    """
    problems: dict[str, str] = {}
    warnings: list[str] = []
    for name, value in given.items():
        path = f"model_options.{name}"
        if name in known:
            problem = known[name].find_problem(value)
            if problem is not None:
                problems[path] = problem
            continue
        if name in SHARED_WORDS and not is_open:
            problems[path] = f"It is no option. Pass {name}=… itself."
            continue
        nearest = format_suggestion(name, list(known))
        if is_open:
            warnings.append(f"{path}: imgkit does not know this option{nearest}. It was sent unchecked.")
        else:
            has = f"It has {', '.join(sorted(known)) if known else 'none'}."
            problems[path] = f"Provider {provider} has no such option here{nearest}. {has}"
    return problems, warnings
