"""Tests of the plugin: imgkit's contract, the changed prompts, the command."""

import subprocess
import sys
from pathlib import Path

from imgkit_watermark import ROOM, Watermark
from PIL import Image

import imgkit
from imgkit.testing import PluginContract, png


class TestWatermark(PluginContract):
    def plugin(self, folder):
        return Watermark()


def test_room_is_asked_for_once():
    """Adds the request for room to the prompts of creations and edits, once each."""
    with imgkit.ImageService(plugins=["watermark"]) as images:
        fox = images.create_image("a fox", size="64x64")
        again = images.create_image(fox[0].about["prompt"], size="64x64")
        edit = images.create_image_edit(fox[0], "a hat")
        images.create_image_variation(fox[0])
    assert fox[0].about["prompt"] == again[0].about["prompt"] == f"a fox {ROOM}"
    assert edit[0].about["prompt"] == f"a hat {ROOM}"


def test_the_command(tmp_path):
    """Writes a marked copy, and leaves the original untouched."""
    path = tmp_path / "fox.png"
    path.write_bytes(png(1, 200))
    command = [str(Path(sys.executable).with_name("imgkit")), "watermark", str(path), "--text", "Acme"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (process.returncode, process.stderr) == (0, "")
    marked = Path(process.stdout.strip())
    assert marked.name == "fox-marked.png"
    assert path.read_bytes() == png(1, 200)
    with Image.open(path) as before, Image.open(marked) as after:
        corner = (120, 150, 200, 200)
        assert before.convert("RGB").crop(corner).tobytes() != after.convert("RGB").crop(corner).tobytes()
        assert (
            before.convert("RGB").crop((0, 0, 90, 90)).tobytes()
            == after.convert("RGB").crop((0, 0, 90, 90)).tobytes()
        )
