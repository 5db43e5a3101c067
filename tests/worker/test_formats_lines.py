"""Lines of a stream: where each one lies, whatever the stream gives at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.api.records import ErrorCode, RecordError
from headrace_worker.formats.lines import BYTE_ORDER_MARK, Line, lines, whole

LONGEST = 16


def naive_lines(data: bytes, start: int = 0, number: int = 1) -> Iterator[tuple[int, int, int, bytes]]:
    """The same by splitting the whole; over-long lines and blank ones included."""
    for raw in data[start:].split(b"\n"):
        end = min(start + len(raw) + 1, len(data))
        if start < end:
            skipped = len(BYTE_ORDER_MARK) if start == 0 and raw.startswith(BYTE_ORDER_MARK) else 0
            yield start + skipped, end, number, data[start + skipped : end]
        start, number = end, number + 1


def readable(found: Iterator[Line]) -> list[Line]:
    return [line for line in found if isinstance(line[3], bytes)]


def a_stream(data: bytes, buffer: int) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(data), buffer)


texts = st.lists(st.sampled_from([b"\n", b"\r\n", b" ", b"\xef\xbb\xbf", b"\xff", b"{}", b"abcdef"])).map(b"".join)


@given(data=texts | st.binary(), buffer=st.integers(1, 64))
@example(data=BYTE_ORDER_MARK + b"a\nb", buffer=1)
@example(data=BYTE_ORDER_MARK + b"\n" + BYTE_ORDER_MARK + b"a", buffer=2)
@example(data=b"\n\n a \n\r\n", buffer=3)
def test_lines_are_those_of_splitting_the_whole(data: bytes, buffer: int) -> None:
    wanted = [line for line in naive_lines(data) if line[3].strip()]
    assert list(lines(a_stream(data, buffer))) == wanted


@given(data=texts, buffer=st.integers(1, 64))
@example(data=b"x" * LONGEST + b"\nshort\n", buffer=8)
@example(data=b"x" * (LONGEST - 1) + b"\n" + b"y" * LONGEST, buffer=8)
@example(data=b"short\n" + b"x" * 3 * LONGEST, buffer=8)
def test_lines_that_are_too_long_are_left_out_and_reading_goes_on(data: bytes, buffer: int) -> None:
    found = list(lines(a_stream(data, buffer), longest=LONGEST))
    every = {number: (start, end, raw) for start, end, number, raw in naive_lines(data)}
    full = {number: len(raw) for number, raw in enumerate(data.split(b"\n"), 1)}
    too_long = {number for number, size in full.items() if size + (number < len(full)) > LONGEST}
    assert {number for *_, number, raw in found if isinstance(raw, RecordError)} == too_long
    for start, end, number, raw in readable(iter(found)):
        assert (start, end, raw) == every[number]


@given(data=texts, first=st.integers(0, 20), count=st.integers(0, 20))
def test_lines_between_two_places_are_those_of_the_whole(data: bytes, first: int, count: int) -> None:
    every = list(lines(io.BytesIO(data)))
    wanted = every[first : first + count]
    if wanted:
        (start, _, number, _), (_, end, _, _) = wanted[0], wanted[-1]
        stream = io.BytesIO(data)
        stream.seek(start)
        assert list(lines(stream, start, number, end)) == wanted


class EndlessLine(io.RawIOBase):
    """A line of a gigabyte that is never all there; keeps the most that was asked for at once."""

    def __init__(self, size: int) -> None:
        self.left, self.most = size, 0

    def readline(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        self.most = max(self.most, size)
        given_now = min(size, self.left)
        self.left -= given_now
        return b"x" * given_now


def test_lines_never_hold_a_line_that_is_too_long() -> None:
    stream = EndlessLine(2**30)
    ((start, end, number, error),) = lines(stream, longest=2**16)  # type: ignore[arg-type] # as much of one as is used
    assert (start, end, number) == (0, 2**30, 1)
    assert isinstance(error, RecordError)
    assert (error.code, error.message) == (
        ErrorCode.LINE_TOO_LONG,
        "a line of 1024.0 MiB; a record must have at most 16 MiB",
    )
    assert stream.most == 2**16 + 1


@pytest.mark.parametrize(
    ("data", "found"),
    [
        pytest.param(b"", (0, 0, 1, b""), id="an empty file is an empty text"),
        pytest.param(b"\n a\nb", (0, 5, 1, b"\n a\nb"), id="line ends are part of the text"),
        pytest.param(BYTE_ORDER_MARK + b"a", (3, 4, 1, b"a"), id="a byte order mark is not"),
    ],
)
def test_whole_of_a_file_is_one_record(data: bytes, found: Line) -> None:
    assert list(whole(io.BytesIO(data))) == [found]


def test_whole_of_a_file_that_is_too_long() -> None:
    ((start, end, _, error),) = whole(io.BytesIO(b"x" * 100), longest=16)
    assert (start, end) == (0, 100)
    assert isinstance(error, RecordError)
    assert error.code == ErrorCode.LINE_TOO_LONG
