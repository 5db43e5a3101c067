"""Projections of a Llama and its like that read the same, made one layer each; and what each layer then consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headrace_worker.engines.transformers import native
from headrace_worker.engines.transformers.packed import PackedLinear, PackedPart, can_pack
from headrace_worker.engines.transformers.tiled import Store, TiledLinear, can_tile

MODEL_TYPES = frozenset({"llama", "mistral", "qwen2"})
_FIXED_ROTATIONS = frozenset({"default", "linear", "llama3", "yarn"})
"""Kinds of rotary positions whose angle depends on the position alone, not on how long a sequence is."""
_ALONE = ("self_attn.o_proj", "mlp.down_proj")


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer consists of."""

    index: int
    before_attention: Tensor
    qkv: PackedLinear | TiledLinear
    out: PackedLinear | TiledLinear
    before_mlp: Tensor
    gate_up: PackedLinear | TiledLinear
    down: PackedLinear | TiledLinear
    window: int | None


def joined_layers(model: Any) -> list[Layer]:
    """The layers of a model that has been through `join_projections`; none of one that could not be joined."""
    if not any(isinstance(module, PackedPart) for module in model.modules()):
        return []
    return [_layer(index, layer, model.config) for index, layer in enumerate(model.model.layers)]


def join_projections(model: Any) -> bool:
    """Make one layer of each layer's projections that read the same, where `FusedDecoder` can run the model; says whether it can.

    Where our own kernels have matrix products, all linear layers are laid out for these. The model itself still works: its projections
    become parts of the joined ones.
    """
    if not _can_join(model):
        return False
    config, attention = model.config, model.model.layers[0].self_attn
    attended = config.num_attention_heads * attention.head_dim
    store = Store() if can_tile(model.dtype, config.hidden_size, config.intermediate_size, attended) else None
    for layer in model.model.layers:
        _join(layer.self_attn, ("q_proj", "k_proj", "v_proj"), store)
        _join(layer.mlp, ("gate_proj", "up_proj"), store)
        for name in _ALONE:
            _tile(layer, name, store)
    _tile(model, "lm_head", store)
    return True


def _can_join(model: Any) -> bool:
    config = model.config
    if getattr(config, "model_type", None) not in MODEL_TYPES or not hasattr(model, "lm_head"):
        return False
    attention = model.model.layers[0].self_attn
    return (
        can_pack(model.dtype)
        and native.can(model.dtype, attention.head_dim)
        and config.hidden_act in ("silu", "swish")
        and config.hidden_size % native.LANES == config.intermediate_size % native.LANES == 0
        and model.model.rotary_emb.rope_type in _FIXED_ROTATIONS
        and model.model.rotary_emb.inv_freq.numel() * 2 == attention.head_dim
    )


def _join(module: Any, names: tuple[str, ...], store: Store | None) -> None:
    layers = [getattr(module, name) for name in names]
    biases = [layer.bias for layer in layers]
    bias = None if biases[0] is None else torch.cat(biases)
    weight = torch.cat([layer.weight for layer in layers])
    joined = PackedLinear(weight, bias) if store is None else TiledLinear(weight, bias, store)
    start = 0
    for name, layer in zip(names, layers, strict=True):
        setattr(module, name, PackedPart(joined, start, start + layer.out_features))
        start += layer.out_features


def _tile(module: Any, name: str, store: Store | None) -> None:
    if store is not None:
        layer = module.get_submodule(name)
        module.set_submodule(name, TiledLinear(layer.weight, layer.bias, store))


def _layer(index: int, layer: Any, config: Any) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    # Mistral has one window for all layers and knows it from the configuration; Llama has none.
    window = config.sliding_window if config.model_type == "mistral" else getattr(attention, "sliding_window", None)
    return Layer(
        index,
        layer.input_layernorm.weight,
        attention.q_proj.joined,
        attention.o_proj,
        layer.post_attention_layernorm.weight,
        mlp.gate_proj.joined,
        mlp.down_proj,
        window,
    )
