"""The services that users hold: `ImageService` blocks, `AsyncImageService` awaits. The core is one."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Self, TypeVar, cast

from imgkit.core.download import fetch_image
from imgkit.core.signatures import with_result_types
from imgkit.errors import NotDownloadedError, ServiceClosedError
from imgkit.fork import ForkRegistry
from imgkit.images.image import Image
from imgkit.models import Estimate, ImagesResponse
from imgkit.runtime.driver import Driver, Watchdog
from imgkit.runtime.flow import Flow, expect_end
from imgkit.runtime.streams import ImageStream
from imgkit.service_base import ServiceBase
from imgkit.wire.messages import AsyncBackend, Backend, ForkAware

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike
    from typing import Unpack

    from imgkit.bulk.bulk_values import BulkOptions
    from imgkit.bulk.outcomes import BulkOutcomes
    from imgkit.core.context import SaveTo
    from imgkit.core.probe import ListedModel, Probe
    from imgkit.errors import PendingJob
    from imgkit.jobs.job import Job

T = TypeVar("T")

CLOSE_TIMEOUT_S = 2.0
"""Seconds that `close` gives to calls that it aborts."""

FILE_THREADS = 8
"""Threads for files. They are not shared with backends: an image must not wait for a slow server."""


@with_result_types({"ResponseT": "ImagesResponse", "StreamT": "ImageStream", "ImageT": "Image"})
class ImageService(ServiceBase[ImagesResponse, ImageStream, Image, Estimate]):
    """Creates, edits and varies images with blocking calls, from any number of threads.

    >>> from imgkit import ImageService
    >>> with ImageService() as images:                 # offline: no key, no network, no cost
    ...     response = images.create_image("A cute baby sea otter", size="256x256")
    >>> response[0].width
    256

    Use it as a context manager, or `close` it. Any backend works, an asynchronous one too.
    """

    def _connect(self) -> None:
        self._watchdog = Watchdog()
        if self._core.flavor == "async":
            from imgkit.runtime.bridges import LoopBackend

            bridge = LoopBackend(cast(AsyncBackend, self._core.backend))
            self._backend: Backend = bridge  # type: ignore[assignment]  # nobody sets its errors
        else:
            self._backend = cast(Backend, self._core.backend)
        # A service that nobody closes is closed when the interpreter ends.
        self._finalizer = weakref.finalize(self, _close_backend, self._backend, self._watchdog)
        self._runs: weakref.WeakSet[BulkOutcomes] = weakref.WeakSet()
        _SERVICES.add(self)

    def list_models(self) -> tuple[ListedModel, ...]:
        """Return the models that the host lists, in its order. The request is free.

        >>> from imgkit import ImageService
        >>> from imgkit.testing import WireServer, reply
        >>> with WireServer(reply(200, {"data": [{"id": "gpt-image-2"}]})) as server:
        ...     with ImageService("requests", base_url=server.base_url) as images:
        ...         [model.id for model in images.list_models()]
        ['gpt-image-2']

        Raises:
            ConfigurationError: the provider has no such request, or there is no key; nothing was sent.
            ImgkitError: the API or the wire failed.
        """
        from imgkit.core.probe import list_models

        return self._run_flow(list_models(self._core), None)

    def probe(self) -> Probe:
        """Ask the host for its models and return all that the reply tells: key, clock, models, problem.

        Raises:
            ConfigurationError: the provider has no such request, or there is no key; nothing was sent.
        """
        from imgkit.core.probe import probe_host

        return self._run_flow(probe_host(self._core), None)

    def bulk(
        self,
        requests: Iterable[object] | PathLike[str],
        *,
        folder: str | PathLike[str],
        **options: Unpack[BulkOptions],
    ) -> BulkOutcomes:
        """Carry out many requests, and yield their outcomes as they end. The same call again goes on.

        ::

            prompts = Path("prompts.txt").read_text().splitlines()
            with images.bulk(prompts, folder="out", per_minute=50) as outcomes:
                for outcome in outcomes:
                    print(outcome.id, outcome.state)

        A manifest in the folder knows what became of each request. Nothing that is done, or whose outcome is
        unknown, is sent again. Images are ``out/images/ab/DIGEST.png``; ``out/metadata.jsonl`` lists them.

        Args:
            requests: prompts, request objects, `BulkRequest` values, or mappings with the columns of a file;
                or the `Path` of a CSV, TSV, JSONL or Parquet file. A list and a file are checked before
                anything is sent; any other iterable is read as it goes.
            folder: the output folder, or a URL that fsspec knows, with ``run_folder=`` for the manifest.
            options: as `imgkit.bulk.bulk_values.BulkOptions` describes them.

        Returns:
            A `BulkOutcomes`: an iterator, and a context manager that finishes the requests in flight.

        Raises:
            InvalidRequestError: requests are wrong; the first iteration raises it, and nothing was sent.
            ConfigurationError: the folder cannot be used, has another run, or another process has the run.
        """
        from imgkit.bulk.bulk_run import BulkRun
        from imgkit.bulk.outcomes import BulkOutcomes
        from imgkit.bulk.siblings import Siblings

        siblings = Siblings(self, self._core.provider_name, self._open_sibling)
        run = BulkRun(self._core, folder, options, self._given, lambda work: siblings.find_for(work)._core)
        outcomes = BulkOutcomes(
            run,
            requests,
            lambda work, flow, timeout_s: siblings.find_for(work)._run_flow(flow, timeout_s),
            siblings.take_opened,
        )
        self._runs.add(outcomes)
        return outcomes

    def resume(
        self, jobs: object, *, save_to: SaveTo = None, timeout_s: float | None = None
    ) -> ImagesResponse:
        """Collect the images of pending jobs, and deliver them as their call would have. Polls are free.

        ::

            try:
                response = images.create_image("a red fox", save_to="fox.png", timeout_s=60)
            except JobPendingError as error:
                response = images.resume(error)  # any process can do so, later

        Args:
            jobs: a `Job`, a `JobPendingError`, a response whose ``errors`` have one, or a list of them.
            save_to: where to save the images, None for the place that the call named.
            timeout_s: seconds that this may take, None for the service's limit.

        Returns:
            The images. Those of a response that is given come first.

        Raises:
            InvalidRequestError: there is no job, or another provider, host or process has it.
            JobPendingError: the jobs are still running.
            ImgkitError: a job has failed.
        """
        from imgkit.core.resume import resume_jobs

        return self._run_flow(resume_jobs(self._core, jobs, save_to, timeout_s), timeout_s)

    def cancel_job(self, job: PendingJob, *, timeout_s: float | None = None) -> ImagesResponse | None:
        """Cancel a job, or collect its images if it is too late.

        Args:
            job: the job, such as one of `JobPendingError.jobs`.
            timeout_s: seconds that this may take, None for the service's limit.

        Returns:
            The images, None for a cancelled job.

        Raises:
            InvalidRequestError: the provider cancels no jobs, or another provider has the job.
            JobPendingError: the job is still running.
        """
        from imgkit.core.resume import cancel_job

        return self._run_flow(cancel_job(self._core, job, timeout_s), timeout_s)

    def list_jobs(self) -> tuple[Job, ...]:
        """Return the pending jobs in the state folder that this service can collect, soonest expiry first.

        Raises:
            ConfigurationError: the service has no state folder, or it cannot be read.
        """
        from imgkit.core.resume import list_jobs

        return self._run_flow(list_jobs(self._core), None)

    def close(self) -> None:
        """Close all connections. Idempotent. The service cannot be used afterwards."""
        self._closed = True
        self._finalizer()
        for outcomes in list(self._runs):
            for service in outcomes.take_opened():
                service.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            for outcomes in list(self._runs):  # of a loop that was left: the requests in flight end
                outcomes.__exit__(*exc)
        finally:
            self.close()

    def _run_flow(self, flow: Flow[T], timeout_s: object) -> T:
        driver = self._new_driver(flow, timeout_s)
        try:
            return expect_end(driver.run_until_event()).value
        finally:
            driver.close()

    _run_download = _run_flow
    _run_estimate = _run_flow

    def _open_stream(self, flow: Flow[ImagesResponse], timeout_s: object) -> ImageStream:
        return ImageStream(flow, lambda flow: self._new_driver(flow, timeout_s))

    def _new_driver(self, flow: Flow[T], timeout_s: object) -> Driver[T]:
        if self._closed:
            raise ServiceClosedError("This service is closed. Make a new one.")
        return Driver(self._record(flow), self._backend, self._new_transfer(timeout_s), self._watchdog)

    def _make_fetcher(self) -> Callable[[str], bytes]:
        # A weak reference: an image that outlives its service does not keep the connections open.
        service_ref = weakref.ref(self)

        def fetch(url: str) -> bytes:
            service = service_ref()
            if service is None or service._closed:
                raise NotDownloadedError(
                    "The image is still at its URL, and its service is closed.",
                    hint="Fetch it with service.download(image) of an open service, or pass save_to=… to "
                    "download with the call.",
                )
            deadline = time.monotonic() + service._core.limits.timeout_s
            return service._run_flow(fetch_image(service._core, url, deadline), None)

        return fetch

    def _after_fork(self) -> None:
        self._swap_lock = threading.Lock()
        self._watchdog.after_fork()
        if isinstance(self._backend, ForkAware):
            self._backend.after_fork()


def _close_backend(backend: Backend, watchdog: Watchdog) -> None:
    watchdog.close()
    backend.close()


_SERVICES = ForkRegistry(ImageService._after_fork)
