"""The public types as a type checker sees them. Read by mypy --strict; never run."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from imgkit import (
    AsyncImageService,
    AsyncImageStream,
    Budget,
    Completed,
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    Image,
    ImageService,
    ImagesResponse,
    ImageStream,
    ImgkitError,
    Meta,
    PartialImage,
    ProviderInfo,
    RateLimitError,
    RetryPlugin,
    TelemetryPlugin,
    Usage,
    hookimpl,
    list_providers,
)
from imgkit.plugins import Call, Event, HttpRequest, Started, Succeeded


def providers() -> None:
    assert_type(list_providers(), tuple[ProviderInfo, ...])


def blocking() -> None:
    with ImageService("requests", provider="openai", api_key=lambda: "k", model="m", timeout_s=5) as images:
        made = images.create_image("a fox", size="1024x1024", n=2, save_to=Path("out"))
        assert_type(made, ImagesResponse)
        assert_type(made.images, tuple[Image, ...])
        assert_type(made[0], Image)
        assert_type(made[0].data, bytes)
        assert_type(made[0].width, int | None)
        assert_type(made[0].save("x.png"), Path)
        assert_type(made.usage, Usage | None)
        assert_type(made.meta, Meta)
        assert_type(list(made), list[Image])
        assert_type(images.create_image(CreateImageRequest(prompt="a fox", n=1)), ImagesResponse)
        assert_type(images.create_image_edit([b"1", "2.png", made[0]], "blue", mask="m.png"), ImagesResponse)
        assert_type(
            images.create_image_edit(CreateImageEditRequest(image="a.png", prompt="blue")), ImagesResponse
        )
        assert_type(images.create_image_variation("a.png", n=3), ImagesResponse)
        assert_type(images.create_image_variation(CreateImageVariationRequest(image=b"")), ImagesResponse)
        assert_type(images.download(made[0]), Image)
        assert_type(images.stream_image("a fox", partial_images=2), ImageStream)
        with images.stream_image_edit("a.png", "blue", mask="m.png") as events:
            for event in events:
                assert_type(event, PartialImage | Completed)
                assert_type(event.image, Image)
            assert_type(events.response, ImagesResponse)
        images.stream_image("a fox", partial_images="2")  # type: ignore[arg-type]
        images.stream_image("a fox", cache="use")  # type: ignore[call-arg]
        images.create_image("a fox", qualty="high")  # type: ignore[call-arg]
        images.create_image("a fox", n="3")  # type: ignore[arg-type]
        images.create_image_edit(7, "blue")  # type: ignore[arg-type]
        ImageService(bakend="requests")  # type: ignore[arg-type]


async def awaiting() -> None:
    async with AsyncImageService("aiohttp", model="m") as images:
        assert_type(await images.create_image("a fox"), ImagesResponse)
        assert_type(await images.create_image_edit("a.png", "blue"), ImagesResponse)
        assert_type(await images.create_image_variation("a.png"), ImagesResponse)
        assert_type(await images.download((await images.create_image("a fox"))[0]), Image)
        async with images.stream_image("a fox") as events:
            assert_type(events, AsyncImageStream)
            async for event in events:
                assert_type(event, PartialImage | Completed)
            assert_type(events.response, ImagesResponse)
        await images.create_image("a fox", n="3")  # type: ignore[arg-type]


class Watch:
    """A plugin, as its author types it."""

    def __init__(self) -> None:
        self.model: str | None = None

    @hookimpl
    def imgkit_on_event(self, event: Event, call: Call) -> None:
        if isinstance(event, Started) and event.request is not None:
            assert_type(event.request.n, int | None)
            self.model = event.request.model
        elif isinstance(event, Succeeded):
            assert_type(event.response, ImagesResponse)
        assert_type(call.model, str | None)

    @hookimpl
    def imgkit_before_send(self, request: HttpRequest) -> HttpRequest:
        return request.with_headers({**request.headers, "x-team": "art"})


def failing() -> None:
    telemetry = TelemetryPlugin(capture_content="span_and_event")
    retry = RetryPlugin(on_unknown="retry-once")
    with ImageService(plugins=[Watch(), telemetry, Budget(1)], retry=retry) as images:
        try:
            images.create_image("a fox")
        except RateLimitError as error:
            assert_type(error.status, int)
            assert_type(error.retry_after_s, float | None)
        except ImgkitError as error:
            assert_type(error.maybe_billed, bool)
            assert_type(error.hint, str | None)
    TelemetryPlugin(capture_content="everywhere")  # type: ignore[arg-type]
