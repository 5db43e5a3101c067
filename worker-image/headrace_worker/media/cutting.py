"""Cutting images: into tiles, and animated ones into frames. Every piece is a picture of its own, a PNG, which loses nothing.

One image is held at a time, and of an animated one no more frames than a part has.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from itertools import count
from typing import NamedTuple

from PIL import Image

from headrace.api.records import ErrorCode
from headrace.api.splitting import Split, SplitBy, runs, tile_count, tiles
from headrace_worker.media.errors import MediaError
from headrace_worker.media.images import decode_image, decoding, open_image, upright

MOST_PIECES = 10_000
"""Tiles or frames of one image: a small file can say that it has very many."""


class Piece(NamedTuple):
    """What becomes one part."""

    about: dict[str, int]
    """Where it lies in its image."""
    pictures: list[bytes]


def pieces(data: bytes, split: Split) -> Iterator[Piece]:
    """The pieces of an image, in their order. Raises `MediaError`."""
    return _tiles(data, split) if split.by == SplitBy.TILES else _runs(data, split)


def _tiles(data: bytes, split: Split) -> Iterator[Piece]:
    image = decode_image(data)
    number = tile_count(*image.size, split)
    if number > MOST_PIECES:
        raise _too_many(f"{number} tiles: make input.split.size larger, or its overlap smaller")
    for x, y, width, height in tiles(*image.size, split):
        tile = image.crop((x, y, x + width, y + height))
        yield Piece({"x": x, "y": y, "width": width, "height": height}, [_png(tile)])


def _runs(data: bytes, split: Split) -> Iterator[Piece]:
    for run in runs(_frames(data), split):
        first = run[0]
        yield Piece({"frame": first.number, "milliseconds": first.milliseconds}, [frame.png for frame in run])


class _Frame(NamedTuple):
    number: int
    milliseconds: int
    """When it is shown, from the beginning."""
    png: bytes


def _frames(data: bytes) -> Iterator[_Frame]:
    """The frames of an animated image, as they are seen; an image that does not move is one."""
    with decoding(data):
        image, milliseconds = open_image(data), 0.0
        for number in count():
            try:
                image.seek(number)
            except EOFError:
                return
            if number == MOST_PIECES:
                raise _too_many(f"more than {MOST_PIECES} frames: cut it into shorter ones")
            yield _Frame(number, round(milliseconds), _png(upright(image)))
            milliseconds += image.info.get("duration") or 0


def _png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _too_many(what: str) -> MediaError:
    return MediaError(ErrorCode.MEDIA_TOO_LARGE, f"has {what}")
