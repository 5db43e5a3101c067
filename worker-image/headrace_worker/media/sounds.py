"""Decoding sounds with libsndfile, and bringing them to the rate that a model listens at."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from headrace.api.records import ErrorCode
from headrace_worker.media.errors import MediaError, invalid

FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3")
MOST_SECONDS = 600
MOST_CHANNELS = 8
MOST_RATE = 192_000
_PIECE = 65_536
"""Frames decoded at once."""


def decode_sound(data: bytes, rate: int) -> NDArray[np.float32]:
    """The sound at `rate` samples a second: float32 of shape [samples], between -1 and 1, its channels averaged.

    Raises `MediaError`.
    """
    try:
        with soundfile.SoundFile(BytesIO(data)) as file:
            _check(file)
            mono = _mono(file)
            sound: NDArray[np.float32] = mono if file.samplerate == rate else soxr.resample(mono, file.samplerate, rate)
    except MediaError:
        raise
    except Exception as error:  # decoders of other people's files raise anything
        raise invalid(f"is no sound of the formats WAV, FLAC, OGG and MP3: {error}") from error
    if not sound.size:
        raise invalid("is a sound without a sample")
    if not np.isfinite(sound).all():
        raise invalid("is a sound with samples that are no numbers")
    return sound


def _check(file: soundfile.SoundFile) -> None:
    if file.format not in FORMATS:
        raise invalid(f"is a sound of the format {file.format}: it must be WAV, FLAC, OGG or MP3")
    if not (0 < file.channels <= MOST_CHANNELS and 0 < file.samplerate <= MOST_RATE):
        raise invalid(f"is a sound of {file.channels} channels with {file.samplerate} samples a second")


def _mono(file: soundfile.SoundFile) -> NDArray[np.float32]:
    """All samples, piece by piece: what a file says about its length is only what it says."""
    pieces, most = [np.zeros(0, np.float32)], MOST_SECONDS * file.samplerate
    while len(piece := file.read(_PIECE, dtype="float32", always_2d=True)):
        pieces.append(piece.mean(axis=1))
        most -= len(piece)
        if most < 0:
            raise MediaError(
                ErrorCode.MEDIA_TOO_LARGE, f"is a sound of more than {MOST_SECONDS} seconds: cut it into shorter ones"
            )
    return np.concatenate(pieces)
