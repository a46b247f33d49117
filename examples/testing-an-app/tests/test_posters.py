"""Posters: painted offline where any picture will do, from cassettes where the service's answers matter."""

import asyncio

import PIL.Image
import pytest
from posters import Event, PosterRefused, make, make_all
from record import BASE_URL

FAIR = Event("book fair", "Oslo")


@pytest.fixture
def imgkit_settings(request):
    """Tests with a cassette are for the server that they were recorded from; the others stay offline."""
    return {"base_url": BASE_URL} if request.node.get_closest_marker("imgkit_cassette") else {}


def test_a_poster_is_a_file(image_service, tmp_path):
    """Painted offline: no cassette, no key, and a real picture."""
    poster = make(image_service, FAIR, tmp_path)
    assert poster.path.name == "book-fair-oslo.png"
    with PIL.Image.open(poster.path) as picture:
        assert picture.size == (256, 256)


@pytest.mark.imgkit_cassette
def test_what_the_service_draws(image_service, tmp_path):
    assert make(image_service, FAIR, tmp_path).tries == 1


@pytest.mark.imgkit_cassette(backend="aiohttp")
def test_many_at_once(async_image_service, tmp_path):
    """Each gets its own picture, in whatever order they are answered."""
    events = [FAIR, Event("flea market", "Bergen"), Event("jazz night", "Tromso")]

    async def main():
        async with async_image_service as images:
            return await make_all(images, events, tmp_path)

    posters = asyncio.run(main())
    assert [poster.path.name.partition("-")[0] for poster in posters] == ["book", "flea", "jazz"]
    assert len({poster.path.read_bytes() for poster in posters}) == 3


@pytest.mark.imgkit_cassette
def test_a_busy_service_is_asked_again(image_service, tmp_path):
    """A 429, then the picture. On replay nobody waits."""
    assert make(image_service, Event("rush hour", "Oslo"), tmp_path).tries == 2


@pytest.mark.imgkit_cassette
def test_a_refusal_is_told_in_the_words_of_the_app(image_service, tmp_path):
    with pytest.raises(PosterRefused, match="sword fight: violence"):
        make(image_service, Event("sword fight", "Oslo"), tmp_path)
    assert list(tmp_path.iterdir()) == []
