"""Leave room for a watermark in images, and add it with a command."""

from dataclasses import replace
from pathlib import Path

import click

from imgkit import hookimpl
from imgkit.plugins import PluginSpec

ROOM = "The lower right corner is calm and empty."


class Watermark:
    """Asks the model for an empty corner. A variation has no prompt, so it stays as it is."""

    @hookimpl
    def imgkit_prepare(self, request):
        if request.operation == "create_image_variation" or ROOM in request.prompt:
            return None
        return replace(request, prompt=f"{request.prompt.rstrip()} {ROOM}")


def write_marked_copy(path, text):
    """Write a copy with a watermark beside an image, and return its path."""
    from PIL import Image, ImageDraw, ImageFont

    with Image.open(path) as image:
        marked = image.convert("RGBA")
    layer = Image.new("RGBA", marked.size)
    size = max(10, marked.height // 24)
    position = (marked.width - size, marked.height - size)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(layer).text(
        position, text, (255, 255, 255, 170), font, anchor="rs", stroke_width=1, stroke_fill=(0, 0, 0, 90)
    )
    target = Path(path).with_stem(f"{Path(path).stem}-marked").with_suffix(".png")
    Image.alpha_composite(marked, layer).save(target)
    return target


@hookimpl
def imgkit_plugins():
    return [
        PluginSpec(
            name="watermark", target=f"{__name__}:Watermark", summary="room for a watermark in the corner"
        )
    ]


@hookimpl
def imgkit_commands(group):
    def run_watermark(files, text):
        for file in files:
            click.echo(write_marked_copy(file, text))
        return 0

    params = [
        click.Argument(["files"], nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False)),
        click.Option(["--text"], required=True, help="the text of the watermark."),
    ]
    return [
        click.Command(
            "watermark",
            params=params,
            callback=run_watermark,
            help="Write copies of images with a watermark.",
        )
    ]
