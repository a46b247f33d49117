"""Values of the telemetry plugin: places for prompts, and attributes by the names of the conventions."""

from __future__ import annotations

import os
from typing import Any, Literal, NamedTuple, TypeAlias, get_args
from urllib.parse import urlsplit

from imgkit.errors import ConfigurationError
from imgkit.models import ImageRequest, ImagesResponse, Usage
from imgkit.plugins.events import Call, Retrying
from imgkit.plugins.table import warn
from imgkit.redact import scrub
from imgkit.wire.plain_values import show_value, to_text

CAPTURE_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
PROMPT_LIMIT = 1024
"""Maximum length of a prompt in a span or event, in characters."""

CaptureMode: TypeAlias = Literal["no_content", "span_only", "event_only", "span_and_event"]
"""Places for prompts."""

OPERATIONS = {
    "create_image": "image_generation",
    "create_image_edit": "image_edit",
    "create_image_variation": "image_variation",
}
"""Values of ``gen_ai.operation.name`` by imgkit's names."""

_SYSTEMS = {"azure": "azure.ai.openai"}
"""Values of ``gen_ai.provider.name`` that differ from imgkit's names."""

DURATION_BUCKETS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
TOKEN_BUCKETS = [float(4**power) for power in range(14)]
"""Bucket boundaries from the conventions."""

Attributes = dict[str, str | int | float | bool]


class Capture(NamedTuple):
    """The signals that get prompts."""

    in_spans: bool = False
    in_events: bool = False


_CAPTURES = {
    "no_content": Capture(),
    "span_only": Capture(in_spans=True),
    "event_only": Capture(in_events=True),
    "span_and_event": Capture(in_spans=True, in_events=True),
    "false": Capture(),
    "true": Capture(in_spans=True),
}


def parse_capture(capture_content: bool | CaptureMode | None) -> Capture:
    """Return the places for prompts from the argument, or from the variable.

    Raises:
        ConfigurationError: the argument has another value.
    """
    given: object = capture_content
    if given is None:
        text = os.environ.get(CAPTURE_VARIABLE, "").strip()
        capture = _CAPTURES.get(text.lower() or "no_content")
        if capture is None:
            choices = ", ".join(name.upper() for name in get_args(CaptureMode))
            warn(
                f"{CAPTURE_VARIABLE} is {clean_text(text[:40])!r}, so no prompt is captured. "
                f"Set it to {choices}, true or false."
            )
        return capture or Capture()
    words = str(given) if given is True or given is False else to_text(given)
    capture = None if words is None else _CAPTURES.get(words.strip().lower())
    if capture is None:
        choices = ", ".join(map(repr, get_args(CaptureMode)))
        raise ConfigurationError(
            f"capture_content is {show_value(given)}. Choose one of {choices}, True or False.",
            field="capture_content",
        )
    return capture


def name_capture(capture: Capture) -> str:
    """Return the name of the places for prompts."""
    return next(name for name, value in _CAPTURES.items() if value == capture)


def to_call_attributes(call: Call, request: ImageRequest | None) -> Attributes:
    """Return the attributes that spans and metrics of a call share."""
    attributes: Attributes = {
        "gen_ai.operation.name": OPERATIONS[call.operation],
        # The offline artist uses a provider's dialect, but is not that provider: its calls are free.
        "gen_ai.provider.name": "imgkit.offline"
        if call.host_class == "offline"
        else _SYSTEMS.get(call.provider, call.provider),
    }
    model = clean_text(call.model if request is None else request.model)
    if model:
        attributes["gen_ai.request.model"] = model
    if call.host_class != "offline":
        parts = urlsplit(call.base_url)
        attributes["server.address"] = parts.hostname or ""
        attributes["server.port"] = parts.port or (443 if parts.scheme == "https" else 80)
    return attributes


def to_request_attributes(request: ImageRequest) -> Attributes:
    """Return the attributes of the number of images, if it is not 1, and of the seed."""
    count, seed = parse_int(read_member(request, "n")), parse_int(read_member(request, "seed"))
    attributes: Attributes = {}
    if count is not None and count != 1:
        attributes["gen_ai.request.choice.count"] = count
    if seed is not None:
        attributes["gen_ai.request.seed"] = seed
    return attributes


def read_member(request: ImageRequest, name: str) -> object:
    """Return a member of the request's body by name: that of ``extra_body`` wins."""
    return (request.extra_body or {}).get(name, getattr(request, name, None))


def parse_int(value: object) -> int | None:
    """Return a whole number of JSON or of a form field, None for anything else."""
    if isinstance(value, str) and len(value) < 20 and value.isascii() and value.isdigit():
        value = int(value)
    return value if type(value) is int and abs(value) < 1 << 63 else None


def clean_prompt(value: object) -> str | None:
    """Return a prompt without secrets, cut to `PROMPT_LIMIT`; None if it is not text."""
    return scrub(value, limit=PROMPT_LIMIT) if isinstance(value, str) else None


def to_input_messages(prompt: str) -> list[dict[str, Any]]:
    """Return a prompt in the form of ``gen_ai.input.messages``."""
    return [{"role": "user", "parts": [{"type": "text", "content": prompt}]}]


def to_output_messages(response: ImagesResponse) -> list[dict[str, Any]]:
    """Return the revised prompts in the form of ``gen_ai.output.messages``: a message for each image."""
    texts = [clean_prompt(image.revised_prompt) for image in response.images]
    parts = [[{"type": "text", "content": text}] if text else [] for text in texts]
    return [{"role": "assistant", "parts": each} for each in parts]


def count_tokens(usage: Usage) -> dict[str, tuple[int | None, dict[str, int]]]:
    """Return the tokens of both sides: the total, None if unknown, and its parts by modality.

    Tokens that the server does not break down have the modality "unknown", so the parts add up.
    """
    return {
        "input": _break_down(usage.input_tokens, usage.input_text_tokens, usage.input_image_tokens),
        "output": _break_down(usage.output_tokens, usage.output_text_tokens, usage.output_image_tokens),
    }


def _break_down(total: int | None, text: int | None, image: int | None) -> tuple[int | None, dict[str, int]]:
    parts = {name: count for name, count in (("text", text), ("image", image)) if count is not None}
    known = sum(parts.values())
    if total is None and parts:
        total = known
    if known > (total or 0):
        return total, {"unknown": total or 0}
    rest = (total or 0) - known
    return total, {**parts, "unknown": rest} if rest or not parts else parts


def to_retry_attributes(event: Retrying) -> Attributes:
    """Return the attributes of a retry, without the message of the failure."""
    return {
        "error.type": type(event.outcome.error).__name__,
        "imgkit.outcome": event.outcome.kind,
        "imgkit.attempts": event.outcome.attempts,
        "imgkit.wait_s": event.wait_s,
    }


def clean_text(value: Any) -> str | None:
    """Return a text of the server or caller without secrets, on one line; None if it is not text."""
    return " ".join(scrub(value, limit=200).split()) if isinstance(value, str) else None
