"""The command `imgkit jobs`: work that a provider has accepted and that nobody has collected yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from imgkit.cli import console, exit_codes, output_paths, report, values
from imgkit.cli.messages import format_error
from imgkit.cli.progress import CallWatcher
from imgkit.errors import ConfigurationError, ImgkitError, InvalidRequestError, JobPendingError
from imgkit.jobs.job import Job
from imgkit.jobs.store import FOLDER, JobStore, StoredJob
from imgkit.models import ImagesResponse
from imgkit.service import ImageService

COLLECT_TIMEOUT_S = 5.0
"""Seconds in which `imgkit jobs collect` takes the images that are ready."""

_COLLECT = "`imgkit jobs wait {}` collects it."


class JobRun(NamedTuple):
    """The settings of one run of the command.

    Attributes:
        store: the jobs in the state folder.
        settings: arguments of the service that are given.
        as_json: print one JSON object in place of lines.
    """

    store: JobStore
    settings: Mapping[str, Any]
    as_json: bool


def open_run(state_folder: str | None, as_json: bool, api_key_file: str | None, **given: Any) -> JobRun:
    """Return the settings of a run.

    Raises:
        ConfigurationError: the state folder or the key cannot be used.
    """
    folder: Path = values.find_state_folder(state_folder)
    settings = {name: value for name, value in given.items() if value is not None}
    if api_key_file is not None:
        settings["api_key"] = values.read_key(api_key_file)
    return JobRun(JobStore(folder / FOLDER), {**settings, "state_folder": folder}, as_json)


def print_jobs(run: JobRun) -> int:
    """Print the pending jobs, the soonest expiry first."""
    records = read_records(run.store)
    if run.as_json:
        return console.write_bytes(report.encode_json({"jobs": list(map(_to_json, records))}))
    if not records:
        console.print_message("imgkit: There are no pending jobs.")
    return console.write_text("".join(f"{_format_record(record)}\n" for record in records))


def collect_jobs(run: JobRun, ids: tuple[str, ...], output: str | None, timeout_s: float | None) -> int:
    """Poll jobs until their images are there, and save these where their calls wanted them.

    Args:
        run: the settings.
        ids: ids of the jobs, or their beginnings; all jobs without any.
        output: another place for the images.
        timeout_s: seconds for each job, None for the service's limit.

    Returns:
        0 if all images were collected, 9 if a job is still pending, else the code of the first failure.
    """
    records = find_records(run.store, ids)
    collected, code = collect_records(run, records, output, timeout_s)
    if run.as_json:
        console.write_bytes(report.encode_json({"jobs": collected}))
    elif not records:
        console.print_message("imgkit: There are no pending jobs.")
    return code


def collect_records(
    run: JobRun, records: list[StoredJob], output: str | None, timeout_s: float | None
) -> tuple[list[dict[str, object]], int]:
    """Collect the images of jobs, the soonest expiry first.

    Returns:
        The facts of each for ``--json``, and the exit code as for `collect_jobs`.
    """
    ends = [_collect(run, record, output, timeout_s) for record in records]
    codes = [code for _, code in ends]
    failures = [code for code in codes if code not in (exit_codes.OK, exit_codes.PENDING)]
    return [facts for facts, _ in ends], failures[0] if failures else max(codes, default=exit_codes.OK)


def cancel_jobs(run: JobRun, ids: tuple[str, ...]) -> int:
    """Cancel jobs; save the images of those that had ended before."""
    codes: list[int] = []
    cancelled: list[dict[str, object]] = []
    for record in find_records(run.store, ids):
        facts, code = _attempt(run, record, lambda service, job: service.cancel_job(job))
        if code == exit_codes.OK and not facts["images"]:
            console.print_message(f"imgkit: {record.id} is cancelled.")
        cancelled.append(facts)
        codes.append(code)
    if run.as_json:
        console.write_bytes(report.encode_json({"jobs": cancelled}))
    return max(codes, default=exit_codes.OK)


def drop_jobs(run: JobRun, ids: tuple[str, ...]) -> int:
    """Delete the records of jobs. The providers go on with them."""
    for record in find_records(run.store, ids):
        try:
            record.path.unlink(missing_ok=True)
        except OSError as error:
            raise values.unusable_folder_error(run.store.folder, error) from None
        console.print_message(f"imgkit: {record.id} is forgotten. The provider may still finish and bill it.")
    return exit_codes.OK


def read_records(store: JobStore) -> list[StoredJob]:
    """Return all records.

    Raises:
        ConfigurationError: the folder cannot be read.
    """
    try:
        return store.list_jobs()
    except OSError as error:
        raise values.unusable_folder_error(store.folder, error) from None


def find_records(store: JobStore, ids: tuple[str, ...]) -> list[StoredJob]:
    """Return the records with these ids, or whose ids begin with them; all records without ids.

    Raises:
        InvalidRequestError: an id fits no record, or several.
    """
    records = read_records(store)
    if not ids:
        return records
    found: list[StoredJob] = []
    for name in ids:
        fitting = [record for record in records if name and record.id.startswith(name)]
        exact = [record for record in fitting if record.id == name] or fitting
        if len(exact) != 1:
            problem = "Several jobs begin with" if exact else "There is no job"
            raise InvalidRequestError({"job": f"{problem} {name[:80]!r}. `imgkit jobs ls` lists them."})
        found += exact
    return found


def _collect(
    run: JobRun, record: StoredJob, output: str | None, timeout_s: float | None
) -> tuple[dict[str, object], int]:
    plan = None if output is None else output_paths.build_save_plan(output, force=False, sidecar=True)

    def resume(service: ImageService, job: Job) -> ImagesResponse:
        # A call without a place, such as one of the library, left its images to its caller.
        place = plan
        if place is None and job.save_to is None:
            place = output_paths.build_save_plan(None, force=False, sidecar=True)
        return service.resume(job, save_to=place, timeout_s=timeout_s)

    return _attempt(run, record, resume)


def _attempt(
    run: JobRun, record: StoredJob, work: Callable[[ImageService, Job], ImagesResponse | None]
) -> tuple[dict[str, object], int]:
    """Do something with one job; return its facts for ``--json`` and an exit code."""
    facts = _to_json(record)
    watcher = CallWatcher()
    try:
        if record.job is None:
            raise ConfigurationError(
                f"{record.id}: {record.problem} `imgkit jobs drop {record.id}` deletes it."
            )
        settings = _settings_for(run, record.job)
        with ImageService(**settings, plugins=[watcher]) as service, watcher.show_progress():
            response = work(service, record.job)
    except JobPendingError as error:
        console.print_message(f"imgkit: {record.id}: {error.problem} {_COLLECT.format(record.id)}")
        return {**facts, "error": error.problem}, exit_codes.PENDING
    except ImgkitError as error:
        console.print_message(f"imgkit: {record.id}: {format_error(error)}")
        return {**facts, "error": str(error)}, exit_codes.exit_code(error)
    if response is None:
        return facts, exit_codes.OK
    report.print_messages(response)
    paths = [str(image.path) for image in response if image.path is not None]
    if not run.as_json:
        console.write_paths(paths)
    return {**facts, "images": paths}, exit_codes.OK


def _settings_for(run: JobRun, job: Job) -> dict[str, Any]:
    """Return the arguments of the service that follows a job, at the address that has it."""
    return {"backend": "requests", **run.settings, "provider": job.provider, "base_url": job.base_url}


def _format_record(record: StoredJob) -> str:
    job = record.job
    if job is None:
        return f"{record.id}  {record.problem}"
    parts = [
        record.id,
        job.provider,
        _format_age(job.age_s),
        job.phase,
        *([_format_expiry(job.expires_at)] if job.expires_at is not None else []),
        *([f"{job.cost} {job.currency}"] if job.cost is not None else []),
        *(["followed by a running process"] if record.is_running else []),
        repr(str(job.facts.get("prompt") or "")[:60]),
    ]
    return "  ".join(parts).replace("\n", "\\n")


def _format_age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _format_expiry(expires_at: float) -> str:
    rest = expires_at - time.time()
    return f"link expires in {_format_age(rest)}" if rest > 0 else f"link expired {_format_age(-rest)} ago"


def _to_json(record: StoredJob) -> dict[str, object]:
    job = record.job
    facts: dict[str, object] = {"id": record.id, "running": record.is_running, "images": []}
    if job is None:
        return {**facts, "problem": record.problem}
    return {
        **facts,
        "provider": job.provider,
        "base_url": job.base_url,
        "operation": job.operation,
        "phase": job.phase,
        "submitted_at": job.submitted_at,
        "expires_at": job.expires_at,
        "cost": job.cost,
        "prompt": job.facts.get("prompt"),
    }
