"""Helpers for the tests of providers: fakes that keep requests, input images, encoded requests."""

from __future__ import annotations

import io
import json
from typing import Any

import PIL.Image

from imgkit.images.inputs import OpenedInputs
from imgkit.models import ImageRequest
from imgkit.providers import FakeApi, FakeReply, FakeRequest, Provider, Target


class RequestLog(FakeApi):
    """Put before a fake among the bases of a class: the fake, with the requests that it has received."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.requests: list[FakeRequest] = []

    def handle(self, request: FakeRequest) -> FakeReply:
        """Keep a request, and answer it."""
        self.requests.append(request)
        return super().handle(request)


def paint_input(size: tuple[int, int] = (64, 48), *, hole: bool = False) -> bytes:
    """Return a PNG; with a hole, a mask whose upper half may change."""
    image = PIL.Image.new("RGBA", size, (9, 9, 9, 255))
    if hole:
        image.paste((0, 0, 0, 0), (0, 0, size[0], size[1] // 2))
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def encode_json(provider: Provider, request: ImageRequest, target: Target, **inputs: Any) -> tuple[str, Any]:
    """Return URL and JSON body of a request."""
    encoded = provider.encode(request, OpenedInputs(**inputs), target)
    return encoded.url, json.loads(b"".join(encoded.body.blocks()))
