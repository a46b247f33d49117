"""A provider whose official host is a loopback server, so model rules apply there."""

from __future__ import annotations

from typing import Any

from imgkit.providers.openai import OpenAIProvider


def official(base_url: str, **attributes: Any) -> OpenAIProvider:
    """Return OpenAI's provider with `base_url` as its official host."""
    kind = type("Official", (OpenAIProvider,), {"base_url": base_url, "name": "openai", **attributes})
    provider: OpenAIProvider = kind()
    return provider
