"""Splitting: a record becomes several, each a record of its own: chunks, lines or pages of a text, tiles or frames of images.

Which parts there are follows from the text and the settings alone, so they are the same for every worker, branch and rerun. Laid one
after the other, without their overlaps, the parts are the text again, to the last character; and tiles are the image, to the last pixel.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated, ClassVar, NamedTuple, TypeAlias, TypeVar

from pydantic import Field

from headrace.api.base import ApiModel, Rule

Span: TypeAlias = tuple[int, int]
"""The characters of a text from the first to the one before the second."""

T = TypeVar("T")

CUSTOM_ID, PART = "custom_id", "part"
"""Fields that a part has of its own: its id, and `{parent, position}`."""
_MARK = "#"
_NEAR = 4
"""A border is near when it lies in the last quarter of a chunk."""
MOST_FRAMES = 64
"""Frames of one part: a record may have so many images that a task answers (`headrace.api.content.MAX_MEDIA`)."""
_SENTENCE_END = re.compile(r"[.!?…][\"'”’»)\]]*\s+|[。！？]|\n\n+")  # noqa: RUF001 - marks of several scripts


class SplitBy(StrEnum):
    """What the parts of a record are."""

    CHUNKS = "chunks"
    """Runs of at most `size` characters, which end with a sentence or a word where one ends near."""
    LINES = "lines"
    """Runs of `size` lines."""
    PAGES = "pages"
    """Runs of `size` pages; a form feed ends a page."""
    TILES = "tiles"
    """Squares of at most `size` pixels a side, line by line, of each image."""
    FRAMES = "frames"
    """Runs of `size` frames of an animated image."""

    @property
    def of_images(self) -> bool:
        """Whether it is images that are split: how many parts there are, only their files know."""
        return self in (SplitBy.TILES, SplitBy.FRAMES)


class Split(ApiModel):
    """How a record is split into parts. A part's `custom_id` is that of its record and its position from 0: `report#0003`."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.overlap < self.size",
            message="overlap must be less than size: each part must have something that the one before it has not",
            check=lambda it: it.overlap < it.size,
            field="overlap",
        ),
        Rule(
            cel="!(self.field in ['custom_id', 'part'])",
            message="field must not be custom_id or part: these say which part of which record it is",
            check=lambda it: it.field not in (CUSTOM_ID, PART),
            field="field",
        ),
        Rule(
            cel="!(self.by in ['tiles', 'frames']) || self.field == 'text'",
            message="field is about texts: it may not be set when by is tiles or frames, for these are of the images in content",
            check=lambda it: not it.by.of_images or it.field == "text",
            field="field",
        ),
        Rule(
            cel=f"self.by != 'frames' || self.size <= {MOST_FRAMES}",
            message=f"size must be at most {MOST_FRAMES} when by is frames: a record may have so many images",
            check=lambda it: it.by != SplitBy.FRAMES or it.size <= MOST_FRAMES,
            field="size",
        ),
    )

    by: SplitBy
    """What the parts are: chunks, lines or pages of a text; tiles or frames of the images in `content`."""
    size: Annotated[int, Field(ge=1, le=16_777_216)]
    """How much a part has: characters of a chunk (about four make a token), lines, pages, pixels of a tile's side, or frames."""
    overlap: Annotated[int, Field(ge=0, le=16_777_215)] = 0
    """How much of that the next part has too; of chunks at most so much, so that it begins with a word."""
    field: Annotated[str, Field(min_length=1, max_length=253)] = "text"
    """The field of the record whose text is split; of the format text that is always `text`."""


def part_id(parent: str, position: int) -> str:
    """The `custom_id` of a part, by the `custom_id` of its record and its position from 0."""
    return f"{parent}{_MARK}{position:04}"


def parent_of(custom_id: str) -> str:
    """The `custom_id` of the record that a part is of."""
    return custom_id.rpartition(_MARK)[0]


def spans(text: str, split: Split) -> Iterator[Span]:
    """Where the parts of a text are, in their order; an empty text is one empty part."""
    match split.by:
        case SplitBy.CHUNKS:
            return _chunks(text, split.size, split.overlap)
        case SplitBy.LINES:
            return _runs(text, "\n", split.size, split.overlap)
        case SplitBy.PAGES:
            return _runs(text, "\f", split.size, split.overlap)
        case SplitBy.TILES | SplitBy.FRAMES:
            raise ValueError(f"{split.by} are of images, and not of a text")


class Box(NamedTuple):
    """Where a tile lies in its image, in pixels from the left and from the top."""

    x: int
    y: int
    width: int
    height: int


def tiles(width: int, height: int, split: Split) -> Iterator[Box]:
    """The tiles of an image, line by line; the last of a line, and those of the last line, may be smaller."""
    for y in _starts(height, split):
        for x in _starts(width, split):
            yield Box(x, y, min(split.size, width - x), min(split.size, height - y))


def tile_count(width: int, height: int, split: Split) -> int:
    """How many they are."""
    return len(_starts(width, split)) * len(_starts(height, split))


def _starts(length: int, split: Split) -> range:
    """Where the tiles of one line begin. None of them has nothing but what the one before it has too."""
    return range(0, max(1, length - split.overlap), split.size - split.overlap)


def runs(units: Iterable[T], split: Split) -> Iterator[list[T]]:
    """Runs of `split.size` units, of which the last may be shorter; no more of them are held at once than a run has."""
    run: deque[T] = deque()
    is_new = False
    for unit in units:
        run.append(unit)
        is_new = True
        if len(run) == split.size:
            yield list(run)
            is_new = False
            for _ in range(split.size - split.overlap):
                run.popleft()
    if is_new:
        yield list(run)


def _runs(text: str, mark: str, size: int, overlap: int) -> Iterator[Span]:
    """Runs of `size` units, of which each but the last ends with `mark`."""
    start, last = 0, -1
    ends: deque[int] = deque()
    for end in _unit_ends(text, mark):
        ends.append(end)
        if len(ends) == size:
            yield start, end
            last = end
            for _ in range(size - overlap):
                start = ends.popleft()
    if last != len(text):
        yield start, len(text)


def _unit_ends(text: str, mark: str) -> Iterator[int]:
    end = 0
    while (found := text.find(mark, end)) >= 0:
        end = found + 1
        yield end
    if end < len(text):
        yield len(text)


def _chunks(text: str, size: int, overlap: int) -> Iterator[Span]:
    start = 0
    while start + size < len(text):
        end = _ending(text, start + max(overlap + 1, size - size // _NEAR), start + size)
        yield start, end
        start = _beginning(text, end - overlap, end)
    yield start, len(text)


def _ending(text: str, earliest: int, latest: int) -> int:
    """The last place for a chunk to end: after a sentence, or else after a word, or else in one."""
    sentences = (found.end() for found in _SENTENCE_END.finditer(text, max(0, earliest - 2), latest))
    best = max((end for end in sentences if end >= earliest), default=None)
    if best is not None:
        return best
    return next((end for end in range(latest, earliest - 1, -1) if text[end - 1].isspace()), latest)


def _beginning(text: str, earliest: int, end: int) -> int:
    """Where the next chunk begins: with the first word after `earliest`, when there is one before `end`."""
    return next((at for at in range(earliest, end) if text[at - 1].isspace()), earliest)
