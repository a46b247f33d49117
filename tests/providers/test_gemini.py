"""Google's image models: requests, sizes, refusals under 200, waits in the body, streams, and both doors."""

from __future__ import annotations

import base64
import json
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from importlib import resources
from typing import Any

import pytest

import imgkit
from imgkit import ImageReference
from imgkit.catalogue.catalogue import Catalogue
from imgkit.catalogue.pricing import compute_cost, compute_estimate
from imgkit.images.inputs import OpenedInputs
from imgkit.models import CreateImageEditRequest, CreateImageRequest, ImageRequest, Usage
from imgkit.providers.base import DecodedImages, Target
from imgkit.providers.error_replies import error_from_reply
from imgkit.providers.fakes import SCENARIOS, FakeReply, FakeRequest, json_reply
from imgkit.providers.gemini import GeminiProvider
from imgkit.providers.gemini_fake import FakeGemini
from imgkit.providers.gemini_sizes import (
    RATIOS,
    RESOLUTIONS,
    list_sizes,
    parse_pair,
    to_image_config,
    to_pixels,
)
from imgkit.schemas.model_facts import MODEL_FACTS_SCHEMA
from imgkit.testing import ProviderContract
from imgkit.testing.provider_samples import open_inputs
from imgkit.testing.samples import png
from imgkit.testing.wire_server import WireServer, serve_fake
from imgkit.wire.json_body import JsonReply
from imgkit.wire.messages import Head
from tests.conftest import ServiceRunner

KEY = "AIzaCANARY0123456789abcdef"
TOKEN = "ya29.CANARY0123456789abcdef"
MODEL = "gemini-3.1-flash-image"
SUBMIT = f"POST /v1/models/{MODEL}:generateContent"
OFFICIAL = Target(base_url=GeminiProvider.base_url, host_class="official")
VERTEX = "/v1/projects/p/locations/global"
CATALOGUE = Catalogue("gemini", GeminiProvider.model_facts)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the keys of the person who runs the tests."""
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_ACCESS_TOKEN", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake() -> FakeGemini:
    """The API."""
    return FakeGemini()


@pytest.fixture
def server(fake: FakeGemini) -> Iterator[WireServer]:
    """The API on loopback."""
    with serve_fake(fake) as running:
        yield running


def encode(request: ImageRequest, inputs: OpenedInputs | None = None, target: Target = OFFICIAL) -> Any:
    """Return the JSON body of a request."""
    provider = GeminiProvider()
    provider.check(request, target)
    return json.loads(b"".join(provider.encode(request, inputs or OpenedInputs(), target).body.blocks()))


def decode(reply: Any) -> DecodedImages:
    """Decode a success reply."""
    body = JsonReply(GeminiProvider.base64_keys)
    body.feed(json.dumps(reply).encode())
    body.close()
    return GeminiProvider().decode(Head(200, {}), body, OFFICIAL)


def to_part(data: bytes, **more: Any) -> dict[str, Any]:
    """Return a part of a reply with an image."""
    return {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(data).decode()}, **more}


def to_reply(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a reply with one candidate."""
    return {
        "candidates": [{"content": {"role": "model", "parts": list(parts)}, "finishReason": "STOP"}],
        **more,
    }


def open_with(server: WireServer, **settings: Any) -> dict[str, Any]:
    """Return the arguments of a service."""
    return {"provider": "gemini", "base_url": server.origin, "api_key": KEY, **settings}


# --- Requests --------------------------------------------------------------------------------


def test_edits_equal_the_capture_of_the_sdk() -> None:
    """Sends for an edit what google-genai 3.6.1 sends, compared as parsed JSON."""
    data = b"\x89PNG"
    image: Any = png(1)
    request = CreateImageEditRequest(
        image=image, prompt="make it night", size="1376x768", extra_body={"generationConfig": {"seed": 7}}
    )
    with ExitStack() as cleanup:
        inputs = open_inputs(request, cleanup)
        body = encode(request, inputs)
    # The capture's image is the beginning of a PNG, which imgkit refuses to send.
    assert body["contents"][0]["parts"][1]["inlineData"]["data"] == base64.b64encode(image).decode()
    body["contents"][0]["parts"][1]["inlineData"]["data"] = base64.b64encode(data).decode()
    assert body == {
        "contents": [
            {
                "parts": [
                    {"text": "make it night"},
                    {"inlineData": {"data": "iVBORw==", "mime_type": "image/png"}},
                ],
                "role": "user",
            }
        ],
        "generationConfig": {
            "seed": 7,
            "responseModalities": ["IMAGE"],
            "imageConfig": {"aspectRatio": "16:9", "imageSize": "1K"},
        },
    }


def test_requests_carry_the_key_in_a_header(
    flavor: ServiceRunner, http_backend: str, fake: FakeGemini, server: WireServer
) -> None:
    """Sends the key as x-goog-api-key to the path of the SDK, and never in the URL."""
    seen: list[FakeRequest] = []
    handle = fake.handle

    def record(request: FakeRequest) -> FakeReply:
        seen.append(request)
        return handle(request)

    fake.handle = record  # type: ignore[method-assign]  # looks at requests
    response = flavor.run(
        lambda service: service.create_image("a red fox"), http_backend, **open_with(server)
    )
    assert response.meta.model == MODEL
    (request,) = seen
    assert request.headers["x-goog-api-key"] == KEY
    assert "authorization" not in request.headers
    assert request.url == f"{server.origin}/v1/models/{MODEL}:generateContent"
    assert request.json() == {
        "contents": [{"role": "user", "parts": [{"text": "a red fox"}]}],
        "generationConfig": {"responseModalities": ["IMAGE"]},
    }


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://generativelanguage.googleapis.com", "/v1/models/"),
        ("https://generativelanguage.googleapis.com/v1beta", "/v1beta/models/"),
        ("https://gateway.example/v1/account/google-ai-studio", "/google-ai-studio/v1/models/"),
        (f"https://aiplatform.googleapis.com{VERTEX}", f"{VERTEX}/publishers/google/models/"),
        (f"https://proxy.example{VERTEX}/publishers/google/models", f"{VERTEX}/publishers/google/models/"),
        ("https://us-central1-aiplatform.googleapis.com/v1beta1", "/v1beta1/publishers/google/models/"),
        ("https://aiplatform.us.rep.googleapis.com", "/v1/publishers/google/models/"),
    ],
)
def test_addresses_of_both_doors(base_url: str, url: str) -> None:
    """Completes a base URL with the version and with Vertex AI's path."""
    target = Target(base_url=base_url, host_class="official", model="models/some-model")
    request = GeminiProvider().encode(CreateImageRequest(prompt="a"), OpenedInputs(), target)
    assert request.url.endswith(f"{url}some-model:generateContent")
    assert request.url.startswith(base_url.removesuffix("/publishers/google/models"))


def test_half_an_address_of_vertex_is_refused() -> None:
    """Refuses a project without a location, and names a whole address."""
    with pytest.raises(imgkit.ConfigurationError, match="without a location"):
        with imgkit.ImageService(
            "requests",
            provider="gemini",
            api_key=TOKEN,
            base_url="https://aiplatform.googleapis.com/v1/projects/p",
        ) as service:
            service.create_image("a fox")


@pytest.mark.parametrize("source", ["argument", "variable"])
def test_vertex_gets_a_token(
    flavor: ServiceRunner,
    http_backend: str,
    fake: FakeGemini,
    server: WireServer,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    """Sends an access token to a project of Vertex AI, and keeps the key of the Gemini API at home."""
    headers: list[Any] = []
    handle = fake.handle

    def record(request: FakeRequest) -> FakeReply:
        headers.append(request.headers)
        return handle(request)

    fake.handle = record  # type: ignore[method-assign]  # looks at requests
    settings = open_with(server, base_url=server.origin + VERTEX, api_key=TOKEN)
    if source == "variable":
        monkeypatch.setenv("GEMINI_API_KEY", KEY)
        monkeypatch.setenv("GOOGLE_ACCESS_TOKEN", TOKEN)
        settings.pop("api_key")
    flavor.run(lambda service: service.create_image("a red fox"), http_backend, **settings)
    assert headers[0]["authorization"] == f"Bearer {TOKEN}"
    assert "x-goog-api-key" not in headers[0]
    assert fake.count == {f"POST {VERTEX}/publishers/google/models/{MODEL}:generateContent": 1}


@pytest.mark.parametrize(
    ("reference", "data"),
    [
        (
            ImageReference(file_id="files/abc"),
            {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"},
        ),
        (
            ImageReference(file_id="gs://bucket/fox.jpg"),
            {"fileUri": "gs://bucket/fox.jpg", "mimeType": "image/jpeg"},
        ),
        (
            ImageReference(url="https://files.example/fox.png?v=1.0"),
            {"fileUri": "https://files.example/fox.png?v=1.0", "mimeType": "image/png"},
        ),
    ],
)
def test_references(reference: ImageReference, data: dict[str, str]) -> None:
    """Sends references as fileData, with the type that their name tells."""
    request = CreateImageEditRequest(image=(reference,), prompt="a hat")
    body = encode(request, OpenedInputs((reference,)))
    assert body["contents"][0]["parts"][1] == {"fileData": data}


def test_extra_body_wins_and_merges() -> None:
    """Merges objects of extra_body with imgkit's own; its values win."""
    extra: dict[str, object] = {
        "generationConfig": {"responseModalities": ["TEXT", "IMAGE"], "imageConfig": {"imageSize": "2K"}},
        "model": "other",
    }
    body = encode(CreateImageRequest(prompt="a", size="1024x1024", extra_body=extra))
    assert body["generationConfig"] == {
        "responseModalities": ["TEXT", "IMAGE"],
        "imageConfig": {"aspectRatio": "1:1", "imageSize": "2K"},
    }
    assert "model" not in body


# --- Sizes -----------------------------------------------------------------------------------


def test_sizes_become_ratios_and_resolutions() -> None:
    """Finds the nearest ratio for each documented size, and a resolution that all ratios share."""
    for model in ("gemini-3-pro-image", MODEL, "gemini-2.5-flash-image"):
        configs = [to_image_config(size, model) for size in list_sizes(model)]
        assert len({tuple(config.items()) for config in configs}) == len(configs)
    pro = [to_image_config(size, "") for size in list_sizes("gemini-3-pro-image")]
    assert pro == [
        {"aspectRatio": ratio, "imageSize": resolution}
        for resolution in ("1K", "2K", "4K")
        for ratio in RATIOS[:10]
    ]
    for size in list_sizes(MODEL):
        config = to_image_config(size, MODEL)
        width, height = parse_pair(config["aspectRatio"], ":")
        assert to_pixels(config, MODEL) == parse_pair(size, "x")
        pixels, drawn = RESOLUTIONS[config["imageSize"]] ** 2, parse_pair(size, "x")
        assert drawn[0] / drawn[1] == pytest.approx(width / height, rel=0.03)
        assert drawn[0] * drawn[1] == pytest.approx(pixels, rel=0.15)


@pytest.mark.parametrize(
    ("model", "size", "words"),
    [
        (None, "1000x1000", "the nearest is 1024x1024"),
        ("gemini-2.5-flash-image", "1376x768", "the nearest is 1344x768"),
        ("gemini-2.5-flash-image", "2048x2048", "the nearest is"),
        ("some-model", "1900x1080", "the nearest is"),
    ],
)
@pytest.mark.parametrize("backend", ["offline", "requests"])
def test_other_sizes_are_refused(model: str | None, size: str, words: str, backend: str) -> None:
    """Refuses pixels that no model draws before anything is sent, and names the nearest."""
    settings = {"api_key": KEY} if backend == "requests" else {}
    with imgkit.ImageService(backend, provider="gemini", model=model, **settings) as service:  # type: ignore[arg-type]
        with pytest.raises(imgkit.InvalidRequestError, match=words) as caught:
            service.create_image("a fox", size=size)
    assert list(caught.value.fields) == ["size"]
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, png(2, mode="RGBA")) for name in ("mask", "markup")),
        *(("quality", "low"), ("output_format", "png"), ("background", "opaque")),
    ],
)
def test_fields_that_the_api_lacks_are_refused(field: str, value: Any) -> None:
    """Refuses masks and other fields that the API does not have."""
    with imgkit.ImageService("offline", provider="gemini") as service:
        with pytest.raises(imgkit.InvalidRequestError, match=f"takes no {field}"):
            service.create_image_edit(png(1), "a hat", **{field: value})


def test_offline_draws_what_is_asked_for(flavor: ServiceRunner) -> None:
    """Answers offline with the fake: several images, edits, emulated variations, with the asked size."""
    options = {"backend": "offline", "provider": "gemini"}
    images = flavor.run(lambda service: service.create_image("a fox", n=2, size="192x1536"), **options)
    assert [(image.width, image.height) for image in images] == [(192, 1536)] * 2
    assert images.warnings == ()
    assert images.cost.amount == 0
    edit = flavor.run(
        lambda service: service.create_image_edit([png(1), png(2)], "a hat", size="512x512"), **options
    )
    assert edit.usage.input_image_tokens == 516
    variation = flavor.run(lambda service: service.create_image_variation(png(1), size="256x1024"), **options)
    assert variation.meta.emulated
    assert (variation[0].width, variation[0].height) == (256, 1024)


# --- Scenarios -------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenarios(flavor: ServiceRunner, http_backend: str, scenario: str) -> None:
    """Sends one request, whatever the API answers, and two after a 429 with its wait in the body."""
    fake = FakeGemini(scenario)
    errors: dict[str, tuple[type[imgkit.ImgkitError], str]] = {
        "refused": (imgkit.ModerationBlockedError, "SAFETY"),
        "invalid": (imgkit.BadRequestError, "aspect_ratio"),
        "failing": (imgkit.OutcomeUnknownError, "overloaded"),
        "lost_submit": (imgkit.OutcomeUnknownError, "may"),
    }
    with serve_fake(fake) as server:
        settings = open_with(server, retry=True)

        def run() -> Any:
            return flavor.run(lambda service: service.create_image("a red fox"), http_backend, **settings)

        if scenario in errors:
            kind, words = errors[scenario]
            with pytest.raises(kind, match=words):
                run()
        else:
            response = run()
            assert len(response) == 1
            assert response[0].format == "png"
            assert response.usage.output_tokens == 1220
            assert response.cost.amount is None
    assert fake.count[SUBMIT] == (2 if scenario == "rate_limited" else 1)


def test_fewer_images(flavor: ServiceRunner, http_backend: str) -> None:
    """Splits a call into requests of one image; a request that draws nothing costs no other."""
    fake = FakeGemini("fewer")
    with serve_fake(fake) as server:
        response = flavor.run(
            lambda service: service.create_image("a red fox", n=3), http_backend, **open_with(server)
        )
    assert len(response) == 2
    (error,) = response.errors
    assert isinstance(error, imgkit.EmptyResultError)
    assert "NO_IMAGE" in str(error)
    assert fake.count[SUBMIT] == 3


# --- Replies ---------------------------------------------------------------------------------


def test_thoughts_are_skipped_and_the_last_image_wins() -> None:
    """Leaves thoughts and their drafts out; of several images the last is the result, with a warning."""
    draft, first, last = png(1), png(2), png(3)
    reply = to_reply(
        to_part(draft, thought=True),
        to_part(first),
        {"text": "better"},
        to_part(last),
        {"text": "!", "thought": True},
    )
    decoded = decode(reply)
    assert [image.data for image in decoded.pictures] == [last]
    assert decoded.warnings == ("The reply has 2 images; the last is the result.",)
    assert decoded.extra == {"text": "better"}
    other = {"candidates": [{"content": {"parts": [{"inline_data": to_part(first)["inlineData"]}]}}]}
    assert [image.data for image in decode(other).pictures] == [first]
    assert [image.data for image in decode([to_reply({"text": "a"}), other]).pictures] == [first]


def test_odd_members_cost_no_image() -> None:
    """Decodes an image beside parts, feedback and counts of wrong types."""
    reply = to_reply({"inlineData": "odd"}, to_part(png(1)), promptFeedback="odd", usageMetadata=[1])
    reply["candidates"][0]["content"]["parts"].insert(0, "odd")
    reply["candidates"].append("odd")
    decoded = decode(reply)
    assert [image.data for image in decoded.pictures] == [png(1)]
    assert decoded.usage is None


@pytest.mark.parametrize(
    ("reply", "stage", "code"),
    [
        ({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, "input", "PROHIBITED_CONTENT"),
        ({"promptFeedback": {"blockReason": "NEW_REASON"}, "candidates": []}, "input", "NEW_REASON"),
        *(
            ({"candidates": [{"finishReason": reason}]}, "output", reason)
            for reason in ("SAFETY", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "SPII")
        ),
        (to_reply({"text": "no"}, promptFeedback={"blockReason": "OTHER"}), "input", "OTHER"),
    ],
)
def test_refusals_under_200(reply: Any, stage: str, code: str) -> None:
    """Reports a block reason and the finish reasons of the safety system as refusals."""
    with pytest.raises(imgkit.ModerationBlockedError) as caught:
        decode(reply)
    assert (caught.value.stage, caught.value.code) == (stage, code)
    assert not caught.value.maybe_billed


def test_refusals_tell_categories_and_cost() -> None:
    """Names the blocked categories, and says that an image that was held back may cost."""
    ratings = [{"category": "HARM_A", "blocked": True}, {"category": "HARM_B"}]
    candidate = {"finishReason": "IMAGE_SAFETY", "finishMessage": "Not this.", "safetyRatings": ratings}
    usage = {"promptTokenCount": 8, "candidatesTokenCount": 1120}
    with pytest.raises(imgkit.ModerationBlockedError, match="Not this") as caught:
        decode({"candidates": [candidate], "usageMetadata": usage})
    assert caught.value.categories == ("HARM_A",)
    assert caught.value.maybe_billed


@pytest.mark.parametrize("reason", ["NO_IMAGE", "IMAGE_OTHER", "MAX_TOKENS", "STOP", "NEW_REASON"])
def test_no_image_is_no_refusal(reason: str) -> None:
    """Reports a reply without an image that the safety system did not refuse as empty, with its words."""
    reply = to_reply({"text": "I would rather write."})
    reply["candidates"][0]["finishReason"] = reason
    with pytest.raises(imgkit.EmptyResultError, match="rather write") as caught:
        decode(reply)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (
            400,
            {
                "message": "API key not valid. Please pass a valid API key.",
                "status": "INVALID_ARGUMENT",
                "details": [{"@type": "x", "reason": "API_KEY_INVALID"}],
            },
            imgkit.AuthenticationError,
        ),
        (400, {"message": "API key expired. Please renew the API key."}, imgkit.AuthenticationError),
        (400, {"message": "Invalid value", "status": "INVALID_ARGUMENT"}, imgkit.BadRequestError),
        (403, {"message": "Denied", "status": "PERMISSION_DENIED"}, imgkit.PermissionDeniedError),
        (
            404,
            {"message": "models/m is not found for API version v1", "status": "NOT_FOUND"},
            imgkit.ModelNotFoundError,
        ),
        (500, {"message": "An internal error", "status": "INTERNAL"}, imgkit.OutcomeUnknownError),
        (503, {"message": "Overloaded", "status": "UNAVAILABLE"}, imgkit.OutcomeUnknownError),
    ],
)
def test_error_replies(status: int, error: dict[str, Any], kind: type[imgkit.ImgkitError]) -> None:
    """Maps Google's error objects; a wrong key is a 400, and no 5xx is known to be free."""
    body = json.dumps({"error": {"code": status, **error}}).encode()
    for each in (body, b"[" + body + b"]"):
        found = GeminiProvider().error(Head(status, {}), each, ())
        assert type(found) is kind
        assert error["message"].split(".")[0] in str(found)


def test_the_wait_stands_in_the_body() -> None:
    """Reads the seconds to wait from RetryInfo, for there is no header."""
    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12.5s"}
    error = {"code": 429, "message": "You exceeded your current quota.", "status": "RESOURCE_EXHAUSTED"}
    body = json.dumps({"error": {**error, "details": [detail]}}).encode()
    found = error_from_reply(Head(429, {}), body)
    assert type(found) is imgkit.RateLimitError
    assert found.retry_after_s == 12.5


# --- Usage and cost --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "usage", "amount"),
    [
        (
            {"promptTokenCount": 10, "candidatesTokenCount": 1120, "totalTokenCount": 1130},
            Usage(input_tokens=10, output_tokens=1120, total_tokens=1130),
            "0.067205",
        ),
        (
            {
                "promptTokenCount": 266,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 8}, {"modality": "IMAGE", "tokenCount": 258},
                ],
                "candidatesTokenCount": 1130,
                "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}],
                "thoughtsTokenCount": 90,
                "totalTokenCount": 1486,
                "trafficType": "ON_DEMAND",
            },
            Usage(
                input_tokens=266, input_text_tokens=8, input_image_tokens=258, output_tokens=1220,
                output_text_tokens=100, output_image_tokens=1120, total_tokens=1486,
                extra={"trafficType": "ON_DEMAND"},
            ),
            "0.067633",
        ),
        (
            {"promptTokenCount": 10, "candidatesTokenCount": 1120, "thoughtsTokenCount": 100},
            Usage(input_tokens=10, output_tokens=1220, output_image_tokens=1120, output_text_tokens=100),
            "0.067505",
        ),
        ({"promptTokenCount": "x", "candidatesTokensDetails": [3]}, Usage(), None),
        (None, None, None),
    ],
)  # fmt: skip
def test_usage_and_cost(metadata: Any, usage: Usage | None, amount: str | None) -> None:
    """Counts thoughts as text, and prices text and images apart."""
    decoded = decode(to_reply(to_part(png(1)), **({} if metadata is None else {"usageMetadata": metadata})))
    assert decoded.usage == usage
    cost = compute_cost(decoded.usage, CATALOGUE.find_model(MODEL, "official"), "create_image")
    assert cost.amount == (None if amount is None else Decimal(amount))


def test_estimates() -> None:
    """Estimates an image by its documented tokens."""
    model = CATALOGUE.find_model(MODEL, "official")
    for size, low, high in (
        ("4096x4096", "0.1512", "0.1513"),
        ("512x512", "0.0448", "0.0449"),
        (None, "0.0448", "0.1513"),
    ):
        estimate = compute_estimate(CreateImageRequest(prompt="a red fox", size=size), model, CATALOGUE)
        assert estimate.low is not None
        assert estimate.high is not None
        assert Decimal(low) <= estimate.low <= estimate.high <= Decimal(high)


def test_the_data_file_is_complete() -> None:
    """Fits the schema; each entry has a source, each rule and table is used."""
    package, _, file = GeminiProvider.model_facts.partition(":")
    data = tomllib.loads(resources.files(package).joinpath(file).read_text("utf-8"))
    MODEL_FACTS_SCHEMA.read(data)
    for table in ("rules", "inputs", "prices", "tokens", "models", "retired"):
        entries = data[table] if isinstance(data[table], list) else data[table].values()
        assert all(entry["source"] in data["sources"] for entry in entries), table
    models = CATALOGUE.list_models()
    assert {rule.name for model in models for rule in model.rules} == set(data["rules"])
    assert GeminiProvider.default_model in {model.id for model in models}
    for model in models:
        sizes = next((rule.allowed for rule in model.rules if rule.field == "size"), ())
        if model.tokens is not None:
            assert {*model.tokens.by_quality["any"], "auto"} == set(sizes)


# --- Streams ---------------------------------------------------------------------------------


def collect(service: Any) -> Any:
    """Stream an image; return its events and the response."""

    async def collect_async() -> Any:
        async with service.stream_image("a red fox") as events:
            return [event async for event in events], events.response

    if isinstance(service, imgkit.AsyncImageService):
        return collect_async()
    with service.stream_image("a red fox") as events:
        return list(events), events.response


def test_streams(flavor: ServiceRunner, http_backend: str, fake: FakeGemini, server: WireServer) -> None:
    """Streams the whole image as an event, and reads the usage from the event behind it."""
    events, response = flavor.run(collect, http_backend, **open_with(server))
    assert [type(event) for event in events] == [imgkit.Completed]
    assert len(response) == 1
    assert response.usage.output_image_tokens == 1120
    assert fake.count == {f"POST /v1/models/{MODEL}:streamGenerateContent": 1}


@pytest.mark.parametrize(
    ("scenario", "kind"),
    [("refused", imgkit.ModerationBlockedError), ("rate_limited", imgkit.RateLimitError)],
)
def test_failing_streams(
    flavor: ServiceRunner, http_backend: str, scenario: str, kind: type[imgkit.ImgkitError]
) -> None:
    """Reports refusals and errors of a stream as those of a call."""
    fake = FakeGemini(scenario)
    with serve_fake(fake) as server, pytest.raises(kind):
        flavor.run(collect, http_backend, **open_with(server))
    assert sum(fake.count[name] for name in fake.count if name.startswith("POST")) == 1


@pytest.mark.parametrize("flavor", ["sync"], indirect=True)
def test_a_stream_without_an_image(flavor: ServiceRunner, fake: FakeGemini, server: WireServer) -> None:
    """Ends a stream that draws nothing with its finish reason."""
    event = json.dumps({"candidates": [{"finishReason": "NO_IMAGE"}]}).encode()
    fake.handle = lambda request: FakeReply(  # type: ignore[method-assign]  # an odd reply
        200, {"content-type": "text/event-stream"}, b"data: " + event + b"\n\n"
    )
    with pytest.raises(imgkit.EmptyResultError, match="NO_IMAGE"):
        flavor.run(collect, "requests", **open_with(server))


# --- The rest --------------------------------------------------------------------------------


def test_lists_models(flavor: ServiceRunner, http_backend: str, fake: FakeGemini, server: WireServer) -> None:
    """Lists the models by a free request; Vertex AI has none."""
    models = flavor.run(lambda service: service.list_models(), http_backend, **open_with(server))
    assert [model.id for model in models] == [MODEL]
    assert fake.count == {"GET /v1/models": 1}
    vertex = Target(base_url=f"https://aiplatform.googleapis.com{VERTEX}", host_class="official")
    assert GeminiProvider().models_request(vertex) is None


def test_the_fake_refuses_what_the_api_refuses() -> None:
    """Answers unknown members, ratios and paths with Google's errors."""
    fake = FakeGemini()
    url = f"https://generativelanguage.googleapis.com/v1/models/{MODEL}:generateContent"
    contents = [{"parts": [{"text": "a"}]}]
    for body in (
        {"contents": contents, "seed": 7},
        {},
        {"contents": contents, "generationConfig": {"imageConfig": {"aspectRatio": "7:3"}}},
        {"contents": contents, "generationConfig": {"imageConfig": {"imageSize": "1k"}}},
    ):
        reply = fake.answer_parts("POST", url, {}, json.dumps(body).encode())
        assert (reply.status, json.loads(reply.body)["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert fake.answer_parts("POST", "https://x.example/v1/other", {}, b"").status == 404
    plain = fake.answer_parts(
        "POST", url.replace(":g", ":streamG"), {}, json.dumps({"contents": contents}).encode()
    )
    assert isinstance(json.loads(plain.body), list)
    assert json_reply(200, {}).status == 200


class TestContract(ProviderContract):
    """The contract of a provider."""

    endpoints = dict.fromkeys(("create_image", "create_image_edit"), ":generateContent")
    images_per_reply = 1

    def provider(self) -> GeminiProvider:
        """Return the provider."""
        return GeminiProvider()

    def reply(self, pictures: list[bytes]) -> bytes:
        """Return a success reply."""
        return json.dumps(to_reply(*map(to_part, pictures))).encode()

    def usage_reply(self, pictures: list[bytes], usage: Usage) -> bytes:
        """Return a success reply with token counts."""
        counts = {
            "promptTokenCount": usage.input_tokens,
            "candidatesTokenCount": usage.output_tokens,
            "totalTokenCount": usage.total_tokens,
        }
        return json.dumps(to_reply(*map(to_part, pictures), usageMetadata=counts)).encode()

    def error_reply(self, message: str) -> bytes:
        """Return an error reply."""
        return json.dumps({"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}).encode()
