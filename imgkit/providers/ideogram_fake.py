"""Ideogram's API v2 in small: an address for each model, forms and JSON, jobs, withheld images, quotes."""

from __future__ import annotations

import re

from imgkit.images.shapes import parse_ratio, parse_size, to_size
from imgkit.images.sniff import sniff
from imgkit.providers.fakes import LOST, FakeReply, FakeRequest, json_reply
from imgkit.providers.job_fakes import FakeJobApi
from imgkit.wire.json_values import JsonObject

MICROS_PER_IMAGE = 60_000
"""The price of an image in millionths of a dollar."""

_SUBMIT = re.compile(r"(?:/v1)?/v2/image/([a-z-]+)/([\w.-]+)", re.ASCII)
_INPUTS = ("image", "images", "reference_images")


class FakeIdeogram(FakeJobApi):
    """Answers the requests of `imgkit.providers.ideogram.IdeogramProvider`.

    Example:
        >>> fake = FakeIdeogram()
        >>> url = "https://api.ideogram.ai/v2/image/generate/ideogram-4-5"
        >>> fake.answer_parts("POST", url, {}, b'{"prompt": "a fox", "async": true}').status
        200
    """

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a submit, a quote, a poll or a download."""
        path = request.path.removeprefix("/v1")
        if path.startswith("/api/images/ephemeral/"):
            return self._serve(path.rpartition("/")[2].removesuffix(".png"))
        if request.method == "GET" and path.startswith("/v2/generations/"):
            return self._poll(request, path.rpartition("/")[2])
        match = _SUBMIT.fullmatch(request.path)
        if request.method == "POST" and match is not None:
            return self._submit(request, match[1])
        return json_reply(404, {"error": "Not found"})

    def _submit(self, request: FakeRequest, action: str) -> FakeReply:
        values, files = _read_body(request)
        problem = _find_problem(values, files, action)
        if problem is not None or self.scenario == "invalid":
            return json_reply(400, {"error": problem or "Invalid value for size"})
        fault = self.find_fault(
            json_reply(
                429,
                {"error": "Too many images", "reject_reason": "inflight_limit", "max_inflight_requests": 10},
                retry_after="0",
            ),
            json_reply(500, {"error": "Internal server error"}),
        )
        if fault is not None:
            return fault
        count = int(values.get("num_images") or 1)
        if request.query.get("dry_run") == "true":
            price = {"usd_micros": MICROS_PER_IMAGE * count, "credit_millis": 6000 * count}
            head = {"object": "price_quote", "billing_identifier": "ideogram_4_5_generate"}
            return json_reply(200, {**head, "quantity": count, **price, "qualifier": "exact"})
        values["sides"] = _choose_sides(values, files)
        job = self.add_job(values)
        reply: JsonObject = {"generation_id": job.id, "seed": int(values.get("seed") or 5)}
        if str(values.get("async", "false")).lower() != "true":
            reply |= {"generation_kind": "sampling", "data": self._list_images(request, job.id)}
        return self.accept(json_reply(200, reply))

    def _poll(self, request: FakeRequest, number: str) -> FakeReply:
        job = self.jobs.get(number)
        if job is None:
            return json_reply(404, {"error": "Generation not found"})
        if self.loses_poll(job):
            return LOST
        reply: JsonObject = {
            "generation_id": number,
            "created": "2026-11-28T10:00:00Z",
            "status": "pending",
        }
        if not self.is_done(job):
            return json_reply(200, reply)
        images = self._list_images(request, number)
        cost = {"usage_cost_usd_micros": MICROS_PER_IMAGE * len(images)}
        return json_reply(
            200, {**reply, "status": "completed", "response_type": "url", "data": images, **cost}
        )

    def _list_images(self, request: FakeRequest, number: str) -> list[JsonObject]:
        values = self.jobs[number].values
        is_safe = self.scenario != "refused"
        width, height = values["sides"]
        return [
            {
                "object_type": "image",
                "url": f"{request.root}/api/images/ephemeral/{number}-{index}.png" if is_safe else None,
                "prompt": values["prompt"],
                "resolution": f"{width}x{height}",
                "seed": int(values.get("seed") or 5),
                "is_image_safe": is_safe,
            }
            for index in range(self.count_images(int(values.get("num_images") or 1)))
        ]

    def _serve(self, name: str) -> FakeReply:
        number, _, index = name.rpartition("-")
        job = self.jobs.get(number)
        if job is None:
            return FakeReply(404)
        return self.serve_image(f"{job.values['prompt']} {index}", *job.values["sides"])


def _read_body(request: FakeRequest) -> tuple[JsonObject, dict[str, list[bytes]]]:
    """Return the values and the files of a request, which is JSON or a form."""
    parts = request.form()
    if not parts:
        return request.json(), {}
    files: dict[str, list[bytes]] = {}
    for part in parts:
        if part.filename is not None:
            files.setdefault(part.name, []).append(part.data)
    return {part.name: part.data.decode() for part in parts if part.filename is None}, files


def _find_problem(values: JsonObject, files: dict[str, list[bytes]], action: str) -> str | None:
    """Return the problem of a request that the API would refuse, None for a good one."""
    if not isinstance(values.get("prompt"), str) or not values["prompt"]:
        return "prompt is required"
    if not str(values.get("num_images") or 1).isdecimal() or int(values.get("num_images") or 1) not in range(
        1, 9
    ):
        return "num_images must be from 1 to 8"
    if action != "generate" and len(files.get("image", ())) != 1:
        return "image is required"
    if len(files.get("reference_images", ())) > 4 - ("mask" in files):
        return "too many reference_images"
    if "mask" in files and _measure(files["mask"]) != _measure(files.get("image") or files.get("images", [])):
        return "mask must have the width and height of the image"
    return None


def _choose_sides(values: JsonObject, files: dict[str, list[bytes]]) -> tuple[int, int]:
    """Return width and height of the images: as the request says, else those of its image."""
    if "custom_width" in values:
        return int(values["custom_width"]), int(values["custom_height"])
    size = parse_size(values.get("size")) or parse_size(values.get("resolution"))
    ratio = parse_ratio(str(values.get("aspect_ratio")).replace("x", ":"))
    if size is None and ratio is not None:
        size = parse_size(to_size(ratio, 1024))
    inputs = next((files[name] for name in _INPUTS if name in files), [])
    return size or _measure(inputs) or (1024, 1024)


def _measure(images: list[bytes]) -> tuple[int, int] | None:
    """Return width and height of the first image, None without any."""
    kind = sniff(images[0]) if images else None
    return None if kind is None or kind.width is None or kind.height is None else (kind.width, kind.height)
