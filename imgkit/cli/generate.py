"""The commands `create`, `edit` and `variation`: a call of the service, and the report of its result."""

from __future__ import annotations

import inspect
from typing import Any

import click

from imgkit.cli import console, exit_codes, options, output_paths, report, salvage, values
from imgkit.cli.messages import option_names
from imgkit.cli.progress import CallWatcher
from imgkit.core.lifecycle import ask_for_format
from imgkit.errors import ImgkitError, SaveError
from imgkit.images.saving import SavePlan
from imgkit.models import ImageRequest, ImagesResponse, count_requested_images, field_names
from imgkit.service import ImageService


def run_operation(
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
    price_per_image: str | None,
    allow_unknown_price: bool,
    state: values.RunState,
    **given: Any,
) -> int:
    """Run an operation and print the paths of its images.

    Args:
        operation: "create_image", "create_image_edit" or "create_image_variation".
        images, prompt: the positional arguments.
        output, force, no_sidecar, as_json, dry_run, api_key_file, max_cost_usd, price_per_image,
            allow_unknown_price: the options of these names.
        state: receives the key, which must not appear in a traceback, and the report of a failed call.
        given: the other options: arguments of the service and of the operation, and offline options.

    Returns:
        The exit code.

    Raises:
        ImgkitError: the error of the library; its notes name the files with paid data.
        Stopped: the user pressed Ctrl-C.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = {name: chosen.pop(name) for name in options.service_arguments() if name in chosen}
    settings["state_folder"] = values.find_state_folder(settings.get("state_folder"))
    settings["client_options"] = values.take_offline_options(chosen, settings.get("backend"))
    method = _choose_method(operation, chosen)
    arguments = _name_positional(images, prompt) | chosen
    plan = output_paths.build_save_plan(output, force=force, sidecar=not no_sidecar)
    output_paths.check_free(output, plan, arguments)
    if chosen.get("model") is not None and "backend" not in settings:
        settings["model"] = chosen["model"]  # refused without a backend, which would paint instead
    if api_key_file is not None:
        settings["api_key"] = values.read_key(api_key_file)
        state.secrets.append(settings["api_key"])
    watcher = CallWatcher()
    budget = values.build_budget(max_cost_usd, price_per_image, allow_unknown_price)
    plugins: list[object] = [watcher, *([budget] if budget is not None else [])]
    if chosen.get("cache") is not None:
        plugins.append("cache")
    with ImageService(**settings, plugins=plugins) as service:
        if dry_run:
            request = ask_for_format(service._core, _build_request(operation, arguments), plan)
            if (asked := getattr(request, "output_format", None)) is not None:
                arguments["output_format"] = asked
            text = service.dry_run(method, **arguments)
            estimate = service.estimate(request, partial_images=arguments.get("partial_images", 0))
            report.print_dry_run(text, estimate, as_json=as_json)
            return exit_codes.OK
        try:
            call = getattr(service, method)
            if method == operation:
                with watcher.show_progress():
                    response: ImagesResponse = call(**arguments, save_to=plan)
            else:
                from imgkit.cli.streaming import read_stream

                response = read_stream(call(**arguments, save_to=plan), plan, watcher)
        except KeyboardInterrupt:
            text = _describe_billing(watcher)
            raise exit_codes.Stopped(text, maybe_billed=watcher.sent) from None
        except ImgkitError as error:
            _salvage(error, plan, state)
            raise
    if response.meta.emulated and chosen.get("strategy") == "emulate":
        console.print_message("imgkit: Made by an edit, as --strategy emulate asks.")
    report.print_messages(response)
    report.print_response(response, as_json=as_json)
    requested = count_requested_images(_build_request(operation, arguments))
    is_short = bool(response.errors) or len(response.images) < requested
    return exit_codes.PARTIAL if is_short else exit_codes.OK


def _build_request(operation: str, arguments: dict[str, Any]) -> ImageRequest:
    kind = next(kind for kind in options.REQUESTS if kind.operation == operation)
    return kind(**{name: value for name, value in arguments.items() if name in field_names(kind)})


def _choose_method(operation: str, chosen: dict[str, Any]) -> str:
    """Return the method of the service to call; change the options of a stream into its arguments."""
    if not chosen.pop("stream", False) and "partial_images" not in chosen:
        return operation
    from imgkit.cli.streaming import DEFAULT_PARTIAL_IMAGES

    chosen.setdefault("partial_images", DEFAULT_PARTIAL_IMAGES)
    method = operation.replace("create", "stream", 1)
    known = inspect.signature(getattr(ImageService, method)).parameters
    unknown = [_format_option(name) for name in chosen if name not in known]
    if unknown:
        raise _usage_error(f"{' and '.join(unknown)}: not with --stream.")
    return method


def _format_option(name: str) -> str:
    return option_names().get(name, "--" + name.replace("_", "-"))


def _name_positional(images: list[str], prompt: str | None) -> dict[str, Any]:
    # A list would make messages count a single image.
    image: dict[str, Any] = {"image": images[0] if len(images) == 1 else images} if images else {}
    return image if prompt is None else {**image, "prompt": prompt}


def _salvage(error: ImgkitError, plan: SavePlan, state: values.RunState) -> None:
    """Save paid data that the error holds, and print the images that were saved in spite of it."""
    salvaged = salvage.save_paid_data(error, plan.folder)
    if salvaged:
        state.report["unsaved"] = [str(path) for path in salvaged]
    if isinstance(error, SaveError) and isinstance(error.response, ImagesResponse):
        report.print_messages(error.response)
        if state.as_json:
            state.report = report.build_report(error.response, salvaged)
            return
        try:
            report.print_response(error.response)
        except console.OutputError as second:
            error.add_note(str(second))  # the first error matters more


def _describe_billing(watcher: CallWatcher) -> str:
    """Return the message of a stopped call: whether it may be billed."""
    if watcher.maybe_billed:
        text = "Stopped. The request was sent, so an image may have been made and billed."
        if watcher.reply_started:
            return f"{text} The received part of the reply is kept: run `imgkit recover`."
        return text
    if watcher.sent:
        return "Stopped after the reply. The call may have been billed, and some images may not be saved."
    return "Stopped. Nothing was billed."


def _usage_error(message: str) -> click.UsageError:
    return click.UsageError(message, click.get_current_context(silent=True))
