"""ComfyUI: workflows with placeholders, a handle before the submit, uploads, cached graphs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import imgkit
from imgkit import CachePlugin, JobPendingError
from imgkit.core import job_requests
from imgkit.default_plugins.recorder import RecorderPlugin
from imgkit.errors import ConfigurationError, InvalidRequestError, JobFailedError
from imgkit.plugins import hookimpl
from imgkit.plugins.events import JobProgress
from imgkit.providers import ComfyUIProvider
from imgkit.providers.comfyui_fake import FakeComfyUI
from imgkit.providers.fakes import SCENARIOS, FakeReply, FakeRequest
from imgkit.testing.wire_server import WireServer, serve_fake
from tests.conftest import ServiceRunner
from tests.support.provider_apis import RequestLog, paint_input

pytestmark = pytest.mark.usefixtures("short_pauses")

NEVER = 10**9
SUBMIT = "POST /prompt"
KEY = "comfy-key-0123456789"
GRAPH: dict[str, Any] = {
    "3": {"class_type": "KSampler", "inputs": {"seed": "{{seed}}", "steps": "{{steps}}", "model": ["4", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "photo of {{prompt}}, sharp", "clip": ["4", 1]}},
}


class WatchedFake(RequestLog, FakeComfyUI):
    """The fake, with the requests that it has received."""

    @property
    def submits(self) -> list[Any]:
        """The bodies of the submits."""
        return [each.json() for each in self.requests if each.path == "/prompt"]


@pytest.fixture
def fake() -> WatchedFake:
    """The API of ComfyUI."""
    return WatchedFake()


@pytest.fixture
def server(fake: WatchedFake) -> Iterator[WireServer]:
    """The API on loopback."""
    with serve_fake(fake) as running:
        yield running


def open_with(server: WireServer, **settings: Any) -> dict[str, Any]:
    """Return the arguments of a service without a key."""
    return {"provider": "comfyui", "base_url": server.origin, "model": "a.safetensors", **settings}


def create(**fields: Any) -> Callable[[Any], Any]:
    """Return a call."""
    return lambda service: service.create_image("a red fox", **{"size": "64x64", **fields})


def write_workflow(folder: Path, graph: object = GRAPH) -> Path:
    """Write a workflow file."""
    path = folder / "workflow.json"
    path.write_text(json.dumps(graph))
    return path


OUTCOMES: dict[str, type[BaseException] | None] = {
    "refused": imgkit.ModerationBlockedError,
    "invalid": imgkit.ApiError,
    "failing": imgkit.OutcomeUnknownError,
    "expired_link": JobPendingError,
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenarios(
    flavor: ServiceRunner, http_backend: str, fake: WatchedFake, server: WireServer, scenario: str
) -> None:
    """Submits once in each situation but a refused submit, and needs no key on this machine."""
    fake.scenario = scenario
    outcome = OUTCOMES.get(scenario)
    settings = open_with(server, retry=scenario == "rate_limited")
    if outcome is None:
        response = flavor.run(create(), http_backend, **settings)
        assert (len(response), response[0].width) == (1, 64)
    else:
        with pytest.raises(outcome):
            flavor.run(create(), http_backend, **settings)
    assert fake.count[SUBMIT] == (2 if scenario == "rate_limited" else 1)
    assert not any("authorization" in each.headers for each in fake.requests)


def test_the_default_address_needs_no_login(fake: WatchedFake, server: WireServer) -> None:
    """A server at the default address gets unsigned requests."""
    provider = type("Local", (ComfyUIProvider,), {"base_url": server.origin})()
    response = ServiceRunner("sync").run(create(model="a.safetensors"), "requests", provider=provider)
    assert len(response) == 1


def test_the_submit(
    fake: WatchedFake, server: WireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fills the placeholders with values of their types, once each, beside the id of the job."""
    monkeypatch.setenv("IMGKIT_COMFYUI_WORKFLOW", str(write_workflow(tmp_path)))
    settings = open_with(server, model=None)
    runner = ServiceRunner("sync")
    call = {"size": None, "extra_body": {"seed": 7, "steps": 30}}
    runner.run(lambda service: service.create_image("{{seed}} foxes", **call), "requests", **settings)
    (submit,) = fake.submits
    prompt_id = submit.pop("prompt_id")
    assert submit == {
        "prompt": {
            "3": {"class_type": "KSampler", "inputs": {"seed": 7, "steps": 30, "model": ["4", 0]}},
            "6": {
                "class_type": "CLIPTextEncode",
                "inputs": {"text": "photo of {{seed}} foxes, sharp", "clip": ["4", 1]},
            },
        }
    }
    assert len(prompt_id) == 36
    assert fake.jobs.keys() == {prompt_id}


def test_each_image_has_its_seed(
    flavor: ServiceRunner, http_backend: str, fake: WatchedFake, server: WireServer, tmp_path: Path
) -> None:
    """Each image of a call has an id and a seed of its own, and an equal call finds all in the cache."""
    settings = open_with(server, plugins=[CachePlugin(folder=tmp_path)])
    assert len(flavor.run(create(n=3), http_backend, **settings)) == 3
    assert len({each["prompt_id"] for each in fake.submits}) == 3
    assert len({each["prompt"]["5"]["inputs"]["seed"] for each in fake.submits}) == 3
    assert flavor.run(create(n=3), http_backend, **settings).meta.cached
    assert fake.count[SUBMIT] == 3


def test_the_place_in_the_queue(fake: WatchedFake, server: WireServer) -> None:
    """Progress names the number of jobs ahead."""
    notes: list[str] = []

    class Watch:
        @hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if isinstance(event, JobProgress):
                notes.append(event.note)

    fake.add_job({}, "other")
    ServiceRunner("sync").run(create(), "requests", **open_with(server, plugins=[Watch()]))
    assert notes == ["", "1 job ahead", "running", ""]


def test_a_lost_submit_is_looked_up(
    flavor: ServiceRunner, http_backend: str, fake: WatchedFake, server: WireServer, tmp_path: Path
) -> None:
    """Finds a job by its own id: in the queue, or in the history if it has ended already."""
    fake.scenario, fake.polls = "lost_submit", 0
    settings = open_with(server, state_folder=tmp_path)
    assert len(flavor.run(create(), http_backend, **settings)) == 1
    fake.polls = 3
    assert len(flavor.run(create(), http_backend, **settings)) == 1
    assert fake.count[SUBMIT] == 2
    assert list((tmp_path / "jobs").glob("*.json")) == []


def test_a_submit_that_never_arrived(fake: WatchedFake, server: WireServer) -> None:
    """A job that neither queue nor history has stays unknown, and the error says why."""
    fake.scenario = "failing"
    with pytest.raises(imgkit.OutcomeUnknownError) as caught:
        ServiceRunner("sync").run(create(), "requests", **open_with(server))
    assert "Neither queue nor history" in "".join(caught.value.__notes__)


def test_uploads_depend_on_each_other(
    flavor: ServiceRunner, http_backend: str, fake: WatchedFake, server: WireServer
) -> None:
    """Uploads image and mask once per service; the mask names the image, and its hole is transparent."""

    def edit_twice(service: Any) -> Any:
        first = service.create_image_edit(
            paint_input((8, 8)), prompt="a hat", mask=paint_input((8, 8), hole=True)
        )
        if flavor.flavor == "sync":
            return service.create_image_edit(
                paint_input((8, 8)), prompt="a cap", mask=paint_input((8, 8), hole=True)
            )

        async def go_on() -> Any:
            await first
            return await service.create_image_edit(
                paint_input((8, 8)), prompt="a cap", mask=paint_input((8, 8), hole=True)
            )

        return go_on()

    flavor.run(edit_twice, http_backend, **open_with(server))
    assert fake.count["POST /upload/image"] == fake.count["POST /upload/mask"] == 1
    (image, mask) = fake.files
    original = json.loads(fake.files[mask]["original_ref"])
    assert original == {"filename": image, "subfolder": "", "type": "input"}
    opened = PIL.Image.open(io.BytesIO(fake.files[mask]["image"]))
    assert [opened.convert("RGBA").getpixel(at)[3] for at in ((1, 1), (1, 7))] == [0, 255]  # type: ignore[index]
    for submit in fake.submits:
        assert submit["prompt"]["4"]["inputs"]["image"] == image
        assert submit["prompt"]["5"]["inputs"] == {"image": mask, "channel": "alpha"}


def test_a_cached_graph(
    flavor: ServiceRunner, http_backend: str, fake: WatchedFake, server: WireServer
) -> None:
    """A graph that ComfyUI has in its cache makes no image, and the earlier job has it."""
    settings = open_with(server)
    first = flavor.run(create(extra_body={"seed": 5}), http_backend, **settings)
    second = flavor.run(create(extra_body={"seed": 5}), http_backend, **settings)
    assert first[0].data == second[0].data
    assert fake.count["GET /history"] == 1


def test_a_cached_graph_without_history(fake: WatchedFake, server: WireServer) -> None:
    """A cached graph whose earlier job is forgotten is an error with a remedy."""
    runner, settings = ServiceRunner("sync"), open_with(server)
    runner.run(create(extra_body={"seed": 5}), "requests", **settings)
    build = fake.build_entry
    fake.build_entry = lambda job: {**build(job), "outputs": {}}  # type: ignore[method-assign]
    with pytest.raises(JobFailedError, match="another seed"):
        runner.run(create(extra_body={"seed": 5}), "requests", **settings)


def test_the_error_of_a_node(fake: WatchedFake, server: WireServer) -> None:
    """A node that fails is named, with its words, and so is one that refuses its input."""
    fake.build_entry = lambda job: {  # type: ignore[method-assign]
        "outputs": {},
        "status": {
            "status_str": "error",
            "messages": [
                [
                    "execution_error",
                    {"node_id": "3", "node_type": "KSampler", "exception_message": "CUDA out of memory\n"},
                ]
            ],
        },
    }
    with pytest.raises(JobFailedError, match=r"KSampler \(node 3\) has failed: CUDA out of memory\. Change"):
        ServiceRunner("sync").run(create(), "requests", **open_with(server))
    fake.scenario = "invalid"
    words = r"CheckpointLoaderSimple \(node 1\): Value not in list"
    with pytest.raises(imgkit.BadRequestError, match=words) as caught:
        ServiceRunner("sync").run(create(), "requests", **open_with(server))
    assert not caught.value.maybe_billed


def test_the_key_goes_to_the_server_alone(
    flavor: ServiceRunner, http_backend: str, fake: WatchedFake, server: WireServer
) -> None:
    """A login signs submits, polls, uploads and downloads at the server's own origin."""
    edit = lambda service: service.create_image_edit(paint_input((8, 8)), prompt="a hat")  # noqa: E731
    flavor.run(edit, http_backend, **open_with(server, api_key=KEY))
    paths = {each.path.partition("/history/")[0] or "/history" for each in fake.requests}
    assert paths == {"/upload/image", "/prompt", "/queue", "/history", "/view"}
    assert {each.headers["authorization"] for each in fake.requests} == {f"Bearer {KEY}"}


def test_a_login_with_a_password(
    fake: WatchedFake, server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with its password becomes a Basic login, and no message shows it."""
    monkeypatch.setenv("COMFYUI_AUTH", "ann:secret-pass-1234")
    fake.scenario = "failing"
    with pytest.raises(imgkit.OutcomeUnknownError) as caught:
        ServiceRunner("sync").run(create(), "requests", **open_with(server))
    assert fake.requests[0].headers["authorization"] == "Basic YW5uOnNlY3JldC1wYXNzLTEyMzQ="
    assert "secret-pass" not in "".join((str(caught.value), *caught.value.__notes__))


@pytest.mark.parametrize("polls", [1, 5])
def test_cancelling(
    flavor: ServiceRunner, http_backend: str, fake: WatchedFake, server: WireServer, polls: int
) -> None:
    """A job that waits is deleted, one that runs is interrupted, and one that has ended is collected."""
    fake.polls = NEVER
    settings = open_with(server)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(JobPendingError) as caught:
        patch.setattr(job_requests, "FIRST_PAUSE_S", NEVER)
        patch.setattr(job_requests, "LONGEST_PAUSE_S", NEVER)
        flavor.run(create(), http_backend, **settings)
    (job,) = caught.value.jobs
    (queued,) = fake.jobs.values()
    queued.polls, fake.polls = 0, polls
    assert flavor.run(lambda service: service.cancel_job(job), http_backend, **settings) is None
    path = "/interrupt" if polls == 1 else "/queue"
    assert fake.requests[-1].method + fake.requests[-1].path == f"POST{path}"
    fake.add_job({"1": {"class_type": "A", "inputs": {}}}, queued.id).polls = 1
    fake.interrupted.clear()
    fake.polls = 0
    response = flavor.run(lambda service: service.cancel_job(job), http_backend, **settings)
    assert len(response) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "no JSON"),
        (b"[]", "no graph of nodes"),
        (b'{"nodes": [], "links": []}', "ComfyUI's editor"),
        (b'{"3": {"class_type": "KSampler", "inputs": {"seed": 5}}}', "no placeholders"),
        (b'{"3": {"class_type": "A", "inputs": {"text": "x {{seed}}"}}}', "longer text"),
        (b"[" * 100_000, "no JSON"),
        (b" " * (5 * 1024 * 1024), "more than 4 MB"),
        (None, "Check the path"),
    ],
)
def test_workflows_that_cannot_be_used(content: bytes | None, words: str, tmp_path: Path) -> None:
    """A file that is no workflow with placeholders is refused before anything is sent."""
    path = tmp_path / "workflow.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=words) as caught:
        ComfyUIProvider(path)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": "64x64", "extra_body": {"steps": 3}}, "size: The workflow has no {{height}}"),
        ({}, "model_options: The workflow needs a value for {{steps}}"),
        ({"extra_body": {"steps": 3, "cfg": 1}}, "extra_body: The workflow has no {{cfg}}"),
        ({"extra_body": {"steps": 3, "seed": 1}, "n": 2}, "n: Images of the same seed"),
        ({"extra_body": {"steps": 3}, "model": "a"}, "model: The workflow has no {{model}}"),
        ({"quality": "high"}, "takes no quality"),
    ],
)
def test_values_that_do_not_fit_the_workflow(fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    """A value without a placeholder, and a placeholder without a value, are refused before the call."""
    provider = ComfyUIProvider(write_workflow(tmp_path))
    with imgkit.ImageService("offline", provider=provider) as service:
        with pytest.raises(InvalidRequestError) as caught:
            service.create_image("a red fox", **fields)
        assert words in str(caught.value)


def test_an_image_that_the_workflow_does_not_load(tmp_path: Path) -> None:
    """An edit is refused by a workflow without {{image}}, and a creation by a workflow with it."""
    graph = {"1": {"class_type": "A", "inputs": {"image": "{{image}}", "text": "{{prompt}}"}}}
    without = {"1": {"class_type": "A", "inputs": {"text": "{{prompt}}"}}}
    with imgkit.ImageService("offline", provider=ComfyUIProvider(write_workflow(tmp_path, graph))) as service:
        with pytest.raises(InvalidRequestError, match="Call create_image_edit"):
            service.create_image("a red fox")
        assert len(service.create_image_edit(paint_input((8, 8)), prompt="a hat")) == 1
    provider = ComfyUIProvider(write_workflow(tmp_path, without))
    with (
        imgkit.ImageService("offline", provider=provider) as service,
        pytest.raises(InvalidRequestError, match="has no {{image}}"),
    ):
        service.create_image_edit(paint_input((8, 8)), prompt="a hat")


def test_a_server_without_workflow_and_model(server: WireServer) -> None:
    """Without a workflow a checkpoint must be named, and nothing is sent."""
    with pytest.raises(imgkit.MissingModelError, match="IMGKIT_COMFYUI_WORKFLOW"):
        ServiceRunner("sync").run(create(), "requests", **open_with(server, model=None))
    assert server.accepted == 0


def test_a_recording(flavor: ServiceRunner, http_backend: str, server: WireServer, tmp_path: Path) -> None:
    """A recorded job is replayed offline: uploads, submit, polls and download, from any address."""

    def edit(service: Any) -> Any:
        return service.create_image_edit(
            paint_input((8, 8)), prompt="a hat", mask=paint_input((8, 8), hole=True)
        )

    recorder = RecorderPlugin(tmp_path / "job.yaml")
    recorded = flavor.run(edit, http_backend, **open_with(server, plugins=[recorder]))
    settings = {"provider": "comfyui", "model": "a.safetensors", "fixtures": tmp_path / "job.yaml"}
    assert flavor.run(edit, "offline", **settings)[0].data == recorded[0].data


def test_offline(flavor: ServiceRunner) -> None:
    """All operations run offline, without a key and without a workflow."""
    calls: list[Callable[[Any], Any]] = [
        create(n=2),
        lambda service: service.create_image_edit(
            paint_input((8, 8)), prompt="a hat", mask=paint_input((8, 8), hole=True)
        ),
        lambda service: service.create_image_variation(paint_input((8, 8))),
    ]
    counts = [len(flavor.run(call, "offline", provider="comfyui")) for call in calls]
    assert counts == [2, 1, 1]


def test_an_unreadable_reply_to_a_submit(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """A submit whose reply cannot be read is looked for under its handle, and is not sent again."""

    class Garbled(FakeComfyUI):
        def handle(self, request: FakeRequest) -> FakeReply:
            reply = super().handle(request)
            return reply._replace(body=b"<html>") if request.path == "/prompt" else reply

    fake = Garbled()
    with serve_fake(fake) as server:
        response = flavor.run(
            lambda service: service.create_image("a red fox", size="64x64", model="m.safetensors"),
            http_backend, provider="comfyui", base_url=server.origin, state_folder=tmp_path / "state",
        )  # fmt: skip
    assert len(response) == 1
    assert fake.count["POST /prompt"] == 1
