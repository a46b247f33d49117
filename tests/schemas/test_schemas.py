"""What is accepted and refused on the way in, and forgiven on the way back."""

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
from imgkit.schemas.base import SchemaError, flatten
from imgkit.schemas.requests import CREATE_IMAGE, CREATE_IMAGE_EDIT, CREATE_IMAGE_VARIATION, REQUEST_SCHEMAS
from imgkit.schemas.responses import IMAGE, REPLY

CYCLE: dict[str, Any] = {}
CYCLE["self"] = CYCLE
DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]


def problems(schema: Any, **members: Any) -> dict[str, str]:
    """Return what is wrong with a request, as flat paths."""
    with pytest.raises(SchemaError) as caught:
        schema.read(members)
    assert caught.value.__context__ is None
    assert all(len(text) <= 500 for text in caught.value.fields.values())
    return caught.value.fields


def create_problems(**members: Any) -> dict[str, str]:
    return problems(CREATE_IMAGE, **{"prompt": "an otter", **members})


BAD_MEMBERS = [
    ("prompt", "", "is empty"),
    ("prompt", " \n\t\u2003", "is empty"),
    ("prompt", "a\0b", "NUL"),
    ("prompt", "ab\ud800", "lone surrogate at character 2"),
    ("prompt", None, "is missing"),
    ("prompt", 5, "must be text"),
    ("prompt", b"an otter", "must be text"),
    ("prompt", ["an otter"], "must be text"),
    ("model", "", "is empty"),
    ("model", "a\0", "NUL"),
    ("model", 3, "must be text"),
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
        ("size", bad, "is no size")
        for bad in ("", "big", "1024", "1024X1024", "1024×1024", "0x5", "5x0", "01x5", "-1x5", "1024 x 1024",
                    "1024x1024\n", "100000x1", "AUTO", "٣x٣", "9" * 100_000)
    ),
    ("size", (1024, 1024), "must be text"),
    ("svg", "fast", "must be a mapping"),
    ("svg", {"model": {1, 2}}, "cannot be written as JSON"),
    ("extra_body", [("seed", 1)], "must be a mapping"),
    ("extra_body", {1: 2}, "must be a mapping with names"),
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
def test_refused_members(path: str, value: Any, problem: str) -> None:
    """Each bad value is named by its flat path, alone, with what is wrong."""
    name, _, inner = path.partition(".")
    found = create_problems(**{name: {inner: value} if inner else value})
    assert list(found) == [path]
    assert problem in found[path]


ACCEPTED: list[dict[str, Any]] = [
    {"n": 1}, {"n": 10}, {"size": "auto"}, {"size": "1x99999"}, {"output_compression": 0},
    {"prompt": " \u202e🦦 "},
    {"extra_body": {}}, {"extra_body": {"seed": 1, "x": [None, {"y": 1.5}], "n": 3, "prompt": 5}},
    {"extra_headers": {"x-a": ""}}, {"extra_headers": {"x-a": "a b"}}, {"extra_headers": {"accept": None}},
    {"svg": {"reasoning": {"effort": "low"}}}, {"model": "my/own:model"},
]  # fmt: skip


@pytest.mark.parametrize("members", ACCEPTED)
def test_accepted_members(members: dict[str, Any]) -> None:
    """What is allowed arrives as it was given, and what was not given is None."""
    members = {"prompt": "an otter", **members}
    read = CREATE_IMAGE.read(members)
    assert isinstance(read, CreateImageRequest)
    assert {name: value for name, value in dataclasses.asdict(read).items() if value is not None} == members


def test_header_names_become_lower_case() -> None:
    """Headers are matched by lower-case name further on."""
    read = CREATE_IMAGE.read({"prompt": "x", "extra_headers": {"X-Trace": "1"}})
    assert read.extra_headers == {"x-trace": "1"}


def test_mappings_are_copied() -> None:
    """A caller who changes a mapping later does not change the request."""
    body = {"seed": 1}
    read = CREATE_IMAGE.read({"prompt": "x", "extra_body": body})
    body["seed"] = 2
    assert read.extra_body == {"seed": 1}


def test_unknown_member() -> None:
    """A typo is refused, since it would cost money and do nothing."""
    assert list(create_problems(qualty="high")) == ["qualty"]


def test_all_problems_at_once() -> None:
    """Everything that is wrong is told in one go."""
    assert sorted(create_problems(prompt="", n=0, size="x", extra_body={"n": 0, "stream": True})) == [
        "extra_body.n", "extra_body.stream", "n", "prompt", "size",
    ]  # fmt: skip


PICTURES = [
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


@pytest.mark.parametrize(("value", "path", "problem"), PICTURES)
def test_refused_pictures(value: Any, path: str, problem: str) -> None:
    """Each wrong picture of an edit is named by its place."""
    found = problems(CREATE_IMAGE_EDIT, image=value, prompt="x")
    assert list(found) == [path]
    assert problem in found[path]


def test_pictures_of_an_edit() -> None:
    """One picture and several become a tuple; a variation has exactly one."""
    assert CREATE_IMAGE_EDIT.read({"image": "a.png", "prompt": "x"}).image == ("a.png",)
    assert CREATE_IMAGE_EDIT.read({"image": ["a", "b"], "prompt": "x"}).image == ("a", "b")
    assert CREATE_IMAGE_VARIATION.read({"image": "a.png"}).image == "a.png"
    assert "type list" in problems(CREATE_IMAGE_VARIATION, image=["a.png"])["image"]


def test_mask_and_markup_exclude_each_other() -> None:
    """An edit takes one overlay, and either may be absent."""
    both = problems(CREATE_IMAGE_EDIT, image="a", prompt="x", mask=b"m", markup=b"m")
    assert list(both) == ["markup"]
    assert CREATE_IMAGE_EDIT.read({"image": "a", "prompt": "x", "mask": None, "markup": b"m"}).markup == b"m"


def test_missing_members() -> None:
    """What is required is asked for by name."""
    assert list(problems(CREATE_IMAGE)) == ["prompt"]
    assert sorted(problems(CREATE_IMAGE_EDIT)) == ["image", "prompt"]
    assert "give the picture to vary" in problems(CREATE_IMAGE_VARIATION)["image"]


def test_flatten() -> None:
    """Nested messages become flat paths; those of a whole object keep its path."""
    nested = {"data": {0: {"url": ["Bad.", "Worse."]}, "_schema": ["Odd."]}, "_schema": "Whole."}
    assert flatten(nested) == {"data.0.url": "Bad. Worse.", "data": "Odd.", "request": "Whole."}


PLANS = [
    (CreateImageRequest, ImageOperations.create_image),
    (CreateImageEditRequest, ImageOperations.create_image_edit),
    (CreateImageVariationRequest, ImageOperations.create_image_variation),
]


@pytest.mark.parametrize(("kind", "plan"), PLANS)
def test_request_schema_and_signature_agree(kind: Any, plan: Any) -> None:
    """A field is in the dataclass, its schema, and the operation's signature and description, or in none."""
    fields = {field.name for field in dataclasses.fields(kind)}
    parameters = set(inspect.signature(plan).parameters) - {"self"}
    assert set(REQUEST_SCHEMAS[kind].fields) == fields
    how = {"save_to", "timeout_s", "cache", "replica", "strategy", "variation_prompt", "prepare"}
    assert parameters - how == fields
    described = set((inspect.getdoc(plan) or "").replace(",", " ").replace(":", " ").split())
    assert parameters <= described
    assert REQUEST_SCHEMAS[kind].target is kind


def test_unknown_keys_are_kept_in_order() -> None:
    """What a server says beyond what is known is kept, sorted, so that every run shows the same."""
    read = REPLY.read({"zeta": 1, "created": 5, "alpha": [2], "extra": 3, "size": "1x1"})
    assert (read.created, read.size) == (5, "1x1")
    assert list(read.extra.items()) == [("alpha", [2]), ("extra", 3), ("zeta", 1)]


WRONG_TYPES: list[tuple[str, Any]] = [
    ("created", "soon"), ("created", 1.5), ("created", True), ("size", 5), ("quality", ["high"]),
    ("usage", []),
    ("background", {}), ("output_format", False), ("warnings", "watch out"), ("warnings", [1]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG_TYPES)
def test_wrong_types_are_kept_aside(name: str, value: Any) -> None:
    """A field of an unexpected type is as if absent, and kept as it came."""
    read = REPLY.read({name: value})
    assert getattr(read, name) == getattr(REPLY.read({}), name)
    assert read.extra == {name: value}


def test_nulls_are_absent() -> None:
    """An explicit null says nothing and is no leftover."""
    names = ("created", "usage", "size", "warnings")
    assert REPLY.read(dict.fromkeys(names)) == REPLY.read({})
    assert IMAGE.read({"url": None, "revised_prompt": None}) == IMAGE.read({})


def test_entry() -> None:
    """An entry's known texts are read and the rest is kept."""
    read = IMAGE.read({"url": "u", "revised_prompt": 5, "seed": 7})
    assert (read.url, read.revised_prompt, read.extra) == ("u", None, {"revised_prompt": 5, "seed": 7})


def test_usage() -> None:
    """Token counts are flattened; odd ones and unknown ones are kept under the names they came with."""
    usage = {
        "total_tokens": 30, "input_tokens": -1, "output_tokens": 20, "cost": 0.1,
        "input_tokens_details": {"text_tokens": 7, "image_tokens": "3", "cached_tokens": 2},
        "output_tokens_details": {"image_tokens": 20},
    }  # fmt: skip
    assert REPLY.read({"usage": usage}).usage.flat() == Usage(
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
    """No usage, however odd, costs the pictures beside it, and none of it is lost."""
    read = REPLY.read({"usage": usage})
    if not isinstance(usage, dict):
        assert read.usage is None
        return
    flat = read.usage.flat()
    for name in ("total_tokens", "input_tokens", "output_tokens"):
        count = usage.get(name)
        fits = type(count) is int and count >= 0
        assert getattr(flat, name) == (count if fits else None)
        assert count is None or fits or name in flat.extra


@given(st.dictionaries(st.sampled_from(["created", "usage", "size", "url", "x"]), JSON))
def test_any_reply_is_read(reply: dict[str, Any]) -> None:
    """Whatever is beside the pictures, reading it raises nothing and drops no unknown key."""
    assert ("x" in REPLY.read(reply).extra) == ("x" in reply)
    json.dumps(IMAGE.read(reply).extra)
