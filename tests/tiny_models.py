"""Small models with random weights, saved as Hugging Face saves them, and the configuration of a worker that runs them.

The weights are drawn wide (standard deviation 0.3): narrower ones repeat one token for ever, and then a wrong engine is right too.
Token i is the word `t<i>`, so a text says exactly which tokens were generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)

from headrace.api.records import Request
from headrace.api.worker import WorkerConfig
from headrace_worker.engines.base import Engine, Outcome

SPREAD = 0.3
VOCABULARY = 512
CHAT_TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"

_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
    "initializer_range": SPREAD,
}
_NO_SPECIAL_TOKENS = {"eos_token_id": None, "bos_token_id": None, "pad_token_id": 0}


def drive(engine: Engine, requests: Sequence[Request]) -> dict[str, Outcome]:
    """Load an engine and answer requests in this order; the outcomes by `custom_id`."""
    works = [engine.prepare(position, request) for position, request in enumerate(requests)]
    engine.load()
    outcomes: dict[str, Outcome] = {}
    while works or engine.running:
        room = engine.room
        engine.submit(works[:room])
        works = works[room:]
        outcomes |= {outcome.work.request.custom_id: outcome for outcome in engine.step()}
    engine.close()
    return outcomes


def text(outcome: Outcome) -> str:
    """The text of an answer."""
    assert outcome.body is not None, outcome.error
    choice = outcome.body["choices"][0]
    return str(choice["text"] if "text" in choice else choice["message"]["content"])


def words(ids: Sequence[int]) -> str:
    """The text of token ids."""
    return " ".join(f"t{i}" for i in ids)


def save_llama(folder: Path, **settings: Any) -> Path:
    """A model with rotary positions and grouped query heads, as Llama and most others."""
    config = LlamaConfig(**{**_SMALL, **_NO_SPECIAL_TOKENS, "num_key_value_heads": 2, **settings})
    return _save(folder, LlamaForCausalLM, config)


def save_mistral(folder: Path, sliding_window: int) -> Path:
    """A model whose tokens see only a window before them."""
    window = {"sliding_window": sliding_window, "num_key_value_heads": 2}
    return _save(folder, MistralForCausalLM, MistralConfig(**_SMALL, **_NO_SPECIAL_TOKENS, **window))


def save_qwen2(folder: Path) -> Path:
    """A model like Llama with biases, whose upper layers see only a window."""
    window = {"use_sliding_window": True, "sliding_window": 10, "max_window_layers": 1, "num_key_value_heads": 1}
    return _save(folder, Qwen2ForCausalLM, Qwen2Config(**_SMALL, **_NO_SPECIAL_TOKENS, **window))


def save_gpt2(folder: Path) -> Path:
    """A model with learned positions and a head for each query."""
    sizes = {"vocab_size": VOCABULARY, "n_positions": 256, "n_embd": 64, "n_layer": 3, "n_head": 4}
    config = GPT2Config(**sizes, **_NO_SPECIAL_TOKENS, initializer_range=SPREAD)
    return _save(folder, GPT2LMHeadModel, config)


def save_bert(folder: Path) -> Path:
    """A text encoder."""
    return _save(folder, BertModel, BertConfig(**_SMALL))


def save_vit(folder: Path, labels: Sequence[str] = ("cat", "dog", "bird")) -> Path:
    """A classifier of images of 32 x 32 pixels."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = ViTConfig(**sizes, image_size=32, patch_size=8, initializer_range=SPREAD, id2label=dict(enumerate(labels)))
    torch.manual_seed(7)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_ast(folder: Path, labels: Sequence[str] = ("speech", "music")) -> Path:
    """A classifier of sounds by their spectrogram, several labels at once."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    shape = {"max_length": 64, "num_mel_bins": 32}
    many = {"problem_type": "multi_label_classification", "id2label": dict(enumerate(labels))}
    torch.manual_seed(7)
    ASTForAudioClassification(ASTConfig(**sizes, **shape, **many, initializer_range=SPREAD)).save_pretrained(folder)
    ASTFeatureExtractor(**shape).save_pretrained(folder)
    return folder


def save_wav2vec2(folder: Path) -> Path:
    """A classifier of sounds by their samples; padding would change its answers."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    layers = {"conv_dim": (32, 32), "conv_stride": (20, 16), "conv_kernel": (20, 16), "num_conv_pos_embeddings": 16}
    torch.manual_seed(7)
    config = Wav2Vec2Config(**sizes, **layers, num_labels=4, initializer_range=SPREAD)
    Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path, size: int, chat_template: str | None = None) -> None:
    """A tokeniser with one token a word."""
    model = WordLevel({f"t{i}": i for i in range(size)}, unk_token="t0")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=chat_template).save_pretrained(folder)


def worker_config(model: dict[str, Any], **settings: Any) -> WorkerConfig:
    """What a worker with the engine transformers is told; `settings` in camelCase."""
    return WorkerConfig.parse(
        {
            "batch": {"namespace": "default", "name": "test", "uid": "uid-test"},
            "model": model,
            "engine": {"name": "transformers"},
            "input": {"uri": "file:///in.jsonl"},
            "planUri": "file:///plan.jsonl",
            "outputUri": "file:///out/",
            "batching": {},
            "shards": 1,
            "retries": {},
            **settings,
        }
    )


def _save(folder: Path, kind: Any, config: Any) -> Path:
    torch.manual_seed(7)
    kind(config).save_pretrained(folder)
    save_tokenizer(folder, config.vocab_size, CHAT_TEMPLATE)
    return folder
