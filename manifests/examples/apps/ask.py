"""A small client of the gateway: sends requests, waits for all of them on one stream of events, and gives their answers in order.

It needs nothing but Python. `ask.py summarise FILE…` sends texts to the route of summaries, `ask.py classify FILE…` photos to that of
photos.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

GATEWAY = os.environ.get("HEADRACE_GATEWAY", "http://127.0.0.1:8080/v1")
TASK = "Summarise this document in one sentence:\n\n"
LONGEST_CHARACTERS = 4000


def summary_of(file: Path) -> dict[str, Any]:
    """A request for a summary of a text."""
    text = TASK + file.read_text()[:LONGEST_CHARACTERS]
    return {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": text}]}


def classes_of(file: Path) -> dict[str, Any]:
    """A request for what a photo shows; the photo is in it."""
    data = base64.b64encode(file.read_bytes()).decode()
    url = f"data:image/{file.suffix.removeprefix('.').replace('jpg', 'jpeg')};base64,{data}"
    return {"model": "efficientnet-lite0", "input": [{"type": "image_url", "image_url": {"url": url}}]}


def accepted(body: dict[str, Any]) -> str:
    """Send a request; returns its id. From then on it is not lost."""
    request = Request(f"{GATEWAY}/requests", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        name: str = json.load(answer)["id"]
        return name


def ended(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The requests as they end. The stream ends once all of them have."""
    with urlopen(f"{GATEWAY}/stream?{urlencode({'id': names}, doseq=True)}") as events:
        for line in events:
            told = json.loads(line.removeprefix(b"data:")) if line.startswith(b"data:") else {}
            request = told.get("request")  # other events tell how far an answer has come
            if request is not None and request["status"] not in ("queued", "in_progress"):
                yield request


def shown(request: dict[str, Any]) -> str:
    """An answer as a line of text."""
    if request["status"] != "completed":
        return f"{request['status']}: {request['error']['message']}"
    body = request["response"]["body"]
    if "choices" in body:
        return " ".join(body["choices"][0]["message"]["content"].split())
    labels = body["data"][0]["labels"]
    return ", ".join(f"{one['label']} {one['score']:.2f}" for one in labels)


def main() -> None:
    """Ask about each file, and print a line for each in their order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["summarise", "classify"])
    parser.add_argument("files", nargs="+", type=Path)
    told = parser.parse_args()
    body = summary_of if told.what == "summarise" else classes_of
    names = {accepted(body(file)): file for file in told.files}
    answers = {request["id"]: request for request in ended([*names])}
    for name, file in names.items():
        print(f"{file.name}: {shown(answers[name])}")


if __name__ == "__main__":
    main()
