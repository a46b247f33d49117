"""The dialect of OpenAI's Images API: encoded requests and decoded replies."""

from __future__ import annotations

import base64
import json
from contextlib import ExitStack
from datetime import date
from email.parser import BytesParser
from typing import Any

import pytest

from imgkit.catalogue.catalogue import Catalogue
from imgkit.errors import (
    ApiError,
    EmptyResultError,
    ImgkitError,
    MissingModelError,
    ModerationBlockedError,
    UnreadableReplyError,
)
from imgkit.images.inputs import OpenedInputs, open_input
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageRequest,
    Usage,
)
from imgkit.providers.base import DecodedImages, Target
from imgkit.providers.openai import OpenAIProvider
from imgkit.wire.json_body import JsonReply
from imgkit.wire.messages import Head, HttpRequest
from tests.support.pictures import encoded, picture

PROVIDER = OpenAIProvider()
TARGET = Target(base_url="https://api.example.com/v1", host_class="compatible")
OFFICIAL = Target(base_url=OpenAIProvider.base_url, host_class="official")
HEAD = Head(200, {"x-request-id": "req_7"})
PNG = picture()
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'


def sent(request: HttpRequest) -> bytes:
    return b"".join(request.body.blocks())


def create(target: Target = TARGET, **members: Any) -> HttpRequest:
    return PROVIDER.encode(CreateImageRequest(prompt="an otter", **members), OpenedInputs(), target)


def form(request: HttpRequest) -> list[tuple[Any, str | None, str, bytes]]:
    """Return name, file name, media type and content of a form's parts."""
    head = f"MIME-Version: 1.0\r\nContent-Type: {request.body.content_type}\r\n\r\n".encode()
    parts: Any = BytesParser().parsebytes(head + sent(request)).get_payload()
    return [
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part.get_content_type(),
            part.get_payload(decode=True),
        )
        for part in parts
    ]


def edit(*pictures: bytes, overlays: dict[str, bytes] | None = None, **members: Any) -> HttpRequest:
    with ExitStack() as stack:
        image = tuple(open_input(data, "image", stack) for data in pictures)
        over = {name: open_input(data, name, stack) for name, data in (overlays or {}).items()}
    request = CreateImageEditRequest(image=pictures, prompt="a hat", **members)
    return PROVIDER.encode(request, OpenedInputs(image, over.get("mask"), over.get("markup")), TARGET)


def decode(reply: Any, head: Head = HEAD) -> DecodedImages:
    body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    reply = JsonReply(PROVIDER.base64_keys)
    reply.feed(body)
    reply.close()
    return PROVIDER.decode(head, reply, TARGET)


def refused(reply: Any, kind: type[ImgkitError], head: Head = HEAD) -> Any:
    with pytest.raises(kind) as caught:
        decode(reply, head)
    assert type(caught.value) is kind
    assert len(str(caught.value)) <= 1024
    return caught.value


def test_creation_on_the_wire() -> None:
    """Encodes a creation as a POST of canonical JSON with the given members only."""
    request = create(size="1x1", n=2, svg={"b": 1, "a": "é"})
    assert (request.method, request.url) == ("POST", "https://api.example.com/v1/images/generations")
    assert request.body.content_type == "application/json"
    assert sent(request) == '{"n":2,"prompt":"an otter","size":"1x1","svg":{"a":"é","b":1}}'.encode()
    assert request.headers == {"accept": "application/json", "accept-encoding": "identity"}


def test_order_of_mappings() -> None:
    """Encodes equal requests as equal bytes, in any order of mappings."""
    assert sent(create(extra_body={"a": 1, "b": 2})) == sent(create(extra_body={"b": 2, "a": 1}))


MEMBERS: list[tuple[Target, dict[str, Any], dict[str, Any]]] = [
    (TARGET, {}, {}),
    (Target(base_url="https://h/v1", host_class="compatible", model="own"), {}, {"model": "own"}),
    (Target(base_url="https://h/v1", host_class="compatible", model="own"), {"model": "m"}, {"model": "m"}),
    (TARGET, {"model": "m", "extra_body": {"model": "x"}}, {"model": "x"}),
    (TARGET, {"n": 1, "extra_body": {"n": 3, "seed": 7}}, {"n": 3, "seed": 7}),
    (TARGET, {"extra_body": {"style": None}}, {"style": None}),
    (TARGET, {"extra_body": {"prompt": "a fox"}}, {"prompt": "a fox"}),
]


@pytest.mark.parametrize(("target", "members", "expected"), MEMBERS)
def test_members(target: Target, members: dict[str, Any], expected: dict[str, Any]) -> None:
    """Fills a missing model from the target; extra_body wins over all members."""
    assert json.loads(sent(create(target, **members))) == {"prompt": "an otter", **expected}


def test_headers() -> None:
    """Sends organisation and project if they are set, and omits a header of None."""
    target = Target(base_url="https://h/v1", host_class="compatible", organization="org-1", project="proj-1")
    request = create(target, extra_headers={"x-trace": "1", "accept": None, "openai-project": "proj-2"})
    assert request.headers == {
        "accept-encoding": "identity",
        "openai-organization": "org-1",
        "openai-project": "proj-2",
        "x-trace": "1",
    }


def test_edit_of_one_image() -> None:
    """Names one image `image`, sniffs its type and hides the caller's file name."""
    request = edit(picture("JPEG"), overlays={"mask": PNG}, n=2)
    assert request.url == "https://api.example.com/v1/images/edits"
    assert form(request) == [
        ("prompt", None, "text/plain", b"a hat"),
        ("n", None, "text/plain", b"2"),
        ("image", "image.jpg", "image/jpeg", picture("JPEG")),
        ("mask", "mask.png", "image/png", PNG),
    ]


def test_edit_of_several_images() -> None:
    """Names several images `image[]`, in the caller's order."""
    request = edit(PNG, picture("WEBP"), picture("GIF"), overlays={"markup": PNG})
    assert [part[:3] for part in form(request)[1:]] == [
        ("image[]", "image-1.png", "image/png"),
        ("image[]", "image-2.webp", "image/webp"),
        ("image[]", "image-3.gif", "image/gif"),
        ("markup", "markup.png", "image/png"),
    ]


FORM_FIELDS: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    (
        {"svg": {"model": "m", "reasoning": {"effort": "low"}}},
        [("svg[model]", "m"), ("svg[reasoning][effort]", "low")],
    ),
    ({"extra_body": {"raw": True, "safe": False}}, [("raw", "true"), ("safe", "false")]),
    ({"extra_body": {"a": [1, "x", None]}}, [("a[]", "1"), ("a[]", "x")]),
    ({"extra_body": {"a": [{"b": 1}, [2]]}}, [("a[][b]", "1"), ("a[][]", "2")]),
    ({"extra_body": {"a": None, "b": [], "c": {}}}, []),
    ({"extra_body": {"a": 1.5, "n": 2}}, [("a", "1.5"), ("n", "2")]),
    ({"n": 1, "extra_body": {"n": 2}}, [("n", "2")]),
]


@pytest.mark.parametrize(("members", "expected"), FORM_FIELDS)
def test_form_fields(members: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """Encodes objects, arrays, booleans and numbers like the SDK, and omits None."""
    fields = [(name, content.decode("latin-1")) for name, _, _, content in form(edit(PNG, **members))]
    assert fields[0] == ("prompt", "a hat")
    assert fields[1:-1] == expected


def test_variation() -> None:
    """Encodes a variation as a form with its image and the given members."""
    with ExitStack() as stack:
        inputs = OpenedInputs((open_input(PNG, "image", stack),))
    request = PROVIDER.encode(CreateImageVariationRequest(image=PNG, size="auto"), inputs, TARGET)
    assert request.url.endswith("/v1/images/variations")
    assert form(request) == [
        ("size", None, "text/plain", b"auto"),
        ("image", "image.png", "image/png", PNG),
    ]


UNNAMED: list[ImageRequest] = [
    CreateImageRequest(prompt="x"),
    CreateImageEditRequest(image=PNG, prompt="x"),
    CreateImageVariationRequest(image=PNG),
]


@pytest.mark.parametrize("request_", UNNAMED)
def test_missing_model(request_: ImageRequest) -> None:
    """Rejects a missing model on the official host, and lists the live models."""
    with pytest.raises(MissingModelError, match="Pass model=") as caught:
        PROVIDER.check(request_, OFFICIAL)
    live = Catalogue("openai", OpenAIProvider.model_facts).list_live_ids(date.today())
    assert live
    assert all(name in str(caught.value) for name in live)
    PROVIDER.check(request_, TARGET)
    PROVIDER.check(request_, Target(base_url="https://offline.invalid/v1", host_class="offline"))


NAMED = [
    (CreateImageRequest(prompt="x", model="m"), OFFICIAL),
    (CreateImageRequest(prompt="x", extra_body={"model": "m"}), OFFICIAL),
    (CreateImageRequest(prompt="x"), Target(base_url="https://h", host_class="official", model="m")),
]


@pytest.mark.parametrize(("request_", "target"), NAMED)
def test_model_is_named(request_: ImageRequest, target: Target) -> None:
    """Accepts a model from request, target or extra_body."""
    PROVIDER.check(request_, target)


def test_full_reply() -> None:
    """Keeps all members of a reply, known or unknown."""
    answer = decode(
        {
            "created": 5, "size": "8x8", "quality": "low", "background": "opaque", "output_format": "png",
            "usage": {"total_tokens": 3, "input_tokens_details": {"text_tokens": 1}}, "warnings": ["slow"],
            "data": [{"b64_json": encoded(), "revised_prompt": "an otter\ud800", "seed": 7}], "zeta": 1,
        }
    )  # fmt: skip
    (one,) = answer.pictures
    assert (one.data, one.url, one.revised_prompt, one.extra) == (PNG, None, "an otter\ud800", {"seed": 7})
    assert answer.usage == Usage(total_tokens=3, input_text_tokens=1)
    assert (answer.created, answer.size, answer.quality, answer.background) == (5, "8x8", "low", "opaque")
    assert (answer.output_format, answer.warnings, answer.extra) == ("png", ("slow",), {"zeta": 1})


GOOD_ENTRIES: list[tuple[dict[str, Any], bytes | None, str | None]] = [
    ({"b64_json": encoded()}, PNG, None),
    ({"b64_json": encoded(), "url": None}, PNG, None),
    ({"b64_json": base64.encodebytes(PNG).decode()}, PNG, None),
    ({"b64_json": base64.urlsafe_b64encode(PNG).decode().rstrip("=")}, PNG, None),
    ({"b64_json": "data:image/png;base64," + encoded()}, PNG, None),
    ({"b64_json": encoded(SVG)}, SVG, None),
    ({"b64_json": None, "url": "https://cdn.example/a.png?sig=1"}, None, "https://cdn.example/a.png?sig=1"),
    ({"b64_json": "", "url": "https://cdn.example/a.png"}, None, "https://cdn.example/a.png"),
    ({"url": "http://0.0.0.0:9/a.png"}, None, "http://0.0.0.0:9/a.png"),
    ({"url": "/files/a.png"}, None, "https://api.example.com/files/a.png"),
    ({"url": "files/a.png"}, None, "https://api.example.com/v1/files/a.png"),
    ({"b64_json": encoded(), "url": "https://cdn.example/a.png"}, PNG, "https://cdn.example/a.png"),
    ({"url": "data:image/png;base64," + encoded()}, PNG, None),
    ({"url": "data:image/svg+xml," + SVG.decode()}, SVG, None),
    ({"b64_json": encoded(), "url": 5}, PNG, None),
]


@pytest.mark.parametrize(("entry", "data", "url"), GOOD_ENTRIES)
def test_entries(entry: dict[str, Any], data: bytes | None, url: str | None) -> None:
    """Finds an image at any place, keeps a URL beside bytes, and makes it absolute."""
    answer = decode({"data": [entry]})
    assert [(one.data, one.url) for one in answer.pictures] == [(data, url)]
    assert answer.warnings == ()


DOUBTS: list[tuple[dict[str, Any], str]] = [
    ({"b64_json": encoded(b"<html>login</html>")}, "data.1 is not an image of a known format"),
    ({"b64_json": encoded(PNG[: len(PNG) // 2])}, "data.1 seems to be cut off"),
    ({"b64_json": "iVBORw0KGgo="}, "data.1 seems to be cut off"),
    ({"b64_json": "Q*", "url": "https://cdn.example/a.png"}, "data.1 holds broken base64"),
    ({"b64_json": encoded(), "url": "http://[::1"}, "data.1 has an unreadable URL"),
]


@pytest.mark.parametrize(("entry", "warning"), DOUBTS)
def test_doubtful_entries_are_kept(entry: dict[str, Any], warning: str) -> None:
    """Delivers doubtful images with a warning."""
    answer = decode({"data": [{"b64_json": encoded()}, entry]})
    assert len(answer.pictures) == 2
    assert [text[: len(warning)] for text in answer.warnings] == [warning]


LOST: list[tuple[Any, str]] = [
    ({"b64_json": "Q*"}, "data.0 holds broken base64"),
    ({"b64_json": 5}, "data.0 holds base64 of type int"),
    ({"url": "data:image/png;base64,Q*"}, "data.0 has an unreadable URL"),
    ({"url": "http://[::1"}, "data.0 has an unreadable URL"),
    ("text", "data.0 is a JSON str"),
    (None, "data.0 is a JSON NoneType"),
    ({"b64_json": None, "url": None}, "data.0 has no image"),
    ({}, "data.0 has no image"),
    ({"b64_json": "=="}, "data.0 has no image"),
]


@pytest.mark.parametrize(("entry", "warning"), LOST)
def test_one_lost_entry_costs_no_other(entry: Any, warning: str) -> None:
    """Delivers the other images, and names the unreadable entry in a warning."""
    answer = decode({"data": [entry, {"b64_json": encoded()}]})
    assert [one.data for one in answer.pictures] == [PNG]
    assert [text[: len(warning)] for text in answer.warnings] == [warning]


UNREADABLE: list[tuple[Any, str]] = [
    (b"", "Expecting value"),
    (b'{"created": 1, "data": [{"b64_json": "iVBORw0KGgo', "Unterminated string"),
    (b"<html>login</html>", "Expecting value"),
    ([], "a JSON list instead of an object"),
    ("text", "a JSON str"),
    (None, "a JSON NoneType"),
    (5, "a JSON int"),
    (b'{"data": [], "data": null}', "appears twice"),
    (b"[" * 100_000, "nested too deeply"),
    ({"data": {"size": "64x64"}}, "data is a JSON dict"),
    ({"data": "what"}, "data is a JSON str"),
    ({"data": [{"b64_json": "Q*"}, "x"]}, "data.0 holds broken base64; data.1 is a JSON str"),
]


@pytest.mark.parametrize(("reply", "problem"), UNREADABLE)
def test_unreadable(reply: Any, problem: str) -> None:
    """Reports a reply without a readable image with reason and request id, and keeps its bytes."""
    error = refused(reply, UnreadableReplyError)
    assert problem in str(error)
    assert "req_7" in str(error)
    assert "may have been billed" in str(error)
    assert error.body == (reply if isinstance(reply, bytes) else json.dumps(reply).encode())
    assert error.request_id == "req_7"


@pytest.mark.parametrize("status", [204, 205, 206])
def test_success_without_a_complete_reply(status: int) -> None:
    """Does not decode replies of statuses without a complete body."""
    assert f"HTTP {status}" in str(refused({"data": []}, UnreadableReplyError, Head(status, {})))


@pytest.mark.parametrize(
    "reply", [{"created": 10}, {"data": None}, {"data": []}, {"data": [{}, {"url": None, "b64_json": None}]}]
)
def test_empty(reply: Any) -> None:
    """Reports a success without images as possibly billed."""
    error = refused(reply, EmptyResultError)
    assert error.request_id == "req_7"
    assert "may have been billed" in str(error)


ERRORS_IN_SUCCESS: list[tuple[Any, type[ApiError], str | None]] = [
    ({"error": {"message": "boom", "code": "x"}}, ApiError, "x"),
    ({"error": "boom"}, ApiError, None),
    ({"data": None, "error": {"message": "boom"}}, ApiError, None),
    ({"data": [], "error": {"message": "boom", "code": "moderation_blocked"}}, ModerationBlockedError,
     "moderation_blocked"),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "kind", "code"), ERRORS_IN_SUCCESS)
def test_error_under_200(reply: Any, kind: type[ApiError], code: str | None) -> None:
    """Raises the error of an error object under status 200."""
    error = refused(reply, kind)
    assert "boom" in str(error)
    assert (error.code, error.status, error.request_id) == (code, 200, "req_7")


def test_error_beside_images() -> None:
    """Delivers images beside an error object, and keeps the error."""
    answer = decode({"data": [{"b64_json": encoded()}], "error": {"message": "one of two failed"}})
    assert len(answer.pictures) == 1
    assert answer.extra == {"error": {"message": "one of two failed"}}


def test_remedy_of_a_code() -> None:
    """Prefers the remedy of a code to the remedy of the class."""
    body = b'{"error": {"message": "no", "code": "unknown_parameter", "param": "style"}}'
    error = PROVIDER.error(Head(400, {}), body, ())
    assert str(error).endswith("Leave the parameter out, or name a model that has it.")
