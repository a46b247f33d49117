"""A cache hit, from the request to the bytes of a picture of about 1 MB, beside requests-cache.

Run by `make bench`. Ratios of medians of interleaved rounds to requests-cache with SQLite.
"""

from __future__ import annotations

import base64
import json
import statistics
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests_cache

import imgkit
from imgkit import CachePlugin
from imgkit.cache.folder import FolderStore
from imgkit.plugins.protocols import Entry, Hit
from imgkit.testing.samples import png

PICTURE = png(1, 590)
BODY = json.dumps({"created": 1, "data": [{"b64_json": base64.b64encode(PICTURE).decode()}]}).encode()
ROUNDS, CALLS = 15, 10


class Handler(BaseHTTPRequestHandler):
    posts = 0

    def do_POST(self) -> None:
        Handler.posts += 1
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *args: object) -> None:
        return


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peers = {
            f"requests-cache, {kind}": peer(url, requests_cache.CachedSession(
                folder / kind, backend=kind, allowable_methods=["POST"]))
            for kind in ("sqlite", "filesystem")
        }  # fmt: skip
        services = {
            f"imgkit, {text}": imgkit.ImageService(
                "requests", base_url=url, plugins=[CachePlugin(folder=folder / text, verify=verify)]
            )
            for text, verify in (("digest checked", True), ("size checked", False))
        }
        cases = {
            **peers,
            **{text: call(service) for text, service in services.items()},
            "imgkit's store alone, digest checked": store(folder / "a", verify=True),
            "imgkit's store alone, size checked": store(folder / "b", verify=False),
        }
        for case in cases.values():
            case()
        posts = Handler.posts
        times: dict[str, list[float]] = {text: [] for text in cases}
        for _ in range(ROUNDS):
            for text, case in cases.items():
                began = time.process_time()
                for _ in range(CALLS):
                    case()
                times[text].append((time.process_time() - began) / CALLS * 1000)
        assert Handler.posts == posts, "every call was a hit"
        base = statistics.median(times["requests-cache, sqlite"])
        print(f"{'a hit':40} {'CPU ms':>8} {'ratio':>7}")
        for text, taken in times.items():
            middle = statistics.median(taken)
            print(f"{text:40} {middle:8.3f} {middle / base:7.3f}")
        for service in services.values():
            service.close()
    server.shutdown()


def peer(url: str, session: requests_cache.CachedSession):  # type: ignore[no-untyped-def]  # a closure
    def run() -> bytes:
        reply = session.post(f"{url}/images/generations", json={"prompt": "a fox"})
        return base64.b64decode(reply.json()["data"][0]["b64_json"])

    assert run() == PICTURE
    return run


def call(service: imgkit.ImageService):  # type: ignore[no-untyped-def]  # a closure
    def run() -> bytes:
        return service.create_image("a fox")[0].data

    assert run() == PICTURE
    return run


def store(folder: Path, *, verify: bool):  # type: ignore[no-untyped-def]  # a closure
    made = FolderStore(folder, verify=verify)
    key = "a" * 64
    made.commit(made.try_lease(key), Entry({}, (PICTURE,), time.time()))  # type: ignore[arg-type]  # a lease

    def run() -> bytes:
        answer = made.try_lease(key)
        assert isinstance(answer, Hit)
        return answer.entry.pictures[0]

    return run


if __name__ == "__main__":
    main()
