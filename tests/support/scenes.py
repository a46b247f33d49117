"""A scene for calls that fail: one loopback server, a folder with files, and both doors to imgkit."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import imgkit
from imgkit import masks
from imgkit.cli.messages import option_names
from imgkit.cli.run import run
from imgkit.core.config import ServiceConfig
from imgkit.models import ImagesResponse
from imgkit.providers.openai import OpenAIProvider
from imgkit.testing import WireServer
from imgkit.testing.wire_server import CA_FILE, Line, drop, hang, reply
from tests.support.pictures import picture

KEY = "sk-right-0123456789abcdef"
CASSETTE = Path(__file__).parents[1] / "cassettes" / "create_image.yaml"
COMMANDS = {"create_image": "create", "create_image_edit": "edit", "create_image_variation": "variation"}
_FOREIGN = ("OPENAI_", "IMGKIT_", "AZURE_", "XDG_", "REQUESTS_CA", "SSL_CERT")
_OWN_FACTS = 'hosts = ["official"]\n[[models]]\nid = "my-model"\n'


def _refuse(status: int, code: str, message: str, **more: Any) -> Callable[[Line], None]:
    error = {"message": message, "type": "invalid_request_error", "code": code, "param": None, **more}
    return reply(status, {"error": error})


def _page(status: int) -> Callable[[Line], None]:
    text = f"<html><head><title>{status} Gateway</title></head><body>nginx</body></html>"
    return reply(status, text.encode(), content_type="text/html")


@cache
def _ok() -> Callable[[Line], None]:
    image = base64.b64encode(picture("PNG")).decode()
    return reply(200, {"created": 1, "data": [{"b64_json": image}]})


REPLIES: Mapping[str, Callable[[Line], None]] = {
    "wrong-key": _refuse(401, "invalid_api_key", "Incorrect API key provided: sk-wron****."),
    "unknown-model": _refuse(404, "model_not_found", "The model 'gpt-image-9' does not exist."),
    "unverified": _refuse(403, "", "Your organization must be verified to use the model `gpt-image-2`."),
    "forbidden": _refuse(403, "", "You have insufficient permissions for this operation."),
    "moderation": _refuse(400, "moderation_blocked", "Your request was rejected by the safety system."),
    "rate-limit": reply(
        429, {"error": {"message": "Rate limit reached.", "code": "rate_limit_exceeded"}}, retry_after="1"
    ),
    "quota": _refuse(429, "insufficient_quota", "You exceeded your current quota."),
    "billing": _refuse(400, "billing_hard_limit_reached", "Billing hard limit has been reached."),
    "parameter": _refuse(400, "unknown_parameter", "Unknown parameter: 'style'.", param="style"),
    "bad-image": _refuse(400, "invalid_image_file", "Invalid image file or mode.", param="image"),
    "no-path": _page(404),
    "failure": _refuse(500, "server_error", "The server had an error.", type="server_error"),
    "gateway": _page(502),
    "page": _page(200),
    "empty": reply(200, {"created": 1, "data": []}),
    "silent": hang,
    "cut": drop,
}
"""The replies of the server by the first part of a URL's path; any other path gets an image."""

CONDITIONS: Mapping[str, Callable[[Line], bool]] = {
    "wrong-key": lambda line: line.headers.get("authorization") == f"Bearer {KEY}",
    "unknown-model": lambda line: b"gpt-image-9" not in line.body,
    "parameter": lambda line: b"style" not in line.body,
    "moderation": lambda line: b"a kind fox" in line.body,
}
"""The changes without which the mended server refuses a request too."""


MASKS = {
    r"(127\.0\.0\.1:|port=)\d+": r"\1<port>",
    r"\d{8}T\d{6}Z-[0-9a-f]{12}-\d+": "<record>",
    r"(?<=Live models as of )(\S+): [^:]+?\. ": "<day>: <models>. ",
    r"\bread 20\d\d-\d\d-\d\d": "read <day>",
}
"""The parts of messages that differ from run to run, or with the data about models."""


class Scene:
    """A folder with files, and servers on loopback.

    Attributes:
        folder: the current folder of the scene.
        environment: the environment variables of each call.
        values: the texts that stand for ``{name}`` in the arguments of a call.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        home = str(folder.parent / "home")
        self.environment = {"IMGKIT_HOME": home, "XDG_CACHE_HOME": home, "COLUMNS": "100", "NO_COLOR": "1"}
        self._stack = ExitStack()
        self._is_mended = False
        server = self._stack.enter_context(WireServer(self._route))
        secure = self._stack.enter_context(WireServer(_ok(), tls=True))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            closed = listener.getsockname()[1]
        self.values = {
            "{origin}": server.origin,
            "{host}": f"127.0.0.1:{server.port}",
            "{secure}": secure.base_url,
            "{ca}": str(CA_FILE),
            "{base64}": base64.b64encode(picture("PNG", (64, 64))).decode(),
            "{closed}": f"http://127.0.0.1:{closed}",
        }

    def close(self) -> None:
        """Close the servers."""
        self._stack.close()

    def _route(self, line: Line) -> None:
        name = line.request_line.split(" ")[1].split("/")[1]
        is_mended = self._is_mended and (name not in CONDITIONS or CONDITIONS[name](line))
        (_ok() if is_mended else REPLIES.get(name, _ok()))(line)

    def enter_anew(self, *, is_mended: bool = False) -> None:
        """Make the folder and its files anew.

        Args:
            is_mended: the server works again, or the account has credit.
        """
        self._is_mended = is_mended
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        square, wide = picture("PNG", (64, 64)), picture("PNG", (64, 32))
        files = {
            "fox.png": square,
            "wide.png": wide,
            "cut.png": square[:-20],
            "notes.txt": b"no image",
            "base64.txt": base64.b64encode(square),
            "facts.toml": _OWN_FACTS.replace("id", "name").encode(),
            "own.toml": _OWN_FACTS.encode(),
            "small-mask.png": masks.from_box((32, 32), (8, 8, 16, 16)),
            "wide-mask.png": picture("PNG", (64, 32), "#00000000", "RGBA"),
            "photo.png": square,
            "opaque-mask.png": picture("PNG", (64, 64), "#ffffffff", "RGBA"),
        }
        for name, data in files.items():
            (self.folder / name).write_bytes(data)

    def fill(self, value: Any) -> Any:
        """Return an argument with the texts of the scene."""
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if isinstance(value, str):
            for name, text in self.values.items():
                value = value.replace(name, text)
        return value

    def mask(self, text: str) -> str:
        """Return a message without paths, ports and times of the scene."""
        for place, name in (
            (self.folder, "work"),
            (self.folder.parent, "scene"),
            (CASSETTE.parent, "cassettes"),
        ):
            text = text.replace(str(place), f"<{name}>")
        for pattern, name in MASKS.items():
            text = re.sub(pattern, name, text)
        return text.rstrip()

    def call(self, arguments: Mapping[str, Any]) -> Any:
        """Call the library; return its response, or the text of a dry run.

        Args:
            arguments: those of a service and of its operation in one mapping. "env" holds environment
                variables, "operation" the name of the operation, "dry_run" asks for its request only,
                "closed" closes the service before the call.
        """
        given = {name: self.fill(value) for name, value in arguments.items() if value is not None}
        operation, dry_run = given.pop("operation", "create_image"), given.pop("dry_run", False)
        is_closed = given.pop("closed", False)
        with replace_environment({**self.environment, **given.pop("env", {})}):
            settings = {name: given.pop(name) for name in given.keys() & set(ServiceConfig._fields)}
            if "usd" in given:
                settings["plugins"] = [imgkit.Budget(given.pop("usd"))]
            if "cache" in given:
                settings["plugins"] = ["cache"]
            with imgkit.ImageService(**{"retry": False, **settings}) as service:
                if is_closed:
                    service.close()
                return (
                    service.dry_run(operation, **given) if dry_run else getattr(service, operation)(**given)
                )

    def run(self, arguments: Mapping[str, Any]) -> tuple[int, str]:
        """Run the command with the arguments that `call` takes; return exit code and standard error."""
        given = {name: self.fill(value) for name, value in arguments.items() if value is not None}
        environment = {**self.environment, **given.pop("env", {})}
        with replace_environment(environment), capture() as (_, stderr):
            code = run(to_words(given))
        return code, stderr.getvalue()


def to_words(given: dict[str, Any]) -> list[str]:
    """Return arguments of the library as the words of a command."""
    if "words" in given:
        return list(given["words"])
    names = {**option_names(), "dry_run": "--dry-run"}
    images = given.pop("image", [])
    words = [COMMANDS[given.pop("operation", "create_image")]]
    words += [*([images] if isinstance(images, str) else images), *filter(None, [given.pop("prompt", "")])]
    if "api_key" in given:
        Path("key.txt").write_text(given.pop("api_key"))
        words += ["--api-key-file", "key.txt"]
    words += [] if given.get("backend", "offline") == "offline" else ["--no-retry"]
    for name, value in given.items():
        option = names.get(name, f"--{name}")
        value = json.dumps(value) if isinstance(value, dict) else str(value)
        words += [option] if value == "True" else [option, value]
    return words


@contextmanager
def replace_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while, without the settings of the person who runs this."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(_FOREIGN) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def capture() -> Iterator[tuple[io.TextIOWrapper, io.StringIO]]:
    """Capture the two streams of the command."""
    before = sys.stdout, sys.stderr
    stdout, stderr = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    sys.stdout, sys.stderr = stdout, stderr
    try:
        yield stdout, stderr
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def open_scene() -> Iterator[Scene]:
    """Yield a scene in a folder of its own, which becomes the current folder.

    OpenAI's host is the server of the scene, so its rules for keys and models hold there.
    """
    address, here, lookup = OpenAIProvider.base_url, Path.cwd(), socket.getaddrinfo

    def look_up(host: Any, *args: Any, **more: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return lookup(host, *args, **more)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "work"
        folder.mkdir()
        scene = Scene(folder)
        os.chdir(folder)
        OpenAIProvider.base_url = scene.fill("{origin}/v1")
        socket.getaddrinfo = look_up
        try:
            yield scene
        finally:
            socket.getaddrinfo = lookup
            OpenAIProvider.base_url = address
            os.chdir(here)
            scene.close()


def is_success(result: Any) -> bool:
    """Return whether the result of `Scene.call` is a response with images, or a request."""
    return bool(result) if isinstance(result, str) else isinstance(result, ImagesResponse) and len(result) > 0
