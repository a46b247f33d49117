"""The dialect of OpenAI's Images API, which many other servers speak too.

Source: openai-python 3.54.0 (2026-11-17) and the API reference, read 2026-11-23. What goes out means the
same as what that SDK sends: same paths, members, form field names and file bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any, ClassVar

import pybase64

from imgkit.catalogue.catalogue import Catalogue
from imgkit.errors import (
    EmptyResultError,
    ImgkitError,
    InvalidRequestError,
    MissingModelError,
)
from imgkit.images.inputs import ImageFile, ImageReference, OpenedInputs
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageRequest,
    field_names,
)
from imgkit.providers.base import DecodedImage, DecodedImages, DecodedPartialImage, ReplyBody, Target
from imgkit.providers.pictures import content_of, unreadable
from imgkit.redact import Secret
from imgkit.schemas.responses import IMAGE_SCHEMA, REPLY_SCHEMA
from imgkit.wire.json_values import with_text
from imgkit.wire.messages import Body, BytesBody, Head, HttpRequest

PATHS: dict[type[ImageRequest], str] = {
    CreateImageRequest: "/images/generations",
    CreateImageEditRequest: "/images/edits",
    CreateImageVariationRequest: "/images/variations",
}
_NOT_MEMBERS = ("image", "mask", "markup", "extra_body", "extra_headers")


class OpenAIProvider:
    """`provider="openai"`: see `imgkit.providers.base.Provider`."""

    base_url: ClassVar[str] = "https://api.openai.com/v1"
    env: ClassVar[Mapping[str, str]] = {
        "api_key": "OPENAI_API_KEY",
        "base_url": "OPENAI_BASE_URL",
        "organization": "OPENAI_ORG_ID",
        "project": "OPENAI_PROJECT_ID",
    }
    base64_keys: ClassVar[frozenset[str]] = frozenset({"b64_json"})
    model_facts: ClassVar[str] = "imgkit.providers:openai.toml"
    takes_references: ClassVar[bool] = True

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse a request without a model on the official host, which has no default any more."""
        named = request.model or target.model or (request.extra_body or {}).get("model")
        if target.host_class == "official" and not named:
            known = Catalogue("", self.model_facts)
            live = ", ".join(known.live(date.today()))
            raise MissingModelError(
                f"{self.base_url} needs a model to be named: pass model=… or set IMGKIT_MODEL. "
                f"Live, as read on {known.as_of}: {live}."
            )

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the request: JSON for a creation and for references, a form for files."""
        members = _members(request, target)
        body: Body
        if isinstance(request, CreateImageRequest) or inputs.has_references:
            members = {**_as_json(inputs), **members}
            body = BytesBody(_TO_JSON.encode(members).encode("utf-8"), "application/json")
        else:
            from imgkit.providers.openai_forms import form

            body = form(members, inputs)
        headers: dict[str, str] = {"accept": "application/json", "accept-encoding": "identity"}
        if target.organization:
            headers["openai-organization"] = target.organization
        if target.project:
            headers["openai-project"] = target.project
        for name, value in (request.extra_headers or {}).items():
            if value is None:
                headers.pop(name, None)
            else:
                headers[name] = value
        return HttpRequest("POST", self.url(request, target), headers, body)

    def url(self, request: ImageRequest, target: Target) -> str:
        """Return where a request goes; dialects that differ in little else have their own."""
        return target.base_url + PATHS[type(request)]

    def models_request(self, target: Target) -> HttpRequest:
        """Return the request for the models, which costs nothing."""
        return HttpRequest("GET", f"{target.base_url}/models", {"accept": "application/json"})

    def encode_stream(
        self, request: ImageRequest, inputs: OpenedInputs, target: Target, partial_images: int | None
    ) -> HttpRequest:
        """Return what `encode` does, with ``stream``, and with ``partial_images`` where it is given."""
        if request.response_format is not None:
            raise InvalidRequestError({"response_format": "streams carry the pictures: leave it out."})
        more = {} if partial_images is None else {"partial_images": partial_images}
        asking = replace(request, extra_body={**(request.extra_body or {}), "stream": True, **more})
        made = self.encode(asking, inputs, target)
        if "accept" in (request.extra_headers or {}):
            return made
        return replace(made, headers={**made.headers, "accept": "text/event-stream"})

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages:
        """Return the pictures of a reply; whatever is wrong with one never costs another."""
        try:
            if head.status in (204, 205, 206):
                raise ValueError(f"HTTP {head.status} carries no whole reply")
            reply = body.json()
            if not isinstance(reply, dict):
                raise ValueError(f"a JSON {type(reply).__name__} instead of an object")
        except ValueError as error:
            raise unreadable(head, body, str(error)) from None
        entries = reply.pop("data", None)
        if not entries and reply.get("error"):
            from imgkit.providers.errors import error_from_reply

            raise error_from_reply(head, body.raw(), secrets)
        if entries is not None and not isinstance(entries, list):
            raise unreadable(head, body, f"data is a JSON {type(entries).__name__}")
        read = REPLY_SCHEMA.read(with_text(reply))
        pictures, broken, empty = _pictures(entries or [], target)
        if not pictures and broken:
            raise unreadable(head, body, "; ".join(broken))
        if not pictures:
            raise EmptyResultError(
                f"HTTP {head.status} without pictures (request id {head.request_id or 'not given'}): it may "
                "have been billed. Try another prompt, or ask the provider with the request id.",
                request_id=head.request_id,
            )
        return DecodedImages(
            pictures=tuple(pictures),
            created=read.created,
            usage=read.usage.to_usage() if read.usage else None,
            background=read.background,
            output_format=read.output_format,
            size=read.size,
            quality=read.quality,
            warnings=(*read.warnings, *broken, *empty),
            damaged=bool(broken or empty),
            extra=read.extra,
        )

    def decode_event(
        self, head: Head, data: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedPartialImage | DecodedImages | None:
        """Return what an event says, by its ``type``; what it does not know is passed over."""
        from imgkit.providers.openai_events import read_event

        return read_event(head, data, target, secrets)

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return what a reply that is not 2xx means."""
        from imgkit.providers.errors import error_from_reply

        return error_from_reply(head, body, secrets)


_TO_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def _members(request: ImageRequest, target: Target) -> dict[str, Any]:
    """Return what the caller set, and nothing else, in the request's own order."""
    members = {
        name: value
        for name in field_names(type(request))
        if name not in _NOT_MEMBERS and (value := getattr(request, name)) is not None
    }
    if target.model and "model" not in members:
        members["model"] = target.model
    return {**members, **(request.extra_body or {})}


def _as_json(inputs: OpenedInputs) -> dict[str, Any]:
    """Return pictures as members of a JSON edit: named, or as ``data:`` URLs (api reference, 2026-11-23)."""
    found: dict[str, Any] = {"images": [_named(one) for one in inputs.image]} if inputs.image else {}
    for role, extra in (("mask", inputs.mask), ("markup", inputs.markup)):
        if extra is not None:
            found[role] = _named(extra)
    return found


def _named(one: ImageFile | ImageReference) -> dict[str, str]:
    if isinstance(one, ImageReference):
        return {"file_id": one.file_id} if one.file_id is not None else {"image_url": one.url or ""}
    encoded = pybase64.b64encode(one.read()).decode("ascii")
    return {"image_url": f"data:{one.kind.media_type};base64,{encoded}"}


def _pictures(entries: list[Any], target: Target) -> tuple[list[DecodedImage], list[str], list[str]]:
    """Return the pictures, what is wrong with entries, and which entries hold nothing."""
    pictures: list[DecodedImage] = []
    broken: list[str] = []
    empty: list[str] = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            broken.append(f"data.{index} is a JSON {type(entry).__name__}")
            continue
        encoded = entry.pop("b64_json", None)
        rest = IMAGE_SCHEMA.read(with_text(entry))
        content, problems = content_of(encoded, rest.url, target)
        broken += [f"data.{index} {problem}" for problem in problems]
        if content:
            pictures.append(DecodedImage(**content, revised_prompt=rest.revised_prompt, extra=rest.extra))
        elif not problems:
            empty.append(f"data.{index} holds no picture")
    return pictures, broken, empty
