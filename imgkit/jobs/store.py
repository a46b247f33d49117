"""The store of jobs: a file for each in the state folder, written before the first poll."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from imgkit.errors import ConfigurationError
from imgkit.files import is_private, read_regular_file, sync_folder, write_atomically
from imgkit.jobs.job import Job
from imgkit.locks import FileLock

FOLDER = "jobs"
"""Name of the folder of jobs in the state folder."""

MAX_RECORD_BYTES = 1024 * 1024
_SUFFIX, _LOCK_SUFFIX = ".json", ".lock"


class StoredJob(NamedTuple):
    """A record of the store.

    Attributes:
        id: the job's id.
        path: path of its file.
        job: the job, None for a damaged record.
        problem: the reason why the record cannot be read, "" for a good record.
        is_running: a process follows the job now.
    """

    id: str
    path: Path
    job: Job | None
    problem: str
    is_running: bool


class JobStore:
    """The jobs in a state folder, shared by processes. Its methods may block.

    One process at a time may follow a job: it holds the job's lock.

    Args:
        folder: the folder of the records, created with the first job.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check(self) -> None:
        """Check that no other user can write to the folder.

        Raises:
            ConfigurationError: the folder is unsafe.
        """
        if not is_private(self.folder):
            raise ConfigurationError(
                f"Other users can write to {str(self.folder)!r}, or own it or its parent, so it is unsafe "
                f"for jobs. Run `chmod 700 {str(self.folder)!r}` as its owner, or set another state folder "
                "(IMGKIT_HOME).",
                field="state_folder",
            )

    def save(self, job: Job) -> None:
        """Write the record of a job, and flush it to the disk with its folder.

        Raises:
            OSError: the record cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        record = job.to_json().encode()
        if len(record) > MAX_RECORD_BYTES:  # nobody could read it again
            record = job.advance(facts=_shorten_facts(job.facts)).to_json().encode()
        write_atomically(self._path(job.id), record)
        sync_folder(self.folder)

    def remove(self, job: Job) -> None:
        """Remove the record of a job. Idempotent. Raises OSError."""
        self._path(job.id).unlink(missing_ok=True)

    def lock(self, job_id: str) -> FileLock | None:
        """Return the lock of a job, None while another process follows it. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return FileLock.try_acquire(self._path(job_id, _LOCK_SUFFIX))

    def find(self, job_id: str) -> StoredJob | None:
        """Return the record of a job, or of the only job whose id begins with a text."""
        found = [each for each in self.list_jobs() if each.id.startswith(job_id)]
        exact = [each for each in found if each.id == job_id]
        return exact[0] if exact else found[0] if len(found) == 1 else None

    def find_by_cache_key(self, key: str) -> StoredJob | None:
        """Return the record of the job that fills a cache entry, None for none."""
        return next((each for each in self.list_jobs() if each.job and each.job.cache_key == key), None)

    def list_jobs(self) -> list[StoredJob]:
        """Return the records, the soonest expiry first, then the oldest. Raises OSError."""
        found = list(self._read_records())
        return sorted(found, key=lambda each: _urgency(each.job))

    def _read_records(self) -> Iterator[StoredJob]:
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return
        for name in names:
            if name.startswith(".") or not name.endswith(_SUFFIX):
                continue
            job_id, path = name.removesuffix(_SUFFIX), self.folder / name
            job, problem = None, ""
            try:
                job = Job.from_json(read_regular_file(path, MAX_RECORD_BYTES, follow=False))
                if job.id != job_id:
                    job, problem = None, "The record has the id of another job."
            except FileNotFoundError:
                continue  # delivered by another process
            except ConfigurationError as error:
                problem = str(error)
            except (OSError, ValueError) as error:
                problem = f"The record cannot be read ({error})."
            yield StoredJob(job_id, path, job, problem, self._is_locked(job_id))

    def _is_locked(self, job_id: str) -> bool:
        path = self._path(job_id, _LOCK_SUFFIX)
        if not path.exists():
            return False
        with suppress(OSError):
            lock = FileLock.try_acquire(path)
            if lock is None:
                return True
            lock.release()
        return False

    def _path(self, job_id: str, suffix: str = _SUFFIX) -> Path:
        return self.folder / f"{job_id}{suffix}"


def _shorten_facts(facts: Mapping[str, object]) -> dict[str, str]:
    """Return the facts that a list of jobs shows, with the beginning of the prompt."""
    texts = {name: facts.get(name) for name in ("prompt", "model")}
    return {name: text[:1000] for name, text in texts.items() if isinstance(text, str)}


def _urgency(job: Job | None) -> tuple[float, float]:
    if job is None:
        return (float("inf"), float("inf"))
    return (float("inf") if job.expires_at is None else job.expires_at, job.submitted_at)
