"""The arguments of a service as plain values, converted once, before anything else reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from imgkit.errors import ConfigurationError
from imgkit.redact import PrivateDict, wrap_key
from imgkit.wire.plain_values import (
    describe_failure,
    has_type,
    show_value,
    to_flag,
    to_path,
    to_text,
    type_name,
)

_SECRETS = ("api_key", "base_url", "proxy")
_NAMES = ("backend", "provider", "organization", "project", "on_unsupported")
_FLAGS = ("use_env_proxy", "reuse_connections", "allow_insecure")
_OTHER_FLAGS = ("strict", "retry")
_PATHS = ("state_folder", "fixtures", "models", "ca")
_LISTS = ("plugins", "download_origins")
_MAPPINGS = ("client_options", "models")


def wrap_secrets(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a service with a wrapper around those that may hold a secret. Never raises."""
    given = dict(arguments)
    for name in _SECRETS:
        given[name] = wrap_key(given[name])
    if type(given["client_options"]) is dict:
        given["client_options"] = PrivateDict(given["client_options"])
    return given


def to_plain_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a service with plain values in place of enums, NumPy numbers and subclasses.

    Values of a wrong type stay, for the checks that name a remedy.

    Args:
        arguments: by name, as `wrap_secrets` returns them.

    Raises:
        ConfigurationError: an object cannot be read, or is neither a path nor another accepted value.
    """
    given = dict(arguments)
    for name, value in given.items():
        _read(name, value, lambda value: value.__class__)  # `isinstance` reads it, too
    for name in _NAMES:
        text = to_text(given[name])
        given[name] = given[name] if text is None else text
    for name in (*_FLAGS, *_OTHER_FLAGS):
        flag = to_flag(given[name])
        if flag is None and name in _FLAGS and given[name] is not None:
            problem = f"{name} must be True or False, not {show_value(given[name])}."
            raise ConfigurationError(problem, field=name)
        given[name] = given[name] if flag is None else flag
    for name in _PATHS:
        if has_type(given[name], str) or hasattr(type(given[name]), "__fspath__"):
            given[name] = _read(name, given[name], to_path)
    for name in _LISTS:
        if issubclass(type(given[name]), Iterable) and not issubclass(type(given[name]), str | bytes):
            items = _read(name, given[name], list)
            given[name] = [item if (text := to_text(item)) is None else text for item in items]
    for name in _MAPPINGS:
        if issubclass(type(given[name]), Mapping):
            given[name] = _read(name, given[name], _to_dict)
    if has_type(given["client_options"], dict):
        given["client_options"] = PrivateDict(given["client_options"])
    given["model"] = check_model_name("model", given["model"])
    return given


def check_model_name(source: str, value: object) -> str | None:
    """Return the name of a model as an exact `str`, None for none.

    Raises:
        ConfigurationError: it is no text that can be sent.
    """
    if value is None:
        return None
    name = to_text(value)
    if name is None:
        raise ConfigurationError(f"{source} must be text, not {show_value(value)}.", field=source)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        name = "\0"
    if "\0" in name:
        raise ConfigurationError(
            f"{source} has a NUL character or a lone surrogate. Pass the model's name as the API lists it.",
            field=source,
        )
    return name or None


def _to_dict(given: Mapping[Any, Any]) -> dict[Any, Any]:
    members = dict(given.items())
    names = {key: to_text(key) for key in members}
    if None in names.values():
        raise ValueError("a key is no text")
    return {names[key]: value for key, value in members.items()}


def _read(name: str, value: Any, convert: Any) -> Any:
    """Return a converted argument. Its object is the caller's, and may raise anything."""
    try:
        return convert(value)
    except Exception as error:
        reason = error if type(error) is ValueError else describe_failure(error)
        raise ConfigurationError(
            f"{name} cannot be read from the {type_name(value)}: {reason}. Pass a plain value.", field=name
        ) from None
