"""The export of a run, read by the library webdataset."""

from __future__ import annotations

import gc
import io
from hashlib import sha256
from pathlib import Path

import PIL.Image
import pytest
import webdataset

from imgkit import ImageService
from imgkit.cli.run import run

# Names that a loader might take for paths, extensions or splits.
IDS = ("train.2", "a/b.png", "../up", "é 🦊", "0", "x" * 900)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves them to Python
@pytest.mark.parametrize("place", ["shards", "all.tar"])
def test_webdataset_reads_the_export(tmp_path: Path, place: str) -> None:
    """Each image arrives once, beside its own facts, in the order of the rows."""
    rows = [{"id": name, "prompt": f"fox {number}\n"} for number, name in enumerate(IDS)]
    with ImageService() as images:
        defaults = {"size": "32x32", "n": 2}
        outcomes = list(images.bulk(rows, folder=tmp_path / "out", defaults=defaults))
    assert {outcome.state for outcome in outcomes} == {"done"}
    target = tmp_path / place
    assert run(["bulk", "export", str(tmp_path / "out"), "-o", str(target), "--max-images", "5"]) == 0
    urls = [str(path) for path in (sorted(target.glob("*.tar")) if target.is_dir() else [target])]
    assert len(urls) == (3 if place == "shards" else 1)
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("pil"))
    assert [sample["json"]["id"] for sample in samples] == [name for name in IDS for _ in range(2)]
    assert len({sample["__key__"] for sample in samples}) == 12
    assert {sample["png"].size for sample in samples} == {(32, 32)}
    raw = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    for sample, plain in zip(samples, raw, strict=True):
        assert sha256(plain["png"]).hexdigest() == sample["json"]["sha256"]
        assert PIL.Image.open(io.BytesIO(plain["png"])).size == (32, 32)
    del samples, raw
    gc.collect()
