"""Both backends under imgkit's contract, and by their names."""

import pytest
from imgkit_httpx import AsyncHttpxBackend, HttpxBackend

import imgkit
from imgkit.testing import BackendContract, WireServer
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import reply

CAPABILITIES = frozenset({"unsent", "connect timeout", "reuse", "proxy"})


class TestHttpx(BackendContract):
    capabilities = CAPABILITIES
    test_an_early_refusal = None  # httpx reads no answer while it is sending

    def backend(self, options):
        return HttpxBackend(options)


class TestAsyncHttpx(BackendContract):
    capabilities = CAPABILITIES
    test_an_early_refusal = None

    def backend(self, options):
        return AsyncHttpxBackend(options)


@pytest.mark.parametrize("name", ["httpx", "httpx-async"])
def test_by_name(name):
    """Installed is enough: the entry point says what there is."""
    with (
        WireServer(reply(200, answer(png(1)))) as server,
        imgkit.ImageService(name, base_url=server.base_url) as service,
    ):
        made = service.create_image("a fox")
    assert made[0].data == png(1)
    assert made.meta.backend == name
