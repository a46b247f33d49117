"""Sources of keys (a file, the system's keyring, a callable) and the validation of keys."""

from __future__ import annotations

import importlib
import logging
import os
import re
import stat
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable
from urllib.parse import urlsplit

from imgkit.default_plugins.token_cache import PATIENCE_S, TokenCache
from imgkit.errors import ConfigurationError, MissingKeyError
from imgkit.files import open_regular_file
from imgkit.plugins.tokens import Token
from imgkit.redact import Secret, safe_url, scrub
from imgkit.wire.plain_values import to_path
from imgkit.wire.secret_finder import MIN_SECRET_LENGTH

LARGEST_FILE = 64 * 1024
"""Maximum size of a key file in bytes."""

_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")
_SENDABLE = re.compile(r"[\x21-\x7e]+")


class KeyFileWarning(UserWarning):
    """Every user of the machine can read a key file."""


class ShortKeyWarning(UserWarning):
    """A key is so short that imgkit cannot remove it from a server's texts."""


@runtime_checkable
class KeySource(Protocol):
    """A place that holds a key.

    Example:
        A source that reads the key from a socket or a database::

            class VaultKey:
                def read(self) -> Secret:
                    return Secret(vault.get("openai-key"))

            ImageService("requests", api_key=VaultKey())
    """

    def read(self) -> Secret:
        """Return the current key. Runs for each request, in a thread where it may block.

        Raises:
            ConfigurationError: The message names the place, and shows nothing of the key.
        """


class FileKey:
    """A file that contains only a key. It is read again when it changes.

    Blanks and line ends around the key are removed. If every user of the machine can read the file, and you
    own it, the first read warns (`KeyFileWarning`). Files of other owners do not warn, because containers
    mount secrets like this.

    Args:
        path: path of the file; ``~`` is expanded.

    Example:
        >>> FileKey("/run/secrets/openai-key")
        FileKey('/run/secrets/openai-key')
    """

    _path = Path()  # for tracebacks of an incomplete source

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            text = to_path(path)
            self._path = Path(text).expanduser()
        except (ValueError, RuntimeError):
            text = ""
        if not text or "\0" in text:
            raise ConfigurationError("A key file needs a path, as text or pathlib.Path.")
        self._cached: tuple[tuple[int, ...], Secret] | None = None
        self._warned = False

    def read(self) -> Secret:
        """Return the key; see `KeySource`."""
        try:
            cached, status = self._cached, os.stat(self._path)
            if cached is not None and cached[0] == _file_version(status):
                return cached[1]
            if not stat.S_ISREG(status.st_mode):
                raise ConfigurationError(
                    f"Cannot use {self}. imgkit reads it repeatedly, so give a regular file."
                )
            with open_regular_file(self._path) as stream:
                # Taken from the open file before reading, so a later change is detected.
                status = os.fstat(stream.fileno())
                key = _decode_file(stream.read(LARGEST_FILE + 1))
        except FileNotFoundError:
            raise MissingKeyError(f"Cannot find {self}. Write the key to it.") from None
        except OSError as error:
            raise ConfigurationError(
                f"Cannot read {self} ({error.strerror}). Check its permissions."
            ) from None
        if key is None:
            raise ConfigurationError(f"No key in {self}. It must be a text of at most {LARGEST_FILE} bytes.")
        key = normalize_key(key, str(self))
        self._warn_if_readable_by_all(status)
        self._cached = _file_version(status), key
        return key

    def _warn_if_readable_by_all(self, status: os.stat_result) -> None:
        if os.name != "posix" or self._warned or not status.st_mode & stat.S_IROTH:
            return
        if status.st_uid == os.geteuid():
            warnings.warn(
                f"Every user of this machine can read {self}. Run chmod 600 on it.",
                KeyFileWarning,
                stacklevel=3,
            )
            self._warned = True

    def __reduce__(self) -> tuple[type[FileKey], tuple[str]]:
        return FileKey, (str(self._path),)  # the place, not the key

    def __repr__(self) -> str:
        return f"FileKey({scrub(str(self._path), limit=200)!r})"

    def __str__(self) -> str:
        return f"the key file {scrub(str(self._path), limit=200)!r}"


class KeyringKey:
    """A key in the system's keyring. It is read once, because some keyrings prompt the user each time.

    Needs the extra ``keyring``; the first request imports the package.

    Args:
        service: the service name under which the key is stored, such as "imgkit".
        user: the user name under which the key is stored.

    Example:
        >>> KeyringKey("imgkit", "openai")
        KeyringKey('imgkit', 'openai')
    """

    _service = _user = ""  # for tracebacks of an incomplete source

    def __init__(self, service: str, user: str) -> None:
        if not all(isinstance(name, str) and name for name in (service, user)):
            raise ConfigurationError("A key in the keyring needs two texts: service and user.")
        self._service = service
        self._user = user
        self._cache = TokenCache(self._read_keyring, str(self))

    def read(self) -> Secret:
        """Return the key; see `KeySource`."""
        return self._cache.get(PATIENCE_S).value

    def _read_keyring(self) -> Token:
        try:
            keyring: Any = importlib.import_module("keyring")
        except ImportError as error:
            raise ConfigurationError(
                f"Cannot read {self}. It needs the package keyring: pip install 'imgkit-service[keyring]'."
            ) from error
        try:
            password = keyring.get_password(self._service, self._user)
        except Exception as error:
            raise ConfigurationError(
                f"Cannot read {self} ({type(error).__name__}: {scrub(str(error), limit=200)}). "
                "'python -m keyring diagnose' shows the keyring in use. Without a keyring, keep the key in a "
                "file or in the environment."
            ) from error
        if password is None:
            raise MissingKeyError(
                f"Cannot find {self}. Store it with 'python -m keyring set {self._service} {self._user}'."
            )
        return Token(normalize_key(to_secret(password, str(self)), str(self)))

    def __reduce__(self) -> tuple[type[KeyringKey], tuple[str, str]]:
        return KeyringKey, (self._service, self._user)  # the place, not the key

    def __repr__(self) -> str:
        return f"KeyringKey({self._service!r}, {self._user!r})"

    def __str__(self) -> str:
        return f"the key of {self._user!r} for {self._service!r} in the keyring"


class CallableKey:
    """A callable that returns a key, called for each request. It cannot be pickled or copied.

    Args:
        fn: the callable. Its repr is never shown, because a bound object may hold the key.

    Example:
        >>> CallableKey(lambda: "sk-test").read().reveal()
        'sk-test'
    """

    __slots__ = ("_fn",)

    def __init__(self, fn: Callable[[], str]) -> None:
        self._fn = fn

    def read(self) -> Secret:
        """Return the result of the callable."""
        source = "the result of api_key()"
        return normalize_key(to_secret(self._fn(), source), source)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A callable key cannot be pickled or copied. Pass the key in its environment variable."
        )

    def __repr__(self) -> str:
        return "CallableKey(…)"


def to_secret(given: object, source: str) -> Secret:
    """Return text as a `Secret`.

    Args:
        given: the key; anything but text is an error.
        source: the origin of the key, for the error.

    Raises:
        ConfigurationError: `given` is not text.
    """
    kind = type(given).__name__
    secret = Secret(given) if isinstance(given, str) else None
    del given  # tracebacks may show local variables
    if secret is None:
        raise ConfigurationError(f"Invalid key from {source}: a {kind}. Give the key as text.", field=source)
    return secret


def normalize_key(key: Secret, source: str, scheme: str = "Bearer") -> Secret:
    """Return a key without surrounding blanks and without a scheme in front.

    Args:
        key: the key as its source returns it.
        source: the origin of the key, for the error.
        scheme: a word before the key to remove.

    Raises:
        ConfigurationError: A header cannot carry the key. Neither message nor traceback shows it.

    Example:
        >>> normalize_key(Secret(" Bearer sk-test "), "OPENAI_API_KEY").reveal()
        'sk-test'
    """
    bare = Secret(f"{key.reveal().strip(' ')} ".removeprefix(f"{scheme} ").strip(" "))
    if not bare.reveal().strip():
        raise ConfigurationError(f"Empty key from {source}. Give the key, or leave it out.", field=source)
    if not _SENDABLE.fullmatch(bare.reveal()):
        raise ConfigurationError(
            f"Invalid key from {source}. It has a character that no HTTP header can carry (a line break, a "
            "blank or a letter outside ASCII). Copy the key again, without surrounding text.",
            field=source,
        )
    if len(bare.reveal()) < MIN_SECRET_LENGTH:
        _warn_of_short_key(source)
    return bare


def check_encryption(base_url: str) -> None:
    """Reject an address that would send a key over plain http to another machine.

    Raises:
        ConfigurationError: The message has the remedy.
    """
    if not _is_private(base_url):
        raise ConfigurationError(
            f"The base URL {safe_url(base_url)!r} would send the API key unencrypted. Use https://.",
            hint="Or pass allow_insecure=True for a network that you trust.",
            field="allow_insecure",
        )


def check_origin(url: str, base_url: str) -> None:
    """Reject a URL outside the origin to which a key belongs.

    Raises:
        ConfigurationError: Scheme, host or port differ.
    """
    if _origin(url) != _origin(base_url):
        raise ConfigurationError(
            f"A request to {safe_url(url)} gets no credentials. They are for {safe_url(base_url)} only."
        )


# A service sends to a few URLs, and checks them for each attempt.
@lru_cache(maxsize=64)
def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


@lru_cache(maxsize=64)
def _is_private(base_url: str) -> bool:
    """Return whether requests are encrypted or stay on this machine."""
    parts = urlsplit(base_url)
    return parts.scheme != "http" or _LOOPBACK.fullmatch(parts.hostname or "") is not None


def _warn_of_short_key(source: str) -> None:
    text = (
        f"The key from {source} has fewer than {MIN_SECRET_LENGTH} characters, so imgkit cannot remove it "
        "from messages in which a server repeats it. Use a longer key."
    )
    try:
        warnings.warn(text, ShortKeyWarning, stacklevel=4)
    except ShortKeyWarning:
        # A strict warning filter is no reason to refuse the key of a local server.
        logging.getLogger("imgkit").warning(text)


def _file_version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _decode_file(data: bytes) -> Secret | None:
    """Return the text of a file without a byte order mark; None if it is too long or not UTF-8."""
    if len(data) > LARGEST_FILE:
        return None
    try:
        return Secret(data.decode("utf-8-sig").strip())
    except UnicodeDecodeError:
        return None
