"""`imgkit mask`: a mask of a drawing, of boxes and polygons, or of another mask; or what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from imgkit.cli import console as streams
from imgkit.cli import exit_codes as exits
from imgkit.cli import options
from imgkit.cli.options import Command, Option
from imgkit.errors import InvalidRequestError

Box = tuple[int, int, int, int]
Points = list[tuple[float, float]]

_NUMBER = r"-?\d+(?:\.\d+)?"


def _boxes(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> list[Box]:
    found: list[Box] = []
    for text in value:
        numbers = [int(one) for one in re.findall(r"-?\d+", text)]
        if not re.fullmatch(r"-?\d+(,-?\d+){3}", text.replace(" ", "")):
            raise click.BadParameter(
                f"{text[:80]!r}: write x,y,width,height in pixels, such as 10,20,300,200"
            )
        found.append((numbers[0], numbers[1], numbers[2], numbers[3]))
    return found


def _polygons(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> list[Points]:
    found = []
    for text in value:
        corners = text.split()
        if not all(re.fullmatch(f"{_NUMBER},{_NUMBER}", corner) for corner in corners) or len(corners) < 3:
            raise click.BadParameter(
                f"{text[:80]!r}: write three corners or more, such as '10,10 200,20 90,150'"
            )
        found.append([(float(x), float(y)) for x, y in (corner.split(",") for corner in corners)])
    return found


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    parts = re.fullmatch(r"(\d{1,6})x(\d{1,6})", value)
    if parts is None:
        raise click.BadParameter(f"{value[:80]!r}: write WIDTHxHEIGHT in pixels, such as 1024x1024")
    return int(parts[1]), int(parts[2])


def command(settings: dict[str, object], epilog: str) -> click.Command:
    """Return it as click has it.

    Args:
        settings: of every command.
        epilog: the end of its help.
    """
    file = partial(Option, type=click.Path(), metavar="FILE")
    return Command(
        "mask",
        context_settings=dict(settings),
        params=[
            file(["--from-white"], section="Made of", help="a drawing in which white is what may change."),
            file(["--from-black"], section="Made of", help="a drawing in which black is what may change."),
            file(["--from-mask"], section="Made of", help="another mask."),
            Option(["--box", "boxes"], section="Made of", multiple=True, callback=_boxes, metavar="X,Y,W,H",
                   help="a box in pixels, can be repeated."),
            Option(["--polygon", "polygons"], section="Made of", multiple=True, callback=_polygons,
                   metavar="'X,Y X,Y X,Y…'", help="a polygon in pixels, can be repeated."),
            file(["--like"], section="Size", help="the picture that it is for; the mask gets its size."),
            Option(["--size"], section="Size", callback=_size, metavar="WxH",
                   help="instead, its size in pixels."),
            Option(["--threshold"], section="Changed", type=click.IntRange(1, 255), default=128,
                   metavar="GREY", help="the darkest grey that counts as white, 1 to 255; 128 by default."),
            Option(["--invert"], section="Changed", is_flag=True,
                   help="what may change and what stays change places."),
            Option(["--feather", "radius_px"], section="Changed", metavar="PX",
                   type=click.FloatRange(0, 1000, min_open=True),
                   help="make its edges soft: the radius of a Gaussian blur in pixels."),
            Option(["--output", "-o"], section="Written to", metavar="PATH", type=click.Path(),
                   help="a PNG; mask.png by default."),
            Option(["--force"], section="Written to", is_flag=True, help="replace a file that is there."),
            file(["--check", "checked"], section="Instead",
                 help="tell what is wrong with this mask for --like."),
            *options.common_options(),
        ],
        callback=_run,
        help="Make a mask: a PNG whose transparent pixels are what an edit may change.\n\n"
        "Prints its path. Nothing is sent. --check ends with 1 if something is wrong.",
        short_help="Make a mask for an edit.",
        epilog=epilog,
    )  # fmt: skip


def _run(
    like: str | None,
    size: tuple[int, int] | None,
    output: str | None,
    force: bool,
    checked: str | None,
    invert: bool,
    radius_px: float | None,
    **source: Any,
) -> int:
    if like is not None and size is not None:
        _misused("give either --like or --size")
    kinds = ("from_white", "from_black", "from_mask")
    count = sum(source[kind] is not None for kind in kinds) + bool(source["boxes"] or source["polygons"])
    if checked is not None:
        if like is None or count or invert or radius_px or output or force:
            _misused("--check goes with --like PICTURE, and nothing else")
        return _check(checked, like)
    if count != 1:
        _misused("say what it is made of: --from-white, --from-black, --from-mask, or boxes and polygons")
    try:
        mask = _made(size or like, **source)
        mask = _changed(mask, invert=invert, radius_px=radius_px)
    except InvalidRequestError as error:
        fields = {_option(path, source): text for path, text in error.fields.items()}
        raise InvalidRequestError(fields) from None
    return _write(mask, output or "mask.png", force=force)


def _made(
    target: tuple[int, int] | str | None,
    from_white: str | None,
    from_black: str | None,
    from_mask: str | None,
    boxes: list[Box],
    polygons: list[Points],
    threshold: int,
) -> bytes:
    from imgkit import masks

    if from_white is not None:
        return masks.from_white(from_white, like=target, threshold=threshold)
    if from_black is not None:
        return masks.from_black(from_black, like=target, threshold=threshold)
    if from_mask is not None:
        mask = masks.union(from_mask)
        return mask if target is None else masks.resize(mask, target)
    if target is None:
        _misused("give --like PICTURE or --size WxH: boxes and polygons are drawn at that size")
    return masks.union(
        *(masks.from_box(target, box) for box in boxes),
        *(masks.from_polygon(target, points) for points in polygons),
    )


def _changed(mask: bytes, *, invert: bool, radius_px: float | None) -> bytes:
    from imgkit import masks

    mask = masks.invert(mask) if invert else mask
    return mask if radius_px is None else masks.feather(mask, radius_px)


def _option(path: str, source: dict[str, Any]) -> str:
    """Return the option that an argument of `imgkit.masks` came from."""
    name, dot, rest = path.partition(".")
    drawing = "--from-white" if source["from_white"] is not None else "--from-black"
    options_of = {
        "picture": drawing, "mask": "--from-mask", "masks": "--from-mask", "like": "--like",
        "like_or_size": "--like or --size", "box": "--box", "points": "--polygon", "radius_px": "--feather",
    }  # fmt: skip
    return options_of[name] + (f", corner {int(rest) + 1}" if name == "points" and dot else "")


def _check(mask: str, like: str) -> int:
    from imgkit import masks

    found = masks.check(mask, like)
    for problem in found:
        streams.tell(f"imgkit: {mask}: {problem}")
    if not found:
        streams.tell(f"imgkit: {mask} fits {like}")
    return exits.BUG if found else exits.OK


def _write(mask: bytes, output: str, *, force: bool) -> int:
    from imgkit.images.saving import write_file

    path = Path(output)
    if path.suffix.lower() != ".png" or path.is_dir():
        _refuse(f"{output!r} is no name for a mask: give one that ends with .png")
    try:
        write_file(path, mask, overwrite=force)
    except FileExistsError:
        _refuse(f"{output!r} exists: choose another name, or say --force")
    except (OSError, ValueError) as error:
        _refuse(
            f"cannot write {output!r} ({getattr(error, 'strerror', None) or error}): choose another place"
        )
    return streams.send_paths([output])


def _refuse(problem: str) -> NoReturn:
    raise InvalidRequestError({"--output": f"{problem}."}) from None


def _misused(problem: str) -> NoReturn:
    raise click.UsageError(problem, click.get_current_context())
