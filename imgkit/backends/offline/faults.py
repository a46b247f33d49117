"""Simulated faults: the client option ``simulate`` of the offline backend."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal

from imgkit.errors import ConfigurationError
from imgkit.redact import format_suggestion
from imgkit.wire.plain_values import show_value, to_integer, to_text


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that every request meets.

    Attributes:
        kind: "reply" answers with the fields below; "refused" fails before anything is sent; "silence"
            sends nothing for a second; "cut" closes the connection after the request; "half_body" closes
            it within the body.
        status: HTTP status of the response.
        headers: headers of the response, by lower-case name.
        body: body of the response.

    Example:
        >>> find_fault("rate_limit_exceeded").status
        429
    """

    kind: Literal["reply", "refused", "silence", "cut", "half_body"]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def _build_api_fault(status: int, message: str, code: str | None, type: str, **more: object) -> Fault:
    """Return a fault that answers with an error of the API."""
    error = {"message": message, "type": type, "param": None, "code": code, **more}
    headers = {"content-type": "application/json", "x-request-id": "req_offline_simulated"}
    if status == 429 and code == "rate_limit_exceeded":
        headers["retry-after"] = "1"
    return Fault("reply", status, headers, json.dumps({"error": error}).encode())


# Bodies in the shape of the API's (captures and reference, 2026-11-23).
FAULTS_BY_NAME: dict[str, Fault] = {
    "moderation_blocked": _build_api_fault(
        400, "Your request was rejected by the safety system.", "moderation_blocked",
        "image_generation_user_error",
        moderation_details={"moderation_stage": "input", "categories": ["simulated"]},
    ),
    "unknown_parameter": _build_api_fault(
        400, "Unknown parameter: 'simulated'.", "unknown_parameter", "invalid_request_error"
    ),
    "billing_hard_limit_reached": _build_api_fault(
        400, "Billing hard limit has been reached.", "billing_hard_limit_reached", "invalid_request_error"
    ),
    "invalid_api_key": _build_api_fault(
        401, "Incorrect API key provided.", "invalid_api_key", "invalid_request_error"
    ),
    "organization_not_verified": _build_api_fault(
        403, "Your organization must be verified to use this model.", None, "invalid_request_error"
    ),
    "model_not_found": _build_api_fault(
        404, "The model does not exist or you do not have access to it.", "model_not_found",
        "invalid_request_error",
    ),
    "rate_limit_exceeded": _build_api_fault(429, "Rate limit reached.", "rate_limit_exceeded", "requests"),
    "insufficient_quota": _build_api_fault(
        429, "You exceeded your current quota.", "insufficient_quota", "insufficient_quota"
    ),
    "server_error": _build_api_fault(500, "The server had an error.", "server_error", "server_error"),
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

FAULT_NAMES_BY_STATUS = {
    401: "invalid_api_key", 403: "organization_not_verified", 404: "model_not_found",
    429: "rate_limit_exceeded", 500: "server_error", 502: "bad_gateway",
}  # fmt: skip


def find_fault(simulate: object) -> Fault:
    """Return the fault for a name or an HTTP status.

    Args:
        simulate: a name in `FAULTS_BY_NAME`, or a status from 400 to 599 as a number or text.

    Raises:
        ConfigurationError: the fault does not exist; the message lists the faults.

    Example:
        >>> find_fault("connection_cut").kind
        'cut'
        >>> find_fault(503).status
        503
    """
    number = to_integer(simulate)
    name = to_text(simulate) or ("" if number is None or not 400 <= number <= 599 else str(number))
    if name in FAULTS_BY_NAME:
        return FAULTS_BY_NAME[name]
    if name.isascii() and name.isdigit() and 400 <= int(name) <= 599:
        status = int(name)
        if status in FAULT_NAMES_BY_STATUS:
            return FAULTS_BY_NAME[FAULT_NAMES_BY_STATUS[status]]
        is_registered = status in [known.value for known in HTTPStatus]
        phrase = HTTPStatus(status).phrase if is_registered else f"Status {status}"
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return _build_api_fault(status, f"Simulated: {phrase}.", None, kind)
    raise ConfigurationError(
        "client_options.simulate must be an HTTP status from 400 to 599 or a fault, not "
        f"{show_value(simulate)}{format_suggestion(name, FAULTS_BY_NAME)}. "
        f"Available faults: {', '.join(FAULTS_BY_NAME)}.",
        field="client_options.simulate",
    )
