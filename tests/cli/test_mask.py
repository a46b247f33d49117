"""The command `imgkit mask`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imgkit import masks
from imgkit.cli.run import run
from tests.cli.support import clear_environment, run_imgkit
from tests.support.pictures import picture
from tests.support.rasters import greys, opened, saved

DRAWING = greys([0, 255, 255], [0, 127, 128])
BOX = masks.from_box((30, 20), (1, 2, 10, 5))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear_environment(monkeypatch, tmp_path)
    (tmp_path / "drawing.png").write_bytes(saved(DRAWING))
    (tmp_path / "photo.jpg").write_bytes(picture("JPEG", (30, 20)))
    (tmp_path / "old.png").write_bytes(BOX)


MADE: dict[str, tuple[str, bytes]] = {
    "white": ("--from-white drawing.png --like photo.jpg", masks.from_white(DRAWING, like=(30, 20))),
    "black": ("--from-black drawing.png --size 6x4", masks.from_black(DRAWING, like=(6, 4))),
    "threshold": ("--from-white drawing.png --threshold 127", masks.from_white(DRAWING, threshold=127)),
    "a box": ("--box 1,2,10,5 --like photo.jpg", BOX),
    "boxes": (
        "--box 1,2,10,5 --box 20,2,3,3 --size 30x20",
        masks.union(BOX, masks.from_box((30, 20), (20, 2, 3, 3))),
    ),
    "polygon": (
        "--polygon 0,0_30,0_0,20 --like photo.jpg",
        masks.from_polygon((30, 20), [(0, 0), (30, 0), (0, 20)]),
    ),
    "inverted": ("--from-mask old.png --invert", masks.invert(BOX)),
    "soft": ("--from-mask old.png --feather 1.5", masks.feather(BOX, 1.5)),
    "both": ("--box 1,2,10,5 --like photo.jpg --invert --feather 2", masks.feather(masks.invert(BOX), 2)),
    "resized": ("--from-mask old.png --size 60x40", masks.resize(BOX, (60, 40))),
}  # fmt: skip


def split_command(line: str) -> list[str]:
    """Return the arguments of a command line; an underscore stands for a blank."""
    return ["mask", *(word.replace("_", " ") for word in line.split())]


@pytest.mark.parametrize("kind", MADE)
def test_make_mask(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the path, and writes the file that the library makes."""
    line, wanted = MADE[kind]
    assert run([*split_command(line), "-o", "new.png"]) == 0
    output = capsys.readouterr()
    assert (output.out, output.err) == ("new.png\n", "")
    assert Path("new.png").read_bytes() == wanted
    assert sorted(os.listdir()) == ["drawing.png", "new.png", "old.png", "photo.jpg"]


def test_existing_mask(capsys: pytest.CaptureFixture[str]) -> None:
    """Replaces an existing mask with --force only."""
    made = split_command("--box 1,2,10,5 --like photo.jpg")
    assert run(made) == 0
    assert Path("mask.png").read_bytes() == BOX
    other = split_command("--box 0,0,1,1 --like photo.jpg")
    assert run(other) == 2
    assert "'mask.png' exists. Pass --force to replace it, or choose another name." in capsys.readouterr().err
    assert Path("mask.png").read_bytes() == BOX
    assert run([*other, "--force"]) == 0
    assert Path("mask.png").read_bytes() == masks.from_box((30, 20), (0, 0, 1, 1))
    assert sorted(os.listdir()) == ["drawing.png", "mask.png", "old.png", "photo.jpg"]


REFUSED = {
    "nothing": ("", "Give one source: --from-white"),
    "two kinds": ("--from-white drawing.png --box 1,1,1,1", "Give one source: --from-white"),
    "no size": ("--box 1,1,1,1", "Give --like IMAGE or --size WxH."),
    "two sizes": ("--box 1,1,1,1 --size 4x4 --like photo.jpg", "Give either --like or --size, not both."),
    "a box of words": ("--box 1,1,one,1 --size 4x4", "Write x,y,width,height"),
    "a box of three": ("--box 1,1,1 --size 4x4", "Write x,y,width,height"),
    "two corners": ("--polygon 1,1_2,2 --size 4x4", "three corners or more"),
    "size": ("--box 1,1,1,1 --size 4", "Write WIDTHxHEIGHT"),
    "large size": ("--box 1,1,1,1 --size 999999x1", "--like or --size: 999999x1 is not a size"),
    "outside": (
        "--box 25,1,9,9 --like photo.jpg",
        "--box: (25, 1, 9, 9) is not within 30x20 pixels",
    ),
    "corner outside": (
        "--polygon 1,1_2,2_40,3 --like photo.jpg",
        "--polygon, corner 3: (40.0, 3.0)",
    ),
    "missing": ("--from-white missing.png", "--from-white: Cannot open 'missing.png'"),
    "no mask": ("--from-mask photo.jpg", "--from-mask: The mask has no transparency"),
    "shape": (
        "--from-black drawing.png --size 20x20",
        "--from-black: The size 3x2 has another shape than the image's 20x20",
    ),
    "wide": ("--from-mask old.png --feather 50", "--feather: The radius is wider than the hole"),
    "no png": ("--from-mask old.png -o mask.jpg", "--output: 'mask.jpg' is not the name of a PNG file"),
    "no folder": ("--from-mask old.png -o none/mask.png", "Cannot write 'none/mask.png' (No such file"),
    "check alone": ("--check old.png", "--check goes with --like"),
    "check and make": ("--check old.png --like photo.jpg --invert", "--check goes with --like"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_wrong_arguments(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Names the wrong option and the remedy; writes nothing."""
    line, text = REFUSED[kind]
    assert run(split_command(line)) == 2
    output = capsys.readouterr()
    assert text in output.err
    assert output.out == ""
    assert sorted(os.listdir()) == ["drawing.png", "old.png", "photo.jpg"]


def test_check(capsys: pytest.CaptureFixture[str]) -> None:
    """Reports that a mask fits, or each of its problems."""
    assert run(split_command("--check old.png --like photo.jpg")) == 0
    assert "old.png fits photo.jpg" in capsys.readouterr().err
    assert run(split_command("--check drawing.png --like photo.jpg")) == 1
    output = capsys.readouterr()
    assert "imgkit: drawing.png: The mask has no transparency" in output.err
    assert "imgkit: drawing.png: The mask has 3x2 pixels, the image 30x20" in output.err
    assert output.out == ""
    assert run(split_command("--check missing.png --like photo.jpg")) == 2


def test_mask_of_an_edit(tmp_path: Path) -> None:
    """Edits inside the mask only."""
    for line in (
        ["create", "a fox in the snow", "--size", "96x96", "-o", "fox.png"],
        ["mask", "--box", "20,30,40,40", "--like", "fox.png", "-o", "hole.png"],
        ["edit", "fox.png", "a hat", "--mask", "hole.png", "-o", "hat.png"],
    ):
        done = run_imgkit(*line, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    pages = [opened(Path(name).read_bytes()).convert("RGB") for name in ("fox.png", "hat.png")]
    assert pages[0].tobytes() != pages[1].tobytes()
    for page in pages:
        page.paste("black", (20, 30, 60, 70))
    assert pages[0].tobytes() == pages[1].tobytes()
