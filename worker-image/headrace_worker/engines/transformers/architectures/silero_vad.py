"""Silero VAD: whether somebody speaks. A small recurrent network over windows of 32 ms, at 16,000 samples a second.

A sound is as likely speech as its most speech-like half second: speech among silence is speech, one odd click is not. The windows of all
sounds of a batch go through the convolutions together; only the recurrent layer takes them one after the other. It looks back and never
ahead, so the padding behind a shorter sound changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from headrace_worker.media.sounds import decode_sound

MARK = "stft_conv.weight"
RATE = 16_000
WINDOW = 512
"""Samples."""
_CONTEXT = 64
"""Samples before a window that it is looked at with."""
_BINS = 129
_SMOOTHED = RATE // 2 // WINDOW
_AT_ONCE = 4096
"""Windows in one pass through the convolutions: some tens of megabytes."""


class _Network(nn.Module):
    """The layers under the names that the weights have."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * _BINS, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(_BINS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def features(self, windows: Tensor) -> Tensor:
        """[windows, samples] to [windows, 128]."""
        spectrum = self.stft_conv(functional.pad(windows, (0, _CONTEXT), "reflect")[:, None])
        real, imaginary = spectrum[:, :_BINS], spectrum[:, _BINS:]
        found: Tensor = (real.square() + imaginary.square()).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            found = layer(found).relu()
        return found[:, :, 0]

    def forward(self, windows: Tensor) -> Tensor:
        """How likely each window is speech: [windows of a sound, sounds, samples] to [windows of a sound, sounds]."""
        flat = windows.flatten(0, 1)
        features = torch.cat([self.features(piece) for piece in torch.split(flat, _AT_ONCE)])
        hidden, _ = self.lstm(features.view(*windows.shape[:2], -1))
        logits: Tensor = self.final_conv(hidden.relu().permute(1, 2, 0))
        return logits[:, 0].sigmoid().T


class SileroVad:
    """Tells speech from everything else."""

    labels: Sequence[str] = ("speech", "no speech")

    def __init__(self, network: _Network, device: torch.device) -> None:
        self._network, self._device = network, device

    def read(self, data: bytes) -> Tensor:
        """A sound as windows with their context, of shape [windows, samples]. Raises `MediaError`."""
        sound = torch.from_numpy(decode_sound(data, RATE))
        padded = functional.pad(sound, (_CONTEXT, -len(sound) % WINDOW))
        return padded.unfold(0, _CONTEXT + WINDOW, WINDOW)

    def key(self, item: Tensor) -> int:
        """Sounds of any length share a batch; those within a factor of two waste little."""
        return len(item).bit_length()

    @torch.inference_mode()
    def classify(self, batch: Sequence[Tensor]) -> Tensor:
        """Probabilities of shape [sounds, labels], float32, on the CPU."""
        windows = nn.utils.rnn.pad_sequence(list(batch)).to(self._device)
        chances = self._network(windows).float().cpu()
        speech = torch.stack([_loudest(row[: len(item)]) for row, item in zip(chances.T, batch, strict=True)])
        return torch.stack([speech, 1 - speech], dim=1)


def _loudest(chances: Tensor) -> Tensor:
    """The mean over the most speech-like half second, or over all of a shorter sound."""
    return chances.unfold(0, min(_SMOOTHED, len(chances)), 1).mean(1).amax()


def load(weights: Mapping[str, Tensor], device: torch.device) -> SileroVad:
    """The classifier of these weights. Raises `RuntimeError` when some are missing or left over."""
    renamed = {name.replace("lstm_cell.", "lstm."): value for name, value in weights.items()}
    renamed = {f"{name}_l0" if name.startswith("lstm.") else name: value for name, value in renamed.items()}
    network = _Network()
    network.load_state_dict(renamed)
    return SileroVad(network.eval().requires_grad_(requires_grad=False).to(device), device)
