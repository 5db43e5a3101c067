"""A multipart form as a stream of events: a part begins, has bytes, ends. Nothing of it is kept, whatever its size.

The headers of parts are bounded by the parser: in their number, and each in its length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from headrace.core.openai.errors import ApiError, bad_request

if TYPE_CHECKING:  # that is how the library has it
    from python_multipart.multipart import MultipartCallbacks

_MOST_PARTS = 32


@dataclass(frozen=True, slots=True)
class Begin:
    """A part begins."""

    name: str
    filename: str | None
    """None for a part that is no file."""


@dataclass(frozen=True, slots=True)
class End:
    """The part ends."""


Event: TypeAlias = Begin | bytes | End


class Form:
    """The parts of a form, from pieces of any size."""

    def __init__(self, content_type: str) -> None:
        """`content_type` is the header. Raises `ApiError` when it is that of something else."""
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise ApiError(
                415, "the body must be a form, with the header Content-Type: multipart/form-data; boundary=…"
            )
        self._events: list[Event] = []
        self._field, self._value, self._headers = bytearray(), bytearray(), dict[bytes, bytes]()
        self._parts, self._ended = 0, False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._part_begins,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": lambda data, start, end: self._events.append(data[start:end]),
            "on_part_end": lambda: self._events.append(End()),
            "on_end": self._form_ends,
        }
        self._parser = MultipartParser(options[b"boundary"], callbacks)

    def feed(self, data: bytes) -> list[Event]:
        """What a piece of the body brings. Raises `ApiError`."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise bad_request(f"the body is not a multipart form: {error}", code="invalid_form") from error
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """The body is over. Raises `ApiError` when the form is not."""
        if not self._ended:
            raise bad_request("the body ends before the last boundary of its form", code="invalid_form")

    def _part_begins(self) -> None:
        self._parts += 1
        self._headers.clear()
        if self._parts > _MOST_PARTS:
            raise bad_request(f"the form has more than {_MOST_PARTS} parts", code="invalid_form")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise bad_request("a part of the form has no name", code="invalid_form")
        filename = options.get(b"filename")
        shown = filename.decode(errors="replace") if filename is not None else None
        self._events.append(Begin(options[b"name"].decode(errors="replace"), shown))

    def _form_ends(self) -> None:
        self._ended = True
