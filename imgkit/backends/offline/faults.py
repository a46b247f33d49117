"""What can go wrong, on demand: the knob ``simulate=`` of the offline backend."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal

from imgkit.errors import ConfigurationError
from imgkit.redact import nearest


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that every request meets.

    Attributes:
        kind: "reply" is answered with the fields below; "refused" before anything is sent; "silence"
            until the deadline; "cut" after the request; "half_body" within the reply.
        status, headers, body: of the reply.
    """

    kind: Literal["reply", "refused", "silence", "cut", "half_body"]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def _api_error(status: int, message: str, code: str | None, type: str, **more: object) -> Fault:
    error = {"message": message, "type": type, "param": None, "code": code, **more}
    headers = {"content-type": "application/json", "x-request-id": "req_offline_simulated"}
    if status == 429 and code == "rate_limit_exceeded":
        headers["retry-after"] = "1"
    return Fault("reply", status, headers, json.dumps({"error": error}).encode())


# Shapes as the API sends them (captures and reference, 2026-11-23).
NAMED: dict[str, Fault] = {
    "moderation_blocked": _api_error(
        400, "Your request was rejected by the safety system.", "moderation_blocked",
        "image_generation_user_error",
        moderation_details={"moderation_stage": "input", "categories": ["simulated"]},
    ),
    "unknown_parameter": _api_error(
        400, "Unknown parameter: 'simulated'.", "unknown_parameter", "invalid_request_error"
    ),
    "billing_hard_limit_reached": _api_error(
        400, "Billing hard limit has been reached.", "billing_hard_limit_reached", "invalid_request_error"
    ),
    "invalid_api_key": _api_error(
        401, "Incorrect API key provided.", "invalid_api_key", "invalid_request_error"
    ),
    "organization_not_verified": _api_error(
        403, "Your organization must be verified to use this model.", None, "invalid_request_error"
    ),
    "model_not_found": _api_error(
        404, "The model does not exist or you do not have access to it.", "model_not_found",
        "invalid_request_error",
    ),
    "rate_limit_exceeded": _api_error(429, "Rate limit reached.", "rate_limit_exceeded", "requests"),
    "insufficient_quota": _api_error(
        429, "You exceeded your current quota.", "insufficient_quota", "insufficient_quota"
    ),
    "server_error": _api_error(500, "The server had an error.", "server_error", "server_error"),
    "bad_gateway": Fault(
        "reply", 502, {"content-type": "text/html"}, b"<html><h1>502 Bad Gateway</h1></html>"
    ),
    "not_json": Fault("reply", 200, {"content-type": "application/json"}, b"<html>hello</html>"),
    "empty_body": Fault("reply", 200, {"content-type": "application/json"}),
    "empty_result": Fault("reply", 200, {"content-type": "application/json"}, b'{"created":1,"data":[]}'),
    "connection_refused": Fault("refused"),
    "connection_cut": Fault("cut"),
    "half_body": Fault("half_body"),
    "timeout": Fault("silence"),
}  # fmt: skip

BY_STATUS = {
    401: "invalid_api_key", 403: "organization_not_verified", 404: "model_not_found",
    429: "rate_limit_exceeded", 500: "server_error", 502: "bad_gateway",
}  # fmt: skip


def fault_of(wanted: object) -> Fault:
    """Return the fault for a status (400 to 599, as number or text) or a name.

    Raises:
        ConfigurationError: with the names that exist.
    """
    name = str(wanted)
    if isinstance(wanted, bool) or not isinstance(wanted, int | str):
        name = ""
    if name in NAMED:
        return NAMED[name]
    if name.isascii() and name.isdigit() and 400 <= int(name) <= 599:
        status = int(name)
        if status in BY_STATUS:
            return NAMED[BY_STATUS[status]]
        known = [one.value for one in HTTPStatus]
        phrase = HTTPStatus(status).phrase if status in known else f"Status {status}"
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return _api_error(status, f"Simulated: {phrase}.", None, kind)
    raise ConfigurationError(
        f"client_options: simulate is an HTTP status from 400 to 599 or one of {', '.join(NAMED)}, not "
        f"{wanted!r}{nearest(name, NAMED)}"
    )
