"""What records are prepared with: the tokeniser and the context of a model, and no weights. For all engines that run models themselves."""

from __future__ import annotations

from headrace.api.base import JsonObject
from headrace.api.model import Model, Task
from headrace_worker.engines.transformers import weights
from headrace_worker.engines.transformers.parameters import invalid
from headrace_worker.engines.transformers.pooling import read_longest_input
from headrace_worker.engines.transformers.source import ModelFiles
from headrace_worker.engines.transformers.tokens import Prompts


def read_prompts(model: Model, files: ModelFiles) -> Prompts:
    """The tokeniser of a model, with the rules of its task. Raises `JobFailed` when the model cannot do that."""
    config = weights.load_config(model, files)
    context = weights.context_tokens(model, config)
    embeds = model.task == Task.EMBEDDING
    if embeds and model.context_tokens is None:
        context = min(context, read_longest_input(files) or context)
    tokenizer = weights.load_tokenizer(model, files)
    prompts = Prompts(tokenizer, context=context, answer=0 if embeds else 1, vocabulary=config.vocab_size)
    if model.task == Task.CHAT:
        _ = prompts.chat_template  # a model without one cannot chat, and that is known now
    return prompts


def wants_base64(body: JsonObject) -> bool:
    """Whether the embeddings of a record are wanted in base64. Raises `RecordError` for what no engine here can do."""
    wanted = body.get("encoding_format", "float")
    if wanted not in ("float", "base64"):
        raise invalid("encoding_format", "must be float or base64")
    if body.get("dimensions") is not None:
        raise invalid("dimensions", "must be absent: embeddings are not shortened")
    return bool(wanted == "base64")
