"""The choice of an engine, and what its workers get to know of the run."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from inspect import signature

from imgkit.bulk.bulk_values import BulkOptions, Work
from imgkit.bulk.dispatch import Dispatcher, Start
from imgkit.bulk.manifest import Manifest
from imgkit.bulk.row_calls import RunFiles
from imgkit.bulk.tasks import describe_service, get_version
from imgkit.core.core import Core
from imgkit.errors import ConfigurationError, ImgkitError, UnknownPluginError
from imgkit.plugins.engines import Engine, TaskPayload
from imgkit.plugins.hookspecs import EngineSpec
from imgkit.plugins.registry import find_spec
from imgkit.plugins.table import describe_error
from imgkit.redact import format_suggestion
from imgkit.wire.plain_values import show_value

DRAIN_S = 30.0
"""Seconds that a worker which is gone has for the request that it was sending."""


def open_dispatcher(
    core: Core,
    files: RunFiles,
    given: Mapping[str, object],
    options: BulkOptions,
    start_here: Start,
    is_stopped: Callable[[], bool],
    find_core: Callable[[Work], Core],
) -> Dispatcher:
    """Return the dispatcher of a run, with its engine open. May block.

    Args:
        core: parts of the service.
        files: the files of the run.
        given: arguments of the service that its caller gave.
        options: the options of the run.
        start_here: starts a flow in this process.
        is_stopped: tells whether the run sends nothing more.
        find_core: returns the core that carries out a row in this process.

    Raises:
        ConfigurationError: there is no such engine, it cannot be used, or the service cannot travel to its
            workers; nothing was sent.
    """
    engine = find_engine(core, options.get("engine", "local"), options.get("engine_options", {}))
    template: TaskPayload = {
        "name": "run",
        "version": get_version(),
        "number": 0,
        "epoch": 0,
        "row_id": "",
        "request": {},
        "missing": None,
        "settings": {},
        "key_file": options.get("key_file"),
        "folder": str(files.output.folder.absolute()),
        "timeout_s": options.get("timeout_s"),
    }
    if engine.is_remote and files.output.url is not None:
        raise ConfigurationError(
            f"The workers of another engine cannot upload to {files.output.url}. Leave out the engine, or "
            "name a folder that all workers share."
        )
    if engine.is_remote:
        template["settings"] = describe_service(core, given)
        template["name"], template["epoch"] = _begin_epoch(files.manifest)
    drain_s = options.get("drain_s", DRAIN_S)
    dispatcher = Dispatcher(core, files, engine, start_here, is_stopped, template, drain_s, find_core)
    try:
        dispatcher.open()
    except ImgkitError:
        raise
    except Exception as error:  # an engine has errors of its own
        raise ConfigurationError(
            f"The engine cannot be opened ({describe_error(error)[:500]}). Nothing was sent. Is its system "
            "running?"
        ) from error
    return dispatcher


def find_engine(core: Core, engine: str | Engine, options: Mapping[str, object]) -> Engine:
    """Return an engine by its name, or as it is.

    Raises:
        ConfigurationError: there is no such engine, or it does not take these options.
    """
    if not isinstance(engine, str) and not hasattr(engine, "submit"):
        raise ConfigurationError(
            f"engine must be a name such as 'local', or an engine, not {show_value(engine)}.", field="engine"
        )
    if not isinstance(engine, str):
        if options:
            raise ConfigurationError("engine_options belong to an engine that is given by its name.")
        return engine
    hint = "Install a plugin that provides it, or pass an instance."
    found = find_spec(core.table, EngineSpec, engine, UnknownPluginError, hint)
    known = signature(found.load()).parameters
    for name in options:
        if name not in known:
            raise ConfigurationError(
                f"Engine {engine!r} has no option {name!r}{format_suggestion(name, known)}."
            )
    made: Engine = found.make(**options)
    return made


def _begin_epoch(manifest: Manifest) -> tuple[str, int]:
    """Return the name of a run, and the number of this process among those that carried it out.

    Claims of tasks of earlier processes are refused.
    """
    name, epoch = manifest.read_fact("name"), manifest.read_fact("epoch")
    run_name = name if isinstance(name, str) else secrets.token_hex(6)
    number = 1 + (epoch if isinstance(epoch, int) else 0)
    manifest.write_fact("name", run_name)
    manifest.write_fact("epoch", number)
    return run_name, number
