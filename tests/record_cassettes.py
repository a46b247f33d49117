"""Records the cassettes of ``tests/cassettes``: run ``python -m tests.record_cassettes``.

They come from a real HTTP server, a process on loopback, through plain vcrpy and the `requests` backend.
The port of that server differs each time, so ``before_record_request`` puts `BASE_URL` in its place:
vcrpy sends the request as it is, and stores, loads and matches what that function makes of it. A replay
that asks `BASE_URL` itself therefore needs no such function.
"""

from __future__ import annotations

import io
import platform
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageDraw
import vcr
from vcr.record_mode import RecordMode

import imgkit
from tests.support.api_server import running

COMMAND = "python -m tests.record_cassettes"
FOLDER = Path(__file__).with_name("cassettes")
BASE_URL = "http://api.imgkit.test/v1"
MATCH_ON = ("method", "scheme", "host", "port", "path", "query", "body")
PRIVATE_REQUEST_HEADERS = (
    "authorization", "api-key", "cookie", "host", "idempotency-key", "openai-organization", "openai-project",
    "x-client-request-id", "x-request-id",
)  # fmt: skip
PRIVATE_REPLY_HEADERS = ("openai-organization", "openai-project", "set-cookie", "x-request-id")
SIZE = "256x256"
MODEL = "offline-painter"


def png(picture: PIL.Image.Image) -> bytes:
    """Encode without compression, so that no version of zlib makes a difference."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=0)
    return stream.getvalue()


def base() -> bytes:
    """The picture that is edited and varied: a red square on blue."""
    picture = PIL.Image.new("RGB", (32, 32), "navy")
    PIL.ImageDraw.Draw(picture).rectangle((8, 8, 23, 23), fill="red")
    return png(picture)


def mask() -> bytes:
    """A mask of the same size: its right half is to be changed."""
    picture = PIL.Image.new("RGBA", (32, 32), "black")
    PIL.ImageDraw.Draw(picture).rectangle((16, 0, 31, 31), fill=(0, 0, 0, 0))
    return png(picture)


Ask = Callable[[Any], Any]

CASSETTES: dict[str, tuple[Ask, ...]] = {
    "create_image": (
        lambda service: service.create_image("a red fox in the snow", model=MODEL, size=SIZE),
        lambda service: service.create_image("ein Fuchs, in Öl gemalt 🦊", model=MODEL, size=SIZE, n=1),
        lambda service: service.create_image(
            "a teapot on a green table", model=MODEL, size=SIZE, output_format="jpeg", output_compression=60
        ),
    ),
    "create_image_edit": (
        lambda service: service.create_image_edit(
            base(), 'make it "winter"\n❄', mask=mask(), model=MODEL, size=SIZE
        ),
        lambda service: service.create_image_edit([base(), base()], "two in one", model=MODEL, size=SIZE),
    ),
    "create_image_variation": (
        lambda service: service.create_image_variation(base(), model=MODEL, size=SIZE, n=2),
    ),
}
"""What is recorded: for each cassette the calls in their order. Each takes a service of either kind."""


def recorder(base_url: str, mode: RecordMode) -> vcr.VCR:
    """Return vcrpy, set up for the API at `base_url`, which cassettes know as `BASE_URL`."""

    def at_fixed_origin(request: Any) -> Any:
        if request.uri.startswith(f"{base_url}/"):
            request.uri = BASE_URL + request.uri.removeprefix(base_url)
        return request

    def without_private_headers(response: Any) -> Any:
        kept = response["headers"].items()
        response["headers"] = {
            name: values for name, values in kept if name.lower() not in PRIVATE_REPLY_HEADERS
        }
        return response

    return vcr.VCR(
        record_mode=mode,
        match_on=MATCH_ON,
        filter_headers=PRIVATE_REQUEST_HEADERS,
        before_record_request=at_fixed_origin,
        before_record_response=without_private_headers,
    )


def header(name: str) -> Iterator[str]:
    """Yield the comment that tells where a cassette comes from."""
    versions = ", ".join(f"{package} {version(package)}" for package in ("vcrpy", "requests", "pillow"))
    yield f"# Cassette {name}: recorded, never edited by hand."
    yield f"# Record it again: {COMMAND}"
    yield "# Server: python -m tests.support.api_server, imgkit's offline server behind http.server, a"
    yield f"#   process of its own on loopback. Its origin is replaced by {BASE_URL}."
    yield f"# Versions: imgkit {imgkit.__version__}, {versions}, Python {platform.python_version()}"
    yield f"# Recorded: {datetime.now(UTC):%Y-%m-%d}"


def record(folder: Path, *, api_key: str, organization: str, project: str) -> None:
    """Record all cassettes into `folder`; those there are replaced only when all have been recorded."""
    folder.mkdir(parents=True, exist_ok=True)
    with running() as base_url, tempfile.TemporaryDirectory(dir=folder) as draft:
        settings = {
            "base_url": base_url,
            "api_key": api_key,
            "organization": organization,
            "project": project,
        }
        for name, calls in CASSETTES.items():
            path = Path(draft, f"{name}.yaml")
            with (
                recorder(base_url, RecordMode.ONCE).use_cassette(path),
                imgkit.ImageService("requests", provider="openai", **settings) as service,
            ):
                for call in calls:
                    call(service)
        for path in sorted(Path(draft).iterdir()):
            text = "\n".join([*header(path.stem), path.read_text("ascii")])
            path.with_suffix(".done").write_text(text, "ascii")
            path.with_suffix(".done").replace(folder / path.name)


def main() -> None:
    """Record into the repository, with a key that must not turn up there."""
    record(FOLDER, api_key="sk-not-a-key", organization="org-none", project="proj-none")
    for path in sorted(FOLDER.glob("*.yaml")):
        print(f"{path}: {path.stat().st_size} bytes")  # noqa: T201 - a command


if __name__ == "__main__":
    main()
