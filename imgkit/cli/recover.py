"""The command `imgkit recover`: images from replies that were paid for but not saved."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from imgkit.billing.spool import Spool
from imgkit.billing.spool_record import SpooledReply
from imgkit.cli import console, exit_codes, jobs, output_paths, report, salvage, values
from imgkit.cli.messages import format_error
from imgkit.cli.progress import show_activity
from imgkit.core.recovery import recover
from imgkit.default_plugins.spool import open_spool
from imgkit.errors import ImgkitError
from imgkit.images.image import Image
from imgkit.images.saving import SavePlan
from imgkit.images.sources import UrlSource
from imgkit.jobs.job import Job
from imgkit.service import ImageService

_FACTS = ("operation", "prompt", "model", "request_id", "call_id", "started_at", "backend", "base_url")


class Downloader:
    """Downloads images that a reply left at their URLs. It builds a service on first use.

    Example:
        >>> downloader = Downloader({"download_origins": None})
        >>> downloader.close()

    Args:
        settings: arguments of `ImageService` by name; the record supplies those that are None.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = {name: value for name, value in settings.items() if value is not None}
        self._services: dict[tuple[object, ...], ImageService] = {}

    def download(self, record: SpooledReply, image: Image) -> Image:
        """Return the image with its bytes, under the rules of the call that left it behind.

        Raises:
            ImgkitError: the image could not be fetched.
        """
        facts = record.facts
        place = {name: facts.get(name) or None for name in ("backend", "provider", "base_url")}
        # No key is sent to a result URL.
        settings: dict[str, Any] = {
            **place,
            "backend": place["backend"] or "requests",
            "allow_insecure": True,
        }
        key = tuple(place.values())
        if key not in self._services:
            self._services[key] = ImageService(**{**settings, **self._settings})
        return self._services[key].download(image)

    def close(self) -> None:
        """Close the services. Idempotent."""
        while self._services:
            self._services.popitem()[1].close()


def recover_replies(
    *,
    listing: bool,
    as_json: bool,
    output: str | None,
    drop: tuple[str, ...],
    state_folder: str | None,
    api_key_file: str | None = None,
    **settings: Any,
) -> int:
    """List, recover or delete the replies in the spool; collect the jobs that are ready.

    Args:
        listing: only list them.
        as_json: print a JSON object instead of lines.
        output: the target of the images, as for `create`.
        drop: ids of replies to delete.
        state_folder: the value of ``--state-folder``.
        api_key_file: the value of ``--api-key-file``, for the polls of jobs.
        settings: arguments of the service that downloads images, by name.

    Returns:
        0 if nothing is left, 9 if a reply is, 10 if a job is, 2 if an id of `drop` is unknown.

    Raises:
        ImgkitError: the state folder cannot be read.
    """
    spool = open_spool(values.find_state_folder(state_folder))
    downloader = Downloader(settings)
    try:
        records = spool.list_replies()
        if drop:
            return _delete_records(spool, records, drop, as_json=as_json)
        if listing:
            return _print_records(records, as_json=as_json)
        plan = output_paths.build_save_plan(output, force=False, sidecar=True)
        plan.check()
        finished = [record for record in records if record.state != "running"]
        run = jobs.open_run(state_folder, as_json, api_key_file, **settings)
        recovered, remaining = _recover_records(spool, finished, plan, downloader, run)
        pending = jobs.read_records(run.store)
        collected, code = jobs.collect_records(run, pending, output, jobs.COLLECT_TIMEOUT_S)
        if not finished and not pending:
            console.print_message("imgkit: There are no replies to recover.")
        if as_json:
            more = {"jobs": collected} if collected else {}
            console.write_bytes(report.encode_json({"records": recovered, **more}))
        return exit_codes.PARTIAL if remaining else code
    except OSError as error:
        raise values.unusable_folder_error(spool.folder, error) from None
    finally:
        downloader.close()


def _delete_records(
    spool: Spool, records: list[SpooledReply], names: tuple[str, ...], *, as_json: bool
) -> int:
    records_by_id = {record.id: record for record in records}
    unknown = [name for name in names if name not in records_by_id]
    for name in unknown:
        console.print_message(f"imgkit: Unknown reply {name!r}. `imgkit recover --list` lists the replies.")
    busy = [name for name in names if name in records_by_id and not spool.drop(records_by_id[name])]
    for name in busy:
        console.print_message(f"imgkit: {name} was not deleted: a running call is writing it.")
    if as_json:
        dropped = [name for name in names if name not in (*unknown, *busy)]
        console.write_bytes(report.encode_json({"dropped": dropped, "unknown": unknown, "busy": busy}))
    return exit_codes.USAGE if unknown else exit_codes.PARTIAL if busy else exit_codes.OK


def _print_records(records: list[SpooledReply], *, as_json: bool) -> int:
    if as_json:
        return console.write_bytes(report.encode_json({"records": list(map(_to_json, records))}))
    if not records:
        console.print_message("imgkit: There are no replies to recover.")
    return console.write_text("".join(f"{_format_record(record)}\n" for record in records))


def _format_record(record: SpooledReply) -> str:
    prompt = str(record.facts.get("prompt") or "")[:60]
    state = "a call that runs" if record.state == "running" else record.why
    line = (
        f"{record.id}  {_format_age(record)}  {record.size_bytes / 1e6:.1f} MB  "
        f"{record.facts.get('operation') or 'unknown request'}  {prompt!r}  {state}"
        f"{'; recovered as far as possible' if record.recovered_to else ''}"
    )
    # Names of folders and damaged facts may hold line breaks, which would look like further replies.
    return line.replace("\n", "\\n").replace("\t", "\\t")


def _recover_records(
    spool: Spool, records: list[SpooledReply], plan: SavePlan, downloader: Downloader, run: jobs.JobRun
) -> tuple[list[dict[str, Any]], int]:
    """Recover replies; return their facts for ``--json``, and the number of those that stay."""
    recovered: list[dict[str, Any]] = []
    remaining = 0
    for record in records:
        known, paths = record.saved_images, list(record.recovered_to)
        if paths:  # an earlier run has saved all that is readable
            reason = "it was recovered before, as far as possible"
        elif (job := recover(record).job) is not None:
            reason = _restore_job(run, job)
        else:
            saved, reason, saved_all = _save_images(record, plan, downloader)
            paths = list(saved.values())
            if reason and saved_all:
                spool.mark(record, paths)
            elif reason and saved:
                spool.mark_saved(record, saved)
        if reason:
            remaining += 1
            console.print_message(
                f"imgkit: {record.id} stays in {record.folder} ({reason}). "
                f"`imgkit recover --drop {record.id}` deletes it."
            )
        else:
            spool.drop(record)
        recovered.append({**_to_json(record), "images": paths, "stays": reason or None})
        if not run.as_json and not record.recovered_to:
            console.write_paths([path for path in paths if path not in known.values()])
    return recovered, remaining


def _restore_job(run: jobs.JobRun, job: Job) -> str:
    """Write the record of a job that its call could not write; return the reason if that fails, else ""."""
    try:
        run.store.check()
        if run.store.find(job.id) is None:
            run.store.save(job)
    except (OSError, ImgkitError) as error:
        return f"the record of its job could not be written: {error}"
    return ""


def _save_images(
    record: SpooledReply, plan: SavePlan, downloader: Downloader
) -> tuple[dict[int, str], str, bool]:
    """Save the images of a reply, and download those that are still at their URLs.

    Returns:
        The paths of the images by index, those of an earlier run included; the reason why the reply must
        stay, "" if it need not; and whether all readable images were saved, so that another run would
        save none.
    """
    found = recover(record)
    paths = record.saved_images
    saved_all = True
    reason = "" if found.whole else record.why if not found.images else "a part of it is not readable"
    for image in found.images:
        if image.index in paths:
            continue
        if isinstance(image.source, UrlSource):
            try:
                with show_activity(f"downloading image {image.index + 1}"):
                    image = downloader.download(record, image)
            except ImgkitError as error:
                path = salvage.save_url(image, plan.folder)
                console.print_message(
                    f"imgkit: {format_error(error)} The URL of image {image.index + 1} was saved to {path}."
                )
                reason, saved_all = "an image is still at its URL", False
                continue
        try:
            paths[image.index] = str(plan.write(image, len(found.images)).absolute())
        except ImgkitError as error:
            console.print_message(f"imgkit: {format_error(error)}")
            reason, saved_all = "an image could not be saved", False
        else:
            if image.index in found.damaged:
                console.print_message(f"imgkit: {paths[image.index]} is incomplete: the reply was cut off.")
    return paths, reason, saved_all


def _to_json(record: SpooledReply) -> dict[str, Any]:
    return {
        "id": record.id,
        "state": record.state,
        "why": None if record.state == "running" else record.why,
        "folder": str(record.folder),
        "bytes": record.size_bytes,
        "recovered_to": list(record.recovered_to),
        **{name: record.facts.get(name) for name in _FACTS},
    }


def _format_age(record: SpooledReply) -> str:
    started_at = record.facts.get("started_at")
    minutes = (time.time() - started_at) / 60 if isinstance(started_at, int | float) else 0
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 60 / 24:.0f} d"
