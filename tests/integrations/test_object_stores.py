"""Runs whose images are at a server that speaks S3."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
import pytest
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

import imgkit
from imgkit.billing.spool import Spool
from imgkit.bulk import url_output
from imgkit.bulk.manifest import Manifest
from imgkit.bulk.url_store import UrlStore
from imgkit.core.recovery import recover
from tests.bulk.test_bulk import carry_out
from tests.conftest import ServiceRunner
from tests.support.processes import join_fork, kill_fork, start_fork
from tests.support.slow_api import SlowApi, draw

URL: Any = "s3://foxes/out"
SECRET = "s3cr3t/Key+0123456789"
ROWS, KILLS = 50, 3


class Store:
    """A server that speaks S3, and fails when a test says so.

    Attributes:
        refusal: status and error code for each upload of an image, None to take it.
    """

    def __init__(self) -> None:
        self.refusal: tuple[str, str] | None = None
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _answer(self, facts: Any, start: Any) -> Any:
        if self.refusal and facts["REQUEST_METHOD"] == "PUT" and "/images/" in facts["PATH_INFO"]:
            status, code = self.refusal
            start(status, [("content-type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()]
        return self._moto(facts, start)

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Return a server that has the bucket "foxes"; the environment names it, and its keys."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    s3_backends.reset()
    server = Store()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.origin)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFOXFOX0FOXFOX")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    open_bucket().mkdir("foxes")
    yield server
    server.close()


def open_bucket() -> Any:
    """Return the file system of the server."""
    return fsspec.filesystem("s3", skip_instance_cache=True)


def read_bucket() -> dict[str, bytes]:
    """Return all objects at the URL."""
    fs = open_bucket()
    return {path.removeprefix("foxes/out/"): fs.cat_file(path) for path in fs.find("foxes/out")}


def read_entries(objects: dict[str, bytes]) -> list[dict[str, Any]]:
    """Return the lines of the list."""
    return [json.loads(line) for line in objects["metadata.jsonl"].decode().splitlines()]


def open_settings(api: SlowApi, folder: Path) -> dict[str, Any]:
    """Return the arguments of a run that pays a server and uploads to the store."""
    return {
        "base_url": f"{api.origin}/v1",
        "api_key": "key-0123456789",
        "state_folder": folder / "state",
        "run_folder": folder / "run",
        "most_in_flight": 12,
    }


@pytest.fixture
def api() -> Iterator[SlowApi]:
    """Return a server of images that counts its requests."""
    api = SlowApi(7, 0.04)
    yield api
    api.close()


def test_killed_runs(
    flavor: ServiceRunner,
    http_backend: str,
    store: Store,
    api: SlowApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After kills and a last run, every paid image is in the bucket and listed once, or did not arrive."""
    monkeypatch.setattr(url_output, "CHECKPOINT_ROWS", 5)
    monkeypatch.setattr(url_output, "LIST_SHARE", 0)
    prompts, chance = [f"picture {number}" for number in range(ROWS)], random.Random(7)
    settings = open_settings(api, tmp_path)

    def work() -> bool:
        _, run = carry_out(flavor, prompts, URL, http_backend, **settings)
        return run.counts["waiting"] == 0

    for _ in range(KILLS):
        child, goal = start_fork(work), len(api.list_paid()) + chance.randint(4, 14)
        until = time.monotonic() + 20
        while len(api.list_paid()) < goal and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.04))
        kill_fork(child)
        objects = read_bucket()
        for name, data in objects.items():  # no half objects
            assert name.startswith((".", "metadata")) or sha256(data).hexdigest() in name
        if "metadata.jsonl" in objects:
            assert {entry["file_name"] for entry in read_entries(objects)} <= set(objects)
    assert join_fork(start_fork(work)) == 0
    assert {post.number for post in api.list_paid()} == {1}
    objects, unknown = read_bucket(), set()
    by_id = {entry["id"]: entry for entry in read_entries(objects)}
    assert len(by_id) == len(read_entries(objects))
    manifest = Manifest(tmp_path / "run")
    rows = [manifest.find(str(number)) for number in range(1, ROWS + 1)]
    manifest.close()
    for prompt, row in zip(prompts, rows, strict=True):
        assert row is not None
        if row.state == "done":
            entry, image = by_id.pop(row.id), draw(f"{prompt} #1")
            assert entry["sha256"] == sha256(image).hexdigest()
            assert objects[entry["file_name"]] == image
        else:
            assert row.state == "unknown"
            unknown |= {call_id for call_id, *_ in row.info.get("sent", ())}
    assert not by_id
    assert len(unknown) <= KILLS * settings["most_in_flight"]
    for record in Spool(tmp_path / "state" / "spool").list_replies():
        assert record.facts.get("call_id") not in unknown or not recover(record).whole
    assert not list((tmp_path / "run" / "outgoing").iterdir())


@pytest.mark.parametrize(
    ("status", "code"),
    [("503 Busy", "ServiceUnavailable"), ("500 Error", "InternalError"), ("403 Forbidden", "AccessDenied")],
)
def test_a_store_that_fails_for_a_while(
    flavor: ServiceRunner, status: str, code: str, store: Store, api: SlowApi, tmp_path: Path
) -> None:
    """Keeps paid replies that the store rejects; delivers them later without a request; shows no key."""
    settings, prompts = open_settings(api, tmp_path), [f"fox {number}" for number in range(8)]
    store.refusal = (status, code)
    found, run = carry_out(flavor, prompts, URL, "requests", **settings)
    assert {outcome.state for outcome in found} == {"sending"}
    assert isinstance(run.stopped, imgkit.SaveError)
    assert 0 < len(api.list_paid()) == len(found) < 8
    with pytest.raises(imgkit.SaveError, match="s3://foxes/out"):
        carry_out(flavor, prompts, URL, "requests", **settings)
    store.refusal = None
    _, run = carry_out(flavor, prompts, URL, "requests", **settings)
    assert run.counts["done"] == len(api.list_paid()) == 8
    assert {post.number for post in api.list_paid()} == {1}
    assert len(read_entries(read_bucket())) == 8
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or SECRET.encode() not in file.read_bytes()


def test_a_bucket_that_is_gone(flavor: ServiceRunner, store: Store, api: SlowApi, tmp_path: Path) -> None:
    """Stops with the cause when the bucket goes; sends nothing while it is missing."""
    settings, prompts = open_settings(api, tmp_path), [f"fox {number}" for number in range(8)]
    bucket = open_bucket()

    def lose_bucket() -> Iterator[str]:
        bucket.rm("foxes", recursive=True)
        yield from prompts

    _, run = carry_out(flavor, lose_bucket(), URL, "aiohttp", **settings)
    assert isinstance(run.stopped, imgkit.SaveError)
    assert "bucket does not exist" in str(run.stopped)
    paid = len(api.list_paid())
    with pytest.raises(imgkit.ConfigurationError, match="Nothing was sent"):
        carry_out(flavor, prompts, URL, "aiohttp", **settings)
    assert len(api.list_paid()) == paid
    bucket.mkdir("foxes")
    _, run = carry_out(flavor, prompts, URL, "aiohttp", **settings)
    assert run.counts["done"] == len(api.list_paid()) == 8
    assert {post.number for post in api.list_paid()} == {1}


def test_refusals_of_the_store(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says which bucket is missing, and which server is not there, before anything is sent."""
    with imgkit.ImageService() as images:
        with pytest.raises(imgkit.ConfigurationError, match=r"s3://hens/out.*bucket does not exist"):
            list(images.bulk(["a fox"], folder="s3://hens/out", run_folder=tmp_path / "hens"))
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(imgkit.ConfigurationError, match="EndpointConnectionError") as caught:
            list(images.bulk(["a fox"], folder=URL, run_folder=tmp_path / "run"))
    assert SECRET not in str(caught.value)


def test_the_type_of_an_image(store: Store, tmp_path: Path) -> None:
    """Tells the server the type of an image, which browsers ask for."""
    image = tmp_path / "fox.png"
    image.write_bytes(draw("a fox"))
    UrlStore(URL).write("fox.png", image)
    facts = open_bucket().call_s3("head_object", Bucket="foxes", Key="out/fox.png")
    assert facts["ContentType"] == "image/png"
