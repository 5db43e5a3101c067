"""The arguments of the kernels, as the headers beside this explain them."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p


class Attention(ctypes.Structure):
    """The arguments of the attention kernel: `attention.h`."""

    _fields_ = (
        *((name, c_void_p) for name in ("query", "key", "value")),
        *((f"{name}_{of}", c_int64) for name in ("query", "key", "value") for of in ("token", "head")),
        *((name, c_int64) for name in ("out_token", "out_panel")),
        *((name, c_void_p) for name in ("out", "keys", "values", "cosines", "sines", "starts", "lengths")),
        *((name, c_int32) for name in ("sequences", "heads", "key_heads", "size", "length", "window")),
        ("scaling", c_float),
    )


class Linear(ctypes.Structure):
    """A linear layer: `matmul.h`."""

    _fields_ = (("weights", c_void_p), ("bias", c_void_p), ("inputs", c_int64), ("outputs", c_int64))


class Layer(ctypes.Structure):
    """A layer of a decoder: `forward.h`."""

    _fields_ = (
        *((name, c_void_p) for name in ("before_attention", "before_mlp")),
        *((name, Linear) for name in ("qkv", "out", "gate_up", "down")),
        *((name, c_void_p) for name in ("keys", "values")),
        ("window", c_int64),
    )


class Pass(ctypes.Structure):
    """A forward pass: `forward.h`."""

    _fields_ = (
        ("attention", POINTER(Attention)),
        ("layers", POINTER(Layer)),
        ("head", POINTER(Linear)),
        *((name, c_void_p) for name in ("embedding", "norm", "tokens")),
        *((name, c_void_p) for name in ("residual", "normed", "qkv", "attended", "gated", "logits", "likeliest")),
        *((name, c_int64) for name in ("layer_count", "width", "room")),
        ("epsilon", c_float),
    )
