"""The command `imgkit mask`: make a mask from a drawing, shapes or another mask, or check a mask."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from imgkit.cli import console, exit_codes, options, values
from imgkit.cli.help_text import Command, Option
from imgkit.errors import InvalidRequestError

Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

Points = list[tuple[float, float]]
"""The corners of a polygon, as x and y in pixels."""

_NUMBER = r"-?\d+(?:\.\d+)?"


def build_command(settings: dict[str, object], epilog: str) -> click.Command:
    """Return the click command.

    Args:
        settings: the context settings of every command.
        epilog: the end of its help.
    """
    file = partial(Option, type=click.Path(), metavar="FILE")
    return Command(
        "mask",
        context_settings=dict(settings),
        params=[
            file(["--from-white"], section="Source", help="A drawing whose white parts may change."),
            file(["--from-black"], section="Source", help="A drawing whose black parts may change."),
            file(["--from-mask"], section="Source", help="Another mask."),
            Option(["--box", "boxes"], section="Source", multiple=True, callback=_parse_boxes,
                   metavar="X,Y,W,H", help="A box in pixels; can be repeated."),
            Option(["--polygon", "polygons"], section="Source", multiple=True, callback=_parse_polygons,
                   metavar="'X,Y X,Y X,Y…'", help="A polygon in pixels; can be repeated."),
            file(["--like"], section="Size", help="The image to edit; the mask gets its size."),
            Option(["--size"], section="Size", callback=_parse_size, metavar="WxH",
                   help="The size in pixels, instead of --like."),
            Option(["--threshold"], section="Changes", type=values.Integer(1, 255), default=128,
                   metavar="GREY", help="The darkest grey that counts as white, 1 to 255; 128 by default."),
            Option(["--invert"], section="Changes", is_flag=True,
                   help="Swap the parts that may change with the parts that stay."),
            Option(["--feather", "radius_px"], section="Changes", metavar="PX",
                   type=values.Number(0, 1000, min_open=True),
                   help="Soften the edges with a Gaussian blur of this radius in pixels."),
            Option(["--output", "-o"], section="Output", metavar="PATH", type=click.Path(),
                   help="The PNG file; mask.png by default."),
            Option(["--force"], section="Output", is_flag=True, help="Replace a file that exists."),
            file(["--check", "mask_to_check"], section="Check",
                 help="Check whether this mask fits --like; make none."),
            *options.common_options(),
        ],
        callback=_run,
        help="Make a mask for an edit.\n\nA mask is a PNG whose transparent pixels may change. Prints the "
        "path of the mask. Nothing is sent. With --check, exits with 1 if there is a problem.",
        short_help="Make a mask for an edit.",
        epilog=epilog,
    )  # fmt: skip


def _parse_boxes(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> list[Box]:
    boxes: list[Box] = []
    for text in value:
        numbers = [int(number) for number in re.findall(r"-?\d+", text)]
        if not re.fullmatch(r"-?\d+(,-?\d+){3}", text.replace(" ", "")):
            raise click.BadParameter(
                f"{text[:80]!r} is not a box. Write x,y,width,height in pixels, such as 10,20,300,200."
            )
        boxes.append((numbers[0], numbers[1], numbers[2], numbers[3]))
    return boxes


def _parse_polygons(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> list[Points]:
    polygons = []
    for text in value:
        corners = text.split()
        if not all(re.fullmatch(f"{_NUMBER},{_NUMBER}", corner) for corner in corners) or len(corners) < 3:
            raise click.BadParameter(
                f"{text[:80]!r} is not a polygon. Write three corners or more, such as '10,10 200,20 90,150'."
            )
        polygons.append([(float(x), float(y)) for x, y in (corner.split(",") for corner in corners)])
    return polygons


def _parse_size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    edges = re.fullmatch(r"(\d{1,6})x(\d{1,6})", value)
    if edges is None:
        raise click.BadParameter(
            f"{value[:80]!r} is not a size. Write WIDTHxHEIGHT in pixels, such as 1024x1024."
        )
    return int(edges[1]), int(edges[2])


def _run(
    like: str | None,
    size: tuple[int, int] | None,
    output: str | None,
    force: bool,
    mask_to_check: str | None,
    invert: bool,
    radius_px: float | None,
    **source: Any,
) -> int:
    if like is not None and size is not None:
        _reject_usage("Give either --like or --size, not both.")
    files = ("from_white", "from_black", "from_mask")
    count = sum(source[name] is not None for name in files) + bool(source["boxes"] or source["polygons"])
    if mask_to_check is not None:
        if like is None or count or invert or radius_px or output or force:
            _reject_usage("--check goes with --like IMAGE only.")
        return _check_mask(mask_to_check, like)
    if count != 1:
        _reject_usage("Give one source: --from-white, --from-black, --from-mask, or boxes and polygons.")
    try:
        mask = _make_mask(size or like, **source)
        mask = _change_mask(mask, invert=invert, radius_px=radius_px)
    except InvalidRequestError as error:
        fields = {_find_option(path, source): text for path, text in error.fields.items()}
        raise InvalidRequestError(fields, hints=error.hints) from None
    return _write_mask(mask, output or "mask.png", force=force)


def _make_mask(
    target: tuple[int, int] | str | None,
    from_white: str | None,
    from_black: str | None,
    from_mask: str | None,
    boxes: list[Box],
    polygons: list[Points],
    threshold: int,
) -> bytes:
    """Return a mask in the size of the target: a size in pixels, or the path of an image."""
    from imgkit import masks

    if from_white is not None:
        return masks.from_white(from_white, like=target, threshold=threshold)
    if from_black is not None:
        return masks.from_black(from_black, like=target, threshold=threshold)
    if from_mask is not None:
        mask = masks.union(from_mask)
        return mask if target is None else masks.resize(mask, target)
    if target is None:
        _reject_usage("Boxes and polygons need a size. Give --like IMAGE or --size WxH.")
    return masks.union(
        *(masks.from_box(target, box) for box in boxes),
        *(masks.from_polygon(target, points) for points in polygons),
    )


def _change_mask(mask: bytes, *, invert: bool, radius_px: float | None) -> bytes:
    from imgkit import masks

    mask = masks.invert(mask) if invert else mask
    return mask if radius_px is None else masks.feather(mask, radius_px)


def _find_option(path: str, source: Mapping[str, object]) -> str:
    """Return the option of an argument of `imgkit.masks`."""
    name, dot, rest = path.partition(".")
    drawing = "--from-white" if source["from_white"] is not None else "--from-black"
    options_by_argument = {
        "picture": drawing, "mask": "--from-mask", "masks": "--from-mask", "like": "--like",
        "like_or_size": "--like or --size", "box": "--box", "points": "--polygon", "radius_px": "--feather",
    }  # fmt: skip
    return options_by_argument[name] + (f", corner {int(rest) + 1}" if name == "points" and dot else "")


def _check_mask(mask: str, like: str) -> int:
    """Print the problems of a mask; return 1 if there are any, else 0."""
    from imgkit import masks

    problems = masks.check(mask, like)
    for problem in problems:
        console.print_message(f"imgkit: {mask}: {problem}")
    if not problems:
        console.print_message(f"imgkit: {mask} fits {like}.")
    return exit_codes.BUG if problems else exit_codes.OK


def _write_mask(mask: bytes, output: str, *, force: bool) -> int:
    from imgkit.images.saving import write_file

    path = Path(output)
    if path.suffix.lower() != ".png" or path.is_dir():
        _reject_output(f"{output!r} is not the name of a PNG file. Give a name that ends with .png.")
    try:
        write_file(path, mask, overwrite=force)
    except FileExistsError:
        _reject_output(f"{output!r} exists. Pass --force to replace it, or choose another name.")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        _reject_output(f"Cannot write {output!r} ({reason}). Choose another place.")
    return console.write_paths([output])


def _reject_output(problem: str) -> NoReturn:
    raise InvalidRequestError({"--output": problem}) from None


def _reject_usage(problem: str) -> NoReturn:
    raise click.UsageError(problem, click.get_current_context())
