"""Tests of the stickers: the app speaks HTTP to a server of imgkit in this process."""

import PIL.Image
import pytest
from stickers import StickerLost, Stickers


@pytest.fixture
def stickers(imgkit_server):
    """Return the app, in front of the server of this test."""
    app = Stickers(base_url=imgkit_server.base_url, api_key="any")
    yield app
    app.close()


def test_a_sticker_is_a_file(stickers, imgkit_server, tmp_path):
    """Saves an image, painted offline, and asks once with the words of the app."""
    path = stickers.make("a fox", tmp_path / "fox.png")
    with PIL.Image.open(path) as image:
        assert image.size == (1024, 1024)
    (request,) = imgkit_server.requests
    assert (request.operation, request.model) == ("create_image", "gpt-image-2")
    assert (request.prompt, request.state) == ("a sticker of a fox, white border", "done")


def test_a_sticker_gets_clothes(stickers, imgkit_server, tmp_path):
    """Sends the sticker in a form, as the SDK does, and saves the edited image."""
    fox = stickers.make("a fox", tmp_path / "fox.png")
    dressed = stickers.dress(fox, "a blue hat", tmp_path / "hat.png")
    assert dressed.read_bytes() != fox.read_bytes()
    assert [request.operation for request in imgkit_server.requests] == ["create_image", "create_image_edit"]


def test_partial_images_arrive_first(stickers):
    """Streams two partial images, then the whole one."""
    assert list(stickers.watch("a fox")) == ["partial_image", "partial_image", "completed"]


class TestBrokenConnection:
    """The connection to the API breaks after the request was sent."""

    @pytest.fixture
    def imgkit_settings(self):
        return {"client_options": {"simulate": "connection_cut"}}

    def test_a_lost_sticker_is_not_paid_twice(self, stickers, imgkit_server, tmp_path):
        """Asks once, although the SDK repeats failures, and raises the error of the app."""
        with pytest.raises(StickerLost):
            stickers.make("a fox", tmp_path / "fox.png")
        assert [request.state for request in imgkit_server.requests] == ["unknown"]
        assert list(tmp_path.iterdir()) == []


@pytest.mark.imgkit_cassette
def test_a_sticker_from_the_api(stickers, tmp_path):
    """Replays the reply of the API through the server; `pytest --imgkit-record=rewrite` records it."""
    path = stickers.make("a fox", tmp_path / "fox.png")
    with PIL.Image.open(path) as image:
        assert image.size == (1024, 1024)
