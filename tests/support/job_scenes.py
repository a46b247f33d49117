"""Scenes of jobs: a call reaches a state, and meets an interruption there."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import imgkit
from imgkit import Budget, CachePlugin, Estimate, Job
from imgkit.cache import flights
from imgkit.cache.folder import FolderStore
from imgkit.core import cached_send, download, job_joining, job_requests, uploads
from imgkit.default_plugins.budget import BudgetLedger
from imgkit.plugins import hookimpl
from imgkit.plugins.events import Succeeded
from imgkit.providers.bfl_fake import FakeBfl
from imgkit.providers.comfyui_fake import FakeComfyUI
from imgkit.providers.fakes import FakeApi, FakeReply, FakeRequest
from imgkit.testing.wire_server import WireServer, serve_fake
from tests.conftest import ServiceRunner
from tests.support.processes import TIMEOUT_S, kill_fork, run_in_fork, start_fork

CALL_S, LONG_S = 60.0, 100_000.0
"""Time limits of the call that is interrupted, and of calls that wait for it."""

RESERVED_CENTS = 5

_STATES = {
    "/v1/flux-2-pro": "sending",
    "/prompt": "sending",
    "/v1/get_result": "accepted",
    "/queue": "accepted",
    "/history": "accepted",
    "/results": "ready",
    "/view": "ready",
    "/upload": "uploading",
}


class Found(NamedTuple):
    """The traces of a call.

    Attributes:
        outcome: "response", "cached", "interrupted", "killed", or the name of an error.
        submits: submits at the API.
        phases: phases of the jobs on the disk.
        spent, reserved: cents in the budget.
        lease: state of the cache's lease: "none", "held", "sent" with its mark, "left" by a dead process,
            or "entry".
    """

    outcome: str
    submits: int
    phases: str = ""
    spent: int = 0
    reserved: int = 0
    lease: str = "none"


def name_state(request: FakeRequest) -> str:
    """Return the state of a call that sends a request."""
    return next((state for path, state in _STATES.items() if request.path.startswith(path)), "")


class HeldApi(FakeApi):
    """A fake that calls `act` in the thread of its server when a call reaches a state, and waits then.

    Attributes:
        state: the state.
        act: the interruption, None before and after it.
        released: ends the wait.
        jobs: number of jobs that must have reached the state.
        seen: the URLs of their requests.
        failures: replies in place of those of the API, by state.
        received: number of requests by state.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.state = ""
        self.act: Callable[[], object] | None = None
        self.released = threading.Event()
        self.calls = 1
        self.seen: set[str] = set()
        self.failures: dict[str, list[FakeReply]] = {}
        self.received: dict[str, int] = {}

    def answer(self, request: FakeRequest) -> FakeReply:
        """Answer a request; interrupt the call if it is in the state."""
        state = name_state(request)
        self.received[state] = self.received.get(state, 0) + 1
        if self.failures.get(state):
            return self.failures[state].pop(0)
        reply = super().answer(request)
        act = self.act
        if state == self.state:
            self.seen.add(request.url)
        if state == self.state and act is not None and len(self.seen) >= self.calls:
            self.act = None
            act()
            self.released.wait(TIMEOUT_S)
        return reply


class HeldBfl(HeldApi, FakeBfl):
    """The API of Black Forest Labs."""


class HeldComfyUI(HeldApi, FakeComfyUI):
    """The API of ComfyUI, where a submit has a handle."""


class PricedBudget(Budget):
    """A budget that reserves 5 cents for each call."""

    @hookimpl
    def imgkit_ledger(self, settings: object) -> BudgetLedger:
        """Return the ledger of a service."""
        price = Decimal(RESERVED_CENTS) / 100
        return BudgetLedger(self, lambda request, partial_images=0: Estimate(low=price, high=price))


class LocalStates:
    """A plugin that calls `act` in the states without a request: reserved, delivered.

    Args:
        state: the state.
        act: the interruption.
    """

    def __init__(self, state: str, act: Callable[[], object]) -> None:
        self.state = state
        self.act = act

    @hookimpl
    def imgkit_ledger(self, settings: object) -> LocalStates:
        """Return itself: a ledger may block."""
        return self

    def reserve(self, request: object, call: object, attempt: int) -> LocalStates:
        """Interrupt a call that has reserved its cost."""
        if self.state == "reserved":
            self.act()
        return self

    spools = False

    def settle(self, response: object) -> None:
        """Do nothing."""

    def keep(self, error: BaseException, response: object) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    @hookimpl
    def imgkit_on_event(self, event: object) -> None:
        """Interrupt a call that has delivered its images."""
        if self.state == "delivered" and isinstance(event, Succeeded):
            self.act()


def create(service: Any, timeout_s: float = CALL_S) -> Any:
    """Make the call of a scene."""
    return service.create_image("a red fox", timeout_s=timeout_s)


class Scene:
    """A call at a provider's fake, whose states can be interrupted.

    Args:
        fake: the API.
        server: its server.
        folder: holds state, cache and budget.
        flavor: runs services.
        backend: name of the HTTP backend.
    """

    def __init__(
        self, fake: HeldApi, server: WireServer, folder: Path, flavor: ServiceRunner, backend: str
    ) -> None:
        self.fake = fake
        self.folder = folder
        self.flavor = flavor
        self.backend = backend
        self.service: Any = None
        self.ahead_s = 0.0
        self.threads: list[threading.Thread] = []
        is_bfl = isinstance(fake, FakeBfl)
        self.provider = "bfl" if is_bfl else "comfyui"
        self._more = {"api_key": "bfl-key-0123456789"} if is_bfl else {"model": "a.safetensors"}
        self._origin = server.origin
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._loop_thread = 0

    def run(self, work: Callable[[Any], Any], *plugins: object, backend: str = "", **settings: Any) -> Any:
        """Run work on a new service with a budget and a cache."""
        budget = PricedBudget(usd=1, folder=self.folder / "budget", allow_unknown=True)
        given = {
            "provider": self.provider,
            "base_url": self._origin,
            "state_folder": self.folder / "state",
            "plugins": [budget, CachePlugin(folder=self.folder / "cache"), *plugins],
            **self._more,
        }
        return self.flavor.run(work, backend or self.backend, **{**given, **settings})

    def call(self, *plugins: object, timeout_s: float = CALL_S, **settings: Any) -> str:
        """Make a call and return its outcome."""
        return describe(lambda: self.run(lambda service: create(service, timeout_s), *plugins, **settings))

    def resume(self) -> str:
        """Collect the jobs on the disk, as another process would; return the outcome."""
        jobs = self.run(lambda service: service.list_jobs())
        if not jobs:
            return "no job"
        return describe(lambda: self.run(lambda service: service.resume(jobs, timeout_s=LONG_S)))

    def interrupt(
        self, state: str, act: Callable[[], object], work: Callable[[Any], Any] = create, *plugins: object
    ) -> str:
        """Make a call that meets an interruption in a state; return its outcome."""
        self.fake.state, self.fake.act = state, act

        def start(service: Any) -> Any:
            self.service = service
            if self.flavor.flavor == "async":
                return self._start_task(work, service)
            try:
                return work(service)
            finally:
                self.fake.released.set()

        return describe(lambda: self.run(start, LocalStates(state, act), *plugins))

    async def _start_task(self, work: Callable[[Any], Any], service: Any) -> Any:
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
        self._task = asyncio.ensure_future(work(service))
        try:
            return await self._task
        finally:
            self.fake.released.set()

    def kill(self, state: str) -> str:
        """Make a call in a child process that dies in a state."""
        if state in ("reserved", "delivered"):
            die = LocalStates(state, lambda: os.kill(os.getpid(), signal.SIGKILL))
            assert run_in_fork(lambda: self.call(die) == "never") == -signal.SIGKILL
            return "killed"
        reached = threading.Event()
        self.fake.state, self.fake.act = state, reached.set
        child = start_fork(lambda: self.call() == "never")
        assert reached.wait(TIMEOUT_S)
        kill_fork(child)
        self.fake.released.set()
        return "killed"

    def pass_deadline(self) -> None:
        """Move the clock behind the deadline of the call."""
        self.ahead_s += CALL_S
        if self._loop is not None:
            self._loop.call_soon_threadsafe(lambda: None)  # lets the loop look at its timers
        else:
            with self.service._watchdog._wake:
                self.service._watchdog._wake.notify()

    def press_ctrl_c(self) -> None:
        """Interrupt the blocking call by a signal, or cancel the task of the other."""
        if self._loop is None or self._task is None:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        elif threading.get_ident() == self._loop_thread:
            self._task.cancel()
        else:
            self._loop.call_soon_threadsafe(self._task.cancel)

    def close_service(self) -> None:
        """Close the service from another thread, or from another task."""
        if self._loop is None:
            closer = threading.Thread(target=self.service.close)
            closer.start()
            closer.join(TIMEOUT_S)
            return
        asyncio.run_coroutine_threadsafe(self.service.close(), self._loop)
        until = time.perf_counter() + TIMEOUT_S
        while threading.get_ident() != self._loop_thread and not self.service._closed:
            assert time.perf_counter() < until
            time.sleep(0.001)

    def join(self, end: Callable[[], object], joined: list[str]) -> None:
        """Make an equal call in another thread; end the first call when the other waits for it."""
        other = threading.Thread(target=lambda: joined.append(self.call(timeout_s=LONG_S)))
        other.start()
        until = time.perf_counter() + TIMEOUT_S
        while other.is_alive() and not any(flight._calls > 1 for flight in list(flights._FLIGHTS.values())):
            assert time.perf_counter() < until
            time.sleep(0.001)
        end()
        self.threads.append(other)

    def find_traces(self, outcome: str) -> Found:
        """Return the traces of the calls so far."""
        records = sorted((self.folder / "state" / "jobs").glob("*.json"))
        budget = Budget(usd=1, folder=self.folder / "budget")
        return Found(
            outcome,
            self.fake.received.get("sending", 0),
            " ".join(Job.from_json(each.read_text()).phase for each in records),
            int(budget.spent * 100),
            int(budget.reserved * 100),
            self._find_lease(),
        )

    def _find_lease(self) -> str:
        store = FolderStore(self.folder / "cache")
        if store.list_keys():
            return "entry"
        for path in (self.folder / "cache").glob("**/leases/*.lock"):
            answer = store.try_lease(path.stem)
            if isinstance(answer, imgkit.plugins.Lease):
                store.abandon(answer)
                return "left" if answer.lost_attempt else "none"
            return "sent" if " " in path.read_text() else "held"
        return "none"


def describe(work: Callable[[], Any]) -> str:
    """Return the outcome of some work in a word."""
    try:
        response = work()
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        notes = " ".join(getattr(error, "__notes__", []))
        return (
            "interrupted, names the job" if re.search(r" job [\w-]+.*imgkit jobs", notes) else "interrupted"
        )
    except imgkit.ImgkitError as error:
        is_lost = isinstance(error, imgkit.JobPendingError) and not (error.jobs and error.maybe_billed)
        return f"{type(error).__name__}{' without a job' if is_lost else ''}"
    return "cached" if response.meta.cached else "response"


@contextmanager
def open_scene(
    fake: HeldApi, folder: Path, flavor: ServiceRunner, backend: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    """Open a scene with short pauses, and with a clock that can be moved forward."""
    for module, name, pause_s in (
        (job_requests, "FIRST_PAUSE_S", 0.002),
        (job_requests, "LONGEST_PAUSE_S", 0.004),
        (job_joining, "WAIT_S", 0.002),
        (cached_send, "MAX_POLL_S", 0.01),
    ):
        monkeypatch.setattr(module, name, pause_s)
    for module in (download, uploads):
        monkeypatch.setattr(module, "PAUSES_S", (0.001, 0.001, 0.001))
    now = time.monotonic
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    with serve_fake(fake) as server:
        scene = Scene(fake, server, folder, flavor, backend)
        monkeypatch.setattr(time, "monotonic", lambda: now() + scene.ahead_s)
        try:
            yield scene
        finally:
            fake.released.set()
            signal.signal(signal.SIGINT, handler)
