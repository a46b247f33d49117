"""A server with OpenAI's Images API in front of a service: start, stop, and what is left at the end."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp.web import BaseRequest, StreamResponse

from imgkit.default_plugins.budget import Budget
from imgkit.errors import ConfigurationError, ImgkitError
from imgkit.images.image import Image
from imgkit.models import Estimate
from imgkit.server.api import Api
from imgkit.server.asked import find_route
from imgkit.server.borders import Borders
from imgkit.server.call_runner import CallRunner, ServerContext
from imgkit.server.calls import CallBook, ServedCall
from imgkit.server.envelopes import PRICE_ADVICE
from imgkit.server.history import History
from imgkit.server.late_reservations import LATE_S, LateReplies
from imgkit.server.result_files import ResultFiles
from imgkit.server.served_service import ServedProviders, ServedService
from imgkit.server.server_files import keep_image, list_unfinished, open_work_folder
from imgkit.server.settings import ServerSettings, is_loopback
from imgkit.server.silent_clients import ConnectionServer

BACKLOG = 1024
"""Connections that wait for the server to accept them."""

PORT_ATTEMPTS = 20
"""Most attempts to find a port that is free on all addresses of a host."""

LAST_S = 2.0
"""Seconds for the last replies, after calls were ended."""


class StopReport(NamedTuple):
    """What a server leaves when it stops.

    Attributes:
        unfinished: facts about calls that did not finish, as JSON values.
        kept: paths of images that no client has, and why others could not be kept.
        listed_in: the file that lists the unfinished calls, None without a state folder.
    """

    unfinished: Sequence[Mapping[str, object]]
    kept: Sequence[str]
    listed_in: Path | None


class ImageServer:
    """A server with OpenAI's Images API.

    Args:
        service: the service behind it, which the server closes.
        settings: its settings.
        budget: the budget to show, that of the service by default.
        modes: facts about it for its page.
        warn: is given each warning of a call, once, and the places of images that no client has.

    Raises:
        ConfigurationError: a setting is wrong.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     server = ImageServer(ServedService(), ServerSettings(port=0))
        ...     address = await server.start()
        ...     report = await server.stop()
        ...     return address.rpartition(":")[0], report.unfinished
        >>> asyncio.run(main())
        ('http://127.0.0.1', [])
    """

    def __init__(
        self,
        service: ServedService,
        settings: ServerSettings,
        *,
        budget: Budget | None = None,
        modes: Mapping[str, object] | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        settings.check()
        self.settings = settings
        self._service = service
        self._budget = service.budget if budget is None else budget
        self._modes = dict(modes or {})
        self._warn = warn
        self._state_folder = service.state_folder
        self._kept: list[str] = []

    async def start(self) -> str:
        """Listen; return the address, such as ``"http://127.0.0.1:8100"``.

        Raises:
            ConfigurationError: the port is in use, the address is not of this machine, or a folder cannot be
                written.
        """
        settings = self.settings
        providers = ServedProviders(self._service, settings)
        self._hurry = asyncio.Event()
        folder, self._lock = await asyncio.to_thread(open_work_folder, self._state_folder)
        self._context = ServerContext(
            settings=settings,
            providers=providers,
            folder=folder,
            book=CallBook(settings.repeat_s, self._drop_call),
            results=ResultFiles(settings.link_s, self._keep_image),
            history=History(has_prompts=settings.has_prompts, warn=self._warn),
            late_replies=LateReplies(),
        )
        self._runner = CallRunner(self._context)
        self._api = Api(self._context, self._runner, self._budget, self._modes)
        self._connections = ConnectionServer(self._answer)
        self._spooling = asyncio.create_task(self._keep_late_replies())
        host = settings.host.strip("[]")
        try:
            self._listener = await _bind_addresses(self._connections, host, settings.port)
        except (OSError, ValueError) as error:  # ValueError: the host is no name
            await self._connections.shutdown()
            await providers.close()
            await self._close_folder()
            raise _explain_listen_error(error, settings) from None
        port = self._listener.sockets[0].getsockname()[1]
        self._api.borders = Borders(settings, port)
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        own = next((each for each in providers.services if _is_own_address(each, settings, port)), None)
        if own is not None:
            await self.stop()
            raise ConfigurationError(
                f"The base URL {own.base_url} is this server itself. Unset OPENAI_BASE_URL for the "
                "server, or pass the --base-url of the provider."
            )
        await self._listener.start_serving()
        return self.address

    def list_routes(self) -> list[tuple[str, str | None]]:
        """Return a sentence about each route, and what is doubtful about it, None for nothing."""
        return self._context.providers.describe_routes()

    def list_key_errors(self) -> list[ImgkitError]:
        """Return why providers cannot be asked: their keys are missing or cannot be used. May block."""
        services = self._context.providers.services
        return [error for service in services if (error := service.find_key_error()) is not None]

    def find_price_doubt(self) -> str | None:
        """Return why the budget refuses requests for the default model, or all requests; None if it does not.

        Without a price it cannot limit their cost.
        """
        if self._budget is None or self._budget.can_reserve(Estimate()):
            return None
        providers = self._context.providers
        route = find_route(None, self.settings.routes)
        default = route.model or providers.find(route.provider).service.default_model
        listed = [(provider, model or name) for name, provider, model in providers.list_models()]
        models = listed if default is None else [(route.provider, default)]
        currencies = {providers.find(provider).service.find_currency(model) for provider, model in models}
        known = [Estimate(high=Decimal(0), currency=each) for each in currencies if each is not None]
        if any(map(self._budget.can_reserve, known)):
            return None
        if default is None:
            problem = "No price of a listed model is known, so --max-cost refuses their requests."
        else:
            problem = f"The price of {default!r} is not known, so --max-cost refuses its requests."
        return f"{problem} {PRICE_ADVICE}"

    @property
    def running(self) -> list[ServedCall]:
        """The calls that run."""
        return self._context.book.running

    @property
    def last_calls(self) -> list[ServedCall]:
        """The last calls, the oldest first."""
        return self._context.history.calls

    def hurry(self) -> None:
        """Let a stop that is under way wait for no call any longer."""
        self._hurry.set()

    async def stop(self, within_s: float | None = None) -> StopReport:
        """Stop: take no more requests, let running calls end, and keep what no client has.

        Args:
            within_s: seconds for running calls; those of the settings by default. Calls that take longer
                leave their jobs pending, or end with an error that says whether they may be billed.
        """
        within_s = self.settings.stop_s if within_s is None else within_s
        context = self._context
        self._api.is_stopping = True
        self._listener.close()
        running = context.book.running
        await self._wait_for_calls(running, within_s)
        late = [call for call in running if call.is_running]
        self._runner.must_leave_jobs = True
        if late:
            await self._wait_for_calls(late, LAST_S / 2)
            await context.providers.close()
            await self._wait_for_calls(late, LAST_S)
        await self._wait_for_readers(LAST_S)
        self._connections.pre_shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self._connections.shutdown(LAST_S / 2)
        await context.providers.close()
        unfinished = [context.history.describe(call) for call in late if call.state != "done"]
        listed_in = None
        if unfinished and self._state_folder is not None:
            with suppress(OSError):
                listed_in = await asyncio.to_thread(list_unfinished, self._state_folder, unfinished)
        await context.book.close()
        await context.results.close()
        await self._close_folder()
        return StopReport(unfinished, self._kept, listed_in)

    async def _answer(self, request: BaseRequest) -> StreamResponse:
        self._connections.note_request(request)
        try:
            return await self._api.answer(request)
        finally:
            self._connections.note_reply(request)

    async def _wait_for_calls(self, calls: Sequence[ServedCall], within_s: float) -> None:
        """Wait until calls have ended, or until somebody is in a hurry."""

        async def wait_for_all() -> bool:
            for call in calls:
                await call.wait_for_end()
            return True

        waiting = [asyncio.create_task(wait_for_all()), asyncio.create_task(self._hurry.wait())]
        await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        self._hurry.clear()

    async def _wait_for_readers(self, within_s: float) -> None:
        """Wait until clients have read the replies of calls that have ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while any(call.readers for call in self._context.book.kept if not call.is_running):
                    await asyncio.sleep(0.02)

    async def _drop_call(self, call: ServedCall) -> None:
        """Forget a call; keep its images if they were paid for and no client has them."""
        response = call.response
        is_needed = not call.is_delivered and not call.has_links
        if response is not None and is_needed and call.was_sent():
            for image in response.images:
                await self._keep_image(image)
        await call.remove_files()

    async def _keep_image(self, image: Image) -> None:
        """Save a paid image that no client has, and tell where: now, or in the report of a stop."""
        if self._state_folder is None:
            return
        line = await asyncio.to_thread(keep_image, self._state_folder, image)
        if self._api.is_stopping:
            self._kept.append(line)
        else:
            self._warn(f"No client has read this paid image: {line}")

    async def _keep_late_replies(self) -> None:
        """Bring replies to the disk that take longer than a moment to arrive, or to be read."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LATE_S / 2)
            try:
                for reservations in self._context.late_replies.list_overdue():
                    await asyncio.to_thread(reservations.spool)
                for call in self._context.book.kept:
                    if call.is_late(LATE_S):
                        await call.write_files()
            except Exception as error:  # the next replies need the disk, too
                problem = "imgkit could not bring a reply to the disk"
                loop.call_exception_handler({"message": problem, "exception": error})

    async def _close_folder(self) -> None:
        self._spooling.cancel()
        await asyncio.to_thread(shutil.rmtree, self._context.folder, ignore_errors=True)
        self._lock.release()


async def _bind_addresses(connections: ConnectionServer, host: str, port: int) -> asyncio.Server:
    """Bind the addresses of a host, such as the two of `localhost`, to a port, all to the same.

    Raises:
        OSError: an address cannot be bound.
        ValueError: the host is no name.
    """
    loop = asyncio.get_running_loop()
    for _ in range(PORT_ATTEMPTS):
        listener = await loop.create_server(connections, host, port, backlog=BACKLOG, start_serving=False)
        ports = [each.getsockname()[1] for each in listener.sockets]
        if len(set(ports)) == 1:
            return listener
        # The system has chosen a port for each address.
        listener.close()
        with suppress(OSError):  # another program may have the first port on the second address
            return await loop.create_server(connections, host, ports[0], backlog=BACKLOG, start_serving=False)
    raise OSError(errno.EADDRINUSE, "no port is free on all addresses of the host")


def _is_own_address(service: ServedService, settings: ServerSettings, port: int) -> bool:
    """Return whether a service sends its requests to the server that asks it."""
    parts = urlsplit(service.base_url)
    host = (parts.hostname or "").rstrip(".")
    is_here = is_loopback(host) or host in ("0.0.0.0", settings.host.lower(), *settings.hosts)  # noqa: S104
    return service.may_cost and is_here and parts.port == port


def _explain_listen_error(error: OSError | ValueError, settings: ServerSettings) -> ConfigurationError:
    number, reason = getattr(error, "errno", None), getattr(error, "strerror", None) or error
    if number == errno.EADDRINUSE:
        return ConfigurationError(
            f"Port {settings.port} is in use on {settings.host}. Pass another --port, or --port 0 for a free "
            "one."
        )
    if number == errno.EACCES:
        return ConfigurationError(
            f"Port {settings.port} is reserved for the system. Pass a --port above 1023."
        )
    return ConfigurationError(
        f"Cannot listen on {settings.host}:{settings.port} ({reason}). Pass an address of this machine as "
        "--host."
    )
