"""The dialect of OpenAI's Images API, which many other servers share.

Source: openai-python 3.54.0 (2026-11-17) and the API reference, read 2026-11-23. Requests equal those of
the SDK in paths, members, form field names and file bytes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import date
from typing import Any, ClassVar
from urllib.parse import urlsplit

from imgkit.catalogue.catalogue import Catalogue
from imgkit.errors import (
    ConfigurationError,
    ImgkitError,
    InvalidRequestError,
    MissingModelError,
)
from imgkit.images.inputs import ImageFile, OpenedInputs
from imgkit.images.references import ImageReference
from imgkit.models import (
    Cost,
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageRequest,
    Operation,
    field_names,
    resolve_model,
)
from imgkit.providers.base import (
    DecodedImage,
    DecodedImages,
    DecodedPartialImage,
    ReplyBody,
    Target,
)
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.json_requests import to_data_url
from imgkit.providers.reply_images import decode_content, unreadable_reply_error
from imgkit.redact import Secret
from imgkit.schemas.replies import IMAGE_SCHEMA, REPLY_SCHEMA
from imgkit.wire.json_values import JsonObject, restore_base64
from imgkit.wire.messages import Body, BytesBody, Head, HttpRequest

PATHS: dict[type[ImageRequest], str] = {
    CreateImageRequest: "/images/generations",
    CreateImageEditRequest: "/images/edits",
    CreateImageVariationRequest: "/images/variations",
}
EVENT_TYPES = "text/event-stream, application/json"
"""The Accept header of a stream: some servers refuse a request that takes events alone."""

AZURE_HOSTS = ("*.openai.azure.com", "*.services.ai.azure.com", "*.cognitiveservices.azure.com")
"""The hosts of OpenAI's models at Azure, as `Provider.official_hosts` writes them."""

_NOT_MEMBERS = ("image", "mask", "markup", "model_options", "extra_body", "extra_headers")
_FOREIGN = frozenset({"aspect_ratio", "resolution", "seed", "negative_prompt"})
_REQUESTS: Mapping[Operation, type[ImageRequest]] = {kind.operation: kind for kind in PATHS}


class OpenAIDialect(BaseProvider):
    """The base class of the APIs in OpenAI's shape; it does not stream.

    A subclass sets the members of `BaseProvider`, and overrides the methods where its API differs. An API
    that also streams OpenAI's events derives from `OpenAIProvider`.

    Attributes:
        paths: the address of each operation below the base URL.
        sends_json: send edits as JSON, too, with their images in `encode_inputs`.
        has_free_failures: OpenAI's own error object under 500 or 503 proves that nothing was billed.

    Example:
        >>> class AcmeProvider(OpenAIDialect):
        ...     base_url = "https://api.acme.example/v1"
        ...     env = {"api_key": "ACME_API_KEY"}
        >>> AcmeProvider().paths["create_image_edit"]
        '/images/edits'
    """

    paths: ClassVar[Mapping[Operation, str]] = {kind.operation: path for kind, path in PATHS.items()}
    sends_json: ClassVar[bool] = False
    has_free_failures: ClassVar[bool] = True

    base64_keys: ClassVar[frozenset[str]] = frozenset({"b64_json"})
    takes_references: ClassVar[bool] = True

    def list_fields(self, operation: Operation, target: Target) -> Collection[str] | None:
        """Return OpenAI's own fields on its host; None for a compatible server, which may take any.

        A dialect with `accepts` has its fields on every host.
        """
        if self.accepts is not None:
            return super().list_fields(operation, target)
        if target.host_class != "official":
            return None
        return [name for name in field_names(_REQUESTS[operation]) if name not in _FOREIGN]

    def check(self, request: ImageRequest, target: Target) -> None:
        """Reject a request without a model on the official host, which has no default.

        Raises:
            MissingModelError: The message lists the live models.
            ConfigurationError: The address is one of Azure.
        """
        super().check(request, target)
        place = urlsplit(target.base_url)
        is_azure = (place.hostname or "").endswith(tuple(name[1:] for name in AZURE_HOSTS))
        if target.host_class == "compatible" and is_azure and place.path != "/openai/v1":
            raise ConfigurationError(
                f"base_url: {place.hostname} is a host of Azure, whose addresses and headers differ.",
                hint='Pass provider="azure".',
                field="base_url",
            )
        if target.host_class == "official" and resolve_model(request, target.model) is None:
            catalogue = Catalogue("", self.model_facts)
            live = ", ".join(catalogue.list_live_ids(date.today()))
            known = f" Live models as of {catalogue.as_of}: {live}." if live else ""
            raise MissingModelError(
                f"{self.base_url} needs a model.{known}",
                hint="Pass model=… or set IMGKIT_MODEL.",
                field="model",
            )

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the request: JSON for creations and references, a form for files."""
        members = self.build_members(request, target)
        body: Body
        if self.needs_json(request, inputs):
            members = {**self.encode_inputs(inputs), **members}
            body = BytesBody(_TO_JSON.encode(members).encode("utf-8"), "application/json")
        else:
            from imgkit.providers.openai_forms import build_form

            body = build_form(members, inputs)
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

    def needs_json(self, request: ImageRequest, inputs: OpenedInputs) -> bool:
        """Return whether a request goes as JSON in place of a form."""
        return self.sends_json or isinstance(request, CreateImageRequest) or inputs.has_references

    def url(self, request: ImageRequest, target: Target) -> str:
        """Return the URL of a request; a dialect with other addresses overrides this method."""
        return target.base_url + self.paths[request.operation]

    def build_members(self, request: ImageRequest, target: Target) -> dict[str, Any]:
        """Return the members of the body that the caller set, in the request's own order."""
        members = {
            name: value
            for name in field_names(type(request))
            if name not in _NOT_MEMBERS and (value := getattr(request, name)) is not None
        }
        if target.model and "model" not in members:
            members["model"] = target.model
        return {**members, **(request.model_options or {}), **(request.extra_body or {})}

    def encode_inputs(self, inputs: OpenedInputs) -> dict[str, Any]:
        """Return the inputs as members of a JSON edit: references or ``data:`` URLs.

        Source: API reference, read 2026-11-23.
        """
        members: dict[str, Any] = {}
        if inputs.image:
            members["images"] = [_image_to_json(image) for image in inputs.image]
        for role, extra in (("mask", inputs.mask), ("markup", inputs.markup)):
            if extra is not None:
                members[role] = _image_to_json(extra)
        return members

    def models_request(self, target: Target) -> HttpRequest | None:
        """Return the free request that lists the models."""
        return HttpRequest("GET", f"{target.base_url}/models", {"accept": "application/json"})

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages:
        """Return the images of a reply; an unreadable image does not lose the others.

        Raises:
            UnreadableReplyError: The reply is not JSON, or no image in it can be read.
            EmptyResultError: The reply has no images, or is about a job that will make them.
        """
        try:
            if head.status in (204, 205, 206):
                raise ValueError(f"HTTP {head.status} has no complete reply")
            reply = body.json()
            if reply and isinstance(reply, list):
                reply = {"data": reply}
            if not isinstance(reply, dict):
                raise ValueError(f"a JSON {type(reply).__name__} instead of an object")
        except ValueError as error:
            problem = str(error)
            from imgkit.providers.unusual_replies import empty_result_error, find_job

            if (job := find_job(head, {}, target)) is not None:
                raise empty_result_error(head, body, secrets, job) from None
            raise unreadable_reply_error(head, body, problem, secrets) from None
        cost, told = self.examine_reply(head, reply, secrets)
        entries = reply.pop("data", None)
        if not entries and reply.get("error"):
            from imgkit.providers.error_replies import error_from_reply

            raise error_from_reply(head, body.raw(), secrets)
        images, broken, empty = _decode_entries(entries if isinstance(entries, list) else [], target)
        notes: list[str] = []
        if not images:
            from imgkit.providers.unusual_replies import take_images

            if entries is not None and not isinstance(entries, list):
                broken = [f"data is a JSON {type(entries).__name__}"]
            reply["data"] = entries
            images, notes = take_images(head, body, reply, target, broken, secrets)
            reply.pop("data", None)
            broken, empty = [], []
        read = REPLY_SCHEMA.read(restore_base64(reply))
        return DecodedImages(
            pictures=tuple(images),
            created=read.created,
            usage=read.usage.to_usage() if read.usage else None,
            background=read.background,
            output_format=read.output_format,
            size=read.size,
            quality=read.quality,
            warnings=(*read.warnings, *told, *notes, *broken, *empty),
            damaged=bool(broken or empty),
            cost=cost,
            extra=read.extra,
        )

    def examine_reply(
        self, head: Head, reply: JsonObject, secrets: tuple[Secret, ...]
    ) -> tuple[Cost | None, tuple[str, ...]]:
        """Return the cost that a reply or the last event of a stream tells, and warnings: none by default.

        A dialect overrides this method for its own members. It may change the reply, whose images are read
        afterwards, and raises the error of a refusal.
        """
        return None, ()

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error for a reply outside 2xx."""
        from imgkit.providers.error_replies import error_from_reply

        return error_from_reply(head, body, secrets, is_free=self.failure_is_free(head, body))

    def failure_is_free(self, head: Head, body: bytes) -> bool:
        """Return True for the API's own error object under 500 or 503."""
        from imgkit.providers.error_replies import is_free_failure

        return self.has_free_failures and is_free_failure(head, body)


class OpenAIProvider(OpenAIDialect):
    """The provider ``"openai"``; `imgkit.providers.Provider` describes its members.

    Example:
        >>> OpenAIProvider().credentials[0].variable
        'OPENAI_API_KEY'
    """

    base_url: ClassVar[str] = "https://api.openai.com/v1"
    env: ClassVar[Mapping[str, str]] = {
        "api_key": "OPENAI_API_KEY",
        "base_url": "OPENAI_BASE_URL",
        "organization": "OPENAI_ORG_ID",
        "project": "OPENAI_PROJECT_ID",
    }
    model_facts: ClassVar[str] = "imgkit.providers:openai.toml"

    def encode_stream(
        self, request: ImageRequest, inputs: OpenedInputs, target: Target, partial_images: int | None
    ) -> HttpRequest:
        """Return the request of `encode` with ``stream`` and, if given, ``partial_images``.

        Raises:
            InvalidRequestError: The request sets `response_format`, which streams do not have.
        """
        if request.response_format is not None:
            raise InvalidRequestError({"response_format": "Streams carry the images. Leave it out."})
        count = {} if partial_images is None else {"partial_images": partial_images}
        extra_body = {**(request.extra_body or {}), "stream": True, **count}
        encoded = self.encode(replace(request, extra_body=extra_body), inputs, target)
        if "accept" in (request.extra_headers or {}):
            return encoded
        return replace(encoded, headers={**encoded.headers, "accept": EVENT_TYPES})

    def decode_event(
        self, head: Head, data: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedPartialImage | DecodedImages | None:
        """Return the content of an event by its ``type``, None for unknown types."""
        from imgkit.providers.openai_events import decode_event, is_whole_reply

        if is_whole_reply(data):
            return self.decode(head, data, target, secrets)
        return decode_event(head, data, target, secrets, self.examine_reply)


_TO_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def _image_to_json(image: ImageFile | ImageReference) -> dict[str, str]:
    if isinstance(image, ImageReference) and image.file_id is not None:
        return {"file_id": image.file_id}
    return {"image_url": to_data_url(image)}


def _decode_entries(entries: list[Any], target: Target) -> tuple[list[DecodedImage], list[str], list[str]]:
    """Return the images, the problems of unreadable entries, and the entries without an image."""
    images: list[DecodedImage] = []
    broken: list[str] = []
    empty: list[str] = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            broken.append(f"data.{index} is a JSON {type(entry).__name__}")
            continue
        encoded = entry.pop("b64_json", None)
        rest = IMAGE_SCHEMA.read(restore_base64(entry))
        content, problems = decode_content(encoded, rest.url, target)
        broken += [f"data.{index} {problem}" for problem in problems]
        if content:
            images.append(DecodedImage(**content, revised_prompt=rest.revised_prompt, extra=rest.extra))
        elif not problems:
            empty.append(f"data.{index} has no image")
    return images, broken, empty
