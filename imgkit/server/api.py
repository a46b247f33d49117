"""The addresses of a server: what each request is answered with."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from aiohttp.web import BaseRequest, Response, StreamResponse

from imgkit._version import __version__
from imgkit.default_plugins.budget import CURRENCY, Budget
from imgkit.errors import ImgkitError, InvalidRequestError
from imgkit.models import Estimate, Operation, count_requested_images
from imgkit.redact import format_suggestion
from imgkit.server.asked import build_asked_call
from imgkit.server.borders import FILES_PATH, Borders
from imgkit.server.call_runner import JSON_HEADERS, CallRunner, ServerContext
from imgkit.server.envelopes import ErrorReply, Rejection, build_error_reply, build_rejection
from imgkit.server.page_reply import load_page
from imgkit.server.received_bodies import receive_body
from imgkit.server.served_service import IN_MEMORY_BYTES
from imgkit.server.upload_folder import UploadFolder

Handler: TypeAlias = Callable[[BaseRequest], Awaitable[StreamResponse]]

OPERATIONS: Mapping[str, Operation] = {
    "/v1/images/generations": "create_image",
    "/v1/images/edits": "create_image_edit",
    "/v1/images/variations": "create_image_variation",
}
MODELS_PATH = "/v1/models"
MOST_RUNNING = 1000
"""Most calls that run, or wait for their turn: each keeps its images on the disk."""


class Api:
    """Answers the requests of a server.

    Args:
        context: the server.
        runner: carries out its calls.
        budget: its budget, None for none.
        modes: facts about it for its page, such as ``{"cache": True}``.

    Attributes:
        borders: decides whom it answers; set once its port is known.
        is_stopping: it takes no more requests for images.
    """

    borders: Borders

    def __init__(
        self,
        context: ServerContext,
        runner: CallRunner,
        budget: Budget | None,
        modes: Mapping[str, object],
    ) -> None:
        self._context = context
        self._runner = runner
        settings = context.settings
        self._uploads = UploadFolder(context.folder, settings.max_uploads_bytes, settings.max_body_bytes)
        self._budget = budget
        self._modes = modes
        self.is_stopping = False
        self._handlers: dict[tuple[str, str], Handler] = {
            ("GET", "/"): self._show_page,
            ("GET", "/healthz"): self._show_health,
            ("GET", "/status"): self._show_status,
            ("GET", MODELS_PATH): self._list_models,
            ("POST", "/estimate"): self._estimate,
            **{("POST", path): self._make_images for path in OPERATIONS},
        }

    async def answer(self, request: BaseRequest) -> StreamResponse:
        """Answer a request.

        Raises:
            ConnectionError: the client left.
        """
        cors: Mapping[str, str] = {}
        try:
            self.borders.check_page(request)
            cors = self.borders.cors_headers(request)
            self.borders.check_caller(request)
            if request.method == "OPTIONS":
                return Response(status=204, headers=cors)
            response = await self._find_handler(request)(request)
        except Rejection as rejected:
            response = self._send_error(build_rejection(rejected), closes=rejected.closes)
        if not response.prepared:
            response.headers.update(cors)
        return response

    def _find_handler(self, request: BaseRequest) -> Handler:
        method = "GET" if request.method == "HEAD" else request.method
        handler = self._handlers.get((method, request.path))
        if handler is not None:
            return handler
        if method == "GET" and request.path.startswith(FILES_PATH):
            return self._send_file
        if method == "GET" and request.path.startswith(f"{MODELS_PATH}/"):
            return self._show_model
        methods = sorted({known for known, path in self._handlers if path == request.path})
        if methods:
            raise Rejection(
                405,
                "method_not_allowed",
                f"{request.path} takes {' and '.join(methods)}, not {request.method[:20]}. Nothing was sent.",
                headers={"allow": ", ".join(methods)},
                closes=True,
            )
        is_operation = any(request.path.endswith(path.removeprefix("/v1")) for path in OPERATIONS)
        advice = " Set the base URL of your client to …/v1." if is_operation else ""
        raise Rejection(
            404,
            "unknown_url",
            f"There is no address {request.path[:200]!r} here.{advice} This server has "
            f"{', '.join([*OPERATIONS, MODELS_PATH])}. Nothing was sent.",
            closes=True,
        )

    # --- Images ------------------------------------------------------------------------------

    async def _make_images(self, request: BaseRequest) -> StreamResponse:
        operation, context = OPERATIONS[request.path], self._context
        self._check_running()
        retries = _read_count(request.headers.get("x-stainless-retry-count"))
        body = await receive_body(request, self._uploads, context.settings.max_body_bytes)
        try:
            asked = build_asked_call(
                operation, body, context.settings.routes, takes_unknown=self._budget is None
            )
        except InvalidRequestError as error:
            return self._send_error(build_error_reply(error, None))
        cors = self.borders.cors_headers(request)
        key = body.digest(operation)
        call = context.book.find_repeated(key, retries)
        if call is None:
            self._check_room()
            self._check_running()  # a stop may have begun while the body came, and waits for older calls
            is_secure = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip() == "https"
            root = f"{'https' if is_secure else 'http'}://{request.headers['host']}"
            call = self._runner.start(operation, asked, body, key, root)
        else:
            context.history.note_join(call)
        del body, asked  # the call has its own; a slow reader needs no images of the request
        return await call.send(request, cors)

    def _check_running(self) -> None:
        """Refuse a request for images while the server stops.

        Raises:
            Rejection: it stops.
        """
        if self.is_stopping:
            raise Rejection(
                503,
                "server_stopping",
                "The server stops. Nothing was sent. Send the request again once it runs.",
                headers={"x-should-retry": "true", "retry-after": "2"},
                closes=True,
            )

    def _check_room(self) -> None:
        """Refuse a call if too many wait for their turn at a provider.

        Raises:
            Rejection: there is no room.
        """
        if self._context.history.counts["running"] >= MOST_RUNNING:
            raise Rejection(
                503,
                "server_busy",
                f"{MOST_RUNNING} requests run or wait already. Nothing was sent. Send it again later.",
                headers={"x-should-retry": "true", "retry-after": "5"},
            )

    # --- Other addresses ---------------------------------------------------------------------

    async def _send_file(self, request: BaseRequest) -> StreamResponse:
        name = request.path.removeprefix(FILES_PATH)
        linked = self._context.results.find(name)
        try:
            first = linked.source.read_at(IN_MEMORY_BYTES, 0) if linked is not None else b""
        except ImgkitError:  # somebody has deleted its file
            linked = None
        if linked is None:
            raise Rejection(
                404, "expired_url", "There is no such image here: its URL has expired. Nothing was sent."
            )
        response = StreamResponse(
            headers={
                "content-type": linked.media_type,
                "cache-control": "private, max-age=3600",
                "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
                "x-content-type-options": "nosniff",
                "content-disposition": f'inline; filename="{name}"',
                **self.borders.cors_headers(request),
            }
        )
        response.content_length = linked.source.length
        await response.prepare(request)
        if request.method != "HEAD":
            await response.write(first)
            for position in range(IN_MEMORY_BYTES, linked.source.length, IN_MEMORY_BYTES):
                await response.write(linked.source.read_at(IN_MEMORY_BYTES, position))
            self._context.results.note_fetched(name)
        await response.write_eof()
        return response

    async def _list_models(self, request: BaseRequest) -> StreamResponse:
        return _send_json({"object": "list", "data": [_describe_model(*each) for each in self._models()]})

    async def _show_model(self, request: BaseRequest) -> StreamResponse:
        name = request.path.removeprefix(f"{MODELS_PATH}/")
        models = {each[0]: each for each in self._models()}
        found = models.get(name)
        if found is None:
            raise Rejection(
                404,
                "model_not_found",
                f"The model {name[:200]!r} is not listed here"
                f"{format_suggestion(name, models)}. Other models of the provider may work, too. "
                "Nothing was sent.",
            )
        return _send_json(_describe_model(*found))

    def _models(self) -> list[tuple[str, str, str | None]]:
        return self._context.providers.list_models()

    async def _estimate(self, request: BaseRequest) -> StreamResponse:
        context = self._context
        body = await receive_body(request, self._uploads, 1024 * 1024)
        try:
            asked = build_asked_call("create_image", body, context.settings.routes)
            service = context.providers.find(asked.provider).service
            bounds = service.estimate(asked.request, partial_images=asked.partial_images)
            if bounds.currency != CURRENCY:  # the members of the reply are in dollars
                bounds = Estimate(note=f"its price is {bounds}")
            note = self._build_note(bounds, service.may_cost)
            if self._budget is not None and service.may_cost:
                bounds = self._budget.complete_estimate(bounds, count_requested_images(asked.request))
        except ImgkitError as error:
            return self._send_error(build_error_reply(error, None))
        return _send_json(
            {
                "low_usd": None if bounds.low is None else f"{bounds.low:f}",
                "high_usd": None if bounds.high is None else f"{bounds.high:f}",
                "note": note,
                "as_of": bounds.as_of and str(bounds.as_of),
            }
        )

    def _build_note(self, bounds: Estimate, may_cost: bool) -> str:
        """Return the basis of an estimate, and what the budget does about an unknown price."""
        budget = self._budget
        if budget is None or not may_cost:
            return bounds.note
        why = f"{bounds.note.rstrip('.') or 'The price is unknown'}. "
        if not budget.can_reserve(bounds):
            return f"{why}The budget of this server refuses the request, because it cannot limit its cost."
        if budget.complete_estimate(bounds) == bounds:
            return bounds.note
        price = budget.price_per_image
        return f"{why}The budget of this server reserves {price} USD for each image (--price-per-image)."

    async def _show_health(self, request: BaseRequest) -> StreamResponse:
        return _send_json({"status": "stopping" if self.is_stopping else "ok"})

    async def _show_status(self, request: BaseRequest) -> StreamResponse:
        context, budget = self._context, self._budget
        history, service = context.history, context.providers.own.service
        counts = history.counts
        spent = history.cost_usd if budget is None else budget.spent
        return _send_json(
            {
                "name": "imgkit",
                "version": __version__,
                **self._modes,
                "backend": service.backend_name,
                "provider": service.provider_name,
                "model": service.default_model,
                "models": [
                    {"id": name, "provider": provider, "model": model}
                    for name, provider, model in self._models()
                ],
                "max_cost_usd": None if budget is None else f"{budget.limit:f}",
                "spent_usd": f"{spent:f}",
                "reserved_usd": None if budget is None else f"{budget.reserved:f}",
                "left_usd": None if budget is None else f"{budget.left:f}",
                "unpriced": history.unpriced if budget is None else budget.unpriced,
                "started_at": history.started_at,
                "running": counts.pop("running"),
                "counts": counts,
                "has_prompts": context.settings.has_prompts,
                "needs_token": context.settings.token is not None,
                "requests": history.list_calls(),
            }
        )

    async def _show_page(self, request: BaseRequest) -> StreamResponse:
        page = load_page()
        return Response(body=page.body, headers=page.headers)

    def _send_error(self, reply: ErrorReply, *, closes: bool = False) -> Response:
        headers = {"x-should-retry": "false", **JSON_HEADERS, **reply.headers}
        response = Response(status=reply.status, body=json.dumps(reply.envelope).encode(), headers=headers)
        if closes:
            response.force_close()
        return response


def _send_json(value: object) -> Response:
    return Response(body=json.dumps(value).encode(), headers=JSON_HEADERS)


def _describe_model(name: str, provider: str, model: str | None) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": provider}


def _read_count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 6 else None
