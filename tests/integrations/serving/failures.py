"""Failures of an API, and the status with which each must reach a client of `imgkit serve`."""

from __future__ import annotations

from typing import NamedTuple

from tests.integrations.serving.upstream import (
    Answer,
    cut,
    drop,
    drop_unread,
    refuse,
    reply_with,
    show_page,
)

UNKNOWN = 424
"""The status of an outcome that may be billed: no client sends it again."""

QUICK = "20"
"""Milliseconds that the API asks to wait, so that the retries of imgkit itself take no time."""


class Failure(NamedTuple):
    """A failure of the API.

    Attributes:
        name: its name in the table.
        answer: the way in which the API answers.
        status: the HTTP status at the client of the server.
        paid: whether the call may be billed, so that nobody may send it again.
    """

    name: str
    answer: Answer
    status: int
    paid: bool = False


FAILURES = (
    Failure("400 unknown parameter", refuse(400, "unknown_parameter"), 400),
    Failure(
        "400 refused content", refuse(400, "moderation_blocked", type="image_generation_user_error"), 400
    ),
    Failure("401 wrong key", refuse(401, "invalid_api_key"), 401),
    Failure("403 forbidden", refuse(403, None), 403),
    Failure("404 no such model", refuse(404, "model_not_found"), 404),
    Failure("409 conflict", refuse(409, None), 409),
    Failure("429 rate limit", refuse(429, "rate_limit_exceeded", type="images", retry_after_ms=QUICK), 429),
    Failure("429 no credit", refuse(429, "insufficient_quota", type="insufficient_quota"), 402),
    Failure("500 of the API", refuse(500, "server_error", type="server_error", retry_after_ms=QUICK), 500),
    Failure("503 of the API", refuse(503, "server_error", type="server_error", retry_after_ms=QUICK), 503),
    Failure("500 of a gateway", show_page(500), UNKNOWN, True),
    Failure("502 of a gateway", show_page(502), UNKNOWN, True),
    Failure("503 of a gateway", show_page(503), UNKNOWN, True),
    Failure("504 of a gateway", show_page(504), UNKNOWN, True),
    Failure("connection dropped unread", drop_unread, UNKNOWN, True),
    Failure("connection dropped", drop, UNKNOWN, True),
    Failure("reply cut", cut, UNKNOWN, True),
    Failure("200, nothing", reply_with(b""), UNKNOWN, True),
    Failure("200, no images", reply_with(b'{"created": 1, "data": []}'), UNKNOWN, True),
)

PAID = tuple(failure for failure in FAILURES if failure.paid)
UNPAID = tuple(failure for failure in FAILURES if not failure.paid)
