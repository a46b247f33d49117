"""Clients of `imgkit serve`: official SDKs, frameworks and curl, each in an environment of its own."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.integrations.serving.server import build_environment
from tests.support.processes import ChildProcesses, child_processes

HERE = Path(__file__).parent
ENVIRONMENTS = Path(sys.prefix).parent
"""The folder of the environments, which `make integrations` fills."""

KEY = "sk-canary-client-77ab10"
SIZE = "256x256"
MODEL = "gpt-image-2"


class ClientCall(NamedTuple):
    """A call of a client.

    Attributes:
        operation: "create", "edit", "variation", "stream", "edit stream" or "models".
        prompt, model, size, response_format: parameters; "" leaves the last out.
        images, mask: paths of input images.
        timeout_s: the client's own timeout; 0 for its default.
        seen: path of a file to make once the first partial image has come, "" for none.
    """

    operation: str
    prompt: str = "a red fox"
    model: str = MODEL
    size: str = SIZE
    response_format: str = ""
    images: tuple[str, ...] = ()
    mask: str = ""
    timeout_s: float = 0
    seen: str = ""


class ClientOutcome(NamedTuple):
    """The outcome of a call, as an app gets it.

    Attributes:
        images: the bytes of the images.
        urls: result URLs.
        partials: number of partial images.
        models: names of models.
        error: class of the error, "" for none.
        status: HTTP status that the error names.
        code, param: fields of the error.
        message: its words.
        body: the error object, as the client has kept it.
    """

    images: tuple[bytes, ...] = ()
    urls: tuple[str, ...] = ()
    partials: int = 0
    models: tuple[str, ...] = ()
    error: str = ""
    status: int | None = None
    code: str | None = None
    param: str | None = None
    message: str = ""
    body: Any = None


class ProgramClient:
    """A client in a program that answers a JSON call a line.

    Args:
        name: of the client in the program.
        process: the program.
        operations: the operations that the client has.
        has_timeout: the client has a timeout of its own, after which it sends again.
        model: the model that it names.
    """

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[str],
        operations: Sequence[str],
        has_timeout: bool,
        model: str,
    ) -> None:
        self.name, self.operations, self.has_timeout = name, tuple(operations), has_timeout
        self.model = model
        self._process = process

    def call(self, base_url: str, call: ClientCall) -> ClientOutcome:
        """Make a call; return its outcome."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        values = {"client": self.name, "base_url": base_url, **call._asdict()}
        self._process.stdin.write(json.dumps(values) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"{self.name} has ended with {self._process.poll()}."
        values = json.loads(line)
        values["images"] = tuple(base64.b64decode(each) for each in values.get("images", ()))
        for name in ("urls", "models"):
            values[name] = tuple(values.get(name, ()))
        return ClientOutcome(**values)


class CurlClient:
    """The command curl, which sends again as ``--retry 2`` says."""

    name = "curl"
    operations = ("create", "edit", "variation", "stream", "edit stream", "models")
    has_timeout = True
    model = MODEL

    def call(self, base_url: str, call: ClientCall) -> ClientOutcome:
        """Make a call; return its outcome."""
        command = ["curl", "--silent", "--show-error", "--retry", "2", "--retry-max-time", "20"]
        command += [
            "--write-out",
            "%{http_code}",
            "--header",
            f"Authorization: Bearer {KEY}",
        ]
        command += ["--max-time", str(call.timeout_s)] if call.timeout_s else []
        fields = {"prompt": call.prompt, "model": call.model, "size": call.size}
        fields |= {"response_format": call.response_format} if call.response_format else {}
        fields |= {"stream": "true", "partial_images": "2"} if "stream" in call.operation else {}
        match call.operation:
            case "models":
                command += [f"{base_url}/models"]
            case "create" | "stream":
                values: dict[str, object] = dict(fields)
                if "stream" in fields:
                    values |= {"stream": True, "partial_images": 2}
                command += [f"{base_url}/images/generations", "--header", "Content-Type: application/json"]
                command += ["--data", json.dumps(values)]
            case _:
                name = "image" if call.operation == "variation" else "image[]"
                path = "variations" if call.operation == "variation" else "edits"
                if path == "variations":
                    del fields["prompt"]
                command += [f"{base_url}/images/{path}"]
                files = [(name, path) for path in call.images] + ([("mask", call.mask)] if call.mask else [])
                command += [
                    part for name, path in files for part in ("--form", f"{name}=@{path};type=image/png")
                ]
                command += [part for name, value in fields.items() for part in ("--form", f"{name}={value}")]
        with tempfile.TemporaryDirectory() as folder:
            # It has the last reply only, unlike standard output, and exists once the first byte has come.
            file = Path(call.seen or Path(folder, "body"))
            command += ["--no-buffer", "--output", str(file)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            body = file.read_text() if file.exists() else ""
        if done.returncode or done.stdout != "200":
            return _read_curl_error(done.returncode, int(done.stdout or 0), body, done.stderr)
        try:
            return _read_events(body) if "stream" in call.operation else _read_reply(json.loads(body))
        except ValueError as error:
            return ClientOutcome(error="no JSON", status=200, message=str(error))


def _read_curl_error(code: int, status: int, body: str, problems: str) -> ClientOutcome:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError):
        return ClientOutcome(error=f"exit code {code}", status=status, message=f"{problems}{body[:500]}")
    facts = {name: error[name] for name in ("code", "param", "message")}
    return ClientOutcome(error="error object", status=status, body=error, **facts)


def _read_reply(reply: dict[str, Any]) -> ClientOutcome:
    if reply.get("object") == "list":
        return ClientOutcome(models=tuple(model["id"] for model in reply["data"]))
    images = tuple(base64.b64decode(item["b64_json"]) for item in reply["data"] if item.get("b64_json"))
    return ClientOutcome(images=images, urls=tuple(item["url"] for item in reply["data"] if item.get("url")))


def _read_events(text: str) -> ClientOutcome:
    lines = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
    events = [json.loads(line) for line in lines if line != "[DONE]"]
    for event in events:
        if error := event.get("error"):
            return ClientOutcome(
                error="error event", code=error.get("code"), message=error["message"], body=error
            )
    whole = [event for event in events if event["type"].endswith(".completed")]
    return ClientOutcome(
        images=tuple(base64.b64decode(event["b64_json"]) for event in whole),
        partials=sum(event["type"].endswith(".partial_image") for event in events),
    )


Client = ProgramClient | CurlClient

OLD_MODEL = "dall-e-3"
"""A model whose replies have URLs, which are all that LangChain reads."""

ALL = ("create", "edit", "variation", "stream", "edit stream", "models")
PYTHON_CLIENTS = {
    "openai": (ALL, True, MODEL),
    "langchain": (("create",), True, OLD_MODEL),
    "litellm": (("create", "edit", "variation"), True, MODEL),
}
JAVASCRIPT_CLIENTS = {"openai-js": (ALL, True, MODEL), "vercel": (("create", "edit"), False, MODEL)}
NAMES = (*PYTHON_CLIENTS, *JAVASCRIPT_CLIENTS, "curl")


@contextmanager
def open_clients(folder: Path) -> Iterator[dict[str, Client]]:
    """Start the programs of the clients for the length of the block; return the clients by name."""
    modules = link_modules(folder)
    environment = build_environment(folder / "home", PYTHONPATH="")
    python = [str(ENVIRONMENTS / "clients" / "bin" / "python"), str(HERE / "python_clients.py")]
    shutil.copy(HERE.parent / "javascript" / "clients.mjs", folder)
    node = [str(modules / ".bin" / "node"), str(folder / "clients.mjs")]
    clients: dict[str, Client] = {"curl": CurlClient()}
    with child_processes() as children:
        for command, named in ((python, PYTHON_CLIENTS), (node, JAVASCRIPT_CLIENTS)):
            for name, more in named.items():
                process = _start(children, command, environment, folder / f"{name}.txt")
                clients[name] = ProgramClient(name, process, *more)
        yield {name: clients[name] for name in NAMES}


def link_modules(folder: Path) -> Path:
    """Let programs in a folder import the installed JavaScript packages; return the packages' folder."""
    modules = folder / "node_modules"
    modules.symlink_to(ENVIRONMENTS / "javascript" / "node_modules", target_is_directory=True)
    return modules


def _start(
    children: ChildProcesses, command: list[str], environment: dict[str, str], errors: Path
) -> subprocess.Popen[str]:
    with errors.open("w") as sink:
        process: subprocess.Popen[str] = children.start(
            command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, env=environment
        )
    return process
