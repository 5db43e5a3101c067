"""Splitting: the parts of a text are the text again, and each is as large as it was asked to be."""

from __future__ import annotations

from itertools import pairwise

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.api.base import InvalidSpec
from headrace.api.content import MAX_MEDIA
from headrace.api.input import Input
from headrace.api.model import Model, Task
from headrace.api.parts import part_reader
from headrace.api.records import RecordError
from headrace.api.splitting import MOST_FRAMES, Split, SplitBy, parent_of, part_id, runs, spans, tile_count, tiles

TEXTS = st.text(alphabet="ab .!?\n\f\r\t。é👋", max_size=120) | st.text(max_size=60)
UNIT_END = {SplitBy.LINES: "\n", SplitBy.PAGES: "\f"}


@st.composite
def splits(draw: st.DrawFn) -> Split:
    """Any split of texts that the schema takes, the sizes small enough to matter."""
    size = draw(st.integers(1, 40))
    kinds = st.sampled_from([by for by in SplitBy if not by.of_images])
    return Split(by=draw(kinds), size=size, overlap=draw(st.integers(0, size - 1)))


@st.composite
def image_splits(draw: st.DrawFn, by: SplitBy) -> Split:
    size = draw(st.integers(1, 20))
    return Split(by=by, size=size, overlap=draw(st.integers(0, size - 1)))


def parts(text: str, **split: object) -> list[str]:
    return [text[start:end] for start, end in spans(text, Split.parse(split))]


@settings(max_examples=600)
@given(TEXTS, splits())
@example("", Split(by=SplitBy.LINES, size=1))
@example("no border at all" * 4, Split(by=SplitBy.CHUNKS, size=3, overlap=2))
def test_the_parts_without_their_overlaps_are_the_text(text: str, split: Split) -> None:
    found = list(spans(text, split))
    assert (found[0][0], found[-1][1]) == (0, len(text))
    for (start, end), (following, last) in pairwise(found):
        assert start < following <= end < last, (
            "each part goes on where the one before it ends, or before that, and further"
        )
    starts = [0, *(end for _, end in found[:-1])]
    assert "".join(text[start:end] for start, (_, end) in zip(starts, found, strict=True)) == text


@settings(max_examples=600)
@given(TEXTS, splits())
def test_no_part_is_larger_than_asked_and_no_overlap_either(text: str, split: Split) -> None:
    found = list(spans(text, split))
    mark = UNIT_END.get(split.by)
    for start, end in found:
        assert size_of(text[start:end], mark) <= split.size
    for (_, end), (following, _) in pairwise(found):
        overlap = size_of(text[following:end], mark)
        assert overlap == split.overlap if mark is not None else overlap <= split.overlap


def size_of(part: str, mark: str | None) -> int:
    """How many units a part has: characters, or runs that end with the mark, the last of which may lack it."""
    return len(part) if mark is None else part.count(mark) + (not part.endswith(mark) and part != "")


@given(TEXTS, splits())
def test_spans_of_a_text_are_always_the_same(text: str, split: Split) -> None:
    assert list(spans(text, split)) == list(spans(text, split))


@pytest.mark.parametrize(
    ("text", "size", "overlap", "expected"),
    [
        pytest.param("One. Two three four.", 8, 0, ["One. Two", " three ", "four."], id="words, where no sentence ends near"),
        pytest.param("It was. So it is.", 10, 0, ["It was. ", "So it is."], id="a sentence that ends near"),
        pytest.param('He said "no!" Then he left.', 16, 0, ['He said "no!" ', "Then he left."], id="a quotation mark after the end"),
        pytest.param("A title\n\nits text goes on", 10, 0, ["A title\n\n", "its text ", "goes on"], id="a paragraph"),
        pytest.param("abcdefghij", 4, 0, ["abcd", "efgh", "ij"], id="no border anywhere"),
        pytest.param("abcdefghij", 4, 3, ["abcd", "bcde", "cdef", "defg", "efgh", "fghi", "ghij"], id="an overlap of all but one"),
        pytest.param("one two three four", 10, 6, ["one two ", "two three ", "three four"], id="an overlap that begins with a word"),
        pytest.param("one two three four", 10, 2, ["one two ", "o three ", "e four"], id="an overlap too short for a word"),
        pytest.param("今日は。明日は。", 5, 0, ["今日は。", "明日は。"], id="a script without spaces"),
        pytest.param("abcd", 4, 0, ["abcd"], id="exactly one chunk"),
        pytest.param("abcde", 4, 0, ["abcd", "e"], id="one character more than a chunk"),
        pytest.param("", 4, 0, [""], id="nothing"),
    ],
)  # fmt: skip
def test_chunks_end_where_a_sentence_or_a_word_does(text: str, size: int, overlap: int, expected: list[str]) -> None:
    assert parts(text, by="chunks", size=size, overlap=overlap) == expected


@pytest.mark.parametrize(
    ("text", "split", "expected"),
    [
        pytest.param("a\nb\r\n\nd", {"by": "lines", "size": 2}, ["a\nb\r\n", "\nd"], id="lines"),
        pytest.param(
            "a\nb\nc\n", {"by": "lines", "size": 2, "overlap": 1}, ["a\nb\n", "b\nc\n"], id="lines that overlap"
        ),
        pytest.param("1\f2\f", {"by": "pages", "size": 1}, ["1\f", "2\f"], id="pages"),
        pytest.param("1\f\f3", {"by": "pages", "size": 1}, ["1\f", "\f", "3"], id="an empty page between two"),
        pytest.param("1", {"by": "pages", "size": 9}, ["1"], id="fewer pages than a part may have"),
    ],
)
def test_lines_and_pages_keep_their_ends(text: str, split: dict[str, object], expected: list[str]) -> None:
    assert parts(text, **split) == expected


@given(st.text(min_size=1, max_size=20), st.integers(0, 100_000))
def test_the_id_of_a_part_tells_its_parent(parent: str, position: int) -> None:
    assert parent_of(part_id(parent, position)) == parent


def test_ids_of_parts_are_those_of_the_documentation() -> None:
    assert [part_id("report", n) for n in (0, 3, 12345)] == ["report#0000", "report#0003", "report#12345"]


@pytest.mark.parametrize(
    ("split", "complaint"),
    [
        pytest.param({"by": "chunks"}, "size: required", id="no size"),
        pytest.param({"size": 5}, "by: required", id="no by"),
        pytest.param({"by": "chunks", "size": 0}, "size: must be greater than or equal to 1, not 0", id="size 0"),
        pytest.param({"by": "lines", "size": 5, "overlap": 5}, "overlap: overlap must be less than size", id="all overlap"),
        pytest.param({"by": "lines", "size": 5, "overlap": -1}, "overlap: must be greater", id="a negative overlap"),
        pytest.param({"by": "scenes", "size": 5}, "by: must be 'chunks', 'lines', 'pages', 'tiles' or 'frames'", id="scenes"),
        pytest.param({"by": "frames", "size": 65}, "size: size must be at most 64 when by is frames", id="too many frames"),
        pytest.param({"by": "tiles", "size": 5, "field": "body"}, "field: field is about texts", id="a field of tiles"),
        pytest.param({"by": "pages", "size": 1, "field": "part"}, "field: field must not be custom_id or part", id="its own field"),
    ],
)  # fmt: skip
def test_a_split_that_cannot_be_is_refused_by_name(split: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        Split.parse(split)
    assert str(refused.value).startswith(complaint)


def test_a_part_has_the_fields_of_its_record_and_its_own_text() -> None:
    prompt = {"template": "{{ title }} {{ part.position }} of {{ part.parent }}: {{ body }}"}
    split = {"by": "lines", "size": 1, "field": "body"}
    spec = Input.parse({"uri": "file:///in", "format": "jsonl", "prompt": prompt, "split": split})
    record = {"custom_id": "r1", "title": "T", "body": "x\ny"}
    found = list(part_reader(spec, Model(name="m", task=Task.COMPLETION))("", orjson.dumps(record), 1))
    assert [part.request for part in found] == [("r1#0001", {"prompt": "T 1 of r1: y"}, True)]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        pytest.param(b'{"custom_id": "a"}', "there must be a text in text", id="no text"),
        pytest.param(b'{"custom_id": "a", "text": 7}', "there must be a text in text", id="a number for a text"),
        pytest.param(b'{"text": "x"}', "custom_id must be set", id="no id"),
        pytest.param(orjson.dumps({"custom_id": "a" * 512, "text": "x"}), "custom_id must be a string of 1 to 512",
                     id="no room for the position in the id"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_split_says_why(line: bytes, complaint: str) -> None:
    spec = Input.parse({"uri": "file:///in", "format": "jsonl", "split": {"by": "lines", "size": 1}})
    with pytest.raises(RecordError, match=complaint):
        list(part_reader(spec, None)("", line, 0))


@settings(max_examples=300)
@given(st.integers(1, 60), st.integers(1, 60), image_splits(SplitBy.TILES))
def test_tiles_cover_their_image_and_each_has_a_pixel_that_no_earlier_one_has(
    width: int, height: int, split: Split
) -> None:
    seen: set[tuple[int, int]] = set()
    found = list(tiles(width, height, split))
    for x, y, wide, high in found:
        assert 1 <= wide <= split.size
        assert 1 <= high <= split.size
        own = {(x + right, y + down) for right in range(wide) for down in range(high)}
        assert own - seen
        seen |= own
    assert seen == {(x, y) for x in range(width) for y in range(height)}
    assert len(found) == tile_count(width, height, split)


def test_tiles_without_overlap_lie_side_by_side() -> None:
    found = list(tiles(5, 3, Split(by=SplitBy.TILES, size=2)))
    assert found == [(0, 0, 2, 2), (2, 0, 2, 2), (4, 0, 1, 2), (0, 2, 2, 1), (2, 2, 2, 1), (4, 2, 1, 1)]
    assert sum(wide * high for _, _, wide, high in found) == 5 * 3


@settings(max_examples=300)
@given(st.integers(1, 60), image_splits(SplitBy.FRAMES))
def test_runs_of_frames_are_those_of_as_many_lines(frames: int, split: Split) -> None:
    text, lines = "x\n" * frames, split.model_copy(update={"by": SplitBy.LINES})
    expected = [list(range(start // 2, end // 2)) for start, end in spans(text, lines)]
    assert list(runs(range(frames), split)) == expected


def test_a_part_has_no_more_frames_than_a_task_answers_images() -> None:
    assert MOST_FRAMES == MAX_MEDIA
