"""The recorder plugin: it writes requests and replies of any backend to a cassette, without vcrpy."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from imgkit.errors import ConfigurationError
from imgkit.plugins.hookspecs import ServiceSettings, hookimpl
from imgkit.plugins.protocols import Exchanged, Recorder
from imgkit.wire.plain_values import show_value, to_flag, to_path

VARIABLE = "IMGKIT_CASSETTE"
LOCK_WAIT_S = 10.0


class RecorderPlugin:
    """Records requests and their replies, including errors and downloads, to a cassette.

    The format is that of `imgkit.testing.vcr_cassettes`: secrets are scrubbed, images are in files beside the
    cassette, and text that looks like a key is an error. The cassette is complete after each reply. A
    failure to record does not fail the call: it is a warning in ``response.warnings``.

    Args:
        cassette: path of the file; new recordings are appended. Default: the variable ``IMGKIT_CASSETTE``,
            as for ``plugins=["recorder"]``.
        rewrite: True replaces an existing cassette at the first reply.

    Raises:
        ConfigurationError: There is no path, or an argument is invalid.

    Example:
        ::

            with ImageService("requests", plugins=[RecorderPlugin("tests/cassettes/fox.yaml")]) as service:
                service.create_image("a fox")
    """

    def __init__(self, cassette: str | os.PathLike[str] | None = None, *, rewrite: bool = False) -> None:
        given = os.environ.get(VARIABLE) if cassette is None else cassette
        try:
            path = "" if given is None else to_path(given)
        except ValueError:
            path = ""
        if not path:
            raise ConfigurationError(
                "The recorder needs a cassette. Pass RecorderPlugin('tests/cassettes/fox.yaml'), or set "
                f"{VARIABLE}."
            )
        is_rewrite = to_flag(rewrite)
        if is_rewrite is None:
            raise ConfigurationError(f"rewrite must be True or False, not {show_value(rewrite)}.")
        self._recorder = CassetteRecorder(Path(path), rewrite=is_rewrite)

    @hookimpl
    def imgkit_recorder(self, settings: ServiceSettings) -> Recorder:
        """Return the recorder of the cassette."""
        return self._recorder


class CassetteRecorder:
    """An `imgkit.plugins.Recorder` that appends to a cassette, in the order of the replies.

    Args:
        path: path of the cassette. Other processes may append to it at the same time.
        rewrite: True replaces an existing cassette at the first reply.
    """

    def __init__(self, path: Path, *, rewrite: bool = False) -> None:
        self._path = path
        self._rewrite = rewrite
        self._lock = threading.Lock()

    def record(self, exchanged: Exchanged) -> None:
        """Append a request and its reply.

        Raises:
            ConfigurationError: The recording has text like a key, or the file is not a cassette.
            SaveError: The file cannot be written.
        """
        from imgkit.cassettes.reader import load_interactions
        from imgkit.cassettes.side_files import SideFiles
        from imgkit.cassettes.writer import build_interaction, dump_cassette, lock_cassette, write_cassette

        request, head = exchanged.request, exchanged.head
        files = SideFiles(self._path)
        new = build_interaction(
            files,
            method=request.method,
            url=request.url,
            headers=request.wire_headers(),
            body=b"".join(request.body.blocks()),
            status=head.status,
            reply_headers=head.headers,
            reply=exchanged.reply,
        )
        with self._lock, lock_cassette(self._path, LOCK_WAIT_S):
            old = load_interactions(self._path) if self._path.exists() and not self._rewrite else []
            write_cassette(self._path, dump_cassette([*old, new]), files)
            self._rewrite = False
