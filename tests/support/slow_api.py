"""An API that counts paid requests, and holds its replies for a time."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from imgkit.providers.bfl_fake import FakeBfl
from tests.support.pictures import noise


class PaidPost(NamedTuple):
    """A paid request that the server has counted. Its image is that of no other request.

    Attributes:
        prompt: its prompt.
        number: its number among the requests with this prompt, from 1.
        process: number of the process that has sent it.
        arrived_at: time at which the server had it.
    """

    prompt: str
    number: int
    process: int
    arrived_at: float

    @property
    def name(self) -> str:
        """The text from which its image is drawn."""
        return f"{self.prompt} #{self.number}"

    @property
    def image(self) -> bytes:
        """The bytes of its image."""
        return draw(self.name)


class SlowApi:
    """A server on loopback that speaks the dialects openai and bfl.

    Args:
        seed: of the times.
        longest_s: the longest time for which a reply is held.

    Attributes:
        origin: scheme, host and port.
        process: number of the process that sends now; the owner counts it up.
    """

    def __init__(self, seed: int, longest_s: float) -> None:
        self._random = random.Random(seed)
        self.longest_s = longest_s
        self._guard = threading.Lock()
        self._fake = FakeBfl(paint=lambda name, width, height: draw(name), polls=1)
        self._posts: list[PaidPost] = []
        self._ended: dict[str, float] = {}
        self.process = 0
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                api._answer(self, "POST", body)

            def do_GET(self) -> None:
                api._answer(self, "GET", b"")

            def log_message(self, *args: Any) -> None:
                """Keep quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Expect clients that die."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()

    def list_paid(self) -> list[PaidPost]:
        """Return the paid requests that arrived, in their order."""
        with self._guard:
            return list(self._posts)

    def list_open(self, since: float) -> list[PaidPost]:
        """Return the requests of the present process whose replies were not handed over before a time."""
        with self._guard:
            return [
                post
                for post in self._posts
                if post.process == self.process and self._ended.get(post.name, since) >= since
            ]

    def _answer(self, handler: BaseHTTPRequestHandler, method: str, body: bytes) -> None:
        post: PaidPost | None = None
        if body:
            values = json.loads(body)
            post, hold_s = self._count(str(values["prompt"]))
            time.sleep(hold_s)
            body = json.dumps({**values, "prompt": post.name}).encode()
        if post is not None and handler.path.startswith("/v1/images/"):
            reply = json.dumps({"data": [{"b64_json": base64.b64encode(post.image).decode()}]}).encode()
            status, media_type = 200, "application/json"
        else:
            headers = {name.lower(): value for name, value in handler.headers.items()}
            answer = self._fake.answer_parts(method, f"{self.origin}{handler.path}", headers, body)
            status, reply, media_type = answer.status, answer.body, answer.headers["content-type"]
        try:
            handler.send_response(status)
            handler.send_header("content-type", media_type)
            handler.send_header("content-length", str(len(reply)))
            handler.end_headers()
            handler.wfile.write(reply)
        finally:
            if post is not None:
                with self._guard:
                    self._ended[post.name] = time.monotonic()

    def _count(self, prompt: str) -> tuple[PaidPost, float]:
        with self._guard:
            number = 1 + sum(post.prompt == prompt for post in self._posts)
            post = PaidPost(prompt, number, self.process, time.monotonic())
            self._posts.append(post)
            return post, self._random.uniform(0, self.longest_s)


def draw(name: str) -> bytes:
    """Return the image of a request; no two requests have the same."""
    return noise(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16), 12)
