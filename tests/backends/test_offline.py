"""The offline backend from the user's side: an API inside the process."""

from __future__ import annotations

import io
import json
import time
from typing import Any, ClassVar

import PIL.Image
import pytest

import imgkit
from imgkit.backends.offline import backend
from imgkit.backends.offline.faults import FAULTS_BY_NAME
from imgkit.models import Operation
from imgkit.painter import paint
from imgkit.providers import OpenAIProvider
from imgkit.wire.messages import BackendOptions, BytesBody, HttpRequest
from imgkit.wire.transfer import DriverTransfer
from tests.support.pictures import picture


def open_image(image: Any) -> PIL.Image.Image:
    pil_image: PIL.Image.Image = image.to_pil()
    return pil_image


def test_equal_requests_give_equal_images(flavor: Any) -> None:
    """Equal requests give equal images; another prompt, seed or index gives another image."""
    create = lambda service: service.create_image("a red fox", size="256x256", n=2)  # noqa: E731
    first, again = flavor.run(create), flavor.run(create)
    assert [image.sha256 for image in first] == [image.sha256 for image in again]
    assert first[0].sha256 != first[1].sha256
    seeded = flavor.run(create, client_options={"seed": 7})
    assert seeded[0].sha256 != first[0].sha256
    blue = flavor.run(lambda service: service.create_image("a blue fox", size="256x256"))
    assert blue[0].sha256 != first[0].sha256


@pytest.mark.parametrize("stream", [False, True])
def test_paints_no_further_image_once_a_call_is_aborted(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends after the image that it paints, so that a process need not wait for the other images."""
    paint_image, painted, transfer = paint.paint_image, [], DriverTransfer(60.0, 60.0, 60.0)

    def paint_and_abort(brief: paint.Brief) -> PIL.Image.Image:
        painted.append(brief)
        if len(painted) == 2:
            transfer.abort()
        return paint_image(brief)

    monkeypatch.setattr(paint, "paint_image", paint_and_abort)
    body = json.dumps({"prompt": "a fox", "size": "64x64", "n": 9, "stream": stream}).encode()
    request = HttpRequest(
        "POST",
        "https://offline.imgkit.invalid/v1/images/generations",
        {},
        BytesBody(body, "application/json"),
    )
    offline = backend.OfflineBackend(BackendOptions())
    with pytest.raises(TimeoutError, match="aborted"):
        offline.open(request, transfer)
    assert len(painted) == 2


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_formats(output_format: str) -> None:
    """Returns the requested format; compression makes a lossy file smaller."""
    with imgkit.ImageService() as service:
        response = service.create_image("a fox", size="256x256", output_format=output_format)
        assert response[0].format == response.output_format == output_format
        if output_format != "png":
            small = service.create_image(
                "a fox", size="256x256", output_format=output_format, output_compression=10
            )
            assert len(small[0].data) < len(response[0].data)


@pytest.mark.parametrize("size", ["16x16", "256x256", "1792x1024", "1024x1536", "3840x2160", "1008x336"])
def test_sizes(size: str) -> None:
    """Returns every size that the models support."""
    with imgkit.ImageService() as service:
        response = service.create_image("a fox", size=size)
    assert f"{response[0].width}x{response[0].height}" == response.size == size


def test_default_size_and_transparency() -> None:
    """Size "auto" is 1024x1024; a transparent background is transparent."""
    with imgkit.ImageService() as service:
        assert service.create_image("a fox", size="auto")[0].width == 1024
        clear = open_image(service.create_image("a fox", size="256x256", background="transparent")[0])
    assert clear.mode == "RGBA"
    assert clear.getchannel("A").getpixel((2, 2)) == 0


REJECTED = [
    ({"size": "1500x1000"}, "size"),
    ({"size": "4096x1024"}, "size"),
    ({"size": "1024x256"}, "size"),
    ({"output_format": "gif"}, "output_format"),
    ({"background": "transparent", "output_format": "jpeg"}, "background"),
]


@pytest.mark.parametrize(("options", "param"), REJECTED)
def test_rejects_like_the_api(options: dict[str, Any], param: str) -> None:
    """Rejects invalid parameters with the API's error class and the name of the parameter."""
    with imgkit.ImageService() as service, pytest.raises(imgkit.BadRequestError) as caught:
        service.create_image("a fox", **options)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_edit_changes_only_the_transparent_area_of_the_mask() -> None:
    """Outside the mask's transparent area every pixel stays; inside most pixels change."""
    mask = PIL.Image.new("RGBA", (256, 256), "black")
    mask.paste((0, 0, 0, 0), (30, 40, 130, 160))
    with imgkit.ImageService() as service:
        before = service.create_image("a house", size="256x256")[0]
        after = service.create_image_edit(before, "a balloon", mask=mask)[0]
    old, new = open_image(before).convert("RGB"), open_image(after).convert("RGB")
    changed = [(x, y) for x in range(256) for y in range(256) if old.getpixel((x, y)) != new.getpixel((x, y))]
    assert len(changed) > 1000
    assert all(30 <= x < 130 and 40 <= y < 160 for x, y in changed)


def test_invalid_masks_are_rejected() -> None:
    """Rejects a mask of another size or without alpha before sending."""
    with imgkit.ImageService() as service:
        for mask in (picture(size=(8, 9), mode="RGBA"), picture(size=(8, 8))):
            with pytest.raises(imgkit.InvalidRequestError, match="mask"):
                service.create_image_edit(picture(size=(32, 32)), "a balloon", mask=mask)


def test_variation_keeps_the_size_and_differs() -> None:
    """Variations keep the size, and differ from the original and from each other."""
    with imgkit.ImageService() as service:
        before = service.create_image("three cats", size="256x256")[0]
        response = service.create_image_variation(before, n=3)
    assert {(image.width, image.height) for image in response} == {(256, 256)}
    assert len({before.sha256, *(image.sha256 for image in response)}) == 4


def test_photos_are_edited_at_their_own_size() -> None:
    """Edits and varies a photo whose size does not fit the API's grid."""
    with imgkit.ImageService() as service:
        photo = picture("JPEG", (301, 199), "green")
        assert service.create_image_edit(photo, "a fox")[0].width == 301
        assert service.create_image_variation(photo)[0].height == 199


EXPECTED: dict[str, type[Exception]] = {
    "moderation_blocked": imgkit.ModerationBlockedError,
    "unknown_parameter": imgkit.UnknownParameterError,
    "billing_hard_limit_reached": imgkit.BillingLimitError,
    "invalid_api_key": imgkit.AuthenticationError,
    "organization_not_verified": imgkit.OrganizationNotVerifiedError,
    "model_not_found": imgkit.ModelNotFoundError,
    "rate_limit_exceeded": imgkit.RateLimitError,
    "insufficient_quota": imgkit.QuotaExceededError,
    "server_error": imgkit.ServerError,
    "bad_gateway": imgkit.OutcomeUnknownError,
    "not_json": imgkit.UnreadableReplyError,
    "empty_body": imgkit.UnreadableReplyError,
    "empty_result": imgkit.EmptyResultError,
    "connection_refused": imgkit.NotSentError,
    "connection_cut": imgkit.OutcomeUnknownError,
    "half_body": imgkit.OutcomeUnknownError,
    "timeout": imgkit.OutcomeUnknownError,
}


def test_every_fault_has_an_expected_error() -> None:
    """The table of this test contains every named fault."""
    assert set(EXPECTED) == set(FAULTS_BY_NAME)


@pytest.mark.parametrize("name", EXPECTED)
def test_simulated_faults(flavor: Any, name: str) -> None:
    """Each named fault raises its own error class, under both services."""
    with pytest.raises(EXPECTED[name]) as caught:
        flavor.run(
            lambda service: service.create_image("a fox", size="256x256"),
            timeout_s=0.3 if name == "timeout" else 30,
            client_options={"simulate": name},
        )
    assert type(caught.value) is EXPECTED[name]


def test_a_simulated_timeout_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses briefly although the timeout is long, and says so."""
    assert backend.SILENCE_S <= 1
    monkeypatch.setattr(backend, "SILENCE_S", 0.02)
    with imgkit.ImageService(client_options={"simulate": "timeout"}) as service:
        with pytest.raises(imgkit.OutcomeUnknownError, match=r"Simulated silence, cut short after 0\.0 s"):
            service.create_image("a fox")


@pytest.mark.parametrize(
    "status", [400, 401, 403, 404, 405, 409, 413, 422, 429, 500, 502, 503, 504, 529, "429"]
)
def test_simulated_statuses(status: int | str) -> None:
    """Simulates any error status."""
    with imgkit.ImageService(client_options={"simulate": status}, retry=False) as service:
        with pytest.raises(imgkit.ImgkitError) as caught:
            service.create_image("a fox")
    assert getattr(caught.value, "status", None) == int(status)


@pytest.mark.parametrize(
    "options",
    [{"simulate": "moderation_blokked"}, {"simulate": 200}, {"simulate": True}, {"latency_s": -1}, {"x": 1}],
)
def test_invalid_client_options(options: dict[str, Any]) -> None:
    """Reports an invalid client option when the service is created."""
    with pytest.raises(imgkit.ConfigurationError, match="client_options"):
        imgkit.ImageService(client_options=options)


def test_latency_is_bounded_by_the_deadline(flavor: Any) -> None:
    """Latency delays a response; the deadline ends it like a slow server."""
    started = time.monotonic()
    with pytest.raises(imgkit.OutcomeUnknownError):
        flavor.run(
            lambda service: service.create_image("a fox"), timeout_s=0.2, client_options={"latency_s": 30}
        )
    assert time.monotonic() - started < 3


def test_usage_and_ids() -> None:
    """A response has usage, a request id and a creation time, like the API's."""
    with imgkit.ImageService() as service:
        response = service.create_image_edit(picture(size=(64, 64)), "a fox")
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens  # type: ignore[operator]
    assert response.usage.input_image_tokens == 256
    assert (response.meta.request_id or "").startswith("req_offline_")
    assert abs((response.created or 0) - time.time()) < 60


def test_warns_about_missing_fonts(monkeypatch: Any) -> None:
    """Without the fonts, the response carries a warning."""
    from imgkit.painter import paint

    monkeypatch.setattr(paint, "font_warnings", lambda: ("no fonts here",))
    with imgkit.ImageService() as service:
        assert service.create_image("a fox", size="256x256").warnings == ("no fonts here",)


# The examples of the project's original specification, with imgkit's names.


def test_example_create_image() -> None:
    """Creates an image from a request object, with a result URL."""
    with imgkit.ImageService() as images:
        request = imgkit.CreateImageRequest(
            n=1, prompt="A cute baby sea otter", response_format="url", size="1024x1024", user="user-1234"
        )
        response = images.create_image(request)
        assert response.data[0].url is not None
        assert open_image(response.data[0]).size == (1024, 1024)


def test_example_create_image_edit() -> None:
    """Edits an image from a request object, with image and mask as bytes."""
    mask = io.BytesIO()
    PIL.Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(mask, "PNG")
    with imgkit.ImageService() as images:
        request = imgkit.CreateImageEditRequest(
            image=picture(size=(64, 64)),
            mask=mask.getvalue(),
            n=1,
            prompt="A cute baby sea otter wearing a beret",
            response_format="url",
            size="1024x1024",
            user="user-1234",
        )
        response = images.create_image_edit(request)
        assert response.data[0].url is not None
        assert open_image(response.data[0]).size == (1024, 1024)


def test_example_create_image_variation() -> None:
    """Varies an image from a request object."""
    with imgkit.ImageService() as images:
        request = imgkit.CreateImageVariationRequest(
            image=picture(size=(64, 64)), n=1, response_format="url", size="1024x1024", user="user-1234"
        )
        response = images.create_image_variation(request)
        assert response.data[0].url is not None
        assert open_image(response.data[0]).size == (1024, 1024)


def test_images_of_a_split_call_differ() -> None:
    """Paints twelve different images for a call that imgkit splits, and the first ten as without it."""
    with imgkit.ImageService("offline") as images:
        twelve = images.create_image("a fox", n=12, size="16x16")
        ten = images.create_image("a fox", n=10, size="16x16")
    digests = [image.sha256 for image in twelve]
    assert len(set(digests)) == 12
    assert digests[:10] == [image.sha256 for image in ten]


def test_an_unknown_endpoint_is_named() -> None:
    """A provider with endpoints of its own and without a fake learns what the offline backend serves."""

    class OwnPaths(OpenAIProvider):
        paths: ClassVar[dict[Operation, str]] = {"create_image": "/draw"}

    with imgkit.ImageService("offline", provider=OwnPaths()) as service:
        with pytest.raises(imgkit.NotFoundError, match=r"does not serve POST /v1/draw: it serves OpenAI"):
            service.create_image("a fox")
