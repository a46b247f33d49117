"""Rows from files and iterables: each way in which they can be wrong, and that nothing was sent then."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.bulk import bulk_run as run_module
from imgkit.bulk.manifest_errors import find_mount_type
from imgkit.bulk.row_checks import RowChecks
from imgkit.bulk.row_files import RowFile
from imgkit.cli.run import run as imgkit_command
from imgkit.core.core import Core
from imgkit.core.validation import validate_for_model
from imgkit.providers.fakes import FakeApi
from tests.bulk.test_bulk import carry_out
from tests.conftest import ServiceRunner

HEAD = b"id,prompt,size\n"
FOX = b"fox,a fox,32x32\n"
PNG = FakeApi().paint("a fox", 8, 8)


def read_rows(path: Path) -> list[tuple[int, dict[str, Any], str]]:
    """Return the rows of a file."""
    with RowFile(path) as rows:
        return [(row.line, dict(row.columns), row.problem) for row in rows]


def write(folder: Path, name: str, data: bytes) -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv", b"", "It is empty"),
        ("a.jsonl", b"\xef\xbb\xbf \n", "It is empty"),
        ("a.csv", HEAD, "has no requests"),
        ("a.jsonl", b"\n" * 5000, "It is empty"),
        ("a.csv", HEAD.decode().encode("utf-16"), "UTF-16"),
        ("a.csv", HEAD.decode().encode("utf-16-be"), "UTF-16"),
        ("a.csv", b"PK\x03\x04" + bytes(30), "spreadsheet"),
        ("a.csv", b"\x1f\x8b" + bytes(30), "gzip"),
        ("a.csv", PNG, "image"),
        ("a.csv", b"PAR1" + bytes(30), r"extension \.parquet"),
        ("a.csv", b"id,prompt,prompt,id\n" + FOX, "there twice: 'id', 'prompt'|there twice: 'prompt', 'id'"),
        ("a.csv", b"id,prompt,\n" + FOX, "Column 3 has no name"),
        ("a.csv", b"id,promt\n" + FOX, "did you mean 'prompt'"),
        ("a.csv", b"n,size\n2,32x32\n", "No column is named 'prompt' or 'image'"),
        ("a.csv", b"prompt,caf\xe9\n", "Byte 11 of line 1 is not UTF-8"),
        ("a.csv", HEAD + FOX + b'b,"a hen\nc,a cat\n', "In line 3, a quote opens and never closes"),
        ("a.csv", HEAD.replace(b"\n", b"\r") + FOX, "carriage return"),
        ("a.txt", FOX, "no known extension"),
        ("a\0.csv", None, "Cannot read"),
        ("none.csv", None, "Cannot read"),
    ],
)
def test_files_that_are_no_rows(name: str, data: bytes | None, words: str, tmp_path: Path) -> None:
    """A file that cannot be read as rows says so, with the line where there is one."""
    path = tmp_path / name if data is None else write(tmp_path, name, data)
    with pytest.raises(imgkit.InvalidRequestError, match=words):
        read_rows(path)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a"])
def test_a_folder_is_no_file(name: str, tmp_path: Path) -> None:
    """A folder in place of a file is named as one."""
    (tmp_path / name).mkdir()
    with pytest.raises(imgkit.InvalidRequestError, match="is a folder"):
        read_rows(tmp_path / name)


def test_cells(tmp_path: Path) -> None:
    """Texts stay texts, other cells are numbers and JSON; rows know their lines behind quoted newlines."""
    path = write(
        tmp_path,
        "a.csv",
        b"\xef\xbb\xbfid,prompt,n,resolution,image,model_options.steps,model_options.lora\n\n"
        b'007,007,2,512,,1.5,"{""a"": [1]}"\n'
        b'1,"two\nlines",,,"[""a.png"", ""b.png""]",NaN,007\n'
        b"2,caf\xe9\n3,nul\0\n4,a,b,c,d,e,f,g\n5\n"
        b'6,"x"y\n7,"x\n\xe9"\n8,fin\n',
    )
    assert read_rows(path) == [
        (3, {"id": "007", "prompt": "007", "n": 2, "resolution": "512", "model_options.steps": 1.5,
             "model_options.lora": {"a": [1]}}, ""),
        (4, {"id": "1", "prompt": "two\nlines", "image": ["a.png", "b.png"], "model_options.steps": "NaN",
             "model_options.lora": "007"}, ""),
        (6, {"id": "2", "prompt": "caf\ufffd"}, "Byte 6 of line 6 is not UTF-8. Save the file as UTF-8."),
        (7, {"id": "3", "prompt": "nul\0"}, "Line 7 has a NUL byte. Remove it."),
        (8, {"id": "4", "prompt": "a", "n": "b", "resolution": "c", "image": "d", "model_options.steps": "e",
             "model_options.lora": "f"}, "It has 8 cells, and the header 7. Quote commas."),
        (9, {"id": "5"}, ""),
        (10, {}, "It is no row of a table (',' expected after '\"'). Double a quote that is meant."),
        (11, {"id": "7", "prompt": "x\n\ufffd"}, "Byte 1 of line 12 is not UTF-8. Save the file as UTF-8."),
        (13, {"id": "8", "prompt": "fin"}, ""),
    ]  # fmt: skip


def test_json_lines(tmp_path: Path) -> None:
    """A line that is no JSON object says why; blank lines count as lines."""
    lines = [
        b'{"id": 1, "prompt": "a"}',
        b"",
        b"[1]",
        b"{",
        b'{"id": 1, "id": 2}',
        b'{"seed": NaN}',
        b"[" * 9**5,
    ]
    found = read_rows(write(tmp_path, "a.NDJSON", b"\n".join(lines)))
    assert found[0] == (1, {"id": 1, "prompt": "a"}, "")
    problems = ["no JSON object", "It is no JSON", "'id' is there twice", "NaN is no number", "It is no JSON"]
    assert [row[0] for row in found[1:]] == [3, 4, 5, 6, 7]
    for row, problem in zip(found[1:], problems, strict=True):
        assert problem in row[2]


@pytest.mark.parametrize(
    ("data", "prompt"),
    [
        (b'\xef\xbb\xbf \n{"prompt": "a fox"}', "a fox"),
        (b"prompt\tsize\na fox, red\t32x32\n", "a fox, red"),
        (b"size,prompt\n32x32,a fox\n", "a fox"),
    ],
)
def test_standard_input(data: bytes, prompt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The beginning of standard input tells its kind."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert [row[1]["prompt"] for row in read_rows(Path("-"))] == [prompt]


@pytest.mark.parametrize("name", ["rows.csv", "63"])
def test_a_pipe_as_the_file(name: str, tmp_path: Path) -> None:
    """A named pipe is read as a stream, with or without an extension."""
    path = tmp_path / name
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(HEAD + FOX * 9000,))
    writer.start()
    assert len(read_rows(path)) == 9000
    writer.join()


def test_all_invalid_rows_are_named(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Every wrong row is named with line, id and cause before anything is sent, missing images among them."""
    write(tmp_path, "in.png", PNG)
    write(tmp_path, "text.png", b"hello")
    write(tmp_path, "cut.png", PNG[:-8])
    rows = "".join(f"r{number},a fox,{tmp_path}/in.png,,\n" for number in range(3000))
    bad = (
        f"b1,,,,\nb2,x,{tmp_path}/none.png,,\nb3,x,{tmp_path}/in.png,{tmp_path}/text.png,\n"
        f"b4,x,{tmp_path}/cut.png,,\nb5,x,{tmp_path},,\nr7,x,,,\n,x,,,sing\nb6,x,,,\n"
    )
    path = write(tmp_path, "a.csv", f"id,prompt,image,mask,operation\n{rows}{bad}".encode())
    with pytest.raises(imgkit.InvalidRequestError) as caught:
        carry_out(flavor, path, tmp_path / "out")
    for words in (
        "line 3002 ('b1'): prompt: ", "line 3003 ('b2'): image: Cannot open", "line 3004 ('b3'): mask: ",
        "line 3005 ('b4'): image: The file is a png image that is cut off", "line 3006 ('b5'): image: ",
        "line 3007 ('r7'): id: Two rows have the id 'r7'. The other is line 9.",
        "line 3008: operation: Unknown operation 'sing'",
    ):  # fmt: skip
        assert words in str(caught.value)
    assert "b6" not in str(caught.value)
    problems: list[str] = []
    _, run = carry_out(flavor, path, tmp_path / "out", most=1, skip=problems.append)
    assert len(problems) == 7
    assert sum(run.counts.values()) == 3001


def test_many_invalid_rows(flavor: ServiceRunner, tmp_path: Path) -> None:
    """An error lists twenty rows and counts the others."""
    with pytest.raises(imgkit.InvalidRequestError, match="row 20: .* 480 more rows are invalid") as caught:
        carry_out(flavor, [{"prompt": ""}] * 500, tmp_path / "out")
    assert "row 21" not in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1, "1"], "Two rows have the id '1'. The other is row 1."),
        (["2", None], "Two rows have the id '2'"),
        ([True], "text or a whole number"),
        ([1.5], "text or a whole number"),
        ([["a"]], "text or a whole number"),
        (["\ud800"], "half a surrogate"),
        ([" "], "1 to 1000 characters"),
    ],
)
def test_ids(flavor: ServiceRunner, ids: list[object], words: str, tmp_path: Path) -> None:
    """A number and its digits are the same id; another value is no id."""
    with pytest.raises(imgkit.InvalidRequestError) as caught:
        carry_out(flavor, [{"id": each, "prompt": "x"} for each in ids], tmp_path)
    assert words in str(caught.value)


def test_defaults_that_an_operation_lacks(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Defaults fill the columns that the operation of a row has; short names of operations work."""
    image = str(write(tmp_path, "in.png", PNG))
    rows = [{"operation": "variation", "image": image}, {"operation": "create", "prompt": "x"}]
    found, _ = carry_out(flavor, rows, tmp_path / "out", defaults={"size": "32x32", "quality": "low"})
    assert [outcome.state for outcome in found] == ["done", "done"]


def test_an_iterable_that_raises(
    flavor: ServiceRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception of the iterable surfaces once all in flight have ended; what was read waits."""
    monkeypatch.setattr(run_module, "CHUNK", 2)

    def prompts() -> Iterator[str]:
        yield from ["a", "b", "c"]
        raise LookupError("no more")

    found: list[Any] = []

    def now(service: Any) -> None:
        with service.bulk(prompts(), folder=tmp_path, defaults={"size": "32x32"}) as outcomes:
            found.extend(outcomes.run for _ in outcomes)

    async def later(service: Any) -> None:
        async with service.bulk(prompts(), folder=tmp_path, defaults={"size": "32x32"}) as outcomes:
            async for _ in outcomes:
                found.append(outcomes.run)

    with pytest.raises(LookupError, match="no more"):
        flavor.run(now if flavor.flavor == "sync" else later)
    assert found[-1].counts["done"] == len(found) == 2
    again, _ = carry_out(flavor, iter(["a", "b", "c"]), tmp_path, defaults={"size": "32x32"})
    assert [outcome.id for outcome in again] == ["3"]


@pytest.mark.parametrize("bad", [{"prompt": ""}, {"id": "1", "prompt": "x"}])
def test_a_wrong_row_of_a_later_chunk(
    flavor: ServiceRunner, bad: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong row in an iterable ends the run behind the rows before it, and names its number."""
    monkeypatch.setattr(run_module, "CHUNK", 2)
    with pytest.raises(imgkit.InvalidRequestError, match="row 4"):
        carry_out(flavor, iter(["a", "b", "c", bad]), tmp_path, defaults={"size": "32x32"})
    found, _ = carry_out(flavor, iter(["a", "b", "c"]), tmp_path, defaults={"size": "32x32"})
    assert [outcome.id for outcome in found] == ["3"]


def test_rows_that_are_no_longer_given(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Rows that wait but are not in the list any more are kept, counted and not sent."""
    rows = [{"id": name, "prompt": name} for name in "abcd"]
    carry_out(flavor, rows, tmp_path, most=0, defaults={"size": "32x32"}, most_in_flight=1)
    found, run = carry_out(flavor, rows[2:], tmp_path, defaults={"size": "32x32"})
    assert {outcome.id for outcome in found} <= {"c", "d"}
    assert run.counts["waiting"] == 0
    left_out = run.left_out
    found, run = carry_out(flavor, rows, tmp_path, defaults={"size": "32x32"})
    assert (len(found), run.counts["done"], run.left_out) == (left_out, 4, 0)


def test_the_folder_of_another_run(flavor: ServiceRunner, tmp_path: Path) -> None:
    """A folder whose run has none of the requests is refused, and stays as it is, unless it is extended."""
    defaults = {"size": "32x32"}
    carry_out(flavor, [{"id": "a", "prompt": "a"}], tmp_path, defaults=defaults)
    for rows in ([{"id": "b", "prompt": "b"}], iter([{"id": "b", "prompt": "b"}])):
        with pytest.raises(imgkit.ConfigurationError, match="belongs to another run"):
            carry_out(flavor, rows, tmp_path, defaults=defaults)
    _, run = carry_out(flavor, [{"id": "a", "prompt": "a"}], tmp_path, defaults=defaults)
    assert sum(run.counts.values()) == 1
    _, run = carry_out(flavor, [{"id": "b", "prompt": "b"}], tmp_path, defaults=defaults, extend=True)
    assert run.counts["done"] == 2


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/out", "nfs4"), ("/data", "nfs4"), ("/database", None), ("/data/disk/x", None), ("/", None),
        ("/my files/x", "fuse.sshfs"), ("/c/x", "9p"),
    ],
)  # fmt: skip
def test_network_file_systems(path: str, kind: str | None) -> None:
    """The innermost mount decides whether a folder is on a network file system."""
    mounts = ["rootfs / 9p rw 0 0", "host:/x /data nfs4 rw 0 0", "/dev/sdb /data/disk ext4 rw 0 0",
              "me@host: /my\\040files fuse.sshfs rw 0 0", "C:\\ /c 9p rw 0 0", "bad"]  # fmt: skip
    assert find_mount_type(path, mounts) == kind


def test_a_run_folder_on_a_network(
    flavor: ServiceRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest on a network file system is refused before anything is written there."""
    mounts = write(tmp_path, "mounts", f"/dev/sda / ext4 rw 0 0\nhost:/ {tmp_path}/net nfs rw 0 0\n".encode())
    monkeypatch.setattr("imgkit.bulk.manifest_errors.MOUNTS", mounts)
    with pytest.raises(imgkit.ConfigurationError, match=r"network file system \(nfs\)"):
        carry_out(flavor, ["a fox"], tmp_path / "net" / "out")
    assert not (tmp_path / "net").exists()
    found, _ = carry_out(
        flavor, ["a"], tmp_path / "net", run_folder=tmp_path / "run", defaults={"size": "32x32"}
    )
    assert [outcome.state for outcome in found] == ["done"]


def test_the_command_leaves_invalid_rows_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`imgkit bulk` names wrong rows, and with --skip-invalid says how many it leaves out."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "a.csv", HEAD + FOX + b"b,,\nc,x,9\nfox,again,\n")
    assert imgkit_command(["bulk", "a.csv", "-o", "out"]) == 2
    error = capsys.readouterr().err
    assert "line 3 ('b')" in error
    assert imgkit_command(["bulk", "a.csv", "-o", "out", "--skip-invalid"]) == 0
    assert "3 invalid rows are left out" in capsys.readouterr().err
    write(tmp_path, "a.csv", HEAD + FOX + b"b,,\n")
    assert imgkit_command(["bulk", "a.csv", "-o", "out", "--skip-invalid"]) == 0
    assert "1 invalid row is left out" in capsys.readouterr().err
    write(tmp_path, "b.csv", HEAD + b"x,a hen,32x32\n")
    assert imgkit_command(["bulk", "b.csv", "-o", "out"]) == 2
    assert "another run" in capsys.readouterr().err
    assert imgkit_command(["bulk", "b.csv", "-o", "out", "--extend"]) == 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"defaults": {"qualty": "low"}}, "There is no column 'qualty'.*quality"),
        ({"defaults": 3}, "defaults must be a mapping, not 3"),
        ({"progress": 3}, "progress must be a function, not 3"),
        ({"engine": 3}, "engine must be a name such as 'local', or an engine, not 3"),
        ({"drain_s": -1}, "drain_s must be 0 or more seconds, not -1"),
        ({"stop_after_blocked": 0}, "stop_after_blocked must be .* from 1 to 100, not 0"),
    ],
)
def test_options_of_another_type(tmp_path: Path, options: dict[str, object], problem: str) -> None:
    """Refuses a misspelt default, and options of another type, before anything is sent."""
    with imgkit.ImageService() as images, pytest.raises(imgkit.ImgkitError, match=problem):
        list(images.bulk(["a fox"], folder=tmp_path, **options))  # type: ignore[arg-type]


def test_a_list_without_a_valid_row(tmp_path: Path) -> None:
    """Refuses a list of which all rows are left out: nothing would be made, and no error would say so."""
    problems: list[str] = []
    rows = [{"prompt": "a fox", "size": "tiny"}, {"promt": "a hen"}]
    with (
        imgkit.ImageService() as images,
        pytest.raises(imgkit.InvalidRequestError, match="All 2 are invalid"),
    ):
        list(images.bulk(rows, folder=tmp_path, skip=problems.append))
    assert len(problems) == 2


def test_values_that_a_model_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows that their models refuse are named before anything is sent, left out, or adapted."""
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("id,prompt,provider,size\na,a fox,,32x32\nb,a hen,stability,64x64\n")
    assert imgkit_command(["bulk", "a.csv", "-o", "out"]) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert "lines: line 3 ('b'): size: Provider stability takes no size for create_image." in text
    assert "Pass --on-unsupported drop to leave such fields out" in text
    assert imgkit_command(["bulk", "a.csv", "-o", "out", "--skip-invalid"]) == 0
    assert "1 done." in capsys.readouterr().err
    assert imgkit_command(["bulk", "a.csv", "-o", "out", "--on-unsupported", "drop"]) == 0
    assert imgkit_command(["bulk", "a.csv", "-o", "out"]) == 0  # rows that are done are not sent
    assert "2 done." in capsys.readouterr().err


def test_checks_of_equal_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million rows cost few checks; sizes, lengths and numbers that no row has had are checked again."""
    checked: list[object] = []

    def count(core: Core, request: Any) -> object:
        checked.append(request)
        return validate_for_model(core, request)

    monkeypatch.setattr("imgkit.bulk.row_checks.validate_for_model", count)
    with imgkit.ImageService("requests", api_key="sk-x", model="gpt-image-1") as service:
        core = service._core
    checks = RowChecks(core, lambda work: core)
    for length in (9, 32_000, *range(1, 2000), 40):
        checks.check_model({"operation": "create_image", "prompt": "x" * length, "size": "1024x1024"})
    assert len(checked) == 3
    for more in ({"prompt": "x" * 32_001}, {"size": "100x100"}, {"model_options": {"steps": 3}}):
        for _ in range(2):
            with pytest.raises(imgkit.InvalidRequestError):
                checks.check_model({"operation": "create_image", "prompt": "x", **more})
    members = [{"reasoning": {"effort": str(number)}, "seed": 10.0**number} for number in (9, 4, 5, 9)]
    for body in members:
        checks.check_model({"operation": "create_image", "prompt": "x", "n": 2, "extra_body": body})
    images = [["a.png", "b.png"], ["c.png", "d.png"], "e.png"]
    for image in images:
        checks.check_model({"operation": "create_image_edit", "prompt": "x", "image": image})
    assert len(checked) == 3 + 6 + 3 + 2
    with imgkit.ImageService("requests", provider="bfl", model="flux-kontext-pro") as service:
        bfl = service._core
    with pytest.raises(imgkit.InvalidRequestError, match="takes at most 4 of them, not 5"):
        row = {"operation": "create_image_edit", "prompt": "x", "image": ["a.png"] * 5}
        RowChecks(bfl, lambda work: bfl).check_model(row)


def test_rows_that_plugins_change(tmp_path: Path) -> None:
    """A row that a plugin changes before it is sent is not checked as it stands."""

    class NoSize:
        @imgkit.hookimpl
        def imgkit_prepare(self, request: Any, call: object) -> Any:
            return replace(request, size=None)

    rows = [{"prompt": "a hen", "provider": "stability", "size": "64x64"}]
    with imgkit.ImageService(plugins=[NoSize()]) as images:
        assert [outcome.state for outcome in images.bulk(rows, folder=tmp_path / "out")] == ["done"]
