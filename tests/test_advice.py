"""The most common messages, word for word, and their advice, followed to a success."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest

from imgkit.cli.run import run
from imgkit.models import ImagesResponse
from tests.support.advice import CASES, Case, read_messages, read_reviewed_messages
from tests.support.scenes import Scene, open_scene

WORDS_OF_PYTHON = re.compile(r"\w=[\"\u2026]|\b(?:error|image|service)\.\w+\b|\bimgkit\.\w+\.\w|\binstance\b")
WORDS_OF_THE_COMMAND = re.compile(r"--[a-z]")


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """A scene for all cases."""
    with open_scene() as opened:
        yield opened


def test_the_messages_are_complete() -> None:
    """The file has the messages of at least fifty cases, in the order of the cases."""
    assert len(CASES) >= 50
    assert list(read_reviewed_messages()) == [case.name for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_message_is_as_reviewed(scene: Scene, case: Case) -> None:
    """Both doors say what ``tests/messages.txt`` says; after a change, run `make messages` and read it."""
    assert read_messages(scene, case) == read_reviewed_messages()[case.name]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_message_has_the_words_of_its_door(case: Case) -> None:
    """The library names arguments and the command names options, never both."""
    for line in list_lines(case, "library"):
        assert not WORDS_OF_THE_COMMAND.search(re.sub("`.*?`", "", line)), line
    for line in list_lines(case, "command"):
        assert not WORDS_OF_PYTHON.search(re.sub("`.*?`", "", line)), line


@pytest.mark.parametrize("case", [case for case in CASES if case.advice], ids=lambda case: case.name)
def test_the_advice_of_the_library_arrives(scene: Scene, case: Case) -> None:
    """The message has its advice, and the call that follows the advice succeeds."""
    assert case.advice in list_lines(case, "library")[0]
    scene.enter_anew(is_mended=True)
    follow_printed_command(case, case.advice)
    result = scene.call(case.right)
    assert len(result) > 0
    assert isinstance(result, str if case.right.get("dry_run") else ImagesResponse)


@pytest.mark.parametrize("case", [case for case in CASES if case.command_advice], ids=lambda case: case.name)
def test_the_advice_of_the_command_arrives(scene: Scene, case: Case) -> None:
    """The message has its advice, and the command line that follows the advice succeeds."""
    assert case.command_advice in " ".join(list_lines(case, "command"))
    scene.enter_anew(is_mended=True)
    follow_printed_command(case, case.command_advice)
    assert scene.run(case.right)[0] == 0


def list_lines(case: Case, door: str) -> list[str]:
    """Return the reviewed lines of the library or of the command, which begin with an exit code."""
    _, *lines = read_reviewed_messages()[case.name].splitlines()
    return [line for line in lines if bool(re.match(r"  \(\d\)", line)) == (door == "command")]


def follow_printed_command(case: Case, advice: str) -> None:
    """Run the command that an advice holds between backticks, on the mask that the case means."""
    for words in re.findall("`imgkit (.*?)`", advice):
        if "--from-mask" in words:
            shutil.copy(case.wrong["mask"], "mask.png")
        assert run(words.split()) == 0
