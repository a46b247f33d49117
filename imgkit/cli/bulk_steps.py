"""The next steps of a run: the commands that go on with its requests, by their states."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_UP, Decimal
from typing import NamedTuple

from imgkit.bulk.manifest import State
from imgkit.redact import scrub

LIST = "again.jsonl"
"""The file that lists the failures."""

MAX_COMMAND_CHARACTERS = 4000
"""Longest command that is remembered, or shown."""

_ONCE = ("--retry-unknown", "--amend")
"""Options that a command which only goes on leaves out."""


class NextStep(NamedTuple):
    """A step that goes on with a run.

    Attributes:
        text: the sentence before the commands.
        commands: the commands, each on a line of its own, which no break cuts in two.
        advice: the sentence after them, "" for none.
    """

    text: str
    commands: tuple[str, ...] = ()
    advice: str = ""

    def format(self) -> str:
        """Return the step on a line."""
        commands = " and then ".join(f"`{command}`" for command in self.commands)
        return " ".join(filter(None, [self.text, commands, self.advice]))


def list_lines(steps: Sequence[NextStep]) -> Iterator[tuple[str, bool]]:
    """Yield the lines of steps: the text, and whether it is a command. Neighbours share equal commands.

    >>> repeat = ("imgkit bulk a.csv -o out",)
    >>> [line for line, _ in list_lines([NextStep("Continue:", repeat), NextStep("Collect:", repeat)])]
    ['Continue:', 'Collect:', 'imgkit bulk a.csv -o out']
    """
    for number, step in enumerate(steps, 1):
        if not step.commands:
            yield step.format(), False
            continue
        yield step.text, False
        if number == len(steps) or steps[number].commands != step.commands:
            yield from ((command, True) for command in step.commands)
        if step.advice:
            yield step.advice, False


class NextSteps:
    """The steps that go on with a run.

    Args:
        folder: the run folder.
        args: the arguments of the command that carried it out; none if they may hold a secret.
        file: the file of that command, "" if it is not known.

    Attributes:
        needed: the limit on the cost that covers all requests, None without a limit.
    """

    def __init__(self, folder: str, args: Sequence[str], file: str = "") -> None:
        self._folder = shlex.quote(folder)
        self._args = [word for word in args if word not in _ONCE]
        self._file = file
        self.needed: Decimal | None = None

    def describe(
        self, counts: Mapping[State, int], *, budget_reached: bool = False, left_out: int = 0
    ) -> list[NextStep]:
        """Return a step for each state that is not the end of a request.

        Args:
            counts: number of requests in each state.
            budget_reached: the budget has ended the run.
            left_out: number of requests that wait, but are not in the file of the command.
        """
        if left_out:
            rest = {**counts, "waiting": max(0, counts["waiting"] - left_out)}
            text = f"{left_out:,} waiting: the file of the latest command does not have them."
            step = NextStep(f"{text} Carry out a file that has them.")
            return [step, *self.describe(rest, budget_reached=budget_reached)]
        steps = []
        if counts["waiting"] and budget_reached:
            steps.append(self._raise_limit(counts["waiting"]))
        elif counts["waiting"]:
            steps.append(self._repeat(f"{counts['waiting']:,} waiting: not sent. Continue with:"))
        if counts["sending"]:
            text = "under way, or cut off when the process died. Find out with:"
            steps.append(self._repeat(f"{counts['sending']:,} sending: {text}"))
        if counts["accepted"]:
            text = "the provider is still working. Collect the images with:"
            steps.append(self._repeat(f"{counts['accepted']:,} accepted: {text}"))
        if counts["failed"]:
            text = "at no cost. Retry those that may succeed now with:"
            steps.append(self._repeat(f"{counts['failed']:,} failed: {text}"))
        if counts["blocked"]:
            them = "them and the failed ones" if counts["failed"] else "them"
            text = f"refused by the content policy. List {them}, correct the prompts, and send the list:"
            steps.append(self._correct(f"{counts['blocked']:,} blocked: {text}"))
        elif counts["failed"]:
            steps.append(self._correct("List the others, correct the lines, and send the list:"))
        if counts["unknown"]:
            text = (
                "possibly billed, but there is no image. The next run leaves them alone. To send them again, "
                "at the risk of paying twice:"
            )
            steps.append(self._repeat(f"{counts['unknown']:,} unknown: {text}", "--retry-unknown"))
        return steps

    def _repeat(self, text: str, *more: str) -> NextStep:
        """Return the step that repeats the command, with more options."""
        command = self._build_command(more)
        if command is None:
            return NextStep(
                text, (), f"the same command as before{''.join(f' with {word}' for word in more)}."
            )
        return NextStep(text, (command,))

    def _raise_limit(self, count: int) -> NextStep:
        """Return the step that goes on with a limit on the cost that covers all requests."""
        limit = "USD" if self.needed is None else f"{self.needed.quantize(Decimal('0.01'), ROUND_UP)}"
        rest = "Continue with a higher one:" if self.needed is None else "This limit covers all of them:"
        text = f"{count:,} waiting: not sent, because --max-cost is reached. {rest}"
        command = self._build_command((), max_cost=limit)
        if command is None:
            return NextStep(text, (), f"the same command as before with --max-cost {limit}.")
        return NextStep(text, (command,))

    def _correct(self, text: str) -> NextStep:
        """Return the step that lists the failures, and sends the corrected list."""
        listing = f"imgkit bulk failures {self._folder} -o {LIST}"
        sending = self.send_list(LIST)
        return NextStep(text, (listing, *sending.commands), "" if sending.commands else sending.format())

    def send_list(self, file: str) -> NextStep:
        """Return the step that sends a corrected list of failures.

        Args:
            file: the list.
        """
        command = self._build_command(("--amend",), file=file)
        if command is None:
            return NextStep(f"Run the same command on {file} with --amend.")
        return NextStep("Correct the lines, then send them again:", (command,))

    def _build_command(self, more: Sequence[str], *, file: str = "", max_cost: str = "") -> str | None:
        """Return the command for a shell; None if it may hold a secret, or is not known.

        Args:
            more: further options.
            file: another file, "" for the same.
            max_cost: another limit on the cost, "" for the same.
        """
        args = list(self._args)
        if file:
            if args.count(self._file) != 1:
                return None
            args[args.index(self._file)] = file
        if max_cost:
            args = _replace_limit(args, max_cost)
        place = args.index("--") if "--" in args else len(args)
        text = shlex.join(["imgkit", *args[:place], *more, *args[place:]])
        if not args or scrub(text, limit=MAX_COMMAND_CHARACTERS) != text:
            return None
        return text


def _replace_limit(args: Sequence[str], max_cost: str) -> list[str]:
    """Return arguments with another value of ``--max-cost``, where they have it."""
    found: list[str] = []
    for word in args:
        if found and found[-1] == "--max-cost":
            found.append(max_cost)
        else:
            found.append(f"--max-cost={max_cost}" if word.startswith("--max-cost=") else word)
    return found
