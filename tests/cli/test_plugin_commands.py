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
LATE = BROKEN.replace("raise", "yield\n    raise")
EXITS = BROKEN.replace('raise RuntimeError("out of order")', "raise SystemExit(3)")
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
        (LATE, "out of order"),
        (EXITS, "SystemExit: 3"),
        (WRONG, "instead of a click.Command"),
        (TAKEN, "imgkit itself and plugin 'bad'"),
    ],
)
def test_failing_plugin(tmp_path: Path, source: str, output: str) -> None:
    """Keeps the commands of imgkit and of other plugins working, with one line about the plugin."""
    install(tmp_path, "bad", source)
    install(tmp_path, "well", GOOD)
    assert run_with_plugins(tmp_path, "create", "a fox", "-o", "x.png", *SMALL)[0] == 0
    assert run_with_plugins(tmp_path, "--help")[::2] == (0, "")
    code, out, err = run_with_plugins(tmp_path, "well", "you")
    assert (code, out) == (0, "hello you\n")
    (line,) = err.splitlines()
    assert line.startswith("imgkit: ")
    assert output in line
    assert "imgkit-bad" in line
    code, _, err = run_with_plugins(tmp_path, "no-such")
    assert (code, len(err.splitlines())) == (2, 3)
    assert "No such command" in err


PRINTS = """
print("printed at import")
""" + GOOD.replace("    def run", '    print("printed by the hook")\n    def run')
BROKEN_IMPORT = "raise RuntimeError('two\\nlines')"


def test_plugins_that_print_keep_standard_output_clean(tmp_path: Path) -> None:
    """Sends what a plugin prints while it loads to standard error; its command prints as ever."""
    install(tmp_path, "good", PRINTS)
    assert run_with_plugins(tmp_path, "good", "you") == (
        0,
        "hello you\n",
        "printed at import\nprinted by the hook\n",
    )
    code, out, err = run_with_plugins(tmp_path, "create", "a fox", "-o", "x.png", *SMALL)
    assert (code, out) == (0, "x.png\n")
    assert "printed at import" in err


def test_a_broken_plugin_is_one_line(tmp_path: Path) -> None:
    """Names a plugin that cannot be imported in one line, without a Python warning."""
    install(tmp_path, "bad", BROKEN_IMPORT)
    code, out, err = run_with_plugins(tmp_path, "create", "a fox", "-o", "x.png", *SMALL)
    assert (code, out) == (0, "x.png\n")
    lines = [line for line in err.splitlines() if "imgkit-bad" in line]
    assert lines == ["imgkit: plugin 'bad' (imgkit-bad 1.2) is left out: RuntimeError: two lines"]
    assert "Warning" not in err
    code, out, err = run_with_plugins(tmp_path, "plugins", "--load")
    assert (code, err) == (0, "")
    assert "broken: RuntimeError: two lines" in out


def test_two_plugins_with_one_command(tmp_path: Path) -> None:
    """Names both plugins if they have a command of one name."""
    install(tmp_path, "good", GOOD)
    install(tmp_path, "same", SAME)
    install(tmp_path, "third", GOOD)
    code, _, err = run_with_plugins(tmp_path, "good", "you")
    assert code == 2
    assert run_with_plugins(tmp_path, "third", "you") == (0, "hello you\n", "")
    assert "'good' (imgkit-good 1.2)" in err
    assert "'same' (imgkit-same 1.2)" in err
