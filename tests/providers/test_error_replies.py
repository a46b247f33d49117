"""Errors for error replies of any server."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgkit import errors as tree
from imgkit.providers.error_codes import ErrorMeaning, data_date, load_meanings
from imgkit.providers.error_replies import BY_STATUS, NEXT_STEP, PAGE_ORIGIN, PAGE_STEPS, error_from_reply
from imgkit.wire.headers import retry_after_s
from imgkit.wire.messages import Head
from tests.support.pictures import answer
from tests.support.wire_server import WireServer, reply

KEY = "sk-proj-CANARY1234567890abcdef"
STEPS = sorted(
    {*NEXT_STEP.values(), *PAGE_STEPS.values(), "Check base_url.", *(one.next for one in load_meanings())}
    - {""}
)


def error(status: int, body: Any = b"", secrets: tuple[str, ...] = (), **headers: str) -> Any:
    """Return the error of a reply; whatever it is, its message is short, printable and holds no key."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"x-request-id": "req_7", **{name.replace("_", "-"): value for name, value in headers.items()}}
    found = error_from_reply(Head(status, named), content, secrets)
    text = str(found)
    assert len(text) <= 1024
    assert "CANARY" not in text
    assert not any(character < " " and character not in "\n\t" for character in text)
    assert text.encode()
    return found


def openai(message: Any = "boom", code: Any = None, **members: Any) -> dict[str, Any]:
    return {
        "error": {"message": message, "type": "invalid_request_error", "param": None, "code": code, **members}
    }


BY_STATUS_ALONE: list[tuple[int, type[tree.ApiError]]] = [
    (400, tree.BadRequestError),
    (401, tree.AuthenticationError),
    (402, tree.QuotaExceededError),
    (403, tree.PermissionDeniedError),
    (404, tree.NotFoundError),
    (405, tree.NotFoundError),
    (409, tree.ConflictError),
    (410, tree.EndpointRetiredError),
    (413, tree.BadRequestError),
    (415, tree.BadRequestError),
    (418, tree.BadRequestError),
    (422, tree.BadRequestError),
    (426, tree.BadRequestError),
    (429, tree.RateLimitError),
    (300, tree.RedirectRefusedError),
    (304, tree.RedirectRefusedError),
]
SHAPES: list[tuple[Any, str]] = [
    (openai(), "boom"),
    ({"error": "boom"}, "boom"),
    ({"error": ["boom", 5]}, "boom; 5"),
    ({"error": None, "message": "boom"}, "boom"),
    ({"message": "boom", "code": None}, "boom"),
    ({"detail": "boom"}, "boom"),
    ({"detail": [{"loc": ["body", "prompt"], "msg": "boom", "type": "missing"}]}, "body.prompt: boom"),
    ({"detail": ["boom", {"msg": "bang"}, {"loc": "x"}, 5]}, "boom; bang; x; 5"),
    ({"title": "boom", "status": 422, "type": "https://errors.example/x"}, "boom"),
    ({"title": "Invalid request", "status": 422, "detail": "boom"}, "boom"),
    ("boom", "boom"),
    (b"boom", "boom"),
    (
        b"<html><head><style>p{}</style><title>boom</title></head><body><!-- x --><p>bang &amp; co</p>",
        "boom bang & co",
    ),
    (b"<script>alert('x')", ""),
    (b'<?xml version="1.0"?><!DOCTYPE a [<!ELEMENT a (b)> <!ENTITY c "d">]><a><b>boom</b></a>', "boom"),
    (b"<html>boom<a href='" + b"x" * 5_000, "boom"),
    (b"1 < 2 boom", "1 < 2 boom"),
    (b"", ""),
    (b"\xff\xfe\x00", "\ufffd\ufffd"),
    ([], "[]"),
    ([openai()], "boom"),
    ([{"error": "boom"}], "boom"),
    ({"statusCode": 401, "message": "boom"}, "boom"),
    ({"code": "401", "error": "boom"}, "boom"),
    (None, ""),
]


@pytest.mark.parametrize(("status", "kind"), BY_STATUS_ALONE)
@pytest.mark.parametrize(("body", "said"), SHAPES)
def test_every_shape_under_every_status(status: int, kind: type[tree.ApiError], body: Any, said: str) -> None:
    """Chooses the class by status, and keeps message, id and one remedy for each shape of body."""
    found = error(status, body)
    assert type(found) is kind
    assert (found.status, found.request_id, found.code) == (status, "req_7", None)
    text = str(found)
    assert text.startswith(f"HTTP {status}")
    assert "request id req_7" in text
    is_page = isinstance(body, bytes) and b"<html>" in body and status >= 400
    step = PAGE_STEPS.get(kind, "Check base_url.") if is_page else NEXT_STEP[kind]
    assert f": {said}." in text if said else f"req_7. {step}" in text
    assert text.endswith(step)
    assert (PAGE_ORIGIN in text) == is_page
    assert sum(step in text for step in STEPS) == 1


PLAIN = [
    (code, one)
    for one in load_meanings()
    if not (one.says or one.param or one.statuses)
    for code in sorted(one.codes)
]


@pytest.mark.parametrize(("code", "meaning"), PLAIN, ids=[code for code, _ in PLAIN])
@pytest.mark.parametrize("status", [400, 403, 429, 500])
def test_code_before_status(code: str, meaning: ErrorMeaning, status: int) -> None:
    """Chooses the class by a known code before status and type, with the code's remedy."""
    found = error(status, openai(code=code, param="prompt"))
    assert type(found) is meaning.error
    assert (found.code, found.param, found.type) == (code, "prompt", "invalid_request_error")
    assert f", code {code}, param prompt" in str(found)
    assert str(found).endswith(meaning.next or NEXT_STEP[meaning.error])
    assert sum(step in str(found) for step in STEPS) == 1


def test_the_codes_are_dated_data() -> None:
    """Has a source for each fact, marks unconfirmed facts, and has no duplicate code."""
    assert data_date().year >= 2026
    assert all(len(one.source) > 4 and issubclass(one.error, tree.ApiError) for one in load_meanings())
    assert len({code for code, _ in PLAIN}) == len(PLAIN)
    assert {code for one in load_meanings() if one.unconfirmed for code in one.codes} == {
        "PermissionDenied", "RateLimitReached", "DeploymentNotFound", "unsupported_parameter",
        "model_not_found", "invalid_value", "content_moderation", "DataInspectionFailed",
        "UnrecognizedClientException", "InvalidSignatureException", "IncompleteSignatureException",
        "ExpiredTokenException",
    }  # fmt: skip


IMAGE_CODES = (
    "invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url", "image_too_large",
    "image_too_small", "image_parse_error", "image_content_policy_violation", "invalid_image_mode",
    "image_file_too_large", "unsupported_image_media_type", "empty_image_file", "failed_to_download_image",
    "image_file_not_found",
)  # fmt: skip


@pytest.mark.parametrize("code", IMAGE_CODES)
def test_codes_about_input_images(code: str) -> None:
    """Maps each code to a class for input images, with a remedy."""
    found = error(400, openai(code=code))
    assert isinstance(found, tree.InvalidImageError | tree.ModerationBlockedError)
    assert not str(found).endswith(NEXT_STEP[tree.BadRequestError])


MODELS: list[tuple[int, dict[str, Any], type[tree.ApiError]]] = [
    (404, openai("The model `dall-e-3` does not exist.", "model_not_found"), tree.ModelNotFoundError),
    (404, openai("The model `x` has been deprecated, learn more", "model_not_found"), tree.ModelRetiredError),
    (400, openai("The model 'dall-e-2' does not exist.", "invalid_value"), tree.ModelNotFoundError),
    (400, openai("Invalid value: 'dall-e-2'.", "invalid_value", param="model"), tree.ModelNotFoundError),
    (400, openai("The model 'x' was shut down.", "invalid_value", param="model"), tree.ModelRetiredError),
    (400, openai("Invalid value: '1500x1000'.", "invalid_value", param="size"), tree.BadRequestError),
    (400, openai("Invalid value: '1500x1000'.", "invalid_value"), tree.BadRequestError),
    (404, openai("The API deployment does not exist.", "DeploymentNotFound"), tree.ModelNotFoundError),
]


@pytest.mark.parametrize(("status", "body", "kind"), MODELS)
def test_missing_models(status: int, body: Any, kind: type[tree.ApiError]) -> None:
    """Distinguishes invalid sizes from retired models with the same type and code."""
    found = error(status, {"error": {**body["error"], "type": "image_generation_user_error"}})
    assert type(found) is kind


FILTERS = {"hate": {"filtered": False, "severity": "safe"},
           "violence": {"filtered": True, "severity": "high"},
           "jailbreak": {"filtered": False, "detected": True}, "odd": 5}  # fmt: skip
AZURE: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    (openai(code="contentFilter", innererror={"content_filter_result": FILTERS}), ("violence",)),
    (openai(code="content_filter", innererror={"content_filter_result": FILTERS}), ("violence",)),
    (
        openai(
            code="content_policy_violation",
            inner_error={"code": "ResponsibleAIPolicyViolation", "content_filter_results": FILTERS},
        ),
        ("violence",),
    ),
    (
        openai(
            code="400",
            provider_specific_fields={
                "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": FILTERS}
            },
        ),
        ("violence",),
    ),
    (openai(code="contentFilter"), ()),
    (openai(code="contentFilter", innererror={"content_filter_result": [3]}), ()),
    (openai(code="contentFilter", innererror=3), ()),
]


@pytest.mark.parametrize(("body", "categories"), AZURE)
def test_azures_filters(body: Any, categories: tuple[str, ...]) -> None:
    """Maps each Azure spelling to a moderation error with the categories that took effect."""
    found = error(400, body)
    assert type(found) is tree.ModerationBlockedError
    assert (found.stage, found.categories) == (None, categories)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("insufficient_quota", tree.QuotaExceededError),
        ("billing_hard_limit_reached", tree.BillingLimitError),
        ("rate_limit_exceeded", tree.RateLimitError),
        (None, tree.RateLimitError),
    ],
)
def test_quota_or_rate(code: str | None, kind: type[tree.ApiError]) -> None:
    """Keeps the server's wait for a rate limit, and none for an exhausted quota."""
    found = error(429, openai(code=code), retry_after="20")
    assert type(found) is kind
    assert found.retry_after_s == 20
    assert "asks to wait 20 s" in str(found)
    assert ("waiting does not help" in str(found)) == issubclass(kind, tree.QuotaExceededError)


VERIFY = "Your organization must be verified to use the model `gpt-image-2`."


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (403, VERIFY, tree.OrganizationNotVerifiedError),
        (401, VERIFY, tree.OrganizationNotVerifiedError),
        (403, "Not in your organization's allowed models.", tree.PermissionDeniedError),
        (400, VERIFY, tree.BadRequestError),
    ],
)
def test_organisation_not_verified(status: int, message: str, kind: type[tree.ApiError]) -> None:
    """Distinguishes a missing verification from a missing permission."""
    found = error(status, openai(message))
    assert type(found) is kind
    assert str(found).endswith(NEXT_STEP[kind])


MODERATION: list[tuple[Any, str | None, tuple[str, ...]]] = [
    (
        {"moderation_stage": "input", "categories": ["violence", "self-harm"]},
        "input",
        ("violence", "self-harm"),
    ),
    ({"moderation_stage": "output"}, "output", ()),
    ({"moderation_stage": 5, "categories": {"a": 1}}, "5", ()),
    ({"moderation_stage": None, "categories": [None, 5, "x" * 100]}, None, ("None", "5", "x" * 60)),
    ("odd", None, ()),
    (None, None, ()),
]


@pytest.mark.parametrize(("details", "stage", "categories"), MODERATION)
def test_moderation(details: Any, stage: str | None, categories: tuple[str, ...]) -> None:
    """Keeps stage and categories of a moderation error."""
    found = error(400, openai(code="moderation_blocked", moderation_details=details))
    assert isinstance(found, tree.ModerationBlockedError)
    assert (found.stage, found.categories) == (stage, categories)


HTML = b"<html><body><h1>Gateway</h1><hr>nginx</body></html>"
GATEWAYS = [
    *(
        (status, body)
        for status in (408, 502, 504, 520, 522, 524)
        for body in (HTML, b"", openai("upstream"))
    ),
    *(
        (status, body)
        for status in (500, 503, 525, 599, 600, 999)
        for body in (HTML, b"", b"no", b'{"error": {"mess', b"null")
    ),
]


@pytest.mark.parametrize(("status", "body"), GATEWAYS)
def test_gateways(status: int, body: Any) -> None:
    """Maps a gateway's reply to an unknown outcome, because an image may have been created."""
    found = error(status, body)
    assert type(found) is tree.OutcomeUnknownError
    assert found.maybe_billed is True
    assert (found.status, found.request_id) == (status, "req_7")
    assert "may have created and billed an image" in str(found)
    assert "<" not in str(found)


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("names", [{"type": "server_error"}, {"code": "InternalServerError", "type": None}])
def test_reported_failures(status: int, names: dict[str, Any]) -> None:
    """Maps the API's own error object under 500 or 503 to a server error."""
    assert type(error(status, openai(**names))) is tree.ServerError


@pytest.mark.parametrize("status", [501, 502, 504, 507, 525, 529, 599])
def test_other_statuses_prove_nothing(status: int) -> None:
    """Maps the API's own error object under any other 5xx to an unknown outcome."""
    assert type(error(status, openai())) is tree.OutcomeUnknownError


JSON_OF_GATEWAYS: list[Any] = [
    {"message": "Service Unavailable"},
    {"message": "boom", "type": "server_error", "code": "server_error"},
    {"statusCode": 500, "code": "InternalServerError", "message": "boom"},
    {"detail": "boom"},
    {"error": "boom"},
    {"error": {"message": "boom"}},
    {"error": {"message": "", "code": "server_error"}},
    {"error": {"code": "server_error"}},
    {"error": {"message": ["boom"], "code": "server_error"}},
    {"error": {"message": "boom", "code": 500}},
    {"error": {"message": "boom", "code": "500", "type": None}},
    {"error": {"message": "boom", "code": "500", "type": "None"}},
    {"error": {"message": "boom", "code": "ECONNRESET"}},
    {"error": {"message": "boom", "type": "about:blank"}},
    {"error": {"message": "boom", "type": "server_error", "code": "gateway_timeout"}},
    {"error": {"message": "boom", "type": "upstream_error"}},
    {"error": [{"message": "boom", "code": "server_error"}]},
    {"errors": [{"message": "boom", "code": "server_error"}]},
    [openai()],
    "boom",
    None,
    17,
]


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("body", JSON_OF_GATEWAYS, ids=repr)
def test_json_of_gateways(status: int, body: Any) -> None:
    """Maps JSON of any other shape to an unknown outcome."""
    found = error(status, body, retry_after="7", x_should_retry="true")
    assert type(found) is tree.OutcomeUnknownError
    assert (found.retry_after_s, found.should_retry) == (7, True)


@pytest.mark.parametrize("body", [{"error": "upstream timeout"}, {"error": ["boom"], "data": []}])
def test_an_error_of_a_gateway_in_a_success(body: Any) -> None:
    """Counts a 2xx reply as billed if text stands in place of the API's error object."""
    found = error(200, body)
    assert found.maybe_billed
    assert "may have been billed" in str(found)
    for free in (openai(), {"error": {"message": "boom"}}, {"type": "error", "message": "boom"}):
        assert not error(200, free).maybe_billed


def test_the_word_of_imgkits_server_comes_first() -> None:
    """Takes its word on costs under any status; a refusal that may be billed keeps its class."""

    def served(maybe_billed: bool, **members: Any) -> dict[str, Any]:
        return openai(**members, imgkit={"class": "X", "maybe_billed": maybe_billed})

    quoting = f"Upstream: {json.dumps(openai())}"
    for status in (200, 408, 424, 500, 503, 504):
        assert not error(status, served(False)).maybe_billed
        assert not error(status, served(False, message=quoting)).maybe_billed
        assert type(error(status, served(True))) is tree.OutcomeUnknownError
    for message in ("Refused.", "Refused. The call may have been billed."):
        refusal = error(424, served(True, message=message, code="moderation_blocked"))
        assert (type(refusal), refusal.maybe_billed) == (tree.ModerationBlockedError, True)
        assert str(refusal).count("may have been billed") == 1


@pytest.mark.parametrize("status", [500, 504])
def test_a_quoted_word_of_imgkits_server_counts_nothing(status: int) -> None:
    """Finds an unknown outcome if a gateway puts the reply of imgkit's server into its own."""
    inner = openai(imgkit={"class": "X", "maybe_billed": False})
    for body in (
        {"error": {"message": "Upstream failed", "code": status, "metadata": {"raw": json.dumps(inner)}}},
        {"error": {"message": f"All retries failed: {json.dumps(inner)}"}},
        {"detail": inner},
        f"503 from upstream: {json.dumps(inner)}".encode(),
    ):
        assert type(error(status, body)) is tree.OutcomeUnknownError, body


REDIRECTS = [
    ("https://evil.example/v1/x?key=CANARY", "to https://evil.example:"),
    ("http://user:CANARY@evil.example:8080/CANARY", "to http://evil.example:8080:"),
    ("//evil.example/CANARY", "to //evil.example:"),
    ("/v1/elsewhere?token=CANARY", "to another path:"),
    ("elsewhere", "to another path:"),
    ("https://[::1", "to another path:"),
    ("", "to another path:"),
]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize(("location", "shown"), REDIRECTS)
def test_redirects(status: int, location: str, shown: str) -> None:
    """Rejects a redirect, and shows only the origin of its target."""
    found = error(status, b"moved", location=location)
    assert type(found) is tree.RedirectRefusedError
    assert shown.removesuffix(":") + ", request id req_7: moved." in str(found)


SECRETS: list[Any] = [
    openai(f"Incorrect API key provided: {KEY}."),
    openai("Incorrect API key provided: sk-CANARY*****cdef."),
    openai(f"Bearer {KEY}", code=f"{KEY}", param=KEY),
    {"detail": [{"loc": ["header", KEY], "msg": KEY}]},
    f"<p>{KEY}</p>".encode(),
    KEY.encode(),
]


@pytest.mark.parametrize("body", SECRETS)
@pytest.mark.parametrize("status", [401, 500, 502])
def test_keys_never_come_back(status: int, body: Any) -> None:
    """Removes a key that the server repeats, in any form."""
    error(status, body)
    error(status, body, (KEY, f"Bearer {KEY}"))


def test_secrets_of_any_shape() -> None:
    """Removes sent credentials even if they do not look like keys."""
    assert "CANARY" not in str(error(401, openai("bad key: my CANARY key"), ("my CANARY key",)))


LARGE: list[Any] = [
    openai("x" * 10_000_000), openai(["x" * 1_000_000] * 9), openai({"a": "x" * 1_000_000}),
    openai(code="c" * 9_999), openai(param="p" * 9_999), b"<p>" * 1_000_000, "🦦".encode() * 100_000,
    {"detail": [{"loc": list(range(9_999))}]},
    openai("A" * 100_000), openai("\x1b[31mred\x00\u202e"),
]  # fmt: skip


@pytest.mark.parametrize("body", LARGE)
def test_large_and_odd_messages(body: Any) -> None:
    """Shortens messages of megabytes, base64 or control characters."""
    assert type(error(400, body)) is tree.BadRequestError
    error(400, body, x_request_id="r" * 5_000)


@pytest.mark.parametrize("depth", [100, 400, 700, 950, 100_000])
def test_deep_replies(depth: int) -> None:
    """Survives deep nesting in parser and message."""
    inner = b"[" * depth + b"]" * depth
    for body in (
        inner,
        b'{"error": ' + inner + b"}",
        b'{"detail": [{"loc": [' + inner + b'], "msg": ' + inner + b"}]}",
    ):
        assert type(error(400, body)) is tree.BadRequestError


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
NAMES = [
    "innererror",
    "inner_error",
    "content_filter_result",
    "provider_specific_fields",
    "error",
    "message",
    "code",
    "type",
    "param",
    "detail",
    "title",
    "loc",
    "msg",
    "moderation_details",
]
OBJECTS = st.dictionaries(
    st.sampled_from(NAMES), JSON | st.lists(st.dictionaries(st.sampled_from(NAMES), JSON))
)


@given(st.integers(100, 999), OBJECTS | st.fixed_dictionaries({"error": OBJECTS | JSON}) | JSON)
def test_wrong_types_never_crash(status: int, body: Any) -> None:
    """Maps values of any type at any place to an error with a remedy."""
    found = error(status, body)
    assert isinstance(found, tree.ApiError | tree.OutcomeUnknownError)
    if isinstance(found, tree.ApiError):
        assert str(found).endswith(tuple(STEPS))
        assert all(value is None or isinstance(value, str) for value in (found.code, found.type, found.param))


def test_every_class_has_a_next_step() -> None:
    """Has a remedy for each class."""
    assert {one.error for one in load_meanings()} | {*BY_STATUS.values()} <= set(NEXT_STEP)


NOW = 1_696_004_797.0  # Fri, 29 Sep 2023 16:26:37 GMT
RETRY_AFTER: list[tuple[dict[str, str], float | None]] = [
    *(({"retry-after": text}, float(text)) for text in ("20", "60", "61", "120", "121", "1.5", "9" * 35)),
    *(
        ({"retry-after": text}, None)
        for text in ("0", "-10", "", " ", "inf", "-inf", "nan", "soon", "1, 2", "9" * 400, "\0", "１０s",
                     "Fri, 29 Sep 2023 16:26:37 GMT", "Fri, 29 Sep 2023 16:26:27 GMT",
                     "Sun, 06 Nov 1994 08:49:37 GMT",
                     "Zun, 29 Sep 2023 16:26:27 GMT", "Fri, 29 Sep 100000 16:26:57 GMT",
                     "Fri, 99 Sep 2023 16:26:57 GMT", "Fri, 29 Sep 2023 16:26:57 +9999999")
    ),
    ({"retry-after": "Fri, 29 Sep 2023 16:26:57 GMT"}, 20),
    ({"retry-after": "Fri, 29 Sep 2023 16:28:38 GMT"}, 121),
    ({"retry-after": "Fri, 29 Sep 2023 18:26:57 +0200"}, 20),
    ({"retry-after": "Fri, 29 Sep 2023 16:26:57"}, 20),
    ({"retry-after": "Fri, 29 Sep 2023 16:26:57 -0000"}, 20),
    ({}, None),
    ({"retry-after-ms": "1500"}, 1.5),
    ({"retry-after-ms": "1500", "retry-after": "20"}, 1.5),
    ({"retry-after-ms": "soon", "retry-after": "20"}, 20),
    ({"retry-after-ms": "120001"}, 120.001),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "wait_s"), RETRY_AFTER)
def test_retry_after(headers: dict[str, str], wait_s: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parses seconds, milliseconds and UTC dates, and ignores invalid values."""
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "JST-9")
            time.tzset()
            assert retry_after_s(headers, NOW) == wait_s
    finally:
        time.tzset()


DATES = st.from_regex(r"[A-Z][a-z]{2}, \d{1,2} (Jan|Sep|[A-Z][a-z]{2}) \d{1,6} \d\d:\d\d(:\d\d)? ?.{0,6}")


@given(st.text(max_size=30) | DATES)
def test_retry_after_never_raises(text: str) -> None:
    """Returns None or a positive number of seconds for any text."""
    wait_s = retry_after_s({"retry-after": text, "retry-after-ms": text}, 0.0)
    assert wait_s is None or 0 < wait_s < float("inf")


WIRE_SHAPES: dict[str, Any] = {
    "openai": openai(),
    "text in error": {"error": "boom"},
    "azure": {"error": {"code": "404", "message": "boom"}},
    "azure gateway": {"statusCode": 401, "message": "boom"},
    "google": [openai()],
    "fastapi text": {"detail": "boom"},
    "fastapi list": {"detail": [{"loc": ["body", "n"], "msg": "boom"}]},
    "problem": {"title": "Bad", "status": 422, "detail": "boom", "validation": [{"n": "boom"}]},
    "text": b"boom",
    "html": b"<html><body><h1>boom</h1></body></html>",
    "empty": b"",
    "list": [1, 2],
    "truncated": b'{"error": {"mess',
    "odd types": {"error": {"message": None, "code": 5, "param": {"a": 1}, "type": []}},
}
WIRE_STATUSES: dict[int, type[tree.ImgkitError]] = {
    400: tree.BadRequestError, 401: tree.AuthenticationError, 403: tree.PermissionDeniedError,
    404: tree.NotFoundError, 405: tree.NotFoundError, 413: tree.BadRequestError, 422: tree.BadRequestError,
    429: tree.RateLimitError, 502: tree.OutcomeUnknownError, 524: tree.OutcomeUnknownError,
}  # fmt: skip


def met(flavor: Any, backend: str, scripts: list[Any], count: int) -> list[Any]:
    """Return how as many calls over the wire end as there are, one after the other."""
    with WireServer(*scripts) as server:

        async def later(images: Any) -> list[Any]:
            return [
                (await asyncio.gather(images.create_image("a fox"), return_exceptions=True))[0]
                for _ in range(count)
            ]

        def now(images: Any) -> list[Any]:
            ends: list[Any] = []
            for _ in range(count):
                try:
                    ends.append(images.create_image("a fox"))
                except Exception as end:
                    ends.append(end)
            return ends

        work = now if flavor.flavor == "sync" else later
        return list(flavor.run(work, backend, base_url=server.base_url, api_key=KEY, timeout_s=10))


@pytest.mark.parametrize("shape", WIRE_SHAPES)
def test_every_shape_over_the_wire(shape: str, flavor: Any, http_backend: str) -> None:
    """Raises an imgkit error for each shape, through both backends and services."""
    body = WIRE_SHAPES[shape]
    scripts = [reply(status, body) for status in WIRE_STATUSES]
    for end, (status, kind) in zip(
        met(flavor, http_backend, scripts, len(scripts)), WIRE_STATUSES.items(), strict=True
    ):
        assert type(end) is kind, end
        assert isinstance(end, tree.ApiError | tree.OutcomeUnknownError)
        assert (end.status, end.request_id) == (status, "req_test")
        assert f"HTTP {status}" in str(end)
        assert "request id req_test" in str(end)
        if isinstance(end, tree.ApiError):
            assert sum(step in str(end) for step in STEPS) == 1


def test_every_code_over_the_wire(flavor: Any, http_backend: str) -> None:
    """Raises the error of each known code, with code, request id and remedy."""
    scripts = [
        reply(400, openai(f"No, {KEY}.", code), retry_after="7", x_request_id="", apim_request_id="az_1")
        for code, _ in PLAIN
    ]
    for end, (code, meaning) in zip(met(flavor, http_backend, scripts, len(PLAIN)), PLAIN, strict=True):
        assert type(end) is meaning.error
        assert (end.status, end.code, end.request_id, end.retry_after_s) == (400, code, "az_1", 7)
        assert "asks to wait 7 s" in str(end)
        assert KEY not in f"{end!r}{end.args}{end.__cause__!r}{end.__context__!r}"


def test_no_images_over_the_wire(flavor: Any, http_backend: str) -> None:
    """Distinguishes a success without images, an error within a success, and invalid JSON."""
    bodies: tuple[Any, ...] = (
        {"data": []},
        {"created": 1},
        {"data": [{"url": None, "b64_json": None}]},
        openai(code="x"),
        b"",
    )
    kinds = (tree.EmptyResultError,) * 3 + (tree.ApiError, tree.UnreadableReplyError)
    scripts = [*(reply(200, body) for body in bodies), reply(200, answer())]
    *ends, last = met(flavor, http_backend, scripts, len(scripts))
    assert [type(end) for end in ends] == list(kinds)
    assert all("req_test" in str(end) for end in ends)
    assert len(last.images) == 1
