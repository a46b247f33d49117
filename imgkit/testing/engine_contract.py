"""The contract of an engine (`imgkit.plugins.Engine`)."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from pathlib import Path

import pytest

from imgkit.plugins.engines import Claim, Engine, EngineTask, ReportFuture, TaskPayload
from imgkit.service import ImageService
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply

KEY = "sk-contract-4d2f8e"
"""The key in the environment of the workers."""

WAIT_S = 60.0
"""Seconds in which an engine must have done what a test asks for."""


class EngineContract:
    """The tests that every engine must pass.

    Override `engine`. Its workers must see the environment of the test::

        class TestMyEngine(EngineContract):
            def engine(self):
                return MyEngine()
    """

    def engine(self) -> Engine:
        """Return a new engine, which is not open."""
        raise NotImplementedError("return an engine")

    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "home"))

    def test_sends_each_request_once(self, tmp_path: Path) -> None:
        """A run of twelve requests sends twelve, and saves the image of each."""
        pictures = [png(2 + number) for number in range(12)]
        with (
            WireServer(*(reply(200, answer(picture)) for picture in pictures)) as server,
            ImageService("requests", base_url=server.base_url, model="gpt-image-2") as images,
            images.bulk(
                [f"fox {number}" for number in range(12)], folder=tmp_path / "out", engine=self.engine()
            ) as outcomes,
        ):
            assert sorted({outcome.state for outcome in outcomes}) == ["done"]
            assert server.posts == 12
            assert all(f"Bearer {KEY}".encode() in line.head for line in server.lines)
        saved = [path.read_bytes() for path in (tmp_path / "out" / "images").rglob("*.png")]
        assert sorted(saved) == sorted(pictures)
        assert not list((tmp_path / "out").glob("reports/*"))

    def test_reports_a_refusal(self, tmp_path: Path) -> None:
        """A request that the API refuses is failed, with the API's words, and no other one is lost."""
        problem = b'{"error": {"message": "No foxes.", "type": "invalid_request_error"}}'
        with (
            WireServer(reply(400, problem), reply(200, answer(png(3)))) as server,
            ImageService("requests", base_url=server.base_url, model="gpt-image-2") as images,
            images.bulk(
                ["fox", "hen"], folder=tmp_path / "out", engine=self.engine(), most_in_flight=1
            ) as outcomes,
        ):
            found = {outcome.state: outcome for outcome in outcomes}
        assert sorted(found) == ["done", "failed"]
        assert "No foxes." in str(found["failed"].error)

    def test_a_refused_claim_sends_nothing(self, tmp_path: Path) -> None:
        """A task whose claim is refused reports so, and no request leaves."""
        engine, host = self.engine(), _RefusingHost()
        with WireServer(reply(200, answer(png(3)))) as server:
            engine.open(host)
            try:
                future = engine.submit(_make_task(server.base_url, tmp_path))
                wait([future], timeout=WAIT_S)
                if engine.is_remote:
                    assert "refused" in future.result(timeout=0)
                    assert host.claims == ["contract-1"]
                else:
                    assert host.carried_out == ["contract-1"]
            finally:
                engine.close()
            assert server.posts == 0

    def test_knows_nothing_of_other_tasks(self, tmp_path: Path) -> None:
        """The living workers say nothing of a task that they never had."""
        engine = self.engine()
        engine.open(_RefusingHost())
        try:
            task = _make_task("http://127.0.0.1:1/v1", tmp_path, "contract-2")
            answers = engine.ask(
                [{"payload": task.payload, "worker": "gone", "parts": [("0" * 32, 1, 0, 1)]}]
            )
            assert all(answer["tasks"] == {} for answer in answers or ())
            assert answers or not engine.is_remote
        finally:
            engine.close()

    def test_closes_twice(self) -> None:
        """A second `close` does nothing."""
        engine = self.engine()
        engine.open(_RefusingHost())
        engine.close()
        engine.close()


class _RefusingHost:
    """A run that refuses every claim: an `imgkit.plugins.EngineHost`."""

    def __init__(self) -> None:
        self.claims: list[str] = []
        self.carried_out: list[str] = []
        self._guard = threading.Lock()

    def claim(self, claim: Claim) -> bool:
        """Refuse a claim."""
        with self._guard:
            self.claims.append(claim["task"])
        return False

    def carry_out_here(self, task: EngineTask) -> ReportFuture:
        """Carry out nothing."""
        self.carried_out.append(task.name)
        done: ReportFuture = Future()
        done.set_result(None)
        return done


def _make_task(base_url: str, folder: Path, name: str = "contract-1") -> EngineTask:
    from imgkit import __version__

    payload: TaskPayload = {
        "name": name,
        "version": __version__,
        "number": 1,
        "epoch": 1,
        "row_id": "1",
        "request": {"operation": "create_image", "prompt": "a fox"},
        "missing": None,
        "settings": {"backend": "requests", "base_url": base_url, "model": "gpt-image-2"},
        "key_file": None,
        "folder": str(folder),
        "timeout_s": 20.0,
    }
    return EngineTask(name, payload)
