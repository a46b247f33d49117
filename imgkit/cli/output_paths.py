"""The files that a command would write, checked before anything is sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from imgkit.errors import InvalidRequestError
from imgkit.images.names import list_plain_names
from imgkit.images.saving import SavePlan
from imgkit.images.sidecars import can_replace, sidecar_path


def build_save_plan(output: str | None, *, force: bool, sidecar: bool) -> SavePlan:
    """Return the save plan of ``--output``; without it, a name made from the prompt in this folder.

    Raises:
        InvalidRequestError: the path is "-", or not a valid path.
    """
    if output == "-":
        raise InvalidRequestError(
            {"save_to": "Images cannot be written to standard output. Give a file name."}
        )
    return SavePlan.from_target(output or "", overwrite=force, sidecar=sidecar)


def check_free(output: str | None, plan: SavePlan, request: dict[str, Any]) -> None:
    """Reject a named file that exists, before anything is sent.

    Only a plain file name is checked; folders and patterns produce names that are free.

    Raises:
        InvalidRequestError: with the option that would help, or the advice to choose another name.
    """
    if not output or plan.make_folder:
        return
    members = {**request, **(request.get("extra_body") or {})}
    for path in list_plain_names(Path(output), members.get("output_format"), members.get("n")):
        sidecar = sidecar_path(path)
        if plan.overwrite:
            if path.is_dir():
                _reject(f"{str(path)!r} is a folder. End it with a slash to write into it.")
            if plan.sidecar and not can_replace(sidecar):
                _reject(
                    f"{str(sidecar)!r} exists and is not a sidecar of imgkit. Choose another name, or pass "
                    "--no-sidecar."
                )
        elif os.path.lexists(path):
            _reject(f"{str(path)!r} exists. Pass --force to replace it, or choose another name.")
        elif plan.sidecar and os.path.lexists(sidecar):
            _reject(
                f"{str(sidecar)!r} exists, and the sidecar would go there. Pass --force or --no-sidecar, or "
                "choose another name."
            )


def _reject(problem: str) -> None:
    raise InvalidRequestError({"save_to": problem})
