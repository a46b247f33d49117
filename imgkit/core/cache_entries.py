"""From an answer to what a cache keeps of it, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from imgkit import errors
from imgkit.errors import ImgkitError
from imgkit.images.sniff import is_complete_bytes
from imgkit.models import ImageRequest, Usage
from imgkit.plugins.protocols import Entry, Failure
from imgkit.providers.base import DecodedImage, DecodedImages
from imgkit.redact import safe_url
from imgkit.wire.json_values import swapped
from imgkit.wire.messages import Head

_PLAIN = ("created", "background", "output_format", "size", "quality")
_NOT_KEPT = ("body", "images", "response")
_SHARED = (
    "this is how another call with an equal request ended, which this one waited for; this one sent nothing"
)


def to_entry(
    request: ImageRequest, model: str | None, head: Head, answer: DecodedImages, now: float
) -> Entry:
    """Return what is kept of an answer whose pictures are all here.

    Args:
        request: what was asked for; told by listings.
        model: used where the request names none.
        head: of the reply.
        answer: what it says. URLs in it may be permissions: they are left out or shortened.
        now: Unix time in seconds.
    """
    facts = {
        "operation": request.operation,
        "model": request.model or model,
        "prompt": getattr(request, "prompt", None),
        "status": head.status,
        "request_id": head.request_id,
        **{name: getattr(answer, name) for name in _PLAIN},
        "usage": asdict(answer.usage) if answer.usage else None,
        "warnings": list(answer.warnings),
        "extra": _without_permissions(answer.extra),
        "pictures": [
            {"revised_prompt": one.revised_prompt, "extra": _without_permissions(one.extra)}
            for one in answer.pictures
        ],
    }
    return Entry(facts, tuple(one.data or b"" for one in answer.pictures), now)


def from_entry(entry: Entry) -> tuple[Head, DecodedImages]:
    """Return the head and the answer that an entry was made of.

    Raises:
        ValueError: it was made of something else.
    """
    facts = entry.facts
    try:
        pictures = tuple(
            DecodedImage(data=data, revised_prompt=told["revised_prompt"], extra=told["extra"])
            for data, told in zip(entry.pictures, facts["pictures"], strict=True)
        )
        usage = Usage(**facts["usage"]) if facts["usage"] else None
        answer = DecodedImages(
            pictures=pictures,
            usage=usage,
            warnings=tuple(facts["warnings"]),
            extra=facts["extra"],
            **{name: facts[name] for name in _PLAIN},
        )
        request_id = facts["request_id"]
        return Head(facts["status"], {"x-request-id": request_id} if request_id else {}), answer
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no entry of imgkit: {error}") from None


def is_whole(answer: DecodedImages) -> bool:
    """Return whether all pictures are here, and whole: nothing else is worth keeping."""
    return not answer.damaged and all(
        one.data is not None and is_complete_bytes(one.data) for one in answer.pictures
    )


def to_failure(error: ImgkitError) -> Failure:
    """Return what those who wait for a call are told of its error."""
    facts = {name: value for name, value in vars(error).items() if name not in _NOT_KEPT and _is_json(value)}
    return Failure(type(error).__name__, str(error), facts)


def from_failure(failure: Failure) -> ImgkitError:
    """Return the error that a failure tells of, with a note that it is another call's."""
    kind = getattr(errors, failure.error, None)
    if not isinstance(kind, type) or not issubclass(kind, ImgkitError):
        kind = ImgkitError
    error = kind.__new__(kind, failure.message)
    error.args = (failure.message,)
    error.__dict__.update(_as_it_was(kind, failure.facts))
    error.add_note(_SHARED)
    return error


def _as_it_was(kind: type[ImgkitError], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of an error; what was not kept is empty, and lists were tuples."""
    empty: dict[str, dict[str, Any]] = {
        "UnreadableReplyError": {"body": b""},
        "SaveError": {"images": (), "response": None},
    }
    return {
        **{name: value for one in kind.__mro__ for name, value in empty.get(one.__name__, {}).items()},
        **{name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()},
    }


def _is_json(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_json(inner) for name, inner in value.items())
    return value is None or isinstance(value, str | int | float | bool)


def _without_permissions(extra: Mapping[str, Any]) -> Any:
    """Return a copy of JSON values in which URLs have lost their queries, where signatures are."""
    copied = {name: _copy(value) for name, value in extra.items()}
    return swapped(copied, str, lambda one: safe_url(one) if "://" in one else one)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(inner) for name, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value
