"""OpenAI's own client, as it is, beside a gateway: upload, create, poll, download, list, cancel, delete.

    headrace gateway --local --models manifests/examples/gateway/models.yaml
    export OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=none
    python manifests/examples/gateway/openai_batch.py smollm2-135m

Nothing in it is about Headrace: with OpenAI's address and a key of theirs it does the same there.
"""

import json
import sys
import time

from openai import OpenAI

QUESTIONS = ["Why is the sky blue?", "Why do cats purr?", "Why is the sea salty?"]


def main(model: str) -> None:
    """Ask three questions in a batch; then begin another, and take it back."""
    client = OpenAI()
    lines = [
        {
            "custom_id": f"question-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 48},
        }
        for number, question in enumerate(QUESTIONS)
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("questions.jsonl", content), purpose="batch")

    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"team": "docs"}
    )
    while batch.status in ("validating", "in_progress", "finalizing"):
        time.sleep(0.5)
        batch = client.batches.retrieve(batch.id)
    print(batch.id, batch.status, batch.request_counts)
    for output in (batch.output_file_id, batch.error_file_id):
        if output is not None:
            print(client.files.content(output).text, end="")

    second = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"team": "docs"}
    )
    second = client.batches.cancel(second.id)
    while second.status == "cancelling":
        time.sleep(0.5)
        second = client.batches.retrieve(second.id)
    print(second.id, second.status)

    print("batches:", *(one.id for one in client.batches.list(limit=20)))
    print("files:", *(one.id for one in client.files.list(purpose="batch")))
    print("deleted:", client.files.delete(file.id).deleted)


if __name__ == "__main__":
    main(sys.argv[1])
