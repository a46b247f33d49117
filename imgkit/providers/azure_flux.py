"""The dialect of FLUX.2 at Azure AI Foundry: JSON with width and height, and the image in the reply.

It is a provider of its own, because address, key and members differ from those of OpenAI's models at Azure.
FLUX.1 there has OpenAI's shape: provider "azure" serves it.

Source: litellm 1.110.2 and @ai-sdk/azure 4.0.85, read 2026-11-28. Unconfirmed: a bearer token, more than one
image per request, and the words of a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import quote, urlsplit

from imgkit.errors import ConfigurationError, ImgkitError
from imgkit.images.inputs import OpenedInputs
from imgkit.models import ImageRequest, resolve_model
from imgkit.providers.azure_flux_fake import FakeAzureFlux
from imgkit.providers.base import Credential, DecodedImages, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.error_replies import error_from_reply
from imgkit.providers.json_requests import (
    encode_json_request,
    name_images,
    refuse_more_images,
    refuse_uploaded_files,
    to_base64,
    to_sides,
)
from imgkit.providers.reply_images import decode_entries, readable
from imgkit.redact import Secret
from imgkit.wire.json_values import restore_base64
from imgkit.wire.messages import Head, HttpRequest

MAX_IMAGES = 10
"""Input images of flux-2-flex; other models take fewer."""

_FIELDS = {"prompt", "model", "size", "seed", "n", "model_options", "extra_body", "extra_headers"}


class AzureFluxProvider(BaseProvider):
    """The provider ``"azure_flux"``; `imgkit.providers.Provider` describes its members.

    ``base_url=`` (or ``AZURE_AI_API_BASE``) is the resource, such as ``https://NAME.services.ai.azure.com``.
    ``model=`` is a model or a deployment: ``FLUX.2-pro`` and ``flux-2-pro`` have the same address.

    Example:
        >>> AzureFluxProvider().default_model
        'flux-2-pro'
    """

    base_url: ClassVar[str] = ""
    env: ClassVar[Mapping[str, str]] = {"api_key": "AZURE_AI_API_KEY", "base_url": "AZURE_AI_API_BASE"}
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image"}}
    default_model: ClassVar[str | None] = "flux-2-pro"
    base64_keys: ClassVar[frozenset[str]] = frozenset({"b64_json"})
    model_facts: ClassVar[str] = "imgkit.providers:azure_flux.toml"
    takes_references: ClassVar[bool] = True
    credentials = (Credential(variable="AZURE_AI_API_KEY", header="api-key", scheme=""),)
    official_hosts: ClassVar[tuple[str, ...]] = ("*.services.ai.azure.com",)
    fake = FakeAzureFlux

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse an address below the resource, and images that the API lacks."""
        super().check(request, target)
        refuse_uploaded_files(request)
        parts = urlsplit(target.base_url)
        if target.host_class == "official" and parts.path:
            raise ConfigurationError(
                f"base_url: Azure has no FLUX.2 below {parts.path[:200]!r}.",
                hint=f'Pass base_url="https://{parts.netloc}".',
                field="base_url",
            )
        refuse_more_images(request, MAX_IMAGES, "FLUX.2")

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the request, which holds its inputs."""
        model = resolve_model(request, target.model) or self.default_model or ""
        members = {
            "model": model,
            "prompt": getattr(request, "prompt", None),
            **to_sides(request.size),
            "seed": request.seed,
            "num_images": request.n,
            **name_images("input_image", [to_base64(image) for image in inputs.image]),
        }
        place = quote(model.lower().replace(".", "-"), safe="")
        url = f"{target.base_url}/providers/blackforestlabs/v1/{place}?api-version=preview"
        return encode_json_request(url, members, request)

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages:
        """Return the images of the reply."""
        with readable(head, body, secrets):
            reply = dict(body.json())
            entries = enumerate(reply.pop("data"))
            given = {number: _name_content(entry) for number, entry in entries}
            images, broken = decode_entries(given, target)
            if not images:
                raise ValueError("; ".join(broken) or "no image")
            created = reply.pop("created", None)
        return DecodedImages(
            pictures=tuple(images),
            created=created if type(created) is int else None,
            warnings=tuple(broken),
            damaged=bool(broken),
            extra=restore_base64(reply),
        )

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx."""
        return error_from_reply(head, body, secrets)


def _name_content(entry: object) -> object:
    """Return an entry with its image under the name that `decode_entries` reads."""
    if not isinstance(entry, dict) or "b64_json" not in entry:
        return entry
    rest = {name: value for name, value in entry.items() if name != "b64_json"}
    return {**rest, "url": entry["b64_json"]}
