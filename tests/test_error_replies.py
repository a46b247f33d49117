"""What an error reply means, whatever server wrote it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgkit import errors as tree
from imgkit.providers.errors import BY_CODE, BY_STATUS, NEXT_STEP, error_from_reply
from imgkit.retry_after import retry_after_s
from imgkit.wire import Head

KEY = "sk-proj-CANARY1234567890abcdef"
STEPS = list(NEXT_STEP.values())


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
    ({"detail": ["boom", {"msg": "bang"}, {"loc": "x"}, 5]}, "boom; bang; ; 5"),
    ({"title": "boom", "status": 422, "type": "https://errors.example/x"}, "boom"),
    ({"title": "Invalid request", "status": 422, "detail": "boom"}, "boom"),
    ("boom", "boom"),
    (b"boom", "boom"),
    (
        b"<html><head><style>p{}</style><title>boom</title></head><body><!-- x --><p>bang &amp; co</p>",
        "boom bang & co",
    ),
    (b"<script>alert('x')", ""),
    (b"<html>boom<a href='" + b"x" * 5_000, "boom"),
    (b"1 < 2 boom", "1 < 2 boom"),
    (b"", ""),
    (b"\xff\xfe\x00", "\ufffd\ufffd"),
    ([], "[]"),
    (None, ""),
]


@pytest.mark.parametrize(("status", "kind"), BY_STATUS_ALONE)
@pytest.mark.parametrize(("body", "said"), SHAPES)
def test_every_shape_under_every_status(status: int, kind: type[tree.ApiError], body: Any, said: str) -> None:
    """The status decides the class, and message, id and one next step are there in any shape of body."""
    found = error(status, body)
    assert type(found) is kind
    assert (found.status, found.request_id, found.code) == (status, "req_7", None)
    text = str(found)
    assert text.startswith(f"HTTP {status}")
    assert "request id req_7" in text
    assert f": {said}." in text if said else f"req_7. {NEXT_STEP[kind]}" in text
    assert text.endswith(NEXT_STEP[kind])
    assert sum(step in text for step in STEPS) == 1


@pytest.mark.parametrize(("code", "kind"), BY_CODE.items())
@pytest.mark.parametrize("status", [400, 403, 429, 500])
def test_code_before_status(code: str, kind: type[tree.ApiError], status: int) -> None:
    """A code that is known decides, whatever status it came with."""
    found = error(status, openai(code=code, param="prompt"))
    assert type(found) is kind
    assert (found.code, found.param, found.type) == (code, "prompt", "invalid_request_error")
    assert f", code {code}, param prompt" in str(found)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("insufficient_quota", tree.QuotaExceededError),
        ("billing_hard_limit_reached", tree.QuotaExceededError),
        ("rate_limit_exceeded", tree.RateLimitError),
        (None, tree.RateLimitError),
    ],
)
def test_quota_or_rate(code: str | None, kind: type[tree.ApiError]) -> None:
    """Only a rate limit is worth waiting for, and the wait that the server asks for is told."""
    found = error(429, openai(code=code), retry_after="20")
    assert type(found) is kind
    assert found.retry_after_s == 20
    assert "asks to wait 20 s" in str(found)
    assert ("waiting does not help" in str(found)) == (kind is tree.QuotaExceededError)


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
    """A missing verification is told apart from a missing permission, for the remedy is another."""
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
    """A refusal tells what was refused and why, as far as the API says."""
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
    """Where a gateway answers instead of the API, a picture may have been made: the outcome is unknown."""
    found = error(status, body)
    assert type(found) is tree.OutcomeUnknownError
    assert found.maybe_billed is True
    assert (found.status, found.request_id) == (status, "req_7")
    assert "may have been made and billed" in str(found)
    assert "<" not in str(found)


@pytest.mark.parametrize("status", [500, 501, 503, 507, 529])
@pytest.mark.parametrize("body", [openai(), {"detail": "boom"}, {"error": "boom"}, "boom"])
def test_the_api_says_that_it_failed(status: int, body: Any) -> None:
    """A failure in the API's own JSON is its answer, not a lost one."""
    assert type(error(status, body)) is tree.ServerError


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
    """A redirect is refused; its target's origin is told, and nothing of its path, query or user."""
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
    """A server that repeats the key does not get it into a message, in whatever form."""
    error(status, body)
    error(status, body, (KEY, f"Bearer {KEY}"))


def test_secrets_of_any_shape() -> None:
    """What was sent as a credential is taken out even where it does not look like a key."""
    assert "CANARY" not in str(error(401, openai("bad key: my CANARY key"), ("my CANARY key",)))


LARGE: list[Any] = [
    openai("x" * 10_000_000), openai(["x" * 1_000_000] * 9), openai({"a": "x" * 1_000_000}),
    openai(code="c" * 9_999), openai(param="p" * 9_999), b"<p>" * 1_000_000, "🦦".encode() * 100_000,
    {"detail": [{"loc": list(range(9_999))}]},
    openai("A" * 100_000), openai("\x1b[31mred\x00\u202e"),
]  # fmt: skip


@pytest.mark.parametrize("body", LARGE)
def test_large_and_odd_messages(body: Any) -> None:
    """A message of megabytes, of base64 or of control characters is cut to what can be read."""
    assert type(error(400, body)) is tree.BadRequestError
    error(400, body, x_request_id="r" * 5_000)


@pytest.mark.parametrize("depth", [100, 400, 700, 950, 100_000])
def test_deep_replies(depth: int) -> None:
    """Deep nesting is shown or not, and crashes neither reader nor message."""
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
NAMES = ["error", "message", "code", "type", "param", "detail", "title", "loc", "msg", "moderation_details"]
OBJECTS = st.dictionaries(
    st.sampled_from(NAMES), JSON | st.lists(st.dictionaries(st.sampled_from(NAMES), JSON))
)


@given(st.integers(100, 999), OBJECTS | st.fixed_dictionaries({"error": OBJECTS | JSON}) | JSON)
def test_wrong_types_never_crash(status: int, body: Any) -> None:
    """Whatever an error body holds in whatever place, it becomes an error of the tree with a next step."""
    found = error(status, body)
    assert isinstance(found, tree.ApiError | tree.OutcomeUnknownError)
    if isinstance(found, tree.ApiError):
        assert str(found).endswith(tuple(STEPS))
        assert all(value is None or isinstance(value, str) for value in (found.code, found.type, found.param))


def test_every_class_has_a_next_step() -> None:
    """Each class that a reply can become says what to do next."""
    assert {*BY_CODE.values(), *BY_STATUS.values()} <= set(NEXT_STEP)


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
    """Seconds, milliseconds and dates are read, dates as UTC wherever this runs; nonsense is no wait."""
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
    """No text in the header raises, and every wait is a positive number of seconds."""
    wait_s = retry_after_s({"retry-after": text, "retry-after-ms": text}, 0.0)
    assert wait_s is None or 0 < wait_s < float("inf")
