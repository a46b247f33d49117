"""The schema of model data files. An unknown or misspelt key is an error that names its path."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, datetime

import marshmallow as ma
from marshmallow import fields, validate

from imgkit.schemas.typed_schema import TypedSchema

_SIZE_PATTERN = re.compile(r"[1-9][0-9]{0,5}x[1-9][0-9]{0,5}")

OPERATIONS = ("create_image", "create_image_edit", "create_image_variation")
HOSTS = ("official", "compatible", "offline")
OPTION_TYPES: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "list": (list,),
    "object": (dict,),
}
"""The types of options, by the names in data files."""

# --- Types of fields -------------------------------------------------------------------------


def _check_number(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ma.ValidationError("Must be a number from 0 on.")


def _number_field() -> fields.Raw:
    return fields.Raw(validate=_check_number)


def _count_field() -> fields.Integer:
    return fields.Integer(strict=True, validate=validate.Range(min=1))


class _DateField(fields.Field[date]):
    """A date, as TOML has it or as text."""

    def _deserialize(
        self, value: object, attr: str | None, data: Mapping[str, object] | None, **kwargs: object
    ) -> date:
        if isinstance(value, datetime):
            return value.date()
        if isinstance(value, date):
            return value
        try:
            return date.fromisoformat(value if isinstance(value, str) else "")
        except ValueError:
            raise ma.ValidationError("Must be a date such as 2026-11-23.") from None


def _hosts_field() -> fields.List[str]:
    return fields.List(fields.String(validate=validate.OneOf(HOSTS)))


# --- Tables of a file ------------------------------------------------------------------------


class _FactsSchema(TypedSchema[dict[str, object]]):
    """A table of facts with their source and date."""

    target: type[dict[str, object]] = dict

    source = fields.String()
    as_of = _DateField()


class _GridSchema(ma.Schema):
    multiple_of_px = _count_field()
    most_ratio = _number_field()
    longest_edge_px = _count_field()
    least_px = _count_field()
    most_px = _count_field()


class _RuleSchema(_FactsSchema):
    field = fields.String(required=True)
    when = fields.Dict(keys=fields.String(), values=fields.List(fields.Raw()))
    operations = fields.List(fields.String(validate=validate.OneOf(OPERATIONS)))
    allowed = fields.List(fields.Raw())
    least = _number_field()
    most = _number_field()
    longest = _count_field()
    refused = fields.Boolean()
    grid = fields.Nested(_GridSchema())
    why = fields.String()
    sure = fields.Boolean()


class _InputsSchema(_FactsSchema):
    formats = fields.List(fields.String())
    most_images = _count_field()
    most_bytes = _count_field()
    mask_most_bytes = _count_field()
    data_url_longest = _count_field()
    square = fields.Boolean()
    sure = fields.Boolean()


class _PricesSchema(_FactsSchema):
    currency = fields.String(required=True)
    text_in = _number_field()
    image_in = _number_field()
    text_out = _number_field()
    image_out = _number_field()
    per_image = _number_field()
    per_megapixel = _number_field()
    per_image_by = fields.Dict(
        keys=fields.String(), values=fields.Dict(keys=fields.String(), values=_number_field())
    )


class _TokensSchema(_FactsSchema):
    """Output tokens of an image: a table by size for each quality, under the quality's name."""

    note = fields.String()
    not_of = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))

    @ma.validates_schema(skip_on_field_errors=True)
    def check_counts(self, data: dict[str, object], **_: object) -> None:
        """Reject a table without integer token counts by size; a price cannot be computed from it."""
        for quality, by_size in data.items():
            if quality in self.fields:
                continue
            if not isinstance(by_size, dict) or not all(
                isinstance(size, str) and _SIZE_PATTERN.fullmatch(size) and type(count) is int and count >= 0
                for size, count in by_size.items()
            ):
                raise ma.ValidationError(
                    'Must be a table of tokens by size, such as { "1024x1024" = 1056 }.', quality
                )


class _BesideSchema(_FactsSchema):
    input_image = fields.List(_count_field(), validate=validate.Length(equal=2))
    partial_image = _count_field()


class _ModelSchema(_FactsSchema):
    id = fields.String(required=True)
    like = fields.String()
    snapshots = fields.List(fields.String())
    hosts = _hosts_field()
    operations = fields.List(fields.String(validate=validate.OneOf(OPERATIONS)))
    rules = fields.List(fields.String())
    shutdown = _DateField()
    inputs = fields.String()
    prices = fields.String()
    tokens = fields.String()


class _RetiredSchema(_FactsSchema):
    operation = fields.String(required=True, validate=validate.OneOf(OPERATIONS))
    date = _DateField()
    hosts = _hosts_field()
    instead = fields.String()


class _DialectSchema(_FactsSchema):
    most_pictures = _count_field()
    open_options = fields.Boolean()
    tells_cost = fields.Boolean()
    own_options = fields.Boolean()


class _PaceSchema(_FactsSchema):
    requests_in_flight = _count_field()
    images_in_flight = _count_field()
    requests_per_minute = fields.Float(validate=validate.Range(min=0, min_inclusive=False))
    images_per_minute = fields.Float(validate=validate.Range(min=0, min_inclusive=False))
    sure = fields.Boolean()


class _OptionSchema(_FactsSchema):
    name = fields.String()
    type = fields.String(required=True, validate=validate.OneOf(OPTION_TYPES))
    help = fields.String(required=True)
    least = fields.Float()
    most = fields.Float()
    allowed = fields.List(fields.Raw())
    models = fields.List(fields.String())
    operations = fields.List(fields.String(validate=validate.OneOf(OPERATIONS)))


class _AccountSchema(_FactsSchema):
    console = fields.String(validate=validate.Regexp(r"https://[\w.-]+/?[\w./#-]*\Z"))
    check_path = fields.String(validate=validate.Regexp(r"(/[\w.-]+)+\Z"))
    key_prefixes = fields.List(fields.String(validate=validate.Length(min=1)))
    key_form = fields.String()


class _FileSchema(_FactsSchema):
    provider = fields.String()
    hosts = _hosts_field()
    unconfirmed = fields.List(fields.String(validate=validate.Length(min=1)))
    sources = fields.Dict(keys=fields.String(), values=fields.String())
    defaults = fields.Dict(keys=fields.String())
    dialect = fields.Nested(_DialectSchema())
    pace = fields.Nested(_PaceSchema())
    account = fields.Nested(_AccountSchema())
    retired = fields.List(fields.Nested(_RetiredSchema()))
    members = fields.Dict(keys=fields.String())
    options = fields.Dict(keys=fields.String(), values=fields.Nested(_OptionSchema()))
    rules = fields.Dict(keys=fields.String(), values=fields.Nested(_RuleSchema()))
    inputs = fields.Dict(keys=fields.String(), values=fields.Nested(_InputsSchema()))
    tokens = fields.Dict(keys=fields.String(), values=fields.Nested(_TokensSchema(), unknown=ma.INCLUDE))
    tokens_beside = fields.Nested(_BesideSchema())
    prices = fields.Dict(keys=fields.String(), values=fields.Nested(_PricesSchema()))
    models = fields.List(fields.Nested(_ModelSchema()))


MODEL_FACTS_SCHEMA = _FileSchema()
