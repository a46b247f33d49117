"""The dialect of Cloudflare's Workers AI: a route per account and model, and three shapes of requests.

Source: Cloudflare's changelog and pages of models, and workers-ai-provider 4.0.0, read 2026-11-28.
Unconfirmed: the polarity of masks, the fields of partners' models, and the words of a refusal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import quote, urlsplit

from imgkit.catalogue.catalogue import is_listed, load_provider_data
from imgkit.errors import ConfigurationError, ImgkitError, InvalidRequestError
from imgkit.images.inputs import ImageFile, OpenedInputs
from imgkit.images.sniff import EXTENSIONS
from imgkit.models import ImageRequest, resolve_model
from imgkit.providers.base import DecodedImage, DecodedImages, MaskPolarity, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.cloudflare_fake import FakeCloudflare
from imgkit.providers.error_replies import error_from_reply
from imgkit.providers.json_requests import (
    add_extra_headers,
    encode_json_request,
    refuse_more_images,
    refuse_several_results,
    to_base64,
    to_sides,
)
from imgkit.providers.openai_forms import build_form
from imgkit.providers.reply_images import decode_content, decode_image_body, readable
from imgkit.redact import Secret
from imgkit.wire.json_values import JsonObject, restore_base64
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.multipart import File, MultipartBody

FACTS = "imgkit.providers:cloudflare.toml"
HEADERS: Mapping[str, str] = {"accept": "application/json, image/*"}

_FIELDS = {
    *("prompt", "model", "size", "seed", "negative_prompt", "n"),
    *("model_options", "extra_body", "extra_headers"),
}
_MODEL = re.compile(r"@?(?!\.+(/|$))[\w.-]+(/(?!\.+(/|$))[\w.-]+)*", re.ASCII)


class CloudflareProvider(BaseProvider):
    """The provider ``"cloudflare"``; `imgkit.providers.Provider` describes its members.

    The account is part of the address: ``base_url="https://api.cloudflare.com/client/v4/accounts/…"``, or
    that of an AI gateway, which ends with ``/workers-ai``. Without either, the account is an argument.

    Args:
        account_id: the account; None reads ``CLOUDFLARE_ACCOUNT_ID``.

    Raises:
        ConfigurationError: The account has characters that no account has.

    Example:
        >>> CloudflareProvider(account_id="0a1b").env["api_key"]
        'CLOUDFLARE_API_TOKEN'
    """

    base_url: ClassVar[str] = "https://api.cloudflare.com/client/v4"
    env: ClassVar[Mapping[str, str]] = {
        "api_key": "CLOUDFLARE_API_TOKEN",
        "base_url": "CLOUDFLARE_BASE_URL",
    }
    base64_keys: ClassVar[frozenset[str]] = frozenset({"image"})
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image", "mask"}}
    default_model: ClassVar[str] = "@cf/black-forest-labs/flux-2-klein-4b"
    model_facts: ClassVar[str] = FACTS
    mask_polarity: ClassVar[MaskPolarity] = "white"
    official_hosts: ClassVar[tuple[str, ...]] = ("gateway.ai.cloudflare.com",)
    fake = FakeCloudflare

    def __init__(self, account_id: str | None = None) -> None:
        self._account = account_id or os.environ.get("CLOUDFLARE_ACCOUNT_ID", "").strip()
        if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", self._account):
            raise ConfigurationError(
                "Invalid account_id (CLOUDFLARE_ACCOUNT_ID). Give the id that your dashboard shows.",
                field="account_id",
            )

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse a missing account, and inputs that the model lacks.

        Raises:
            ConfigurationError: Neither the address nor a setting names the account, or a gateway's address
                is not complete.
        """
        super().check(request, target)
        host, base = urlsplit(target.base_url).hostname, target.base_url
        if host in self.official_hosts and not base.endswith("/workers-ai"):
            raise ConfigurationError(
                "base_url names a gateway without the service behind it.",
                hint=f'Pass base_url="{base}/workers-ai".',
                field="base_url",
            )
        if not self._account and self._needs_account(target):
            raise ConfigurationError(
                "Cloudflare needs the id of an account.",
                hint="Set CLOUDFLARE_ACCOUNT_ID, or pass provider=CloudflareProvider(account_id=…).",
                field="account_id",
            )
        model = self._find_model(request, target)
        if not _MODEL.fullmatch(model):
            raise InvalidRequestError({"model": f"A model is a path, such as {self.default_model}."})
        bodies = load_provider_data(FACTS)["bodies"]
        if getattr(request, "mask", None) is not None and not is_listed(model, bodies["mask_models"]):
            raise InvalidRequestError(
                {"mask": f"{model} takes no mask. Pass model={bodies['default_mask_model']!r}."}
            )
        most = bodies["most_form_images"] if is_listed(model, bodies["form_models"]) else 1
        refuse_more_images(request, most, model)

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the request: a form, or JSON, as the model reads it."""
        refuse_several_results(request)
        model = self._find_model(request, target)
        url = f"{self._find_root(target)}/{quote(model, safe='@/')}"
        members: JsonObject = {
            "prompt": getattr(request, "prompt", None),
            "negative_prompt": request.negative_prompt,
            **to_sides(request.size),
            "seed": request.seed,
        }
        if is_listed(model, load_provider_data(FACTS)["bodies"]["form_models"]):
            members |= {**(request.model_options or {}), **(request.extra_body or {})}
            members.pop("model", None)
            files = [
                File(
                    f"input_image_{number}",
                    f"image-{number}{EXTENSIONS[file.kind.format][0]}",
                    file.kind.media_type,
                    file,
                )
                for number, file in enumerate(inputs.image)
                if isinstance(file, ImageFile)
            ]
            body = MultipartBody((*build_form(members, OpenedInputs()).parts, *files))
            return HttpRequest("POST", url, add_extra_headers(HEADERS, request), body)
        members["image_b64"] = to_base64(inputs.image[0]) if inputs.image else None
        members["mask"] = list(inputs.mask.read()) if isinstance(inputs.mask, ImageFile) else None
        return encode_json_request(url, members, request, HEADERS)

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages:
        """Return the image: the body itself, or base64 in ``result``."""
        if body.image() is not None:
            return decode_image_body(head, body, target, secrets)
        with readable(head, body, secrets):
            reply = body.json()
            result = reply.get("result")
            if not result and (reply.get("errors") or reply.get("error")):
                raise error_from_reply(head, body.raw(), secrets)
            rest = dict(result or {})
            content, problems = decode_content(rest.pop("image"), None, target)
            if not content:
                raise ValueError("; ".join(problems) or "no image")
        image = DecodedImage(**content, extra=restore_base64(rest))
        return DecodedImages(
            pictures=(image,), warnings=tuple(f"Image 0 {each}." for each in problems), damaged=bool(problems)
        )

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx."""
        return error_from_reply(head, body, secrets, is_free=False)

    def _find_model(self, request: ImageRequest, target: Target) -> str:
        return resolve_model(request, target.model) or self.default_model

    def _needs_account(self, target: Target) -> bool:
        is_complete = "/accounts/" in target.base_url or target.base_url.endswith("/workers-ai")
        return target.host_class != "offline" and not is_complete

    def _find_root(self, target: Target) -> str:
        """Return the address above the models."""
        base = target.base_url
        if base.endswith(("/workers-ai", "/ai/run")):
            return base
        if "/accounts/" not in base:
            base = f"{base}/accounts/{self._account or 'offline'}"
        return f"{base.removesuffix('/ai')}/ai/run"
