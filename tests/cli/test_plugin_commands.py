"""Commands of plugins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import SMALL, clear_environment, run_imgkit
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
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear_environment(monkeypatch, tmp_path)


def run_with_plugins(folder: Path, *args: str) -> tuple[int, str, str]:
    """Run the command with the plugins that are installed in a folder."""
    done = run_imgkit(*args, cwd=folder, env={"PYTHONPATH": f"{folder}:{ROOT}"})
    return done.returncode, done.stdout.decode(), done.stderr.decode()


ROOT = Path(__file__).parents[2]


def test_plugin_command(tmp_path: Path) -> None:
    """Runs the command of a plugin, and shows its help."""
    install(tmp_path, "good", GOOD)
    assert run_with_plugins(tmp_path, "good", "you") == (0, "hello you\n", "")
    assert "Say hello." in run_with_plugins(tmp_path, "good", "--help")[1]
    code, _, err = run_with_plugins(tmp_path, "no-such")
    assert code == 2
    assert "No such command" in err


@pytest.mark.parametrize(
    ("source", "output"),
    [
        (BROKEN, "out of order"),
        (WRONG, "instead of a click.Command"),
        (TAKEN, "imgkit itself and plugin 'bad'"),
    ],
)
def test_failing_plugin(tmp_path: Path, source: str, output: str) -> None:
    """Keeps imgkit's own commands working; names the plugin for an unknown command."""
    install(tmp_path, "bad", source)
    assert run_with_plugins(tmp_path, "create", "a fox", "-o", "x.png", *SMALL)[0] == 0
    assert run_with_plugins(tmp_path, "--help")[::2] == (0, "")
    code, _, err = run_with_plugins(tmp_path, "good", "you")
    assert code == 2
    assert output in err
    assert "imgkit-bad" in err


def test_two_plugins_with_one_command(tmp_path: Path) -> None:
    """Names both plugins if they have a command of one name."""
    install(tmp_path, "good", GOOD)
    install(tmp_path, "same", SAME)
    code, _, err = run_with_plugins(tmp_path, "good", "you")
    assert code == 2
    assert "'good' (imgkit-good 1.2)" in err
    assert "'same' (imgkit-same 1.2)" in err
