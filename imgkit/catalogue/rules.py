"""The interpreter of the rules: what a model would refuse, told before it is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from imgkit.catalogue.catalogue import NEAR_DAYS, Catalogue
from imgkit.errors import ConfigurationError, InvalidRequestError
from imgkit.images.inputs import ImageFile, OpenedInputs
from imgkit.models import ImageRequest, field_names

if TYPE_CHECKING:
    from imgkit.catalogue.facts import FactSource, Grid, InputFacts, Model, Rule

Policy = Literal["raise", "warn", "drop"]
POLICIES: tuple[Policy, ...] = ("raise", "warn", "drop")

_REQUIRED = ("prompt", "image")
_MET_OTHERWISE = ("n",)
"""More pictures than a model makes at once are asked for in several requests."""

_SIZE = re.compile(r"([0-9]+)x([0-9]+)")


class RuleFinding(NamedTuple):
    """What is wrong with one field of a request, as far as is known.

    Attributes:
        field: of the request.
        text: what is wrong, and what would be right.
        sure: the API is known to refuse it.
        origin: date and source of the fact.
    """

    field: str
    text: str
    sure: bool
    origin: FactSource


def parse_policy(given: object) -> Policy:
    """Return a checked policy. Raises ConfigurationError."""
    if given not in POLICIES:
        raise ConfigurationError(f"on_unsupported is one of {', '.join(map(repr, POLICIES))}, not {given!r}")
    return given


def check_request(
    request: ImageRequest,
    model: Model | None,
    catalogue: Catalogue,
    policy: Policy,
    today: date,
    more: Mapping[str, Any] | None = None,
) -> tuple[ImageRequest, list[str]]:
    """Return a request that its model takes, and what the caller should know.

    Args:
        request: checked by its schema.
        model: None for one of which nothing is known: it passes.
        catalogue: of the provider.
        policy: "raise" for what the API would surely refuse, while what is doubtful only warns; "warn" for
            everything; "drop" to leave out what can be left out.
        today: facts that were read long before it only warn.
        more: values that are no fields of the request, such as ``stream``.

    Raises:
        InvalidRequestError: what the API would refuse, by field. Nothing was sent.
    """
    if model is None:
        return request, []
    warnings = [text] if (text := shutdown_notice(model, catalogue, today)) else []
    wrong: dict[str, str] = {}
    dropped: dict[str, Any] = {}
    for one in findings(request, model, catalogue, more):
        if (
            policy == "drop"
            and one.sure
            and one.field not in _REQUIRED
            and one.field in field_names(type(request))
        ):
            dropped[one.field] = None
            warnings.append(f"{one.field} was left out: {one.text} ({one.origin})")
        elif one.sure and policy != "warn" and not one.origin.stale(today):
            wrong.setdefault(one.field, f"{one.text} ({one.origin})")
        else:
            warnings.append(f"{one.field}: {one.text} ({one.origin})")
    if wrong:
        hint = '. on_unsupported="drop" leaves such fields out, "warn" sends them'
        last = list(wrong)[-1]
        raise InvalidRequestError({**wrong, last: wrong[last] + hint})
    return (replace(request, **dropped) if dropped else request), warnings


def findings(
    request: ImageRequest, model: Model, catalogue: Catalogue, more: Mapping[str, Any] | None = None
) -> Iterator[RuleFinding]:
    """Yield what a model would not take of a request."""
    if model.operations and request.operation not in model.operations:
        has = ", ".join(model.operations)
        yield RuleFinding(
            field="model",
            text=f"{model.id} does not have {request.operation}; it has {has}",
            sure=True,
            origin=model.origin,
        )
        return
    given = {
        name: value for name in field_names(type(request)) if (value := getattr(request, name)) is not None
    }
    given |= more or {}
    for rule in model.rules:
        if rule.field not in given or rule.field in _MET_OTHERWISE:
            continue
        problem = (
            explain_violation(rule, given[rule.field]) if applies(rule, given, catalogue.defaults) else None
        )
        if problem:
            yield RuleFinding(
                field=rule.field, text=f"{model.id} {problem}", sure=rule.sure, origin=rule.origin
            )


def check_inputs(inputs: OpenedInputs, model: Model, policy: Policy, today: date) -> list[str]:
    """Return what the caller should know of input pictures, by what their headers say.

    Raises:
        InvalidRequestError: what the API would surely refuse, by field. Nothing was sent.
    """
    facts = model.inputs
    if facts is None:
        return []
    wrong: dict[str, str] = {}
    if facts.most_images is not None and len(inputs.image) > facts.most_images:
        wrong["image"] = f"{model.id} takes at most {facts.most_images} of them, not {len(inputs.image)}"
    for file in inputs.files:
        problem = _problem_of_file(file, facts, as_json=inputs.has_references)
        if problem and file.field not in wrong:
            wrong[file.field] = f"{model.id} {problem} ({facts.origin})"
    if wrong and facts.sure and policy == "raise" and not facts.origin.stale(today):
        raise InvalidRequestError(wrong)
    return [f"{field}: {text}" for field, text in wrong.items()]


def _problem_of_file(file: ImageFile, facts: InputFacts, *, as_json: bool) -> str | None:
    kind = file.kind
    longest = facts.data_url_longest
    if as_json and longest is not None and data_url_length(kind.media_type, file.length) > longest:
        return (
            f"takes data: URLs of up to {longest} characters beside a reference: upload it, and name its id"
        )
    fit = '; prepare="fit" makes it fit'
    overlay = file.field in ("mask", "markup")
    most = facts.mask_most_bytes if file.field == "mask" else facts.most_bytes
    if facts.formats and not overlay and kind.format not in facts.formats:
        return f"takes {_listed(tuple(sorted(facts.formats)), quoted=False)} pictures, not {kind.format}{fit}"
    if most is not None and file.length > most:
        return f"takes pictures of up to {most} bytes, not {file.length}{fit}"
    if facts.square and not overlay and kind.width != kind.height:
        return f"takes square pictures, not {kind.width}x{kind.height}{fit}"
    return None


def data_url_length(media_type: str, length: int) -> int:
    """Return how many characters a picture of so many bytes has as a ``data:`` URL in base64."""
    return len(f"data:{media_type};base64,") + (length + 2) // 3 * 4


def applies(rule: Rule, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    """Return whether a rule holds for a request, by the values of its other fields."""
    return all(given.get(name, defaults.get(name)) in values for name, values in rule.when.items())


def explain_violation(rule: Rule, value: Any) -> str | None:
    """Return what is wrong with a value, as the rest of a sentence about the model; None if nothing is."""
    when = "".join(f" with {name}={' or '.join(map(repr, values))}" for name, values in rule.when.items())
    why = f" ({rule.why})" if rule.why else ""
    if rule.refused:
        return f"does not take it{when}{why}: leave it out"
    if rule.allowed and value not in rule.allowed:
        size = _size(value) if rule.field == "size" else None
        near = f"; the nearest is {_nearest_listed(size, rule.allowed)}" if size else ""
        return f"takes {_listed(rule.allowed)}{when}, not {value!r}{why}{near}"
    if (rule.most is not None and value > rule.most) or (rule.least is not None and value < rule.least):
        return f"takes {rule.least or 0:g} to {rule.most or math.inf:g}{when}, not {value}{why}"
    if rule.longest is not None and len(value) > rule.longest:
        return f"takes at most {rule.longest} characters, not {len(value)}{why}: shorten it"
    size = _size(value) if rule.grid else None
    if rule.grid and size and not fits(size, rule.grid):
        width, height = nearest_size(size, rule.grid)
        return f"does not take {value}{why}: the nearest is {width}x{height}"
    return None


def describe_rule(rule: Rule) -> str:
    """Return what a rule lets a field be, in words."""
    parts = []
    if rule.refused:
        parts.append("not taken")
    if rule.allowed:
        parts.append(_listed(rule.allowed, quoted=False))
    if rule.most is not None or rule.least is not None:
        parts.append(f"{rule.least or 0:g} to {rule.most or math.inf:g}")
    if rule.longest is not None:
        parts.append(f"up to {rule.longest} characters")
    if rule.grid is not None:
        bounds = rule.grid._asdict().items()
        parts.append(", ".join(f"{name} {value}" for name, value in bounds if value is not None))
    when = " and ".join(f"{name} {_listed(values, quoted=False)}" for name, values in rule.when.items())
    why = f" ({rule.why})" if rule.why else ""
    return "; ".join(parts) + (f" with {when}" if when else "") + why + ("" if rule.sure else "; doubtful")


def max_value(field: str, request: ImageRequest, model: Model, catalogue: Catalogue) -> int | None:
    """Return the largest number that a model takes in a field of a request, None where none is known."""
    given = {
        name: value for name in field_names(type(request)) if (value := getattr(request, name)) is not None
    }
    bounds = [
        int(rule.most)
        for rule in model.rules
        if rule.field == field and rule.most is not None and applies(rule, given, catalogue.defaults)
    ]
    return min(bounds, default=None)


def shutdown_notice(model: Model, catalogue: Catalogue, today: date) -> str | None:
    """Return what there is to say about the end of a model that is past or near, else None."""
    if model.shutdown is None or (model.shutdown - today).days > NEAR_DAYS:
        return None
    verb = "was shut down" if model.shutdown <= today else "will be shut down"
    live = catalogue.live(today) if "official" in model.hosts else []
    instead = f": use {_listed(live, quoted=False)}" if live else ""
    return f"{model.id} {verb} on {model.shutdown} ({model.origin}){instead}"


def fits(size: tuple[int, int], grid: Grid) -> bool:
    """Return whether a size in pixels is one of a grid's."""
    width, height = size
    longer, shorter = max(size), min(size)
    return (
        shorter > 0
        and width % grid.multiple_of_px == 0
        and height % grid.multiple_of_px == 0
        and (grid.most_ratio is None or longer <= grid.most_ratio * shorter)
        and (grid.longest_edge_px is None or longer <= grid.longest_edge_px)
        and (grid.least_px is None or width * height >= grid.least_px)
        and (grid.most_px is None or width * height <= grid.most_px)
    )


def nearest_size(size: tuple[int, int], grid: Grid) -> tuple[int, int]:
    """Return the size of a grid that is nearest to a given one, in shape and area."""
    width, height = (float(max(side, 1)) for side in size)
    most_ratio = grid.most_ratio or math.inf
    if (
        grid.longest_edge_px is not None and grid.least_px is not None
    ):  # as wide as it gets, it needs a height
        most_ratio = min(most_ratio, grid.longest_edge_px**2 / grid.least_px)
    width, height = max(width, height / most_ratio), max(height, width / most_ratio)
    scale = 1.0
    if grid.most_px is not None:
        scale = min(scale, math.sqrt(grid.most_px / (width * height)))
    if grid.longest_edge_px is not None:
        scale = min(scale, grid.longest_edge_px / max(width, height))
    if grid.least_px is not None and width * height * scale**2 < grid.least_px:
        scale = math.sqrt(grid.least_px / (width * height))
    step = grid.multiple_of_px
    near = [
        (column * step, row * step)
        for column in _around(width * scale / step)
        for row in _around(height * scale / step)
        if fits((column * step, row * step), grid)
    ]
    return min(near, key=lambda one: _distance(one, size), default=(step, step))


def _around(value: float) -> range:
    return range(max(1, math.floor(value) - 2), math.floor(value) + 4)


def _distance(one: tuple[int, int], other: tuple[int, int]) -> float:
    return sum(abs(math.log(mine / max(theirs, 1))) for mine, theirs in zip(one, other, strict=True))


def _size(value: object) -> tuple[int, int] | None:
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    return (int(found[1]), int(found[2])) if found else None


def _nearest_listed(size: tuple[int, int], allowed: tuple[Any, ...]) -> str:
    listed = {one: parsed for one in allowed if (parsed := _size(one))}
    return str(min(listed, key=lambda one: _distance(listed[one], size)))


def _listed(values: tuple[Any, ...] | list[str], *, quoted: bool = True) -> str:
    shown = [repr(one) if quoted else str(one) for one in values]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
