"""Planted bugs of providers: each is OpenAI's provider with a single mistake in reading a reply."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any, ClassVar

import imgkit
from imgkit.providers import (
    DecodedImage,
    DecodedImages,
    Head,
    OpenAIProvider,
    Target,
    error_from_reply,
)
from tests.testing.planted_bugs import plant

# --- Images -----------------------------------------------------------------------------------


@plant("test_decodes_images", "A reply has 1 images, and decode.. returns 0")
class DropsLastImage(OpenAIProvider):
    """An image that was paid for is lost."""

    def decode(self, *arguments: Any, **options: Any) -> DecodedImages:
        decoded = super().decode(*arguments, **options)
        return replace(decoded, pictures=decoded.pictures[:-1])


@plant("test_decodes_images", "another order")
class ReversesImages(OpenAIProvider):
    """Captions and file names belong to other images."""

    def decode(self, *arguments: Any, **options: Any) -> DecodedImages:
        decoded = super().decode(*arguments, **options)
        return replace(decoded, pictures=decoded.pictures[::-1])


@plant("test_decodes_images", "other bytes")
class StripsImages(OpenAIProvider):
    """The signature of the origin breaks."""

    def decode(self, *arguments: Any, **options: Any) -> DecodedImages:
        decoded = super().decode(*arguments, **options)
        images = tuple(replace(image, data=(image.data or b"")[:-12]) for image in decoded.pictures)
        return replace(decoded, pictures=images)


@plant("test_decodes_image_urls", "decodes to .*the images are paid for")
class DropsUrls(OpenAIProvider):
    """An image at a URL is lost, and expires within the hour."""

    def decode(self, *arguments: Any, **options: Any) -> DecodedImages:
        decoded = super().decode(*arguments, **options)
        return replace(decoded, pictures=tuple(image for image in decoded.pictures if image.data))


@plant("test_decodes_image_urls", "with its query")
class CutsQueries(OpenAIProvider):
    """The store refuses a URL without its signature."""

    def decode(self, *arguments: Any, **options: Any) -> DecodedImages:
        decoded = super().decode(*arguments, **options)
        images = (replace(image, url=(image.url or "").partition("?")[0]) for image in decoded.pictures)
        return replace(decoded, pictures=tuple(images))


@plant("test_reads_usage", "The server reports .*DecodedImages.usage has .*None")
class LosesUsage(OpenAIProvider):
    """The cost is unknown, and a budget counts the highest possible cost."""

    def decode(self, *arguments: Any, **options: Any) -> DecodedImages:
        return replace(super().decode(*arguments, **options), usage=None)


@plant("test_base64_keys", "base64_keys lacks 'b64_json'")
class ForgetsBase64Keys(OpenAIProvider):
    """An image of 32 MB takes 130 MB of memory."""

    base64_keys: ClassVar[frozenset[str]] = frozenset({"image"})


class LenientProvider(OpenAIProvider):
    def decode(self, head: Head, body: Any, target: Target, secrets: Any = ()) -> DecodedImages:
        if b"****" not in body.raw():
            return super().decode(head, body, target, secrets)
        entries = json.loads(body.raw())["data"]
        # By default, b64decode drops foreign characters.
        images = (DecodedImage(data=base64.b64decode(entry["b64_json"])) for entry in entries)
        return DecodedImages(pictures=tuple(images), damaged=True)


@plant("test_damaged_base64", "Damaged base64 decodes to wrong bytes")
class DecodesLeniently(LenientProvider):
    """A damaged image is saved as a good one."""


@plant("test_damaged_base64", "does not set damaged=True")
class HidesDamage(OpenAIProvider):
    """The cache keeps the reply, and repeats it for ever."""

    def decode(self, *arguments: Any, **options: Any) -> DecodedImages:
        return replace(super().decode(*arguments, **options), damaged=False)


@plant("test_reply_without_images_is_an_error", "decode.. raises no error .*returns 0 images")
class ReturnsNothing(OpenAIProvider):
    """The caller pays, gets an empty list, and does not notice."""

    def decode(self, *arguments: Any, **options: Any) -> DecodedImages:
        try:
            return super().decode(*arguments, **options)
        except imgkit.ImgkitError:
            return DecodedImages(pictures=())


@plant("test_reply_without_images_is_an_error", "raises ConfigurationError for the body")
class CallsEmptyRepliesFree(OpenAIProvider):
    """A budget gives the money back that the API has taken."""

    def decode(self, *arguments: Any, **options: Any) -> DecodedImages:
        try:
            return super().decode(*arguments, **options)
        except imgkit.ImgkitError as error:
            raise imgkit.ConfigurationError(error.problem) from None


@plant("test_truncated_replies", "decode.. raises JSONDecodeError.*No builtin exception leaves a provider")
class LeaksBuiltinErrors(OpenAIProvider):
    """``except ImgkitError`` of an app does not catch it, and the reply is lost."""

    def decode(self, head: Head, body: Any, target: Target, secrets: Any = ()) -> DecodedImages:
        json.loads(body.raw())
        return super().decode(head, body, target, secrets)


@plant("test_success_replies_hide_keys", "repeats the key.*Pass `secrets` on")
class DropsSecretsInDecode(OpenAIProvider):
    """The key stands in the log of the app."""

    def decode(self, head: Head, body: Any, target: Target, secrets: Any = ()) -> DecodedImages:
        return super().decode(head, body, target)


# --- Errors -----------------------------------------------------------------------------------


@plant("test_maps_errors", "repeats the key.*Pass `secrets` on", 401)
class DropsSecretsInErrors(OpenAIProvider):
    """The key stands in the log of the app."""

    def error(self, head: Head, body: bytes, secrets: Any) -> imgkit.ImgkitError:
        return super().error(head, body, ())


@plant("test_maps_errors", "The status 403 becomes 400", 403)
class LosesStatus(OpenAIProvider):
    """Support cannot find the failure."""

    def error(self, head: Head, body: bytes, secrets: Any) -> imgkit.ImgkitError:
        return super().error(Head(400, head.headers), body, secrets)


@plant("test_maps_errors", "HTTP 422 becomes ConfigurationError", 422)
class BlamesConfiguration(OpenAIProvider):
    """The caller looks for the mistake in the wrong place."""

    def error(self, head: Head, body: bytes, secrets: Any) -> imgkit.ImgkitError:
        return imgkit.ConfigurationError(f"The request failed with HTTP {head.status}.")


@plant("test_maps_errors", "The message of BadRequestError has 5014 characters", 400)
class QuotesWholePages(OpenAIProvider):
    """A page of a gateway fills the log."""

    def error(self, head: Head, body: bytes, secrets: Any) -> imgkit.ImgkitError:
        text = body.decode("latin-1")
        for secret in secrets:
            text = text.replace(secret.reveal(), "…")
        return imgkit.BadRequestError(f"The API says: {text}", status=head.status, request_id=head.request_id)


@plant("test_maps_errors", "error.. raises JSONDecodeError", 500)
class ExpectsJsonErrors(OpenAIProvider):
    """The page of a gateway ends in a traceback."""

    def error(self, head: Head, body: bytes, secrets: Any) -> imgkit.ImgkitError:
        json.loads(body)
        return super().error(head, body, secrets)


@plant("test_retry_relevant_errors", "HTTP 401 becomes BadRequestError, not AuthenticationError")
class MakesErrorsGeneric(OpenAIProvider):
    """Nobody learns that the key is wrong."""

    def error(self, head: Head, body: bytes, secrets: Any) -> imgkit.ImgkitError:
        error = super().error(head, body, secrets)
        if not isinstance(error, imgkit.AuthenticationError):
            return error
        return imgkit.BadRequestError(str(error), status=head.status, request_id=head.request_id)


@plant("test_retry_relevant_errors", "asks to wait 7 s, and retry_after_s is None")
class IgnoresRetryAfter(OpenAIProvider):
    """All retries come too early, and the API locks the account."""

    def error(self, head: Head, body: bytes, secrets: Any) -> imgkit.ImgkitError:
        headers = {name: value for name, value in head.headers.items() if name != "retry-after"}
        return super().error(Head(head.status, headers), body, secrets)


@plant("test_retry_relevant_errors", "under HTTP 502 becomes ServerError")
class TrustsGatewayPages(OpenAIProvider):
    """A call is paid twice: the API goes on behind the gateway."""

    def error(self, head: Head, body: bytes, secrets: Any) -> imgkit.ImgkitError:
        return error_from_reply(head, body, secrets, is_free=True)


@plant("test_errors_quote_the_api", "The API says 'The colour mauve is not in stock'")
class LosesMessage(OpenAIProvider):
    """The caller cannot learn what to change."""

    def error(self, head: Head, body: bytes, secrets: Any) -> imgkit.ImgkitError:
        return super().error(head, b"", secrets)


@plant("test_free_failures", "failure_is_free.. says True for HTTP 500")
class CallsGatewayRepliesFree(OpenAIProvider):
    """A call is paid twice: the API goes on behind the gateway."""

    def failure_is_free(self, head: Head, body: bytes) -> bool:
        return True

    def error(self, head: Head, body: bytes, secrets: Any) -> imgkit.ImgkitError:
        return error_from_reply(head, body, secrets)


@plant("test_free_failures", "which may be billed")
class BillsFreeFailures(OpenAIProvider):
    """A budget keeps the reservation of a call that cost nothing."""

    def error(self, head: Head, body: bytes, secrets: Any) -> imgkit.ImgkitError:
        return error_from_reply(head, body, secrets, is_free=False)
