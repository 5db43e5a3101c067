"""Response bodies in the form of OpenAI's endpoints. They depend on the record and its answer alone, so a rerun gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from headrace.api.base import JsonObject
from headrace.api.model import Task
from headrace.api.worker import WorkerConfig

_DECIMALS = 6
"""Of a probability. The last digits of a float32 differ with the size of a batch, and say nothing."""


class Responses:
    """Response bodies of one batch."""

    def __init__(self, config: WorkerConfig, created: int) -> None:
        self._model, self._task = config.model.name, config.model.task
        self._created = created

    def generated(self, custom_id: str, text: str, finish_reason: str, usage: tuple[int, int]) -> JsonObject:
        """A generated text; `usage` counts the tokens of prompt and completion."""
        chat = self._task == Task.CHAT
        content = {"message": {"role": "assistant", "content": text, "refusal": None}} if chat else {"text": text}
        return {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{self._digest(custom_id)}",
            "object": "chat.completion" if chat else "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": [{"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}],
            "usage": {
                "prompt_tokens": usage[0],
                "completion_tokens": usage[1],
                "total_tokens": usage[0] + usage[1],
            },
        }

    def embeddings(self, vectors: list[Tensor], prompt_tokens: int, *, as_base64: bool) -> JsonObject:
        """The embeddings of one record's inputs, each a float32 vector, in their order."""
        data = [
            {"object": "embedding", "index": i, "embedding": _base64(vector) if as_base64 else vector.tolist()}
            for i, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
        return {"object": "list", "data": data, "model": self._model, "usage": usage}

    def classified(self, rows: Sequence[Tensor], labels: Sequence[str], top_k: int) -> JsonObject:
        """What each image or sound of a record is: of its scores, one for each label, the greatest ones, from the greatest on.

        OpenAI has no such endpoint. The list is like that of its embeddings; labels and scores are as Hugging Face's pipelines have them.
        """
        data = []
        for index, row in enumerate(rows):
            scores, places = row.topk(min(top_k, len(labels)))
            pairs = zip(places.tolist(), scores.tolist(), strict=True)
            found = [{"label": labels[place], "score": round(score, _DECIMALS)} for place, score in pairs]
            data.append({"object": "classification", "index": index, "labels": found})
        return {"object": "list", "data": data, "model": self._model}

    def _digest(self, custom_id: str) -> str:
        return hashlib.sha256(f"{self._model}/{custom_id}".encode()).hexdigest()[:24]


def _base64(vector: Tensor) -> str:
    """The vector's bytes, little-endian float32, as OpenAI encodes them."""
    return base64.b64encode(vector.to(torch.float32).numpy().astype("<f4").tobytes()).decode()
