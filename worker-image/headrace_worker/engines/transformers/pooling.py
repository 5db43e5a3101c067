"""How one vector is made of a text's token vectors, as the model asks for it in the files of sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError
from torch import Tensor

from headrace_worker.engines.transformers.source import ModelFiles
from headrace_worker.errors import JobFailed


@dataclass(frozen=True, slots=True)
class Pooling:
    """From token vectors to one vector."""

    mode: str = "mean"
    normalize: bool = False

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """[texts, tokens, size] to [texts, size], in float32; `mask` of shape [texts, tokens] is 1 where a token is no padding."""
        vectors = _MODES[self.mode](hidden.float(), mask[:, :, None].float())
        return torch.nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors


def read_pooling(files: ModelFiles) -> Pooling:
    """What a model asks for; the mean of its tokens if it says nothing. Raises `JobFailed` for what this engine cannot do."""
    modules = _json(files, "modules.json")
    if modules is None:
        return Pooling()
    kinds = {module["type"].rpartition(".")[2]: module for module in modules}
    unknown = kinds.keys() - {"Transformer", "Pooling", "Normalize"}
    if unknown:
        raise _not_supported(f"the module {min(unknown)}")
    settings = _json(files, f"{kinds['Pooling']['path']}/config.json") if "Pooling" in kinds else None
    return Pooling(_mode(settings or {}), normalize="Normalize" in kinds)


def read_longest_input(files: ModelFiles) -> int | None:
    """The longest input in tokens that a model is meant for; None when it does not say."""
    settings = _json(files, "sentence_bert_config.json") or {}
    longest: int | None = settings.get("max_seq_length")
    return longest


def _mode(settings: dict[str, Any]) -> str:
    names = {f"pooling_mode_{name}": mode for name, mode in _NAMES.items()}
    asked = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True]
    if isinstance(settings.get("pooling_mode"), str):
        asked = [f"pooling_mode_{settings['pooling_mode']}"]
    if len(asked) > 1 or not names.keys() >= set(asked):
        raise _not_supported(" with ".join(asked))
    return names[asked[0]] if asked else "mean"


def _not_supported(what: str) -> JobFailed:
    return JobFailed(
        "ModelNotSupported",
        f"the engine transformers cannot make embeddings with {what}: it does mean, cls, max and lasttoken pooling, "
        "and normalisation",
    )


def _json(files: ModelFiles, name: str) -> Any:
    """The content of a file of the model; None when the model has no such file."""
    folder = Path(files.location)
    if folder.is_dir():
        path = folder / name
        return json.loads(path.read_text()) if path.exists() else None
    try:
        return json.loads(Path(hf_hub_download(files.location, name, **files.options)).read_text())
    except RemoteEntryNotFoundError:
        return None
    except LocalEntryNotFoundError:
        if constants.HF_HUB_OFFLINE:  # what the local copy of the model lacks, it does not have
            return None
        raise


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    return (hidden * mask).sum(1) / mask.sum(1)


def _first(hidden: Tensor, _mask: Tensor) -> Tensor:
    return hidden[:, 0]


def _largest(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(mask == 0, float("-inf")).amax(1)


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    places = mask[:, :, 0].sum(1).long() - 1
    return hidden[torch.arange(len(hidden), device=hidden.device), places]


_MODES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": _mean, "cls": _first, "max": _largest, "last": _last}
_NAMES = {
    "mean": "mean",
    "mean_tokens": "mean",
    "cls": "cls",
    "cls_token": "cls",
    "max": "max",
    "max_tokens": "max",
    "lasttoken": "last",
}
"""Names of sentence-transformers, new and old."""
