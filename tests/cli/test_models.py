"""The command `imgkit models`, and costs in other commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.cli.support import run_imgkit

MINE = 'hosts = ["compatible"]\n[[models]]\nid = "mine"\nlike = "gpt-image-2"\n'


def test_list(tmp_path: Path) -> None:
    """Prints operations, prices, date and end of each model, and of the user's own."""
    (tmp_path / "mine.toml").write_text(MINE)
    done = run_imgkit("models", "--models", "mine.toml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = {line.split()[0]: line for line in done.stdout.decode().splitlines()}
    assert "create, edit" in lines["gpt-image-2"]
    assert "5 / 8 / 30 USD" in lines["gpt-image-2"]
    assert "(read 2026-11-23)" in lines["gpt-image-2"]
    assert "2026-05-12" in lines["dall-e-2"]
    assert "(your own)" in lines["mine"]
    output = json.loads(
        run_imgkit("models", "--json", cwd=tmp_path, env={"IMGKIT_MODELS": "mine.toml"}).stdout
    )
    assert {one["id"] for one in output["models"]} == set(lines)
    assert all(rule["field"] for one in output["models"] for rule in one["rules"])


def test_one_model(tmp_path: Path) -> None:
    """Prints all facts about a model with their sources; a snapshot finds its model."""
    done = run_imgkit("models", "gpt-image-2-2026-04-21", cwd=tmp_path)
    text = done.stdout.decode()
    assert text.splitlines()[0] == "gpt-image-2"
    assert re.search(r"\n  response_format +not taken", text)
    numbers = {line.rpartition("[")[2].rstrip("]") for line in text.splitlines()[1:] if line.startswith("  ")}
    assert all(f"\n[{number}] " in text for number in numbers)
    missing = run_imgkit("models", "gpt-image-3", cwd=tmp_path)
    assert (missing.returncode, missing.stdout) == (2, b"")
    assert missing.stderr.startswith(b"imgkit: Unknown model 'gpt-image-3'. Similar: gpt-image-2, ")


def test_estimate_of_dry_run(tmp_path: Path) -> None:
    """Prints the bounds of the cost, the date of the prices and the number of requests."""
    more = ("--backend", "requests", "--model", "gpt-image-2", "--dry-run")
    done = run_imgkit("create", "a fox", "--n", "25", "--quality", "high", *more, cwd=tmp_path)
    assert b"imgkit: estimated cost: 3.12" in done.stderr
    assert b"USD (prices of 2026-11-23)" in done.stderr
    assert b"(3 such requests" in done.stdout
    output = json.loads(run_imgkit("create", "a fox", "--json", *more, cwd=tmp_path).stdout)
    assert output["estimate"]["currency"] == "USD"
    wrong = run_imgkit("create", "a fox", "--size", "1500x1000", *more, cwd=tmp_path)
    assert wrong.returncode == 2
    assert b"1504x1008" in wrong.stderr
    dropped = run_imgkit(
        "create", "a fox", "--size", "1500x1000", "--on-unsupported", "drop", *more, cwd=tmp_path
    )
    assert dropped.returncode == 0
    assert b"size" not in dropped.stdout


def test_cost_offline(tmp_path: Path) -> None:
    """Reports a cost of 0, with the reason."""
    done = run_imgkit("create", "a fox", "--size", "64x64", "--json", cwd=tmp_path)
    output = json.loads(done.stdout)
    assert output["cost"]["amount"] == "0"
    assert output["cost"]["note"].startswith("offline")
