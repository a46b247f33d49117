"""`imgkit models`, and what the command says of money before and after."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.support import imgkit

MINE = 'hosts = ["compatible"]\n[[models]]\nid = "mine"\nlike = "gpt-image-2"\n'


def test_listing(tmp_path: Path) -> None:
    """A line a model with operations, prices, date and end; the user's own are among them."""
    (tmp_path / "mine.toml").write_text(MINE)
    done = imgkit("models", "--models", "mine.toml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = {line.split()[0]: line for line in done.stdout.decode().splitlines()}
    assert "create, edit" in lines["gpt-image-2"]
    assert "5 / 8 / 30 USD" in lines["gpt-image-2"]
    assert "(read 2026-11-23)" in lines["gpt-image-2"]
    assert "2026-05-12" in lines["dall-e-2"]
    assert "(your own)" in lines["mine"]
    told = json.loads(imgkit("models", "--json", cwd=tmp_path, env={"IMGKIT_MODELS": "mine.toml"}).stdout)
    assert {one["id"] for one in told["models"]} == set(lines)
    assert all(rule["field"] for one in told["models"] for rule in one["rules"])


def test_one_model(tmp_path: Path) -> None:
    """All that is known of it, each line with a source; a snapshot is found by its own name."""
    done = imgkit("models", "gpt-image-2-2026-04-21", cwd=tmp_path)
    text = done.stdout.decode()
    assert text.splitlines()[0] == "gpt-image-2"
    assert "response_format    not taken" in text
    numbers = {line.rpartition("[")[2].rstrip("]") for line in text.splitlines()[1:] if line.startswith("  ")}
    assert all(f"\n[{number}] " in text for number in numbers)
    missing = imgkit("models", "gpt-image-3", cwd=tmp_path)
    assert missing.returncode == 1
    assert b"did you mean" in missing.stderr


def test_dry_run_tells_the_estimate(tmp_path: Path) -> None:
    """With bounds and the date of the prices; how many requests it would take is told too."""
    more = ("--backend", "requests", "--model", "gpt-image-2", "--dry-run")
    done = imgkit("create", "a fox", "--n", "25", "--quality", "high", *more, cwd=tmp_path)
    assert b"imgkit: estimated cost: 3.12" in done.stderr
    assert b"USD (prices of 2026-11-23)" in done.stderr
    assert b"(3 such requests" in done.stdout
    told = json.loads(imgkit("create", "a fox", "--json", *more, cwd=tmp_path).stdout)
    assert told["estimate"]["currency"] == "USD"
    wrong = imgkit("create", "a fox", "--size", "1500x1000", *more, cwd=tmp_path)
    assert wrong.returncode == 2
    assert b"1504x1008" in wrong.stderr
    dropped = imgkit(
        "create", "a fox", "--size", "1500x1000", "--on-unsupported", "drop", *more, cwd=tmp_path
    )
    assert dropped.returncode == 0
    assert b"size" not in dropped.stdout


def test_cost_of_what_is_offline(tmp_path: Path) -> None:
    """It is 0, and says why."""
    done = imgkit("create", "a fox", "--size", "64x64", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert told["cost"]["amount"] == "0"
    assert told["cost"]["note"].startswith("offline")
