"""Models that say what an image or a sound is: those of Hugging Face, and those of bare weights.

Only what has one shape shares a batch, so there is no padding, and a record's answer does not depend on its batch mates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoImageProcessor

from headrace.api.model import Model, Task
from headrace_worker.engines.transformers import weights
from headrace_worker.engines.transformers.architectures import SUFFIXES, load_bare
from headrace_worker.engines.transformers.source import ModelFiles, bare_weights, find
from headrace_worker.media.images import decode_image
from headrace_worker.media.sounds import decode_sound


class Classifier(Protocol):
    """A model with its weights on a device."""

    labels: Sequence[str]

    def read(self, data: bytes) -> Tensor:
        """What the model takes of a file; called by several threads at once. Raises `MediaError`."""

    def key(self, item: Tensor) -> Any:
        """What items of one batch must have in common."""

    def classify(self, batch: Sequence[Tensor]) -> Tensor:
        """Probabilities of shape [items, labels], float32, on the CPU."""


class HubClassifier:
    """A classifier of images or sounds in the form of Hugging Face."""

    def __init__(self, model: Any, read: Any) -> None:
        names = model.config.id2label
        self.labels: Sequence[str] = [str(names[index]) for index in range(len(names))]
        self.read = read
        self._model, self._input = model, model.main_input_name
        self._many = model.config.problem_type == "multi_label_classification"

    def key(self, item: Tensor) -> torch.Size:
        """Its shape."""
        return item.shape

    @torch.inference_mode()
    def classify(self, batch: Sequence[Tensor]) -> Tensor:
        """Probabilities; of a model with many labels at once, each by itself."""
        items = torch.stack(list(batch)).to(self._model.device, self._model.dtype)
        logits: Tensor = self._model(**{self._input: items}).logits.float()
        return (logits.sigmoid() if self._many else logits.softmax(-1)).cpu()


def load_classifier(model: Model, dtype: str, device: torch.device) -> Classifier:
    """The classifier with its weights. Raises `JobFailed`."""
    bare = bare_weights(model, SUFFIXES)
    if bare is not None:
        with weights.model_errors(model.name):
            found: Classifier = load_bare(bare, device)
            return found
    files = find(model)
    loaded = weights.load_model(model, files, dtype, device)
    read = image_reader(model, files) if model.task == Task.IMAGE_CLASSIFICATION else _sound_reader(model, files)
    return HubClassifier(loaded, read)


def check_files(model: Model) -> None:
    """Raise `JobFailed` when there is no such model; needs no weights."""
    if bare_weights(model, SUFFIXES) is None:
        weights.load_config(model, find(model))


def image_reader(model: Model, files: ModelFiles) -> Any:
    """From the bytes of an image to what the model takes of it; called by several threads at once."""
    with weights.model_errors(model.name):
        processor = AutoImageProcessor.from_pretrained(files.location, **files.options)

    def read(data: bytes) -> Tensor:
        pixels: Tensor = processor(images=decode_image(data), return_tensors="pt")["pixel_values"][0]
        return pixels

    return read


def _sound_reader(model: Model, files: ModelFiles) -> Any:
    with weights.model_errors(model.name):
        extractor = AutoFeatureExtractor.from_pretrained(files.location, **files.options)
    rate: int = extractor.sampling_rate

    def read(data: bytes) -> Tensor:
        sound: NDArray[np.float32] = decode_sound(data, rate)
        features: Tensor = extractor(sound, sampling_rate=rate, return_tensors="pt")[extractor.model_input_names[0]][0]
        return features

    return read
