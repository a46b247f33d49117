"""Success replies without images in their usual place: images under other keys, jobs, and empty results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from imgkit.errors import EmptyResultError
from imgkit.providers.base import DecodedImage, ReplyBody, Target
from imgkit.providers.reply_images import decode_content, unreadable_reply_error
from imgkit.redact import Secret, safe_url, scrub
from imgkit.wire.json_values import DivertedImage, is_data_url
from imgkit.wire.messages import Head
from imgkit.wire.secret_filter import SecretFilter
from imgkit.wire.urls import join_url

IMAGE_KEYS = frozenset(
    [
        *("artifacts", "data", "image", "image_url", "image_urls", "images", "output", "outputs"),
        *("predictions", "result", "results"),
    ]
)
"""Keys under which servers put the URLs of images, directly or in lists and objects."""

SKIPPED_KEYS = frozenset(
    ["error", "errors", "input", "inputs", "mask", "parameters", "params", "request", "urls"]
)
"""Keys under which servers repeat the request, or put other addresses."""

BASE64_STARTS = ("iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD")
"""Starts of PNG, JPEG, WebP and GIF files in base64."""

JOB_HEADERS = ("operation-location", "azure-asyncoperation", "location")
JOB_URL_KEYS = ("operation_location", "polling_url", "response_url", "status_url", "task_url")
JOB_ID_KEYS = ("task_id", "taskId", "job_id", "jobId", "operation_id", "prediction_id")
STATUS_KEYS = ("status", "state", "task_status")
PENDING = frozenset(
    [
        *("accepted", "created", "inprogress", "inqueue", "notrunning", "notstarted", "pending"),
        *("processing", "queued", "queueing", "running", "scheduled", "starting", "submitted", "waiting"),
    ]
)
FAILED = frozenset(["cancelled", "canceled", "error", "failed"])

MAX_DEPTH, MAX_VALUES = 8, 10_000
QUOTE_LIMIT = 400


class Job(NamedTuple):
    """Work that a server has accepted and will finish later.

    Attributes:
        id: the server's id, None if it gave none.
        status: the server's word for the state of the job.
        url: address that tells more, None if the server named none.
    """

    id: str | None
    status: str | None
    url: str | None


def take_images(
    head: Head,
    body: ReplyBody,
    reply: dict[str, Any],
    target: Target,
    broken: list[str],
    secrets: tuple[Secret, ...],
) -> tuple[list[DecodedImage], list[str]]:
    """Remove the images under unusual keys from a reply; return them and a note about their place.

    Args:
        head: status and headers of the reply.
        body: the reply.
        reply: its JSON object; its ``data`` holds no images that `decode` can read.
        target: the server that sent the reply.
        broken: the problems of ``data``.
        secrets: strings that must not appear in an error.

    Raises:
        EmptyResultError: there are no images.
        UnreadableReplyError: there are no images, and ``data`` is not readable.
    """
    job = find_job(head, reply, target)
    images, names = find_images(reply, target, job)
    if not images and job is None and broken:
        raise unreadable_reply_error(head, body, "; ".join(broken), secrets)
    if not images:
        raise empty_result_error(head, body, secrets, job)
    for name in names:
        del reply[name]
    return images, [f"The images of the reply stand under {', '.join(names)}, not in the list data."]


def find_images(
    reply: Mapping[str, Any], target: Target, job: Job | None
) -> tuple[list[DecodedImage], list[str]]:
    """Return the images under unusual keys of a reply, and the names of the members that hold them.

    Base64 counts anywhere, a URL under `IMAGE_KEYS` only. A reply about an unfinished job has no images:
    it may repeat those of the request.

    Args:
        reply: the JSON object.
        target: the server that sent the reply.
        job: the job that the reply is about, if any.
    """
    if job is not None and _to_word(job.status or "") in PENDING:
        return [], []
    images: list[DecodedImage] = []
    names: dict[str, None] = {}
    seen: set[object] = set()
    for name, value, is_place in iterate_texts(reply):
        content = _read_image(value, target, takes_urls=is_place)
        key = content.get("url") or content.get("data") or id(value)
        if content and key not in seen:
            seen.add(key)
            names[name] = None
            images.append(DecodedImage(**content))
    return images, list(names)


def iterate_texts(reply: Mapping[str, Any]) -> Iterator[tuple[str, str | DivertedImage, bool]]:
    """Yield the top-level member of each text or image, the value, and whether URLs of images stand there."""
    waiting: list[tuple[str, Any, bool, int]] = [
        (name, value, name in IMAGE_KEYS, 1) for name, value in reply.items() if name not in SKIPPED_KEYS
    ]
    waiting.reverse()
    for _ in range(MAX_VALUES):
        if not waiting:
            return
        name, value, is_place, depth = waiting.pop()
        if isinstance(value, str | DivertedImage):
            yield name, value, is_place
        elif depth < MAX_DEPTH and isinstance(value, list):
            waiting += [(name, item, is_place, depth + 1) for item in reversed(value)]
        elif depth < MAX_DEPTH and isinstance(value, dict):
            waiting += [
                (name, item, is_place or key in IMAGE_KEYS, depth + 1)
                for key, item in reversed(value.items())
                if key not in SKIPPED_KEYS
            ]


def _read_image(value: str | DivertedImage, target: Target, *, takes_urls: bool) -> dict[str, Any]:
    """Return the image that a value is or names, as arguments of `DecodedImage`; {} for any other value."""
    if isinstance(value, DivertedImage):
        return decode_content(value, None, target)[0]
    if is_data_url(value):
        content, problems = decode_content(None, value, target)
    elif value.startswith(BASE64_STARTS):
        content, problems = decode_content(value, None, target)
    elif takes_urls and value[:8].lower().startswith(("http://", "https://")):
        return {"url": value}
    else:
        return {}
    return content if not any("known format" in problem for problem in problems) else {}


def find_job(head: Head, reply: Mapping[str, Any], target: Target) -> Job | None:
    """Return the job that a success reply is about, None if it names none.

    Args:
        head: status and headers of the reply.
        reply: its JSON object, {} for a body that is none.
        target: the server that sent the reply.
    """
    places = [reply, *(reply[name] for name in ("data", "output", "result", "task", "job") if name in reply)]
    objects = [place for place in places if isinstance(place, dict)]
    links = reply.get("urls")
    url = (
        next((head.headers[name] for name in JOB_HEADERS if head.headers.get(name)), None)
        or _find_text(objects, JOB_URL_KEYS)
        or (_find_text([links], ("get",)) if isinstance(links, dict) else None)
    )
    status = _find_text(objects, STATUS_KEYS)
    word = _to_word(status or "")
    number = _find_text(objects, JOB_ID_KEYS)
    kind = str(reply.get("object", "")).lower()
    is_job = head.status == 202 or url or number or word in PENDING or kind.endswith(("task", "job"))
    if not is_job or word in FAILED:
        return None
    number = number or _find_text(objects, ("id", "request_id", "requestId"))
    return Job(number, status, _join_address(target, url) if url else None)


def _join_address(target: Target, url: str) -> str | None:
    """Return the absolute URL of a job, None if the server named no URL."""
    try:
        return join_url(f"{target.base_url}/", url)
    except ValueError:
        return None


def _find_text(objects: list[dict[str, Any]], names: tuple[str, ...]) -> str | None:
    """Return the first text or whole number under one of the names."""
    for item in objects:
        for name in names:
            value = item.get(name)
            if (isinstance(value, str) and value) or type(value) is int:
                return str(value)
    return None


def _to_word(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalpha())


def empty_result_error(
    head: Head, body: ReplyBody, secrets: tuple[Secret, ...] = (), job: Job | None = None
) -> EmptyResultError:
    """Return the error for a success reply without images. It quotes the reply.

    Args:
        head: status and headers of the reply.
        body: the reply.
        secrets: strings that must not appear in the error.
        job: the job that the server accepted instead.
    """
    raw = SecretFilter(secrets).clean_bytes(body.raw())
    quote = scrub(raw.decode("utf-8", "replace"), secrets, QUOTE_LIMIT)
    request_id = f"request id {head.request_id or 'not given'}"
    said = f"The reply: {quote}" if quote else "The reply is empty."
    if job is None:
        return EmptyResultError(
            f"HTTP {head.status} without images ({request_id}). The call may have been billed. {said}",
            hint="Ask the provider about it before you repeat the call.",
            request_id=head.request_id,
            body=raw,
        )
    facts = {"id": job.id, "status": job.status, "address": job.url and safe_url(job.url)}
    facts_text = ", ".join(f"{name} {scrub(text, secrets, 200)}" for name, text in facts.items() if text)
    where = f" ({facts_text}; {request_id})" if facts_text else f" ({request_id})"
    return EmptyResultError(
        f"HTTP {head.status} without images: the server accepted the request as a job{where}. The job may "
        f"be billed. {said}",
        hint="Ask the server for the result of the job. Do not send the request again.",
        request_id=head.request_id,
        body=raw,
        job_id=job.id,
        job_url=job.url,
    )
