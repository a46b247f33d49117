"""What `create`, `edit` and `variation` do: one call of the library, with care for what is around it."""

from __future__ import annotations

import inspect
import os
from typing import Any

import click

from imgkit.cli import console as streams
from imgkit.cli import exit_codes as exits
from imgkit.cli import options, report, state, values
from imgkit.cli import output_paths as targets
from imgkit.cli import salvage as rescue
from imgkit.cli.progress import Watcher
from imgkit.core.core import DEFAULT_BACKEND
from imgkit.errors import ImgkitError, SaveError
from imgkit.images.saving import SavePlan
from imgkit.models import ImageRequest, ImagesResponse, field_names
from imgkit.service import ImageService

_KNOBS = ("simulate", "seed", "latency_s")


def draw(
    operation: str,
    *,
    images: list[str],
    prompt: str | None,
    output: str | None,
    force: bool,
    no_sidecar: bool,
    as_json: bool,
    dry_run: bool,
    api_key_file: str | None,
    max_cost_usd: str | None,
    allow_unknown_price: bool,
    secrets: list[str],
    **given: Any,
) -> int:
    """Run one operation and tell where its pictures are.

    Args:
        operation: "create_image", "create_image_edit" or "create_image_variation".
        images, prompt: what the command line gives by position.
        output, force, no_sidecar, as_json, dry_run, api_key_file, max_cost_usd, allow_unknown_price: the
            options of these names.
        secrets: gets what must not appear in a traceback.
        given: the remaining options: arguments of the service, of the operation, and offline knobs.

    Returns:
        The exit code.

    Raises:
        ImgkitError: as the library has it; notes say where paid bytes were kept.
        Stopped: Ctrl-C.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = {name: chosen.pop(name) for name in options.service_names() if name in chosen}
    settings["state_folder"] = state.folder(settings.get("state_folder"))
    settings["client_options"] = _knobs(chosen, settings.get("backend"))
    method = _method(operation, chosen)
    request = _positional(operation, images, prompt) | chosen
    plan = targets.plan(output, force=force, sidecar=not no_sidecar)
    targets.check_free(output, plan, request)
    if api_key_file is not None:
        settings["api_key"] = values.read_key(api_key_file)
        secrets.append(settings["api_key"])
    watcher = Watcher()
    plugins = [watcher, *_budget(max_cost_usd, allow_unknown_price)]
    if chosen.get("cache") is not None:
        plugins.append("cache")
    with ImageService(**settings, plugins=plugins) as service:
        if dry_run:
            text = service.dry_run(method, **request)
            cost = service.estimate(
                _request(operation, request), partial_images=request.get("partial_images", 0)
            )
            report.show_request(text, cost, as_json=as_json)
            return 0
        try:
            call = getattr(service, method)
            if method == operation:
                with watcher.line():
                    reply: ImagesResponse = call(**request, save_to=plan)
            else:
                from imgkit.cli.streaming import watch

                reply = watch(call(**request, save_to=plan), plan, watcher)
        except KeyboardInterrupt:
            raise exits.Stopped(_about_money(watcher)) from None
        except ImgkitError as error:
            _make_the_best_of(error, plan, as_json=as_json)
            raise
    report.show(reply, as_json=as_json, kept=[])
    return exits.PARTLY if reply.errors else exits.OK


def _budget(max_cost_usd: str | None, allow_unknown_price: bool) -> list[object]:
    """Return what keeps the command below its limit."""
    if max_cost_usd is None:
        if allow_unknown_price:
            raise click.UsageError("--allow-unknown-price goes with --max-cost", _context())
        return []
    from imgkit.default_plugins.budget import Budget

    return [Budget(max_cost_usd, allow_unknown=allow_unknown_price)]


def _context() -> click.Context | None:
    return click.get_current_context(silent=True)


def _request(operation: str, given: dict[str, Any]) -> ImageRequest:
    kind = next(one for one in options.REQUESTS if one.operation == operation)
    return kind(**{name: value for name, value in given.items() if name in field_names(kind)})


def _method(operation: str, chosen: dict[str, Any]) -> str:
    """Return the method of the service that is meant; options of streams are made its arguments."""
    if not chosen.pop("stream", False) and "partial_images" not in chosen:
        return operation
    from imgkit.cli.streaming import DEFAULT_PARTIAL_IMAGES

    chosen.setdefault("partial_images", DEFAULT_PARTIAL_IMAGES)
    method = operation.replace("create", "stream", 1)
    known = inspect.signature(getattr(ImageService, method)).parameters
    wrong = [_written(name) for name in chosen if name not in known]
    if wrong:
        context = click.get_current_context(silent=True)
        raise click.UsageError(f"{' and '.join(wrong)}: not with --stream", context)
    return method


def _written(name: str) -> str:
    return options.names().get(name, "--" + name.replace("_", "-"))


def _knobs(chosen: dict[str, Any], backend: str | None) -> dict[str, Any]:
    knobs = {name: chosen.pop(name) for name in _KNOBS if name in chosen}
    if knobs and (backend or os.environ.get("IMGKIT_BACKEND") or DEFAULT_BACKEND) != DEFAULT_BACKEND:
        names = " and ".join(options.names()[name] for name in knobs)
        raise click.UsageError(f"{names}: for the offline backend only", _context())
    return knobs


def _positional(operation: str, images: list[str], prompt: str | None) -> dict[str, Any]:
    # A single picture is given as itself, so that messages need not count.
    named: dict[str, Any] = {"image": images[0] if len(images) == 1 else images} if images else {}
    return named if prompt is None else {**named, "prompt": prompt}


def _make_the_best_of(error: ImgkitError, plan: SavePlan, *, as_json: bool) -> None:
    """Keep what was paid for, and tell which pictures are where they belong in spite of `error`."""
    kept = rescue.keep(error, plan.folder)
    if isinstance(error, SaveError) and isinstance(error.response, ImagesResponse):
        try:
            report.show(error.response, as_json=as_json, kept=kept)
        except streams.OutputError as second:
            error.add_note(str(second))  # what was saved and kept matters more


def _about_money(watcher: Watcher) -> str:
    if watcher.maybe_billed:
        said = "stopped. The request had been sent, so a picture may have been made and billed"
        return f"{said}; what had arrived is kept: `imgkit recover`" if watcher.arrived else said
    if watcher.sent:
        return "stopped after the reply had come: it may have been billed, and not all of it may be saved"
    return "stopped. Nothing was billed"
