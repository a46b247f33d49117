"""The child processes of tests: their signals, and their end."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.support.processes import SIGNALS, child_processes, run_in_fork, run_process

DISPOSITIONS = """
import signal
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
print([signal.getsignal(number) is signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGHUP)])
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_child_starts_with_default_signals(number: signal.Signals) -> None:
    """A child finds the default signals even if its parent ignores one, as under nohup."""
    usual = signal.signal(number, signal.SIG_IGN)
    try:
        done = run_process([sys.executable, "-c", DISPOSITIONS], capture_output=True, text=True)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, usual)
    assert done.stdout.splitlines() == ["True", "[True, True]"]


def test_a_child_ends_with_its_block() -> None:
    """A child that still runs is killed and reaped, also when the block fails."""
    with pytest.raises(ZeroDivisionError), child_processes() as children:
        child = children.start([sys.executable, "-c", "import time; time.sleep(60)"])
        raise ZeroDivisionError
    assert child.returncode == -signal.SIGKILL


def test_a_fork_returns_its_result(capfd: pytest.CaptureFixture[str]) -> None:
    """A fork exits with 0 for True, with 1 for False, and with 2 and a traceback for an error."""
    assert [run_in_fork(lambda: True), run_in_fork(lambda: False)] == [0, 1]

    def fail() -> bool:
        raise ZeroDivisionError

    assert run_in_fork(fail) == 2
    assert "ZeroDivisionError" in capfd.readouterr().err
