"""Commands of plugins: asked for when imgkit has none of that name, and never in the way of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import SMALL, clear, imgkit
from tests.support.plugin_packages import install

GOOD = """
import click
from imgkit import hookimpl

@hookimpl
def imgkit_commands(group):
    def run(name):
        click.echo("hello " + name)
        return 0
    return [click.Command("{name}", params=[click.Argument(["name"])], callback=run, help="Say hello.")]
"""
TAKEN = GOOD.replace('"{name}"', '"create"')
SAME = GOOD.replace('"{name}"', '"good"')
BROKEN = """
from imgkit import hookimpl

@hookimpl
def imgkit_commands(group):
    raise RuntimeError("out of order")
"""
WRONG = BROKEN.replace('raise RuntimeError("out of order")', "return ['x']")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)


def run(folder: Path, *args: str) -> tuple[int, str, str]:
    done = imgkit(*args, cwd=folder, env={"PYTHONPATH": f"{folder}:{ROOT}"})
    return done.returncode, done.stdout.decode(), done.stderr.decode()


ROOT = Path(__file__).parents[2]


def test_a_command_of_a_plugin(tmp_path: Path) -> None:
    install(tmp_path, "good", GOOD)
    assert run(tmp_path, "good", "you") == (0, "hello you\n", "")
    assert "Say hello." in run(tmp_path, "good", "--help")[1]
    code, _, err = run(tmp_path, "no-such")
    assert code == 2
    assert "No such command" in err


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (BROKEN, "out of order"),
        (WRONG, "instead of a click.Command"),
        (TAKEN, "imgkit itself and plugin 'bad'"),
    ],
)
def test_a_plugin_that_fails(tmp_path: Path, source: str, told: str) -> None:
    """Imgkit's own commands go on, the help tells, and an unknown name is its fault."""
    install(tmp_path, "bad", source)
    assert run(tmp_path, "create", "a fox", "-o", "x.png", *SMALL)[0] == 0
    assert run(tmp_path, "--help")[::2] == (0, "")
    code, _, err = run(tmp_path, "good", "you")
    assert code == 2
    assert told in err
    assert "imgkit-bad" in err


def test_two_of_one_name(tmp_path: Path) -> None:
    install(tmp_path, "good", GOOD)
    install(tmp_path, "same", SAME)
    code, _, err = run(tmp_path, "good", "you")
    assert code == 2
    assert "'good' (imgkit-good 1.2)" in err
    assert "'same' (imgkit-same 1.2)" in err
