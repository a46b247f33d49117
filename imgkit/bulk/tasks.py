"""What travels between a run and the workers of an engine: tasks, claims and reports. No key is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import copy
from urllib.parse import urlsplit

from imgkit._version import __version__
from imgkit.bulk.manifest import BulkRow
from imgkit.bulk.row_progress import RowProgress
from imgkit.core.context import SentPart
from imgkit.core.core import Core
from imgkit.default_plugins.budget import Budget
from imgkit.errors import ConfigurationError, ImgkitError, OutcomeUnknownError
from imgkit.plugins.engines import Part, Report, TaskPayload
from imgkit.wire.json_values import JsonObject

MOST_ERROR_CHARACTERS = 2000

_LEFT_OUT = ("backend", "provider", "base_url", "organization", "project", "model", "state_folder")
"""Arguments of a service whose values its core has resolved."""


class WorkerLostError(OutcomeUnknownError):
    """The worker that was sending a request is gone, which says nothing about the API."""


class ClaimRefusedError(ImgkitError):
    """A task may not send its request: another task has it, or had it, or the run has ended."""


def describe_service(core: Core, given: Mapping[str, object]) -> JsonObject:
    """Return the arguments with which a worker builds the service of a run.

    Args:
        core: parts of the service.
        given: arguments that the caller gave; those that may hold a secret are None.

    Raises:
        ConfigurationError: an argument cannot travel; the message names it and a remedy.
    """
    settings: JsonObject = {"backend": core.backend_name, "provider": core.provider_name}
    if core.target.host_class == "offline":
        settings.pop("provider")
    else:
        parts = urlsplit(core.target.base_url)
        if parts.username or parts.password or parts.query:
            raise _cannot_travel("base_url", "It may hold a secret. Set it in the workers' environment.")
        settings["base_url"] = core.target.base_url
        for name in ("organization", "project"):
            if getattr(core.target, name) is not None:
                settings[name] = getattr(core.target, name)
    if core.target.model is not None:
        settings["model"] = core.target.model
    for name in ("backend", "provider"):
        if given.get(name) is not None and not isinstance(given[name], str):
            raise _cannot_travel(name, "Give the name of an installed plugin.")
    for name, value in given.items():
        if name in _LEFT_OUT:
            continue
        if value is None or (name == "client_options" and "base_url" in settings):
            raise _cannot_travel(
                name, "It may hold a secret. Set it in the workers' environment, or give a key_file."
            )
        if name == "plugins":
            names = [each for each in _list(value) if not isinstance(each, Budget)]
            if not all(isinstance(each, str) for each in names):
                raise _cannot_travel(name, "Install a plugin at the workers, and give its name.")
            value = names
        try:
            settings[name] = json.loads(json.dumps(value, allow_nan=False, default=str))
        except (TypeError, ValueError, RecursionError):
            raise _cannot_travel(name, "Give plain values.") from None
    return settings


def strip_error(error: ImgkitError) -> ImgkitError:
    """Return a copy of an error that is small enough to travel: without images, replies, and jobs."""
    small = copy(error)
    small.args = tuple(str(each)[:MOST_ERROR_CHARACTERS] for each in error.args)
    kept = {name: value for name, value in vars(error).items() if _is_small(value)}
    vars(small).clear()
    vars(small).update(kept)
    return small


def encode_report(report: Report) -> bytes:
    """Return a report as JSON. Its error becomes a text."""
    error = report.get("error")
    plain: JsonObject = {name: value for name, value in report.items() if name != "error"}
    if error is not None:
        plain["problem"] = f"{type(error).__name__}: {error}"
        plain["maybe_billed"] = error.maybe_billed
    return json.dumps(plain).encode()


def decode_report(text: bytes) -> Report | None:
    """Return a report that `encode_report` has written, None if it is damaged."""
    try:
        plain = json.loads(text)
        problem = plain.pop("problem", None)
    except (ValueError, AttributeError, RecursionError):
        return None
    if problem is not None:
        kind = OutcomeUnknownError if plain.pop("maybe_billed", True) else ImgkitError
        plain["error"] = kind(problem)
    report: Report = plain
    return report


def fill_payload(template: TaskPayload, name: str, row: BulkRow) -> TaskPayload:
    """Return the payload of a task.

    Args:
        template: what the payloads of all tasks have in common.
        name: name of the task.
        row: its request.
    """
    progress = RowProgress(row)
    return {
        **template,
        "name": name,
        "number": row.number,
        "row_id": row.id,
        "request": row.request,
        "missing": None if progress.is_untouched else progress.missing,
    }


def to_part(sent: SentPart) -> Part:
    """Return a request for some images as the plain tuple that travels."""
    return sent.call_id, sent.attempt, sent.first, sent.images


def get_version() -> str:
    """Return the version of imgkit."""
    return __version__


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_small(value: object) -> bool:
    if isinstance(value, dict):
        return all(_is_small(each) for each in value.values())
    if isinstance(value, str):
        return len(value) <= MOST_ERROR_CHARACTERS
    return value is None or isinstance(value, bool | int | float)


def _cannot_travel(name: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"The workers of an engine cannot get {name}. {remedy}", field=name)
