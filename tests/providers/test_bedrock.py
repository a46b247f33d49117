"""Amazon Bedrock: signed and bearer requests through both HTTP backends, replies, secrets, refusals."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import PIL.Image
import pytest

import imgkit
from imgkit.cli.run import run
from imgkit.errors import InvalidRequestError, MissingKeyError
from imgkit.models import CreateImageEditRequest, CreateImageRequest
from imgkit.providers import FakeReply, FakeRequest, Target, json_reply
from imgkit.providers.bedrock import BedrockProvider
from imgkit.providers.bedrock_fake import FakeBedrock
from imgkit.providers.fakes import SCENARIOS
from imgkit.testing.wire_server import WireServer, reply, serve_fake
from tests.conftest import ServiceRunner
from tests.support.provider_apis import RequestLog, encode_json, paint_input

KEY_ID, SECRET = "AKIDEXAMPLE000000001", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SESSION = "IQoJb3JpZ2luX2VjEXAMPLE/token+of/a/session=="
BEARER = "bedrock-api-key-YmVkcm9jay5hbWF6b25hd3M"
CORE = "/model/stability.stable-image-core-v1%3A1/invoke"
INPAINT = "us.stability.stable-image-inpaint-v1:0"


class VerifyingBedrock(RequestLog, FakeBedrock):
    """The fake, which refuses a signature that it does not compute itself."""

    def handle(self, request: FakeRequest) -> FakeReply:
        """Verify the signature, then answer."""
        problem = find_signature_problem(request)
        if problem is not None:
            self.requests.append(request)
            echo = f"{problem}: {request.headers.get('authorization')} with {SESSION}, host"
            return json_reply(403, {"message": echo}, x_amzn_errortype="InvalidSignatureException:")
        return super().handle(request)


def find_signature_problem(request: FakeRequest) -> str | None:
    """Return why the service of AWS would refuse a signature, by the steps of its documentation."""
    headers = request.headers
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/bedrock/aws4_request, "
        r"SignedHeaders=([^,]+), Signature=([0-9a-f]{64})",
        headers.get("authorization", ""),
    )
    if found is None or found[1] != KEY_ID:
        return "no signature"
    _, day, region, names, signature = found.groups()
    stamp = headers["x-amz-date"]
    age_s = time.time() - time.mktime(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) + time.timezone
    if abs(age_s) > 300 or stamp[:8] != day:
        return "Signature expired"
    needed = {"host", "x-amz-date", "content-type"} | {name for name in headers if name.startswith("x-amz-")}
    if not needed <= set(names.split(";")) or names.split(";") != sorted(names.split(";")):
        return "headers are not signed"
    digest = hashlib.sha256(request.body).hexdigest()
    if headers["x-amz-content-sha256"] != digest:
        return "wrong digest"
    parts = urlsplit(request.url)
    segments = "/".join(quote(segment, safe="-_.~") for segment in parts.path.split("/"))
    lines = [f"{name}:{headers[name].strip()}" for name in names.split(";")]
    canonical = "\n".join(["POST", segments, parts.query, *lines, "", names, digest])
    scope = f"{day}/{region}/bedrock/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = ("AWS4" + SECRET).encode()
    for piece in scope.split("/"):
        key = hmac.digest(key, piece.encode(), "sha256")
    return None if hmac.digest(key, text.encode(), "sha256").hex() == signature else "does not match"


@pytest.fixture
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set temporary keys and a region."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    monkeypatch.setenv("AWS_REGION", "us-west-2")


def open_with(server: WireServer, **settings: Any) -> dict[str, Any]:
    """Return the arguments of a service."""
    return {"provider": "bedrock", "base_url": server.origin, **settings}


def create(**fields: Any) -> Callable[[Any], Any]:
    """Return a call."""
    return lambda service: service.create_image("a red fox", **fields)


OUTCOMES: dict[str, type[BaseException] | None] = {
    "refused": imgkit.ModerationBlockedError,
    "invalid": imgkit.BadRequestError,
    "failing": imgkit.OutcomeUnknownError,
    "lost_submit": imgkit.OutcomeUnknownError,
}


@pytest.mark.usefixtures("_keys")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenarios(scenario: str) -> None:
    """Sends one signed request in each situation but a refused one."""
    fake = VerifyingBedrock(scenario)
    outcome = OUTCOMES.get(scenario)
    with serve_fake(fake) as server:
        settings = open_with(server, retry=scenario == "rate_limited")
        if outcome is None:
            response = ServiceRunner("sync").run(create(aspect_ratio="16:9", seed=7), "requests", **settings)
            assert (len(response), response.extra) == (1, {"seed": 7})
            assert response[0].format == ("jpeg" if scenario == "wrong_type" else "png")
        else:
            with pytest.raises(outcome):
                ServiceRunner("sync").run(create(), "requests", **settings)
    assert fake.count[f"POST {CORE}"] == (2 if scenario == "rate_limited" else 1)


@pytest.mark.usefixtures("_keys")
@pytest.mark.parametrize(
    "model", [INPAINT, "arn:aws:bedrock:us-west-2:1234:inference-profile/us.stability.x"]
)
def test_both_backends_send_signed_requests(flavor: ServiceRunner, http_backend: str, model: str) -> None:
    """The signature of an id, a profile and a large body holds on the wire of each backend."""
    fake = VerifyingBedrock()
    data = io.BytesIO()
    PIL.Image.effect_noise((1200, 1200), 90).save(data, "PNG")
    mask = paint_input((1200, 1200), hole=True)
    edit = lambda service: service.create_image_edit(data.getvalue(), prompt="a hat", mask=mask, model=model)  # noqa: E731
    with serve_fake(fake) as server:
        assert len(flavor.run(edit, http_backend, **open_with(server))) == 1
    (request,) = fake.requests
    assert len(request.body) > 1024 * 1024
    assert urlsplit(request.url).path == f"/model/{quote(model, safe='')}/invoke"
    body = request.json()
    assert sorted(body) == ["image", "mask", "prompt"]
    seen = PIL.Image.open(io.BytesIO(base64.b64decode(body["mask"]))).convert("L")
    assert (seen.getpixel((1, 1)), seen.getpixel((1, 1199))) == (255, 0)


@pytest.mark.usefixtures("_keys")
def test_each_attempt_has_a_fresh_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second attempt is signed anew, at its own time."""
    moments = iter((time.time() - 60, time.time()))
    monkeypatch.setattr(BedrockProvider, "__init__", init_with_clock(lambda: next(moments)))
    fake = VerifyingBedrock("rate_limited")
    with serve_fake(fake) as server:
        ServiceRunner("sync").run(create(), "requests", **open_with(server, retry=True))
    first, second = (each.headers for each in fake.requests)
    assert first["x-amz-date"] != second["x-amz-date"]
    assert first["authorization"] != second["authorization"]


def init_with_clock(clock: Callable[[], float]) -> Callable[[BedrockProvider], None]:
    """Return an ``__init__`` whose signer reads another clock."""
    original = BedrockProvider.__init__

    def init(self: BedrockProvider) -> None:
        original(self)
        self._signer._clock = clock

    return init


@pytest.mark.parametrize("door", ["variable", "argument"])
def test_a_bearer_token_comes_first(
    flavor: ServiceRunner, http_backend: str, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token goes as Bearer, without a signature, although there are keys."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    fake = type("LoggingBedrock", (RequestLog, FakeBedrock), {})()
    given = {"api_key": BEARER} if door == "argument" else {}
    if door == "variable":
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", BEARER)
    with serve_fake(fake) as server:
        flavor.run(create(), http_backend, **open_with(server, **given))
    (request,) = fake.requests
    assert request.headers["authorization"] == f"Bearer {BEARER}"
    assert not [name for name in request.headers if name.startswith("x-amz-")]


@pytest.mark.usefixtures("_keys")
def test_no_secret_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors, events, reprs and recordings show no key, token or signature; common words stay."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another/secret+key1234567890abcdefghijkl")
    fake = VerifyingBedrock()
    events: list[object] = []

    class Watch:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: object) -> None:
            events.append(event)

    plugins = [Watch(), imgkit.RecorderPlugin(tmp_path / "tape.yaml")]
    with serve_fake(fake) as server, pytest.raises(imgkit.AuthenticationError) as caught:
        ServiceRunner("sync").run(create(), "requests", **open_with(server, plugins=plugins))
    (request,) = fake.requests
    signature = request.headers["authorization"].rpartition("Signature=")[2]
    seen = [str(caught.value), repr(vars(caught.value)), repr(events)]
    seen += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (KEY_ID, SESSION, signature, "another/secret"):
        assert not any(secret in text for text in seen), secret
    assert "does not match" in seen[0]
    assert "host" in seen[0]
    assert "AWS_SECRET_ACCESS_KEY" in seen[0]


def test_half_of_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key id without its secret, and no key at all, send nothing and name the variables."""
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    with imgkit.ImageService("requests", provider="bedrock") as service:
        with pytest.raises(MissingKeyError, match="AWS_BEARER_TOKEN_BEDROCK or AWS_ACCESS_KEY_ID"):
            service.create_image("a fox")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        with pytest.raises(MissingKeyError, match="is set without AWS_SECRET_ACCESS_KEY") as caught:
            service.create_image("a fox")
    assert KEY_ID not in str(caught.value)


def test_the_doctor_knows_all_keys(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor shows each key that is set, and the key that is missing beside another."""
    for name, text in (("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SESSION_TOKEN", SESSION)):
        monkeypatch.setenv(name, text)
    with WireServer(reply(404, b"")) as server:
        assert run(["doctor", "--provider", "bedrock", "--base-url", server.origin]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert "wrong  API key: AWS_ACCESS_KEY_ID needs AWS_SECRET_ACCESS_KEY, which is not set" in lines
    assert "ok     API key: AWS_SESSION_TOKEN is set (…on==)" in lines
    assert SESSION not in "".join(lines)


def test_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address comes from the region; without both, the error names the variables."""
    with pytest.raises(imgkit.ConfigurationError, match="AWS_REGION or AWS_ENDPOINT_URL_BEDROCK_RUNTIME"):
        imgkit.ImageService("requests", provider="bedrock")
    with pytest.raises(imgkit.ConfigurationError, match="Invalid region"):
        BedrockProvider("us west/2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert BedrockProvider().base_url == "https://bedrock-runtime.eu-west-1.amazonaws.com"
    assert BedrockProvider("us-east-1").base_url == "https://bedrock-runtime.us-east-1.amazonaws.com"


TARGET = Target(base_url="https://bedrock-runtime.us-west-2.amazonaws.com", host_class="official")


def test_the_bodies() -> None:
    """Sends the captured body; options join it, and an image needs a strength."""
    provider = BedrockProvider("us-west-2")
    request = CreateImageRequest(prompt="a mug", aspect_ratio="1:1", output_format="png")
    assert encode_json(provider, request, TARGET) == (
        f"{TARGET.base_url}{CORE}",
        {"prompt": "a mug", "mode": "text-to-image", "aspect_ratio": "1:1", "output_format": "png"},
    )
    edit = CreateImageEditRequest(
        image=(b"",), prompt="night", seed=7, negative_prompt="rain", model_options={"strength": 0.4}
    )
    assert encode_json(provider, edit, TARGET) == (
        f"{TARGET.base_url}/model/stability.sd3-5-large-v1%3A0/invoke",
        {"mode": "image-to-image", "negative_prompt": "rain", "prompt": "night", "seed": 7, "strength": 0.4},
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "amazon.nova-canvas-v1:0"}, "have ended"),
        ({"model": INPAINT}, "changes an image"),
        ({"size": "512x512"}, "takes no size"),
        ({"model_options": {"stile_preset": "anime"}}, "did you mean 'style_preset'"),
        ({"model_options": {"style_preset": 5}}, "It takes text, not 5"),
    ],
)
def test_requests_that_the_api_lacks(fields: dict[str, Any], words: str) -> None:
    """Refuses models without a picture to make, fields and options before the call."""
    with (
        imgkit.ImageService("offline", provider="bedrock") as service,
        pytest.raises(InvalidRequestError, match=words),
    ):
        service.create_image("a fox", **fields)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AccessDeniedException", imgkit.PermissionDeniedError),
        (403, "ExpiredTokenException", imgkit.AuthenticationError),
        (404, "ResourceNotFoundException", imgkit.NotFoundError),
        (408, "ModelTimeoutException", imgkit.OutcomeUnknownError),
        (424, "ModelErrorException", imgkit.ServerError),
        (429, "ThrottlingException", imgkit.RateLimitError),
    ],
)
@pytest.mark.usefixtures("_keys")
def test_error_codes(status: int, code: str, error: type[imgkit.ImgkitError]) -> None:
    """The code in the header chooses the class; the request id and the body stay."""
    fake = VerifyingBedrock()
    headers = {"x_amzn_errortype": f"{code}:http://internal", "x_amzn_requestid": "req-7"}
    fake.handle = lambda request: json_reply(status, {"message": "no"}, **headers)  # type: ignore[method-assign]
    with serve_fake(fake) as server, pytest.raises(error) as caught:
        ServiceRunner("sync").run(create(), "requests", **open_with(server))
    assert vars(caught.value)["request_id"] == "req-7"
    assert vars(caught.value)["body"] == b'{"message": "no"}'


@pytest.mark.usefixtures("_keys")
def test_costs_of_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has the price of an image, and none is invented."""
    with imgkit.ImageService("requests", provider="bedrock") as service:
        known = CreateImageRequest(prompt="a fox", n=2, model="stability.stable-image-ultra-v1:1")
        assert str(service.estimate(known).high) == "0.28"
        unknown = CreateImageRequest(prompt="a fox", model=INPAINT)
        assert service.estimate(unknown).high is None


def test_offline(flavor: ServiceRunner) -> None:
    """All operations run offline, without a key or a region."""
    calls: list[Callable[[Any], Any]] = [
        create(n=2),
        lambda service: service.create_image_edit(paint_input(), prompt="a hat", mask=paint_input(hole=True)),
        lambda service: service.create_image_edit(paint_input(), prompt="a hat"),
        lambda service: service.create_image_variation(paint_input()),
    ]
    counts = [len(flavor.run(call, "offline", provider="bedrock")) for call in calls]
    assert counts == [2, 1, 1, 1]
