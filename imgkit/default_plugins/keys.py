"""What a key looks like, and the places that keep one: a file, the system's keyring."""

from __future__ import annotations

import importlib
import os
import re
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

from imgkit.default_plugins.token_cache import PATIENCE_S, TokenCache
from imgkit.errors import ConfigurationError, MissingKeyError
from imgkit.plugins.tokens import Token
from imgkit.redact import Secret, scrub

LARGEST_FILE = 64 * 1024
"""A larger file, in bytes, is something else than a key."""

_SENDABLE = re.compile(r"[\x21-\x7e]+")


class KeyFileWarning(UserWarning):
    """A file with a key can be read by every user of the machine."""


@runtime_checkable
class KeySource(Protocol):
    """A place that keeps a key."""

    def read(self) -> Secret:
        """Return the key as it is now. Asked for each request, in a thread where it may block.

        Raises:
            ConfigurationError: naming the place, and showing nothing of the key.
        """


class FileKey:
    """A key that stands alone in a file, read again when the file changes.

    Blanks and line ends around the key are left out. A file that every user of the machine may read
    is used with a warning, once: containers mount their secrets like this. The warning is only for
    files of one's own, which one can mend.

    Args:
        path: of the file; ``~`` is expanded.
    """

    _path = Path()  # a traceback may show a source that is not complete

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, str | os.PathLike) or not os.fspath(path) or "\0" in os.fspath(path):
            raise ConfigurationError("a key file is named by its path, as text or a pathlib.Path")
        self._path = Path(path).expanduser()
        self._held: tuple[tuple[int, ...], Secret] | None = None
        self._warned = False

    def read(self) -> Secret:
        """Return the key; see `KeySource`."""
        try:
            held, found = self._held, os.stat(self._path)
            if held is not None and held[0] == _version(found):
                return held[1]
            if not stat.S_ISREG(found.st_mode):
                raise ConfigurationError(f"{self} is no ordinary file: it has to be read again and again")
            with open(self._path, "rb") as stream:
                # Of the file that was opened, and before it is read: a later change is then seen.
                found = os.fstat(stream.fileno())
                key = _decoded(stream.read(LARGEST_FILE + 1))
        except FileNotFoundError:
            raise MissingKeyError(f"{self} is not there: write the key to it") from None
        except OSError as error:
            raise ConfigurationError(f"{self} cannot be read ({error.strerror}): see to its rights") from None
        if key is None:
            raise ConfigurationError(f"{self} is not a text of at most {LARGEST_FILE} bytes: it holds no key")
        key = normalize_key(key, str(self))
        self._warn_if_open(found)
        self._held = _version(found), key
        return key

    def _warn_if_open(self, found: os.stat_result) -> None:
        if os.name != "posix" or self._warned or not found.st_mode & stat.S_IROTH:
            return
        if found.st_uid == os.geteuid():
            warnings.warn(
                f"{self} can be read by every user of this machine: chmod 600 it",
                KeyFileWarning,
                stacklevel=3,
            )
            self._warned = True

    def __reduce__(self) -> tuple[type[FileKey], tuple[str]]:
        return FileKey, (str(self._path),)  # its place, not its content

    def __repr__(self) -> str:
        return f"FileKey({scrub(str(self._path), limit=200)!r})"

    def __str__(self) -> str:
        return f"the key file {scrub(str(self._path), limit=200)!r}"


class KeyringKey:
    """A key in the system's keyring, read once: some keyrings ask their user each time.

    Needs the extra ``keyring``; the package is imported with the first request.

    Args:
        service: under which name the key was stored, such as "imgkit".
        user: for whom.
    """

    _service = _user = ""  # a traceback may show a source that is not complete

    def __init__(self, service: str, user: str) -> None:
        if not all(isinstance(name, str) and name for name in (service, user)):
            raise ConfigurationError("a key in the keyring is named by two texts: service and user")
        self._service = service
        self._user = user
        self._cache = TokenCache(self._ask, str(self))

    def read(self) -> Secret:
        """Return the key; see `KeySource`."""
        return self._cache.get(PATIENCE_S).value

    def _ask(self) -> Token:
        try:
            keyring: Any = importlib.import_module("keyring")
        except ImportError as error:
            raise ConfigurationError(
                f"{self} needs the package keyring: pip install 'imgkit-service[keyring]'"
            ) from error
        try:
            found = keyring.get_password(self._service, self._user)
        except Exception as error:
            raise ConfigurationError(
                f"{self} cannot be read ({type(error).__name__}: {scrub(str(error), limit=200)}): "
                "'python -m keyring diagnose' shows which keyring is used; where there is none, keep the "
                "key in a file or in the environment"
            ) from error
        if found is None:
            raise MissingKeyError(
                f"{self} is not there: store it with 'python -m keyring set {self._service} {self._user}'"
            )
        return Token(normalize_key(as_secret(found, str(self)), str(self)))

    def __reduce__(self) -> tuple[type[KeyringKey], tuple[str, str]]:
        return KeyringKey, (self._service, self._user)  # its place, not its content

    def __repr__(self) -> str:
        return f"KeyringKey({self._service!r}, {self._user!r})"

    def __str__(self) -> str:
        return f"the key of {self._user!r} for {self._service!r} in the keyring"


class CallableKey:
    """A callable that returns a key, asked for each request; it is not shown, pickled or copied.

    Args:
        fn: the callable. What it is bound to may hold the key.
    """

    __slots__ = ("_fn",)

    def __init__(self, fn: Callable[[], str]) -> None:
        self._fn = fn

    def read(self) -> Secret:
        """Return what the callable says now."""
        source = "what api_key() returned"
        return normalize_key(as_secret(self._fn(), source), source)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a callable key is not pickled or copied: hand it over by its environment variable")

    def __repr__(self) -> str:
        return "Asked(…)"


def as_secret(given: object, source: str) -> Secret:
    """Return text as a secret.

    Args:
        given: what should be a key.
        source: where it comes from, for the error.

    Raises:
        ConfigurationError: it is no text.
    """
    kind = type(given).__name__
    secret = Secret(given) if isinstance(given, str) else None
    del given  # a traceback may show the variables of this frame
    if secret is None:
        raise ConfigurationError(f"{source} is a {kind}: give the key as text")
    return secret


def normalize_key(key: Secret, source: str, scheme: str = "Bearer") -> Secret:
    """Return a key without the blanks around it and the scheme before it, if a header can carry it.

    Args:
        key: as it was found.
        source: where it comes from, for the error.
        scheme: what is left out in front of it.

    Raises:
        ConfigurationError: the message, and the frames it comes from, do not show the key.
    """
    bare = Secret(f"{key.reveal().strip(' ')} ".removeprefix(f"{scheme} ").strip(" "))
    if not bare.reveal().strip():
        raise ConfigurationError(f"{source} is empty: give the key, or leave it out")
    if not _SENDABLE.fullmatch(bare.reveal()):
        raise ConfigurationError(
            f"{source} holds a character that no HTTP header can carry (a line break, a blank or a letter "
            "outside ASCII): copy the key again, without what surrounds it"
        )
    return bare


def _version(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _decoded(data: bytes) -> Secret | None:
    """Return the text of a file; None if it is too long or no text. Editors of Windows write a mark."""
    if len(data) > LARGEST_FILE:
        return None
    try:
        return Secret(data.decode("utf-8-sig").strip())
    except UnicodeDecodeError:
        return None
