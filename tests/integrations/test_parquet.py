"""Rows of a run from Parquet files."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from imgkit import ImageService, InvalidRequestError


def carry_out(path: Path, folder: Path, **options: Any) -> dict[str, str]:
    """Carry out the rows of a file; return their states."""
    with ImageService() as images, images.bulk(path, folder=folder, **options) as outcomes:
        return {outcome.id: outcome.state for outcome in outcomes}


def write(path: Path, **columns: Any) -> Path:
    """Write a Parquet file and return its path."""
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


def test_a_run_from_parquet(tmp_path: Path) -> None:
    """Ids that pandas has made floats are whole numbers, missing cells are left out, texts stay texts."""
    path = write(
        tmp_path / "rows.parquet",
        id=[1.0, 2.0, 30.0],
        prompt=["007", "a hen", "a cat"],
        size=["32x32", None, "32x32"],
        n=[math.nan, 2.0, 1.0],
    )
    states = carry_out(path, tmp_path / "out", defaults={"size": "64x64"})
    assert states == {"1": "done", "2": "done", "30": "done"}
    assert carry_out(path, tmp_path / "out", defaults={"size": "64x64"}) == {}
    listed = (tmp_path / "out" / "metadata.jsonl").read_text()
    assert len(listed.splitlines()) == 4
    assert '"prompt": "007"' in listed


@pytest.mark.parametrize("cut", [4, 200])
def test_a_file_that_is_cut_off(cut: int, tmp_path: Path) -> None:
    """A file without its end is no Parquet file, and nothing is sent."""
    path = write(tmp_path / "rows.parquet", prompt=["a fox"] * 500)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(InvalidRequestError, match="no Parquet file, or it is cut off"):
        carry_out(path, tmp_path / "out")


def test_wrong_rows(tmp_path: Path) -> None:
    """Wrong rows are named by their number, and a wrong column before all rows."""
    path = write(tmp_path / "a.parquet", prompt=["a fox", "", "x"], id=["a", "b", "a"])
    with pytest.raises(InvalidRequestError, match=r"row 2 \('b'\): .* row 3 \('a'\): .* The other is row 1"):
        carry_out(path, tmp_path / "out")
    path = write(tmp_path / "b.parquet", promt=["a fox"])
    with pytest.raises(InvalidRequestError, match="did you mean 'prompt'"):
        carry_out(path, tmp_path / "out")
    path = write(tmp_path / "c.parquet", prompt=pyarrow.array([], pyarrow.string()))
    with pytest.raises(InvalidRequestError, match="has no requests"):
        carry_out(path, tmp_path / "out")


def test_parquet_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input may be Parquet, too."""
    data = write(tmp_path / "rows.parquet", prompt=["a fox"]).read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert carry_out(Path("-"), tmp_path / "out", defaults={"size": "32x32"}) == {"1": "done"}
