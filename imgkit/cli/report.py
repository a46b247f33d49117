"""The report of a call: paths or a JSON object on standard output, messages on standard error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from imgkit.cli import console
from imgkit.cli.exit_codes import STOPPED
from imgkit.cli.messages import to_options
from imgkit.errors import ImgkitError
from imgkit.models import Cost, Estimate, ImagesResponse
from imgkit.wire.json_values import to_finite

SCHEMA_VERSION = 1

OFFLINE_NOTICE = (
    "imgkit: Painted offline, not by a model. Nothing was sent, nothing was spent. To use a model, pass "
    "--backend requests{remedy}."
)


def print_messages(response: ImagesResponse, job: str = "") -> None:
    """Print the warnings of a call, and a line with its id, tokens, cost and seconds.

    Args:
        response: the response of the call.
        job: id of its job where there are several, which begins each line.
    """
    start = f"imgkit: {job}: " if job else "imgkit: "
    for warning in response.warnings:
        console.print_message(f"{start}warning: {to_options(warning)}")
    if response.images[0].about.get("offline"):
        console.print_message(OFFLINE_NOTICE.format(remedy=_explain_access(response.meta.provider)))
    elif response.meta.cached:
        console.print_message(f"{start}From the cache. Nothing was sent, nothing was spent.")
    else:
        console.print_message(f"{start}{format_summary(response)}")


def _explain_access(name: str) -> str:
    """Return the words about the model and the key of a provider; the user's own server needs none."""
    if name == "openai":
        return " --model NAME, with the key in OPENAI_API_KEY"
    from imgkit.providers.listing import OWN_HOSTS, find_provider

    provider = find_provider(name).load()
    if provider.base_url.startswith(OWN_HOSTS):
        return f"; your server is at {provider.base_url}, or pass --base-url"
    return f" --model NAME, with the key in {provider.env['api_key']}"


def format_summary(response: ImagesResponse) -> str:
    """Return the request id, the tokens, the cost and the seconds of a call as a short line."""
    meta, usage, cost = response.meta, response.usage, response.cost
    identity = meta.request_id and (
        meta.request_id if meta.request_id.startswith("req") else f"request {meta.request_id}"
    )
    tokens = usage and usage.total_tokens
    parts = (
        identity,
        None if tokens is None else f"{tokens} tokens",
        "price unknown" if cost.amount is None else f"{cost.amount:.4f} {cost.currency}",
        f"{meta.elapsed_s:.1f} s",
    )
    return ", ".join(filter(None, parts))


def print_response(response: ImagesResponse, *, as_json: bool = False) -> None:
    """Print the paths of the images.

    Args:
        response: a response whose saved images have paths.
        as_json: print an object instead of a path per line.

    Raises:
        OutputError: standard output cannot be written to; the paths are then on standard error.
    """
    paths = [str(image.path) for image in response.images if image.path is not None]
    try:
        if as_json:
            console.write_bytes(encode_json(build_report(response, [])))
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
    members = to_finite({"schema_version": SCHEMA_VERSION, **facts})
    text = json.dumps(members, ensure_ascii=True, allow_nan=False, default=str)
    return f"{text}\n".encode("ascii")


def build_error(error: BaseException, message: str, exit_code: int) -> dict[str, Any]:
    """Return the facts about an error as JSON has them.

    Args:
        error: the error.
        message: the message of the command, a line per problem.
        exit_code: the exit code of the command.
    """
    facts: dict[str, Any] = {
        "class": "Stopped" if exit_code == STOPPED else type(error).__name__,
        "message": message,
        "hint": None,
        "field": None,
        "exit_code": exit_code,
        "maybe_billed": getattr(error, "maybe_billed", False),
        "request_id": getattr(error, "request_id", None),
        "spool_path": getattr(error, "spool_path", None),
        "status": getattr(error, "status", None) or None,
        "code": getattr(error, "code", None),
    }
    if isinstance(error, ImgkitError):
        from imgkit.cli import messages

        facts |= messages.describe_error(error)
    return facts


def _build_amounts(money: Cost | Estimate) -> dict[str, str | None]:
    """Return the fields of an amount as text, since JSON has no decimal numbers."""
    amounts = {name: getattr(money, name) for name in type(money).__dataclass_fields__}
    return {name: value if value is None else str(value) for name, value in amounts.items()}


def build_report(response: ImagesResponse, salvaged: list[Path]) -> dict[str, Any]:
    """Return the facts about a response as JSON has them.

    Args:
        response: a response whose saved images have paths.
        salvaged: the files with data that could not be saved in its place.
    """
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
