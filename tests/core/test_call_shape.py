"""The shape of a call: how deep it nests, and how many files it runs through."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import imgkit
from imgkit.testing import WireServer, answer, reply

PACKAGE = str(Path(imgkit.__file__).parent)
MAX_DEPTH = 16
MAX_GENERATORS = 5


class Trace(NamedTuple):
    """Stacks of imgkit's own frames during one call, outermost first.

    Attributes:
        deepest: the deepest stack.
        at_send: the stack when the core asks for the request to be sent.
    """

    deepest: list[FrameType]
    at_send: list[FrameType]


def own_stack(frame: FrameType | None) -> list[FrameType]:
    """Return the frames of the package below `frame`, outermost first."""
    stack = []
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            stack.append(frame)
        frame = frame.f_back
    return stack[::-1]


def trace_warm_call(**settings: Any) -> Trace:
    """Make a call twice and trace the second one."""
    deepest: list[FrameType] = []
    at_send: list[FrameType] = []

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal deepest, at_send
        if event != "call":
            return
        stack = own_stack(frame)
        if len(stack) > len(deepest):
            deepest = stack
        if frame.f_code.co_name == "send_request":
            at_send = stack

    with (
        WireServer(*[reply(200, answer())] * 2) as server,
        imgkit.ImageService(
            base_url=server.base_url, api_key="sk-test-key-1234", model="gpt-image-2", **settings
        ) as service,
    ):
        service.create_image("a fox")
        sys.setprofile(profile)
        try:
            service.create_image("a fox")
        finally:
            sys.setprofile(None)
    return Trace(deepest, at_send)


def name_frames(stack: list[FrameType]) -> list[str]:
    return [f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}" for frame in stack]


def test_a_warm_call_is_at_most_16_frames_deep() -> None:
    """Nests at most 16 frames of imgkit's own, from the user's call to the bytes of the image."""
    deepest = trace_warm_call(backend="requests").deepest
    assert len(deepest) <= MAX_DEPTH, name_frames(deepest)


def test_at_most_five_generators_are_nested_when_a_request_is_sent() -> None:
    """Nests at most five generators when the core asks for the request to be sent."""
    at_send = trace_warm_call(backend="requests").at_send
    generators = [frame for frame in at_send if frame.f_code.co_flags & inspect.CO_GENERATOR]
    assert name_frames(generators) == [
        "lifecycle.run_call",
        "pipeline.dispatch",
        "send.send_with_retries",
        "send.send_once",
        "flow.send_request",
    ]
    assert len(generators) <= MAX_GENERATORS
