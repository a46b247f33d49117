"""The command `imgkit bulk`: many requests from a file."""

from __future__ import annotations

from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

from imgkit.bulk.bulk_values import BulkOptions, BulkProgress
from imgkit.bulk.row_files import RowFile
from imgkit.bulk.url_output import open_output
from imgkit.cli import console, options, values
from imgkit.cli.bulk_display import BulkDisplay, StopHandler
from imgkit.cli.bulk_money import Pricer, confirm_cost, count_earlier_spending, open_budget
from imgkit.cli.bulk_report import print_summary, remember_command
from imgkit.cli.bulk_steps import NextSteps
from imgkit.cli.progress import show_activity
from imgkit.errors import ConfigurationError
from imgkit.service import ImageService


def run_file(
    file: str,
    *,
    output: str,
    run_folder: str | None,
    most_in_flight: int | None,
    per_minute: float | None,
    images_per_minute: float | None,
    amend: bool,
    dedupe: bool,
    extend: bool,
    retry_unknown: bool,
    skip_invalid: bool,
    stop_after_blocked: int,
    no_prompts: bool,
    max_cost_usd: str | None,
    price_per_image: str | None,
    confirm_above: float,
    yes: bool,
    engine: str,
    scheduler: str | None,
    as_json: bool,
    api_key_file: str | None,
    state: values.RunState,
    **given: Any,
) -> int:
    """Carry out the requests of a file; repeat the command to continue.

    Returns:
        0 if all are done, 8 if the budget is reached, 9 if some are not done, 130 after Ctrl-C.

    Raises:
        ImgkitError: nothing was sent.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = {name: chosen.pop(name) for name in options.service_arguments() if name in chosen}
    settings["state_folder"] = values.find_state_folder(settings.get("state_folder"))
    if chosen.get("model") is not None and "backend" in settings:
        settings["model"] = chosen.pop("model")
    bulk_options: BulkOptions = choose_engine(engine, scheduler, api_key_file)
    if api_key_file is not None and "key_file" not in bulk_options:
        settings["api_key"] = values.read_key(api_key_file)
        state.secrets.append(settings["api_key"])
    place = Path(run_folder) if run_folder is not None else open_output(output, None).folder
    bulk_options |= {
        "defaults": chosen,
        "amend": amend,
        "dedupe": dedupe,
        "extend": extend,
        "retry_unknown": retry_unknown,
        "stop_after_blocked": stop_after_blocked,
        "has_prompts": not no_prompts,
        "progress": lambda progress: follow(progress),
    }
    if most_in_flight is not None:
        bulk_options["most_in_flight"] = most_in_flight
    if run_folder is not None:
        bulk_options["run_folder"] = run_folder
    if per_minute is not None:
        bulk_options["per_minute"] = per_minute
    if images_per_minute is not None:
        bulk_options["images_per_minute"] = images_per_minute
    invalid = _InvalidRows()
    if skip_invalid:
        bulk_options["skip"] = invalid.show
    with ExitStack() as stack:
        rows = stack.enter_context(RowFile(file))
        budget = open_budget(max_cost_usd, price_per_image, place)
        service = stack.enter_context(ImageService(**settings, plugins=[budget] if budget else []))
        outcomes = stack.enter_context(service.bulk(rows, folder=output, **bulk_options))
        run = outcomes.run
        pricer = Pricer(run.estimate, price_per_image)
        invalid.print_count()
        if run.left_out:
            console.print_message(
                f"imgkit: No longer in {file[:200]!r}, and not sent: {run.left_out} waiting "
                f"request{'' if run.left_out == 1 else 's'} of this run."
            )
        if budget is not None:
            count_earlier_spending(run, budget, pricer)
        price = pricer.estimate_run(run)
        confirm_cost(price, budget, Decimal(str(confirm_above)), yes=yes)
        next_steps = NextSteps(str(place), state.args, file)
        next_steps.needed = remember_command(run, state.args, file, output, price, budget)
        stopper = StopHandler(outcomes, service)
        stack.enter_context(stopper.watch_signals())
        line = None if as_json else stack.enter_context(show_activity("starting"))
        display = BulkDisplay(run, line, as_json=as_json)

        def follow(progress: BulkProgress) -> None:
            stopper.act()
            display.show_progress(progress)

        display.show_start(price.requests, price.high, price.unknown)
        for outcome in outcomes:
            display.show_outcome(outcome)
    return print_summary(run, budget, next_steps, stopper.exit_code, as_json=as_json)


def choose_engine(engine: str, scheduler: str | None, key_file: str | None) -> BulkOptions:
    """Return the options that choose where requests are carried out.

    The workers of another engine than "local" read the key file on their own machines.

    Raises:
        ConfigurationError: a scheduler is given, and the engine has none.
    """
    if scheduler is not None and engine != "dask":
        raise ConfigurationError("--scheduler is an address for --engine dask. Give both.")
    chosen: BulkOptions = {"engine": engine}
    if scheduler is not None:
        chosen["engine_options"] = {"scheduler": scheduler}
    if key_file is not None and engine != "local":
        chosen["key_file"] = str(Path(key_file).absolute())
    return chosen


class _InvalidRows:
    """The invalid rows that `--skip-invalid` leaves out."""

    def __init__(self) -> None:
        self._count = 0

    def show(self, problem: str) -> None:
        """Print the problem of a row."""
        self._count += 1
        console.print_message(f"imgkit: left out: {problem}")

    def print_count(self) -> None:
        """Print how many rows are left out."""
        if self._count:
            noun = "invalid row is" if self._count == 1 else "invalid rows are"
            console.print_message(f"imgkit: {self._count:,} {noun} left out.")
