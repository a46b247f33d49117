"""A server in a thread of this process, for tests and notebooks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from imgkit.errors import ConfigurationError
from imgkit.server.calls import ServedCall
from imgkit.server.image_server import ImageServer, StopReport
from imgkit.server.served_service import ServedService
from imgkit.server.settings import ServerSettings

START_S = 30.0


class ServerThread:
    """A server on a free port of this machine, for the time of a ``with`` block.

    Args:
        settings: settings of the server.
        make_service: makes its service in the thread; an offline service by default.

    Attributes:
        address: such as ``"http://127.0.0.1:41234"``.
        report: what the server has left; set at the end.

    Raises:
        ImgkitError: an argument is wrong, or the server cannot listen.

    Example:
        >>> import urllib.request
        >>> with ServerThread() as server:
        ...     urllib.request.urlopen(f"{server.address}/healthz").read()
        b'{"status": "ok"}'
    """

    def __init__(
        self,
        settings: ServerSettings | None = None,
        make_service: Callable[[], ServedService] = ServedService,
    ) -> None:
        self.address = ""
        self.report: StopReport | None = None
        self._settings = settings or ServerSettings(port=0)
        self._make_service = make_service
        self._started = threading.Event()
        self._problem: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None
        self._server: ImageServer | None = None
        self._thread = threading.Thread(target=self._run, name="imgkit-server", daemon=True)

    @property
    def base_url(self) -> str:
        """The base URL for clients, such as ``"http://127.0.0.1:41234/v1"``."""
        return f"{self.address}/v1"

    @property
    def last_calls(self) -> list[ServedCall]:
        """The last calls, the oldest first."""
        return [] if self._server is None else self._server.last_calls

    def stop(self) -> None:
        """Stop the server and wait for its end. Idempotent."""
        if self._loop is not None and self._stopped is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
        if self._thread.ident is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(START_S):
            if self._loop is not None and self._stopped is not None:
                self._loop.call_soon_threadsafe(self._stopped.set)
            raise ConfigurationError(f"The server did not start within {START_S:g} s.")
        if self._problem is not None:
            raise self._problem
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._problem is not None and error is None:
            raise self._problem

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._problem = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        service = self._make_service()
        try:
            server = ImageServer(service, self._settings)
            self.address = await server.start()
            self._server = server
        except BaseException:
            await service.close()
            raise
        self._started.set()
        await self._stopped.wait()
        self.report = await server.stop()
