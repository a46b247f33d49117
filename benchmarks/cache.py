"""Compare a cache hit on an image of about 1 MB with requests-cache.

Run by `make bench`. Prints medians of interleaved rounds, and their ratios to requests-cache with SQLite.
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

IMAGE = png(1, 590)
BODY = json.dumps({"created": 1, "data": [{"b64_json": base64.b64encode(IMAGE).decode()}]}).encode()
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
            f"requests-cache, {kind}": build_peer(url, requests_cache.CachedSession(
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
            **{text: build_call(service) for text, service in services.items()},
            "imgkit's store alone, digest checked": build_store_read(folder / "a", verify=True),
            "imgkit's store alone, size checked": build_store_read(folder / "b", verify=False),
        }
        for case in cases.values():
            case()
        posts = Handler.posts
        times: dict[str, list[float]] = {text: [] for text in cases}
        for _ in range(ROUNDS):
            for text, case in cases.items():
                start = time.process_time()
                for _ in range(CALLS):
                    case()
                times[text].append((time.process_time() - start) / CALLS * 1000)
        assert Handler.posts == posts, "a call was not a cache hit"
        base = statistics.median(times["requests-cache, sqlite"])
        print(f"{'a hit':40} {'CPU ms':>8} {'ratio':>7}")
        for text, samples in times.items():
            median = statistics.median(samples)
            print(f"{text:40} {median:8.3f} {median / base:7.3f}")
        for service in services.values():
            service.close()
    server.shutdown()


def build_peer(url: str, session: requests_cache.CachedSession):  # type: ignore[no-untyped-def]  # a closure
    def run() -> bytes:
        reply = session.post(f"{url}/images/generations", json={"prompt": "a fox"})
        return base64.b64decode(reply.json()["data"][0]["b64_json"])

    assert run() == IMAGE
    return run


def build_call(service: imgkit.ImageService):  # type: ignore[no-untyped-def]  # a closure
    def run() -> bytes:
        return service.create_image("a fox")[0].data

    assert run() == IMAGE
    return run


def build_store_read(folder: Path, *, verify: bool):  # type: ignore[no-untyped-def]  # a closure
    folder_store = FolderStore(folder, verify=verify)
    key = "a" * 64
    folder_store.commit(folder_store.try_lease(key), Entry({}, (IMAGE,), time.time()))  # type: ignore[arg-type]  # a lease

    def run() -> bytes:
        result = folder_store.try_lease(key)
        assert isinstance(result, Hit)
        return result.entry.pictures[0]

    return run


if __name__ == "__main__":
    main()
