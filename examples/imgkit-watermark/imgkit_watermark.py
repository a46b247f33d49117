"""Room for a watermark in pictures, and a command that puts it there."""

from dataclasses import replace
from pathlib import Path

import click

from imgkit import hookimpl
from imgkit.plugins.hookspecs import PluginSpec

ROOM = "The lower right corner is calm and empty."


class Watermark:
    """Asks for room in the corner. Variations have no prompt, so there is nothing to ask."""

    @hookimpl
    def imgkit_prepare(self, request):
        if request.operation == "create_image_variation" or ROOM in request.prompt:
            return None
        return replace(request, prompt=f"{request.prompt.rstrip()} {ROOM}")


def mark(path, text):
    """Write a marked copy beside a picture; return its path."""
    from PIL import Image, ImageDraw, ImageFont

    with Image.open(path) as picture:
        marked = picture.convert("RGBA")
    layer = Image.new("RGBA", marked.size)
    size = max(10, marked.height // 24)
    place = (marked.width - size, marked.height - size)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(layer).text(
        place, text, (255, 255, 255, 170), font, anchor="rs", stroke_width=1, stroke_fill=(0, 0, 0, 90)
    )
    target = Path(path).with_stem(f"{Path(path).stem}-marked").with_suffix(".png")
    Image.alpha_composite(marked, layer).save(target)
    return target


@hookimpl
def imgkit_plugins():
    return [
        PluginSpec(name="watermark", target=f"{__name__}:Watermark", summary="room for a mark in the corner")
    ]


@hookimpl
def imgkit_commands(group):
    def run(files, text):
        for file in files:
            click.echo(mark(file, text))
        return 0

    params = [
        click.Argument(["files"], nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False)),
        click.Option(["--text"], required=True, help="what the mark says."),
    ]
    return [click.Command("watermark", params=params, callback=run, help="Write marked copies of pictures.")]
