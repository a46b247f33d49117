"""Fixtures: the offline backend answers from cassettes, as the server did, without vcrpy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply
from tests.testing.test_vcr_config import CALLS, outcome, play, script

OURS = Path(__file__).parents[1] / "cassettes"


def offline(path: Path, names: Any, **knobs: Any) -> list[Any]:
    with imgkit.ImageService(client_options={"fixtures": path, **knobs}, retry=False) as service:
        return [outcome(service, name) for name in names]


@pytest.mark.parametrize("recorder", ["requests", "aiohttp"])
def test_the_same_answers(recorder: str, tmp_path: Path) -> None:
    """Pictures in JSON, in URLs, edits of megabytes, and errors; in another order than recorded."""
    path = tmp_path / "c.yaml"
    with WireServer(script) as server:
        recorded = dict(zip(CALLS, play(path, recorder, server.base_url, CALLS, "all"), strict=True))
    names = list(reversed(CALLS))
    assert offline(path, names) == [recorded[name] for name in names]
    assert offline(tmp_path, ["edit"]) == [recorded["edit"]]


def test_under_the_asynchronous_service(flavor: Any, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with WireServer(script) as server:
        play(path, "requests", server.base_url, ["create"], "all")
    made = flavor.run(lambda service: service.create_image("a fox"), client_options={"fixtures": str(path)})
    assert made.meta.backend == "offline"
    assert made[0].width == 8


def test_without_vcrpy(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with WireServer(script) as server:
        play(path, "requests", server.base_url, ["create"], "all")
    program = (
        "import sys; sys.modules['vcr'] = None; import imgkit; "
        f"s = imgkit.ImageService(client_options={{'fixtures': {str(path)!r}}}); "
        "print(s.create_image('a fox')[0].width, 'requests' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert done.stdout == "8 False\n", done.stderr


def test_equal_requests_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with WireServer(*(reply(200, answer(png(number))) for number in range(3))) as server:
        play(path, "requests", server.base_url, ["create"] * 3, "all")
    assert offline(path, ["create"] * 3) == [[png(number)] for number in range(3)]
    with pytest.raises(imgkit.FixtureMissingError, match="recorded 3 times") as caught:
        offline(path, ["create"] * 4)
    assert str(path) in (caught.value.nearest or "")


def test_a_miss_names_the_nearest(tmp_path: Path) -> None:
    """And what is different; with strict=False it is painted."""
    path = tmp_path / "c.yaml"
    with WireServer(script) as server:
        play(path, "requests", server.base_url, ["create", "edit"], "all")
    knobs = {"fixtures": path}
    with imgkit.ImageService(client_options=knobs) as service:
        with pytest.raises(
            imgkit.FixtureMissingError, match='prompt: "a fox" was recorded, "a wolf"'
        ) as caught:
            service.create_image("a wolf", n=1)
        assert "n: nothing was recorded, 1 is asked for" in str(caught.value)
        with pytest.raises(imgkit.FixtureMissingError, match="image"):
            service.create_image_edit(png(9), "a hat")
        with pytest.raises(
            imgkit.FixtureMissingError, match="no fixture is for POST images/variations"
        ) as caught:
            service.create_image_variation(png(9))
        assert caught.value.nearest is None
    with imgkit.ImageService(client_options={**knobs, "strict": False}) as service:
        assert service.create_image("a wolf", size="64x64")[0].width == 64
        assert service.create_image("a fox")[0].width == 8


def test_our_own_cassettes() -> None:
    with imgkit.ImageService(client_options={"fixtures": OURS}, model="offline-painter") as service:
        made = service.create_image("a red fox in the snow", size="256x256")
        assert made[0].width == 256


@pytest.mark.parametrize(
    ("content", "told"), [(None, "no fixtures"), ("x: [", "no cassette"), ("interactions: 3", "no cassette")]
)
def test_what_is_no_fixture(content: str | None, told: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(imgkit.ConfigurationError, match=told):
        imgkit.ImageService(client_options={"fixtures": path})


@pytest.mark.parametrize("knobs", [{"fixtures": 3}, {"strict": "yes"}])
def test_wrong_knobs(knobs: Any) -> None:
    with pytest.raises(imgkit.ConfigurationError, match=next(iter(knobs))):
        imgkit.ImageService(client_options=knobs)


BY_HAND = """
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


def test_a_cassette_that_is_edited_by_hand(tmp_path: Path) -> None:
    """Text may be written as text, and headers as plain values."""
    path = tmp_path / "c.yaml"
    path.write_text(BY_HAND)
    with imgkit.ImageService(client_options={"fixtures": path}) as service:
        with pytest.raises(imgkit.BadRequestError) as caught:
            service.create_image("x")
    assert caught.value.code == "c"


def test_as_arguments_of_the_service(tmp_path: Path) -> None:
    """They are for the offline backend, which is the default."""
    path = tmp_path / "c.yaml"
    path.write_text(BY_HAND)
    with imgkit.ImageService(backend="offline", fixtures=path, strict=True) as service:
        with pytest.raises(imgkit.BadRequestError):
            service.create_image("x")
        with pytest.raises(imgkit.FixtureMissingError):
            service.create_image("y")
    with imgkit.ImageService(fixtures=path, strict=False) as service:
        assert service.create_image("y", size="64x64")[0].width == 64
    for given in ({"fixtures": path}, {"strict": False}):
        with pytest.raises(imgkit.ConfigurationError, match="offline"):
            imgkit.ImageService("requests", **given)  # type: ignore[arg-type]  # keywords of several types
