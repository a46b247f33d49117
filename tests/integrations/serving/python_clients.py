"""The Python clients, as a program of their environment: a JSON call a line in, a JSON outcome a line out.

It imports nothing of imgkit, like the apps that it stands for.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

KEY = "sk-canary-client-77ab10"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else LiteLLM asks the internet for prices
os.environ["OPENAI_API_KEY"] = KEY

Call = dict[str, Any]
Outcome = dict[str, Any]


def build_openai(call: Call) -> Any:
    """Return the official client as the call asks for."""
    import openai

    options = {"timeout": call["timeout_s"]} if call["timeout_s"] else {}
    return openai.OpenAI(api_key=KEY, base_url=call["base_url"], **options)


def read_response(response: Any) -> Outcome:
    """Return the images and URLs of a response."""
    images = [item.b64_json for item in response.data if item.b64_json]
    return {"images": images, "urls": [item.url for item in response.data if item.url]}


def read_stream(stream: Any, call: Call) -> Outcome:
    """Return the images of a stream, the partial ones counted; make a file once the first has come."""
    outcome: Outcome = {"images": [], "partials": 0}
    for event in stream:
        if event.type.endswith(".partial_image"):
            outcome["partials"] += 1
            base64.b64decode(event.b64_json, validate=True)
            if call["seen"]:
                open(call["seen"], "w").close()
        else:
            outcome["images"].append(event.b64_json)
    return outcome


def choose_options(call: Call) -> dict[str, Any]:
    """Return the parameters that create, edit and stream share."""
    more = {"response_format": call["response_format"]} if call["response_format"] else {}
    return {"model": call["model"], "size": call["size"], **more}


def call_openai(call: Call) -> Outcome:
    """Call the official SDK."""
    images, options = build_openai(call).images, choose_options(call)
    with ExitStack() as files:
        opened = [files.enter_context(open(path, "rb")) for path in call["images"]]
        if call["mask"]:
            options["mask"] = files.enter_context(open(call["mask"], "rb"))
        match call["operation"]:
            case "create":
                return read_response(images.generate(prompt=call["prompt"], **options))
            case "edit":
                return read_response(images.edit(image=opened, prompt=call["prompt"], **options))
            case "variation":
                return read_response(images.create_variation(image=opened[0], **options))
            case "stream":
                more = {**options, "stream": True, "partial_images": 2}
                return read_stream(images.generate(prompt=call["prompt"], **more), call)
            case "edit stream":
                more = {**options, "stream": True, "partial_images": 2}
                return read_stream(images.edit(image=opened, prompt=call["prompt"], **more), call)
    return {"models": [model.id for model in build_openai(call).models.list()]}


def call_langchain(call: Call) -> Outcome:
    """Call LangChain's image tool, which hands on URLs only."""
    from langchain_community.tools.openai_dalle_image_generation import OpenAIDALLEImageGenerationTool
    from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper

    options = {"timeout": call["timeout_s"]} if call["timeout_s"] else {}
    wrapper = DallEAPIWrapper(
        api_key=KEY, base_url=call["base_url"], model=call["model"], size=call["size"], **options
    )
    tool = OpenAIDALLEImageGenerationTool(api_wrapper=wrapper)
    return {"urls": str(tool.invoke(call["prompt"])).split("\n")}


def call_litellm(call: Call) -> Outcome:
    """Call LiteLLM with its OpenAI provider."""
    import litellm

    litellm.suppress_debug_info = True
    options = {**choose_options(call), "api_base": call["base_url"], "api_key": KEY}
    options["model"] = f"openai/{call['model']}"
    if call["timeout_s"]:
        options["timeout"] = call["timeout_s"]
    with ExitStack() as files:
        opened = [files.enter_context(open(path, "rb")) for path in call["images"]]
        if call["mask"]:
            options["mask"] = files.enter_context(open(call["mask"], "rb"))
        match call["operation"]:
            case "create":
                return read_response(litellm.image_generation(prompt=call["prompt"], **options))
            case "edit":
                return read_response(litellm.image_edit(image=opened, prompt=call["prompt"], **options))
    with open(call["images"][0], "rb") as image:
        return read_response(litellm.image_variation(image=image, **options))


CLIENTS: dict[str, Callable[[Call], Outcome]] = {
    "openai": call_openai,
    "langchain": call_langchain,
    "litellm": call_litellm,
}


def describe_error(error: Exception) -> Outcome:
    """Return the class and the facts of an error, as an app sees them."""
    facts = {name: getattr(error, name, None) for name in ("code", "param", "body")}
    status = getattr(error, "status_code", None)
    return {**facts, "error": type(error).__name__, "status": status, "message": str(error)[:2000]}


def main() -> None:
    """Answer each line until standard input ends."""
    warnings.simplefilter("ignore")
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries that print must not disturb the replies
    for line in sys.stdin:
        call = json.loads(line)
        try:
            outcome = CLIENTS[call["client"]](call)
        except Exception as error:
            outcome = describe_error(error)
        replies.write(json.dumps(outcome, default=str) + "\n")


if __name__ == "__main__":
    main()
