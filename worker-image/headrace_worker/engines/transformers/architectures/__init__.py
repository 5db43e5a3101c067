"""Models that are published as bare weights in Python packages: their networks are written out here, and need no other package.

Weights say by the names in them whose they are. Each module offers `MARK`, a name that only its weights have, and `load`.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file

from headrace_worker.engines.transformers.architectures import efficientnet_lite0, silero_vad

SUFFIXES = (".pth", ".safetensors")
_KNOWN: tuple[ModuleType, ...] = (efficientnet_lite0, silero_vad)


def load_bare(path: Path, device: torch.device) -> Any:
    """The classifier whose weights are in a file. Raises `ValueError` for weights of nothing that is known here.

    A `.pth` file is read as numbers alone; code in it is not run.
    """
    weights = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    for known in _KNOWN:
        if known.MARK in weights:
            return known.load(weights, device)
    raise ValueError("a file of bare weights must be of EfficientNet-Lite0 or of Silero VAD")
