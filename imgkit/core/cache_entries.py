"""Cache entries: to and from decoded replies, and errors to and from failures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TypeGuard

from imgkit import errors
from imgkit.errors import ImgkitError
from imgkit.images.sniff import is_complete_bytes
from imgkit.jobs.job import Job
from imgkit.models import CreateImageVariationRequest, ImageRequest, Usage, resolve_model
from imgkit.plugins.protocols import Entry, Failure
from imgkit.providers.base import DecodedImage, DecodedImages
from imgkit.redact import cut_queries, safe_url
from imgkit.wire.json_values import replace_values
from imgkit.wire.messages import Head

_VALUES = ("created", "background", "output_format", "size", "quality")
_NOT_CACHED = ("body", "images", "response", "job_url", "__notes__")
_NOTES = "notes"
_ERROR_BODY = "error_body"
_JOBS = "jobs"
_SHARED = "This error ended a concurrent identical call, which this call waited for. This call sent nothing."


def to_entry(
    request: ImageRequest, model: str | None, head: Head, decoded: DecodedImages, now: float
) -> Entry:
    """Return the cache entry of a reply with all its image bytes.

    Args:
        request: the request; listings of the cache show it.
        model: model of a request that names none.
        head: head of the reply.
        decoded: the decoded reply. Its URLs may grant access: they lose their queries.
        now: Unix time in seconds.
    """
    facts = {
        "operation": request.operation,
        "model": resolve_model(request, model),
        "prompt": None if isinstance(request, CreateImageVariationRequest) else request.prompt,
        "status": head.status,
        "request_id": head.request_id,
        **{name: getattr(decoded, name) for name in _VALUES},
        "usage": asdict(decoded.usage) if decoded.usage else None,
        "warnings": list(decoded.warnings),
        "extra": _without_url_queries(decoded.extra),
        "pictures": [
            {"revised_prompt": image.revised_prompt, "extra": _without_url_queries(image.extra)}
            for image in decoded.pictures
        ],
    }
    return Entry(facts, tuple(image.data or b"" for image in decoded.pictures), now)


def from_entry(entry: Entry) -> tuple[Head, DecodedImages]:
    """Return the head and the decoded reply of a cache entry.

    Raises:
        ValueError: it is no entry of imgkit's.
    """
    facts = entry.facts
    try:
        images = tuple(
            DecodedImage(data=data, revised_prompt=values["revised_prompt"], extra=values["extra"])
            for data, values in zip(entry.pictures, facts["pictures"], strict=True)
        )
        decoded = DecodedImages(
            pictures=images,
            usage=Usage(**facts["usage"]) if facts["usage"] else None,
            warnings=tuple(facts["warnings"]),
            extra=facts["extra"],
            **{name: facts[name] for name in _VALUES},
        )
        request_id = facts["request_id"]
        return Head(facts["status"], {"x-request-id": request_id} if request_id else {}), decoded
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no entry of imgkit: {error}") from None


def is_whole(decoded: DecodedImages) -> bool:
    """Return whether all images have their bytes and none is truncated: only such replies are cached."""
    return not decoded.damaged and all(
        image.data is not None and is_complete_bytes(image.data) for image in decoded.pictures
    )


def to_failure(error: ImgkitError) -> Failure:
    """Return the failure that waiting callers get for an error."""
    facts = {
        name: value for name, value in vars(error).items() if name not in _NOT_CACHED and _is_json(value)
    }
    if notes := list(filter(_is_text, getattr(error, "__notes__", ()))):
        facts[_NOTES] = notes
    if isinstance(error, errors.ApiError):
        facts[_ERROR_BODY] = error.body.decode("utf-8", "replace")
    if isinstance(error, errors.JobPendingError):
        facts[_JOBS] = [job.to_json() for job in error.jobs if isinstance(job, Job)]
    return Failure(type(error).__name__, str(error), facts)


def from_failure(failure: Failure) -> ImgkitError:
    """Return the error of a failure, with a note that a concurrent identical call met it."""
    kind = getattr(errors, failure.error, None)
    if not isinstance(kind, type) or not issubclass(kind, ImgkitError):
        kind = ImgkitError
    error = kind.__new__(kind, failure.message)
    error.args = (failure.message,)
    facts = {
        name: value
        for name, value in failure.facts.items()
        if name not in (_NOTES, _ERROR_BODY, _JOBS, *_NOT_CACHED)
    }
    error.__dict__.update(_restore_attributes(kind, facts))
    body = failure.facts.get(_ERROR_BODY)
    if isinstance(error, errors.ApiError) and isinstance(body, str):
        error.body = body.encode("utf-8", "replace")
    if isinstance(error, errors.JobPendingError):
        error.jobs = _restore_jobs(failure.facts.get(_JOBS))
    notes = failure.facts.get(_NOTES)
    for note in filter(_is_text, notes if isinstance(notes, list | tuple) else ()):
        error.add_note(note)
    error.add_note(_SHARED)
    return error


def _restore_jobs(texts: object) -> tuple[Job, ...]:
    """Return the pending jobs of a failure; a damaged job is left out."""
    jobs = []
    for text in filter(_is_text, texts if isinstance(texts, list | tuple) else ()):
        with suppress(errors.ConfigurationError):
            jobs.append(Job.from_json(text))
    return tuple(jobs)


def _restore_attributes(kind: type[ImgkitError], facts: Mapping[str, object]) -> dict[str, object]:
    """Return the attributes of an error. Those that a cache does not keep are empty; lists were tuples."""
    empty: dict[str, dict[str, object]] = {
        "UnreadableReplyError": {"body": b""},
        "EmptyResultError": {"body": b"", "job_url": None},
        "SaveError": {"images": (), "response": None},
        "EndpointRetiredError": {"date": None},
    }
    return {
        **{name: value for base in kind.__mro__ for name, value in empty.get(base.__name__, {}).items()},
        **{name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()},
    }


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)


def _is_json(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_json(item) for name, item in value.items())
    return value is None or isinstance(value, str | int | float | bool)


def _without_url_queries(extra: Mapping[str, object]) -> object:
    """Return a copy of JSON values whose URLs have no query: signatures stand there."""
    copy = {name: _copy_json(value) for name, value in extra.items()}
    return replace_values(copy, str, lambda text: safe_url(text) if "://" in text else cut_queries(text))


def _copy_json(value: object) -> object:
    if isinstance(value, dict):
        return {name: _copy_json(item) for name, item in value.items()}
    return [_copy_json(item) for item in value] if isinstance(value, list) else value
