"""A run's output, read by the data loaders of others."""

from __future__ import annotations

import json
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import datasets
import pytest

from imgkit import ImageService
from tests.bulk.test_bulk import carry_out
from tests.conftest import ServiceRunner
from tests.support.processes import kill_fork, start_fork

# The loader makes splits of names such as these.
IDS = ("train_2", "test", "val-1", "validation_7", "fox/../hen", "0")
PROMPTS = ('a "quoted" fox', "two\nlines", "émigré 🦊", "=1+1", " spaces ", "a, b; c")


@pytest.fixture(autouse=True)
def _offline_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def test_the_image_folder_loader_counts_every_image(tmp_path: Path) -> None:
    """Hugging Face's loader finds each image of a run, each with its own digest, in a single split."""
    rows = [{"id": name, "prompt": prompt} for name, prompt in zip(IDS, PROMPTS, strict=True)]
    with ImageService() as images:
        for part in (rows[:2], rows):  # the second run goes on
            with images.bulk(part, folder=tmp_path / "out", defaults={"size": "32x32"}) as outcomes:
                assert {outcome.state for outcome in outcomes} == {"done"}
    found = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "c")
    )
    assert list(found) == ["train"]
    table = found["train"].cast_column("image", datasets.Image(decode=False))
    assert sorted(table["id"]) == sorted(IDS)
    assert {entry["id"]: entry["prompt"] for entry in table} == dict(zip(IDS, PROMPTS, strict=True))
    for entry in table:
        assert sha256(Path(entry["image"]["path"]).read_bytes()).hexdigest() == entry["sha256"]


def test_the_loader_counts_every_image_after_kills(flavor: ServiceRunner, tmp_path: Path) -> None:
    """After kills, a line that was cut and a last run, the loader has each image of each row, once."""
    rows = [
        {
            "id": f"{IDS[number % 6]}-{number}",
            "prompt": f"{PROMPTS[number % 6]} {number}",
            "n": 1 + number % 2,
        }
        for number in range(150)
    ]
    out, path = tmp_path / "out", tmp_path / "out" / "metadata.jsonl"

    def work() -> bool:
        return bool(carry_out(flavor, rows, out, defaults={"size": "32x32"}))

    for lines in (20, 80):
        child, until = start_fork(work), time.monotonic() + 30
        while time.monotonic() < until and not (path.exists() and path.read_bytes().count(b"\n") >= lines):
            time.sleep(0.005)
        kill_fork(child)
    assert path.read_bytes().count(b"\n") < 225
    with path.open("ab") as stream:
        stream.write(b'{"file_name": "images/')
    assert work()
    found: Any = datasets.load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "cache"))
    assert list(found) == ["train"]
    table = found["train"].cast_column("image", datasets.Image(decode=False))
    images = sorted((entry["id"], entry["index"]) for entry in table)
    assert images == sorted((row["id"], index) for row in rows for index in range(int(str(row["n"]))))
    prompts = {row["id"]: row["prompt"] for row in rows}
    for entry in table:
        assert entry["prompt"] == prompts[entry["id"]]
        assert sha256(Path(entry["image"]["path"]).read_bytes()).hexdigest() == entry["sha256"]
        assert json.loads(entry["parameters"])["size"] == "32x32"
