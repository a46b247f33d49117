"""Real clients of `imgkit serve`: good paths, and no failure that any of them pays for twice."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PIL.Image
import pytest

from tests.integrations.client_matrix import NO_ROOM, NOTHING_LISTENS, record
from tests.integrations.serving.clients import (
    KEY,
    MODEL,
    NAMES,
    OLD_MODEL,
    SIZE,
    Client,
    ClientCall,
    ClientOutcome,
    link_modules,
    open_clients,
)
from tests.integrations.serving.failures import FAILURES, UNKNOWN, Failure
from tests.integrations.serving.server import REPOSITORY, UPSTREAM_KEY, Served, build_environment, serve
from tests.integrations.serving.stack import Row, Stack, open_stacks, share_server, write_images
from tests.integrations.serving.upstream import cut_stream, stream_until_seen
from tests.support.processes import run_process


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Client]]:
    """The clients, each in a program of its environment."""
    with open_clients(tmp_path_factory.mktemp("clients")) as programs:
        yield programs


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server without options: it paints offline."""
    with serve(tmp_path_factory.mktemp("painter")) as served:
        yield served


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Paths of two images and of a mask."""
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory, clients: dict[str, Client]) -> Iterator[list[Stack]]:
    """A server in front of a counting API, for each client."""
    with open_stacks(tmp_path_factory.mktemp("stacks"), clients) as opened:
        yield opened


def run_parallel(stacks: list[Stack], work: Callable[[Stack], Row]) -> list[Row]:
    """Return the results of work on all stacks at once."""
    with ThreadPoolExecutor(len(NAMES)) as pool:
        return list(pool.map(work, stacks))


def check_images(outcome: ClientOutcome, size: str = SIZE) -> None:
    """Check that a call has brought an image of a size."""
    assert not outcome.error, outcome
    images = outcome.images or tuple(fetch(url) for url in outcome.urls)
    assert images
    for data in images:
        with PIL.Image.open(io.BytesIO(data)) as image:
            image.load()
            assert f"{image.width}x{image.height}" == size


def find_size(client: str, operation: str) -> str:
    """Return the size of the images: LiteLLM drops that of a variation, which then has its image's."""
    return "64x64" if (client, operation) == ("litellm", "variation") else SIZE


def fetch(url: str) -> bytes:
    """Return the bytes behind a URL."""
    with urllib.request.urlopen(url, timeout=10) as reply:
        data: bytes = reply.read()
    return data


@pytest.mark.parametrize("name", NAMES)
def test_clients_get_images_offline(
    name: str, clients: dict[str, Client], painter: Served, files: tuple[str, str, str]
) -> None:
    """Creates, edits two images with a mask, varies and streams, with all operations that a client has."""
    client, (first, second, mask) = clients[name], files
    for operation in client.operations:
        call = ClientCall(operation, model=client.model)
        if operation == "variation":
            call = call._replace(images=(first,))
        elif operation.startswith("edit"):
            call = call._replace(images=(first, second), mask=mask)
        outcome = client.call(painter.base_url, call)
        if operation == "models":
            assert MODEL in outcome.models
            continue
        check_images(outcome, find_size(name, operation))
        assert outcome.partials == (2 if "stream" in operation else 0)


@pytest.mark.parametrize("name", ["openai", "openai-js", "litellm", "curl"])
def test_result_urls_can_be_fetched(name: str, clients: dict[str, Client], painter: Served) -> None:
    """Serves the image of a reply with `response_format=url` from the server itself."""
    call = ClientCall("create", response_format="url")
    if name == "litellm":  # it refuses the parameter, yet knows models whose replies have URLs anyway
        call = ClientCall("create", model=OLD_MODEL)
    outcome = clients[name].call(painter.base_url, call)
    assert not outcome.error, outcome
    assert outcome.images == ()
    assert [url.startswith(f"{painter.origin}/") for url in outcome.urls] == [True]
    check_images(outcome)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_no_client_pays_twice_for_a_failure(failure: Failure, stacks: list[Stack]) -> None:
    """Sends a call that may be billed once for every client; an unpaid failure keeps its status."""
    rows = run_parallel(stacks, lambda stack: stack.measure("create", failure.name, failure.answer))
    recovered = run_parallel(stacks, lambda stack: stack.measure("create", "none"))
    for row in rows:
        assert row.outcome.error, row
        # LangChain and LiteLLM wrap the error of the SDK, yet keep its status.
        assert row.outcome.status == failure.status, row
        if failure.paid or failure.status in (400, 401, 403, 404):
            assert (row.requests, row.posts) == (1, 1), row
        else:
            assert 1 <= row.requests <= 3, row
    for row in recovered:
        check_images(row.outcome)
        assert (row.requests, row.posts) == (1, 1), row


@pytest.mark.parametrize("operation", ["edit", "variation", "stream", "edit stream"])
@pytest.mark.parametrize("failure", ["502 of a gateway", "connection dropped", "reply cut"])
def test_other_operations_are_sent_once_as_well(failure: str, operation: str, stacks: list[Stack]) -> None:
    """Sends an edit, a variation or a stream that may be billed once."""
    answer = next(each.answer for each in FAILURES if each.name == failure)
    able = [stack for stack in stacks if operation in stack.client.operations]
    for row in run_parallel(able, lambda stack: stack.measure(operation, failure, answer)):
        assert (row.outcome.status, row.requests, row.posts) == (UNKNOWN, 1, 1), row
    for row in run_parallel(able, lambda stack: stack.measure(operation, "none")):
        check_images(row.outcome, find_size(row.client, operation))


def test_images_and_mask_reach_the_api_as_they_are(stacks: list[Stack]) -> None:
    """Hands on two images and a mask byte for byte, in their order, whatever media type a client names."""
    for stack in stacks:
        if "edit" in stack.client.operations:
            check_images(stack.measure("edit", "none").outcome)
            places = [stack.upstream.body.find(Path(path).read_bytes()) for path in stack.files]
            assert -1 < places[0] < places[1] < places[2], stack.client.name


def test_partial_images_come_while_the_api_still_paints(stacks: list[Stack], tmp_path: Path) -> None:
    """Hands on a partial image before the API has sent the next event."""
    for stack in stacks:
        if "stream" in stack.client.operations:
            seen = tmp_path / stack.client.name
            call = stack.build_call("stream")._replace(seen=str(seen))
            with stack.upstream.failing(stream_until_seen(seen)):
                outcome = stack.client.call(stack.tap.base_url, call)
            check_images(outcome)
            assert outcome.partials == 2


def test_a_stream_that_breaks_is_not_sent_again(stacks: list[Stack]) -> None:
    """Ends a stream that breaks behind a partial image with an error event."""
    able = [stack for stack in stacks if "stream" in stack.client.operations]
    for row in run_parallel(able, lambda stack: stack.measure("stream", "stream cut", cut_stream)):
        assert row.outcome.error, row
        assert (row.requests, row.posts) == (1, 1), row


def test_a_client_that_loses_patience_gets_the_image_of_its_first_request(stacks: list[Stack]) -> None:
    """Joins the repeat of a client whose own timeout has passed to the request that still runs."""
    able = [stack for stack in stacks if stack.client.has_timeout]
    for row in run_parallel(able, lambda stack: stack.measure_timeout("create")):
        check_images(row.outcome)
        assert row.requests >= 2, row
        assert row.posts == 1, row


def test_equal_requests_are_two_images(stacks: list[Stack]) -> None:
    """Sends an equal request that is no repeat to the API once more."""
    for stack in stacks:
        call = stack.build_call("create")
        with stack.upstream.failing(stack.upstream.answer):
            for _ in range(2):
                check_images(stack.client.call(stack.tap.base_url, call))
            assert stack.upstream.posts == 2


def test_an_error_has_the_words_of_imgkit(stacks: list[Stack]) -> None:
    """Tells clients in OpenAI's envelope what has happened and what to do next, without any key."""
    failure = next(each for each in FAILURES if each.name == "connection dropped")
    for row in run_parallel(stacks, lambda stack: stack.measure("create", failure.name, failure.answer)):
        assert "billed" in row.outcome.message, row
        assert UPSTREAM_KEY not in repr(row)
    for stack in stacks:
        assert UPSTREAM_KEY not in stack.served.errors.read_text()
        check_images(stack.send("create"))


@pytest.mark.parametrize(("status", "code"), [(402, "budget_exceeded"), (404, "fixture_missing")])
def test_the_server_sends_nothing_without_room_or_recording(
    status: int, code: str, tmp_path: Path, clients: dict[str, Client]
) -> None:
    """Answers every client once, without a request to the API."""
    options = NO_ROOM if status == 402 else ("--replay", str(record(tmp_path)))
    with share_server(tmp_path / "server", clients, *options) as stacks:
        for row in [stack.measure("create", code) for stack in stacks]:
            assert (row.outcome.status, row.requests, row.posts) == (status, 1, 0), row
            # LiteLLM drops the code of an error.
            assert row.outcome.code == (None if row.client == "litellm" else code)


def test_the_token_of_the_server_is_the_key_of_its_clients(
    tmp_path: Path, clients: dict[str, Client]
) -> None:
    """Answers clients whose API key is the token; others get 401, and send nothing again."""
    with share_server(tmp_path / "right", clients, "--token", KEY) as stacks:
        for stack in stacks:
            check_images(stack.measure("create", "right token").outcome)
    with share_server(tmp_path / "wrong", clients, "--token", "another-token-than-theirs") as stacks:
        for row in [stack.measure("create", "wrong token") for stack in stacks]:
            assert (row.outcome.status, row.requests, row.posts) == (401, 1, 0), row


def test_a_server_that_stops_tells_that_the_call_may_be_billed(
    tmp_path: Path, clients: dict[str, Client]
) -> None:
    """Answers the clients of calls that it cannot finish, so that none of them tries elsewhere."""
    two = {name: clients[name] for name in ("openai-js", "vercel")}
    with open_stacks(tmp_path, two, "--stop-after", "0") as stacks:
        with ThreadPoolExecutor(len(two)) as pool:
            results = list(pool.map(lambda stack: stack.measure_stop("create"), stacks))
    for row, code in results:
        assert (row.outcome.status, row.requests, row.posts, code) == (UNKNOWN, 1, 1, 9), row


def test_a_dead_api_is_worth_another_attempt(tmp_path: Path, clients: dict[str, Client]) -> None:
    """Answers 503 where nothing was sent, so that clients try again."""
    two = {name: clients[name] for name in ("openai", "vercel")}
    with open_stacks(tmp_path, two, base_url=NOTHING_LISTENS) as stacks:
        for row in run_parallel(stacks, lambda stack: stack.measure("create", "nobody")):
            assert (row.outcome.status, row.requests) == (503, 3), row


def test_only_the_server_repeats_a_rate_limit(tmp_path: Path, clients: dict[str, Client]) -> None:
    """Sends a refused request five times, and tells clients that obey it to add none."""
    failure = next(each for each in FAILURES if each.status == 429)
    two = {name: clients[name] for name in ("openai", "openai-js")}
    with open_stacks(tmp_path, two) as stacks:
        for row in run_parallel(stacks, lambda stack: stack.measure("create", failure.name, failure.answer)):
            assert (row.outcome.status, row.requests, row.posts) == (429, 1, 5), row


def test_the_example_in_javascript_passes_its_tests(tmp_path: Path) -> None:
    """Runs the tests of examples/javascript-app against the command of this environment."""
    example = tmp_path / "javascript-app"
    shutil.copytree(REPOSITORY / "examples" / "javascript-app", example)
    modules = link_modules(tmp_path)
    path = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ["PATH"]])
    environment = build_environment(tmp_path / "home", PATH=path)
    done = run_process(
        [str(modules / ".bin" / "node"), "--test"],
        cwd=example,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ours, example_own = (
        json.loads((folder / "package.json").read_text("utf-8"))["dependencies"]
        for folder in (REPOSITORY / "tests" / "integrations" / "javascript", example)
    )
    assert example_own["openai"] == ours["openai"]
