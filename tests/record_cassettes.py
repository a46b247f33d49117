"""Record the cassettes of ``tests/cassettes``: run ``python -m tests.record_cassettes``.

The replies come from a real HTTP server, a process on loopback. Its port differs each time, so the service
uses it as a proxy: recorded and replayed requests go to `BASE_URL`.
"""

from __future__ import annotations

import io
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageDraw

import imgkit
from imgkit.testing import cassette
from tests.support.api_server import running

COMMAND = "python -m tests.record_cassettes"
FOLDER = Path(__file__).with_name("cassettes")
BASE_URL = "http://api.imgkit.test/v1"
SIZE = "256x256"
MODEL = "offline-painter"


def encode_png(picture: PIL.Image.Image) -> bytes:
    """Encode a PNG without compression, which gives the same bytes with every version of zlib."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=0)
    return stream.getvalue()


def make_base_image() -> bytes:
    """Return the image to edit and vary: a red square on blue."""
    picture = PIL.Image.new("RGB", (32, 32), "navy")
    PIL.ImageDraw.Draw(picture).rectangle((8, 8, 23, 23), fill="red")
    return encode_png(picture)


def make_mask() -> bytes:
    """Return a mask of the same size; its right half may change."""
    picture = PIL.Image.new("RGBA", (32, 32), "black")
    PIL.ImageDraw.Draw(picture).rectangle((16, 0, 31, 31), fill=(0, 0, 0, 0))
    return encode_png(picture)


Call = Callable[[Any], Any]


def create_and_download(service: Any) -> Any:
    """Create images by URL and download them; return a coroutine if the service is async."""
    options: dict[str, Any] = {"model": MODEL, "size": SIZE, "n": 2, "response_format": "url"}
    if isinstance(service, imgkit.ImageService):
        return [service.download(image) for image in service.create_image("a blue boat", **options)]

    async def main() -> list[Any]:
        return [
            await service.download(image) for image in await service.create_image("a blue boat", **options)
        ]

    return main()


CASSETTES: dict[str, tuple[Call, ...]] = {
    "create_image": (
        lambda service: service.create_image("a red fox in the snow", model=MODEL, size=SIZE),
        lambda service: service.create_image("ein Fuchs, in Öl gemalt 🦊", model=MODEL, size=SIZE, n=1),
        lambda service: service.create_image(
            "a teapot on a green table", model=MODEL, size=SIZE, output_format="jpeg", output_compression=60
        ),
    ),
    "create_image_by_url": (create_and_download,),
    "create_image_edit": (
        lambda service: service.create_image_edit(
            make_base_image(), 'make it "winter"\n❄', mask=make_mask(), model=MODEL, size=SIZE
        ),
        lambda service: service.create_image_edit(
            [make_base_image(), make_base_image()], "two in one", model=MODEL, size=SIZE
        ),
    ),
    "create_image_variation": (
        lambda service: service.create_image_variation(make_base_image(), model=MODEL, size=SIZE, n=2),
    ),
    "refused": (
        lambda service: service.create_image("(fault: invalid_api_key)", model=MODEL, size=SIZE),
        lambda service: service.create_image_edit(
            make_base_image(), "(fault: moderation_blocked)", model=MODEL, size=SIZE
        ),
    ),
    "refused_for_now": (
        lambda service: service.create_image(
            "a kite (fault once: rate_limit_exceeded)", model=MODEL, size=SIZE
        ),
    ),
}
"""Calls of each cassette, in order. A call takes a sync or an async service."""


def build_header(name: str) -> Iterator[str]:
    """Yield the comment lines that state a cassette's origin."""
    versions = ", ".join(f"{package} {version(package)}" for package in ("vcrpy", "requests", "pillow"))
    yield f"# Cassette {name}: recorded, never edited by hand."
    yield f"# Record it again: {COMMAND}"
    yield "# Server: python -m tests.support.api_server, imgkit's offline server behind http.server, a"
    yield f"#   process of its own on loopback, asked as a proxy for {BASE_URL}."
    yield f"# Versions: imgkit {imgkit.__version__}, {versions}, Python {platform.python_version()}"
    yield f"# Recorded: {datetime.now(UTC):%Y-%m-%d}"


def record(folder: Path, *, api_key: str, organization: str, project: str) -> None:
    """Record all cassettes into a folder; replace old cassettes only after all recordings succeed.

    Args:
        folder: Folder of the cassettes.
        api_key, organization, project: Credentials; no cassette may contain them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with running() as base_url, tempfile.TemporaryDirectory(dir=folder) as draft:
        settings: dict[str, Any] = {
            "base_url": BASE_URL, "proxy": base_url.removesuffix("/v1"), "allow_insecure": True,
            "api_key": api_key, "organization": organization, "project": project,
        }  # fmt: skip
        for name, calls in CASSETTES.items():
            path = Path(draft, f"{name}.yaml")
            with (
                cassette(path, record_mode="once"),
                imgkit.ImageService("requests", provider="openai", **settings) as service,
            ):
                for call in calls:
                    try:
                        call(service)
                    except imgkit.ApiError:
                        assert name == "refused", name
            path.write_text("\n".join([*build_header(name), path.read_text("ascii")]), "ascii")
        for old in folder.glob("*.yaml*"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        for new in sorted(Path(draft).iterdir()):
            new.rename(folder / new.name)


def main() -> None:
    """Record the repository's cassettes with a fake key."""
    record(FOLDER, api_key="sk-not-a-key", organization="org-notatall", project="proj_notatall")
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file():
            print(f"{path.relative_to(FOLDER)}: {path.stat().st_size} bytes")  # noqa: T201 - a command


if __name__ == "__main__":
    main()
