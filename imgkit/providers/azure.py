"""The dialect of OpenAI's models at Azure: OpenAI's, with other addresses and headers, and fewer operations.

Source: openai-python 3.54.0 (2026-11-17), whose `AzureOpenAI` sends the same; openai-python#2336, #2608 for
edits; all read 2026-11-23. Unconfirmed, since no reply or reference of it was seen: the layout /openai/v1.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import quote

from imgkit.errors import ConfigurationError, MissingModelError
from imgkit.models import CreateImageEditRequest, ImageRequest
from imgkit.providers.base import Credential, Target
from imgkit.providers.openai import PATHS, OpenAIProvider
from imgkit.wire.messages import HttpRequest

EDITS_SINCE = "2025-04-01-preview"
"""The first api-version that has edits; before it they are a 404 (openai-python#2336)."""


class AzureProvider(OpenAIProvider):
    """`provider="azure"`: see `imgkit.providers.base.Provider`.

    ``base_url=`` (else ``AZURE_OPENAI_ENDPOINT``) is the resource, and ``model=`` the name of a deployment.
    An address that ends with ``/openai/v1`` is that of the newer layout, which needs no api-version.

    Args:
        api_version: such as "2025-04-01-preview"; else ``OPENAI_API_VERSION``.

    Raises:
        ConfigurationError: no api-version looks like this.
    """

    base_url: ClassVar[str] = ""
    env: ClassVar[Mapping[str, str]] = {
        "api_key": "AZURE_OPENAI_API_KEY",
        "base_url": "AZURE_OPENAI_ENDPOINT",
    }
    model_facts: ClassVar[str] = "imgkit.providers:azure.toml"
    credentials: ClassVar[tuple[Credential, ...]] = (  # the token first, as the SDK has it
        Credential(variable="AZURE_OPENAI_AD_TOKEN"),
        Credential(variable="AZURE_OPENAI_API_KEY", header="api-key", scheme=""),
    )
    official_hosts: ClassVar[tuple[str, ...]] = (
        "*.openai.azure.com",
        "*.services.ai.azure.com",
        "*.cognitiveservices.azure.com",
    )

    def __init__(self, api_version: str | None = None) -> None:
        self._asked = api_version
        self._version = api_version or os.environ.get("OPENAI_API_VERSION", "").strip()
        if not re.fullmatch(r"[A-Za-z0-9.-]{0,40}", self._version):
            raise ConfigurationError(f"api_version (OPENAI_API_VERSION) is a date such as {EDITS_SINCE!r}")

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse addresses that are not complete, and edits where they did not exist yet."""
        if target.host_class == "offline":
            return
        if not _deployment(request, target):
            raise MissingModelError("Azure needs the name of a deployment: pass model=… or set IMGKIT_MODEL.")
        if _is_v1(target):
            return
        remedy = "set OPENAI_API_VERSION, or pass provider=AzureProvider(api_version=…)"
        if not self._version:
            raise ConfigurationError(
                f"Azure needs an api-version, such as {EDITS_SINCE}: {remedy}; an address that ends with "
                "/openai/v1 needs none"
            )
        dated = re.match(r"\d{4}-\d\d-\d\d", self._version)
        if isinstance(request, CreateImageEditRequest) and dated and dated[0] < EDITS_SINCE[:10]:
            raise ConfigurationError(
                f"Azure has edits since api-version {EDITS_SINCE}, and this is {self._version}: {remedy}"
            )

    def url(self, request: ImageRequest, target: Target) -> str:
        """Return where a request goes: to a deployment, or to the newer layout."""
        path = PATHS[type(request)]
        if not _is_v1(target):
            path = f"/deployments/{quote(_deployment(request, target), safe='')}{path}"
        return self._located(path, target)

    def models_request(self, target: Target) -> HttpRequest:
        """Return the request for the models of the resource, which costs nothing."""
        return HttpRequest("GET", self._located("/models", target), {"accept": "application/json"})

    def _located(self, path: str, target: Target) -> str:
        version = self._asked if _is_v1(target) else self._version
        root = target.base_url if _is_v1(target) else f"{target.base_url.removesuffix('/openai')}/openai"
        return f"{root}{path}?api-version={version}" if version else f"{root}{path}"


def _is_v1(target: Target) -> bool:
    return target.base_url.endswith("/v1")


def _deployment(request: ImageRequest, target: Target) -> str:
    return str((request.extra_body or {}).get("model") or request.model or target.model or "")
