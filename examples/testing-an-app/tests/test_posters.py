"""Tests of the posters: offline images where any image will do, cassettes where the API's replies matter."""

import asyncio

import PIL.Image
import pytest
from posters import Event, PosterRefused, make_poster, make_posters
from record import BASE_URL

FAIR = Event("book fair", "Oslo")


@pytest.fixture
def imgkit_settings(request):
    """Point tests with a cassette at the recorded server; all other tests stay offline."""
    return {"base_url": BASE_URL} if request.node.get_closest_marker("imgkit_cassette") else {}


def test_a_poster_is_a_file(image_service, tmp_path):
    """Writes an image file, painted offline without a cassette or a key."""
    poster = make_poster(image_service, FAIR, tmp_path)
    assert poster.path.name == "book-fair-oslo.png"
    with PIL.Image.open(poster.path) as image:
        assert image.size == (256, 256)


@pytest.mark.imgkit_cassette
def test_a_poster_from_the_api(image_service, tmp_path):
    """Replays the reply of the API on the first attempt."""
    assert make_poster(image_service, FAIR, tmp_path).attempts == 1


@pytest.mark.imgkit_cassette(backend="aiohttp")
def test_many_at_once(async_image_service, tmp_path):
    """Gives each event its own image, in any order of replies."""
    events = [FAIR, Event("flea market", "Bergen"), Event("jazz night", "Tromso")]

    async def main():
        async with async_image_service as images:
            return await make_posters(images, events, tmp_path)

    posters = asyncio.run(main())
    assert [poster.path.name.partition("-")[0] for poster in posters] == ["book", "flea", "jazz"]
    assert len({poster.path.read_bytes() for poster in posters}) == 3


@pytest.mark.imgkit_cassette
def test_a_busy_api_is_retried(image_service, tmp_path):
    """Retries a 429, without waiting on replay."""
    assert make_poster(image_service, Event("rush hour", "Oslo"), tmp_path).attempts == 2


@pytest.mark.imgkit_cassette
def test_a_refusal_raises_the_error_of_the_app(image_service, tmp_path):
    """Turns a refusal of the API into the error of the app, and writes no file."""
    with pytest.raises(PosterRefused, match="sword fight: violence"):
        make_poster(image_service, Event("sword fight", "Oslo"), tmp_path)
    assert list(tmp_path.iterdir()) == []
