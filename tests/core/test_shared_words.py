"""The words that all APIs share: what each API gets, and what the policies do where an API lacks one."""

from __future__ import annotations

import json
from datetime import date
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

import imgkit
from imgkit.catalogue.catalogue import Catalogue, load_provider_data
from imgkit.cli.run import run
from imgkit.core import job_requests
from imgkit.default_plugins.builtin import imgkit_providers
from imgkit.providers.bfl import BflProvider
from imgkit.providers.bfl_fake import FakeBfl
from imgkit.schemas.model_facts import MODEL_FACTS_SCHEMA
from imgkit.testing import png
from imgkit.testing.samples import answer
from imgkit.testing.wire_server import WireServer, reply
from tests.support.official import official
from tests.support.pictures import picture

KEY = "k-1234567890"
RED = picture()


class Today(date):
    """A day on which no fact is stale."""

    @classmethod
    def today(cls) -> Today:
        return cls(2026, 11, 29)


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the facts fresh, and the pauses between polls short."""
    monkeypatch.setattr("imgkit.core.validation.date", Today)
    monkeypatch.setattr(job_requests, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(job_requests, "LONGEST_PAUSE_S", 0.01)


@cache
def open_service(provider: str, **settings: Any) -> imgkit.ImageService:
    """Return a service at the official host; a dry run sends nothing."""
    return imgkit.ImageService("requests", provider=provider, api_key=KEY, **settings)


def show(provider: str, operation: str = "create_image", policy: str = "raise", **call: Any) -> Any:
    """Return the JSON body of the request that a call would send."""
    words = {"prompt": "a fox", **call} if operation != "create_image_variation" else call
    text = open_service(provider, on_unsupported=policy).dry_run(operation, **words)
    return json.loads(text.partition("\n\n")[2])


def refuse(provider: str, operation: str = "create_image", policy: str = "raise", **call: Any) -> Any:
    """Return the error of a call that sends nothing."""
    with pytest.raises(imgkit.InvalidRequestError) as caught:
        show(provider, operation, policy, **call)
    return caught.value


# --- Shapes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "call", "sent"),
    [
        ("openai", {"model": "gpt-image-1", "aspect_ratio": "3:2"}, {"size": "1536x1024"}),
        ("openai", {"model": "gpt-image-1", "aspect_ratio": "9:16"}, {"size": "1024x1536"}),
        ("openai", {"model": "gpt-image-1", "resolution": "4k"}, {"size": "1024x1024"}),
        (
            "openai",
            {"model": "gpt-image-2", "aspect_ratio": "16:9", "resolution": "2K"},
            {"size": "2736x1536"},
        ),
        ("openai", {"model": "gpt-image-1", "size": "1500x1000"}, {"size": "1536x1024"}),
        ("bfl", {"aspect_ratio": "16:9"}, {"width": 1360, "height": 768}),
        ("bfl", {"resolution": "2K"}, {"width": 2048, "height": 2048}),
        ("bfl", {"size": "1000x1000"}, {"width": 1008, "height": 1008}),
        ("bfl", {"model": "flux-kontext-pro", "size": "1024x768"}, {"aspect_ratio": "4:3"}),
        ("bfl", {"model": "flux-kontext-pro", "size": "auto"}, {}),
        ("bfl", {"model": "flux-kontext-pro", "aspect_ratio": "3:1"}, {"aspect_ratio": "21:9"}),
        ("bfl", {"model": "flux-kontext-pro", "resolution": "2K"}, {}),
        (
            "bfl",
            {"model": "flux-3-image", "size": "1920x1080"},
            {"aspect_ratio": "16:9", "resolution": "1.5k"},
        ),
        ("bfl", {"model": "flux-3-image", "resolution": "800"}, {"resolution": "768sq"}),
        ("fal", {"aspect_ratio": "16:9"}, {"image_size": {"width": 1360, "height": 768}}),
        ("fal", {"model": "acme/any", "aspect_ratio": "16:9"}, {"aspect_ratio": "16:9"}),
        ("a1111", {"aspect_ratio": "2:1", "resolution": "512"}, {"width": 720, "height": 368}),
    ],
)
def test_adapts_shapes(provider: str, call: dict[str, Any], sent: dict[str, Any]) -> None:
    """Sends the nearest shape in the fields that the API has, and no others."""
    body = show(provider, policy="adapt", **call)
    assert {name: value for name, value in body.items() if name not in ("prompt", "model")} == sent


@pytest.mark.parametrize(
    ("model", "call", "config"),
    [
        (None, {"aspect_ratio": "16:9", "resolution": "2k"}, {"aspectRatio": "16:9", "imageSize": "2K"}),
        (None, {"size": "1376x768"}, {"aspectRatio": "16:9", "imageSize": "1K"}),
        (None, {"aspect_ratio": "7:5"}, {"aspectRatio": "4:3"}),
        (None, {"size": "1000x1000"}, {"aspectRatio": "1:1", "imageSize": "1K"}),
        ("gemini-2.5-flash-image", {"resolution": "2K", "aspect_ratio": "3:2"}, {"aspectRatio": "3:2"}),
        ("gemini-2.5-flash-image", {"resolution": "2K"}, {"aspectRatio": "1:1"}),
        ("gemini-3-pro-image", {"resolution": "512"}, {"imageSize": "1K"}),
    ],
)
def test_adapts_shapes_of_google(model: str | None, call: dict[str, Any], config: dict[str, Any]) -> None:
    """Sends ratio and resolution as they are, or the nearest that the model draws."""
    body = show("gemini", policy="adapt", model=model, **call)
    assert body["generationConfig"]["imageConfig"] == config


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:9"])
@pytest.mark.parametrize(
    ("provider", "call", "change"),
    [
        ("ideogram", {"aspect_ratio": "16:9"}, "aspect_ratio became size='1360x768'"),
        ("ideogram", {"resolution": "2K"}, "resolution became size='2048x2048'"),
        ("gemini", {"size": "1000x1000"}, "size became aspect_ratio='1:1' and resolution='1K'"),
    ],
)
def test_adapts_shapes_without_facts(provider: str, call: dict[str, Any], change: str, address: str) -> None:
    """Adapts or drops a shape that only the provider's ``check`` refuses, offline and at other servers."""
    backend = "requests" if address else "offline"
    more: dict[str, Any] = {"base_url": address, "api_key": KEY} if address else {}
    with imgkit.ImageService(backend, provider=provider, on_unsupported="adapt", **more) as service:
        if address:
            service.dry_run("create_image", "a fox", **call)
        else:
            got = service.create_image("a fox", **call)
            assert [text[: len(change) + 2] for text in got.warnings] == [f"{change}: "]
    with imgkit.ImageService(backend, provider=provider, on_unsupported="drop", **more) as service:
        service.dry_run("create_image", "a fox", **call)
    with (
        imgkit.ImageService(backend, provider=provider, **more) as service,
        pytest.raises(imgkit.InvalidRequestError),
    ):
        service.dry_run("create_image", "a fox", **call)


def test_says_when_it_leaves_a_shape_out() -> None:
    """Does not say that a resolution became the ratio that the request has anyway."""
    with imgkit.ImageService("offline", provider="stability", on_unsupported="adapt") as service:
        got = service.create_image("a fox", aspect_ratio="16:9", resolution="2K")
    assert got.warnings == (
        "resolution was left out: provider stability takes no resolution for create_image.",
    )


@pytest.mark.parametrize(
    ("provider", "call", "field", "remedy"),
    [
        ("openai", {"model": "gpt-image-1", "aspect_ratio": "3:2"}, "aspect_ratio", "Pass size='1536x1024'."),
        ("bfl", {"aspect_ratio": "16:9"}, "aspect_ratio", "flux-2-pro takes no aspect_ratio"),
        ("bfl", {"model": "flux-kontext-max", "size": "64x64"}, "size", "Pass aspect_ratio='1:1'."),
        ("bfl", {"model": "flux-kontext-pro", "aspect_ratio": "3:1"}, "aspect_ratio", "nearest is 21:9"),
        ("bfl", {"model": "flux-3-image", "resolution": "3K"}, "resolution", "'1.5K'"),
        ("gemini", {"aspect_ratio": "7:5"}, "aspect_ratio", "takes one of 14 values"),
        (
            "gemini",
            {"model": "gemini-2.5-flash-image", "resolution": "1K"},
            "resolution",
            "Pass size=",
        ),
        ("gemini", {"negative_prompt": "rain"}, "negative_prompt", "Leave it out."),
        ("comfyui", {"model": "m", "aspect_ratio": "1:1"}, "aspect_ratio", "Pass size='1024x1024'."),
        ("fal", {"size": "64x64", "aspect_ratio": "1:1"}, "aspect_ratio", "excludes a size in pixels"),
        ("bfl", {"size": "64x64", "resolution": "1K"}, "resolution", "excludes a size in pixels"),
    ],
)
def test_refuses_shapes(provider: str, call: dict[str, Any], field: str, remedy: str) -> None:
    """Refuses a field that the API or the model lacks, and names another that it has."""
    error = refuse(provider, **call)
    assert set(error.fields) == {field}
    assert remedy in error.fields[field]


@pytest.mark.parametrize("policy", ["warn", "drop"])
def test_leaves_out_what_an_api_cannot_express(policy: str) -> None:
    """Sends the other fields only, without a shape in their place."""
    call: dict[str, Any] = {"aspect_ratio": "3:2", "resolution": "1K", "seed": 7, "negative_prompt": "rain"}
    body = show("openai", policy=policy, model="gpt-image-1", quality="low", **call)
    assert body == {"model": "gpt-image-1", "prompt": "a fox", "quality": "low"}


def test_a_doubtful_refusal_only_warns() -> None:
    """Sends a field that a model probably lacks; "adapt" gives the shape by the other field."""
    assert show("fal", aspect_ratio="16:9", negative_prompt="x") == {
        **{"prompt": "a fox", "aspect_ratio": "16:9", "negative_prompt": "x"}
    }


def test_says_what_it_has_changed(flavor: Any) -> None:
    """Warns in the response about each changed field, and records the shape that was sent."""
    with WireServer(reply(200, answer(png(3)))) as server:
        got = flavor.run(
            lambda service: service.create_image("a fox", aspect_ratio="3:2", seed=7),
            "requests" if flavor.flavor == "sync" else "aiohttp",
            provider=official(server.base_url),
            api_key=KEY,
            model="gpt-image-1",
            on_unsupported="adapt",
        )
    assert json.loads(server.lines[0].body)["size"] == "1536x1024"
    changes = [text.partition(":")[0] for text in got.warnings if "takes no" in text]
    assert changes == ["aspect_ratio became size='1536x1024'", "seed was left out"]


# --- Seeds and options -----------------------------------------------------------------------


def test_a_compatible_server_gets_all_words() -> None:
    """Refuses the seed at OpenAI's own host, and sends it to a server of its shape."""
    assert set(refuse("openai", model="gpt-image-1", seed=7).fields) == {"seed"}
    words: dict[str, Any] = {"seed": 7, "negative_prompt": "rain", "aspect_ratio": "3:2", "resolution": "1K"}
    with imgkit.ImageService("requests", base_url="http://127.0.0.1:9/v1", model="m") as service:
        body = json.loads(service.dry_run("create_image", "a fox", **words).partition("\n\n")[2])
    assert body == {"model": "m", "prompt": "a fox", **words}


@pytest.mark.parametrize(
    ("provider", "call", "sent"),
    [
        ("bfl", {"model_options": {"safety_tolerance": 5}}, {"safety_tolerance": 5}),
        (
            "bfl",
            {"model": "flux-kontext-pro", "model_options": {"safety_tolerance": 6}},
            {"safety_tolerance": 6},
        ),
        ("bfl", {"model": "flux-2-flex", "model_options": {"guidance": 4}}, {"guidance": 4}),
        ("fal", {"model_options": {"unheard_of": 1}}, {"unheard_of": 1}),
        (
            "a1111",
            {"model": "m", "model_options": {"override_settings": {"CLIP_stop_at_last_layers": 2}}},
            {"override_settings": {"CLIP_stop_at_last_layers": 2, "sd_model_checkpoint": "m"}},
        ),
    ],
)
def test_sends_options(provider: str, call: dict[str, Any], sent: dict[str, Any]) -> None:
    """Sends the options of a model beside the shared words."""
    assert show(provider, seed=7, **call) == {"prompt": "a fox", "seed": 7, **sent}


def test_places_the_options_of_google() -> None:
    """Puts each option where Google's API has it."""
    options = {"temperature": 1, "personGeneration": "allow_adult", "safetySettings": []}
    body = show("gemini", seed=7, model_options=options)
    config = {
        "imageConfig": {"personGeneration": "allow_adult"},
        **{"responseModalities": ["IMAGE"], "seed": 7, "temperature": 1},
    }
    assert body.pop("contents")
    assert body == {"generationConfig": config, "safetySettings": []}


def test_options_of_a_workflow() -> None:
    """Fills the placeholders of a workflow, whose own check refuses others."""
    graph = show("comfyui", model="m", seed=7, negative_prompt="rain", model_options={"steps": 3})["prompt"]
    assert graph["3"]["inputs"]["text"] == "rain"
    assert (graph["5"]["inputs"]["seed"], graph["5"]["inputs"]["steps"]) == (7, 3)
    error = refuse("comfyui", model="m", model_options={"stepz": 3})
    assert error.fields == {
        "model_options": "The workflow has no {{stepz}}. Leave it out, or give a workflow with it."
    }


@pytest.mark.parametrize(
    ("provider", "call", "message"),
    [
        ("bfl", {"safety_tolerence": 1}, "did you mean 'safety_tolerance'?"),
        ("bfl", {"safety_tolerance": 6}, "It takes a whole number from 0 to 5, not 6."),
        ("bfl", {"safety_tolerance": 1.0}, "not 1.0"),
        ("bfl", {"safety_tolerance": True}, "not True"),
        ("bfl", {"raw": True}, "Provider bfl has no such option here"),
        ("bfl", {"prompt_upsampling": 1}, "It takes true or false, not 1."),
        ("bfl", {"webhook_secret": 5}, "It takes text, not a hidden value."),
        ("gemini", {"temprature": 1}, "did you mean 'temperature'?"),
        ("gemini", {"temperature": 2.5}, "from 0 to 2, not 2.5"),
        ("fal", {"sync_mode": "yes"}, "It takes true or false, not 'yes'."),
        ("fal", {"image_size": "huge"}, "square_hd or square"),
        ("a1111", {"denoising_strength": 2}, "from 0 to 1"),
        ("a1111", {"mask_blur": 4}, "Provider a1111 has no such option here"),
        ("comfyui", {"steps": 0}, "a whole number from 1"),
        ("openai", {"steps": 1}, "It has none."),
        ("gemini", {"seed": 1}, "It is no option. Pass seed=… itself."),
    ],
)
def test_refuses_options(flavor: Any, provider: str, call: dict[str, Any], message: str) -> None:
    """Refuses an unknown option, a wrong type and a number out of range before anything is sent."""
    model = {"openai": "gpt-image-1", "comfyui": "m"}.get(provider)
    (name,) = call
    with pytest.raises(imgkit.InvalidRequestError) as caught:
        flavor.run(
            lambda service: service.create_image("a fox", model_options=call),
            "requests" if flavor.flavor == "sync" else "aiohttp",
            **{"provider": provider, "api_key": KEY, "model": model, "base_url": None},
        )
    assert set(caught.value.fields) == {f"model_options.{name}"}
    assert message in caught.value.fields[f"model_options.{name}"]


def test_unknown_options_of_open_apis_warn(flavor: Any) -> None:
    """Sends an option that imgkit does not know where models have unlisted options, and says so."""
    got = flavor.run(
        lambda service: service.create_image("a fox", model_options={"guidance_scal": 3.5}),
        "offline",
        provider="fal",
    )
    assert got.warnings == (
        "model_options.guidance_scal: imgkit does not know this option (did you mean 'guidance_scale'?). It "
        "was sent unchecked.",
    )


def test_options_hide_secrets() -> None:
    """Shows no secret option in the request's repr, nor in the parameters that sidecars keep."""
    request = imgkit.CreateImageRequest(prompt="a fox", model_options={"webhook_secret": "s3cr3t"})
    assert "s3cr3t" not in str(imgkit.models.sent_parameters(request))
    with imgkit.ImageService("offline", provider="bfl") as service:
        shown = service.dry_run("create_image", "a fox", model_options={"webhook_secret": "s3cr3t"})
        image = service.create_image("a fox", model_options={"webhook_secret": "s3cr3t"})
    assert "s3cr3t" not in shown + repr(image)


# --- Several images, variations, streams -----------------------------------------------------


def test_images_of_a_call_have_seeds_of_their_own(flavor: Any) -> None:
    """Adds the number of the image to the seed where imgkit asks for each image by itself."""
    log: list[Any] = []

    class Fake(FakeBfl):
        def add_job(self, values: Any, id: str | None = None) -> Any:
            log.append(values["seed"])
            return super().add_job(values, id)

    provider = type("Provider", (BflProvider,), {"fake": Fake, "name": "bfl"})()
    got = flavor.run(
        lambda service: service.create_image("a fox", n=3, seed=40), "offline", provider=provider
    )
    assert sorted(log) == [40, 41, 42]
    assert len(got) == 3


@pytest.mark.parametrize(
    ("provider", "strategy"),
    [("a1111", "native"), ("a1111", "emulate"), ("bfl", "auto"), ("fal", "auto"), ("comfyui", "auto")],
)
def test_variations_carry_the_words(provider: str, strategy: str) -> None:
    """Sends seed, negative prompt and options with a native variation, and with the edit in its place."""
    words: dict[str, Any] = {"seed": 7, "strategy": strategy}
    words |= {"a1111": {"model_options": {"denoising_strength": 0.4}, "negative_prompt": "rain"}}.get(
        provider, {}
    )
    words |= {"comfyui": {"model": "m", "negative_prompt": "rain"}}.get(provider, {})
    if provider == "comfyui":
        with imgkit.ImageService("offline", provider=provider) as service:
            assert service.create_image_variation(RED, **words).meta.emulated
        return
    body = show(provider, "create_image_variation", image=RED, **words)
    assert body["seed"] == 7
    if provider == "a1111":
        assert (body["negative_prompt"], body["denoising_strength"]) == ("rain", 0.4)
        assert bool(body["prompt"]) == (strategy == "emulate")


def test_streams_carry_the_words(flavor: Any) -> None:
    """Checks and adapts the words of a stream as those of a plain call."""
    body = show("gemini", "stream_image", aspect_ratio="16:9", seed=7)
    assert body["generationConfig"]["imageConfig"] == {"aspectRatio": "16:9"}
    assert body["generationConfig"]["seed"] == 7
    call: dict[str, Any] = {"aspect_ratio": "3:2", "seed": 7}
    body = show("openai", "stream_image", "adapt", model="gpt-image-1", **call)
    assert body == {"model": "gpt-image-1", "prompt": "a fox", "size": "1536x1024", "stream": True}
    assert set(refuse("openai", "stream_image", model="gpt-image-1", **call).fields) == {*call}
    assert set(refuse("gemini", "stream_image", model_options={"steps": 1}).fields) == {"model_options.steps"}


# --- The command, and the data ---------------------------------------------------------------


def test_the_command_takes_the_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Takes options, a ratio and the policy on the command line, and refuses wrong options by name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BFL_API_KEY", KEY)
    monkeypatch.setenv("IMGKIT_PROVIDER", "bfl")
    call = ["create", "a fox", "--backend", "requests", "--dry-run", "--aspect-ratio", "16:9"]
    adapt = [*call, "--on-unsupported", "adapt", "--seed", "7", "--set", "prompt_upsampling=true"]
    assert run(adapt) == 0
    shown = capsys.readouterr().out
    sent = {"prompt": "a fox", "seed": 7, "prompt_upsampling": True, "width": 1360, "height": 768}
    assert json.loads(shown.partition("\n\n")[2]) == sent
    assert run(call) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "--on-unsupported adapt" in message
    assert "Pass --size 1360x768." in message
    assert run([*adapt, "--set", "safety_tolerance=high"]) == 2
    assert "safety_tolerance" in capsys.readouterr().err
    assert run([*call, "--size", "64x64"]) == 2
    assert "excludes a size" in capsys.readouterr().err


@pytest.mark.parametrize("spec", imgkit_providers(), ids=lambda spec: spec.name)
def test_the_data_of_a_provider_is_readable(spec: Any) -> None:
    """Fits the schema of data files, and builds every model and option with its source."""
    place = resolve_name(spec.target).model_facts
    data = load_provider_data(place)
    # A provider may have further tables of its own.
    MODEL_FACTS_SCHEMA.read(
        {name: table for name, table in data.items() if name in MODEL_FACTS_SCHEMA.fields}
    )
    catalogue = Catalogue(spec.name, place)
    sources = set(data["sources"].values())
    for model in catalogue.list_models():
        assert {rule.origin.source for rule in model.rules} <= sources
    assert {option.origin.source for option in catalogue.options.values()} <= sources
