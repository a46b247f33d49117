"""The words and facts of refusals: what a client can do about each, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imgkit import errors
from imgkit.errors import ImgkitError
from imgkit.server.envelopes import build_error_reply
from tests.support.served import EDITS, GENERATIONS, form, send, serve_before
from tests.support.wire_server import reply

FOX = {"prompt": "a fox"}


def describe(error: ImgkitError) -> dict[str, Any]:
    """Return the envelope's error."""
    envelope: Any = build_error_reply(error, "c0ffee").envelope
    found: dict[str, Any] = envelope["error"]
    return found


def test_refusals_have_the_same_form(tmp_path: Path) -> None:
    """Says of each wrong request that nothing was sent, and names its call if it has begun one."""
    body, kind = form(prompt="a hat")
    with serve_before(tmp_path) as (server, api):
        for got, status in (
            (send(server, GENERATIONS, {"prompt": ""}), 400),
            (send(server, GENERATIONS, {**FOX, "n": 0, "size": "huge"}), 400),
            (send(server, GENERATIONS, {**FOX, "stream": "yes"}), 400),
            (send(server, GENERATIONS, {**FOX, "model": "gpt-image-2", "quality": "best"}), 400),
            (send(server, EDITS, body, content_type=kind), 400),
            (send(server, "/estimate", {"prompt": ""}), 400),
            (send(server, "/v1/models/x"), 404),
            (send(server, "/x"), 404),
        ):
            assert got.status == status
            message = got.error["message"]
            assert message.endswith(" Nothing was sent."), message
            assert message.count("Nothing was sent") == 1
            # Only a request that begins a call has an id.
            assert got.error["imgkit"]["call_id"] == got.headers.get("x-imgkit-call-id")
        assert api.posts == 0


@pytest.mark.parametrize(
    ("error", "param"),
    [
        (errors.ConfigurationError("No.", field="allow_unknown"), None),
        (errors.NotSentError("No.", field="ca"), None),
        (errors.DownloadError("No.", field="max_download_bytes"), None),
        (errors.ConfigurationError("No.", field="model"), "model"),
        (errors.InvalidRequestError({"n": "Must be 1."}), "n"),
    ],
)
def test_names_only_parameters_that_a_caller_can_set(error: ImgkitError, param: str | None) -> None:
    """Gives null for an argument of Python, which the error is about."""
    assert describe(error)["param"] == param


def test_says_once_that_a_request_may_be_billed(tmp_path: Path) -> None:
    """Leaves it out of the advice if the problem says it; the advice alone is complete."""
    advice = "It may have been billed: do not send it again before you have asked the provider."
    with serve_before(tmp_path, reply(504, b"")) as (server, api):
        got = send(server, GENERATIONS, FOX)
        assert (got.status, api.posts) == (424, 1)
        assert send(server, "/status").json["requests"][0]["error"] == got.error["message"]
    assert got.error["message"].endswith(" Do not send it again before you have asked the provider.")
    assert got.error["message"].count("billed") == 1
    assert got.error["imgkit"]["advice"] == advice
    assert describe(errors.OutcomeUnknownError("A job may run."))["message"] == f"A job may run. {advice}"
    found = describe(errors.EmptyResultError("No images. The call may have been billed."))
    assert found["message"] == "No images. The call may have been billed. Do not send it again."
