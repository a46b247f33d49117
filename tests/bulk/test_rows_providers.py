"""Rows of several providers in one run, and jobs of a provider that a later run does not have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.bulk.manifest import BulkRow, Manifest
from imgkit.bulk.row_checks import RowChecks
from imgkit.cli.run import run as imgkit_command
from imgkit.plugins import Call
from imgkit.providers.bfl_fake import FakeBfl
from imgkit.testing.wire_server import WireServer, reply, serve_fake
from imgkit.wire.messages import HttpRequest
from tests.bulk.test_bulk import OUTCOMES, BadPrompts, carry_out, open_api, read_list
from tests.conftest import ServiceRunner

ROWS = [
    {"id": "a", "prompt": "a fox"},
    {"id": "b", "prompt": "a hen", "provider": "bfl", "model": "flux-2-pro"},
    {"id": "c", "prompt": "a cat", "provider": "openai"},
    {"id": "d", "prompt": "an owl", "provider": "bfl", "model": "flux-2-pro"},
]


def wait_until(is_true: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_rows_of_several_providers(
    flavor: ServiceRunner, http_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row goes to its own provider, and one budget counts them all."""
    api, bfl = BadPrompts(OUTCOMES["refused"][0]), FakeBfl()
    budget = imgkit.Budget("5", allow_unknown=True)
    with serve_fake(api) as server, serve_fake(bfl) as other:
        monkeypatch.setenv("BFL_API_KEY", "bfl-key")
        monkeypatch.setenv("BFL_BASE_URL", other.origin)
        found, run = carry_out(flavor, ROWS, tmp_path / "out", http_backend, plugins=[budget],
                               **open_api(server, tmp_path))  # fmt: skip
        assert {outcome.id: outcome.state for outcome in found} == dict.fromkeys("abcd", "done")
        assert (api.posts, len(bfl.jobs)) == (2, 2)
        assert run.spent == budget.spent > 0
        assert carry_out(flavor, ROWS, tmp_path / "out", http_backend, **open_api(server, tmp_path))[0] == []
    assert len(read_list(tmp_path / "out")) == 4


def test_each_provider_has_its_own_pace(
    flavor: ServiceRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of one provider go on while another refuses requests; each account has a file of its own."""
    backend = "requests" if flavor.flavor == "sync" else "aiohttp"
    busy = reply(429, {"error": {"message": "Slow down."}}, retry_after="60")
    with WireServer(busy, busy, busy, busy) as server, serve_fake(FakeBfl(polls=0)) as other:
        monkeypatch.setenv("BFL_API_KEY", "bfl-key")
        monkeypatch.setenv("BFL_BASE_URL", other.origin)
        found, run = carry_out(flavor, ROWS, tmp_path / "out", backend, most=2,
                               **open_api(server, tmp_path))  # fmt: skip
        assert {outcome.id: outcome.state for outcome in found} == dict.fromkeys("bd", "done")
        assert run.counts["waiting"] == 2
        assert 0 < server.posts <= 2
    assert len(list((tmp_path / "state" / "pace").glob("*.json"))) == 2


def test_offline_providers(flavor: ServiceRunner, tmp_path: Path) -> None:
    """The offline backend answers each row in the dialect of its provider."""
    found, _ = carry_out(flavor, ROWS, tmp_path)
    assert {outcome.id: outcome.state for outcome in found} == dict.fromkeys("abcd", "done")


@pytest.mark.parametrize(
    ("name", "words"), [("blf", "did you mean 'bfl'|blf"), ("azure", "base"), (7, "a name")]
)
def test_wrong_providers(flavor: ServiceRunner, name: object, words: str, tmp_path: Path) -> None:
    """An unknown provider, or one without its settings, is named with its rows before anything is sent."""
    rows = [*ROWS, {"id": "e", "prompt": "x", "provider": name}]
    api = BadPrompts(OUTCOMES["refused"][0])
    backend = "requests" if flavor.flavor == "sync" else "aiohttp"
    with serve_fake(api) as server:
        with pytest.raises(imgkit.InvalidRequestError, match=rf"row 5 \('e'\): provider: .*({words})"):
            carry_out(flavor, rows, tmp_path / "out", backend, **open_api(server, tmp_path))
        assert api.posts == 0


@pytest.mark.parametrize("is_list", [True, False])
def test_missing_keys(flavor: ServiceRunner, is_list: bool, tmp_path: Path) -> None:
    """A missing key ends a run before rows of other providers are paid, unless its rows are done."""
    api = BadPrompts(OUTCOMES["refused"][0])
    backend = "requests" if flavor.flavor == "sync" else "aiohttp"
    with serve_fake(api) as server:
        with pytest.raises(imgkit.MissingKeyError, match=r"provider 'bfl'\..*BFL_API_KEY is not set\."):
            carry_out(flavor, ROWS if is_list else iter(ROWS), tmp_path / "out", backend,
                      **open_api(server, tmp_path))  # fmt: skip
        assert api.posts == 0
        manifest = Manifest(tmp_path / "out")
        for row in list(manifest.list_rows("waiting")):
            if row.request.get("provider") == "bfl":
                manifest.mark(row.number, "done", {"images": []})
        manifest.close()
        requests: Any = ROWS if is_list else iter(ROWS)
        carry_out(flavor, requests, tmp_path / "out", backend, **open_api(server, tmp_path))
        assert api.posts == 2


class LateKey:
    """A plugin that adds the key just before a request is sent, or while it is prepared."""

    def __init__(self, hook: str) -> None:
        self.hook = hook

    @imgkit.hookimpl
    def imgkit_before_send(self, request: HttpRequest, call: Call) -> HttpRequest | None:
        """Return the request with a key."""
        return request.with_headers({"x-key": "k"}) if self.hook == "before_send" else None

    @imgkit.hookimpl
    def imgkit_prepare(self, request: Any, call: Call) -> Any:
        """Return the request with a key."""
        return replace(request, extra_headers={"X-Key": "k"}) if self.hook == "prepare" else None


@pytest.mark.parametrize("hook", ["before_send", "prepare", ""])
def test_keys_of_plugins(hook: str, tmp_path: Path) -> None:
    """A key that a plugin adds counts as a key, and so does that of a remote worker."""
    row = BulkRow(1, "a", "waiting", {"operation": "create_image", "prompt": "a"}, {})
    with imgkit.ImageService("requests", provider="bfl", plugins=[LateKey(hook)]) as service:
        core = service._core
        RowChecks(core, lambda work: core).require_keys(lambda name: row, is_remote=True)
        with nullcontext() if hook else pytest.raises(imgkit.MissingKeyError, match="BFL_API_KEY"):
            RowChecks(core, lambda work: core).require_keys(lambda name: row, is_remote=False)


def test_jobs_of_another_provider_stay_accepted(
    flavor: ServiceRunner, http_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose service has another provider or host loses no job; the right one collects it, unpaid."""
    monkeypatch.setenv("BFL_API_KEY", "bfl-key")
    rows, out = [{"id": "a", "prompt": "a fox"}], tmp_path / "out"
    api = FakeBfl(polls=10**6)
    with serve_fake(api) as server:
        given: dict[str, Any] = {
            "base_url": server.origin,
            "api_key": "k",
            "state_folder": tmp_path / "state",
        }
        more: Any = {"provider": "bfl", "model": "flux-2-pro", "timeout_s": 0.5}
        [outcome], _ = carry_out(flavor, rows, out, http_backend, **given, **more)
        assert outcome.state == "accepted"
        elsewhere = {**given, "base_url": "http://127.0.0.1:9/v1"}
        for provider, settings in (("openai", given), ("bfl", elsewhere), ("bfl", given)):
            _, run = carry_out(flavor, rows, out, http_backend, provider=provider, timeout_s=0.2, **settings)
            assert run.counts["accepted"] == 1
        # The service of another provider finds the right one by the environment.
        monkeypatch.setenv("BFL_BASE_URL", server.origin)
        api.polls = 0
        _, run = carry_out(flavor, rows, out, http_backend, **elsewhere)
        assert run.counts["done"] == len(api.jobs) == 1


def test_closing_a_service_ends_rows_of_other_providers(
    flavor: ServiceRunner, http_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that is closed ends the rows that it carries out at other providers; their jobs stay."""
    bfl = FakeBfl(polls=10**6)
    found: list[str] = []

    def close_later(service: Any) -> None:
        with service.bulk(ROWS[1:2], folder=tmp_path / "out") as outcomes, ThreadPoolExecutor(1) as threads:
            iter(outcomes)
            left = threads.submit(next, outcomes)
            wait_until(lambda: len(bfl.count) == 2)  # the job is polled
            service.close()
            found.append(left.result(timeout=20).state)

    async def close_later_async(service: Any) -> None:
        async with service.bulk(ROWS[1:2], folder=tmp_path / "out") as outcomes:
            left = asyncio.ensure_future(anext(outcomes))
            await asyncio.to_thread(wait_until, lambda: len(bfl.count) == 2)
            await service.close()
            found.append((await asyncio.wait_for(left, 20)).state)

    with serve_fake(bfl) as server:
        monkeypatch.setenv("BFL_API_KEY", "bfl-key")
        monkeypatch.setenv("BFL_BASE_URL", server.origin)
        work = close_later if flavor.flavor == "sync" else close_later_async
        flavor.run(work, http_backend, api_key="bfl-key", state_folder=tmp_path / "state")
    assert found == ["accepted"]


def test_the_command_reads_the_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column `provider` names the provider of a row; failures can be fed in again."""
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("prompt,provider,model,size\na fox,bfl,flux-2-pro,\na hen,,,64x64\n")
    assert imgkit_command(["bulk", "a.csv", "-o", "out"]) == 0
    manifest = Manifest(Path("out"))
    manifest.mark(1, "failed", {"error": "x"})
    manifest.close()
    capsys.readouterr()
    assert imgkit_command(["bulk", "failures", "out"]) == 0
    Path("again.jsonl").write_text(capsys.readouterr().out)
    assert imgkit_command(["bulk", "again.jsonl", "-o", "out2"]) == 0
