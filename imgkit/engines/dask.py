"""The engine of a Dask cluster: its workers carry out the requests of a run.

The scheduler of Dask starts a task again when its worker is lost, retired, or finished but not fetched. So a
task asks the run for its request before it sends it: through a server in the process of the run, which
answers with a committed claim. Workers must reach that address.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from imgkit.bulk.tasks import get_version
from imgkit.engines.worker import carry_out_task, find_tasks
from imgkit.errors import ConfigurationError, NotSentError
from imgkit.plugins.table import describe_error

if TYPE_CHECKING:
    import distributed
    from distributed.core import Server

    from imgkit.plugins.engines import (
        Answer,
        AskedTask,
        Claim,
        EngineHost,
        EngineTask,
        Report,
        ReportFuture,
        TaskPayload,
    )

CONNECT_S = 10.0
"""Seconds to find the scheduler."""

WORKERS_S = 60.0
"""Seconds to wait for the first worker."""

CLAIM_S = 20.0
"""Seconds of a claim. Without an answer, nothing is sent."""

RESULT_S, FETCHERS = 10.0, 8
"""Seconds in which a worker hands a report over, and reports that are fetched at once."""

ASK_S = 10.0
"""Seconds in which all living workers answer a question."""


class DaskEngine:
    """Carries out requests on the workers of a Dask cluster.

    Args:
        scheduler: address of the scheduler, such as ``tcp://10.0.0.5:8786``. None starts a cluster on this
            machine, which ends with the run.
        client: a `distributed.Client` of yours, which stays open.
        workers: number of workers of a cluster on this machine; a worker for each core by default.
        threads: requests at once in each of them, 16 by default.
        security: a `distributed.Security` for TLS.
    """

    is_remote = True

    def __init__(
        self,
        *,
        scheduler: str | None = None,
        client: distributed.Client | None = None,
        workers: int | None = None,
        threads: int = 16,
        security: distributed.Security | None = None,
    ) -> None:
        try:
            import distributed  # noqa: F401  # an extra
        except ImportError:
            raise ConfigurationError(
                "The engine dask needs Dask: pip install 'imgkit-service[dask]'."
            ) from None
        self._scheduler = scheduler
        self._given_client = client
        self._workers = workers
        self._threads = threads
        self._security = security
        self._cluster: distributed.LocalCluster | None = None
        self._client: distributed.Client | None = None
        self._server: Server | None = None
        self._host: EngineHost | None = None
        self._address = ""
        self._fetchers: ThreadPoolExecutor | None = None

    def open(self, host: EngineHost) -> None:
        """Connect to the cluster, and listen for claims.

        Raises:
            ConfigurationError: there is no scheduler or no worker, or a worker has another version of imgkit.
        """
        self._host = host
        self._fetchers = ThreadPoolExecutor(FETCHERS, "imgkit-dask")
        try:
            self._client = self._given_client or self._connect()
            self._check_workers()
            self._address = self._client.sync(self._listen)
        except BaseException:
            self.close()
            raise

    def submit(self, task: EngineTask) -> ReportFuture:
        """Submit a task under its name, and return the future of its report."""
        report: ReportFuture = Future()
        client, fetchers = self._client, self._fetchers
        if client is None or fetchers is None or client.status != "running":
            # What is submitted now would start after a reconnection, when nobody waits for it.
            report.set_exception(NotSentError("The connection to the scheduler is lost."))
            return report
        report.set_running_or_notify_cancel()
        future = client.submit(_carry_out, task.payload, self._address, key=task.name, pure=False, retries=0)
        # Dask has one thread for callbacks, and a result whose worker has died is waited for.
        future.add_done_callback(lambda done: fetchers.submit(_pass_on, done, report))
        return report

    def ask(self, tasks: Sequence[AskedTask]) -> Sequence[Answer] | None:
        """Ask all living workers what became of tasks; None if the scheduler cannot be reached."""
        client = self._client
        if client is None or client.status != "running":
            return None
        answers: list[Answer] = client.sync(self._ask_all, client, list(tasks))
        return answers

    async def _ask_all(self, client: distributed.Client, tasks: list[AskedTask]) -> list[Answer]:
        """Ask each worker by itself: one that is frozen must not hide the answers of the others."""
        addresses = await client.scheduler.ncores()
        answers = await asyncio.gather(
            *(self._ask_worker(client, address, tasks) for address in addresses), return_exceptions=True
        )
        # An error in place of an answer says nothing about a task.
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def _ask_worker(self, client: distributed.Client, address: str, tasks: list[AskedTask]) -> Answer:
        question = client._run(_find_tasks, tasks, workers=[address])
        answers: dict[str, Answer] = await asyncio.wait_for(question, ASK_S)
        return answers[address]

    def close(self) -> None:
        """Stop listening, and leave the cluster. A cluster of this engine ends."""
        client, self._client = self._client, None
        server, self._server = self._server, None
        cluster, self._cluster = self._cluster, None
        fetchers, self._fetchers = self._fetchers, None
        if server is not None and client is not None and client.status != "closed":
            client.sync(server.close)
        if client is not None and client is not self._given_client:
            client.close()
        if cluster is not None:
            cluster.close()
        if fetchers is not None:
            fetchers.shutdown(wait=False)  # one of them may close a run that was left

    def _connect(self) -> distributed.Client:
        """Return a client of the scheduler. Raises `ConfigurationError`."""
        import distributed

        if self._scheduler is None:
            self._cluster = distributed.LocalCluster(
                n_workers=self._workers or os.cpu_count() or 1,
                threads_per_worker=self._threads,
                processes=True,
                memory_limit=0,
                dashboard_address="127.0.0.1:0",
                silence_logs=50,
            )
            return distributed.Client(self._cluster, set_as_default=False)
        try:
            return distributed.Client(
                self._scheduler, timeout=CONNECT_S, security=self._security, set_as_default=False
            )
        except (OSError, ValueError, TypeError, AssertionError, ImportError) as error:
            raise ConfigurationError(
                f"No Dask scheduler answers at {self._scheduler[:200]} ({describe_error(error)[:300]}). "
                "Start it, or name none to use a cluster on this machine."
            ) from None

    def _check_workers(self) -> None:
        """Wait for the first worker, and compare versions. Raises `ConfigurationError`."""
        client = self._client
        if client is None:
            raise LookupError("an engine is opened first")
        try:
            client.wait_for_workers(1, timeout=WORKERS_S)
        except TimeoutError:
            raise ConfigurationError(
                f"The Dask scheduler has no worker after {WORKERS_S:.0f} seconds. Start workers with imgkit "
                "installed."
            ) from None
        try:
            versions = client.run(get_version)
            problems = [f"{at} has {found}" for at, found in versions.items() if found != get_version()]
        except Exception as error:  # a worker without imgkit cannot read the question
            problems = [describe_error(error)[:300]]
        if problems:
            raise ConfigurationError(
                f"The workers need imgkit {get_version()}: {'; '.join(problems[:5])}. Install it there, "
                "and on the scheduler."
            )

    async def _listen(self) -> str:
        """Start the server that answers claims, and return its address."""
        from distributed.core import Server

        client = self._client
        if client is None:
            raise LookupError("an engine is opened first")
        comm = client.scheduler_comm.comm
        address = urlsplit(comm.local_address)
        server = Server({"claim": self._answer_claim}, deserialize=False, **_connection_options(client))
        host = address.hostname if address.scheme in ("tcp", "tls") else "127.0.0.1"
        scheme = address.scheme if address.scheme in ("tcp", "tls") else "tcp"
        await server.listen(f"{scheme}://{host}:0", **_listen_options(client))
        self._server = server
        listening: str = server.address
        return listening

    async def _answer_claim(self, comm: object = None, claim: Claim | None = None) -> bool:
        host = self._host
        if host is None or claim is None:
            return False
        return await asyncio.to_thread(host.claim, claim)


def _connection_options(client: distributed.Client) -> dict[str, object]:
    return {"connection_args": client.security.get_connection_args("client")}


def _listen_options(client: distributed.Client) -> dict[str, object]:
    return dict(client.security.get_listen_args("client"))


def _pass_on(done: distributed.Future, report: ReportFuture) -> None:
    """Pass the result of a task on, and let the scheduler forget the task."""
    try:
        report.set_result(done.result(timeout=RESULT_S) if done.status == "finished" else None)
    except BaseException as error:  # the worker is gone before its result was fetched
        report.set_exception(error)
    finally:
        done.release()


def _carry_out(payload: TaskPayload, address: str) -> Report:
    """Carry out a task in a thread of a worker. Never raises."""
    import distributed

    worker = distributed.get_worker()

    async def ask_run(claim: Claim) -> bool:
        answer: bool = await asyncio.wait_for(worker.rpc(address).claim(claim=claim), CLAIM_S)
        return answer

    def claim_request(claim: Claim) -> bool:
        answer: bool = distributed.utils.sync(worker.loop, ask_run, claim)
        return answer

    return carry_out_task(payload, claim_request)


async def _find_tasks(asked: Sequence[AskedTask]) -> Answer:
    """Search for tasks in a thread: the loop of the worker goes on."""
    return await asyncio.to_thread(find_tasks, asked)
