"""Cassettes between a service and its backend: they record and replay every backend, and patch nothing."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

import vcr

from imgkit.core.interception import intercept_services
from imgkit.errors import ConfigurationError
from imgkit.providers.openai import OpenAIProvider
from imgkit.redact import format_suggestion
from imgkit.testing.host_guard import refuse_hosts
from imgkit.testing.tape import Tape
from imgkit.testing.tape_persister import TapePersister
from imgkit.testing.vcr_cassettes import MATCH_ON, Persister, add_miss_note, vcr_config

P = ParamSpec("P")
T = TypeVar("T")

SETTINGS = frozenset(
    {
        "additional_matchers",
        "after_load_interaction",
        "allow_playback_repeats",
        "before_record",
        "before_record_request",
        "before_record_response",
        "before_save_interaction",
        "cassette_library_dir",
        "decode_compressed_response",
        "drop_unused_requests",
        "filter_headers",
        "filter_nested_post_data_parameters",
        "filter_post_data_parameters",
        "filter_query_parameters",
        "filter_sensitive_data",
        "ignore_hosts",
        "ignore_localhost",
        "match_on",
        "path_transformer",
        "persister",
        "record_mode",
        "record_on_exception",
        "serializer",
    }
)
"""Settings of vcrpy that a cassette of imgkit takes. The others are about patches and decorators."""

_FILTERS = frozenset({"before_record", "before_record_request", "ignore_hosts", "ignore_localhost"})
"""Settings by which a request may pass a cassette; it is sent in every mode, as with vcrpy."""


class CassetteWarning(UserWarning):
    """A cassette that should have been recorded saw no request of an imgkit service."""


def cassette(path: str | os.PathLike[str], **more: Any) -> CassetteContext:
    """Record or replay the traffic of every service of this process, whatever its backend.

    ::

        with cassette("tests/cassettes/fox.yaml"):
            images.create_image("a fox")

    A recorded request is answered from the cassette: no backend is built for it, and it needs no key.
    Services that exist already take part. For an unrecorded request in a mode that does not record, vcrpy's
    error gets a note with the nearest recorded request; nothing is sent.

    Requests of other code are neither recorded nor answered. On replay, other code in Python that looks up
    the host of the API gets a `ConfigurationError`, unless a cassette of vcrpy is open.

    The result is a context manager, and a decorator of functions and of coroutine functions.

    Args:
        path: Path of the cassette.
        more: Further vcrpy settings, such as ``record_mode="none"``; see `SETTINGS`.

    Raises:
        ConfigurationError: A setting is wrong, or the cassette is damaged. At the end of the context: the
            recording may hold a key; the error names the refused copy.
        SaveError: At the end of the context: the cassette cannot be written; the error names the copy.

    Warns:
        CassetteWarning: The context ends, there is no cassette, and no service has made a request.
    """
    return CassetteContext(path, more)


class CassetteContext(AbstractContextManager[Tape]):
    """The result of `cassette`: enter it, or decorate a function with it.

    Args:
        path, settings: As for `cassette`.
    """

    def __init__(self, path: str | os.PathLike[str], settings: dict[str, Any]) -> None:
        self._path = path
        self._settings = settings
        self._stack = ExitStack()
        self._tape: Tape | None = None

    def __enter__(self) -> Tape:
        if self._tape is not None:
            raise ConfigurationError(
                f"The cassette {self._path} is open already. Open another one inside it."
            )
        tape = load_tape(self._path, self._settings)
        official = urlsplit(OpenAIProvider.base_url).hostname or ""
        self._stack.enter_context(intercept_services(tape))
        if tape.write_protected:
            self._stack.enter_context(refuse_hosts(tape.list_paid_hosts() | {official}))
        self._tape = tape
        return tape

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        tape, self._tape = self._tape, None
        if tape is None:
            return
        problem = tape.save() if error is None or tape.record_on_exception else None
        if error is not None:
            add_miss_note(error, "Record it with record_mode='new_episodes' or correct the request.")
            if problem is not None:
                error.add_note(str(problem))
        elif problem is not None:
            raise problem
        elif not tape.was_asked and not tape.write_protected and not len(tape):
            warnings.warn(
                f"No imgkit service made a request, so there is no cassette {tape.path}. Requests of other "
                "code are sent and not recorded: use vcrpy for them.",
                CassetteWarning,
                stacklevel=2,
            )

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return a function that runs with the cassette, which each call opens anew.

        Raises:
            ConfigurationError: It is a class, or a generator, which would run outside of the cassette.
        """
        for is_unfit in (inspect.isclass, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
            if is_unfit(function):
                kind = "a class" if inspect.isclass(function) else "a generator"
                raise ConfigurationError(
                    f"cassette: {function.__name__} is {kind}. Open the cassette inside it, with `with`."
                )
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def run_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
                with CassetteContext(self._path, self._settings):
                    return await function(*args, **kwargs)

            return run_coroutine  # type: ignore[return-value]  # T is the coroutine

        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            with CassetteContext(self._path, self._settings):
                return function(*args, **kwargs)

        return run


def load_tape(path: str | os.PathLike[str], settings: dict[str, Any]) -> Tape:
    """Return the tape of a cassette, with all that the file holds.

    Raises:
        ConfigurationError: A setting is wrong, or the file is damaged.
    """
    if not isinstance(path, str | os.PathLike) or "\0" in str(path) or not str(path):
        raise ConfigurationError(f"cassette: the path must be text or a path, not {path!r}.")
    for name in settings:
        if name not in SETTINGS:
            raise ConfigurationError(
                f"cassette: {name} is no setting of a cassette{format_suggestion(name, SETTINGS)}."
            )
    merged = {**vcr_config(), **settings}
    if merged["persister"] is Persister:
        merged["persister"] = TapePersister()
    try:
        config = vcr.default_vcr.get_merged_config(path=str(Path(path)), **merged)
    except (KeyError, TypeError, ValueError) as error:
        problem = error.args[0] if error.args else error
        raise ConfigurationError(f"cassette: {problem}") from None
    transform = config.pop("path_transformer", None)
    if transform is not None:
        config["path"] = transform(config["path"])
    config.pop("func_path_generator", None)
    record_on_exception = config.pop("record_on_exception", True)
    tape: Tape = Tape.load(**config)
    tape.record_on_exception = record_on_exception
    tape.may_ignore_host = settings.get("match_on", MATCH_ON) == MATCH_ON
    tape.may_ignore_requests = not _FILTERS.isdisjoint(settings)
    return tape
