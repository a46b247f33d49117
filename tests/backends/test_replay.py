"""Fixtures: the offline backend replays cassettes without vcrpy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.cassettes.matching import RequestSummary, explain_miss
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply
from tests.support.processes import run_process
from tests.testing.test_vcr_config import CALLS, make_call, play, send_private_data

CASSETTES = Path(__file__).parents[1] / "cassettes"


def replay_calls(path: Path, names: Any, **options: Any) -> list[Any]:
    """Return the outcomes of calls that the fixtures answer."""
    with imgkit.ImageService(client_options={"fixtures": path, **options}, retry=False) as service:
        return [make_call(service, name) for name in names]


@pytest.mark.parametrize("recorder", ["requests", "aiohttp"])
def test_replay_equals_the_recording(recorder: str, tmp_path: Path) -> None:
    """Replays JSON images, URLs, edits of megabytes and errors, in any order."""
    path = tmp_path / "c.yaml"
    with WireServer(send_private_data) as server:
        recorded = dict(zip(CALLS, play(path, recorder, server.base_url, CALLS, "all"), strict=True))
    names = list(reversed(CALLS))
    assert replay_calls(path, names) == [recorded[name] for name in names]
    assert replay_calls(tmp_path, ["edit"]) == [recorded["edit"]]


def test_under_the_asynchronous_service(flavor: Any, tmp_path: Path) -> None:
    """Replays under the asynchronous service."""
    path = tmp_path / "c.yaml"
    with WireServer(send_private_data) as server:
        play(path, "requests", server.base_url, ["create"], "all")
    response = flavor.run(
        lambda service: service.create_image("a fox"), client_options={"fixtures": str(path)}
    )
    assert response.meta.backend == "offline"
    assert response[0].width == 8


def test_without_vcrpy(tmp_path: Path) -> None:
    """Replays in a process without vcrpy, and imports no HTTP library."""
    path = tmp_path / "c.yaml"
    with WireServer(send_private_data) as server:
        play(path, "requests", server.base_url, ["create"], "all")
    program = (
        "import sys; sys.modules['vcr'] = None; import imgkit; "
        f"s = imgkit.ImageService(client_options={{'fixtures': {str(path)!r}}}); "
        "print(s.create_image('a fox')[0].width, 'requests' in sys.modules)"
    )
    process = run_process([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert process.stdout == "8 False\n", process.stderr


def test_equal_requests_replay_in_order(tmp_path: Path) -> None:
    """Replays equal requests in the order of their recording, each once."""
    path = tmp_path / "c.yaml"
    with WireServer(*(reply(200, answer(png(number))) for number in range(3))) as server:
        play(path, "requests", server.base_url, ["create"] * 3, "all")
    assert replay_calls(path, ["create"] * 3) == [[png(number)] for number in range(3)]
    with pytest.raises(imgkit.FixtureMissingError, match="3 recordings of POST images/generations") as caught:
        replay_calls(path, ["create"] * 4)
    assert str(path) in (caught.value.nearest or "")


def test_missing_fixture_names_the_nearest(tmp_path: Path) -> None:
    """Names the nearest recording and the differences; strict=False paints instead."""
    path = tmp_path / "c.yaml"
    with WireServer(send_private_data) as server:
        play(path, "requests", server.base_url, ["create", "edit"], "all")
    options = {"fixtures": path}
    with imgkit.ImageService(client_options=options) as service:
        with pytest.raises(
            imgkit.FixtureMissingError, match='^The cassette has no .* prompt: "a fox" was recorded, "a wolf"'
        ) as caught:
            service.create_image("a wolf", n=1)
        assert "n: nothing was recorded, 1 is requested" in str(caught.value)
        with pytest.raises(imgkit.FixtureMissingError, match="image"):
            service.create_image_edit(png(9), "a hat")
        with pytest.raises(
            imgkit.FixtureMissingError, match="The cassette has no recording of POST images/variations"
        ) as caught:
            service.create_image_variation(png(9))
        assert caught.value.nearest is None
    with imgkit.ImageService(client_options={**options, "strict": False}) as service:
        assert service.create_image("a wolf", size="64x64")[0].width == 64
        assert service.create_image("a fox")[0].width == 8


def test_names_what_cassettes_have() -> None:
    """Speaks of one cassette or of several, and of a recording that was used."""
    fox, owl = (RequestSummary("POST", "images/generations", {"prompt": word}) for word in ("fox", "owl"))
    other = RequestSummary("POST", "images/edits", {})
    assert explain_miss(fox, [(fox, "a")]) == (
        "The cassette has 1 recording of POST images/generations, already replayed"
    )
    assert explain_miss(fox, [(owl, "a"), (owl, "b")]).startswith(
        "The cassettes have no recording of this POST images/generations. The nearest, in 'a', differs: "
    )
    assert explain_miss(fox, [(other, "a")]).endswith("Available: POST images/edits")
    assert explain_miss(fox, []) == ("The cassette has no recording of POST images/generations. It is empty")


def test_repository_cassettes() -> None:
    """Replays the cassettes of the repository."""
    with imgkit.ImageService(client_options={"fixtures": CASSETTES}, model="offline-painter") as service:
        response = service.create_image("a red fox in the snow", size="256x256")
        assert response[0].width == 256


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "There is no cassette"), ("x: [", "not a cassette"), ("interactions: 3", "not a cassette")],
)
def test_unreadable_fixtures(content: str | None, problem: str, tmp_path: Path) -> None:
    """Reports a missing or invalid cassette when the service is created."""
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(imgkit.ConfigurationError, match=problem):
        imgkit.ImageService(client_options={"fixtures": path})


@pytest.mark.parametrize("options", [{"fixtures": 3}, {"strict": "yes"}])
def test_invalid_options(options: Any) -> None:
    """Reports an invalid fixture option when the service is created."""
    with pytest.raises(imgkit.ConfigurationError, match=next(iter(options))):
        imgkit.ImageService(client_options=options)


HAND_WRITTEN = """
interactions:
- request:
    method: POST
    uri: https://h/v1/images/generations
    body: '{"prompt":"x"}'
    headers: {Content-Type: application/json}
  response:
    status: {code: 400, message: Bad Request}
    headers: {Content-Type: application/json}
    body: {string: '{"error": {"message": "no", "code": "c"}}'}
"""


def test_hand_written_cassette(tmp_path: Path) -> None:
    """Accepts bodies as text and headers as plain values."""
    path = tmp_path / "c.yaml"
    path.write_text(HAND_WRITTEN)
    with imgkit.ImageService(client_options={"fixtures": path}) as service:
        with pytest.raises(imgkit.BadRequestError) as caught:
            service.create_image("x")
    assert caught.value.code == "c"


def test_fixtures_as_service_arguments(tmp_path: Path) -> None:
    """`fixtures` and `strict` work with the default backend and are rejected with others."""
    path = tmp_path / "c.yaml"
    path.write_text(HAND_WRITTEN)
    with imgkit.ImageService(backend="offline", fixtures=path, strict=True) as service:
        with pytest.raises(imgkit.BadRequestError):
            service.create_image("x")
        with pytest.raises(imgkit.FixtureMissingError):
            service.create_image("y")
    with imgkit.ImageService(fixtures=path, strict=False) as service:
        assert service.create_image("y", size="64x64")[0].width == 64
    for arguments in ({"fixtures": path}, {"strict": False}):
        with pytest.raises(imgkit.ConfigurationError, match="offline"):
            imgkit.ImageService("requests", **arguments)
