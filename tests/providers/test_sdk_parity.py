"""Requests of imgkit and the official SDK (openai 3.54.0) have the same meaning for a server."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes
from functools import cache
from typing import Any

import openai
import pytest

import imgkit
from tests.support.pictures import answer, picture
from tests.support.wire_server import Line, WireServer, reply

KEY = "sk-test-CANARY-1234567890abcdef"
ACCOUNT = {"api_key": KEY, "organization": "org-a", "project": "proj-b"}
METHODS = {
    "create_image": "generate",
    "create_image_edit": "edit",
    "create_image_variation": "create_variation",
}

MAY_DIFFER = {
    "headers of the SDK": {"x-stainless-": "telemetry of the SDK; any header with this prefix"},
    "headers of both": {
        "user-agent": "each its own name",
        "accept-encoding": "imgkit asks for no compression: pictures do not shrink",
        "connection": "imgkit closes the connection of a paid request",
        "content-length": "follows from the body",
        "host": "the port of the server",
    },
    "forms": {
        "boundary": "random in the SDK, made of the content in imgkit",
        "order of parts": "only that of parts of the same name means something",
        "file names": "imgkit never sends a caller's own; the SDK calls plain bytes 'upload'",
        "media types of parts": "sniffed from the bytes by imgkit, guessed from the name by the SDK",
    },
    "JSON": {"order of members": "sorted by imgkit, so that recorded bodies compare as bytes"},
    "arguments": {
        "None": "left out by imgkit; a null in JSON, and nothing in a form, from the SDK",
        "a list of one picture": "`image` from imgkit, as for the picture alone; `image[]` from the SDK",
        "an empty text before others in a list": "lost by the SDK (`if not existing`), sent by imgkit",
    },
}
"""All that may differ. What is not in this table is compared."""


@dataclass
class ReceivedRequest:
    """A request as the server parses it."""

    request_line: str
    headers: dict[str, str]
    media_type: str
    members: str = ""
    parts: dict[str, list[str | bytes]] = field(default_factory=dict)
    media_types: list[str] = field(default_factory=list)
    file_names: list[str] = field(default_factory=list)


def receive_request(line: Line) -> ReceivedRequest:
    """Read a request: JSON into canonical text, a form with the standard library's parser of e-mail."""
    content_type = line.headers["content-type"]
    ignored = MAY_DIFFER["headers of both"]
    prefixes = tuple(MAY_DIFFER["headers of the SDK"])
    headers = {
        name: value
        for name, value in line.headers.items()
        if name not in ignored and name != "content-type" and not name.startswith(prefixes)
    }
    found = ReceivedRequest(line.request_line, headers, content_type.partition(";")[0])
    assert int(line.headers["content-length"]) == len(line.body)
    if found.media_type == "application/json":
        found.members = json.dumps(json.loads(line.body), sort_keys=True)  # 1, 1.0 and true stay apart
        return found
    form = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + line.body)
    assert form.is_multipart()
    assert not form.defects
    for part in form.get_payload():
        assert not isinstance(part, str)
        assert part.get_content_disposition() == "form-data"
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        assert isinstance(name, str)
        assert isinstance(content, bytes)
        if part.get_filename() is None:
            found.parts.setdefault(name, []).append(content.decode())
        else:
            found.parts.setdefault(name, []).append(content)
            found.media_types.append(part.get_content_type())
            found.file_names.append(str(part.get_filename()))
    return found


def sent_by_sdk(
    operation: str, arguments: dict[str, Any], path: str = "/v1", **account: Any
) -> ReceivedRequest:
    with WireServer(reply(200, answer())) as server:
        settings = {"base_url": server.origin + path, "max_retries": 0, **(account or ACCOUNT)}
        with openai.OpenAI(**settings) as client, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of create_variation
            response = getattr(client.images, METHODS[operation])(**arguments)
        assert response.data[0].b64_json
    (line,) = server.lines
    return receive_request(line)


def sent_by_imgkit(
    flavor: Any, backend: str, operation: str, arguments: dict[str, Any], path: str = "/v1", **account: Any
) -> ReceivedRequest:
    with WireServer(reply(200, answer())) as server:
        settings = {"base_url": server.origin + path, **(account or ACCOUNT)}
        got = flavor.run(lambda service: getattr(service, operation)(**arguments), backend, **settings)
        assert got[0].data == picture()
    (line,) = server.lines
    return receive_request(line)


def assert_equal_requests(ours: ReceivedRequest, sdk: ReceivedRequest) -> None:
    """Compare all that is not in the table of differences."""
    assert ours.request_line == sdk.request_line
    assert ours.headers == sdk.headers
    assert ours.media_type == sdk.media_type
    assert ours.members == sdk.members
    assert ours.parts == sdk.parts


RED = picture()
BLUE = picture(color="blue")
JPEG = picture("JPEG")
CLEAR = picture(mode="RGBA", color="#0000")
SVG = {"model": "author-1", "reasoning": {"effort": "low"}}
DRAWING = {
    "model": "gpt-image-2.5-sunburst", "n": 2, "size": "1536x1024", "quality": "high", "background": "opaque",
    "output_format": "svg", "output_compression": 0, "response_format": "b64_json", "complexity": "medium",
    "frame_count": 9, "frame_duration_ms": 200, "svg": SVG, "safety_identifier": "user-1", "user": "u",
}  # fmt: skip
BEYOND = {
    "text": 'say "hi"\r\nand ö 🦊', "empty": "", "yes": True, "no": False, "whole": 7, "big": 10**20,
    "half": 0.5, "small": 1e-7, "float": 2.0, "nothing": None,
    "dict": {"a": 1, "b": {"c": True, "d": None}, "e": [1, "x"]}, "list": ["a", 2, 2.5, True, False, "a"],
    "rows": [{"k": 1}, {"k": 2, "l": [False]}], "no_dict": {}, "no_list": [], "one": ["x"],
    'odd "name"': "q", "a[b]": "brackets", "größe": "ä",
}  # fmt: skip
EDIT = {"image": RED, "prompt": "make it blue"}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "create, few": ("create_image", {"prompt": "a fox"}),
    "create, odd text": ("create_image", {"prompt": 'ein "Fuchs" \\ ö 🦊\r\n\t'}),
    "create, all": (
        "create_image", {"prompt": "a fox", **DRAWING, "moderation": "low", "style": "vivid"}),
    "create, beyond": ("create_image", {"prompt": "a fox", "extra_body": BEYOND}),
    "create, overridden": (
        "create_image", {"prompt": "a fox", "size": "auto", "svg": SVG,
                         "extra_body": {"size": "64x64", "svg": {"model": "b"}, "model": None}}),
    "create, headers": (
        "create_image", {"prompt": "a fox",
                         "extra_headers": {"X-Trace": "1", "OpenAI-Organization": "org-c"}}),
    "edit, few": ("create_image_edit", EDIT),
    "edit, odd text": ("create_image_edit", {**EDIT, "prompt": 'ein "Fuchs" \\ ö 🦊\r\n\n--\r\n'}),
    "edit, all": ("create_image_edit", {**EDIT, **DRAWING, "mask": CLEAR, "input_fidelity": "high"}),
    "edit, markup": ("create_image_edit", {**EDIT, "markup": CLEAR}),
    "edit, several": ("create_image_edit", {**EDIT, "image": [BLUE, JPEG, RED, BLUE], "mask": CLEAR}),
    "edit, beyond": ("create_image_edit", {**EDIT, "extra_body": BEYOND}),
    "edit, overridden": (
        "create_image_edit", {**EDIT, "size": "auto", "svg": SVG, "extra_body": {
            "size": "64x64", "svg": {"model": "b"}, "quality": None}, "quality": "low"}),
    "edit, lists in lists": (
        "create_image_edit", {**EDIT, "extra_body": {"grid": [[1, 2], [True, [None, 4.5]], [{"k": [3]}]]}}),
    "variation, few": ("create_image_variation", {"image": RED}),
    "variation, all": (
        "create_image_variation", {"image": JPEG, "model": "m", "n": 10, "size": "256x256",
                                   "response_format": "url", "user": "u", "extra_body": BEYOND}),
}  # fmt: skip


@cache
def by_sdk(case: str) -> ReceivedRequest:
    operation, arguments = CASES[case]
    return sent_by_sdk(operation, arguments)


@pytest.mark.parametrize("case", CASES)
def test_same_meaning(flavor: Any, http_backend: str, case: str) -> None:
    """Sends a request with the same meaning as the SDK's request."""
    operation, arguments = CASES[case]
    ours, sdk = sent_by_imgkit(flavor, http_backend, operation, arguments), by_sdk(case)
    assert_equal_requests(ours, sdk)
    assert ours.headers["authorization"] == f"Bearer {KEY}"


def test_cases_are_complete() -> None:
    """Covers each common parameter; imgkit lacks only the parameters of streams."""
    streams = {"stream", "partial_images"}
    transport = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
    own = {"self", "save_to", "timeout_s", "cache", "replica", "extra_headers", "extra_body"}
    own |= {"strategy", "variation_prompt", "prepare"}
    own |= {"aspect_ratio", "resolution", "seed", "negative_prompt", "model_options"}  # of other APIs
    for operation, method in METHODS.items():
        theirs = set(inspect.signature(getattr(openai.resources.Images, method)).parameters) - transport
        ours = set(inspect.signature(getattr(imgkit.ImageService, operation)).parameters) - own
        tried = {name for kind, given in CASES.values() if kind == operation for name in given}
        assert ours == theirs - streams
        assert ours <= tried


def test_files_are_the_callers_bytes(flavor: Any, http_backend: str) -> None:
    """Sends each image under its field name with its own bytes, sniffed type and a neutral name."""
    for case, fields in {
        "edit, several": {"image[]": [BLUE, JPEG, RED, BLUE], "mask": [CLEAR]},
        "edit, markup": {"image": [RED], "markup": [CLEAR]},
        "variation, all": {"image": [JPEG]},
    }.items():
        ours = sent_by_imgkit(flavor, http_backend, *CASES[case])
        pictures = [one for parts in fields.values() for one in parts]
        assert {name: parts for name, parts in ours.parts.items() if isinstance(parts[0], bytes)} == fields
        assert ours.media_types == ["image/jpeg" if one == JPEG else "image/png" for one in pictures]
        assert all(
            name.split(".")[0].split("-")[0] in ("image", "mask", "markup") for name in ours.file_names
        )


@pytest.mark.parametrize("operation", METHODS)
@pytest.mark.parametrize("path", ["/v1", "/v1/", "", "/", "/a/b%20c/v1", "/a/b%20c/v1/"])
def test_same_path(flavor: Any, http_backend: str, operation: str, path: str) -> None:
    """Sends to the SDK's path for any base URL, with or without a trailing slash."""
    by_operation: dict[str, dict[str, Any]] = {"create_image": {"prompt": "a"}, "create_image_edit": EDIT}
    arguments = by_operation.get(operation, {"image": RED})
    ours = sent_by_imgkit(flavor, http_backend, operation, arguments, path)
    assert_equal_requests(ours, sent_by_sdk(operation, arguments, path))
    assert " /" in ours.request_line
    assert "//" not in ours.request_line.partition(" HTTP/")[0]


ACCOUNTS: dict[str, dict[str, Any]] = {
    "key": {"api_key": KEY},
    "organization": {"api_key": KEY, "organization": "org-a"},
    "project": {"api_key": KEY, "project": "proj-b"},
    "callable key": {"api_key": lambda: KEY},
}


@pytest.mark.parametrize("account", ACCOUNTS)
def test_same_account(flavor: Any, http_backend: str, account: str) -> None:
    """Sends key, organization and project in the SDK's headers, or no header."""
    ours = sent_by_imgkit(flavor, http_backend, *CASES["edit, few"], **ACCOUNTS[account])
    assert_equal_requests(ours, sent_by_sdk(*CASES["edit, few"], **ACCOUNTS[account]))
    assert ours.headers["authorization"] == f"Bearer {KEY}"
    assert ("openai-organization" in ours.headers) == (account == "organization")
    assert ("openai-project" in ours.headers) == (account == "project")


def test_same_account_of_the_environment(
    flavor: Any, http_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads key, organization and project from the SDK's variables."""
    for name, value in (("API_KEY", KEY), ("ORG_ID", "org-e"), ("PROJECT_ID", "proj-e")):
        monkeypatch.setenv(f"OPENAI_{name}", value)
    nothing: dict[str, Any] = {"api_key": None}
    ours = sent_by_imgkit(flavor, http_backend, *CASES["create, few"], **nothing)
    assert_equal_requests(ours, sent_by_sdk(*CASES["create, few"], **nothing))
    assert ours.headers["openai-organization"] == "org-e"
    assert ours.headers["openai-project"] == "proj-e"


def test_omitted_header(flavor: Any, http_backend: str) -> None:
    """Omits a header of None, like omit in the SDK."""
    taken: Callable[[Any], dict[str, Any]] = lambda nothing: {  # noqa: E731 - two of a kind
        "prompt": "a fox",
        "extra_headers": {"OpenAI-Organization": nothing},
    }
    ours = sent_by_imgkit(flavor, http_backend, "create_image", taken(None))
    assert_equal_requests(ours, sent_by_sdk("create_image", taken(openai.Omit())))
    assert "openai-organization" not in ours.headers


def test_allowed_differences_of_arguments(flavor: Any, http_backend: str) -> None:
    """Confirms that the three listed differences still exist."""

    def both(operation: str, **arguments: Any) -> tuple[ReceivedRequest, ReceivedRequest]:
        return (
            sent_by_imgkit(flavor, http_backend, operation, arguments),
            sent_by_sdk(operation, arguments),
        )

    ours, sdk = both("create_image", prompt="a", n=None)
    assert (ours.members, sdk.members) == ('{"prompt": "a"}', '{"n": null, "prompt": "a"}')
    assert_equal_requests(*both("create_image_edit", **EDIT, n=None))
    ours, sdk = both("create_image_edit", image=[RED], prompt="a")
    assert (ours.parts, sdk.parts) == (
        {"prompt": ["a"], "image": [RED]},
        {"prompt": ["a"], "image[]": [RED]},
    )
    ours, sdk = both("create_image_edit", image=RED, prompt="a", extra_body={"list": ["", "b"]})
    assert (ours.parts["list[]"], sdk.parts["list[]"]) == (["", "b"], ["b"])
