"""The end of a run and its state, and the next step of each request that is not done; the export."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from heapq import merge
from pathlib import Path

from imgkit.billing.budget_store import FILE as BUDGET_FILE
from imgkit.bulk.bulk_run import BulkRun
from imgkit.bulk.export import FORMATS, ExportOptions
from imgkit.bulk.manifest import END, FILE, LOCK, STATES, BulkRow, Manifest, State
from imgkit.bulk.outcomes import LEFT, STOPPED
from imgkit.bulk.url_store import is_url
from imgkit.cli import console, exit_codes, report
from imgkit.cli.bulk_display import MOST_FAILURES
from imgkit.cli.bulk_money import BUDGET_FOLDER, RunPrice
from imgkit.cli.bulk_steps import MAX_COMMAND_CHARACTERS, NextStep, NextSteps, list_lines
from imgkit.cli.messages import format_error, format_text
from imgkit.cli.status_line import count_columns, wrap_lines
from imgkit.default_plugins.budget import LARGEST_USD, Budget
from imgkit.errors import BudgetExceededError, ConfigurationError, ImgkitError, SaveError
from imgkit.locks import FileLock
from imgkit.redact import escape_control, mask_control, scrub
from imgkit.wire.json_values import JsonMapping

COMMAND, INPUT, OUTPUT, LEFT_OUT, MONEY = "command", "file", "output", "left_out", "money"
"""Facts of a manifest: the arguments of the latest command, its file, the output folder if it is another, the
number of requests that wait, but are not in that file, and the limit on the cost with what it should be."""

_MOST_MISSING = 20


def print_summary(
    run: BulkRun, budget: Budget | None, next_steps: NextSteps, code: int | None, *, as_json: bool
) -> int:
    """Print what became of the requests, and what to do next; return the exit code.

    Args:
        run: the run, which has ended.
        budget: its budget, None for none.
        next_steps: the commands that go on with it.
        code: an exit code that outweighs the counts, None for none.
        as_json: print an event.
    """
    counts, reason = run.counts, run.stopped
    rest = {state: counts[state] for state in STATES if state != "done" and counts[state]}
    budget_reached = isinstance(reason, BudgetExceededError)
    if code is None:
        code = exit_codes.PARTIAL if rest else exit_codes.OK
        code = exit_codes.CODES_BY_ERROR[BudgetExceededError] if budget_reached else code
    text = format_error(reason) if isinstance(reason, ImgkitError) else reason
    spent = run.spent if budget is None else budget.spent
    if budget is not None and next_steps.needed is not None and next_steps.needed <= budget.limit:
        next_steps.needed = None  # requests have cost more than their estimates
    steps = next_steps.describe(counts, budget_reached=budget_reached)
    if as_json:
        facts = {
            "event": "summary",
            "counts": dict(counts),
            "spent_usd": spent,
            "left_usd": None if budget is None else budget.left,
            "stopped": text,
            "missing_ids": [*run.missing][:_MOST_MISSING],
            "next": [step.format() for step in steps],
            "exit_code": code,
        }
        console.write_bytes(report.encode_json(facts))
        return code
    if text is not None and text != STOPPED and rest:
        console.print_message(f"imgkit: Stopped: {text}")
    listed = "".join(f", {number:,} {state}" for state, number in rest.items())
    cost = f" {spent:.2f} USD spent" if spent or budget is not None else ""
    cost += f", {budget.left:.2f} left." if budget is not None else "." if cost else ""
    console.print_message(f"imgkit: {counts['done']:,} done{listed}.{cost}")
    if run.missing:
        console.print_message(f"imgkit: {_describe_missing([*run.missing])}")
    _print_steps(steps)
    return code


def _print_steps(steps: Sequence[NextStep]) -> None:
    """Print steps to standard error."""
    for line, is_command in list_lines(steps):
        if is_command:
            console.write_to_stderr(f"  {mask_control(line)}\n")
        else:
            console.print_message(f"imgkit: {line}")


def _describe_missing(ids: list[str]) -> str:
    shown = ", ".join(repr(each[:80]) for each in ids[:_MOST_MISSING])
    more = f" and {len(ids) - _MOST_MISSING:,} more" if len(ids) > _MOST_MISSING else ""
    count = "1 request" if len(ids) == 1 else f"{len(ids):,} requests"
    return (
        f"The images of {count} are missing in the output: {shown}{more}. Put their files back, and the same "
        "command lists them again."
    )


def print_status(folder: str, *, as_json: bool) -> int:
    """Print the number of requests in each state, the cost, an error and how to go on."""
    with open_manifest(folder) as manifest:
        with manifest.snapshot():
            counts, cost, problem = manifest.count(), manifest.sum_costs(), manifest.find_latest_error()
            unpriced = sum(1 for _ in manifest.list_without_cost())
        steps, left_out = _read_steps(manifest, folder), manifest.read_fact(LEFT_OUT)
        money, end = manifest.read_fact(MONEY), manifest.read_fact(END)
    budget = _open_account(Path(folder))
    spent = cost if budget is None else max(cost, budget.spent)
    owner = _find_owner(Path(folder))
    error = None
    if problem is not None:
        error = f"{problem.id}: {problem.state}: {_format_problem(problem)}"
    left_out = min(left_out, counts["waiting"]) if isinstance(left_out, int) else 0
    budget_reached = False
    if isinstance(money, dict):
        steps.needed = Decimal(money["needed"])
        budget_reached = Decimal(money["limit"]) - spent < Decimal(money["each"])
    next_steps = [] if owner else steps.describe(counts, budget_reached=budget_reached, left_out=left_out)
    if as_json:
        facts = {
            "counts": counts,
            "process": owner,
            "spent_usd": spent,
            "requests_without_cost": unpriced,
            "error": error,
            "stopped": end,
            "next": [step.format() for step in next_steps],
        }
        return console.write_bytes(report.encode_json(facts))
    lines = [f"{counts[state]:>8,}  {state}" for state in STATES if counts[state]]
    lines = lines or ["The run has no requests yet."]
    if owner is not None:
        lines.append(f"Process {owner} carries out the run.")
    if spent or budget is not None or not unpriced:
        lines.append(f"{spent:.2f} USD spent.")
    if unpriced:
        further = " further" if spent and budget is None else ""
        noun = "request" if unpriced == 1 else "requests"
        counts_as = (
            "." if budget is None else f": {'its' if unpriced == 1 else 'their'} highest price counts."
        )
        lines.append(f"The cost of {unpriced:,}{further} {noun} is not known{counts_as}")
    if error is not None:
        lines.append(f"Last error: {error}")
    if isinstance(end, str) and end not in (STOPPED, LEFT) and counts["waiting"] and not budget_reached:
        lines.append(f"Stopped: {scrub(format_text(end), limit=400)}")
    columns = count_columns(sys.stdout) if console.is_terminal(sys.stdout) else 0
    shown = [wrap_lines(line, columns) for line in lines]
    for line, is_command in list_lines(next_steps):
        shown.append(f"  {line}" if is_command else wrap_lines(line, columns))
    return console.write_text("".join(f"{line}\n" for line in shown))


def _format_problem(row: BulkRow) -> str:
    """Return the error of a row that is not done."""
    text = str(row.info.get("error") or "The process ended before a reply arrived.")
    return scrub(format_text(text), limit=400)


def list_failures(folder: str, *, output: str | None, force: bool) -> int:
    """Write the requests that failed, were refused, or are unknown, as lines that `imgkit bulk` reads.

    Args:
        folder: the run folder.
        output: the file, None for standard output.
        force: replace a file.

    Raises:
        ConfigurationError: there is no run, or the file exists.
        SaveError: the file cannot be written.
    """
    found: tuple[State, ...] = ("blocked", "failed", "unknown")
    count = 0
    with open_manifest(folder) as manifest, _open_lines(output, force=force) as write:
        rows = merge(*(manifest.list_rows(state) for state in found), key=lambda row: row.number)
        for row in rows:
            count += 1
            if count <= MOST_FAILURES:
                console.print_message(f"imgkit: {row.id[:80]}: {row.state}: {_format_problem(row)}")
            write(_format_line({"id": row.id, **row.request}))
        steps = _read_steps(manifest, folder)
    if not count:
        console.print_message("imgkit: No request of this run is blocked, failed or unknown.")
        return exit_codes.OK
    if count > MOST_FAILURES:
        console.print_message(f"imgkit: And {count - MOST_FAILURES:,} more, without their errors.")
    if output is not None:
        console.print_message(f"imgkit: {count:,} {'request' if count == 1 else 'requests'} in {output}.")
        _print_steps([steps.send_list(output)])
    return exit_codes.OK


def _format_line(facts: JsonMapping) -> bytes:
    """Return a line of JSON; a text that a terminal would act upon is escaped, which JSON reads."""
    line = json.dumps(facts, ensure_ascii=False)
    try:
        if escape_control(line) == line:
            return f"{line}\n".encode()
    except UnicodeEncodeError:  # the name of a file, in bytes that are no UTF-8
        return f"{json.dumps(facts)}\n".encode("ascii")
    return f"{json.dumps(facts)}\n".encode("ascii")


@contextmanager
def _open_lines(output: str | None, *, force: bool) -> Iterator[Callable[[bytes], object]]:
    """Yield a function that writes bytes to a file, or to standard output."""
    if output is None:
        yield console.write_bytes
        return
    path = Path(output)
    if path.exists() and not force:
        raise ConfigurationError(
            f"{output[:200]!r} exists. Nothing was written.",
            hint="Give another file, or pass --force to replace it.",
            field="overwrite",
        )
    try:
        with path.open("wb") as file:
            yield file.write
    except OSError as error:
        raise SaveError(f"Cannot write {output[:200]!r} ({error.strerror or error}).") from None


def export_run(
    folder: str,
    *,
    output: str,
    format: str,
    images: str | None,
    max_samples: int,
    max_megabytes: float,
    no_prompts: bool,
    skip_damaged: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Write the images of a run in the format of a data loader, and print the paths of the files.

    Raises:
        ConfigurationError: there is no run, or the name of the output is empty.
        ImgkitError: the files cannot be written.
    """
    if not output:
        raise ConfigurationError("The output is an empty text. Name a folder, or a file NAME.tar.")
    with open_manifest(folder) as manifest:
        counts = manifest.count()
        known, url = manifest.read_fact(OUTPUT), manifest.read_fact("target")
        if images is None and url is not None:
            raise ConfigurationError(
                f"The images of this run are at {url}. Copy them to a folder, and name it with --images."
            )
        place = Path(images or (known if isinstance(known, str) else folder))
        options = ExportOptions(
            max_samples, int(max_megabytes * 1e6), not no_prompts, skip_damaged, overwrite=force
        )
        done = FORMATS[format](manifest, place, Path(output), options)
    if as_json:
        facts = {
            "images": done.images,
            "shards": [str(path) for path in done.shards],
            "skipped": done.skipped,
        }
        return console.write_bytes(report.encode_json(facts))
    for problem in done.skipped:
        console.print_message(f"imgkit: left out: {problem}")
    rest = sum(counts.values()) - counts["done"]
    left = f" {rest:,} requests are not done, and are left out." if rest > 1 else ""
    left = " 1 request is not done, and is left out." if rest == 1 else left
    noun = "image" if done.images == 1 else "images"
    files = "1 file" if len(done.shards) == 1 else f"{len(done.shards):,} files"
    console.print_message(f"imgkit: {done.images:,} {noun} in {files}.{left}")
    return console.write_paths([str(path) for path in done.shards])


@contextmanager
def open_manifest(folder: str) -> Iterator[Manifest]:
    """Open the manifest of a run that exists, for reading: a process may carry it out meanwhile.

    Raises:
        ConfigurationError: there is none, or it cannot be read.
    """
    if not (Path(folder) / FILE).exists():
        raise ConfigurationError(f"{folder[:200]!r} holds no run: {FILE} is missing. Check the path.")
    manifest = Manifest(Path(folder), is_reader=True)
    try:
        yield manifest
    finally:
        manifest.close()


def remember_command(
    run: BulkRun, args: Sequence[str], file: str, output: str, price: RunPrice, budget: Budget | None
) -> Decimal | None:
    """Write the command into the manifest, for `imgkit bulk status`, unless it may hold a secret.

    Args:
        run: the run, before its first request.
        args: the arguments of the command.
        file: its file.
        output: its output.
        price: the estimated cost of the requests that wait.
        budget: the budget, None without a limit.

    Returns:
        The limit on the cost that covers all requests, None without a budget.
    """
    text = shlex.join(args)
    is_plain = scrub(text, limit=MAX_COMMAND_CHARACTERS) == text
    facts: dict[str, object] = {
        COMMAND: list(args) if is_plain else [],
        INPUT: file if is_plain else "",
        LEFT_OUT: run.left_out,
    }
    needed = None if budget is None else budget.spent + budget.reserved + price.high
    money = {"limit": budget.limit, "each": price.most, "needed": needed} if budget is not None else None
    facts[MONEY] = money and {name: str(amount) for name, amount in money.items()}
    place = Path(output).absolute()
    if not is_url(output) and place != run.manifest.folder.absolute():
        facts[OUTPUT] = str(place)
    for name, value in facts.items():
        run.manifest.write_fact(name, value)
    return needed


def _read_steps(manifest: Manifest, folder: str) -> NextSteps:
    """Return the steps that go on with a run, by the facts of its manifest."""
    args, file = manifest.read_fact(COMMAND), manifest.read_fact(INPUT)
    return NextSteps(folder, args if isinstance(args, list) else [], file if isinstance(file, str) else "")


def _open_account(folder: Path) -> Budget | None:
    """Return the account of a run whose cost was limited, None for none."""
    if not (folder / BUDGET_FOLDER / BUDGET_FILE).exists():
        return None
    return Budget(Decimal(LARGEST_USD), folder / BUDGET_FOLDER)


def _find_owner(folder: Path) -> int | None:
    """Return the id of the process that carries out a run, None for none."""
    try:
        owner = int((folder / LOCK).read_text())
        return owner if FileLock.is_held(folder / LOCK) else None
    except (OSError, ValueError):
        return None
