"""Schemas: strict validation of requests, lenient reading of responses."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgkit.core.operations import ImageOperations
from imgkit.models import CreateImageEditRequest, CreateImageRequest, CreateImageVariationRequest, Usage
from imgkit.schemas.replies import IMAGE_SCHEMA, REPLY_SCHEMA
from imgkit.schemas.requests import (
    CREATE_IMAGE_EDIT_SCHEMA,
    CREATE_IMAGE_SCHEMA,
    CREATE_IMAGE_VARIATION_SCHEMA,
    REQUEST_SCHEMAS,
)
from imgkit.schemas.typed_schema import SchemaError, flatten_messages

CYCLE: dict[str, Any] = {}
CYCLE["self"] = CYCLE
DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]


def problems(schema: Any, **members: Any) -> dict[str, str]:
    """Return the problems of a request by flat path."""
    with pytest.raises(SchemaError) as caught:
        schema.read(members)
    assert caught.value.__context__ is None
    assert all(len(text) <= 500 for text in caught.value.fields.values())
    return caught.value.fields


def create_problems(**members: Any) -> dict[str, str]:
    return problems(CREATE_IMAGE_SCHEMA, **{"prompt": "an otter", **members})


BAD_MEMBERS = [
    ("prompt", "", "is empty"),
    ("prompt", " \n\t\u2003", "is empty"),
    ("prompt", "a\0b", "NUL"),
    ("prompt", "ab\ud800", "lone surrogate at character 2"),
    ("prompt", None, "is missing"),
    ("prompt", 5, "Must be text"),
    ("prompt", b"an otter", "Must be text"),
    ("prompt", ["an otter"], "Must be text"),
    ("model", "", "is empty"),
    ("model", "a\0", "NUL"),
    ("model", 3, "Must be text"),
    ("user", "\udfff", "lone surrogate"),
    ("safety_identifier", "", "is empty"),
    *(
        ("n", bad, "from 1 to 1000")
        for bad in (0, 1001, -1, "3", True, 1.5, 2.0, float("nan"), 10**5000, [1])
    ),
    *(("output_compression", bad, "from 0 to 100") for bad in (-1, 101, "50", False)),
    *(("frame_count", bad, "from 2 to 16") for bad in (1, 17)),
    *(("frame_duration_ms", bad, "from 1 to 655350") for bad in (0, 655_351)),
    *(
        (name, bad, "is not one of")
        for name in ("quality", "background", "output_format", "moderation", "response_format", "style",
                     "complexity")
        for bad in ("best", "", "HIGH", "x" * 1_000_000)
    ),
    *(
        ("size", bad, "is not a size")
        for bad in ("", "big", "1024", "1024X1024", "1024×1024", "0x5", "5x0", "01x5", "-1x5", "1024 x 1024",
                    "1024x1024\n", "100000x1", "AUTO", "٣x٣", "9" * 100_000)
    ),
    ("size", (1024, 1024), "Must be text"),
    ("svg", "fast", "Must be a mapping"),
    ("svg", {"model": {1, 2}}, "cannot be written as JSON"),
    ("extra_body", [("seed", 1)], "Must be a mapping"),
    ("extra_body", {1: 2}, "Must be a mapping with names"),
    *(
        ("extra_body", {"x": bad}, "cannot be written as JSON")
        for bad in (float("nan"), float("inf"), {1}, b"x", CYCLE, DEEP, "\ud800", {1: 1, "a": 1}, 10**5000,
                    object())
    ),
    *(("extra_body.n", bad, "from 1 to 10") for bad in (10**9, 0, True, 1.5, "1", None)),
    *(("extra_body.stream", bad, "leave it out") for bad in (True, False)),
    ("extra_body.partial_images", 2, "leave it out"),
    ("extra_body.prompt", " ", "is empty"),
    ("extra_body.prompt", "\0x", "NUL"),
    ("extra_headers", "x-a: b", "must be a mapping"),
    *(
        ("extra_headers", {bad: "x"}, "is not a header name")
        for bad in ("", "Ho st", "a:b", "é", "a\r\nb", "x-a ", 5, None)
    ),
    *(
        ("extra_headers", {bad: "x"}, "set by imgkit")
        for bad in ("Authorization", "content-length", "HOST", "Transfer-Encoding", "cookie", "Connection",
                    "expect")
    ),
    *(
        ("extra_headers", {"x-a": bad}, "printable ASCII")
        for bad in ("b\r\ny: z", "b\n", "é", "\0", "\x7f", " b", "b ", 5, b"b", ["b"])
    ),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "problem"), BAD_MEMBERS, ids=map(str, range(len(BAD_MEMBERS))))
def test_rejected_members(path: str, value: Any, problem: str) -> None:
    """Reports each bad value by its flat path alone, with the reason."""
    name, _, inner = path.partition(".")
    messages = create_problems(**{name: {inner: value} if inner else value})
    assert list(messages) == [path]
    assert problem in messages[path]


ACCEPTED: list[dict[str, Any]] = [
    {"n": 1}, {"n": 10}, {"size": "auto"}, {"size": "1x99999"}, {"output_compression": 0},
    {"prompt": " \u202e🦦 "},
    {"extra_body": {}}, {"extra_body": {"seed": 1, "x": [None, {"y": 1.5}], "n": 3, "prompt": 5}},
    {"extra_headers": {"x-a": ""}}, {"extra_headers": {"x-a": "a b"}}, {"extra_headers": {"accept": None}},
    {"svg": {"reasoning": {"effort": "low"}}}, {"model": "my/own:model"},
]  # fmt: skip


@pytest.mark.parametrize("members", ACCEPTED)
def test_accepted_members(members: dict[str, Any]) -> None:
    """Returns accepted values unchanged; absent fields are None."""
    members = {"prompt": "an otter", **members}
    read = CREATE_IMAGE_SCHEMA.read(members)
    assert isinstance(read, CreateImageRequest)
    assert {name: value for name, value in dataclasses.asdict(read).items() if value is not None} == members


def test_header_names_become_lower_case() -> None:
    """Converts header names to lower case."""
    read = CREATE_IMAGE_SCHEMA.read({"prompt": "x", "extra_headers": {"X-Trace": "1"}})
    assert read.extra_headers == {"x-trace": "1"}


def test_mappings_are_copied() -> None:
    """Copies mappings, so later changes by the caller have no effect."""
    body = {"seed": 1}
    read = CREATE_IMAGE_SCHEMA.read({"prompt": "x", "extra_body": body})
    body["seed"] = 2
    assert read.extra_body == {"seed": 1}


def test_unknown_member() -> None:
    """Rejects a misspelt parameter, which would cost money without effect."""
    assert list(create_problems(qualty="high")) == ["qualty"]


def test_all_problems_at_once() -> None:
    """Reports all problems in one error."""
    assert sorted(create_problems(prompt="", n=0, size="x", extra_body={"n": 0, "stream": True})) == [
        "extra_body.n", "extra_body.stream", "n", "prompt", "size",
    ]  # fmt: skip


BAD_IMAGES = [
    ([], "image", "1 to 16"),
    (["a.png"] * 17, "image", "1 to 16"),
    (None, "image", "is missing"),
    (5, "image", "type int"),
    ("http://h/a.png", "image", "does not fetch"),
    ({"a.png"}, "image", "type set"),
    (["a.png", 5], "image.1", "type int"),
    (["a.png", ["b.png"]], "image.1", "type list"),
    (("", "a.png"), "image.0", "empty path"),
]


@pytest.mark.parametrize(("value", "path", "problem"), BAD_IMAGES)
def test_rejected_images(value: Any, path: str, problem: str) -> None:
    """Reports each wrong image of an edit by its position."""
    messages = problems(CREATE_IMAGE_EDIT_SCHEMA, image=value, prompt="x")
    assert list(messages) == [path]
    assert problem in messages[path]


def test_images_of_an_edit() -> None:
    """Loads one or several images of an edit as a tuple; a variation has exactly one."""
    assert CREATE_IMAGE_EDIT_SCHEMA.read({"image": "a.png", "prompt": "x"}).image == ("a.png",)
    assert CREATE_IMAGE_EDIT_SCHEMA.read({"image": ["a", "b"], "prompt": "x"}).image == ("a", "b")
    assert CREATE_IMAGE_VARIATION_SCHEMA.read({"image": "a.png"}).image == "a.png"
    assert "type list" in problems(CREATE_IMAGE_VARIATION_SCHEMA, image=["a.png"])["image"]


def test_mask_and_markup_exclude_each_other() -> None:
    """Accepts a mask or a markup, but not both."""
    both = problems(CREATE_IMAGE_EDIT_SCHEMA, image="a", prompt="x", mask=b"m", markup=b"m")
    assert list(both) == ["markup"]
    assert (
        CREATE_IMAGE_EDIT_SCHEMA.read({"image": "a", "prompt": "x", "mask": None, "markup": b"m"}).markup
        == b"m"
    )


def test_missing_members() -> None:
    """Names each missing required parameter."""
    assert list(problems(CREATE_IMAGE_SCHEMA)) == ["prompt"]
    assert sorted(problems(CREATE_IMAGE_EDIT_SCHEMA)) == ["image", "prompt"]
    assert "Pass the image to vary" in problems(CREATE_IMAGE_VARIATION_SCHEMA)["image"]


def test_flatten_messages() -> None:
    """Flattens nested messages; messages of a whole object keep its path."""
    nested = {"data": {0: {"url": ["Bad.", "Worse."]}, "_schema": ["Odd."]}, "_schema": "Whole."}
    assert flatten_messages(nested) == {"data.0.url": "Bad. Worse.", "data": "Odd.", "request": "Whole."}


PLANS = [
    (CreateImageRequest, ImageOperations.create_image),
    (CreateImageEditRequest, ImageOperations.create_image_edit),
    (CreateImageVariationRequest, ImageOperations.create_image_variation),
]


@pytest.mark.parametrize(("kind", "plan"), PLANS)
def test_request_schema_and_signature_agree(kind: Any, plan: Any) -> None:
    """The dataclass, its schema, the operation's signature and its docstring have the same parameters."""
    fields = {field.name for field in dataclasses.fields(kind)}
    parameters = set(inspect.signature(plan).parameters) - {"self"}
    assert set(REQUEST_SCHEMAS[kind].fields) == fields
    how = {"save_to", "timeout_s", "cache", "replica", "strategy", "variation_prompt", "prepare"}
    assert parameters - how == fields
    described = set((inspect.getdoc(plan) or "").replace(",", " ").replace(":", " ").split())
    assert parameters <= described
    assert REQUEST_SCHEMAS[kind].target is kind


def test_unknown_keys_are_kept_in_order() -> None:
    """Sorts unknown keys of a response, so every run gives the same order."""
    read = REPLY_SCHEMA.read({"zeta": 1, "created": 5, "alpha": [2], "extra": 3, "size": "1x1"})
    assert (read.created, read.size) == (5, "1x1")
    assert list(read.extra.items()) == [("alpha", [2]), ("extra", 3), ("zeta", 1)]


WRONG_TYPES: list[tuple[str, Any]] = [
    ("created", "soon"), ("created", 1.5), ("created", True), ("size", 5), ("quality", ["high"]),
    ("usage", []),
    ("background", {}), ("output_format", False), ("warnings", "watch out"), ("warnings", [1]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG_TYPES)
def test_wrong_types_are_kept_aside(name: str, value: Any) -> None:
    """Treats a field of an unexpected type as absent and keeps its value in `extra`."""
    read = REPLY_SCHEMA.read({name: value})
    assert getattr(read, name) == getattr(REPLY_SCHEMA.read({}), name)
    assert read.extra == {name: value}


def test_nulls_are_absent() -> None:
    """Treats null as absent, without an entry in `extra`."""
    names = ("created", "usage", "size", "warnings")
    assert REPLY_SCHEMA.read(dict.fromkeys(names)) == REPLY_SCHEMA.read({})
    assert IMAGE_SCHEMA.read({"url": None, "revised_prompt": None}) == IMAGE_SCHEMA.read({})


def test_image_entry() -> None:
    """Reads the known texts of an entry and keeps the rest."""
    read = IMAGE_SCHEMA.read({"url": "u", "revised_prompt": 5, "seed": 7})
    assert (read.url, read.revised_prompt, read.extra) == ("u", None, {"revised_prompt": 5, "seed": 7})


def test_usage() -> None:
    """Flattens token counts and keeps odd and unknown values under the API's names."""
    usage = {
        "total_tokens": 30, "input_tokens": -1, "output_tokens": 20, "cost": 0.1,
        "input_tokens_details": {"text_tokens": 7, "image_tokens": "3", "cached_tokens": 2},
        "output_tokens_details": {"image_tokens": 20},
    }  # fmt: skip
    raw_usage = REPLY_SCHEMA.read({"usage": usage}).usage
    assert raw_usage is not None
    assert raw_usage.to_usage() == Usage(
        total_tokens=30,
        output_tokens=20,
        input_text_tokens=7,
        output_image_tokens=20,
        extra={
            "cost": 0.1,
            "input_tokens": -1,
            "input_tokens_details": {"cached_tokens": 2, "image_tokens": "3"},
        },
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
COUNTS = st.sampled_from(["total_tokens", "input_tokens", "output_tokens", "input_tokens_details",
                          "output_tokens_details", "text_tokens", "image_tokens", "extra"])  # fmt: skip


@given(st.dictionaries(COUNTS, JSON | st.dictionaries(COUNTS, JSON, max_size=4), max_size=6) | JSON)
def test_odd_usage_never_raises(usage: Any) -> None:
    """Reads any usage without an error and without loss."""
    read = REPLY_SCHEMA.read({"usage": usage})
    if not isinstance(usage, dict):
        assert read.usage is None
        return
    assert read.usage is not None
    flat = read.usage.to_usage()
    for name in ("total_tokens", "input_tokens", "output_tokens"):
        count = usage.get(name)
        fits = type(count) is int and count >= 0
        assert getattr(flat, name) == (count if fits else None)
        assert count is None or fits or name in flat.extra


@given(st.dictionaries(st.sampled_from(["created", "usage", "size", "url", "x"]), JSON))
def test_any_response_is_read(reply: dict[str, Any]) -> None:
    """Reads any response without an error and keeps unknown keys."""
    assert ("x" in REPLY_SCHEMA.read(reply).extra) == ("x" in reply)
    json.dumps(IMAGE_SCHEMA.read(reply).extra)
