"""The replies of ComfyUI: entries of its history, and the errors of nodes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from imgkit.errors import ImgkitError, JobFailedError
from imgkit.providers.error_replies import refused
from imgkit.providers.job_replies import is_refusal
from imgkit.redact import Secret, scrub
from imgkit.wire.json_values import Json, JsonMapping, parse_json
from imgkit.wire.messages import Head

_AGAIN = "Submit the request again."


def read_history(
    head: Head, history: JsonMapping, state: JsonMapping, secrets: tuple[Secret, ...]
) -> tuple[list[dict[str, str]] | None, str]:
    """Return the places of the images of a job, and the digest of its graph.

    There are no places if ComfyUI had the graph in its cache: an earlier job has the images.

    Args:
        head: head of the reply.
        history: the reply.
        state: the state of the job; its ``graph`` asks for the images of an earlier job.
        secrets: strings that must not appear in a message.

    Raises:
        ImgkitError: The job has failed, or no job has its images.
    """
    entry: Json = find_earlier(history, state) if "graph" in state else history.get(state["prompt_id"])
    failure = find_failure(head, entry, secrets)
    if failure is not None:
        raise failure
    digest = hash_graph(entry["prompt"][2]) if "prompt" in entry else ""
    return list_files(entry) or None, digest


def list_files(entry: Json) -> list[dict[str, str]]:
    """Return the places of the images of a history entry: the saved ones, else the previews.

    Example:
        >>> list_files({"outputs": {"9": {"images": [{"filename": "a.png", "type": "output"}]}}})
        [{'filename': 'a.png', 'subfolder': '', 'type': 'output'}]
    """
    files = [
        {name: str(image.get(name) or "") for name in ("filename", "subfolder", "type")}
        for _, output in sorted(entry["outputs"].items(), key=lambda item: (len(item[0]), item[0]))
        for image in output.get("images") or ()
    ]
    return [file for file in files if file["type"] == "output"] or files


def count_ahead(queue: Json, prompt_id: str) -> int | None:
    """Return the number of jobs ahead of a job, -1 if it runs, None if the queue has it not."""
    running = [entry[1] for entry in queue["queue_running"]]
    if prompt_id in running:
        return -1
    waiting = [entry[1] for entry in sorted(queue["queue_pending"], key=lambda entry: entry[0])]
    return len(running) + waiting.index(prompt_id) if prompt_id in waiting else None


def find_failure(head: Head, entry: Json, secrets: tuple[Secret, ...]) -> ImgkitError | None:
    """Return the error of a history entry, None for the entry of a success.

    Args:
        head: head of the reply.
        entry: the entry, None if the history has none.
        secrets: strings that must not appear in a message.
    """
    if entry is None:
        return JobFailedError(
            "Neither queue nor history of ComfyUI has the job: it never arrived, was removed, or the server "
            f"was started again. {_AGAIN}",
            status=head.status,
            code="unknown_job",
        )
    status = entry.get("status") or {}
    if status.get("status_str") != "error":
        return None
    messages = dict(message for message in status.get("messages") or () if len(message) == 2)
    if "execution_interrupted" in messages:
        problem = f"The job was interrupted on the server. {_AGAIN}"
        return JobFailedError(problem, status=head.status, code="execution_interrupted")
    details = messages.get("execution_error") or {}
    text = scrub(str(details.get("exception_message") or "no reason given"), secrets, limit=400).rstrip(". ")
    if is_refusal(text):
        return refused(head, text, secrets=secrets)
    node = scrub(
        f"{details.get('node_type') or 'A node'} (node {details.get('node_id')})", secrets, limit=100
    )
    return JobFailedError(
        f"{scrub(node, secrets, limit=100)} has failed: {text}. Change the workflow or the request.",
        status=head.status,
        code=scrub(str(details.get("exception_type") or "execution_error"), secrets, limit=100),
    )


def find_earlier(history: JsonMapping, state: JsonMapping) -> Json:
    """Return the latest entry with the graph of a job and with images.

    Raises:
        JobFailedError: There is none.
    """
    for prompt_id, entry in reversed(list(history.items())):
        is_other = prompt_id != state["prompt_id"]
        if is_other and hash_graph(entry["prompt"][2]) == state["graph"] and list_files(entry):
            return entry
    raise JobFailedError(
        "ComfyUI made no image: it had this graph in its cache, or the workflow saves none. Give another "
        "seed, put {{seed}} into the workflow, or add a SaveImage node.",
        status=200,
        code="cached_graph",
    )


def hash_graph(graph: Json) -> str:
    """Return the digest of a JSON value that does not depend on the order of its members.

    Example:
        >>> hash_graph({"a": 1, "b": 2}) == hash_graph({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(graph, sort_keys=True).encode()).hexdigest()


def explain_nodes(body: bytes) -> bytes:
    """Return an error reply with the problems of its nodes as the details of its error.

    Example:
        >>> text = b'{"error": {"message": "Bad"}, "node_errors": {"3": {"class_type": "KSampler",'
        >>> text += b' "errors": [{"message": "Value too big", "details": "steps"}]}}}'
        >>> explain_nodes(text)
        b'{"error": {"message": "Bad: KSampler (node 3): Value too big (steps)"}}'
    """
    try:
        reply = parse_json(body)
        error, problems = reply["error"], list(_iterate_problems(reply["node_errors"]))
        message = ": ".join([str(error["message"]), "; ".join(problems)]) if problems else error["message"]
        return json.dumps({"error": {**error, "message": message}}).encode()
    except (ValueError, KeyError, TypeError, AttributeError):
        return body


def _iterate_problems(node_errors: JsonMapping) -> Iterator[str]:
    for number, node in node_errors.items():
        for problem in node["errors"]:
            details = f" ({problem['details']})" if problem.get("details") else ""
            yield f"{node.get('class_type')} (node {number}): {problem['message']}{details}"
