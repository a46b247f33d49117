"""The offline backend as users meet it: an API inside the process."""

from __future__ import annotations

import io
import time
from typing import Any

import PIL.Image
import pytest

import imgkit
from imgkit.backends.offline.faults import NAMED
from tests.support.pictures import picture


def png_of(image: Any) -> PIL.Image.Image:
    opened: PIL.Image.Image = image.to_pil()
    return opened


def test_same_request_same_picture(flavor: Any) -> None:
    """Equal requests give equal pictures; prompt, parameters, seed and index make a difference."""
    work = lambda service: service.create_image("a red fox", size="256x256", n=2)  # noqa: E731
    first, again = flavor.run(work), flavor.run(work)
    assert [image.sha256 for image in first] == [image.sha256 for image in again]
    assert first[0].sha256 != first[1].sha256
    seeded = flavor.run(work, client_options={"seed": 7})
    assert seeded[0].sha256 != first[0].sha256
    blue = flavor.run(lambda service: service.create_image("a blue fox", size="256x256"))
    assert blue[0].sha256 != first[0].sha256


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_formats(output_format: str) -> None:
    """The format asked for is what comes; compression makes a lossy file smaller."""
    with imgkit.ImageService() as service:
        made = service.create_image("a fox", size="256x256", output_format=output_format)
        assert made[0].format == made.output_format == output_format
        if output_format != "png":
            small = service.create_image(
                "a fox", size="256x256", output_format=output_format, output_compression=10
            )
            assert len(small[0].data) < len(made[0].data)


@pytest.mark.parametrize("size", ["16x16", "256x256", "1792x1024", "1024x1536", "3840x2160", "1008x336"])
def test_sizes(size: str) -> None:
    """Any size that the models allow comes out as it was asked for."""
    with imgkit.ImageService() as service:
        made = service.create_image("a fox", size=size)
    assert f"{made[0].width}x{made[0].height}" == made.size == size


def test_default_size_and_transparency() -> None:
    """Without a size, or with auto, 1024x1024; a transparent background is transparent."""
    with imgkit.ImageService() as service:
        assert service.create_image("a fox", size="auto")[0].width == 1024
        clear = png_of(service.create_image("a fox", size="256x256", background="transparent")[0])
    assert clear.mode == "RGBA"
    assert clear.getpixel((2, 2))[3] == 0


REFUSED = [
    ({"size": "1500x1000"}, "size"),
    ({"size": "4096x1024"}, "size"),
    ({"size": "1024x256"}, "size"),
    ({"output_format": "gif"}, "output_format"),
    ({"background": "transparent", "output_format": "jpeg"}, "background"),
]


@pytest.mark.parametrize(("options", "param"), REFUSED)
def test_it_refuses_as_the_api_does(options: dict[str, Any], param: str) -> None:
    """What the API would refuse is refused with its kind of error, naming the parameter."""
    with imgkit.ImageService() as service, pytest.raises(imgkit.BadRequestError) as caught:
        service.create_image("a fox", **options)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_edit_changes_only_where_the_mask_is_transparent() -> None:
    """Outside the mask's transparent area every pixel stays; inside it changes."""
    mask = PIL.Image.new("RGBA", (256, 256), "black")
    mask.paste((0, 0, 0, 0), (30, 40, 130, 160))
    with imgkit.ImageService() as service:
        before = service.create_image("a house", size="256x256")[0]
        after = service.create_image_edit(before, "a balloon", mask=mask)[0]
    one, two = png_of(before).convert("RGB"), png_of(after).convert("RGB")
    changed = [(x, y) for x in range(256) for y in range(256) if one.getpixel((x, y)) != two.getpixel((x, y))]
    assert len(changed) > 1000
    assert all(30 <= x < 130 and 40 <= y < 160 for x, y in changed)


def test_wrong_masks_are_refused() -> None:
    """A mask of another size or without alpha is refused before it is sent."""
    with imgkit.ImageService() as service:
        for mask in (picture(size=(8, 9), mode="RGBA"), picture(size=(8, 8))):
            with pytest.raises(imgkit.InvalidRequestError, match="mask"):
                service.create_image_edit(picture(size=(32, 32)), "a balloon", mask=mask)


def test_variation_keeps_the_size_and_differs() -> None:
    """A variation has the picture's size and another look; several differ among themselves."""
    with imgkit.ImageService() as service:
        before = service.create_image("three cats", size="256x256")[0]
        made = service.create_image_variation(before, n=3)
    assert {(image.width, image.height) for image in made} == {(256, 256)}
    assert len({before.sha256, *(image.sha256 for image in made)}) == 4


def test_odd_inputs_are_edited_at_their_own_size() -> None:
    """A photo of any size can be edited and varied: its own size need not fit the API's grid."""
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


def test_all_faults_are_expected() -> None:
    """The table of this test knows every named fault."""
    assert set(EXPECTED) == set(NAMED)


@pytest.mark.parametrize("name", EXPECTED)
def test_simulated_faults(flavor: Any, name: str) -> None:
    """Each named fault ends in its own class of error, under both services."""
    with pytest.raises(EXPECTED[name]) as caught:
        flavor.run(
            lambda service: service.create_image("a fox", size="256x256"),
            timeout_s=0.3 if name == "timeout" else 30,
            client_options={"simulate": name},
        )
    assert type(caught.value) is EXPECTED[name]


@pytest.mark.parametrize(
    "status", [400, 401, 403, 404, 405, 409, 413, 422, 429, 500, 502, 503, 504, 529, "429"]
)
def test_simulated_statuses(status: int | str) -> None:
    """Any error status can be simulated."""
    with imgkit.ImageService(client_options={"simulate": status}, retry=False) as service:
        with pytest.raises(imgkit.ImgkitError) as caught:
            service.create_image("a fox")
    assert getattr(caught.value, "status", None) == int(status)


@pytest.mark.parametrize(
    "options",
    [{"simulate": "moderation_blokked"}, {"simulate": 200}, {"simulate": True}, {"latency_s": -1}, {"x": 1}],
)
def test_unknown_knobs(options: dict[str, Any]) -> None:
    """A knob that does not exist is told when the service is built."""
    with pytest.raises(imgkit.ConfigurationError, match="client_options"):
        imgkit.ImageService(client_options=options)


def test_latency_is_bounded_by_the_deadline(flavor: Any) -> None:
    """Latency delays an answer, and the deadline ends it as it ends a slow server."""
    began = time.monotonic()
    with pytest.raises(imgkit.OutcomeUnknownError):
        flavor.run(
            lambda service: service.create_image("a fox"), timeout_s=0.2, client_options={"latency_s": 30}
        )
    assert time.monotonic() - began < 3


def test_usage_and_ids() -> None:
    """A reply has usage, a request id and a creation time, as the API's have."""
    with imgkit.ImageService() as service:
        made = service.create_image_edit(picture(size=(64, 64)), "a fox")
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens  # type: ignore[operator]
    assert made.usage.input_image_tokens == 256
    assert (made.meta.request_id or "").startswith("req_offline_")
    assert abs((made.created or 0) - time.time()) < 60


def test_says_when_it_paints_simply(monkeypatch: Any) -> None:
    """Without the fonts it paints simply, and the reply's warnings say so."""
    from imgkit.painter import painter

    monkeypatch.setattr(painter, "notices", lambda: ("no fonts here",))
    with imgkit.ImageService() as service:
        assert service.create_image("a fox", size="256x256").warnings == ("no fonts here",)


# The examples of the document that the project was created from, in imgkit's names.


def test_example_create_image() -> None:
    """A creation as a request object, with a URL for a reply."""
    with imgkit.ImageService() as images:
        request = imgkit.CreateImageRequest(
            n=1, prompt="A cute baby sea otter", response_format="url", size="1024x1024", user="user-1234"
        )
        res = images.create_image(request)
        assert res.data[0].url is not None
        assert png_of(res.data[0]).size == (1024, 1024)


def test_example_create_image_edit() -> None:
    """An edit as a request object, with image and mask as bytes."""
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
        res = images.create_image_edit(request)
        assert res.data[0].url is not None
        assert png_of(res.data[0]).size == (1024, 1024)


def test_example_create_image_variation() -> None:
    """A variation as a request object."""
    with imgkit.ImageService() as images:
        request = imgkit.CreateImageVariationRequest(
            image=picture(size=(64, 64)), n=1, response_format="url", size="1024x1024", user="user-1234"
        )
        res = images.create_image_variation(request)
        assert res.data[0].url is not None
        assert png_of(res.data[0]).size == (1024, 1024)
