"""A place at a URL for the images of a run: object stores and other file systems that fsspec knows."""

from __future__ import annotations

import importlib
import os
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from imgkit.errors import ConfigurationError, ImgkitError, SaveError
from imgkit.redact import Secret, is_secret_name, list_secret_members, scrub

WHOLE_UPLOADS = frozenset(["memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"])
"""Protocols under which an object appears with its last byte. Under others, a complete upload is renamed."""

PUT_ARGUMENTS: Mapping[str, Mapping[str, bool]] = {
    name: {"overwrite": True} for name in ("az", "abfs", "abfss")
}
"""Arguments of ``put_file`` with which a protocol replaces an object."""

PACKAGES: Mapping[str, str] = {
    **dict.fromkeys(["s3", "s3a"], "s3fs"),
    **dict.fromkeys(["gs", "gcs"], "gcsfs"),
    **dict.fromkeys(["az", "abfs", "abfss", "adl"], "adlfs"),
    **dict.fromkeys(["sftp", "ssh"], "paramiko"),
    "smb": "smbprotocol",
    "hf": "huggingface_hub",
    "oss": "ossfs",
}
"""The package that a protocol needs."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:::|://)")
_CUT_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")
_PASSWORD = re.compile(r"://[^@:/]*:.*@", re.DOTALL)
_PORT = re.compile(r"://[^@:/]*:\d+/")
_LEAST_SECRET = 6
"""Characters of a value of the environment that counts as a secret. Shorter ones are words such as "true"."""


def is_url(text: str) -> bool:
    """Return whether a place is a URL.

    >>> is_url("s3://bucket/foxes"), is_url("out/"), is_url("C:/out")
    (True, False, False)
    """
    return "://" in text and _URL.match(text) is not None


def is_cut_url(text: str) -> bool:
    """Return whether a path was a URL: `pathlib.Path` takes two slashes for one.

    >>> is_cut_url("s3:/bucket/foxes"), is_cut_url("C:/out")
    (True, False)
    """
    return _CUT_URL.match(text) is not None


class _FileSystem(Protocol):
    """The methods of an fsspec file system that a store calls."""

    async_impl: bool
    storage_options: Mapping[str, object]

    def pipe_file(self, path: str, value: bytes) -> object: ...
    def put_file(self, lpath: str, rpath: str, **arguments: bool) -> object: ...
    def cat_file(self, path: str) -> bytes: ...
    def size(self, path: str) -> int | None: ...
    def mv(self, path1: str, path2: str) -> object: ...
    def rm_file(self, path: str) -> object: ...
    def makedirs(self, path: str, exist_ok: bool) -> object: ...


class _Opened(NamedTuple):
    """An open file system.

    Attributes:
        fs: the file system.
        root: the path of the URL in it.
    """

    fs: _FileSystem
    root: str


class UrlStore:
    """A folder at a URL. It opens on first use. Its methods block; any thread may call them.

    >>> store = UrlStore("memory://doctest")
    >>> store.write("images/a.png", b"image")
    >>> store.read("images/a.png"), store.read("images/b.png")
    (b'image', None)

    Args:
        url: the URL. The file system finds its credentials by itself, such as in the environment.

    Attributes:
        url: the URL without a slash at its end.

    Raises:
        ConfigurationError: the URL holds a credential, or chains file systems.
    """

    def __init__(self, url: str) -> None:
        _refuse_url(url)
        self.url = url.rstrip("/") if not url.endswith("://") else url
        self._protocol = url.partition("://")[0]
        self._guard = threading.Lock()
        self._opened: _Opened | None = None

    def read(self, name: str) -> bytes | None:
        """Return the bytes of an object, None if there is none.

        Raises:
            ConfigurationError: the file system cannot be opened.
            SaveError: it has failed.
        """
        with self._explain("read", name) as (fs, root):
            try:
                return bytes(fs.cat_file(f"{root}/{name}"))
            except FileNotFoundError:
                return None

    def measure(self, name: str) -> int | None:
        """Return the size of an object, None if there is none; raises as `read`."""
        with self._explain("find", name) as (fs, root):
            try:
                return fs.size(f"{root}/{name}")
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes | Path) -> None:
        """Write an object, or replace it: all its bytes, or nothing.

        Args:
            name: the name of the object.
            content: its bytes, or a file that has them.

        Raises:
            ConfigurationError: the file system cannot be opened.
            SaveError: it has failed.
        """
        with self._explain("write", name) as (fs, root):
            path = f"{root}/{name}"
            if self._protocol in WHOLE_UPLOADS:
                self._upload(fs, path, content)
                return
            folder, _, base = path.rpartition("/")
            part = f"{folder}/.{base}.{secrets.token_hex(6)}.part"
            fs.makedirs(folder, exist_ok=True)
            try:
                self._upload(fs, part, content)
                fs.mv(part, path)
            except BaseException:
                with suppress(Exception):  # the first error says what is wrong
                    fs.rm_file(part)
                raise

    def _upload(self, fs: _FileSystem, path: str, content: bytes | Path) -> None:
        if isinstance(content, bytes):
            fs.pipe_file(path, content)
        elif fs.async_impl or self._protocol not in WHOLE_UPLOADS:
            fs.put_file(str(content), path, **PUT_ARGUMENTS.get(self._protocol, {}))
        else:  # its put_file could leave half an object
            fs.pipe_file(path, content.read_bytes())

    def _open(self) -> _Opened:
        """Return the file system.

        Raises:
            ConfigurationError: a package is missing, or fsspec does not know the URL.
        """
        with self._guard:
            if self._opened is None:
                try:
                    url_to_fs = importlib.import_module("fsspec.core").url_to_fs
                except ImportError:
                    raise ConfigurationError(
                        f"{self.url} needs fsspec, which is not installed. Run: pip install "
                        "'imgkit-service[fsspec]'"
                    ) from None
                try:
                    # Another file system of this process may have read credentials that have changed.
                    fs, root = url_to_fs(self.url, skip_instance_cache=True)
                except ImportError as error:
                    package = PACKAGES.get(self._protocol)
                    remedy = f"Run: pip install {package}" if package else "Install that package."
                    raise ConfigurationError(
                        f"{self.url} needs a package that is not installed ({describe_failure(error)}). "
                        f"{remedy}"
                    ) from None
                except Exception as error:  # a file system may raise anything
                    raise ConfigurationError(
                        f"{self.url} cannot be opened ({describe_failure(error)}). Check the URL."
                    ) from None
                self._opened = _Opened(fs, str(root).rstrip("/"))
            return self._opened

    @contextmanager
    def _explain(self, verb: str, name: str) -> Iterator[_Opened]:
        """Yield the file system, and turn its failures into errors of imgkit.

        Raises:
            SaveError: the file system failed.
        """
        opened = self._open()
        try:
            yield opened
        except ImgkitError:
            raise
        except Exception as error:  # a file system may raise anything
            raise SaveError(
                f"Cannot {verb} {name} at {self.url} ({describe_failure(error, opened.fs)}). Check that the "
                "place exists, that your credentials may read and write there, and the network."
            ) from None


def describe_failure(error: Exception, fs: _FileSystem | None = None) -> str:
    """Return the class and the text of a file system's error, without the credentials that are known."""
    hidden: list[str | Secret] = [
        value
        for name, value in os.environ.items()
        if len(value) >= _LEAST_SECRET and is_secret_name(name.lower())
    ]
    if fs is not None:
        hidden += list_secret_members(fs.storage_options)
    text = scrub(str(error), hidden, limit=300)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _refuse_url(url: str) -> None:
    """Refuse a URL that no run should have: manifests and messages name it.

    Raises:
        ConfigurationError: it holds a credential, has a query, names no place, or chains file systems.
    """
    protocol, _, place = url.partition("://")
    has_port = _PORT.search(url) is not None and protocol not in WHOLE_UPLOADS
    if "::" in url:
        problem = "chains file systems, which may report an image as written before it is there"
        remedy = "Give the URL behind the last '::', such as s3://bucket/foxes."
    elif _PASSWORD.search(url) and not has_port:
        problem = "holds a password or a key, which messages and the manifest would show"
        remedy = "Give it to the file system, for s3:// as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    elif "?" in url:
        problem = "has a query, which may hold a key"
        remedy = "Give keys to the file system, such as in the environment."
    elif not place.strip("/") and protocol != "memory":
        problem = "names no bucket and no folder"
        remedy = f"Give one, such as {protocol}://bucket/foxes."
    else:
        return
    raise ConfigurationError(f"The URL of the output ({protocol}://…) {problem}. {remedy}")
