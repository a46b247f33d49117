"""Success replies that are not what was asked for: the error or the warning says what came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import imgkit
from tests.support.pictures import answer, picture
from tests.support.wire_server import WireServer, reply

KEY = "sk-proj-CANARY1234567890abcdef"

CASES: dict[str, tuple[bytes, str | None, str]] = {
    "page": (
        b"<!DOCTYPE html><html><title>Log in</title><body>Welcome &amp; log in</body></html>",
        "text/html; charset=utf-8",
        "bytes of text/html content, request id req_test). The web page begins: Log in Welcome & log in. ",
    ),
    "text": (
        b"upstream says hello",
        "text/plain",
        "text/plain content, request id req_test). The reply begins: ",
    ),
    "nothing": (b" ", None, "The reply is empty. "),
    "image": (picture(), "image/png", "). The reply is itself a png image. "),
    "binary": (b"\0\1\2\3" * 9, "application/zip", "The reply begins with the bytes 00 01 02 03 00"),
    "bad base64": (b'{"data": [{"b64_json": "****"}]}', "application/json", 'begins: {"data": [{"b64_json'),
    "key": (b"the key is " + KEY.encode(), "text/plain", "The reply begins: the key is …. "),
}


@pytest.mark.parametrize("case", CASES)
def test_unreadable_replies_are_quoted(flavor: Any, http_backend: str, case: str) -> None:
    """Names the content type and quotes the start of a 200 reply without a readable image."""
    body, content_type, said = CASES[case]
    headers = {} if content_type is None else {"content_type": content_type}
    with (
        WireServer(reply(200, body, **headers)) as server,
        pytest.raises(imgkit.UnreadableReplyError) as caught,
    ):
        flavor.run(
            lambda images: images.create_image("a fox"), http_backend, base_url=server.base_url, api_key=KEY
        )
    assert said in str(caught.value)
    assert "CANARY" not in str(caught.value)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize("output_format", ["webp", "png", None])
@pytest.mark.parametrize("saves", [False, True])
def test_another_format_is_told(flavor: Any, output_format: str | None, saves: bool, tmp_path: Path) -> None:
    """Warns if the images have another format than was requested."""
    options = {"output_format": output_format, "save_to": tmp_path if saves else None}
    with WireServer(reply(200, answer())) as server:
        made = flavor.run(
            lambda images: images.create_image("a fox", **options), "requests", base_url=server.base_url
        )
    expected = ("webp was requested, but png arrived. Saved files get the extension of their content.",)
    assert made.warnings == (expected if output_format == "webp" else ())
