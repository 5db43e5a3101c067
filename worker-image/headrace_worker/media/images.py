"""Decoding images with Pillow. What a file says about itself is looked at before a pixel of it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image, ImageOps, UnidentifiedImageError

from headrace.api.records import ErrorCode
from headrace_worker.media.errors import MediaError, invalid

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
MOST_PIXELS = 64 * 1024 * 1024
"""A file of a few kilobytes can say that it is gigabytes of white."""


def decode_image(data: bytes) -> Image.Image:
    """The picture as RGB, the right way up; of an animation the first one. Raises `MediaError`."""
    with decoding(data):
        return upright(open_image(data))


def open_image(data: bytes) -> Image.Image:
    """The file, of which no pixel has been decoded yet. Raises `MediaError`, and in `decoding` whatever is wrong as one."""
    image = Image.open(BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise _too_many_pixels(f"{width} x {height}")
    return image


def upright(image: Image.Image) -> Image.Image:
    """The picture that the file stands at, as RGB, turned as its camera says."""
    return ImageOps.exif_transpose(image).convert("RGB")


@contextmanager
def decoding(data: bytes) -> Iterator[None]:
    """Whatever a decoder finds wrong inside the block is a `MediaError`."""
    try:
        yield
    except MediaError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_many_pixels("very many") from error
    except UnidentifiedImageError as error:
        raise invalid(_unidentified(data)) from error
    except Exception as error:  # decoders of other people's files raise anything
        raise invalid(f"is an image that cannot be decoded: {error}") from error


_VIDEOS = {b"\x1a\x45\xdf\xa3": "WebM or Matroska", b"FLV\x01": "FLV", b"\x00\x00\x01\xba": "MPEG"}
_STILLS_IN_BOXES = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
"""Images that come in the container of MP4."""


def _unidentified(data: bytes) -> str:
    kind = _video(data)
    if kind is None:
        return f"is no image of the formats {', '.join(FORMATS)}"
    return (
        f"is a video ({kind}), which is not decoded here: give its frames as an animated GIF, WebP or PNG, or as images"
    )


def _video(data: bytes) -> str | None:
    """Which container of videos this is, by its first bytes."""
    if data[4:8] == b"ftyp":
        return None if data[8:12] in _STILLS_IN_BOXES else "MP4"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "AVI"
    return _VIDEOS.get(data[:4])


def _too_many_pixels(size: str) -> MediaError:
    most = MOST_PIXELS // 1024**2
    return MediaError(
        ErrorCode.MEDIA_TOO_LARGE, f"is an image of {size} pixels; at most {most} Mi are decoded: scale it down"
    )
