"""The package as a whole: light to import, typed, with its names in one place."""

from __future__ import annotations

import importlib
import inspect
import sys
from ast import literal_eval
from importlib import metadata
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from pathspec import GitIgnoreSpec

import imgkit
from imgkit import errors
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply
from tests.support.processes import run_process

ROOT = Path(__file__).parent.parent
HEAVY = ("requests", "aiohttp", "marshmallow", "asyncio", "PIL", "click", "rich", "pluggy", "urllib3")

NOT_FOR_A_FIRST_CALL = (
    "imgkit.billing.spool", "imgkit.cache", "imgkit.cassettes", "imgkit.catalogue.facts",
    "imgkit.catalogue.reading", "imgkit.cli", "imgkit.core.cache_entries", "imgkit.core.cached_send",
    "imgkit.core.preparation", "imgkit.core.recording", "imgkit.core.stream", "imgkit.default_plugins.budget",
    "imgkit.default_plugins.caching", "imgkit.default_plugins.logging", "imgkit.default_plugins.recorder",
    "imgkit.default_plugins.spool", "imgkit.default_plugins.telemetry", "imgkit.images.fitting",
    "imgkit.images.pixels", "imgkit.masks", "imgkit.plugins.protocols",
    "imgkit.providers.azure", "imgkit.providers.error_codes", "imgkit.providers.error_replies",
    "imgkit.providers.openai_events", "imgkit.providers.openai_forms", "imgkit.runtime.async_driver",
    "imgkit.runtime.bridges", "imgkit.schemas.model_facts", "imgkit.testing", "imgkit.wire.event_body",
    "imgkit.wire.multipart", "imgkit.wire.sse",
)  # fmt: skip
"""Modules for other calls: edits, streams, caches, budgets, errors, known models."""

PUBLIC_NAMES: list[str] = vars(imgkit)["__all__"]

MOST_DATACLASSES = 46
"""Each costs a third of a millisecond, so values that never leave imgkit are named tuples."""

FIRST_CALL = """
import sys, encodings.idna, marshmallow, pluggy, pybase64, requests
before = set(sys.modules)
import imgkit
with imgkit.ImageService("requests", base_url={url!r}, api_key="sk-0123456789", model="m") as images:
    assert images.create_image("a fox")[0].data
new = sorted(set(sys.modules) - before)
from dataclasses import is_dataclass
print([name for name in new if any(f"{{name}}.".startswith(f"{{one}}.") for one in {unwanted!r})])
print([name for name in new if not name.startswith("imgkit")])
own = [vars(sys.modules[name]).values() for name in new if name.startswith("imgkit.")]
print(len({{id(one) for values in own for one in values if isinstance(one, type) and is_dataclass(one)}}))
"""


def run_python(program: str) -> str:
    """Run a program in a new process, with warnings as errors; return its output."""
    done = run_process(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def test_import_is_light() -> None:
    """`import imgkit` loads no HTTP library, marshmallow, asyncio, Pillow or CLI library."""
    program = f"import sys, imgkit; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run_python(program) == "[]\n"


def test_a_backend_loads_its_own_library_only() -> None:
    """A service loads the library of its own backend and no other."""
    program = (
        "import sys, imgkit; imgkit.ImageService({name!r}, base_url='http://127.0.0.1:1/v1').close();"
        "print([name for name in ('requests', 'aiohttp', 'PIL', 'asyncio') if name in sys.modules])"
    )
    assert run_python(program.format(name="requests")) == "['requests']\n"
    assert "requests" not in run_python(program.format(name="aiohttp"))


def test_a_first_call_loads_only_its_modules() -> None:
    """A call for one small image loads no module that only other calls need."""
    with WireServer(reply(200, answer(png(3)))) as server:
        output = run_python(FIRST_CALL.format(url=server.base_url, unwanted=NOT_FOR_A_FIRST_CALL))
    unwanted, library, dataclasses = output.splitlines()
    assert unwanted == "[]"
    assert set(literal_eval(library)) <= {"dataclasses", "secrets"}
    assert int(dataclasses) <= MOST_DATACLASSES


def test_all_is_the_contract() -> None:
    """`__all__` is sorted, every name in it loads, and it lists every error class."""
    assert sorted(PUBLIC_NAMES) == PUBLIC_NAMES
    for name in PUBLIC_NAMES:
        assert getattr(imgkit, name) is not None
    classes = {
        name for name, cls in vars(errors).items() if inspect.isclass(cls) and issubclass(cls, Exception)
    }
    assert classes <= set(PUBLIC_NAMES)
    with pytest.raises(AttributeError, match="nonsense"):
        imgkit.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_the_error_tree_is_complete() -> None:
    """The error tree in the docstring names every error class."""
    drawing = errors.__doc__ or ""
    for name, cls in vars(errors).items():
        if inspect.isclass(cls) and issubclass(cls, errors.ImgkitError):
            assert name in drawing


def test_both_services_are_alike() -> None:
    """The methods of both services have equal signatures and docstrings."""
    for name in ("create_image", "create_image_edit", "create_image_variation", "download"):
        ours, theirs = getattr(imgkit.ImageService, name), getattr(imgkit.AsyncImageService, name)
        assert inspect.signature(ours) == inspect.signature(theirs)
        assert ours.__doc__ == theirs.__doc__
        assert "Raises:" in ours.__doc__
        assert not inspect.iscoroutinefunction(ours)
        assert inspect.iscoroutinefunction(theirs)
        assert theirs.__qualname__ == f"AsyncImageService.{name}"


def test_types_as_users_see_them() -> None:
    """A type checker infers results and rejects unknown keywords, in strict mode."""
    done = run_process(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", str(ROOT / "tests" / "typing_api.py")],
        capture_output=True, text=True, timeout=300, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.startswith("Success"), done.stdout


def test_metadata() -> None:
    """The metadata has the name, the licence expression of PEP 639, and all extras."""
    facts = metadata.metadata("imgkit-service")
    assert facts["License-Expression"] == "MIT"
    assert facts["Requires-Python"] == ">=3.11"
    assert set(facts.get_all("Provides-Extra") or ()) == {
        "all", "cli", "dask", "fsspec", "keyring", "otel", "painter", "parquet", "testing",
    }  # fmt: skip
    assert metadata.version("imgkit-service") == imgkit.__version__
    assert (ROOT / "imgkit" / "py.typed").exists()


def list_source_files() -> set[str]:
    """Return the files of the repository, or of an unpacked sdist, but for those that git ignores."""
    if (ROOT / ".git").exists():
        listing = run_process(["git", "ls-files", "-z"], capture_output=True, text=True, check=True, cwd=ROOT)
        return {name for name in listing.stdout.split("\0") if name and (ROOT / name).exists()}
    ignored = GitIgnoreSpec.from_lines((ROOT / ".gitignore").read_text("utf-8").splitlines())
    tops = [top for top in ROOT.iterdir() if not ignored.match_file(f"{top.name}/")]  # an environment is huge
    paths = [path for top in tops for path in (top, *top.rglob("*")) if path.is_file()]
    names = {path.relative_to(ROOT).as_posix() for path in paths}
    return set(ignored.match_files(names, negate=True)) - {"PKG-INFO"}


def test_the_sdist_holds_all_files() -> None:
    """The sdist holds every file of the repository, so its tests and targets work without git."""
    builder = SdistBuilder(str(ROOT))
    packed = {file.distribution_path for file in builder.recurse_included_files()} | {".gitignore"}
    assert list_source_files() - packed == set()
    assert not [name for name in packed if name.startswith((".venv/", "dist/", ".git/"))]


def test_files_stay_small() -> None:
    """No file of the library has over 400 lines, but for the values of a call."""
    package = ROOT / "imgkit"
    sizes = {
        str(path.relative_to(package)): len(path.read_text("utf-8").splitlines())
        for path in package.rglob("*.py")
    }
    long_files = {name for name, lines in sizes.items() if lines > 400}
    assert long_files == {"models.py"}
    assert max(sizes.values()) <= 600


def test_changelog_names_the_version() -> None:
    """The changelog has a heading for this version."""
    assert f"## {imgkit.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("room", ["", ".backends", ".engines", ".plugins", ".providers", ".testing"])
def test_dir_lists_the_names_that_load_on_demand(room: str) -> None:
    """A shell that completes names offers the public ones."""
    module = importlib.import_module(f"imgkit{room}")
    assert dir(module) == sorted(vars(module)["__all__"])
