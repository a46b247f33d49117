"""A client, `imgkit serve` and an API in a row, and the count of requests on both sides of the server."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.integrations.serving.clients import MODEL, OLD_MODEL, Client, ClientCall, ClientOutcome
from tests.integrations.serving.server import Served, Tap, serve, serve_all
from tests.integrations.serving.upstream import Answer, Upstream, hold_until, paint
from tests.support.pictures import picture

TIMEOUT = "timeout of the client"
_numbers = itertools.count(1)

API = ("--backend", "aiohttp", "--provider", "openai", "--map", f"{OLD_MODEL}=openai:{MODEL}")
"""Options of a server in front of an API."""

SLOW_S = 1.0
"""A timeout of a client that passes before its reply arrives."""


class Row(NamedTuple):
    """A call and its count.

    Attributes:
        client, operation, failure: names.
        outcome: as the client has it.
        requests: POST requests of the client at the server.
        posts: POST requests of the server at the API; each that succeeds is paid.
        retry_counts: the header ``x-stainless-retry-count`` of each request.
    """

    client: str
    operation: str
    failure: str
    outcome: ClientOutcome
    requests: int
    posts: int
    retry_counts: tuple[str | None, ...]


class Stack(NamedTuple):
    """A client in front of a server in front of an API.

    Attributes:
        client, served, tap, upstream: its parts.
        files: paths of two images and of a mask.
    """

    client: Client
    served: Served
    tap: Tap
    upstream: Upstream
    files: tuple[str, str, str]

    def build_call(
        self, operation: str, *, response_format: str = "", timeout_s: float = 0, model: str = ""
    ) -> ClientCall:
        """Return a call whose prompt no other call has."""
        prompt = f"a red fox, number {next(_numbers)}"
        call = ClientCall(
            operation,
            prompt,
            model or self.client.model,
            response_format=response_format,
            timeout_s=timeout_s,
        )
        first, second, mask = self.files
        if operation == "variation":
            call = call._replace(images=(first,))
        elif operation.startswith("edit"):
            call = call._replace(images=(first, second), mask=mask)
        return call

    def send(
        self, operation: str, *, response_format: str = "", timeout_s: float = 0, model: str = ""
    ) -> ClientOutcome:
        """Make a call."""
        call = self.build_call(operation, response_format=response_format, timeout_s=timeout_s, model=model)
        return self.client.call(self.tap.base_url, call)

    def measure(self, operation: str, name: str, answer: Answer = paint) -> Row:
        """Count a call while the API answers in a way."""
        self.tap.forget()
        with self.upstream.failing(answer):
            outcome = self.send(operation)
            posts = self.upstream.posts
        return self.build_row(operation, name, outcome, posts)

    def measure_timeout(self, operation: str) -> Row:
        """Count a call whose client loses patience, and sends again while the API still paints."""
        self.tap.forget()
        released = threading.Event()
        with self.upstream.failing(hold_until(released)), ThreadPoolExecutor(1) as pool:
            call = pool.submit(self.send, operation, timeout_s=SLOW_S)
            try:
                self.tap.wait_for(2, 20)
            finally:
                released.set()
            outcome = call.result(60)
            posts = self.upstream.posts
        return self.build_row(operation, TIMEOUT, outcome, posts)

    def measure_stop(self, operation: str) -> tuple[Row, int]:
        """Count a call whose server is stopped while the API paints; return the server's exit code, too."""
        self.tap.forget()
        released = threading.Event()
        with self.upstream.failing(hold_until(released)), ThreadPoolExecutor(1) as pool:
            call = pool.submit(self.send, operation)
            try:
                self.upstream.wait_for_post()
                code = self.served.stop()
                outcome = call.result(60)
            finally:
                released.set()
            posts = self.upstream.posts
        return self.build_row(operation, "server stopped", outcome, posts), code

    def measure_direct(self, operation: str, answer: Answer) -> int:
        """Return the number of requests that the client sends to the API itself."""
        with self.upstream.failing(answer):
            self.client.call(self.upstream.base_url, self.build_call(operation))
            return self.upstream.posts

    def measure_direct_timeout(self, operation: str) -> int:
        """Return the number of requests that the client sends to an API that outlasts its patience."""
        released = threading.Event()
        with self.upstream.failing(hold_until(released)):
            self.client.call(self.upstream.base_url, self.build_call(operation, timeout_s=SLOW_S))
            released.set()
            return self.upstream.posts

    def build_row(self, operation: str, name: str, outcome: ClientOutcome, posts: int) -> Row:
        """Return the row of a call that has ended."""
        requests = self.tap.requests
        counts = tuple(request.headers.get("x-stainless-retry-count") for request in requests)
        return Row(self.client.name, operation, name, outcome, len(requests), posts, counts)


@contextmanager
def open_stacks(
    folder: Path, clients: Mapping[str, Client], *options: str, base_url: str = ""
) -> Iterator[list[Stack]]:
    """Start an API and a server for each client, for the length of the block.

    Args:
        folder: for their files.
        clients: by name.
        options: of the servers.
        base_url: of another API in place of the counting one.
    """
    with ExitStack() as stack:
        upstreams = [stack.enter_context(Upstream()) for _ in clients]
        commands = {
            folder / f"server-{name}": (*API, "--base-url", base_url or upstream.base_url, *options)
            for name, upstream in zip(clients, upstreams, strict=True)
        }
        servers = stack.enter_context(serve_all(commands))
        yield build_stacks(stack, folder, clients, servers, upstreams)


@contextmanager
def share_server(folder: Path, clients: Mapping[str, Client], *options: str) -> Iterator[list[Stack]]:
    """Start an API and a server for all clients, for the length of the block.

    Args:
        folder: for their files.
        clients: by name.
        options: of the server.
    """
    with ExitStack() as stack:
        upstream = stack.enter_context(Upstream())
        api = () if "--replay" in options else (*API, "--base-url", upstream.base_url)
        served = stack.enter_context(serve(folder, *api, *options))
        number = len(clients)
        yield build_stacks(stack, folder, clients, [served] * number, [upstream] * number)


def build_stacks(
    stack: ExitStack,
    folder: Path,
    clients: Mapping[str, Client],
    servers: Sequence[Served],
    upstreams: Sequence[Upstream],
) -> list[Stack]:
    """Put a tap between each client and its server; `stack` closes it."""
    files = write_images(folder)
    return [
        Stack(client, served, stack.enter_context(Tap(served.origin)), upstream, files)
        for client, served, upstream in zip(clients.values(), servers, upstreams, strict=True)
    ]


def write_images(folder: Path) -> tuple[str, str, str]:
    """Write two images and a mask; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    names = (folder / "first.png", folder / "second.png", folder / "mask.png")
    names[0].write_bytes(picture(size=(64, 64)))
    names[1].write_bytes(picture(size=(64, 64), color="blue"))
    names[2].write_bytes(picture(size=(64, 64), color="#00000000", mode="RGBA"))
    return (str(names[0]), str(names[1]), str(names[2]))
