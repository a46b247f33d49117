"""The dialect of OpenAI's models at Azure. It has other addresses and headers, and fewer operations.

Source: openai-python 3.54.0 (2026-11-17), whose `AzureOpenAI` sends the same requests; openai-python#2336
and #2608 for edits; all read 2026-11-23. The layout /openai/v1 is unconfirmed: no reply or reference of it
was available.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import quote, urlsplit

from imgkit.errors import ConfigurationError, MissingModelError
from imgkit.models import CreateImageEditRequest, ImageRequest, resolve_model
from imgkit.providers.base import Credential, Target
from imgkit.providers.openai import AZURE_HOSTS, PATHS, OpenAIProvider
from imgkit.wire.messages import HttpRequest

EDITS_SINCE = "2025-04-01-preview"
"""The first api-version with edits; earlier versions answer 404 (openai-python#2336)."""


class AzureProvider(OpenAIProvider):
    """The provider ``"azure"``; `imgkit.providers.Provider` describes its members.

    ``base_url=`` (or ``AZURE_OPENAI_ENDPOINT``) is the resource, and ``model=`` the name of a deployment.
    An address that ends with ``/openai/v1`` has the newer layout, which needs no api-version.

    Args:
        api_version: such as "2025-04-01-preview"; None reads ``OPENAI_API_VERSION``.

    Raises:
        ConfigurationError: The api-version has characters that no api-version has.

    Example:
        >>> AzureProvider(api_version="2025-04-01-preview").env["base_url"]
        'AZURE_OPENAI_ENDPOINT'
    """

    base_url: ClassVar[str] = ""
    env: ClassVar[Mapping[str, str]] = {
        "api_key": "AZURE_OPENAI_API_KEY",
        "base_url": "AZURE_OPENAI_ENDPOINT",
    }
    model_facts: ClassVar[str] = "imgkit.providers:azure.toml"
    credentials: ClassVar[tuple[Credential, ...]] = (  # the SDK's order: token first
        Credential(variable="AZURE_OPENAI_AD_TOKEN"),
        Credential(variable="AZURE_OPENAI_API_KEY", header="api-key", scheme=""),
    )
    official_hosts: ClassVar[tuple[str, ...]] = AZURE_HOSTS

    def __init__(self, api_version: str | None = None) -> None:
        self._given_version = api_version
        self._version = api_version or os.environ.get("OPENAI_API_VERSION", "").strip()
        if not re.fullmatch(r"[A-Za-z0-9.-]{0,40}", self._version):
            raise ConfigurationError(
                f"Invalid api_version (OPENAI_API_VERSION). Give a version such as {EDITS_SINCE!r}."
            )

    def check(self, request: ImageRequest, target: Target) -> None:
        """Reject a missing deployment or api-version, and edits with an api-version that has none.

        Raises:
            MissingModelError: The request names no deployment.
            ConfigurationError: The api-version is missing or too old.
        """
        if target.host_class == "offline":
            return
        if target.host_class == "official" and not re.fullmatch(r"(/openai(/v1)?)?", _path(target)):
            place = target.base_url.removesuffix(_path(target))
            raise ConfigurationError(
                f"base_url: Azure has no image API below {_path(target)[:200]!r}.",
                hint=f'Pass base_url="{place}", or base_url="{place}/openai/v1" for the newer layout.',
                field="base_url",
            )
        if not _deployment(request, target):
            raise MissingModelError(
                "Azure needs the name of a deployment.",
                hint="Pass model=… or set IMGKIT_MODEL.",
                field="model",
            )
        if _is_v1(target):
            return
        hint = "Set OPENAI_API_VERSION, or pass provider=AzureProvider(api_version=…)."
        if not self._version:
            raise ConfigurationError(
                f"Azure needs an api-version such as {EDITS_SINCE}. An address that ends with /openai/v1 "
                "needs none.",
                hint=hint,
                field="api_version",
            )
        dated = re.match(r"\d{4}-\d\d-\d\d", self._version)
        if isinstance(request, CreateImageEditRequest) and dated and dated[0] < EDITS_SINCE[:10]:
            raise ConfigurationError(
                f"Azure has edits since api-version {EDITS_SINCE}; this is {self._version}.",
                hint=hint,
                field="api_version",
            )

    def url(self, request: ImageRequest, target: Target) -> str:
        """Return the URL of a request: below a deployment, or in the newer layout."""
        path = PATHS[type(request)]
        if not _is_v1(target):
            path = f"/deployments/{quote(_deployment(request, target), safe='')}{path}"
        return self._build_url(path, target)

    def models_request(self, target: Target) -> HttpRequest:
        """Return the free request that lists the models of the resource."""
        return HttpRequest("GET", self._build_url("/models", target), {"accept": "application/json"})

    def _build_url(self, path: str, target: Target) -> str:
        version = self._given_version if _is_v1(target) else self._version
        root = target.base_url if _is_v1(target) else f"{target.base_url.removesuffix('/openai')}/openai"
        return f"{root}{path}?api-version={version}" if version else f"{root}{path}"


def _path(target: Target) -> str:
    return urlsplit(target.base_url).path


def _is_v1(target: Target) -> bool:
    return target.base_url.endswith("/v1")


def _deployment(request: ImageRequest, target: Target) -> str:
    return resolve_model(request, target.model) or ""
