"""Loading the parts of a model: configuration and tokeniser for `prepare`, weights for `load`.

Only safe formats: code that comes with a model is never run. Whatever goes wrong becomes a `JobFailed` with one sentence: no other pod
would do better.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from huggingface_hub.errors import HfHubHTTPError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoTokenizer,
)

from headrace.api.model import Model, Task
from headrace_worker.engines.transformers import gguf
from headrace_worker.engines.transformers.joined import join_projections
from headrace_worker.engines.transformers.packed import pack_linear_layers
from headrace_worker.engines.transformers.source import ModelFiles, find
from headrace_worker.errors import JobFailed, WorkerError

_UNUSED_WEIGHTS = ("pooler.",)
"""Weights that may be missing, because embeddings are not made with them."""
_KINDS = {
    Task.EMBEDDING: AutoModel,
    Task.IMAGE_CLASSIFICATION: AutoModelForImageClassification,
    Task.AUDIO_CLASSIFICATION: AutoModelForAudioClassification,
}


def find_files(model: Model) -> ModelFiles:
    """Where a model's files are, those of a GGUF file unpacked as far as `prepare` needs them."""
    files = find(model)
    if files.gguf is None:
        return files
    with model_errors(model.name):
        return replace(files, location=str(gguf.unpacked(files.gguf)))


def load_config(model: Model, files: ModelFiles) -> Any:
    """The model's configuration; of a model for text and images, the part for text."""
    with model_errors(model.name):
        return AutoConfig.from_pretrained(files.location, **files.options).get_text_config()


def load_tokenizer(model: Model, files: ModelFiles) -> Any:
    """The model's tokeniser."""
    with model_errors(model.name):
        return AutoTokenizer.from_pretrained(files.location, **files.options)


def load_model(model: Model, files: ModelFiles, dtype: str, device: torch.device, *, to_generate: bool = False) -> Any:
    """The model with its weights on a device, ready to run. `dtype` is the name of a torch dtype, or `auto`.

    A model `to_generate` with has its projections joined where `FusedDecoder` can then run it.
    """
    kind = _KINDS.get(model.task, AutoModelForCausalLM)
    fetch(model, files)
    with model_errors(model.name):
        loaded, report = kind.from_pretrained(
            files.location, dtype=choose_dtype(dtype, device), output_loading_info=True, **files.options
        )
        loaded = loaded.eval().requires_grad_(requires_grad=False).to(device)
    missing = [name for name in report["missing_keys"] if not name.startswith(_UNUSED_WEIGHTS)]
    if missing:
        raise JobFailed(
            "ModelNotUsable",
            f"the model {model.name} has no weights for {min(missing)} and {len(missing) - 1} more, "
            f"which the task {model.task} needs: choose another model.task or another model",
        )
    if device.type == "cpu":
        if to_generate:
            join_projections(loaded)
        pack_linear_layers(loaded)
    return loaded


def fetch(model: Model, files: ModelFiles) -> None:
    """Bring the weights to where the files are, those of a GGUF file unpacked."""
    if files.remote is not None:
        files.remote.fetch_weights()
    if files.gguf is not None:
        with model_errors(model.name):
            gguf.unpack_weights(files.gguf)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format: `auto` is bfloat16 on a GPU and float32 on a CPU."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def context_tokens(model: Model, config: Any) -> int:
    """The longest sequence in tokens: what `model.contextTokens` says, within what the model's configuration allows."""
    own: int | None = getattr(config, "max_position_embeddings", None)
    asked = model.context_tokens
    if own is None and asked is None:
        raise JobFailed(
            "ModelNotUsable",
            f"the configuration of {model.name} does not say how long its context is: set model.contextTokens",
        )
    if own is not None and asked is not None and asked > own:
        raise JobFailed(
            "ModelNotUsable", f"model.contextTokens must be at most {own}, the context of {model.name}, not {asked}"
        )
    return asked or own or 0


@contextmanager
def model_errors(name: str) -> Iterator[None]:
    """Whatever the block raises means that the model is not there or not usable: `JobFailed`. But being told to stop is no fault of it."""
    try:
        yield
    except WorkerError:
        raise
    except (OSError, HfHubHTTPError) as error:
        raise JobFailed("ModelNotFound", f"the model {name} cannot be loaded: {_first_line(error)}") from error
    except Exception as error:  # parsers of other people's files raise anything, some of them bare Exceptions
        raise JobFailed("ModelNotUsable", f"the model {name} cannot be used: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
