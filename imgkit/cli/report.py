"""What is said about a reply: paths or one JSON object on standard output, the rest beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from imgkit.cli import console as streams
from imgkit.models import Cost, Estimate, ImagesResponse

SCHEMA_VERSION = 1

OFFLINE = (
    "imgkit: painted offline, not by a model; nothing was sent, nothing was spent. For a real one: "
    "--backend requests --model NAME, with the key in OPENAI_API_KEY"
)


def show(reply: ImagesResponse, *, as_json: bool, kept: list[Path]) -> None:
    """Tell where the pictures are.

    Args:
        reply: with the paths of the pictures that were saved.
        as_json: one object instead of a path per line.
        kept: files that hold what could not be saved.

    Raises:
        OutputError: standard output could not be written to; the paths are then on standard error.
    """
    for warning in reply.warnings:
        streams.tell(f"imgkit: warning: {warning}")
    if reply.images[0].about.get("offline"):
        streams.tell(OFFLINE)
    elif reply.cost.amount:
        streams.tell(f"imgkit: cost: {reply.cost}")
    if reply.meta.cached:
        streams.tell("imgkit: from the cache; nothing was sent, nothing was spent")
    paths = [str(image.path) for image in reply.images if image.path is not None]
    try:
        if as_json:
            streams.send(_line(_object(reply, kept)))
        else:
            streams.send_paths(paths)
    except streams.OutputError:
        for path in paths:
            streams.tell(f"imgkit: saved: {path}")
        raise


def show_request(text: str, estimate: Estimate, *, as_json: bool) -> None:
    """Print what would be sent, and what it may cost."""
    if as_json:
        told = {"schema_version": SCHEMA_VERSION, "dry_run": True, "request": text}
        streams.send(_line({**told, "estimate": _amounts(estimate)}))
    else:
        streams.send_text(text)
        streams.tell(f"imgkit: estimated cost: {estimate}")


def _amounts(money: Cost | Estimate) -> dict[str, Any]:
    """Return amounts as JSON has them: as text, since they are decimal."""
    told = {name: getattr(money, name) for name in type(money).__dataclass_fields__}
    return {name: value if value is None else str(value) for name, value in told.items()}


def _object(reply: ImagesResponse, kept: list[Path]) -> dict[str, Any]:
    meta = reply.meta
    return {
        "schema_version": SCHEMA_VERSION,
        "operation": meta.operation,
        "images": [
            {
                "path": str(image.path.absolute()),
                "sha256": image.sha256,
                "format": image.format,
                "width": image.width,
                "height": image.height,
                "revised_prompt": image.revised_prompt,
            }
            for image in reply.images
            if image.path is not None
        ],
        "unsaved": [str(path) for path in kept],
        "backend": meta.backend,
        "provider": meta.provider,
        "model": meta.model,
        "offline": bool(reply.images[0].about.get("offline")),
        "cached": meta.cached,
        "request_id": meta.request_id,
        "usage": _usage(reply),
        "cost": _amounts(reply.cost),
        "emulated": meta.emulated,
        "missing": [str(error) for error in reply.errors],
        "warnings": list(reply.warnings),
        "created": reply.created,
        "elapsed_s": round(meta.elapsed_s, 3),
    }


def _usage(reply: ImagesResponse) -> dict[str, Any] | None:
    if reply.usage is None:
        return None
    counts = {name: getattr(reply.usage, name) for name in reply.usage.__dataclass_fields__}
    extra = counts.pop("extra")
    return {name: count for name, count in counts.items() if count is not None} | dict(extra)


def _line(value: dict[str, Any]) -> bytes:
    # ASCII, so that any locale, and any path, comes through.
    return (json.dumps(value, ensure_ascii=True, default=str) + "\n").encode("ascii")
