"""A run's output, read by the data loaders of others."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import datasets
import pytest

from imgkit import ImageService

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
