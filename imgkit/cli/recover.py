"""`imgkit recover`: replies that were paid for and did not arrive where they belong become pictures."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from imgkit.billing.spool import Spool, SpooledReply
from imgkit.cli import console as streams
from imgkit.cli import exit_codes as exits
from imgkit.cli import output_paths as targets
from imgkit.cli import salvage as rescue
from imgkit.cli import state
from imgkit.core.recovery import recover as recovered
from imgkit.default_plugins.spool import open_spool
from imgkit.errors import ImgkitError
from imgkit.images.saving import SavePlan
from imgkit.images.sources import UrlSource


def recover(
    *, listing: bool, as_json: bool, output: str | None, drop: tuple[str, ...], state_folder: str | None
) -> int:
    """List, recover or drop the replies that were kept.

    Args:
        listing: only say what there is.
        as_json: one JSON object instead of lines.
        output: where the pictures go, as for the other commands.
        drop: names of records to remove for good.
        state_folder: as the option of that name.

    Returns:
        0 if nothing is left, 9 if something is.

    Raises:
        ImgkitError: the state folder cannot be read.
    """
    spool = open_spool(state.folder(state_folder))
    try:
        records = spool.list_replies()
        if drop:
            return _drop(spool, records, drop)
        if listing:
            return _list(records, as_json=as_json)
        plan = targets.plan(output, force=False, sidecar=True)
        plan.check()
        return _recover(spool, [one for one in records if one.state != "running"], plan, as_json=as_json)
    except OSError as error:
        raise state.unusable(spool.folder, error) from None


def _drop(spool: Spool, records: list[SpooledReply], names: tuple[str, ...]) -> int:
    there = {one.id: one for one in records}
    missing = [name for name in names if name not in there]
    for name in missing:
        streams.tell(f"imgkit: there is no {name!r}: `imgkit recover --list` tells what there is")
    busy = [name for name in names if name in there and not spool.drop(there[name])]
    for name in busy:
        streams.tell(f"imgkit: {name} is being written by a call that runs: it stays")
    return exits.USAGE if missing else exits.PARTLY if busy else exits.OK


def _list(records: list[SpooledReply], *, as_json: bool) -> int:
    if as_json:
        return streams.send_text(_object([_facts(one) for one in records]))
    lines = [
        f"{one.id}  {_age(one)}  {one.size_bytes / 1e6:.1f} MB  {one.facts.get('operation')}  "
        f"{str(one.facts.get('prompt') or '')[:60]!r}  "
        f"{'a call that runs' if one.state == 'running' else one.why}"
        f"{'; recovered as far as it goes' if one.recovered_to else ''}"
        for one in records
    ]
    if not lines:
        streams.tell("imgkit: nothing is kept")
    return streams.send_text("".join(f"{line}\n" for line in lines))


def _recover(spool: Spool, records: list[SpooledReply], plan: SavePlan, *, as_json: bool) -> int:
    done: list[dict[str, Any]] = []
    staying = 0
    for record in records:
        if record.recovered_to:  # what there is of it has been saved before
            paths, rest = list(record.recovered_to), "it was recovered before, as far as it goes"
        else:
            paths, rest = _save(record, plan)
        if rest:
            staying += 1
            if paths and not record.recovered_to:
                spool.mark(record, paths)
            streams.tell(
                f"imgkit: {record.id} stays ({rest}): it is in {record.folder}; "
                f"`imgkit recover --drop {record.id}` removes it"
            )
        else:
            spool.drop(record)
        done.append({**_facts(record), "images": paths, "stays": rest or None})
        if not as_json and not record.recovered_to:
            streams.send_paths(paths)
    if not records:
        streams.tell("imgkit: nothing is kept")
    if as_json:
        streams.send_text(_object(done))
    return exits.PARTLY if staying else exits.OK


def _save(record: SpooledReply, plan: SavePlan) -> tuple[list[str], str]:
    """Save the pictures of a record; return their paths, and why it must stay ("" if it need not)."""
    found = recovered(record)
    paths: list[str] = []
    rest = "" if found.whole else record.why if not found.images else "not all of it could be read"
    for image in found.images:
        if isinstance(image.source, UrlSource):
            path = rescue.keep_url(image, plan.folder)
            streams.tell(
                f"imgkit: picture {image.index + 1} of {record.id} is still at its URL, which is kept in "
                f"{path}: fetch it within an hour of the call"
            )
            rest = rest if path else "a URL could not be written"
            continue
        try:
            paths.append(str(plan.write(image, len(found.images)).absolute()))
        except ImgkitError as error:
            streams.tell(f"imgkit: {error}")
            rest = "a picture could not be saved"
        else:
            if image.index in found.damaged:
                streams.tell(f"imgkit: {paths[-1]} is cut off: no more of it arrived")
    return paths, rest


def _facts(one: SpooledReply) -> dict[str, Any]:
    names = ("operation", "prompt", "model", "request_id", "call_id", "started_at", "backend", "base_url")
    return {
        "id": one.id,
        "state": one.state,
        "why": None if one.state == "running" else one.why,
        "folder": str(one.folder),
        "bytes": one.size_bytes,
        "recovered_to": list(one.recovered_to),
        **{name: one.facts.get(name) for name in names},
    }


def _object(records: list[dict[str, Any]]) -> str:
    return json.dumps({"schema_version": 1, "records": records}) + "\n"


def _age(one: SpooledReply) -> str:
    at = one.facts.get("started_at")
    minutes = (time.time() - at) / 60 if isinstance(at, int | float) else 0
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 60 / 24:.0f} d"


def waiting(folder: Path) -> int:
    """Return how many replies wait in a state folder to be recovered. Raises OSError."""
    return sum(one.state != "running" for one in open_spool(folder).list_replies())
