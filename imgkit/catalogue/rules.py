"""The interpreter of the rules: it finds values that a model would reject, before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from imgkit.catalogue.catalogue import NEAR_DAYS, Catalogue
from imgkit.errors import ConfigurationError, InvalidRequestError
from imgkit.images.inputs import ImageFile, OpenedInputs
from imgkit.images.shapes import (
    Grid,
    find_nearest_ratio,
    find_nearest_resolution,
    find_nearest_size,
    is_on_grid,
    is_within_ratio,
    list_ratios,
    nearest_size,
    parse_ratio,
    parse_resolution,
    parse_size,
)
from imgkit.images.sniff import is_animated
from imgkit.models import ImageRequest, field_names
from imgkit.wire.plain_values import show_value, to_text

if TYPE_CHECKING:
    from imgkit.catalogue.facts import FactSource, InputFacts, Model, Rule

Policy = Literal["raise", "warn", "drop", "adapt"]
POLICIES: tuple[Policy, ...] = ("raise", "warn", "drop", "adapt")

_REQUIRED = ("prompt", "image")
_SPLIT_FIELDS = ("n",)
"""Fields that imgkit meets by itself: it splits a call for many images into several requests."""

_MOST_CHOICES = 10
"""Longest list of values in a message."""


class RuleViolation(NamedTuple):
    """A field of a request that violates a rule.

    Attributes:
        field: the field of the request.
        text: the problem and the remedy.
        sure: True if the API is known to reject the value.
        origin: date and source of the rule.
        nearest: the nearest value that the model takes, None if none is near.
    """

    field: str
    text: str
    sure: bool
    origin: FactSource
    nearest: object = None


def parse_policy(given: object) -> Policy:
    """Return `given` if it is a policy.

    Raises:
        ConfigurationError: The message lists the policies.

    Example:
        >>> parse_policy("warn")
        'warn'
    """
    policy = next((policy for policy in POLICIES if policy == to_text(given)), None)
    if policy is None:
        choices = format_choices(POLICIES)
        raise ConfigurationError(f"on_unsupported must be {choices}, not {show_value(given)}.")
    return policy


def check_request(
    request: ImageRequest,
    model: Model | None,
    catalogue: Catalogue,
    policy: Policy,
    today: date,
    more: Mapping[str, Any] | None = None,
) -> tuple[ImageRequest, list[str]]:
    """Validate a request against its model's rules; return the request to send, and warnings.

    Args:
        request: validated by its schema.
        model: None for an unknown model, which accepts every request.
        catalogue: of the provider.
        policy: "raise" rejects values that the API surely rejects, and warns of doubtful values; "warn" only
            warns; "drop" removes optional fields that the API surely rejects; "adapt" gives them the nearest
            value that the API takes, and removes those without any.
        today: the date against which facts are stale; stale facts only warn.
        more: values that are not fields of the request, such as ``stream``.

    Raises:
        InvalidRequestError: The API would reject these fields. Nothing was sent.
    """
    if model is None:
        return request, []
    warnings = [text] if (text := shutdown_notice(model, catalogue, today)) else []
    problems: dict[str, str] = {}
    changed: dict[str, Any] = {}
    for violation in find_violations(request, model, catalogue, more):
        field = violation.field
        is_optional = field not in _REQUIRED and field in field_names(type(request))
        if policy in ("drop", "adapt") and violation.sure and is_optional:
            nearest = violation.nearest if policy == "adapt" else None
            changed[field] = nearest
            deed = "was left out" if nearest is None else f"became {nearest!r}"
            warnings.append(f"{field} {deed}: {violation.text} ({violation.origin})")
        elif violation.sure and policy != "warn" and not violation.origin.is_stale(today):
            problems.setdefault(violation.field, f"{violation.text} ({violation.origin})")
        else:
            warnings.append(f"{violation.field}: {violation.text} ({violation.origin})")
    if problems:
        hint = (
            'Pass on_unsupported="drop" to leave such fields out, "adapt" for the nearest values, "warn" to '
            "send them."
        )
        fields = {field: f"{text}." for field, text in problems.items()}
        raise InvalidRequestError(fields, hints={"on_unsupported": hint})
    return (replace(request, **changed) if changed else request), warnings


def find_violations(
    request: ImageRequest, model: Model, catalogue: Catalogue, more: Mapping[str, Any] | None = None
) -> Iterator[RuleViolation]:
    """Yield the fields of a request that a model would reject."""
    if model.operations and request.operation not in model.operations:
        operations = ", ".join(model.operations)
        yield RuleViolation(
            field="model",
            text=f"{model.id} does not have {request.operation}; it has {operations}",
            sure=True,
            origin=model.origin,
        )
        return
    given = {
        name: value for name in field_names(type(request)) if (value := getattr(request, name)) is not None
    }
    given |= more or {}
    for rule in model.list_rules(request.operation):
        if rule.field not in given or rule.field in _SPLIT_FIELDS:
            continue
        problem = (
            explain_violation(rule, given[rule.field])
            if is_applicable(rule, given, catalogue.defaults)
            else None
        )
        if problem:
            yield RuleViolation(
                field=rule.field,
                text=f"{model.id} {problem}",
                sure=rule.sure,
                origin=rule.origin,
                nearest=find_nearest_value(rule, given[rule.field]),
            )


def check_inputs(
    inputs: OpenedInputs, model: Model, policy: Policy, today: date, count: int | None = None
) -> list[str]:
    """Validate input images by their headers; return warnings.

    Args:
        inputs: the images; none of them to validate their number alone.
        model: the model.
        policy, today: as for `check_request`.
        count: number of images, that of `inputs` by default.

    Raises:
        InvalidRequestError: The API would surely reject these inputs. Nothing was sent.
    """
    facts = model.inputs
    if facts is None:
        return []
    problems: dict[str, str] = {}
    count = len(inputs.image) if count is None else count
    if facts.most_images is not None and count > facts.most_images:
        problems["image"] = f"{model.id} takes at most {facts.most_images} of them, not {count}"
    for file in inputs.files:
        problem = _find_file_problem(file, facts, as_json=inputs.has_references)
        if problem and file.field not in problems:
            problems[file.field] = f"{model.id} {problem} ({facts.origin})"
    if problems and facts.sure and policy == "raise" and not facts.origin.is_stale(today):
        raise InvalidRequestError(problems)
    return [f"{field}: {text}" for field, text in problems.items()]


def _find_file_problem(file: ImageFile, facts: InputFacts, *, as_json: bool) -> str | None:
    kind = file.kind
    longest = facts.data_url_longest
    if as_json and longest is not None and data_url_length(kind.media_type, file.length) > longest:
        return (
            f"takes data: URLs of up to {longest} characters beside a reference; upload the image and pass "
            "its file id"
        )
    fit = '; prepare="fit" makes it fit'
    overlay = file.field in ("mask", "markup")
    max_bytes = facts.mask_most_bytes if file.field == "mask" else facts.most_bytes
    if facts.formats and not overlay and kind.format not in facts.formats:
        formats = format_choices(sorted(facts.formats), quoted=False)
        return f"takes {formats} images, not {kind.format}{fit}"
    if facts.formats and "gif" not in facts.formats and is_animated(kind, file.read_at):
        return f"takes still images, and this {kind.format} is animated{fit}"
    if max_bytes is not None and file.length > max_bytes:
        return f"takes images of up to {max_bytes} bytes, not {file.length}{fit}"
    if facts.square and not overlay and kind.width != kind.height:
        return f"takes square images, not {kind.width}x{kind.height}{fit}"
    return None


def data_url_length(media_type: str, length: int) -> int:
    """Return the length in characters of a ``data:`` URL with `length` bytes in base64.

    Example:
        >>> data_url_length("image/png", 3)
        26
    """
    return len(f"data:{media_type};base64,") + (length + 2) // 3 * 4


def is_applicable(rule: Rule, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    """Return whether a rule applies to a request with the given values."""
    return all(given.get(name, defaults.get(name)) in values for name, values in rule.when.items())


def explain_violation(rule: Rule, value: Any) -> str | None:
    """Return the problem of a value as the rest of a sentence about the model, None if it is valid."""
    when = "".join(f" with {name}={' or '.join(map(repr, values))}" for name, values in rule.when.items())
    why = f" ({rule.why})" if rule.why else ""
    if rule.refused:
        return f"does not take it{when}{why}: leave it out"
    if rule.allowed and value not in rule.allowed:
        size = parse_size(value) if rule.field == "size" else None
        near = f"; the nearest is {find_nearest_size(size, rule.allowed)}" if size else ""
        is_long = len(rule.allowed) > _MOST_CHOICES
        choices = f"one of {len(rule.allowed)} values" if is_long else format_choices(rule.allowed)
        return f"takes {choices}{when}, not {value!r}{why}{near}"
    if (rule.most is not None and value > rule.most) or (rule.least is not None and value < rule.least):
        return f"takes {_format_range(rule)}{when}, not {value}{why}"
    if rule.longest is not None and len(value) > rule.longest:
        return f"takes at most {rule.longest} characters, not {len(value)}{why}: shorten it"
    if (
        rule.field == "aspect_ratio"
        and rule.grid
        and not is_within_ratio(value, rule.grid.most_ratio or math.inf)
    ):
        return f"does not take {value}{why}: the nearest is {find_nearest_value(rule, value)}"
    size = parse_size(value) if rule.grid else None
    if rule.grid and size and not is_on_grid(size, rule.grid):
        width, height = nearest_size(size, rule.grid)
        return f"does not take {value}{why}: the nearest is {width}x{height}"
    return None


def find_nearest_value(rule: Rule, value: object) -> object:
    """Return the value that a rule accepts and that is nearest to `value`, None if none is near."""
    if rule.refused:
        return None
    if isinstance(value, int | float):
        low = value if rule.least is None else max(value, rule.least)
        number = low if rule.most is None else min(low, rule.most)
        return int(number) if isinstance(value, int) else number
    if (size := parse_size(value)) is not None:
        if any(map(parse_size, rule.allowed)):
            return find_nearest_size(size, rule.allowed)
        return "{}x{}".format(*nearest_size(size, rule.grid or Grid()))
    if (ratio := parse_ratio(value)) is not None:
        return find_nearest_ratio(ratio, list_ratios(rule.allowed, rule.grid))
    if rule.field == "resolution" and (side := parse_resolution(value)) is not None:
        return find_nearest_resolution(side, rule.allowed)
    return None


def describe_rule(rule: Rule) -> str:
    """Return the values that a rule accepts, in words."""
    parts = []
    if rule.refused:
        parts.append("not taken")
    if rule.allowed:
        parts.append(format_choices(rule.allowed, quoted=False))
    if rule.most is not None or rule.least is not None:
        parts.append(_format_range(rule))
    if rule.longest is not None:
        parts.append(f"up to {rule.longest} characters")
    if rule.grid is not None:
        parts.append(_describe_grid(rule.grid))
    when = " and ".join(
        f"{name} {format_choices(values, quoted=False)}" for name, values in rule.when.items()
    )
    where = f" for {format_choices(rule.operations, quoted=False)}" if rule.operations else ""
    why = f" ({rule.why})" if rule.why else ""
    return (
        "; ".join(parts)
        + (f" with {when}" if when else "")
        + where
        + why
        + ("" if rule.sure else "; doubtful")
    )


def _describe_grid(grid: Grid) -> str:
    """Return the shapes of a grid, in words."""
    parts = []
    if grid.multiple_of_px > 1:
        parts.append(f"sides in multiples of {grid.multiple_of_px}")
    if grid.longest_edge_px is not None:
        parts.append(f"sides up to {grid.longest_edge_px}")
    if grid.most_ratio is not None:
        parts.append(f"up to {grid.most_ratio:.3g}:1")
    if grid.least_px is not None:
        parts.append(f"{grid.least_px:,} pixels or more")
    if grid.most_px is not None:
        parts.append(f"up to {grid.most_px:,} pixels")
    return ", ".join(parts) or "any"


def _format_range(rule: Rule) -> str:
    least = rule.least or 0
    return f"{least:.15g} or more" if rule.most is None else f"{least:.15g} to {rule.most:.15g}"


def max_value(field: str, request: ImageRequest, model: Model, catalogue: Catalogue) -> int | None:
    """Return the largest number that a model takes in a field of a request, None if unknown."""
    given = {
        name: value for name in field_names(type(request)) if (value := getattr(request, name)) is not None
    }
    bounds = [
        int(rule.most)
        for rule in model.list_rules(request.operation)
        if rule.field == field and rule.most is not None and is_applicable(rule, given, catalogue.defaults)
    ]
    return min(bounds, default=None)


def shutdown_notice(model: Model, catalogue: Catalogue, today: date) -> str | None:
    """Return a warning if the model's shutdown is past or near, else None."""
    if model.shutdown is None or (model.shutdown - today).days > NEAR_DAYS:
        return None
    verb = "was shut down" if model.shutdown <= today else "will be shut down"
    live = catalogue.list_live_ids(today) if "official" in model.hosts else []
    instead = f": use {format_choices(live, quoted=False)}" if live else ""
    return f"{model.id} {verb} on {model.shutdown} ({model.origin}){instead}"


def format_choices(values: Sequence[object], *, quoted: bool = True) -> str:
    """Return values as "a, b or c"."""
    choices = [repr(value) if quoted else str(value) for value in values]
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"
