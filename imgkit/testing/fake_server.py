"""The fake of a provider behind a socket on loopback."""

from __future__ import annotations

from imgkit.providers.fakes import FakeApi, FakeRequest
from imgkit.testing.wire_server import Line, WireServer, head


def serve_fake(fake: FakeApi) -> WireServer:
    """Return a server that answers with a fake. Use it as a context manager.

    ::

        fake = BflProvider.fake("lost_poll")
        with serve_fake(fake) as server:
            with ImageService("requests", provider="bfl", base_url=server.base_url) as images:
                images.create_image("a red fox")
        assert fake.count["POST /v1/flux-2-pro"] == 1

    Args:
        fake: such as ``BflProvider.fake()``.
    """

    def script(line: Line) -> None:
        method, target, _ = line.request_line.split(" ")
        lines = line.head.decode("latin-1").split("\r\n")[1:]
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)
        }
        url = f"http://{headers.get('host', '127.0.0.1')}{target}"
        answer = fake.answer(FakeRequest(method, url, headers, line.body))
        if answer.status == 0:
            return
        merged = {"content-length": str(len(answer.body)), "connection": "close", **answer.headers}
        line.send(head(answer.status, merged) + answer.body)

    return WireServer(script)
