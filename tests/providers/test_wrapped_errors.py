"""Errors that gateways wrap, and the fields that servers list: the reason is read wherever it stands."""

from __future__ import annotations

import asyncio
import json
import pickle
import time
from typing import Any

import pytest

import imgkit
from imgkit import errors as tree
from imgkit.core.cache_entries import from_failure, to_failure
from imgkit.providers.error_bodies import read_error_body
from imgkit.providers.error_facts import MAX_BODY_BYTES
from imgkit.providers.error_replies import PAGE_ORIGIN, error_from_reply, refused
from imgkit.wire.messages import Head
from tests.support.pictures import answer
from tests.support.wire_server import WireServer, reply

KEY = "sk-proj-CANARY1234567890abcdef"


def read(status: int, body: Any, **headers: str) -> Any:
    """Return the error of a reply."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return error_from_reply(Head(status, named), content, (KEY,))


def inner(code: str | None, message: str, **more: Any) -> dict[str, Any]:
    """Return an error of OpenAI's API."""
    return {
        "error": {
            "message": message,
            "type": "image_generation_user_error",
            "param": None,
            "code": code,
            **more,
        }
    }


SAID = "Your request was rejected by the safety system. safety_violations=[sexual]."
DETAILS = {"moderation_stage": "output", "categories": ["sexual"]}
REFUSAL = inner("moderation_blocked", SAID, moderation_details=DETAILS)
TEXT = json.dumps(REFUSAL, indent=2)

WRAPPERS: dict[str, Any] = {
    "litellm": {
        "error": {
            "message": f"litellm.BadRequestError: OpenAIException - {TEXT}. Received Model Group=x",
            "type": None,
            "param": None,
            "code": "400",
        }
    },
    "text": {"error": {"message": TEXT, "code": "BAD_REQUEST"}, "status": 400},
    "text in text": {
        "error": {"message": json.dumps({"error": "Bad Request", "message": TEXT}), "code": "BAD"}
    },
    "python": {"detail": f"Error code: 400 - {REFUSAL!r}"},
    "python bytes": {"error": {"message": f"upstream said {json.dumps(REFUSAL).encode()!r}"}},
    "escaped": {"message": "failed: " + json.dumps(json.dumps(REFUSAL))},
    "openrouter": {
        "error": {
            "message": "Provider returned error",
            "code": 400,
            "metadata": {"raw": TEXT, "provider_name": "x"},
        },
        "user_id": "u",
    },
    "azure": {"error": {"code": "BadRequest", "message": SAID, "innererror": REFUSAL["error"]}},
    "list": [{"error": {"message": "no", "errors": [REFUSAL["error"]]}}],
    "object in message": {"statusCode": 400, "message": REFUSAL},
    "detail": {"detail": REFUSAL},
    "plain text": f"Error code: 400 - {TEXT}".encode(),
    "json text": f"Error code: 400 - {TEXT}",
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_code_inside_counts(wrapper: str) -> None:
    """Finds code, stage, categories and sentence of the API within every wrapper."""
    found = read(400, WRAPPERS[wrapper])
    assert type(found) is tree.ModerationBlockedError
    assert (found.code, found.stage, found.categories) == ("moderation_blocked", "output", ("sexual",))
    assert "Your request was rejected by the safety system" in str(found)
    assert '"' not in str(found)
    assert b"rejected by the safety system" in found.body


@pytest.mark.parametrize(
    ("body", "categories"),
    [
        ({"error": {"message": f"litellm.ContentPolicyViolationError: {SAID}", "code": "400"}}, ("sexual",)),
        (
            {"message": "Refused: safety_violations=[sexual, 'self-harm']", "code": None},
            ("sexual", "self-harm"),
        ),
        (
            {
                "error": {
                    "code": 403,
                    "message": "Your chosen model requires moderation and your input was flagged.",
                    "metadata": {"reasons": ["violence"], "flagged_input": "x"},
                }
            },
            ("violence",),
        ),
        ({"detail": [{"loc": ["body", "prompt"], "msg": "no", "type": "content_policy_violation"}]}, ()),
        ({"id": "x", "name": "content_moderation", "errors": ["Your request was flagged"]}, ()),
        ({"error": {"code": "421", "message": "Moderation Block", "type": "content_filter"}}, ()),
    ],
)
def test_refusals_whose_code_is_lost(body: Any, categories: tuple[str, ...]) -> None:
    """Reads a refusal and its categories from the sentence, a type, or the gateway's own members."""
    found = read(403, body)
    assert type(found) is tree.ModerationBlockedError
    assert found.categories == categories


QUOTA = inner("insufficient_quota", "You exceeded your current quota.")
LIMIT = inner("rate_limit_exceeded", "Rate limit reached. Please try again in 1m2.5s.")


@pytest.mark.parametrize(
    ("body", "kind", "wait_s"),
    [
        (
            {"error": {"message": f"OpenAIException - {json.dumps(QUOTA)}", "code": "429"}},
            "QuotaExceededError",
            None,
        ),
        (
            {"error": {"message": f"Error: {QUOTA!r}", "code": "rate_limit_exceeded"}},
            "QuotaExceededError",
            None,
        ),
        (
            {"error": {"message": "no", "type": "insufficient_quota", "code": None}},
            "QuotaExceededError",
            None,
        ),
        ({"error": {"message": f"litellm.RateLimitError: {json.dumps(LIMIT)}"}}, "RateLimitError", 62.5),
        ({"error": {"message": "Please retry after 20 seconds."}}, "RateLimitError", 20),
        ({"error": {"message": "Try again in 120ms"}}, "RateLimitError", 0.12),
        ({"error": {"message": "Try again in 3 months or 5 minutes"}}, "RateLimitError", None),
        ({"error": "slow down", "retry_after": 7}, "RateLimitError", 7),
        ({"error": {"message": "no", "metadata": {"retry_after_ms": 1500}}}, "RateLimitError", 1.5),
        (
            {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "21.5s"}]}},
            "RateLimitError",
            21.5,
        ),
    ],
)
def test_waits_within_the_body(body: Any, kind: str, wait_s: float | None) -> None:
    """Takes the wait from the body if the reply has no header for it."""
    found = read(429, body)
    assert (type(found).__name__, found.retry_after_s) == (kind, wait_s)
    if kind == "RateLimitError":
        assert read(429, body, retry_after="9").retry_after_s == 9


FIELDS: dict[str, tuple[Any, str, str]] = {
    "fastapi": (
        {"detail": [{"loc": ["body", "size"], "msg": "too large", "type": "x"}]},
        "size",
        "too large",
    ),
    "fastapi entry": ({"detail": [{"loc": ["body", "image", 0], "msg": "no"}]}, "image", "body.image.0: no"),
    "problem": (
        {
            "type": "https://e.example/x",
            "title": "Bad",
            "invalid-params": [{"name": "n", "reason": "must be 1"}],
        },
        "n",
        "Bad: n: must be 1",
    ),
    "prism": (
        {
            "title": "Invalid",
            "detail": "d",
            "validation": [{"location": ["body", "size"], "message": "one of"}],
        },
        "size",
        "one of",
    ),
    "validation by name": ({"title": "Bad", "validation": [{"n": "must be 1"}]}, "n", "n: must be 1"),
    "replicate": (
        {"title": "Bad", "invalid_fields": [{"field": "seed", "description": "an int"}]},
        "seed",
        "an int",
    ),
    "stability": ({"name": "bad_request", "errors": ["prompt: cannot be blank"]}, "prompt", "cannot be"),
    "json:api": (
        {"errors": [{"source": {"pointer": "/data/attributes/size"}, "detail": "too large"}]},
        "size",
        "too large",
    ),
    "errors by field": (
        {"message": "Invalid", "errors": {"prompt": ["too long", "x"]}},
        "prompt",
        "too long",
    ),
    "google": (
        {
            "error": {
                "code": 400,
                "message": "Bad",
                "details": [{"fieldViolations": [{"field": "instances.size", "description": "too large"}]}],
            }
        },
        "instances.size",
        "too large",
    ),
    "within a gateway": (
        {"error": {"message": "Error code: 422 - {'detail': [{'loc': ['body', 'n'], 'msg': 'no'}]}"}},
        "n",
        "no",
    ),
}


@pytest.mark.parametrize("shape", FIELDS)
def test_listed_fields(shape: str) -> None:
    """Names the field and the problem that a server lists, in any shape."""
    body, param, said = FIELDS[shape]
    found = read(422, body)
    assert found.param == param
    assert f"param {param}" in str(found)
    assert said in str(found)


@pytest.mark.parametrize("status", [401, 403, 404, 413, 502])
def test_pages_are_not_the_word_of_the_api(status: int) -> None:
    """Says that a web page comes of another server, and blames neither key nor request for it."""
    found = read(status, b"<!DOCTYPE html><html><head><title>Blocked</title></head></html>")
    assert f"HTTP {status}" in str(found)
    assert f": Blocked. {PAGE_ORIGIN}" in str(found)
    assert "API key" not in str(found)
    assert found.body.startswith(b"<!DOCTYPE html>")
    assert "web page" not in str(read(status, inner(None, "no")))


def test_xml_of_a_store() -> None:
    """Reads code and message of XML."""
    found = read(403, b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>No.</Message></Error>')
    assert (type(found), found.code) == (tree.PermissionDeniedError, "AccessDenied")
    assert ": No. " in str(found)


def test_a_proxy_that_asks_for_a_login() -> None:
    """Tells how to give the proxy a login."""
    assert "http://NAME:PASSWORD@HOST:PORT" in str(read(407, b"<html><h1>407</h1></html>"))


def test_the_error_keeps_its_body() -> None:
    """Keeps at most 16 KiB of the reply, without keys and images, also when it is pickled."""
    image = "iVBORw0KGgo" + "A" * 40_000
    body = {"error": {"message": f"Wrong key {KEY}", "code": "x", "echo": image, "rest": "é " * 20_000}}
    found = read(400, body)
    assert len(found.body) <= MAX_BODY_BYTES
    assert b"CANARY" not in found.body
    assert b"characters of base64" in found.body
    assert pickle.loads(pickle.dumps(found)).body == found.body
    assert from_failure(to_failure(found)).body == found.body  # type: ignore[attr-defined]  # an ApiError


HOSTILE = (
    "{'" * 5_000, '{"a":' * 5_000, "{'a': " + "\\" * 16_000, "'" * 16_000 + '{"a', "{\"'" * 5_000,
    "litellm.BadRequestError: {'prompt': '" + "it\\'s a fox " * 1_400, "{'" + "\\'" * 8_000,
    ("{'" + "\\'" * 1_500) * 5, "{\\\"" + "\\n" * 8_000, "{ " * 8_000, '{"' + '\\"' * 8_000,
    "<Error><Code" + "<Code" * 3_200, "organization" * 400, "`'" * 8_000, "' " * 8_000,
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_texts_cost_no_time(number: int) -> None:
    """Reads 16 KB of any text within 50 ms, also if the reply repeats it in many members."""
    text = HOSTILE[number][: 16 * 1024]
    members = dict.fromkeys(("message", "detail", "msg", "body", "cause", "raw"), text)
    repeated = json.dumps({"error": members, "errors": [members] * 5}).encode()
    for body in (text.encode(), json.dumps({"error": {"message": text}}).encode(), repeated):
        spans: list[float] = []
        while not spans or (spans[-1] >= 0.05 and len(spans) < 5):
            start = time.thread_time()
            # The rest of the work on a larger body is the search for secrets.
            _ = read_error_body(body) if body is repeated else read(400, body)
            spans.append(time.thread_time() - start)
        assert spans[-1] < 0.05


def test_a_quoted_prompt_is_no_error() -> None:
    """Leaves JSON that is no error in its sentence."""
    said = 'The prompt {"message": "moderation_blocked"} is too long'
    assert f": {said}." in str(read(400, {"error": {"message": said}}))


def test_money_of_wrapped_errors(flavor: Any, http_backend: str) -> None:
    """Sends a request again after a wrapped rate limit, and never after a wrapped quota."""
    quota, limit = (
        {"error": {"message": f"OpenAIException - {json.dumps(body)}"}} for body in (QUOTA, LIMIT)
    )
    for script, posts in (
        (reply(429, quota, retry_after="0.01"), 1),
        (reply(429, limit, retry_after="0.01"), 2),
    ):
        with WireServer(script, reply(200, answer())) as server:

            async def make(images: Any) -> Any:
                return (await asyncio.gather(images.create_image("a fox"), return_exceptions=True))[0]

            def make_now(images: Any) -> Any:
                try:
                    return images.create_image("a fox")
                except imgkit.QuotaExceededError as error:
                    return error

            work = make_now if flavor.flavor == "sync" else make
            end = flavor.run(work, http_backend, base_url=server.base_url, api_key=KEY, retry=True)
            assert server.posts == posts
            assert isinstance(end, imgkit.ImagesResponse if posts == 2 else imgkit.QuotaExceededError)


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "moderation_blocked"])
def test_a_gateways_text_under_a_success_may_be_billed(code: str) -> None:
    """Counts text in place of an error object under 2xx as billed, whatever error it quotes."""
    assert read(200, {"error": f"upstream: {json.dumps(inner(code, 'no'))}"}).maybe_billed


QUOTED: dict[str, dict[str, Any]] = {
    "gateway": {
        "message": "litellm.Timeout: gave up: {'error': {'code':'rate_limit_exceeded'}}",
        "type": "t",
    },
    "prompt": {
        "message": 'Invalid prompt \'poster: {"error": {"code": "rate_limit_exceeded"}}\'',
        "type": "x",
    },
    "failure": {"message": "upstream: {'error': {'code': 'server_error', 'message': 'no'}}", "type": "x"},
    "member": {"message": "no", "type": "x", "innererror": {"code": "rate_limit_exceeded"}},
    "type": {"message": "upstream: {'error': {'type': 'content_filter', 'message': 'no'}}"},
}


@pytest.mark.parametrize("name", QUOTED)
def test_an_error_within_a_success_is_not_free(name: str, http_backend: str, flavor: Any) -> None:
    """Sends once, and counts the call as billed, if only an inner error under 200 could be repeated."""
    found = read(200, {"error": QUOTED[name]})
    assert found.maybe_billed
    assert not isinstance(found, tree.RateLimitError | tree.ServerError)
    with WireServer(reply(200, {"error": QUOTED[name]}), reply(200, answer())) as server:

        async def make(images: Any) -> Any:
            return (await asyncio.gather(images.create_image("a fox"), return_exceptions=True))[0]

        def make_now(images: Any) -> Any:
            with pytest.raises(imgkit.ApiError) as caught:
                images.create_image("a fox")
            return caught.value

        work = make_now if flavor.flavor == "sync" else make
        end = flavor.run(work, http_backend, base_url=server.base_url, api_key=KEY, retry=True)
        assert (server.posts, end.maybe_billed) == (1, True)


@pytest.mark.parametrize("status", [400, 403, 408, 500, 502, 503])
@pytest.mark.parametrize("name", ["gateway", "prompt", "failure"])
def test_a_quoted_error_repeats_nothing(name: str, status: int) -> None:
    """Gives no class that is repeated, unless the status itself gives it."""
    found = read(status, {"error": {**QUOTED[name], "type": "server_error"}})
    assert not isinstance(found, tree.RateLimitError | tree.ServerError)
    assert isinstance(found, tree.OutcomeUnknownError) == (status in (408, 500, 502, 503))


ECHO = """Invalid prompt: '{"error": {"code": "insufficient_quota"}}' is too long"""


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (400, {"message": ECHO, "code": "string_too_long"}, "BadRequestError", "string_too_long"),
        (
            400,
            {
                "message": 'Bad \'{"error": {"message": "rejected by our safety system"}}\'',
                "code": "string_too_long",
            },
            "BadRequestError",
            "string_too_long",
        ),
        (400, {"message": ECHO, "code": "unknown_parameter"}, "UnknownParameterError", "unknown_parameter"),
        (
            400,
            {
                "message": "Unknown parameter 'x: \"Your request was rejected by our safety system\"'",
                "code": "unknown_parameter",
            },
            "UnknownParameterError",
            "unknown_parameter",
        ),
        (
            400,
            {"message": "Prompt 'it's rejected by our safety system' is long", "code": None},
            "BadRequestError",
            None,
        ),
        (400, {"message": 'prompt "failed to download image" is too long'}, "BadRequestError", None),
        (
            400,
            {"message": "Rejected by our safety system", "code": "unknown_parameter"},
            "UnknownParameterError",
            "unknown_parameter",
        ),
        (429, {"message": "slow", "type": "content_filter"}, "RateLimitError", None),
    ],
)
def test_a_quoted_prompt_chooses_no_class(status: int, body: Any, kind: str, code: str | None) -> None:
    """Trusts the code of the outer error before quotations of the request, and keeps the whole sentence."""
    found = read(status, {"error": body})
    assert (type(found).__name__, found.code) == (kind, code)
    assert body["message"] in str(found)


@pytest.mark.parametrize("spell", [json.dumps, repr, lambda body: json.dumps(json.dumps(body))])
def test_the_text_behind_an_inner_error(spell: Any) -> None:
    """Keeps the words in front of an inner error and behind it, in each spelling."""
    said = spell(inner("x", 'It\'s "not" here.\n'))
    for body in (
        {"error": {"message": f"Upstream: {said}. Request abc failed"}},
        {"detail": f"Upstream: {said}."},
    ):
        text = str(read(400, body))
        assert 'Upstream: It\'s "not" here' in text
        assert ("here. Request abc failed." in text) == ("error" in body)
        assert "}" not in text


def test_the_remedy_is_the_hint() -> None:
    """Splits the message of each error for a reply into problem and remedy."""
    for status, body in ((400, inner("x", "no")), (429, LIMIT), (400, REFUSAL), (502, b""), (404, b"<html>")):
        found = read(status, body)
        assert found.hint
        assert str(found) == f"{found.problem} {found.hint}"
    hint = refused(Head(200, {}), "Unsafe").hint
    assert hint is not None
    assert hint.startswith("Rephrase")
