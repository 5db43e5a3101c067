"""Images and sounds, good and bad, made when they are needed."""

from __future__ import annotations

import base64
import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

RATE = 16_000


def picture(color: str = "orange", size: tuple[int, int] = (64, 48), kind: str = "PNG", **options: Any) -> bytes:
    """An image of one colour."""
    file = BytesIO()
    Image.new("RGB", size, color).save(file, kind, **options)
    return file.getvalue()


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few bytes that says it has billions of pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def tone(seconds: float = 1.0, hertz: float = 440.0, rate: int = RATE) -> NDArray[np.float32]:
    """A sine wave."""
    moments = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * moments)).astype(np.float32)


def recording(samples: NDArray[np.float32], rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """A sound file of these samples, of shape [samples] or [samples, channels]."""
    file = BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    """A URL that holds the data itself."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def image_part(url: str) -> dict[str, Any]:
    """A part that is an image."""
    return {"type": "image_url", "image_url": {"url": url}}


def sound_part(url: str) -> dict[str, Any]:
    """A part that is a sound."""
    return {"type": "audio_url", "audio_url": {"url": url}}
