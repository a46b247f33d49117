"""The command `imgkit jobs`: work that a provider has accepted and that nobody has collected yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from imgkit.cli import console, exit_codes, output_paths, report, values
from imgkit.cli.messages import format_error
from imgkit.cli.progress import CallWatcher, show_activity
from imgkit.errors import ConfigurationError, ImgkitError, InvalidRequestError, JobPendingError
from imgkit.jobs.job import Job
from imgkit.jobs.store import FOLDER, JobStore, StoredJob
from imgkit.models import ImagesResponse
from imgkit.service import ImageService

COLLECT_TIMEOUT_S = 5.0
"""Seconds in which `imgkit jobs collect` takes the images of each job that is ready."""

JOBS_AT_ONCE = 16
"""Jobs that are collected at once: a job that takes minutes holds up no other."""

_CLOSE_AGAIN_S = 0.05
"""Seconds after which services that were opened during a stop are closed, too."""

_COLLECT = "`imgkit jobs wait {}` collects it."


class _End(NamedTuple):
    """The end of an attempt at a job.

    Attributes:
        facts: its facts for ``--json``.
        code: an exit code.
        response: its images, None without any.
        problem: what went wrong, "" for nothing.
    """

    facts: dict[str, object]
    code: int
    response: ImagesResponse | None = None
    problem: str = ""


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
    """Collect the images of jobs, several at once.

    Returns:
        The facts of each for ``--json``, and the exit code as for `collect_jobs`.
    """
    work = partial(_resume, output=output, timeout_s=timeout_s)
    ends: dict[int, _End] = {}
    with closing(_attempt_all(run, records, work)) as arriving:
        for number, end in arriving:
            _print_end(run, end, records[number].id if len(records) > 1 else "")
            ends[number] = end
    codes = [ends[number].code for number in sorted(ends)]
    failures = [code for code in codes if code not in (exit_codes.OK, exit_codes.PENDING)]
    code = failures[0] if failures else max(codes, default=exit_codes.OK)
    return [ends[number].facts for number in sorted(ends)], code


def cancel_jobs(run: JobRun, ids: tuple[str, ...]) -> int:
    """Cancel jobs; save the images of those that had ended before."""
    codes: list[int] = []
    cancelled: list[dict[str, object]] = []
    for record in find_records(run.store, ids):
        end = _attempt(run, record, lambda service, job: service.cancel_job(job), [])
        _print_end(run, end)
        if end.code == exit_codes.OK and not end.facts["images"]:
            console.print_message(f"imgkit: {record.id} is cancelled.")
        cancelled.append(end.facts)
        codes.append(end.code)
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


def _resume(service: ImageService, job: Job, output: str | None, timeout_s: float | None) -> ImagesResponse:
    """Wait for a job, and save its images where its call or the command wants them."""
    place = None
    # A call without a place, such as one of the library, left its images to its caller.
    if output is not None or job.save_to is None:
        place = output_paths.build_save_plan(output, force=False, sidecar=True)
    return service.resume(job, save_to=place, timeout_s=timeout_s)


def _attempt_all(
    run: JobRun, records: list[StoredJob], work: Callable[[ImageService, Job], ImagesResponse | None]
) -> Generator[tuple[int, _End]]:
    """Do something with each job; yield the number and the end of each as it arrives."""
    services: list[ImageService] = []
    if len(records) < 2:
        for record in records:
            yield 0, _attempt(run, record, work, services)
        return
    pool = ThreadPoolExecutor(JOBS_AT_ONCE, "imgkit-jobs")
    futures: dict[Future[_End], int] = {}
    try:
        with show_activity(f"asking for {len(records)} jobs"):
            for number, record in enumerate(records):
                futures[pool.submit(_attempt, run, record, work, services, is_alone=False)] = number
            for future in as_completed(futures):
                yield futures[future], future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        while running := [future for future in futures if not future.done()]:
            for service in [*services]:  # after Ctrl-C: a call that waits for its job ends at once
                service.close()
            wait(running, _CLOSE_AGAIN_S)


def _attempt(
    run: JobRun,
    record: StoredJob,
    work: Callable[[ImageService, Job], ImagesResponse | None],
    services: list[ImageService],
    *,
    is_alone: bool = True,
) -> _End:
    """Do something with one job.

    Args:
        run: the settings.
        record: the job.
        work: does it.
        services: gets the service while it is open.
        is_alone: show the progress of the call.
    """
    facts = _to_json(record)
    watcher = CallWatcher()
    try:
        if record.job is None:
            raise ConfigurationError(
                f"{record.id}: {record.problem} `imgkit jobs drop {record.id}` deletes it."
            )
        settings = _settings_for(run, record.job)
        with ImageService(**settings, plugins=[watcher]) as service:
            services.append(service)
            with watcher.show_progress() if is_alone else nullcontext():
                response = work(service, record.job)
    except JobPendingError as error:
        problem = f"{record.id}: {error.problem} {_COLLECT.format(record.id)}"
        return _End({**facts, "error": error.problem}, exit_codes.PENDING, None, problem)
    except ImgkitError as error:
        problem = f"{record.id}: {format_error(error)}"
        return _End({**facts, "error": str(error)}, exit_codes.exit_code(error), None, problem)
    paths = [str(image.path) for image in response or () if image.path is not None]
    return _End({**facts, "images": paths}, exit_codes.OK, response)


def _print_end(run: JobRun, end: _End, job: str = "") -> None:
    """Print the problem, or the messages and the paths of the images; `job` is its id among several."""
    if end.problem:
        console.print_message(f"imgkit: {end.problem}")
    if end.response is None:
        return
    report.print_messages(end.response, job)
    if not run.as_json:
        console.write_paths([str(image.path) for image in end.response if image.path is not None])


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
