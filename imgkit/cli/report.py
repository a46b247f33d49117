"""The report of a call: paths or a JSON object on standard output, messages on standard error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from imgkit.cli import console
from imgkit.models import Cost, Estimate, ImagesResponse

SCHEMA_VERSION = 1

OFFLINE_NOTICE = (
    "imgkit: Painted offline, not by a model. Nothing was sent, nothing was spent. To use a model, pass "
    "--backend requests --model NAME, with the key in OPENAI_API_KEY."
)


def print_response(response: ImagesResponse, *, as_json: bool, salvaged: list[Path]) -> None:
    """Print the paths of the images, and the warnings and the cost of the call.

    Args:
        response: a response whose saved images have paths.
        as_json: print an object instead of a path per line.
        salvaged: the files with data that could not be saved in its place.

    Raises:
        OutputError: standard output cannot be written to; the paths are then on standard error.
    """
    for warning in response.warnings:
        console.print_message(f"imgkit: warning: {warning}")
    if response.images[0].about.get("offline"):
        console.print_message(OFFLINE_NOTICE)
    elif response.cost.amount:
        console.print_message(f"imgkit: cost: {response.cost}")
    if response.meta.cached:
        console.print_message("imgkit: From the cache. Nothing was sent, nothing was spent.")
    paths = [str(image.path) for image in response.images if image.path is not None]
    try:
        if as_json:
            console.write_bytes(encode_json(_build_report(response, salvaged)))
        else:
            console.write_paths(paths)
    except console.OutputError:
        for path in paths:
            console.print_message(f"imgkit: saved: {path}")
        raise


def print_dry_run(request: str, estimate: Estimate, *, as_json: bool) -> None:
    """Print a request that was not sent, and its estimated cost."""
    if as_json:
        facts = {"dry_run": True, "request": request, "estimate": _build_amounts(estimate)}
        console.write_bytes(encode_json(facts))
    else:
        console.write_text(request)
        console.print_message(f"imgkit: estimated cost: {estimate}")


def encode_json(facts: dict[str, Any]) -> bytes:
    """Return an object as a line of JSON with its schema version; ASCII survives any locale."""
    text = json.dumps({"schema_version": SCHEMA_VERSION, **facts}, ensure_ascii=True, default=str)
    return f"{text}\n".encode("ascii")


def _build_amounts(money: Cost | Estimate) -> dict[str, str | None]:
    """Return the fields of an amount as text, since JSON has no decimal numbers."""
    amounts = {name: getattr(money, name) for name in type(money).__dataclass_fields__}
    return {name: value if value is None else str(value) for name, value in amounts.items()}


def _build_report(response: ImagesResponse, salvaged: list[Path]) -> dict[str, Any]:
    meta = response.meta
    return {
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
            for image in response.images
            if image.path is not None
        ],
        "unsaved": [str(path) for path in salvaged],
        "backend": meta.backend,
        "provider": meta.provider,
        "model": meta.model,
        "offline": bool(response.images[0].about.get("offline")),
        "cached": meta.cached,
        "request_id": meta.request_id,
        "usage": _build_usage(response),
        "cost": _build_amounts(response.cost),
        "emulated": meta.emulated,
        "missing": [str(error) for error in response.errors],
        "warnings": list(response.warnings),
        "created": response.created,
        "elapsed_s": round(meta.elapsed_s, 3),
    }


def _build_usage(response: ImagesResponse) -> dict[str, Any] | None:
    if response.usage is None:
        return None
    counts = {name: getattr(response.usage, name) for name in response.usage.__dataclass_fields__}
    extra = counts.pop("extra")
    return {name: count for name, count in counts.items() if count is not None} | dict(extra)
