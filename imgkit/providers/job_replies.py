"""The replies about jobs: statuses and states that many APIs share."""

from __future__ import annotations

from imgkit.errors import ImgkitError, JobFailedError, ModerationBlockedError
from imgkit.providers.base import ReplyBody
from imgkit.providers.reply_images import unreadable_reply_error
from imgkit.redact import Secret
from imgkit.wire.messages import Head


def unknown_job_error(head: Head, code: str | None = None) -> JobFailedError:
    """Return the error of a job that the API does not know any more: nobody can collect it.

    Args:
        head: head of the reply.
        code: the API's code.

    Example:
        >>> unknown_job_error(Head(404, {})).problem
        'The API does not know the job any more.'
    """
    return JobFailedError("The API does not know the job any more.", status=head.status, code=code)


def explain_poll(head: Head, body: ReplyBody, error: ImgkitError, secrets: tuple[Secret, ...]) -> ImgkitError:
    """Return the error of a poll outside 2xx: few statuses tell that the job is lost.

    After 404 and 410 the job is gone. A refused key ends the call, and another key can collect the job. For
    all other statuses imgkit asks again.

    Args:
        head, body: the reply.
        error: the result of `Provider.error` for the reply.
        secrets: strings that must not appear in a message.
    """
    if head.status in (404, 410):
        return unknown_job_error(head)
    if head.status in (401, 403):
        return error
    return unreadable_reply_error(head, body, error.problem, secrets)


def is_refusal(text: str) -> bool:
    """Return whether the reason of a failed job says that the API refuses the content.

    Example:
        >>> text = "The request requires moderation and your input was flagged."
        >>> is_refusal(text), is_refusal("Out of memory")
        (True, False)
    """
    from imgkit.providers.error_codes import find_meaning

    meaning = find_meaning(400, (), None, text)
    return meaning is not None and issubclass(meaning.error, ModerationBlockedError)


def describe_place(ahead: int) -> str:
    """Return the place in a queue in words.

    Example:
        >>> describe_place(1)
        '1 job ahead'
    """
    return f"{ahead} job{'' if ahead == 1 else 's'} ahead"


def read_queue_addresses(reply: object) -> dict[str, str] | None:
    """Return the id and the addresses of a request in a queue like fal's; None for a reply about none.

    An address that the reply lacks follows from another: a request that was accepted is paid for.

    Args:
        reply: the JSON value of the reply to a submit.

    Example:
        >>> place = "https://queue.acme.example/requests/7"
        >>> read_queue_addresses({"request_id": "7", "response_url": place})["status_url"]
        'https://queue.acme.example/requests/7/status'
    """
    if not isinstance(reply, dict):
        return None
    names = ("request_id", "response_url", "status_url", "cancel_url")
    found = {name: value for name in names if isinstance(value := reply.get(name), str) and value}
    if "response_url" not in found and "status_url" in found:
        found["response_url"] = found["status_url"].removesuffix("/status")
    if "response_url" not in found:
        return None
    place = found["response_url"]
    return {
        "request_id": place.rpartition("/")[2],
        "status_url": f"{place}/status",
        "cancel_url": f"{place}/cancel",
        **found,
    }
