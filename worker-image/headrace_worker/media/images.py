"""Decoding images with Pillow. What a file says about itself is looked at before a pixel of it is."""

from __future__ import annotations

from io import BytesIO

from PIL import Image, ImageOps, UnidentifiedImageError

from headrace.api.records import ErrorCode
from headrace_worker.media.errors import MediaError, invalid

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
MOST_PIXELS = 64 * 1024 * 1024
"""A file of a few kilobytes can say that it is gigabytes of white."""


def decode_image(data: bytes) -> Image.Image:
    """The picture as RGB, the right way up; of an animation the first one. Raises `MediaError`."""
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise _too_many_pixels(f"{width} x {height}")
        return ImageOps.exif_transpose(image).convert("RGB")
    except MediaError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_many_pixels("very many") from error
    except UnidentifiedImageError as error:
        raise invalid(f"is no image of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders of other people's files raise anything
        raise invalid(f"is an image that cannot be decoded: {error}") from error


def _too_many_pixels(size: str) -> MediaError:
    most = MOST_PIXELS // 1024**2
    return MediaError(
        ErrorCode.MEDIA_TOO_LARGE, f"is an image of {size} pixels; at most {most} Mi are decoded: scale it down"
    )
