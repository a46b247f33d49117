"""The figures of the house: layout, names and language of the package, counted from its files."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import imgkit

ROOT = Path(imgkit.__file__).parent

PARTICIPLE = re.compile(
    r"^_*(?:[a-z]+_)*?(told|kept|said|shown|found|held|made|begun|taken|given|sent|read_out|met|lost|left"
    r"|wanted|varied|[a-z]{3,}ed)$"
)
NO_PARTICIPLES = frozenset(
    [
        "need",
        "embed",
        "feed",
        "seed",
        "speed",
        "bleed",
        "proceed",
        "exceed",
        "succeed",
        "shred",
        "led",
        "red",
        "breed",
    ]
)
"""Words that end like participles but are none."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """A module of the package.

    Attributes:
        path: the file.
        tree: its syntax tree.
        lines: number of its lines.
    """

    path: Path
    tree: ast.Module
    lines: int


@cache
def read_modules() -> Mapping[str, Module]:
    """Return the modules of the package by dotted name."""
    modules = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(("imgkit", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        text = path.read_text("utf-8")
        modules[name] = Module(path, ast.parse(text), len(text.splitlines()))
    return modules


def walk() -> Iterator[ast.AST]:
    for module in read_modules().values():
        yield from ast.walk(module.tree)


def walk_library() -> Iterator[ast.AST]:
    """Yield the nodes outside the testing room, whose contracts consist of assertions."""
    for name, module in read_modules().items():
        if room_of_module(name) != "testing":
            yield from ast.walk(module.tree)


def walk_functions() -> Iterator[Function]:
    return (node for node in walk() if isinstance(node, Function))


@cache
def read_docstrings() -> tuple[str, ...]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in walk() if isinstance(node, documented))
    return tuple(text for text in found if text)


def count_per_1000_words(word: str) -> float:
    words = sum(len(text.split()) for text in read_docstrings())
    return 1000 * sum(len(re.findall(rf"\b{word}\b", text, re.I)) for text in read_docstrings()) / words


@cache
def read_imports() -> Mapping[str, frozenset[str]]:
    """Return the modules that each module imports, imports for type checkers included."""
    modules = read_modules()
    edges: dict[str, set[str]] = defaultdict(set)
    for name, module in modules.items():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("imgkit"):
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    edges[name].add(full if full in modules else str(node.module))
            elif isinstance(node, ast.Import):
                edges[name] |= {alias.name for alias in node.names if alias.name in modules}
    return {name: frozenset(targets - {name}) for name, targets in edges.items()}


def find_cycle(edges: Mapping[str, frozenset[str]]) -> list[str]:
    """Return the modules of a cycle, [] for none."""
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        path.append(name)
        for target in sorted(edges.get(name, ())):
            if cycle := visit(target):
                return cycle
        path.pop()
        done.add(name)
        return []

    return next((cycle for name in sorted(edges) if (cycle := visit(name))), [])


def room_of_module(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


def count_room_layers() -> int:
    """Return the length of the longest chain of imports between rooms."""
    rooms: dict[str, set[str]] = defaultdict(set)
    for name, targets in read_imports().items():
        rooms[room_of_module(name)] |= {room_of_module(target) for target in targets}
    edges = {room: frozenset(targets - {room}) for room, targets in rooms.items()}
    assert find_cycle(edges) == []

    @cache
    def height(room: str) -> int:
        return 1 + max((height(target) for target in edges.get(room, ())), default=0)

    return max(height(room) for room in edges)


def is_participle(name: str) -> bool:
    return bool(PARTICIPLE.match(name)) and name.strip("_").split("_")[-1] not in NO_PARTICIPLES


def find_decoded_names() -> list[str]:
    """Return the names of functions that are participles or end in ``_of``; bool ones are left out."""
    names = []
    for function in walk_functions():
        is_property = any("property" in ast.unparse(decorator) for decorator in function.decorator_list)
        returns_bool = function.returns is not None and "bool" in ast.unparse(function.returns)
        if function.name.startswith("__") or is_property or returns_bool:
            continue
        if is_participle(function.name) or function.name.endswith("_of"):
            names.append(function.name)
    return sorted(names)


def count_functions() -> int:
    return sum(not function.name.startswith("__") for function in walk_functions())


def count_names(*names: str) -> int:
    return sum(isinstance(node, ast.Name) and node.id in names for node in walk_library())


def test_few_modules_stand_at_the_top() -> None:
    """Keeps at most 12 modules at the top of the package."""
    top = [module.path.name for module in read_modules().values() if module.path.parent == ROOT]
    assert len(top) <= 12, top


def test_imports_are_absolute() -> None:
    """Has no relative import."""
    assert not [node for node in walk() if isinstance(node, ast.ImportFrom) and node.level]


def test_imports_form_no_cycle() -> None:
    """Has no cycle of modules, imports for type checkers counted."""
    assert find_cycle(read_imports()) == []


def test_rooms_have_few_layers() -> None:
    """Stacks its rooms in at most 13 layers, without a cycle."""
    assert count_room_layers() <= 13


def test_functions_are_named_by_verbs_and_results() -> None:
    """Names at most 3 % of its functions by a participle or with ``_of``."""
    names = find_decoded_names()
    assert len(names) <= 0.03 * count_functions(), names


@pytest.mark.parametrize(("word", "limit"), [("what", 2.0), ("ones?", 4.0)])
def test_docstrings_use_nouns(word: str, limit: float) -> None:
    """Uses "what" and "one" rarely in docstrings, counted per 1,000 words."""
    assert count_per_1000_words(word) <= limit


def test_docstrings_open_with_the_effect() -> None:
    """Opens at most 1 % of its docstrings with "what"."""
    opening = re.compile(r"(Return |Whether |Say )?[Ww]hat(ever)?\b")
    found = [text.splitlines()[0] for text in read_docstrings() if opening.match(text)]
    assert len(found) <= 0.01 * len(read_docstrings()), found


def test_public_functions_are_documented() -> None:
    """Documents at least 90 % of its public functions, in at least 26,000 words."""
    public = [function for function in walk_functions() if not function.name.startswith("_")]
    documented = [function for function in public if ast.get_docstring(function)]
    assert len(documented) >= 0.9 * len(public)
    assert sum(len(text.split()) for text in read_docstrings()) >= 26_000


def test_class_names_are_unique() -> None:
    """Gives at most four names to more than one class."""
    counts = Counter(node.name for node in walk() if isinstance(node, ast.ClassDef))
    repeated = [name for name, count in counts.items() if count > 1]
    assert len(repeated) <= 4, repeated


def test_file_names_are_unique() -> None:
    """Uses at most four file names twice, ``__init__`` left out."""
    counts = Counter(module.path.name for module in read_modules().values())
    repeated = [name for name, count in counts.items() if count > 1 and name != "__init__.py"]
    assert len(repeated) <= 4, repeated


def test_few_modules_are_tiny() -> None:
    """Has at most 10 modules of 60 lines or less, providers and ``__init__`` left out."""
    tiny = [
        name
        for name, module in read_modules().items()
        if module.lines <= 60 and module.path.name != "__init__.py" and "providers" not in module.path.parts
    ]
    assert len(tiny) <= 10, tiny


def test_types_say_more_than_any() -> None:
    """Uses ``Any``, assertions and casts sparingly."""
    assert count_names("Any") <= 350
    assert sum(isinstance(node, ast.Assert) for node in walk_library()) <= 12
    assert sum(isinstance(node, ast.Call) and ast.unparse(node.func) == "cast" for node in walk()) <= 18
