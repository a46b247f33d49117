"""The form of data files about models: what is misspelt in one is refused, with its path."""

from __future__ import annotations

import math
import re
from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

from imgkit.schemas.base import Typed

_SIZE = re.compile(r"[1-9][0-9]{0,5}x[1-9][0-9]{0,5}")

OPERATIONS = ("create_image", "create_image_edit", "create_image_variation")
HOSTS = ("official", "compatible", "offline")


class _Facts(Typed[dict[str, object]]):
    target = dict

    class Meta:
        unknown = ma.RAISE

    source = fields.String()
    as_of = fields.Raw(validate=validate.Predicate("toordinal", error="must be a date such as 2026-11-23."))


def _number() -> fields.Raw:
    return fields.Raw(validate=_is_number)


def _is_number(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ma.ValidationError("must be a number from 0 on.")


def _count() -> fields.Integer:
    return fields.Integer(strict=True, validate=validate.Range(min=1))


def _hosts() -> fields.List[str]:
    return fields.List(fields.String(validate=validate.OneOf(HOSTS)))


class _Grid(ma.Schema):
    multiple_of_px = _count()
    most_ratio = _number()
    longest_edge_px = _count()
    least_px = _count()
    most_px = _count()


class _Rule(_Facts):
    field = fields.String(required=True)
    when = fields.Dict(keys=fields.String(), values=fields.List(fields.Raw()))
    allowed = fields.List(fields.Raw())
    least = _number()
    most = _number()
    longest = _count()
    refused = fields.Boolean()
    grid = fields.Nested(_Grid())
    why = fields.String()
    sure = fields.Boolean()


class _Inputs(_Facts):
    formats = fields.List(fields.String())
    most_images = _count()
    most_bytes = _count()
    mask_most_bytes = _count()
    data_url_longest = _count()
    square = fields.Boolean()
    sure = fields.Boolean()


class _Prices(_Facts):
    currency = fields.String(required=True)
    text_in = _number()
    image_in = _number()
    text_out = _number()
    image_out = _number()


class _Tokens(_Facts):
    class Meta:
        unknown = ma.INCLUDE  # one table for each quality

    note = fields.String()
    not_of = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))

    @ma.validates_schema(skip_on_field_errors=True)
    def check_counts(self, data: dict[str, Any], **_: Any) -> None:
        """Refuse tables that no price can be made of."""
        for quality, by_size in data.items():
            if quality in self.fields:
                continue
            if not isinstance(by_size, dict) or not all(
                isinstance(size, str) and _SIZE.fullmatch(size) and type(count) is int and count >= 0
                for size, count in by_size.items()
            ):
                raise ma.ValidationError(
                    'is a table of tokens by size, such as { "1024x1024" = 1056 }', quality
                )


class _Beside(_Facts):
    input_image = fields.List(_count(), validate=validate.Length(equal=2))
    partial_image = _count()


class _Model(_Facts):
    id = fields.String(required=True)
    like = fields.String()
    snapshots = fields.List(fields.String())
    hosts = _hosts()
    operations = fields.List(fields.String(validate=validate.OneOf(OPERATIONS)))
    rules = fields.List(fields.String())
    shutdown = fields.Raw(validate=validate.Predicate("toordinal", error="must be a date."))
    inputs = fields.String()
    prices = fields.String()
    tokens = fields.String()


class _Retired(_Facts):
    operation = fields.String(required=True, validate=validate.OneOf(OPERATIONS))
    date = fields.Raw(validate=validate.Predicate("toordinal", error="must be a date."))
    hosts = _hosts()
    instead = fields.String()


class _Dialect(_Facts):
    most_pictures = _count()


class _File(_Facts):
    provider = fields.String()
    hosts = _hosts()
    sources = fields.Dict(keys=fields.String(), values=fields.String())
    defaults = fields.Dict(keys=fields.String())
    dialect = fields.Nested(_Dialect())
    retired = fields.List(fields.Nested(_Retired()))
    rules = fields.Dict(keys=fields.String(), values=fields.Nested(_Rule()))
    inputs = fields.Dict(keys=fields.String(), values=fields.Nested(_Inputs()))
    tokens = fields.Dict(keys=fields.String(), values=fields.Nested(_Tokens()))
    tokens_beside = fields.Nested(_Beside())
    prices = fields.Dict(keys=fields.String(), values=fields.Nested(_Prices()))
    models = fields.List(fields.Nested(_Model()))


MODEL_FACTS = _File()
