"""The services behind a server: one for each provider, with calls whose images stay out of memory."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import NamedTuple

from imgkit.async_service import AsyncImageService
from imgkit.catalogue.pricing import find_prices
from imgkit.core.context import CallRecord, CallTurn, SentPart
from imgkit.core.key_checks import find_key_error
from imgkit.core.lifecycle import run_call
from imgkit.core.stream import run_stream
from imgkit.default_plugins.budget import CURRENCY, Budget, find_budget
from imgkit.errors import ImgkitError, NotSentError, SaveError
from imgkit.files import write_all
from imgkit.images.part_files import PartFile, PartFiles
from imgkit.images.saving import SavePlan
from imgkit.images.sidecars import SavableImage
from imgkit.images.sources import BytesSource, FileSource, Source
from imgkit.models import ImageRequest, ImagesResponse
from imgkit.pace.pace import Pace, PaceLimits
from imgkit.providers.base import StreamingProvider
from imgkit.providers.job_base import JobProvider, ProgressProvider
from imgkit.redact import format_suggestion
from imgkit.runtime.flow import Flow, sleep
from imgkit.runtime.streams import AsyncImageStream
from imgkit.server.late_reservations import LateReplies
from imgkit.server.reply_memory import ReplyMemory, ReplyPartFiles, is_in_memory
from imgkit.server.settings import ANY_MODEL, ServerSettings
from imgkit.wire.messages import Head

IN_MEMORY_BYTES = 128 * 1024
"""Largest image that stays in memory."""

_BLOCK_BYTES = 256 * 1024


class ServedService(AsyncImageService):
    """A service behind a server."""

    _public_name = AsyncImageService.__name__

    @property
    def can_stream(self) -> bool:
        """Whether the provider has streams, or work with previews."""
        return isinstance(self._core.provider, StreamingProvider | JobProvider | ProgressProvider)

    @property
    def provider_name(self) -> str:
        """The name of the provider."""
        return self._core.provider_name

    @property
    def model_ids(self) -> list[str]:
        """The models of the provider whose facts are known, without those that are shut down."""
        today = date.today()
        known = self._core.catalogue.list_models()
        return [model.id for model in known if model.shutdown is None or model.shutdown > today]

    @property
    def default_model(self) -> str | None:
        """The model of requests that name none."""
        return self._core.target.model

    @property
    def backend_name(self) -> str:
        """The name of the backend."""
        return self._core.backend_name

    @property
    def base_url(self) -> str:
        """The root of the API behind the server."""
        return self._core.target.base_url

    @property
    def budget(self) -> Budget | None:
        """The budget of its calls, None for none."""
        return find_budget(self._core.resources.ledgers)

    @property
    def may_cost(self) -> bool:
        """Whether calls reach a network, and so may cost something."""
        return self._core.target.host_class != "offline"

    @property
    def state_folder(self) -> Path | None:
        """The folder for data that outlives the process."""
        return self._core.settings.state_folder

    def find_currency(self, model: str) -> str | None:
        """Return the currency of a model's prices, None if no price is known; offline, the budget's."""
        if not self.may_cost:
            return CURRENCY
        found = self._core.catalogue.find_model(model, self._core.target.host_class)
        prices = None if found is None else find_prices(found)
        return None if prices is None else prices.currency

    def find_key_error(self) -> ImgkitError | None:
        """Return why requests of this service cannot be signed, None if they can. May block."""
        return find_key_error(self._core) if self.may_cost else None

    def open_sibling(self, provider: str) -> ServedService:
        """Return a service for another provider.

        Raises:
            ConfigurationError: there is no such provider, or it lacks a setting.
        """
        return self._open_sibling(provider)

    async def carry_out(
        self,
        request: ImageRequest,
        plan: ReplyPlan,
        record: CallRecord,
        cache: str | None,
        late_replies: LateReplies,
    ) -> ImagesResponse:
        """Carry out a request.

        Args:
            request: the request.
            plan: the place of its images.
            record: the record of its call.
            cache: use of the cache.
            late_replies: lets the spools have its reply once it is overdue.

        Raises:
            ImgkitError: as `imgkit.ImageService.create_image` documents it.
        """
        options = {
            "save_to": plan,
            "record": record,
            "cache": cache,
            "new_reservations": late_replies.new_reservations,
        }
        return await self._run_in_task(run_call(self._core, type(request), request, options), None)

    def open_stream(
        self, request: ImageRequest, plan: ReplyPlan, record: CallRecord, partial_images: int
    ) -> AsyncImageStream:
        """Carry out a request as a stream; see `carry_out`."""
        options = {"save_to": plan, "record": record, "partial_images": partial_images}
        return self._open_stream(run_stream(self._core, type(request), request, options), None)


class ServedRecord:
    """The record of a call at a server: an `imgkit.core.context.CallRecord`.

    Args:
        pace: the pace of the server's requests to this provider.
        is_stopping: returns whether the call should leave its job to a later process.

    Attributes:
        was_sent: a request has left, so the call may cost something.
        was_repeated: a request has left again, after an attempt that failed.
    """

    may_block = False

    def __init__(self, pace: Pace, is_stopping: Callable[[], bool]) -> None:
        self._pace = pace
        self._is_stopping = is_stopping
        self._left: set[int] = set()
        self.was_sent = False
        self.was_repeated = False

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more shall be sent."""
        return self._is_stopping()

    @property
    def is_stopping(self) -> bool:
        """Whether the call should leave its job."""
        return self._is_stopping()

    def take_turn(self, images: int) -> Flow[CallTurn]:
        """Wait until an attempt may be sent.

        Raises:
            NotSentError: the server stops.
        """
        while not self._is_stopping():
            found = self._pace.try_start(images, is_call=True)
            if not isinstance(found, float):
                return found
            yield from sleep(found)
        raise NotSentError("The server stops. Nothing was sent.")

    def note_reply(self, head: Head) -> None:
        """Let the pace learn the limits that a reply tells."""
        self._pace.note_reply(head.headers)

    def mark_sending(self, part: SentPart) -> None:
        """Do nothing: a server that is killed leaves its calls to the spool."""

    def mark_leaving(self, part: SentPart) -> None:
        """Note that an attempt leaves now; the parts of a split call leave once each."""
        self.was_sent = True
        self.was_repeated = self.was_repeated or part.first in self._left
        self._left.add(part.first)

    def mark_ended(self, part: SentPart) -> None:
        """Do nothing: the error of the call says what became of it."""

    def mark_delivered(self, response: ImagesResponse, parts: Sequence[tuple[SentPart, int]]) -> None:
        """Do nothing: the images are in the folder of the server."""


def make_pace(in_flight: int, per_minute: float | None) -> Pace:
    """Return the pace of a server's requests to a provider."""
    return Pace(PaceLimits(in_flight, 0, per_minute or 0, 0), is_gentle=False)


class ServedProvider(NamedTuple):
    """A provider behind the server.

    Attributes:
        service: its service.
        pace: the pace of requests to it.
    """

    service: ServedService
    pace: Pace


class ServedProviders:
    """The providers behind the server: that of its own service, and those that routes name.

    Args:
        own: the service of the server.
        settings: settings of the server.

    Raises:
        ConfigurationError: a route names a provider that does not exist, or that lacks a setting.
    """

    def __init__(self, own: ServedService, settings: ServerSettings) -> None:
        self._settings = settings
        self.own = ServedProvider(own, make_pace(settings.in_flight, settings.per_minute))
        self._by_name = {own.provider_name: self.own}
        for route in settings.routes.values():
            if route.provider is not None and route.provider not in self._by_name:
                service = own.open_sibling(route.provider)
                self._by_name[route.provider] = ServedProvider(
                    service, make_pace(settings.in_flight, settings.per_minute)
                )

    def find(self, provider: str | None) -> ServedProvider:
        """Return a provider, the server's own for None."""
        return self.own if provider is None else self._by_name[provider]

    @property
    def services(self) -> list[ServedService]:
        """The services of all providers."""
        return [served.service for served in self._by_name.values()]

    def describe_routes(self) -> list[tuple[str, str | None]]:
        """Return a sentence about each route, and what is doubtful about it, None for nothing."""
        described = []
        for name, route in self._settings.routes.items():
            service = self.find(route.provider).service
            known, model, doubt = service.model_ids, route.model or service.default_model, None
            if model is not None and known and model not in known:
                doubt = f"No facts are known about {service.provider_name}'s model {model!r}"
                doubt += f"{format_suggestion(model, known)}. Its requests are sent unchecked."
            asked = "other models" if name == ANY_MODEL else name
            answering = f"{model or 'the default model'} of {service.provider_name}"
            described.append((f"Requests for {asked} go to {answering}.", doubt))
        return described

    def list_models(self) -> list[tuple[str, str, str | None]]:
        """Return the names that callers may use, each with its provider and the model there."""
        own = self.own.service
        named = [
            (name, route.provider or own.provider_name, route.model)
            for name, route in self._settings.routes.items()
            if name != ANY_MODEL
        ]
        known = own.model_ids if own.default_model is None else [own.default_model, *own.model_ids]
        taken = {name for name, _, _ in named}
        named += [(name, own.provider_name, name) for name in dict.fromkeys(known) if name not in taken]
        return named

    async def close(self) -> None:
        """Close all services; calls that still run end with an error."""
        for served in self._by_name.values():
            await served.service.close()
            served.pace.close()


@dataclass(frozen=True)
class ReplyPlan(SavePlan):
    """The place of a reply's images: the memory that all replies share, or else files of the server.

    >>> ReplyPlan.for_call(Path("work"), "c0ffee", ReplyMemory()).pattern
    'c0ffee-{index}.{ext}'

    Attributes:
        memory: the memory of all replies.
    """

    memory: ReplyMemory = field(default_factory=ReplyMemory)

    @classmethod
    def for_call(cls, folder: Path, call_id: str, memory: ReplyMemory) -> ReplyPlan:
        """Return the plan of a call.

        Args:
            folder: the folder of the server.
            call_id: id of the call.
            memory: the memory of all replies.
        """
        pattern = f"{call_id}-{{index}}.{{ext}}"
        return cls(folder, pattern, make_folder=False, overwrite=True, sidecar=False, memory=memory)

    @property
    def needs_check(self) -> bool:
        """False: the folder is the server's own."""
        return False

    def make_part_files(self, digests: bool, cleanup: ExitStack) -> PartFiles:
        """Return the part files of a reply; they stay in memory while there is room."""
        files = ReplyPartFiles(self.folder, self.memory, digests=digests)
        cleanup.callback(files.close)
        return files

    def build_path(self, image: SavableImage, digest: str, count: int) -> Path:
        """Return the path of an image."""
        return self.folder / self.pattern.format(index=image.index + 1, ext=image.format or "bin")

    def may_block(self, image: SavableImage) -> bool:
        """Return whether an image is on the disk, or goes there."""
        source = image.source
        return source.length > IN_MEMORY_BYTES and not is_in_memory(source)

    def write(self, image: SavableImage, count: int) -> Path:
        """Give a large image its name, without a flush to the disk; leave a small image in memory.

        Raises:
            SaveError: the disk is full.
        """
        source, path = image.source, self.build_path(image, "", count)
        if is_in_memory(source):
            return path
        if source.length <= IN_MEMORY_BYTES and (not isinstance(source, PartFile) or source.path is None):
            return path
        try:
            if isinstance(source, PartFile) and source.can_be_renamed:
                source.write()
                if source.can_be_renamed and source.path is not None:
                    os.replace(source.path, path)
                    source.record_move(path)
                    return path
            write_file(path, source)
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            if not isinstance(source, PartFile) or source.path is None:
                return path  # the image stays in memory: it was paid for, and its client waits
            raise SaveError(
                f"The server cannot write an image to its disk ({error.strerror or error}).", images=(image,)
            ) from None
        return path


def write_file(path: Path, source: Source) -> None:
    """Write an image to a new file of the server. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    try:
        for position in range(0, source.length, _BLOCK_BYTES):
            write_all(descriptor, source.read_at(_BLOCK_BYTES, position))
    finally:
        os.close(descriptor)


def keep_partial(folder: Path, source: Source) -> Source:
    """Return a partial image that outlives its call, in a file if it is large. May block.

    Raises:
        OSError: the disk is full.
    """
    if source.length <= IN_MEMORY_BYTES:
        return BytesSource(source.read())
    path = folder / f"partial-{secrets.token_hex(8)}.bin"
    write_file(path, source)
    return FileSource.from_path(path)
