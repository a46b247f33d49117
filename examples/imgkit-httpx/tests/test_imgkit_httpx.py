"""Tests of both backends: imgkit's contract, and their registered names."""

import pytest
from imgkit_httpx import AsyncHttpxBackend, HttpxBackend

import imgkit
from imgkit.testing import BackendContract, WireServer, answer, cassette, png, reply


class TestHttpx(BackendContract):
    test_refuses_private_peers = None  # httpx chooses the address by itself

    def backend(self, options):
        return HttpxBackend(options)


class TestAsyncHttpx(BackendContract):
    test_refuses_private_peers = None

    def backend(self, options):
        return AsyncHttpxBackend(options)


@pytest.mark.parametrize("name", ["httpx", "httpx-async"])
def test_by_name(name):
    """Finds an installed backend by name, through the entry point."""
    with (
        WireServer(reply(200, answer(png(1)))) as server,
        imgkit.ImageService(name, base_url=server.base_url) as service,
    ):
        response = service.create_image("a fox")
    assert response[0].data == png(1)
    assert response.meta.backend == name


@pytest.mark.parametrize("name", ["httpx", "httpx-async"])
def test_cassette(name, tmp_path):
    """Replays a cassette that requests has recorded, and sends nothing."""
    with WireServer(reply(200, answer(png(1)))) as server:
        for backend, mode in (("requests", "once"), (name, "none")):
            with (
                cassette(tmp_path / "fox.yaml", record_mode=mode),
                imgkit.ImageService(backend, base_url=server.base_url) as service,
            ):
                assert service.create_image("a fox")[0].data == png(1)
        assert server.posts == 1
