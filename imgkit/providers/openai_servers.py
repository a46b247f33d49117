"""The shape of OpenAI's Images API at servers that people run themselves: vLLM, SGLang, LocalAI.

They take fewer fields, need no key, send base64 only on request, and stream nothing that imgkit reads.
"""

from __future__ import annotations

from dataclasses import replace

from imgkit.errors import InvalidRequestError
from imgkit.images.inputs import OpenedInputs
from imgkit.images.references import ImageReference
from imgkit.models import ImageRequest
from imgkit.providers.base import Credential, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.json_requests import refuse_uploaded_files, to_data_url
from imgkit.providers.openai import OpenAIDialect
from imgkit.wire.json_values import JsonObject
from imgkit.wire.messages import HttpRequest


class OpenAIServer(OpenAIDialect):
    """The base class of the providers of such servers. A subclass sets `accepts`, also for other hosts.

    Example:
        >>> class AcmeProvider(OpenAIServer):
        ...     env = {"api_key": "ACME_API_KEY"}
        >>> AcmeProvider().credentials[0].required
        False
    """

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """An optional bearer token: a server asks for the key that it was started with."""
        return (Credential(variable=self.env["api_key"], required=False),)

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse fields that the server lacks, and references that it cannot fetch. A model is optional."""
        BaseProvider.check(self, request, target)
        refuse_uploaded_files(request)
        if isinstance(getattr(request, "mask", None), ImageReference):
            raise InvalidRequestError({"mask": "The server takes a mask as a file. Give the mask itself."})

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the request; the form of an edit names the images as URLs if any of them is a reference."""
        if inputs.has_references:
            links = [to_data_url(image) for image in inputs.image]
            request = replace(request, extra_body={"url": links, **(request.extra_body or {})})
            inputs = OpenedInputs(mask=inputs.mask)
        return super().encode(request, inputs, target)

    def build_members(self, request: ImageRequest, target: Target) -> JsonObject:
        """Return the members, which ask for base64; "auto" leaves the size to the server."""
        members = {"response_format": "b64_json", **super().build_members(request, target)}
        if members.get("size") == "auto":
            del members["size"]
        return members
