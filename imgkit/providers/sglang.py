"""The dialect of SGLang's server for diffusion models, in the shape of OpenAI's API.

Source: SGLang 0.5.23, read 2026-11-28. The server reads the field ``mask`` of an edit and does not use it, so
masks are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from imgkit.providers.openai_servers import OpenAIServer
from imgkit.providers.openai_servers_fake import FakeSGLang

_FIELDS = {
    *("prompt", "model", "n", "size", "seed", "negative_prompt", "quality", "background"),
    *("output_format", "output_compression", "model_options", "extra_body", "extra_headers"),
}


class SGLangProvider(OpenAIServer):
    """The provider ``"sglang"``; `imgkit.providers.Provider` describes its members.

    Example:
        >>> SGLangProvider().base_url
        'http://127.0.0.1:30000/v1'
    """

    base_url: ClassVar[str] = "http://127.0.0.1:30000/v1"
    env: ClassVar[Mapping[str, str]] = {"api_key": "SGLANG_API_KEY", "base_url": "SGLANG_BASE_URL"}
    accepts = {"create_image": {*_FIELDS, "style"}, "create_image_edit": {*_FIELDS, "image"}}
    model_facts: ClassVar[str] = "imgkit.providers:sglang.toml"
    fake = FakeSGLang
