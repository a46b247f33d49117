"""The keeper of a call's job: its record on disk, its lock, and the errors that name it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from imgkit.core.core import Core
from imgkit.errors import ConfigurationError, InvalidRequestError, JobPendingError
from imgkit.images.saving import SavePlan
from imgkit.jobs.job import LATEST_S, Job
from imgkit.jobs.store import FOLDER, JobStore
from imgkit.locks import FileLock
from imgkit.models import is_amount
from imgkit.providers.job_values import JobUpdate
from imgkit.redact import safe_url
from imgkit.wire.urls import origin

_COLLECT = "Collect it with service.resume(error), in this process or in another."


class JobKeeper:
    """Keeps one job: in memory, and in the state folder of the service if there is one.

    Its methods may block. After the submit, a disk that fails costs a warning and no image.

    Args:
        store: the store, None without a state folder.

    Attributes:
        job: the job as it is now, None before the submit.
        warnings: failures of the disk.
    """

    def __init__(self, store: JobStore | None) -> None:
        self.job: Job | None = None
        self.warnings: list[str] = []
        self._store = store
        self._lock: FileLock | None = None

    @property
    def current(self) -> Job:
        """The job, which this process follows."""
        if self.job is None:
            raise LookupError("a job is followed until it ends")
        return self.job

    @property
    def is_saved(self) -> bool:
        """Whether the latest state of the job is on the disk, or need not be."""
        return not self.warnings

    @property
    def has_record(self) -> bool:
        """Whether other calls and processes find the job on the disk."""
        return self.job is not None and self._store is not None and self.is_saved

    @classmethod
    def for_service(cls, core: Core) -> JobKeeper:
        """Return a keeper. Jobs of the offline backend cost nothing and are kept in memory only."""
        return cls(open_job_store(core))

    def save_before_sending(self, job: Job) -> None:
        """Save a job whose request is about to be sent.

        Raises:
            ConfigurationError: the record cannot be written; nothing was sent.
        """
        self.job = job
        if self._store is None:
            return
        try:
            self._store.check()
            self._lock = self._store.lock(job.id)
            problem = f"another process has job {job.id}"
            if self._lock is not None:
                self._store.save(job)
                return
        except OSError as error:
            problem = error.strerror or str(error)
        raise ConfigurationError(
            f"Cannot write the record of a job in {str(self._store.folder)!r} ({problem}). "
            "Nothing was sent. Free disk space, or set another state folder (IMGKIT_HOME).",
            field="state_folder",
        )

    def save(self, job: Job) -> None:
        """Save a job that the provider has accepted."""
        self.job, self.warnings = job, []
        if self._store is None:
            return
        try:
            self._store.check()
            self._lock = self._lock or self._store.lock(job.id)
            self._store.save(job)
        except (OSError, ConfigurationError) as error:
            self.warnings = [f"The record of job {job.id} could not be written ({error})."]

    def claim(self, job: Job) -> None:
        """Take a job over, to follow it in this process.

        Raises:
            InvalidRequestError: another process follows it.
        """
        if not self.try_claim(job):
            raise InvalidRequestError(
                {"job": f"Another process follows job {job.id} now. Wait for it, or stop that process."}
            )

    def try_claim(self, job: Job) -> bool:
        """Take a job over unless another process follows it; return whether this process has it."""
        if self._store is not None:
            try:
                self._lock = self._store.lock(job.id)
            except OSError:
                self._lock = None  # without a lock, two processes may deliver the same images
            else:
                if self._lock is None:
                    return False
        self.job = job
        return True

    def remove(self) -> None:
        """Remove the record: the images are delivered, or there will be none."""
        job, self.job = self.job, None
        if job is not None and self._store is not None:
            with suppress(OSError):
                self._store.remove(job)
        self.release()

    def release(self) -> None:
        """Let other processes follow the job. Quick and idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with suppress(OSError):
                lock.release()


def open_job_store(core: Core) -> JobStore | None:
    """Return the store of a service, None if it keeps no jobs on disk."""
    folder: Path | None = core.settings.state_folder
    return None if folder is None or core.target.host_class == "offline" else JobStore(folder / FOLDER)


def name_job(call_id: str, attempt: int) -> str:
    """Return the id of the job that an attempt of a call has submitted: the name of its spooled reply."""
    return f"{call_id[:12]}-{attempt}"


def apply_update(job: Job, update: JobUpdate) -> Job:
    """Return a job with the news of its provider."""
    cost = update.cost
    has_cost = cost is not None and is_amount(cost.amount)
    expires_at = update.expires_at
    return job.advance(
        state=dict(update.state),
        # A record with an impossible time could not be read again.
        expires_at=expires_at if expires_at is not None and abs(expires_at) < LATEST_S else job.expires_at,
        cost=str(cost.amount) if cost is not None and has_cost else job.cost,
        currency=cost.currency if cost is not None and has_cost else job.currency,
    )


def describe_plan(plan: SavePlan | None) -> Mapping[str, object] | None:
    """Return the JSON values of a save plan, with an absolute folder."""
    if plan is None:
        return None
    return {
        "folder": str(plan.folder.absolute()),
        "pattern": plan.pattern,
        "make_folder": plan.make_folder,
        "overwrite": plan.overwrite,
        "sidecar": plan.sidecar,
    }


def restore_plan(values: Mapping[str, Any] | None) -> SavePlan | None:
    """Return the save plan of a job.

    Raises:
        ConfigurationError: the values are damaged.
    """
    if values is None:
        return None
    try:
        folder, pattern = values["folder"], values["pattern"]
        flags = [values["make_folder"], values["overwrite"], values["sidecar"]]
        if not isinstance(folder, str) or not isinstance(pattern, str) or {*map(type, flags)} != {bool}:
            raise TypeError
        SavePlan.from_target(str(Path(folder) / pattern))  # checks the fields of the pattern
        return SavePlan(Path(folder), pattern, *flags)
    except (KeyError, TypeError, InvalidRequestError):
        raise ConfigurationError("This job is damaged: save_to cannot be read. Pass save_to=….") from None


def check_job(core: Core, job: Job) -> None:
    """Refuse a job that this service cannot follow.

    Raises:
        InvalidRequestError: another provider or another host has the job.
        ConfigurationError: a later version of the provider wrote its state.
    """
    if job.provider != core.provider_name:
        raise InvalidRequestError(
            {
                "job": f"Provider {job.provider} has job {job.id}; this service speaks to "
                f"{core.provider_name}. Make the service with provider={job.provider!r}."
            }
        )
    if origin(job.base_url) != origin(core.target.base_url):
        raise InvalidRequestError(
            {
                "job": f"Job {job.id} runs at {safe_url(job.base_url)}; this service speaks to "
                f"{safe_url(core.target.base_url)}. Make the service with that base_url."
            }
        )
    known = getattr(core.provider, "job_version", 1)
    if job.state_version > known:
        raise ConfigurationError(
            f"A later version of provider {job.provider} has written job {job.id} (state "
            f"{job.state_version}; this version reads up to {known}). Upgrade it to collect the job."
        )


def pending_error(jobs: Iterable[Job], problem: str) -> JobPendingError:
    """Return the error of a call that ends before its jobs do."""
    found = tuple(jobs)
    return JobPendingError(f"{problem} The job goes on, and may be billed.", jobs=found, hint=_COLLECT)


def merge_pending(errors: Iterable[JobPendingError]) -> JobPendingError:
    """Return one error for the pending jobs of a split call."""
    first, *others = errors
    jobs = tuple(job for error in (first, *others) for job in error.jobs)
    return JobPendingError(first.problem, jobs=jobs, hint=first.hint)
