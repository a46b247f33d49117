"""A provider whose official host is a server on loopback, so that facts about models apply there."""

from __future__ import annotations

from typing import Any

from imgkit.providers.openai import OpenAIProvider


def official(base_url: str, **attributes: Any) -> OpenAIProvider:
    """Return the dialect of OpenAI with its own host at `base_url`."""
    kind = type("Official", (OpenAIProvider,), {"base_url": base_url, "name": "openai", **attributes})
    made: OpenAIProvider = kind()
    return made
