"""Adaptation: give a request the fields that an API has, where the policy of the service allows it.

Some APIs take a size in pixels, others an aspect ratio and a resolution. The one becomes the other.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

from imgkit.catalogue.rules import Policy
from imgkit.errors import InvalidRequestError
from imgkit.images.shapes import (
    COMMON_RATIOS,
    find_nearest_ratio,
    find_nearest_resolution,
    list_ratios,
    parse_ratio,
    parse_resolution,
    parse_size,
    to_size,
)
from imgkit.models import ImageRequest, field_names

if TYPE_CHECKING:
    from imgkit.catalogue.facts import Model, Rule

SHAPE = ("size", "aspect_ratio", "resolution")
"""The fields that say the shape of an image."""

NEEDED = frozenset(
    {"prompt", "image", "mask", "markup", "model", "n", "model_options", "extra_body", "extra_headers"}
)
"""Fields that are never left out: without them, the request means something else."""

_DEFAULT_SIDE_PX = 1024.0


def fit_fields(
    request: ImageRequest,
    fields: Collection[str] | None,
    provider: str,
    model: Model | None,
    policy: Policy,
    today: date,
) -> tuple[ImageRequest, list[str]]:
    """Return a request that has only the fields of an API, and warnings about the changes.

    Args:
        request: validated by its schema.
        fields: the fields that the API takes; None for any.
        provider: name of the provider.
        model: what is known of its model.
        policy: "raise" refuses other fields; "warn" and "drop" leave them out; "adapt" gives an image another
            field for its shape first, also where a model only probably lacks the field.
        today: the date against which facts are stale; a stale fact is doubtful.

    Raises:
        InvalidRequestError: the API lacks these fields. Nothing was sent.
    """
    if not fields:  # any field, or an operation that the provider refuses by itself
        return request, []
    rules = [] if model is None else model.list_rules(request.operation)
    refused = {
        rule.field
        for rule in rules
        if rule.refused
        and not rule.when
        and (policy == "adapt" or (rule.sure and not rule.origin.is_stale(today)))
    }
    names = {} if model is None else dict.fromkeys(refused, model.id)
    given = [name for name in field_names(type(request)) if getattr(request, name) is not None]
    lacking = [name for name in given if name not in fields and name not in NEEDED]
    lacking += [name for name in SHAPE if name in given and name in refused and name not in lacking]
    if not lacking or (lacking == ["size"] and request.size == "auto"):
        return (replace(request, size=None) if lacking else request), []
    taken = frozenset(fields) - refused
    shape = dict(_convert_shape(request, taken, rules)) if not {*lacking}.isdisjoint(SHAPE) else {}
    words = " and ".join(f"{name}={value!r}" for name, value in shape.items())
    if policy == "raise":
        problems = {}
        for name in lacking:
            instead = f" Pass {words}." if name in SHAPE and shape else " Leave it out."
            place = names.get(name, f"Provider {provider}")
            problems[name] = f"{place} takes no {name} for {request.operation}.{instead}"
        hint = (
            'Pass on_unsupported="drop" to leave such fields out, or "adapt" for what the API takes instead.'
        )
        raise InvalidRequestError(problems, hints={"on_unsupported": hint})
    warnings = []
    changes: dict[str, object] = dict.fromkeys(lacking)
    for name in lacking:
        is_adapted = policy == "adapt" and name in SHAPE and _is_change(request, shape)
        deed = f"became {words}" if is_adapted else "was left out"
        place = names.get(name, f"provider {provider}")
        warnings.append(f"{name} {deed}: {place} takes no {name} for {request.operation}.")
    if policy == "adapt" and shape:
        changes |= {**{name: None for name in SHAPE if name in given}, **shape}
    return replace(request, **changes), warnings  # type: ignore[arg-type]  # values of the request's own fields


def _is_change(request: ImageRequest, shape: Mapping[str, str]) -> bool:
    """Return whether a converted shape says more than the request does by itself."""
    return any(getattr(request, name) != value for name, value in shape.items())


def fit_shape(
    request: ImageRequest,
    refusals: Mapping[str, str],
    fields: Collection[str] | None,
    model: Model | None,
    policy: Policy,
) -> tuple[ImageRequest, list[str]]:
    """Return a request without the shapes that its provider refuses, and warnings about the changes.

    Args:
        request: a request that the ``check`` of its provider refuses.
        refusals: the refused fields of the shape, with the sentences of the provider.
        fields: the fields that the API takes; None for any.
        model: what is known of its model.
        policy: "drop" leaves the fields out; "adapt" gives an image another field for its shape first.
    """
    taken = frozenset(field_names(type(request)) if fields is None else fields) - refusals.keys()
    rules = [] if model is None else model.list_rules(request.operation)
    shape = dict(_convert_shape(request, taken, rules)) if policy == "adapt" else {}
    words = " and ".join(f"{name}={value!r}" for name, value in shape.items())
    deed = f"became {words}" if shape else "was left out"
    changes: dict[str, object] = dict.fromkeys(refusals)
    if shape:
        changes |= {**{name: None for name in SHAPE if name in field_names(type(request))}, **shape}
    warnings = [f"{name} {deed}: {text}" for name, text in refusals.items()]
    return replace(request, **changes), warnings  # type: ignore[arg-type]  # values of the request's own fields


def _convert_shape(
    request: ImageRequest, taken: Collection[str], rules: Sequence[Rule]
) -> Iterator[tuple[str, str]]:
    """Yield the fields that ask an API for the shape that a request asks for in others."""
    size = parse_size(request.size)
    ratio = size[0] / size[1] if size else parse_ratio(request.aspect_ratio)
    side_px = math.sqrt(size[0] * size[1]) if size else parse_resolution(request.resolution)
    if "aspect_ratio" in taken and ratio is not None:
        rule = _find_rule(rules, "aspect_ratio")
        nearest = find_nearest_ratio(ratio, list_ratios(rule.allowed, rule.grid) if rule else COMMON_RATIOS)
        if nearest is not None:
            yield "aspect_ratio", nearest
    elif "size" in taken and (ratio is not None or side_px is not None):
        rule = _find_rule(rules, "size")
        allowed, grid = ((), None) if rule is None else (rule.allowed, rule.grid)
        yield "size", to_size(ratio or 1.0, side_px or _DEFAULT_SIDE_PX, allowed, grid)
        return
    if "resolution" in taken and side_px is not None:
        rule = _find_rule(rules, "resolution")
        allowed = rule.allowed if rule is not None else ()
        found = find_nearest_resolution(side_px, allowed) if allowed else find_nearest_resolution(side_px)
        if found is not None:
            yield "resolution", found


def _find_rule(rules: Sequence[Rule], field: str) -> Rule | None:
    return next((rule for rule in rules if rule.field == field and not rule.refused), None)
