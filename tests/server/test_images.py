"""Images from a server: operations, streams, result URLs, and the errors that clients get."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from imgkit.images.sniff import sniff
from imgkit.server.settings import parse_routes
from tests.support.pictures import answer, noise, picture
from tests.support.served import EDITS, GENERATIONS, SETTINGS, form, send, serve_before, serve_offline
from tests.support.wire_server import drop, reply

FOX = {"prompt": "a red fox", "size": "64x64"}


def test_paints_offline_without_any_setting(tmp_path: Path) -> None:
    """Paints without a key; the reply has OpenAI's form."""
    with serve_offline(tmp_path) as server:
        got = send(server, GENERATIONS, {**FOX, "n": 2})
    assert got.status == 200
    assert set(got.json) >= {"created", "data", "usage"}
    images = [base64.b64decode(entry["b64_json"]) for entry in got.json["data"]]
    assert [image[:4] for image in images] == [b"\x89PNG", b"\x89PNG"]
    assert got.headers["x-imgkit-cost-usd"] == "0"


def test_edits_with_a_mask_and_several_images(tmp_path: Path) -> None:
    """Sends each image and the mask of a form to the API, and no name that the caller gave them."""
    with serve_before(tmp_path, reply(200, answer())) as (server, api):
        one, two = noise(1), noise(2)
        mask = picture(size=(48, 48), mode="RGBA", color="#00000000")
        body, kind = form(image=[one, two], mask=mask, prompt="a blue hat", n="1", model="gpt-image-2")
        got = send(server, EDITS, body, content_type=kind)
        assert got.status == 200, got.body[:500]
        sent = api.lines[0].body
    assert all(data in sent for data in (one, two, mask))
    assert b"../.." not in sent
    assert b"sk-upstream" not in got.body


def test_takes_images_of_json_edits(tmp_path: Path) -> None:
    """Decodes data: URLs of a JSON edit, large and small."""
    large = noise(3, 300)
    url = "data:image/png;base64," + base64.b64encode(large).decode()
    with serve_before(tmp_path, reply(200, answer())) as (server, api):
        got = send(server, EDITS, {"prompt": "a hat", "images": [{"image_url": url}], "n": 1})
        assert got.status == 200, got.body[:500]
        assert large in api.lines[0].body


def test_never_opens_a_path_of_a_caller(tmp_path: Path) -> None:
    """Refuses a text that could be a path of the server's disk, in every place of an image."""
    file = tmp_path / "secret.png"
    file.write_bytes(picture())
    with serve_offline(tmp_path / "state") as server:
        for image in (str(file), f"file://{file}", {"image_url": str(file)}, {"file_id": 3}):
            got = send(server, EDITS, {"prompt": "a hat", "images": [image]})
            assert (got.status, got.error["param"]) == (400, "images.0"), got.body
        got = send(server, EDITS, {"prompt": "a hat", "images": [], "image": []})
        assert (got.status, got.error["param"]) == (400, "image")
        body, kind = form(image=str(file), prompt="a hat")
        assert send(server, EDITS, body, content_type=kind).status == 400


def test_streams_partial_images(tmp_path: Path) -> None:
    """Sends partial images, then the completed image, as events of OpenAI."""
    with serve_offline(tmp_path) as server:
        got = send(server, GENERATIONS, {**FOX, "stream": True, "partial_images": 2})
    assert got.headers["content-type"] == "text/event-stream"
    events = [json.loads(line[6:]) for line in got.body.decode().splitlines() if line.startswith("data: ")]
    assert [event["type"] for event in events] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert [event.get("partial_image_index") for event in events] == [0, 1, None]
    assert all(sniff(base64.b64decode(event["b64_json"])) for event in events)


def test_serves_result_urls_for_a_while(tmp_path: Path) -> None:
    """Gives URLs of its own in place of images; a name that it has not made is not found."""
    with serve_offline(tmp_path) as server:
        url = send(server, GENERATIONS, {**FOX, "response_format": "url"}).json["data"][0]["url"]
        assert url.startswith(f"{server.address}/files/")
        got = send(server, url.removeprefix(server.address))
        assert got.headers["content-type"] == "image/png"
        assert sniff(got.body) is not None
        asked = {**FOX, "response_format": "url"}
        secure = send(server, GENERATIONS, asked, x_forwarded_proto="https").json["data"][0]["url"]
        assert secure.startswith(f"{server.address.replace('http:', 'https:')}/files/")
        for path in ("/files/../lock", "/files/..%2f..%2fetc%2fpasswd", "/files/" + "0" * 32 + ".png"):
            assert send(server, path).status == 404


def test_answers_a_model_in_the_form_that_its_callers_expect(tmp_path: Path) -> None:
    """Sends URLs for the models that OpenAI answers so, unless a request asks for base64."""
    with serve_offline(tmp_path) as server:
        for model, given, expected in (
            ("dall-e-3", None, "url"),
            ("dall-e-3", "b64_json", "b64_json"),
            ("gpt-image-2", None, "b64_json"),
            ("gpt-image-2", "url", "url"),
        ):
            body = {"prompt": "a fox", "size": "1024x1024", "model": model, "response_format": given}
            got = send(server, GENERATIONS, body)
            assert got.status == 200, got.body
            assert expected in got.json["data"][0]


def test_gives_each_name_the_model_of_its_route(tmp_path: Path) -> None:
    """Answers a model name with a model of another provider, and lists the name."""
    routes = parse_routes(["gpt-image-2=bfl:flux-2-pro", "small=gpt-image-1-mini", "*=gpt-image-1"])
    with serve_offline(tmp_path, SETTINGS._replace(routes=routes)) as server:
        got = send(server, GENERATIONS, {**FOX, "model": "gpt-image-2"})
        assert got.status == 200, got.body
        listed = [model["id"] for model in send(server, "/v1/models").json["data"]]
        shown = send(server, "/status").json["requests"][0]
    assert {"gpt-image-2", "small"} <= set(listed)
    assert "*" not in listed
    assert (shown["provider"], shown["model"]) == ("bfl", "gpt-image-2")


LOST = {"created": 1, "data": [{"url": "https://127.0.0.1:9/fox.png"}]}


@pytest.mark.parametrize(
    ("script", "status", "code", "name"),
    [
        pytest.param(drop, 424, "outcome_unknown", "OutcomeUnknownError", id="dropped"),
        pytest.param(reply(200, {"data": []}), 424, "image_unavailable", "EmptyResultError", id="empty"),
        pytest.param(reply(200, b"{"), 424, "image_unavailable", "UnreadableReplyError", id="cut"),
        pytest.param(reply(504, b"gateway"), 424, "outcome_unknown", "OutcomeUnknownError", id="gateway"),
        pytest.param(reply(200, LOST), 424, "image_unavailable", "SaveError", id="image-gone"),
    ],
)
def test_answers_an_outcome_that_may_be_billed_so_that_nobody_repeats_it(
    tmp_path: Path, script: object, status: int, code: str, name: str
) -> None:
    """Answers with 424 and `x-should-retry: false`, and says that it may be billed."""
    with serve_before(tmp_path, script) as (server, api):  # type: ignore[arg-type]
        got = send(server, GENERATIONS, FOX)
        assert api.posts == 1
    assert (got.status, got.headers["x-should-retry"]) == (status, "false")
    assert got.error["code"] == code
    assert (got.error["imgkit"]["class"], got.error["imgkit"]["maybe_billed"]) == (name, True)
    assert "retry-after" not in got.headers


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "invalid_value", 400),
        (401, "invalid_api_key", 401),
        (404, "model_not_found", 404),
        (429, "slow", 429),
    ],
)
def test_passes_the_errors_of_the_api_on(tmp_path: Path, status: int, code: str, expected: int) -> None:
    """Keeps the status, the code and the words of an API's error, and never its key."""
    error = {"error": {"message": "The size is wrong.", "type": "some_error", "param": "size", "code": code}}
    with serve_before(tmp_path, reply(status, error)) as (server, _):
        got = send(server, GENERATIONS, FOX)
    assert (got.status, got.error["code"], got.error["imgkit"]["maybe_billed"]) == (expected, code, False)
    assert b"sk-upstream" not in got.body


def test_refuses_wrong_parameters_without_a_call(tmp_path: Path) -> None:
    """Names the parameter that is wrong; nothing is sent."""
    wrong: list[tuple[dict[str, object], str]] = [
        ({"prompt": ""}, "prompt"),
        ({}, "prompt"),
        ({**FOX, "n": "many"}, "n"),
        ({**FOX, "stream": "yes"}, "stream"),
        ({**FOX, "partial_images": 2}, "partial_images"),
        ({**FOX, "stream": True, "partial_images": 7}, "partial_images"),
        ({**FOX, "response_format": "svg"}, "response_format"),
        ({**FOX, "extra_headers": {"authorization": "x"}}, "extra_headers"),
        ({**FOX, "model": 3}, "model"),
    ]
    with serve_before(tmp_path) as (server, api):
        for body, param in wrong:
            got = send(server, GENERATIONS, body)
            assert (got.status, got.error["param"]) == (400, param), (body, got.body)
            assert got.headers["x-should-retry"] == "false"
        assert api.posts == 0
