"""The replies to a provider: the part of its contract that is about `decode` and `error`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

import pybase64
import pytest

import imgkit
from imgkit.errors import ImgkitError
from imgkit.models import Usage
from imgkit.providers.base import DecodedImages, Provider
from imgkit.redact import Secret
from imgkit.testing import canary
from imgkit.testing.provider_samples import ProviderSamples, list_contents
from imgkit.testing.samples import png
from imgkit.wire.messages import Head

GARBAGE = (
    b"", b"{", b"null", b"[]", b"3", b'"text"', b"<html>", b"\xff\xfe", b"{}", b'{"data": null}',
    b'{"error": {"message": 3, "code": [], "param": {}}}', b'{"error": null}', b'[{"error": "x"}]',
    b'{"error": 3}', b"[" * 5000, b'{"error": "' + b"x" * 100_000 + b'"}',
)  # fmt: skip
GATEWAY_BODIES = (
    b"", b"<html><h1>Gateway</h1></html>", b'{"message": "Service Unavailable"}', b'{"error": "timeout"}',
    b'{"statusCode": 500, "message": "Internal server error"}',
)  # fmt: skip
OWN_ERROR = b'{"error": {"message": "It failed.", "type": "server_error", "code": "server_error"}}'
ECHOES = tuple(
    json.dumps(echo).encode()
    for key in (canary.KEY, canary.PLAIN_KEY)
    for echo in (
        {"error": {"message": f"the key {key} is wrong", "code": key, "type": key, "param": key}},
        {"detail": [{"loc": ["header", key], "msg": f"the key {key} is wrong"}]},
        {"message": f"the key {key} is wrong"},
        f"the key {key} is wrong",
    )
)
"""Bodies that repeat the key."""

SECRETS = (Secret(canary.KEY), Secret(canary.PLAIN_KEY))
STATUSES = (
    *(100, 301, 400, 401, 402, 403, 404, 405, 408, 409, 413, 422, 429),
    *(500, 501, 502, 503, 504, 520, 599),
)
USAGE = Usage(input_tokens=11, output_tokens=1_700, total_tokens=1_711)
PNG_IN_BASE64 = "iVBORw0KGgo"


class ProviderReplyTests(ProviderSamples):
    """The tests of replies: nothing that was paid for is lost, and each failure has its own error."""

    def test_decodes_images(self) -> None:
        """Decodes images of any size byte for byte, in their order."""
        for count in range(1, 4):
            body, images = self.sample_reply(count)
            decoded = list_contents(self.decode(body))
            assert len(decoded) == len(images), (
                f"A reply has {len(images)} images, and decode() returns {len(decoded)}."
            )
            assert set(decoded) == set(images), "decode() returns other bytes than the reply holds."
            assert decoded == images, "decode() returns the images in another order than the reply."

    def test_decodes_image_urls(self) -> None:
        """Decodes the URLs of images, in their order, if `url_reply` returns a reply."""
        urls = [self.sample_url(f"{number}.png") for number in range(self.images_per_reply)]
        body = self.url_reply(urls)
        if body is not None:
            decoded = list_contents(self.decode(body))
            assert decoded == urls, (
                f"A reply with the URLs {urls} decodes to {decoded}. Return DecodedImage(url=…) for each, "
                "with its query: the images are paid for."
            )

    def test_reads_usage(self) -> None:
        """Keeps the token counts if `usage_reply` returns a reply: costs and budgets need them."""
        body = self.usage_reply([png(1)], USAGE)
        if body is not None:
            assert_usage(self.decode(body).usage)

    def test_base64_keys(self) -> None:
        """Names each member of a reply that holds an image in base64."""
        for body in self.list_image_bodies():
            assert_base64_keys(body, self.provider().base64_keys)

    def test_damaged_base64(self) -> None:
        """Never decodes base64 with foreign characters to wrong bytes."""
        images = [png(1), png(2, 64)][: self.images_per_reply]
        body = self.reply(images)
        for image in images if body else ():
            text = pybase64.b64encode(image)
            damaged = (body or b"").replace(text, text[:80] + b"****" + text[84:])
            if damaged == body:
                continue  # The reply holds the bytes in another encoding.
            decoded = self.try_decode(damaged)
            if isinstance(decoded, ImgkitError):
                self.assert_presentable(decoded)
                assert decoded.maybe_billed, (
                    f"The images were paid for, and {type(decoded).__name__} does not say so."
                )
                continue
            assert set(list_contents(decoded)) <= set(images), (
                "Damaged base64 decodes to wrong bytes. Use imgkit.providers.decode_base64, which rejects "
                "foreign characters."
            )
            assert decoded.damaged, "decode() leaves out a damaged image, and does not set damaged=True."

    def test_reply_without_images_is_an_error(self) -> None:
        """Reports a reply without images as an error that may have been billed."""
        empty = self.reply([]) if self.reply([png(1)]) is not None else self.url_reply([])
        for body in (empty or b"", *GARBAGE):
            error = self.decode_error(body)
            self.assert_presentable(error)
            assert error.maybe_billed or isinstance(error, imgkit.ApiError), (
                f"decode() raises {type(error).__name__} for the body {body[:60]!r}. Raise an "
                "EmptyResultError or an UnreadableReplyError: the call may have been billed."
            )

    def test_truncated_replies(self) -> None:
        """Never decodes wrong bytes from a truncated reply."""
        body, images = self.sample_reply(2)
        for end in range(1, len(body), max(1, len(body) // 50)):
            decoded = self.try_decode(body[:end])
            if isinstance(decoded, ImgkitError):
                self.assert_presentable(decoded)
            elif not (body in images and decoded.damaged):
                # A body that is the image itself is kept, and marked.
                assert set(list_contents(decoded)) <= set(images), (
                    f"A reply that is cut off after {end} of {len(body)} bytes decodes to wrong bytes."
                )

    def test_success_replies_hide_keys(self) -> None:
        """Hides the key that a success reply with an error repeats."""
        for body in ECHOES:
            self.assert_presentable(self.decode_error(body, SECRETS))

    @pytest.mark.parametrize("status", STATUSES)
    def test_maps_errors(self, status: int) -> None:
        """Maps any body of an error status to an imgkit error that hides the key."""
        for body in (*ECHOES, *GARBAGE):
            error = self.read_error(status, body)
            self.assert_presentable(error)
            if isinstance(error, imgkit.ApiError):
                assert error.status == status, f"The status {status} becomes {error.status}."
                assert error.request_id == "req_1", f"The request id becomes {error.request_id!r}."
            is_refusal = 400 <= status < 500 and status != 408
            assert not is_refusal or isinstance(error, imgkit.ApiError), (
                f"HTTP {status} becomes {type(error).__name__}. A reply below 500 is an ApiError with its "
                "status: error_from_reply chooses the class."
            )

    def test_retry_relevant_errors(self) -> None:
        """Distinguishes wrong keys, rate limits with their wait, and gateway pages."""
        kinds = {401: imgkit.AuthenticationError, 404: imgkit.NotFoundError, 429: imgkit.RateLimitError}
        for status, kind in kinds.items():
            error = self.read_error(status, self.error_reply("no"))
            assert isinstance(error, kind), (
                f"HTTP {status} becomes {type(error).__name__}, not {kind.__name__}. Callers and "
                "retries depend on the class."
            )
        limit = self.read_error(429, self.error_reply("no"), {"retry-after": "7"})
        wait_s = getattr(limit, "retry_after_s", None)
        assert wait_s == 7, f"The server asks to wait 7 s, and retry_after_s is {wait_s}."
        for status in (502, 504):
            error = self.read_error(status, b"<html>")
            assert isinstance(error, imgkit.OutcomeUnknownError), (
                f"The page of a gateway under HTTP {status} becomes {type(error).__name__}, not "
                "OutcomeUnknownError. The API may go on behind the gateway, and bill the call."
            )

    def test_errors_quote_the_api(self) -> None:
        """Quotes the message of an error reply, and the request id that support asks for."""
        message = "The colour mauve is not in stock"
        for status in (400, 422):
            text = str(self.read_error(status, self.error_reply(message)))
            assert message in text, f"The API says {message!r}, and the error says {text!r}."
            assert "req_1" in text, f"The message has no request id: {text}"

    def test_free_failures(self) -> None:
        """Calls no reply of a gateway free, and returns an unbilled error for every free failure."""
        provider = self.provider()
        for head in (Head(status, {"retry-after": "7"}) for status in range(500, 600)):
            for body in GATEWAY_BODIES:
                assert not self.is_free(provider, head, body), (
                    f"failure_is_free() says True for HTTP {head.status} with the body {body!r}. A gateway "
                    "sends such replies while the API goes on: imgkit would pay twice. Return True only for "
                    "the API's own error object."
                )
            for body in (OWN_ERROR, self.error_reply("It failed."), *GARBAGE):
                if self.is_free(provider, head, body):
                    error = provider.error(head, body, ())
                    assert not error.maybe_billed, (
                        f"failure_is_free() says True for HTTP {head.status}, and error() returns "
                        f"{type(error).__name__}, which may be billed. Pass is_free on to error_from_reply."
                    )
                    assert getattr(error, "retry_after_s", None) == 7, (
                        f"The server asks to wait 7 s, and {type(error).__name__} does not say so."
                    )

    def list_image_bodies(self) -> list[bytes]:
        """Return bodies with images, of every size and kind."""
        body = self.reply([png(1, 64), png(2)][: self.images_per_reply])
        return [] if body is None else [body]

    def decode_error(self, body: bytes, secrets: tuple[Secret, ...] = ()) -> ImgkitError:
        """Return the error of a success reply without images; fail if there is none."""
        decoded = self.try_decode(body, secrets=secrets)
        assert isinstance(decoded, ImgkitError), (
            f"decode() raises no error for the body {body[:60]!r}, and returns {len(decoded.pictures)} "
            "images. Raise an EmptyResultError: the caller has paid, and must learn that nothing came."
        )
        return decoded

    def try_decode(
        self, body: bytes, provider: Provider | None = None, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | ImgkitError:
        """Decode a success reply; return the images or the error, and fail for any other exception."""
        try:
            return self.decode(body, provider=provider, secrets=secrets)
        except ImgkitError as error:
            return error
        except Exception as error:
            fail_for_builtin(error, "decode", body)

    def read_error(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> ImgkitError:
        """Return the provider's error for a reply; fail if it raises or returns something else."""
        head = Head(status, {"x-request-id": "req_1", **(headers or {})})
        try:
            error: Any = self.provider().error(head, body, SECRETS)
        except Exception as problem:
            fail_for_builtin(problem, "error", body)
        assert isinstance(error, ImgkitError), (
            f"error() returns {error!r} for HTTP {status} and the body {body[:60]!r}, not an ImgkitError."
        )
        return error


def assert_usage(usage: Usage | None) -> None:
    """Fail unless the token counts are those of `USAGE`.

    >>> assert_usage(USAGE)
    """
    names = ("input_tokens", "output_tokens", "total_tokens")
    expected, counts = ({name: getattr(value, name, None) for name in names} for value in (USAGE, usage))
    assert counts == expected, f"The server reports {expected}, and DecodedImages.usage has {counts}."


def fail_for_builtin(error: Exception, method: str, body: bytes) -> NoReturn:
    """Fail because a method has raised an exception that users of imgkit do not catch."""
    raise AssertionError(
        f"{method}() raises {type(error).__name__} ({str(error)[:200]}) for the body {body[:60]!r}. No "
        "builtin exception leaves a provider, whatever the server sends. Read the reply inside "
        "`with imgkit.providers.readable(head, body, secrets):`."
    ) from error


def assert_base64_keys(body: bytes, keys: frozenset[str]) -> None:
    """Fail if a member with an image in base64 is not among the keys.

    >>> assert_base64_keys(b'{"b64_json": "iVBORw0KGgo="}', frozenset({"b64_json"}))
    """
    try:
        value = json.loads(body)
    except ValueError:
        return  # The body is the image itself.
    forgotten = sorted(set(_iterate_image_keys(value, "")) - keys)
    assert not forgotten, (
        f"base64_keys lacks {', '.join(map(repr, forgotten))}: these members hold images in base64. imgkit "
        "decodes named members while they arrive; the text of others is in memory as a whole."
    )


def _iterate_image_keys(value: Any, key: str) -> Iterator[str]:
    """Yield the innermost key of each image in base64."""
    if isinstance(value, str) and PNG_IN_BASE64 in value[:100]:
        yield key
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from _iterate_image_keys(member, name)
    elif isinstance(value, list):
        for member in value:
            yield from _iterate_image_keys(member, key)
