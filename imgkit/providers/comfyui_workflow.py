"""Workflows of ComfyUI: graphs of nodes, as JSON, whose placeholders a request fills in."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Set
from functools import cache
from importlib import resources
from os import PathLike
from typing import NamedTuple

from imgkit.errors import ConfigurationError
from imgkit.files import open_regular_file
from imgkit.models import CreateImageEditRequest, ImageRequest
from imgkit.redact import scrub
from imgkit.wire.json_values import Json, JsonMapping, parse_json, replace_values

VARIABLE = "IMGKIT_COMFYUI_WORKFLOW"

MAX_BYTES = 4 * 1024 * 1024
"""Largest workflow file. Graphs have a few kilobytes; a larger file is another one."""

EXAMPLES = "{{prompt}}, {{negative_prompt}}, {{width}}, {{height}}, {{seed}}, {{image}} or {{mask}}"

_REMEDIES = {
    "image": "Call create_image_edit with as many images",
    "mask": "Call create_image_edit with a mask",
    "model": "Pass model=…",
    "negative_prompt": "Pass negative_prompt=…",
}

_FIELDS = ("image", "mask", "model", "prompt", "seed", "negative_prompt")
"""The fields of a request whose placeholders have their names."""

_IMAGE = re.compile(r"image(_\d+)?")
_HOLE = re.compile(r"\{\{(\w+)\}\}")


class Workflow(NamedTuple):
    """A graph with placeholders such as ``{{prompt}}``.

    Attributes:
        text: the JSON text of the graph.
        names: the names of its placeholders.
        defaults: values of placeholders that a request leaves open.
    """

    text: bytes
    names: frozenset[str]
    defaults: JsonMapping

    def fill(self, values: JsonMapping) -> Json:
        """Return the graph with the values of its placeholders, which keep their types.

        A placeholder that is a whole text takes any value; within a longer text it takes a text.
        """

        def fill_text(text: str) -> Json:
            if (whole := _HOLE.fullmatch(text)) is not None:
                return values[whole[1]]
            return _HOLE.sub(lambda match: str(values[match[1]]), text)

        return replace_values(parse_json(self.text), str, fill_text)

    def find_problems(
        self, given: Set[str], optional: Set[str], in_extra_body: Set[str] = frozenset()
    ) -> dict[str, str]:
        """Return problems by field: values that the workflow has no place for, and values that it lacks.

        Args:
            given: the names of the values of a request.
            optional: names among them that the workflow may lack.
            in_extra_body: names among them that ``extra_body`` gives.
        """
        problems: dict[str, list[str]] = defaultdict(list)
        for name in sorted(given - optional - self.names):
            problem = f"The workflow has no {{{{{name}}}}}. Leave it out, or give a workflow with it."
            problems["extra_body" if name in in_extra_body else find_field(name)].append(problem)
        for name in sorted(self.names - given - {"seed"} - self.defaults.keys()):
            field = find_field(name)
            remedy = _REMEDIES.get(field) or f'Pass model_options={{"{name}": …}}'
            problems[field].append(f"The workflow needs a value for {{{{{name}}}}}. {remedy}.")
        return {field: " ".join(texts) for field, texts in problems.items()}


def find_field(name: str) -> str:
    """Return the field of a request that gives the value of a placeholder.

    Example:
        >>> find_field("image_2"), find_field("steps")
        ('image', 'model_options')
    """
    if name in ("width", "height"):
        return "size"
    field = "image" if _IMAGE.fullmatch(name) else name
    return field if field in _FIELDS else "model_options"


def load_given_workflow(path: str | PathLike[str] | None) -> Workflow | None:
    """Return the workflow of a path, else of the environment, None without both. May block.

    Raises:
        ConfigurationError: as `load_workflow`.
    """
    source = VARIABLE if path is None else "workflow"
    path = os.environ.get(VARIABLE, "").strip() or None if path is None else path
    if path is not None and not isinstance(path, str | PathLike):
        raise ConfigurationError("workflow must be the path of a file.", field="workflow")
    return None if path is None else load_workflow(path, source)


def load_workflow(path: str | PathLike[str], source: str) -> Workflow:
    """Return the workflow of a file. May block.

    Args:
        path: the file, as "Export (API)" of ComfyUI writes it, with placeholders.
        source: name of the argument or variable that gave it, for errors.

    Raises:
        ConfigurationError: the file cannot be read, or is no workflow with placeholders.
    """
    shown = scrub(repr(str(path)), limit=200)
    try:
        with open_regular_file(os.fspath(path)) as stream:
            text = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _reject(source, f"Cannot read the workflow {shown}: {reason}. Check the path.") from None
    if len(text) > MAX_BYTES:
        problem = f"The workflow {shown} has more than {MAX_BYTES // 1024**2} MB. Give the file of a graph."
        raise _reject(source, problem)
    try:
        return read_workflow(text)
    except ValueError as error:
        raise _reject(
            source, f"The workflow {shown} cannot be used. {scrub(str(error), limit=300)}"
        ) from None


def read_workflow(text: bytes) -> Workflow:
    """Return the workflow of a JSON text.

    Raises:
        ValueError: it is no graph, or has no placeholders; the message has the remedy.
    """
    export = 'Export it in ComfyUI with "Export (API)".'
    try:
        graph = parse_json(text)
    except ValueError as error:
        raise ValueError(f"It is no JSON: {error}. {export}") from None
    if isinstance(graph, dict) and isinstance(graph.get("nodes"), list):
        raise ValueError(f"It has the format of ComfyUI's editor. {export}")
    if not isinstance(graph, dict) or not graph or not all(map(_is_node, graph.values())):
        raise ValueError(f"It is no graph of nodes, each with class_type and inputs. {export}")
    found = text.decode("utf-8-sig")
    names = frozenset(_HOLE.findall(found))
    if not names:
        raise ValueError(
            f"It has no placeholders, so each call would make the same image. Put {EXAMPLES} in place of "
            "values."
        )
    if found.count("{{seed}}") != found.count('"{{seed}}"'):
        raise ValueError("Its {{seed}} stands within a longer text. Let it be the whole value.")
    return Workflow(text, names, {})


@cache
def load_built_in(name: str) -> Workflow:
    """Return a workflow of ComfyUI's own nodes: "create", "edit" or "mask"."""
    text = resources.files("imgkit.providers").joinpath("comfyui_graphs.json").read_bytes()
    values = parse_json(text)
    return read_workflow(json.dumps(values[name]).encode())._replace(defaults=values["defaults"])


def choose_built_in(request: ImageRequest) -> Workflow:
    """Return the workflow of ComfyUI's own nodes that fits a request."""
    if not isinstance(request, CreateImageEditRequest):
        return load_built_in("create")
    return load_built_in("edit" if request.mask is None else "mask")


def _is_node(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("class_type"), str)
        and isinstance(value.get("inputs"), dict)
    )


def _reject(source: str, problem: str) -> ConfigurationError:
    return ConfigurationError(problem, field=source)
