"""Where the pictures go, and whether something is there already."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from imgkit.errors import InvalidRequestError
from imgkit.images.saving import SavePlan, with_extension
from imgkit.images.sidecars import can_replace, sidecar_path
from imgkit.images.sniff import EXTENSIONS, Format


def plan(output: str | None, *, force: bool, sidecar: bool) -> SavePlan:
    """Return the plan for ``--output``: the current folder and a name made from the prompt without it."""
    if output == "-":
        raise InvalidRequestError({"save_to": "pictures are not written to standard output: give a file"})
    return SavePlan.from_target(output or "", overwrite=force, sidecar=sidecar)


def check_free(output: str | None, wanted: SavePlan, request: dict[str, Any]) -> None:
    """Refuse, before anything is sent, a file that was named and exists.

    Only a plain file name is meant literally; folders and patterns make names, and take free ones.

    Raises:
        InvalidRequestError: saying ``--force``, or to choose another name where that would not help.
    """
    if not output or wanted.make_folder:
        return
    for path in _names(Path(output), request):
        beside = sidecar_path(path)
        if wanted.overwrite:
            if path.is_dir():
                _refuse(f"{str(path)!r} is a folder: end it with a slash to write into it")
            if wanted.sidecar and not can_replace(beside):
                _refuse(
                    f"{str(beside)!r} exists and is not a sidecar of imgkit: choose another name, or say "
                    "--no-sidecar"
                )
        elif os.path.lexists(path):
            _refuse(f"{str(path)!r} exists: say --force to replace it, or choose another name")
        elif wanted.sidecar and os.path.lexists(beside):
            _refuse(
                f"{str(beside)!r} exists, where the sidecar would go: say --force or --no-sidecar, or choose "
                "another name"
            )


def _names(path: Path, request: dict[str, Any]) -> list[Path]:
    """Return the files that a plain name stands for, as far as the request tells."""
    members = {**request, **(request.get("extra_body") or {})}
    format = members.get("output_format") or _format_of(path) or "png"
    if format in EXTENSIONS:
        path = with_extension(path, format)
    count = members.get("n")
    if not isinstance(count, int) or count < 2:
        return [path]
    return [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, min(count, 100) + 1)]


def _format_of(path: Path) -> Format | None:
    return next((name for name, endings in EXTENSIONS.items() if path.suffix.lower() in endings), None)


def _refuse(problem: str) -> None:
    raise InvalidRequestError({"save_to": problem})
