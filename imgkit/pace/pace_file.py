"""The file of a pace: processes share it, and a dead process leaves nothing behind that counts."""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imgkit.errors import ConfigurationError
from imgkit.files import read_regular_file, write_atomically
from imgkit.locks import FileLock, SharedFile
from imgkit.pace.pace_state import PaceState
from imgkit.redact import Secret

FOLDER, SALT = "pace", "salt"
MAX_STATE_BYTES = 64 * 1024

LOCK_TRIES, LOCK_TRY_S = 4, 0.0003
STUCK_S = 2.0
"""Seconds after which a run goes on alone: a process that was stopped holds the file."""

LOOK_S = 0.25
"""Seconds between two looks for dead processes."""


class SharedPace:
    """The state of the pace of an account, in a file that processes share, or in memory. Not thread-safe.

    Args:
        path: the file, None for memory. Its folder must exist.

    Attributes:
        name: name of this run in the state.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.name = uuid.uuid4().hex[:16]
        self._path = path
        self._memory = PaceState()
        self._written = b""
        self._file: SharedFile | None = None
        self._alive: FileLock | None = None
        if path is not None:
            with suppress(OSError):  # such as a file system without locks: the run goes on alone
                _remove_dead_locks(path.parent)
                while self._alive is None:  # another run may look at the new lock just now
                    self._alive = FileLock.try_acquire(_name_lock(path, self.name))
                self._file = SharedFile(path)
        self._boot = "" if path is None else _read_boot()
        self._stuck_since: float | None = None
        self._looked_at = -math.inf

    @property
    def is_shared(self) -> bool:
        """Whether other processes may have a part of the state."""
        return self._file is not None

    @contextmanager
    def open(self, now: float) -> Iterator[PaceState | None]:
        """Open the state to change it; None while another process has it. Quick.

        A file that cannot be used, or that a stopped process holds, leaves the run alone with its memory.
        The same holds for a file that is lost or damaged, or of another boot of the machine.

        Args:
            now: monotonic seconds.
        """
        file = self._file
        if file is None or not self._try_lock(file):
            if file is not None and self._is_busy(now):
                yield None
                return
            self._memory.tidy(now)
            yield self._memory
            return
        self._stuck_since = None
        try:
            state = self._memory = self._read(file, now)
            state.tidy(now)
            if not 0 <= now - self._looked_at < LOOK_S:
                self._looked_at = now
                self._look(state, file)
            yield state
            self._written = state.to_json(self._boot)
            with suppress(OSError):  # such as a full disk
                file.write(self._written)
        finally:
            with suppress(OSError):
                file.unlock()

    def close(self) -> None:
        """Let other processes see that this run is gone. Idempotent."""
        alive, file = self._alive, self._file
        self._alive = self._file = None
        if file is not None:
            file.close()
        if alive is not None:
            with suppress(OSError):
                alive.release()

    def _read(self, file: SharedFile, now: float) -> PaceState:
        state, data = None, b""
        with suppress(OSError):
            data = file.read(MAX_STATE_BYTES)
        if data.startswith(self._written) and self._written:
            return self._memory  # nobody has changed it
        state = PaceState.from_json(data, self._boot, now)
        return self._memory if state is None else state

    def _try_lock(self, file: SharedFile) -> bool:
        for number in range(LOCK_TRIES):
            if number:
                time.sleep(LOCK_TRY_S)
            try:
                if file.try_lock():
                    return True
            except OSError:
                self._stuck_since = -math.inf
                return False
        return False

    def _is_busy(self, now: float) -> bool:
        """Whether the file may be free soon."""
        if self._stuck_since is None or self._stuck_since > now:
            self._stuck_since = now
        return now - self._stuck_since < STUCK_S

    def _look(self, state: PaceState, file: SharedFile) -> None:
        """Open the file again if it was removed, and forget the requests of dead processes.

        The system has taken back the locks of a dead process.
        """
        path = file.path
        if not file.is_current():
            with suppress(OSError):
                self._file = SharedFile(path)
                self._written = b""
        for name in [name for name in state.runs if name != self.name]:
            if name.isalnum():
                try:
                    lock = FileLock.try_acquire(_name_lock(path, name))
                except OSError:
                    continue
                if lock is None:
                    continue
                lock.release()
            del state.runs[name]


def find_pace_file(state_folder: Path, account: Iterable[str], keys: Iterable[Secret]) -> Path:
    """Return the path of the file of an account. Its name shows nothing of a key. May block.

    Args:
        state_folder: the folder that processes share.
        account: provider, host, organization.
        keys: the keys. Another state folder names the file of the same key otherwise.

    Raises:
        ConfigurationError: the folder cannot be used.
    """
    folder = state_folder / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        digest = hashlib.blake2b(key=_read_salt(folder / SALT), digest_size=16)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot write to {str(folder)[:200]!r} ({error.strerror or error}). Set another state folder "
            "(IMGKIT_HOME).",
            field="state_folder",
        ) from None
    for text in (*account, *sorted({key.reveal() for key in keys})):
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(encoded) + encoded)  # lengths keep neighbours apart
    return folder / f"{digest.hexdigest()}.json"


def _remove_dead_locks(folder: Path) -> None:
    """Remove the locks of processes that have died."""
    for path in folder.glob("*.lock"):
        lock = FileLock.try_acquire(path)
        if lock is not None:
            lock.release()


def _name_lock(path: Path, name: str) -> Path:
    """Return the path of the lock that a run holds as long as its process lives."""
    return path.with_name(f"{name}.lock")


def _read_boot() -> str:
    """Return the name of this start of the machine, "" where the system has none."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _read_salt(path: Path) -> bytes:
    """Return the salt of a folder; the first process makes it."""
    if not path.exists():
        with suppress(FileExistsError):
            write_atomically(path, secrets.token_bytes(32), publish=_publish)
    return read_regular_file(path, 64, follow=False)


def _publish(part: Path, path: Path) -> None:
    """Give a file its name, unless another file has it.

    Raises:
        FileExistsError: another file has it.
    """
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # the file system has no hard links
        part.replace(path)
