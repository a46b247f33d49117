"""`imgkit serve` as a process, and a tap that counts the requests of its clients."""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

from tests.conftest import FOREIGN
from tests.support.processes import ChildProcesses, child_processes

REPOSITORY = Path(__file__).resolve().parents[3]
UPSTREAM_KEY = "sk-canary-upstream-5d81c3"
START_S, STOP_S = 60, 20


class Served(NamedTuple):
    """A running server.

    Attributes:
        origin: scheme, host and port.
        process: its process.
        errors: the file that has its standard error.
    """

    origin: str
    process: subprocess.Popen[str]
    errors: Path

    @property
    def base_url(self) -> str:
        """The address that clients get."""
        return f"{self.origin}/v1"

    def stop(self) -> int:
        """Ask the process to stop; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)


def build_environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a child, without keys and proxies of the person who runs the tests."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(FOREIGN) and not name.lower().endswith("_proxy")
    }
    return {**kept, "IMGKIT_HOME": str(home), "PYTHONPATH": str(REPOSITORY), **more}


@contextmanager
def serve(folder: Path, *options: str) -> Iterator[Served]:
    """Run `imgkit serve` on a free port for the length of the block.

    Args:
        folder: for its state and its standard error.
        options: of the command.
    """
    with serve_all({folder: options}) as (served,):
        yield served


@contextmanager
def serve_all(commands: Mapping[Path, Sequence[str]]) -> Iterator[list[Served]]:
    """Run servers, which start at the same time, for the length of the block.

    Args:
        commands: the options of each, by its folder.
    """
    with child_processes() as children:
        started = [start_server(children, folder, options) for folder, options in commands.items()]
        yield [Served(read_origin(process, errors), process, errors) for process, errors in started]
        for process, _ in started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process, _ in started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)


def start_server(
    children: ChildProcesses, folder: Path, options: Sequence[str]
) -> tuple[subprocess.Popen[str], Path]:
    """Start a server; return its process, and the file of its standard error."""
    folder.mkdir(parents=True, exist_ok=True)
    errors = folder / "stderr.txt"
    command = [sys.executable, "-m", "imgkit", "serve", "--port", "0", *options]
    environment = build_environment(folder / "home", OPENAI_API_KEY=UPSTREAM_KEY)
    with errors.open("w") as sink:
        process: subprocess.Popen[str] = children.start(
            command, text=True, stdout=subprocess.PIPE, stderr=sink, env=environment
        )
    return process, errors


def read_origin(process: subprocess.Popen[str], errors: Path) -> str:
    """Return the address that a server prints once it listens."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline() if selector.select(START_S) else ""
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+\n", line), f"{line!r}: {errors.read_text()}"
    return line.strip()


class Request(NamedTuple):
    """A request of a client.

    Attributes:
        line: method, path and version.
        headers: by lower-case name.
        at: the time at which it came.
    """

    line: str
    headers: dict[str, str]
    at: float


class Tap:
    """A relay in front of a server that counts POST requests. Use it as a context manager.

    A client waits for its reply before it sends another head, so each head opens a chunk. The tap
    puts the server's address into the Host header, which the server checks.

    Args:
        origin: address of the server.

    Attributes:
        base_url: the address that clients get.
    """

    def __init__(self, origin: str) -> None:
        self._target = origin.removeprefix("http://")
        self._guard = threading.Condition()
        self._requests: list[Request] = []
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._name = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.base_url = f"http://{self._name}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def requests(self) -> list[Request]:
        """The POST requests, in their order."""
        with self._guard:
            return list(self._requests)

    def forget(self) -> None:
        """Count from zero."""
        with self._guard:
            self._requests.clear()

    def wait_for(self, count: int, timeout_s: float = 30) -> bool:
        """Wait for a number of POST requests; return whether they came."""
        with self._guard:
            return self._guard.wait_for(lambda: len(self._requests) >= count, timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
                host, _, port = self._target.rpartition(":")
                server = socket.create_connection((host, int(port)))
            except OSError:
                return
            for work in (self._pump_requests, self._pump_replies):
                threading.Thread(target=work, args=(client, server), daemon=True).start()

    def _pump_requests(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while chunk := client.recv(1 << 18):
                if re.match(rb"(POST|GET) /\S* HTTP/1\.1\r\n", chunk):
                    chunk = self._read_head(chunk)
                server.sendall(chunk)
        except OSError:
            # The client or the server has gone; the other pump ends too.
            pass
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _read_head(self, chunk: bytes) -> bytes:
        head, separator, rest = chunk.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        if first.startswith("POST "):
            with self._guard:
                self._requests.append(Request(first, headers, time.monotonic()))
                self._guard.notify_all()
        return head.replace(self._name.encode(), self._target.encode()) + separator + rest

    def _pump_replies(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while chunk := server.recv(1 << 18):
                client.sendall(chunk)
        except OSError:
            pass
        for side in (client, server):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()
