"""The names that a caller asks for, and the warnings about other names that files got."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from imgkit.errors import ImgkitError, InvalidRequestError
from imgkit.images.saving import SavePlan, quote_path, with_extension
from imgkit.images.sidecars import SavableImage, sidecar_path
from imgkit.images.sniff import EXTENSIONS, Format

_MAX_CHECKED_NAMES = 100
_FORMATS = {suffix: name for name, suffixes in EXTENSIONS.items() for suffix in suffixes}


def asked_format(plan: SavePlan) -> Format | None:
    """Return the format that the extension of a plan's names stands for, None without a known extension.

    >>> asked_format(SavePlan.from_target("fox.jpg")), asked_format(SavePlan.from_target("out/{index}.{ext}"))
    ('jpeg', None)
    """
    return _FORMATS.get(os.path.splitext(plan.pattern)[1].lower())


def list_plain_names(path: Path, format: object, count: object) -> list[Path]:
    """Return the files that a plain file name stands for.

    >>> [str(path) for path in list_plain_names(Path("fox"), "png", 2)]
    ['fox-1.png', 'fox-2.png']

    Args:
        path: the file name.
        format: the format of the images; None for the name's own, "png" without one.
        count: number of images.
    """
    wanted = format or _FORMATS.get(path.suffix.lower()) or "png"
    for known in EXTENSIONS:
        path = with_extension(path, known) if wanted == known else path
    if not isinstance(count, int) or count < 2:
        return [path]
    numbers = range(1, min(count, _MAX_CHECKED_NAMES) + 1)
    return [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in numbers]


def check_plan(plan: SavePlan, format: object, count: object) -> None:
    """Refuse a folder that cannot be written to, or a plain name that is taken. Nothing was sent; may block.

    Args:
        plan: the plan; folders and patterns give names that are free.
        format, count: as for `list_plain_names`.

    Raises:
        InvalidRequestError: as `SavePlan.check`; or a file, or its sidecar, exists.
    """
    plan.check()
    if plan.make_folder or plan.overwrite:
        return
    name = plan.pattern.replace("{{", "{").replace("}}", "}")
    for path in list_plain_names(plan.folder / name, format, count):
        for taken in (path, sidecar_path(path)) if plan.sidecar else (path,):
            if os.path.lexists(taken):
                remedy = "Choose another name, or a folder such as 'out/', in which imgkit takes free names."
                raise InvalidRequestError({"save_to": f"{quote_path(taken)} exists. {remedy}"})


def explain_other_name(plan: SavePlan, image: SavableImage, path: Path, count: int) -> str | None:
    """Return a warning if an image got another name than its plan asks for, None otherwise.

    Args:
        plan: the plan of the names.
        image: the image.
        path: the file that was written.
        count: number of images of the call.
    """
    if plan.pattern.endswith(".{ext}") and (plan.make_folder or plan.overwrite):
        return None  # such names fit any image, and no file is in their way
    asked = asked_format(plan)
    try:
        format = image.format
    except ImgkitError:
        return None  # another process has changed the file
    suffix = "" if "{" in plan.pattern else Path(plan.pattern).suffix
    if (asked is not None and asked != format) or (asked is None and suffix not in ("", path.suffix)):
        parameters = image.about.get("parameters")
        is_requested = isinstance(parameters, Mapping) and parameters.get("output_format") == asked
        remedy = f'Pass output_format="{asked}", or give' if asked and not is_requested else "Give"
        return (
            f"The image is a {format or 'file of another kind'}, so it was saved as {quote_path(path)}. "
            f"{remedy} a name that ends in {path.suffix}."
        )
    if not plan.make_folder and path != (preferred := plan.build_path(image, "", count)):
        return (
            f"{quote_path(preferred)} exists, so the image was saved as {quote_path(path)}. Remove the old "
            "file, or choose another name."
        )
    return None
