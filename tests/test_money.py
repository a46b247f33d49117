"""The money table: each fault, on each backend and service, in each kind of call, with each safety net.

The server counts paid requests. A budget counts what may have been billed. `imgkit recover` must give back
just what the server had sent of each image.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import imgkit
from imgkit import Budget, CachePlugin
from imgkit.core.recovery import recover
from imgkit.default_plugins.spool import open_spool
from tests.conftest import ServiceRunner
from tests.support.event_streams import END, HEAD, PARTIAL, chunk, completed, partial
from tests.support.official import official
from tests.support.pictures import encoded, noise, picture
from tests.support.wire_server import Script, WireServer, drop, head, raw, reply, reset

FIRST, SECOND = noise(1), noise(2)
USAGE = {
    "input_tokens": 10,
    "output_tokens": 100,
    "total_tokens": 110,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 0},
}
BODY = json.dumps(
    {"created": 7, "data": [{"b64_json": encoded(FIRST)}, {"b64_json": encoded(SECOND)}], "usage": USAGE}
).encode()
FIRST_ENDS = BODY.index(encoded(FIRST).encode()) + len(encoded(FIRST))
SECOND_STARTS = BODY.index(encoded(SECOND).encode())


class Fault(NamedTuple):
    """A reply of the server, and what must follow from it.

    Attributes:
        plain: the reply to a request without a stream.
        stream: the reply to a stream.
        error: the error of the call, None for success.
        stream_error: the error of a stream, if it differs.
        is_spent: the budget counts the request.
        kept: the images that `imgkit recover` gives back after a plain request.
        kept_of_stream: the same after a stream.
        attempts: paid requests with imgkit's own retries.
    """

    plain: Script
    stream: Script
    error: type[imgkit.ImgkitError] | None
    is_spent: bool
    kept: tuple[bytes, ...] = ()
    kept_of_stream: tuple[bytes, ...] = ()
    attempts: int = 1
    stream_error: type[imgkit.ImgkitError] | None = None


def send_cut(size: int) -> Script:
    """Return a script that announces the whole reply and sends `size` bytes of it."""
    return raw(
        head(200, {"content-type": "application/json", "content-length": str(len(BODY))}) + BODY[:size]
    )


def send_events(*pieces: bytes, end: bytes = END) -> Script:
    """Return a script that sends events; an empty `end` cuts the connection."""
    return raw(HEAD + b"".join(map(chunk, pieces)) + end)


def decode_sent(text: bytes) -> bytes:
    """Return the bytes that a cut base64 text holds; a single last character encodes none."""
    text = text[: len(text) - (len(text) % 4 == 1)]
    return base64.b64decode(text + b"=" * (-len(text) % 4))


def both(script: Script, error: type[imgkit.ImgkitError] | None, **more: Any) -> Fault:
    """Return a fault whose reply does not depend on the kind of call."""
    return Fault(script, script, error, more.pop("is_spent", False), **more)


OWN = {"error": {"message": "The server had an error.", "type": "server_error", "code": "server_error"}}
FIRST_CUT = completed(FIRST)[:400]
FAULTS: dict[str, Fault] = {
    "none": Fault(
        reply(200, BODY), send_events(partial(), completed(FIRST), completed(SECOND)), None, True
    ),
    "dropped": both(drop, imgkit.OutcomeUnknownError, is_spent=True),
    "reset": both(reset, imgkit.OutcomeUnknownError, is_spent=True),
    "no HTTP": both(raw(b"HELLO\r\n\r\n"), imgkit.OutcomeUnknownError, is_spent=True),
    "cut in the first image": Fault(
        send_cut(400), send_events(FIRST_CUT, end=b""), imgkit.OutcomeUnknownError, True,
        kept=(decode_sent(BODY[FIRST_ENDS - len(encoded(FIRST)) : 400]),),
        kept_of_stream=(decode_sent(FIRST_CUT[FIRST_CUT.index(encoded(FIRST)[:40].encode()) :]),),
    ),
    "cut after the first image": Fault(
        send_cut(FIRST_ENDS + 1), send_events(completed(FIRST), end=b""), imgkit.OutcomeUnknownError, True,
        kept=(FIRST,), kept_of_stream=(FIRST,),
    ),
    "cut in the second image": Fault(
        send_cut(SECOND_STARTS + 401),
        send_events(completed(FIRST), partial(), end=b""),
        imgkit.OutcomeUnknownError, True,
        kept=(FIRST, decode_sent(BODY[SECOND_STARTS : SECOND_STARTS + 401])), kept_of_stream=(FIRST, PARTIAL),
    ),
    "no images": Fault(
        reply(200, {"created": 7, "data": []}), send_events(), imgkit.EmptyResultError, True,
        stream_error=imgkit.StreamError,
    ),
    "a page": both(
        reply(200, b"<html>Welcome</html>", content_type="text/html"), imgkit.UnreadableReplyError,
        is_spent=True,
    ),
    "damaged JSON": both(
        reply(200, BODY.replace(b'"created": 7', b'"created": 7, "created": 8')), imgkit.UnreadableReplyError,
        is_spent=True, kept=(FIRST, SECOND), kept_of_stream=(FIRST, SECOND),
    ),
    "a gateway's page": both(
        reply(502, b"<html>Bad gateway</html>"), imgkit.OutcomeUnknownError, is_spent=True
    ),
    "a gateway's JSON": both(
        reply(500, {"statusCode": 500, "message": "Internal server error"}), imgkit.OutcomeUnknownError,
        is_spent=True,
    ),
    "own failure": both(reply(500, OWN, retry_after="0.001"), imgkit.ServerError, attempts=3),
    "overload": both(reply(503, OWN, retry_after="0.001"), imgkit.ServerError, attempts=3),
    "rate limit": both(
        reply(429, {"error": {"message": "slow down"}}, retry_after="0.001"), imgkit.RateLimitError,
        attempts=5,
    ),
    "no credit": both(
        reply(429, {"error": {"message": "no credit", "code": "insufficient_quota"}}),
        imgkit.QuotaExceededError,
    ),
    "bad request": both(reply(400, {"error": {"message": "no"}}), imgkit.BadRequestError),
    "moderation": both(
        reply(400, {"error": {"message": "no", "code": "moderation_blocked"}}), imgkit.ModerationBlockedError
    ),
    "no key": both(reply(401, {"error": {"message": "no"}}), imgkit.AuthenticationError),
    "conflict": both(reply(409, {"error": {"message": "no"}}), imgkit.ConflictError),
    "redirect": both(reply(307, b"", location="/elsewhere"), imgkit.RedirectRefusedError),
}  # fmt: skip


class RaisingRetry:
    """A plugin that fails when it is asked about a retry."""

    @imgkit.hookimpl(tryfirst=True)
    def imgkit_retry_wait(self, outcome: Any) -> float:
        raise ZeroDivisionError("broken plugin")


class Net(NamedTuple):
    """The safety nets of a call."""

    cache: bool = False
    state: bool = False
    retries: bool = False
    broken_plugin: bool = False


NETS = {
    "none": Net(),
    "cache": Net(cache=True),
    "state folder": Net(state=True),
    "broken retry plugin": Net(retries=True, broken_plugin=True),
    "all": Net(cache=True, state=True, retries=True, broken_plugin=True),
    "all but the broken plugin": Net(cache=True, state=True, retries=True),
}


def create(service: Any) -> Any:
    return service.create_image("a fox", n=2, size="1024x1024", quality="low")


def edit(service: Any) -> Any:
    return service.create_image_edit(picture(), "a hat", n=2, size="1024x1024", quality="low")


def stream(service: Any) -> Any:
    events = service.stream_image("a fox", n=2, size="1024x1024", quality="low", partial_images=1)

    async def read() -> Any:
        async with events:
            async for _ in events:
                pass
            return events.response

    if not isinstance(service, imgkit.ImageService):
        return read()
    with events:
        for _ in events:
            pass
        return events.response


CALLS: dict[str, Callable[[Any], Any]] = {"create": create, "edit": edit, "stream": stream}


class Result(NamedTuple):
    """The end of a call, with the accounts of all sides."""

    response: imgkit.ImagesResponse | None
    error: imgkit.ImgkitError | None
    posts: int
    budget: Budget
    kept: list[bytes]


def make_call(
    flavor: ServiceRunner, backend: str, script: Script, call: str, net: Net, folder: Path
) -> Result:
    """Make a call against a fault."""
    budget = Budget(usd=1)
    with WireServer(script) as server:
        plugins = [budget, *([RaisingRetry()] if net.broken_plugin else [])]
        if net.cache:
            plugins.append(CachePlugin(folder=folder / "cache"))
        settings: dict[str, Any] = {
            "provider": official(server.base_url), "model": "gpt-image-2", "api_key": "sk-test-0123456789",
            "retry": net.retries, "plugins": plugins,
            "state_folder": folder if net.state else None,
        }  # fmt: skip
        response, error = None, None
        try:
            response = flavor.run(CALLS[call], backend, **settings)
        except imgkit.ImgkitError as caught:
            error = caught
        posts = server.posts
    return Result(response, error, posts, budget, list_kept(folder) if net.state else [])


def list_kept(folder: Path) -> list[bytes]:
    """Return the bytes that a recovery of the state folder gives back."""
    records = open_spool(folder).list_replies()
    return [image.data for record in records for image in recover(record).images]


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_paid_once_and_kept(
    flavor: ServiceRunner, http_backend: str, name: str, tmp_path: Path
) -> None:
    """Sends a paid request once, counts it if it may be billed, and keeps what arrived."""
    fault = FAULTS[name]
    for call in CALLS:
        for net_name, net in NETS.items():
            script = fault.stream if call == "stream" else fault.plain
            folder = tmp_path / call / net_name
            folder.mkdir(parents=True)
            result = make_call(flavor, http_backend, script, call, net, folder)
            check_result(result, fault, call, net, f"{name}, {call}, {net_name}")


def check_result(result: Result, fault: Fault, call: str, net: Net, label: str) -> None:
    """Compare the accounts of all sides with the table."""
    is_repeated = net.retries and not net.broken_plugin
    assert result.posts == (fault.attempts if is_repeated else 1), label
    assert result.budget.reserved == 0, label
    assert (result.budget.spent > 0) == fault.is_spent, label
    expected = fault.stream_error if call == "stream" and fault.stream_error else fault.error
    if expected is None:
        assert result.error is None, label
        assert result.response is not None, label
        assert [image.data for image in result.response] == [FIRST, SECOND], label
        assert result.kept == [], label
        return
    assert type(result.error) is expected, label
    assert result.error.maybe_billed == fault.is_spent, label
    kept = fault.kept_of_stream if call == "stream" else fault.kept
    images = [image.data for image in getattr(result.error, "images", ())]
    assert [data for data in kept if data in (FIRST, SECOND, PARTIAL)] == images, label
    # The whole reservation counts as spent, once.
    assert result.budget.spent == result.budget.unknown, label
    is_emitted = call == "stream" and FIRST in fault.kept_of_stream  # then nothing may be repeated
    if (
        net.broken_plugin
        and not is_emitted
        and (fault.attempts > 1 or expected is imgkit.OutcomeUnknownError)
    ):
        assert any("broken plugin" in note for note in result.error.__notes__), label
    if net.state:
        assert result.kept == list(kept), label
