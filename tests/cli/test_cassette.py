"""The command `imgkit cassette`: check, ls, show and shrink."""

from __future__ import annotations

import base64
import hashlib
import io
import random
import re
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import vcr
import yaml

import imgkit
from imgkit.cassettes.shrinking import shrink_image
from imgkit.cassettes.side_files import SideFiles
from imgkit.cassettes.writer import dump_cassette, write_cassette
from imgkit.cli.run import run
from imgkit.images.sniff import sniff
from imgkit.testing import canary, cassette, vcr_config
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply
from tests.cli.support import clear_environment

OURS = Path(__file__).parents[1] / "cassettes"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear_environment(monkeypatch, tmp_path)


def record_cassette(path: Path, config: dict[str, Any]) -> None:
    """Record a creation and an edit."""
    with (
        WireServer(reply(200, answer(png(1, 100)))) as server,
        vcr.use_cassette(str(path), record_mode="all", **config),
        imgkit.ImageService("requests", base_url=server.base_url, api_key=canary.KEY) as service,
    ):
        service.create_image("a fox in the snow")
        service.create_image_edit(png(2, 100), "a hat")


def test_clean_cassette(capsys: pytest.CaptureFixture[str]) -> None:
    """Finds no problem, and lists both requests."""
    record_cassette(Path("c.yaml"), vcr_config())
    assert run(["cassette", "check", "."]) == 0
    assert "1 cassettes checked, no problems" in capsys.readouterr().err
    assert run(["cassette", "ls", "c.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "/v1/images/generations  200  'a fox in the snow'" in lines[0]
    assert "/v1/images/edits  200  'a hat'" in lines[1]


def test_own_cassettes_have_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """Finds no problem in the cassettes of this project."""
    assert run(["cassette", "check", str(OURS)]) == 0


def test_plain_vcrpy_leaks(capsys: pytest.CaptureFixture[str]) -> None:
    """Rejects a default vcrpy recording, and does not repeat its key."""
    record_cassette(Path("c.yaml"), {})
    assert run(["cassette", "check", "c.yaml"]) == 1
    output = capsys.readouterr().err
    assert "'authorization'" in output.lower()
    assert "looks like a key" in output
    assert canary.KEY not in output


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("interactions:\n- !!python/object/new:os.system [echo]\n", "Python object"),
        ("interactions: [", "not a cassette"),
        ("[1, 2]", "not a cassette"),
        ("interactions:\n- {request: 1}\n", "not a cassette"),
    ],
)
def test_invalid_cassettes(text: str, output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Rejects Python objects and files that are not cassettes."""
    Path("c.yaml").write_text(text)
    assert run(["cassette", "check", "c.yaml"]) == 1
    assert output in capsys.readouterr().err


def test_refused_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Rejects a folder with a refused file: that file holds the key."""
    folder = Path("cassettes")
    with pytest.raises(imgkit.ConfigurationError, match="looks like a key"):
        text = dump_cassette([{"note": "AKIA" + "A1" * 8}])
        write_cassette(folder / "c.yaml", text, SideFiles(folder / "c.yaml"))
    assert run(["cassette", "check", str(folder)]) == 1
    output = capsys.readouterr().err
    assert "c.yaml.refused: The recorder refused this file" in output
    assert "A1A1" not in output
    assert run(["cassette", "ls", str(folder)]) == 0


def test_missing_images(capsys: pytest.CaptureFixture[str]) -> None:
    """Rejects a cassette whose images are missing."""
    record_cassette(Path("c.yaml"), vcr_config())
    for path in Path("c.yaml.files").iterdir():
        path.unlink()
    assert run(["cassette", "check", "c.yaml"]) == 1
    assert "record again" in capsys.readouterr().err


def test_left_over_images(capsys: pytest.CaptureFixture[str]) -> None:
    """Rejects an image that belongs to no request."""
    record_cassette(Path("c.yaml"), vcr_config())
    Path("c.yaml.files/left.png").write_bytes(png(3))
    assert run(["cassette", "check", "c.yaml"]) == 1
    assert "left.png' belongs to no recorded request" in capsys.readouterr().err


def test_key_in_svg(capsys: pytest.CaptureFixture[str]) -> None:
    """Finds a key in an SVG image, which is text."""
    record_cassette(Path("c.yaml"), vcr_config())
    drawing = b"<svg>sk-abcdefghijklmnopqrstuvwx" + b" " * 600 + b"</svg>"
    digest = hashlib.sha256(drawing).hexdigest()
    Path(f"c.yaml.files/{digest}.svg").write_bytes(drawing)
    text = Path("c.yaml").read_text()
    picture = next(one.name for one in Path("c.yaml.files").iterdir() if one.read_bytes() == png(1, 100))
    Path("c.yaml").write_text(text.replace(picture, f"{digest}.svg"))
    assert run(["cassette", "check", "c.yaml"]) == 1
    output = capsys.readouterr().err
    assert "in a body looks like a key (sk-abc…)" in output
    assert "sk-abcdefg" not in output


def make_noise_image(format: str, size: tuple[int, int], seed: int) -> bytes:
    """Return an image of noise, which no format compresses well."""
    stream = io.BytesIO()
    noise = random.Random(seed).randbytes(3 * size[0] * size[1])
    PIL.Image.frombytes("RGB", size, noise).save(stream, format)
    return stream.getvalue()


SVG = b"""<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="64" height='48'
 viewBox="0 0 64 48"><!-- %s --><script>alert(1)</script></svg>""" % (b"x" * 900)
PICTURES = [
    *(
        make_noise_image(format, (120, 90), number)
        for number, format in enumerate(["PNG", "JPEG", "WEBP", "GIF"])
    ),
    make_noise_image("PNG", (120, 90), 9),
    SVG,
]


def record_many(path: Path) -> None:
    """Record a reply with images of all formats, an edit, an image at a URL, and an error."""

    def script(line: Any) -> None:
        if line.request_line.startswith("GET"):
            reply(200, PICTURES[1], content_type="image/jpeg")(line)
        elif b"image/edits" in line.body or b"a hat" in line.body:
            reply(200, {"data": [{"url": f"http://{line.headers['host']}/x.jpg?sig=1"}]})(line)
        elif b"wrong" in line.body:
            reply(400, {"error": {"message": "<script>alert('no')</script>", "code": "c"}})(line)
        else:
            reply(200, answer(*PICTURES))(line)

    with WireServer(script) as server:
        options = {"base_url": server.base_url, "plugins": [imgkit.RecorderPlugin(path)], "retry": False}
        with imgkit.ImageService("requests", **options) as service:  # type: ignore[arg-type]  # a mixed bag
            call_many(service)


def call_many(service: imgkit.ImageService) -> list[list[bytes]]:
    """Make the calls of `record_many`, and return the bytes of their images."""
    made = [
        service.create_image("a fox & <b>a hen</b>", n=6),
        service.create_image_edit(make_noise_image("PNG", (40, 30), 7), "a hat"),
    ]
    with pytest.raises(imgkit.BadRequestError):
        service.create_image("wrong")
    return [[image.data for image in one] for one in made]


def test_page(capsys: pytest.CaptureFixture[str]) -> None:
    """Writes one page that loads nothing, with all images, and with prompts as text."""
    record_many(Path("c.yaml"))
    assert run(["cassette", "show", "c.yaml", "-o", "page.html"]) == 0
    assert capsys.readouterr().out == "page.html\n"
    text = Path("page.html").read_text("utf-8")
    assert text.count("<img ") == 8
    assert text.count("<article>") == 4
    assert "a fox &amp; &lt;b&gt;a hen&lt;/b&gt;" in text
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "sent: png, 40×30" in text
    assert 'class="status bad">400<' in text
    sources = re.findall(r'src="data:image/webp;base64,([^"]+)"', text)
    for source in sources:
        with PIL.Image.open(io.BytesIO(base64.b64decode(source))) as small:
            assert max(small.size) <= 160
    assert len(sources) == 7
    assert run(["cassette", "show", "c.yaml", "-o", "-"]) == 0
    assert capsys.readouterr().out == text


def test_page_in_a_missing_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """Asks for another --output if the file cannot be written."""
    record_many(Path("c.yaml"))
    assert run(["cassette", "show", "c.yaml", "-o", "no/such/folder/page.html"]) != 0
    assert "Pass another --output" in capsys.readouterr().err


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files by path."""
    return {str(one): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


@pytest.mark.parametrize("player", ["requests", "aiohttp", "offline"])
def test_shrink(player: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Shrinks images, keeps format and size, and leaves a cassette that replays; twice is as once."""
    record_many(Path("c.yaml"))
    text = "# where it is from\n" + Path("c.yaml").read_text()
    Path("c.yaml").write_text(text)
    before = sum(map(len, read_files(Path()).values()))
    assert run(["cassette", "shrink", "."]) == 0
    assert "bytes of images in replies, now" in capsys.readouterr().err
    shrunk = read_files(Path())
    assert sum(map(len, shrunk.values())) < before / 5
    assert Path("c.yaml").read_text().startswith("# where it is from\n")
    assert run(["cassette", "check", "."]) == 0
    assert run(["cassette", "shrink", "c.yaml"]) == 0
    assert read_files(Path()) == shrunk
    uri = yaml.safe_load(Path("c.yaml").read_text())["interactions"][0]["request"]["uri"]
    if player == "offline":
        with imgkit.ImageService(fixtures="c.yaml", retry=False) as service:
            many, (fetched,) = call_many(service)
    else:
        options = {"base_url": uri.partition("/images")[0], "retry": False}
        with cassette("c.yaml", record_mode="none"), imgkit.ImageService(player, **options) as service:
            many, (fetched,) = call_many(service)
    assert len(set(many)) == 6
    for small, large in zip([*many, fetched], [*PICTURES, PICTURES[1]], strict=True):
        assert len(small) < len(large) * 0.75
        assert sniff(small) == sniff(large[:1024])
        if large is not SVG:
            with PIL.Image.open(io.BytesIO(small)) as opened:
                opened.load()
                assert opened.size == (120, 90)
    assert many[1] == fetched


def test_large_images_become_very_small() -> None:
    """Shrinks a megapixel of each format to a few KB; a second run changes nothing."""
    for format in ("PNG", "JPEG", "WEBP", "GIF"):
        large = make_noise_image(format, (1024, 1024), 1)
        small = shrink_image(large)
        assert len(small) < 8_000, format
        assert shrink_image(small) == small
    assert shrink_image(b"no picture") == b"no picture"
    assert shrink_image(large[:30]) != b""
