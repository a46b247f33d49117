"""Recraft's API in small: OpenAI's shape with endpoints for edits, credits, SVG, errors as text."""

from __future__ import annotations

import io
from typing import ClassVar

from imgkit.models import Operation
from imgkit.providers.fakes import FakeReply, FakeRequest, Paint, json_reply, paint_plain
from imgkit.providers.openai_fake import FakeCall, FakeOpenAI, read_input
from imgkit.wire.json_values import JsonMapping, JsonObject

UNITS_PER_IMAGE = 40
"""The price of an image in units, of which 1,000 are a dollar."""

_EDITS = ("imageToImage", "inpaint", "replaceBackground", "generateBackground")
_MASKED = ("inpaint", "generateBackground")
_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d"><rect width="9" height="9"/></svg>'


class FakeRecraft(FakeOpenAI):
    """Answers the requests of `imgkit.providers.recraft.RecraftProvider`.

    Nobody has published how the API refuses content: the scenario ``refused`` uses OpenAI's code.

    Example:
        >>> fake = FakeRecraft()
        >>> url = "https://external.api.recraft.ai/v1/images/generations"
        >>> fake.answer_parts("POST", url, {}, b'{"prompt": "a fox", "n": 2}').status
        200
    """

    most_images: ClassVar[int] = 6
    most_inputs: ClassVar[int] = 1
    sends_links: ClassVar[bool] = True

    def __init__(self, scenario: str = "success", *, paint: Paint = paint_plain, polls: int = 2) -> None:
        super().__init__(scenario, paint=paint, polls=polls)
        self._vectors: set[int] = set()
        self._draws_vectors = False

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a request for images, or for a file; an unknown address is answered as text."""
        folder, _, name = request.path.rpartition("/")
        number = name.partition(".")[0]
        if folder.endswith("/files"):
            self._draws_vectors = number.isdecimal() and int(number) in self._vectors
        elif request.method != "POST" or self.find_operation(request) is None:
            return FakeReply(404, {"content-type": "text/plain"}, b"404 page not found")
        return super().handle(request)

    def find_operation(self, request: FakeRequest) -> Operation | None:
        """Return the operation of a request by the end of its path."""
        name = request.path.rpartition("/images/")[2]
        if name in _EDITS:
            return "create_image_edit"
        return {"generations": "create_image", "variateImage": "create_image_variation"}.get(name)  # type: ignore[return-value]

    def read_call(self, request: FakeRequest, operation: Operation) -> FakeCall | FakeReply:
        """Return a request for images; the error of an edit without the mask that its address needs."""
        call = super().read_call(request, operation)
        if isinstance(call, FakeReply):
            return call
        name = request.path.rpartition("/")[2]
        if operation == "create_image_edit" and (name in _MASKED) is not (call.mask is not None):
            return self.error_reply(400, "invalid mask", code="invalid_mask")
        if name == "imageToImage" and "strength" not in call.values:
            return self.error_reply(400, "strength is required", code="invalid_strength")
        if operation == "create_image_variation" and not call.values.get("size"):
            return self.error_reply(400, "size is required", code="invalid_size")
        if isinstance(call.mask, bytes) and not _is_black_and_white(call.mask):
            return self.error_reply(400, "mask must be black and white", code="invalid_mask")
        return call

    def list_inputs(self, values: JsonMapping) -> list[bytes | str]:
        """Return the input image of a JSON body."""
        return [read_input(values["image_url"])] if values.get("image_url") else []

    def find_mask(self, values: JsonMapping) -> bytes | str | None:
        """Return the mask of a JSON body."""
        return read_input(values["mask_url"]) if values.get("mask_url") else None

    def to_sides(self, call: FakeCall) -> tuple[int, int]:
        """Return width and height of the images; ``size`` may hold an aspect ratio."""
        size = str(call.values.get("size"))
        values = {"aspect_ratio": size} if ":" in size else call.values
        return super().to_sides(call._replace(values=values))

    def make_images(self, call: FakeCall) -> FakeReply:
        """Return the reply with the images; a vector model draws SVG."""
        first = len(self.files)
        self._draws_vectors = str(call.values.get("model")).endswith("_vector")
        reply = super().make_images(call)
        if self._draws_vectors:
            self._vectors.update(range(first, len(self.files)))
        return reply

    def draw_image(self, prompt: str, width: int, height: int) -> bytes:
        """Return a painted image, or an SVG."""
        return _SVG % (width, height) if self._draws_vectors else super().draw_image(prompt, width, height)

    def describe(self, call: FakeCall, count: int) -> JsonObject:
        """Return the units that the images cost."""
        return {"credits": UNITS_PER_IMAGE * count}

    def error_reply(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "",
        **headers: str,
    ) -> FakeReply:
        """Return an error in the API's shape."""
        return json_reply(status, {"code": code, "message": message}, **headers)


def _is_black_and_white(mask: bytes) -> bool:
    """Return whether each pixel of a mask is black or white, as the API wants it."""
    import PIL.Image

    with PIL.Image.open(io.BytesIO(mask)) as image:
        return image.mode == "L" and not any(image.histogram()[1:-1])
