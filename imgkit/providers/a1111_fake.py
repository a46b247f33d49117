"""The API of AUTOMATIC1111's web UI in small: images in base64, a grid, progress, errors."""

from __future__ import annotations

import base64
import json
import re

from imgkit.providers.fakes import LOST, FakeApi, FakeReply, FakeRequest, json_reply


class FakeA1111(FakeApi):
    """Answers the requests of `imgkit.providers.a1111.A1111Provider`.

    Several images come behind a grid of all of them, as the web UI sends them by default. The API has no
    polls and no links, so ``lost_poll`` loses the progress, and ``expired_link`` is a success.

    Example:
        >>> fake = FakeA1111()
        >>> fake.answer_parts("GET", "http://127.0.0.1:7860/sdapi/v1/progress", {}, b"").status
        200
    """

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a request for images or for the progress."""
        path = re.sub(r"^/v1(?=/)", "", request.path)
        if request.method == "GET" and path == "/sdapi/v1/progress":
            return self._tell_progress(has_preview=request.query.get("skip_current_image") == "false")
        if request.method == "POST" and path in ("/sdapi/v1/txt2img", "/sdapi/v1/img2img"):
            return self._make(request, path)
        return json_reply(404, {"detail": "Not Found"})

    def _tell_progress(self, *, has_preview: bool) -> FakeReply:
        if self.scenario == "lost_poll":
            return LOST
        state = {"job": "scripts_txt2img", "sampling_step": 8, "sampling_steps": 20, "interrupted": False}
        preview = base64.b64encode(self.paint("a preview", 16, 16)).decode() if has_preview else None
        return json_reply(
            200,
            {
                "progress": 0.4,
                "eta_relative": 3.1,
                "state": state,
                "current_image": preview,
                "textinfo": None,
            },
        )

    def _make(self, request: FakeRequest, path: str) -> FakeReply:
        values = request.json()
        if path.endswith("img2img") and not values.get("init_images"):
            return json_reply(404, {"detail": "Init image not found"})
        if self.scenario == "invalid":
            return json_reply(404, {"detail": "Sampler not found"})
        failure = {"error": "OutOfMemoryError", "detail": "", "body": "", "errors": "CUDA out of memory."}
        fault = self.find_fault(
            json_reply(429, {"detail": "Too Many Requests"}, retry_after="0"),
            json_reply(500, failure),
        )
        if fault is not None:
            return fault
        if self.scenario == "refused":
            detail = "The request requires moderation and your input was flagged."
            return json_reply(400, {"detail": detail})
        if self.scenario == "lost_submit":
            return LOST
        count = values.get("n_iter", 1) * values.get("batch_size", 1)
        width, height = values.get("width", 512), values.get("height", 512)
        painted = [
            self.paint(f"{values.get('prompt', '')}", width, height) for _ in range(self.count_images(count))
        ]
        images = [base64.b64encode(data).decode() for data in painted]
        if self.scenario == "wrong_type":
            images = [f"data:image/jpeg;base64,{text}" for text in images]
        has_grid = count > 1
        seed = 7 if values.get("seed", -1) == -1 else values["seed"]
        info = {
            **{"prompt": values.get("prompt"), "seed": seed, "all_seeds": [seed + n for n in range(count)]},
            **{"index_of_first_image": int(has_grid), "sd_model_name": "model", "infotexts": []},
        }
        parameters = {**values, "n_iter": values.get("n_iter", 1), "batch_size": values.get("batch_size", 1)}
        parameters |= {"init_images": None, "mask": None}
        grid = images[:1] if has_grid else []
        return json_reply(
            200, {"images": [*grid, *images], "parameters": parameters, "info": json.dumps(info)}
        )
