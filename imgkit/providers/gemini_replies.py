"""The replies of Google's image models: images, thoughts, refusals under 200, and token counts.

Source: types of google-genai 3.6.1, read 2026-11-28.
"""

from __future__ import annotations

from imgkit.models import Usage
from imgkit.providers.base import DecodedImage, DecodedImages, ReplyBody, Target
from imgkit.providers.error_replies import error_from_reply, refused
from imgkit.providers.reply_images import decode_content, readable, unreadable_reply_error
from imgkit.providers.unusual_replies import empty_result_error
from imgkit.redact import Secret
from imgkit.wire.json_values import JsonObject, restore_base64
from imgkit.wire.messages import Head

REFUSALS = frozenset(
    [
        *("SAFETY", "IMAGE_SAFETY", "PROHIBITED_CONTENT", "IMAGE_PROHIBITED_CONTENT", "BLOCKLIST", "SPII"),
        *("RECITATION", "IMAGE_RECITATION", "MODEL_ARMOR"),
    ]
)
"""Values of ``finishReason`` by which the safety system holds an image back."""

COUNTS = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount")


def decode_reply(head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...]) -> DecodedImages:
    """Return the last image of a reply, which earlier ones lead to.

    Raises:
        ModerationBlockedError: The safety system refuses the prompt or the image.
        EmptyResultError: The model has drawn nothing.
    """
    decoded, _ = _read_reply(head, body, target, secrets)
    if not decoded.pictures and decoded.damaged:
        raise unreadable_reply_error(head, body, "; ".join(decoded.warnings), secrets)
    if not decoded.pictures:
        raise empty_result_error(head, body, secrets)
    return decoded


def decode_event(
    head: Head, data: ReplyBody, target: Target, secrets: tuple[Secret, ...]
) -> DecodedImages | None:
    """Return the image or the usage of an event of a stream, None for an event without them.

    Raises:
        ModerationBlockedError: as `decode_reply`.
        EmptyResultError: The stream ends, and its last event gives the reason why there is no image.
    """
    decoded, finish = _read_reply(head, data, target, secrets)
    if not decoded.pictures and finish != "STOP":
        raise empty_result_error(head, data, secrets)
    return decoded if decoded.pictures or decoded.usage or decoded.damaged else None


def _read_reply(
    head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...]
) -> tuple[DecodedImages, str]:
    """Return the content of a reply and its finish reason; raise the error that it holds."""
    with readable(head, body, secrets):
        value = body.json()
        # Without ``alt=sse`` a stream is an array of replies.
        chunks = value if isinstance(value, list) else [value]
        reply = {name: member for chunk in chunks for name, member in chunk.items()}
        candidates = [each for chunk in chunks for each in _list_objects(chunk.get("candidates"))]
        last = candidates[-1] if candidates else {}
        images, texts, problems = _read_parts(candidates, target)
        usage = read_usage(reply.pop("usageMetadata", None))
        if not images and reply.get("error"):
            raise error_from_reply(head, body.raw(), secrets)
        if not images:
            _raise_refusal(head, _to_object(reply.get("promptFeedback")), last, usage, secrets)
    notes = [f"The reply has {len(images)} images; the last is the result."] if len(images) > 1 else []
    extra = {name: member for name, member in reply.items() if name not in ("candidates", "promptFeedback")}
    decoded = DecodedImages(
        pictures=tuple(images[-1:]),
        usage=usage,
        warnings=(*problems, *notes),
        damaged=bool(problems),
        extra={**restore_base64(extra), **({"text": "".join(texts)} if texts else {})},
    )
    return decoded, last.get("finishReason") or "STOP"


def _read_parts(
    candidates: list[JsonObject], target: Target
) -> tuple[list[DecodedImage], list[str], list[str]]:
    """Return images, texts and problems of all parts but thoughts, which may hold drafts of the image."""
    images: list[DecodedImage] = []
    texts: list[str] = []
    problems: list[str] = []
    contents = [_to_object(candidate.get("content")) for candidate in candidates]
    for part in (part for content in contents for part in _list_objects(content.get("parts"))):
        if part.get("thought"):
            continue
        inline = _to_object(part.get("inlineData") or part.get("inline_data"))
        image, found = decode_content(inline.get("data"), None, target)
        problems += [f"a part {problem}" for problem in found]
        if image:
            images.append(DecodedImage(**image))
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
    return images, texts, problems


def _raise_refusal(
    head: Head,
    feedback: JsonObject,
    candidate: JsonObject,
    usage: Usage | None,
    secrets: tuple[Secret, ...],
) -> None:
    """Raise the refusal of a reply without images, if it holds one: of the prompt, or of the image."""
    reason, finish = feedback.get("blockReason"), candidate.get("finishReason")
    if not reason and finish not in REFUSALS:
        return
    message = feedback.get("blockReasonMessage") if reason else candidate.get("finishMessage")
    ratings = _list_objects((feedback if reason else candidate).get("safetyRatings"))
    raise refused(
        head,
        str(message or reason or finish),
        stage="input" if reason else "output",
        code=str(reason or finish),
        categories=[str(rating.get("category")) for rating in ratings if rating.get("blocked")],
        secrets=secrets,
        maybe_billed=not reason and bool(usage and usage.output_tokens),
    )


def read_usage(metadata: object) -> Usage | None:
    """Return token counts; those of thoughts are text, as they are billed.

    Example:
        >>> read_usage({"candidatesTokenCount": 1120, "thoughtsTokenCount": 90}).output_text_tokens
        90
    """
    if not isinstance(metadata, dict):
        return None

    def count_kind(name: str, modality: str) -> int | None:
        entries = _list_objects(metadata.get(name))
        counts = [
            _to_count(entry.get("tokenCount")) for entry in entries if entry.get("modality") == modality
        ]
        return sum(filter(None, counts)) if entries else None

    asked, drawn, thoughts, total = (_to_count(metadata.get(name)) for name in COUNTS)
    output = None if drawn is None and thoughts is None else (drawn or 0) + (thoughts or 0)
    image = count_kind("candidatesTokensDetails", "IMAGE")
    image = drawn if image is None and thoughts else image
    return Usage(
        total_tokens=total,
        input_tokens=asked,
        output_tokens=output,
        input_text_tokens=count_kind("promptTokensDetails", "TEXT"),
        input_image_tokens=count_kind("promptTokensDetails", "IMAGE"),
        output_text_tokens=None if image is None or output is None else max(0, output - image),
        output_image_tokens=image,
        extra={
            name: value for name, value in metadata.items() if name not in COUNTS and "Details" not in name
        },
    )


def _to_count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


# An odd member must not cost the image beside it.


def _to_object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _list_objects(value: object) -> list[JsonObject]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
