"""From the objects of an input to its records: where each one lies, and how its bytes are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO

from headrace.api.input import Input, InputFormat
from headrace.api.model import Model
from headrace.api.parts import Part, PartReader, part_reader
from headrace.api.records import Reader, id_reader, reader, text_id_reader, text_reader
from headrace_worker.errors import JobFailed
from headrace_worker.formats.lines import Line, lines, whole


def locate(stream: BinaryIO, spec: Input, start: int = 0, number: int = 1, end: int | None = None) -> Iterator[Line]:
    """The records of an object, or of its bytes `start` to `end`, where the stream stands at `start`, in line `number`.

    Of the format text the whole object is one record.
    """
    if spec.format == InputFormat.TEXT:
        return whole(stream, start)
    return lines(stream, start, number, end)


def readers(spec: Input, model: Model | None) -> Callable[[str], Reader]:
    """From the name of an object (for text, its `custom_id`) to the reader of the records in it.

    Without a model the records are looked at for their `custom_id` alone. Raises `InvalidSpec` when the prompt's template is wrong.
    """
    if spec.format == InputFormat.TEXT:
        read_text = text_reader(spec, model) if model is not None else text_id_reader()
        return lambda name: partial(read_text, name)
    read = reader(spec, model) if model is not None else id_reader()
    return lambda _: read


def part_readers(spec: Input, model: Model | None) -> Callable[[str], Callable[[bytes, int], Iterator[Part]]]:
    """From the name of an object to the reader of the records in it, for an input that is split: it gives their parts."""
    read = (
        _image_part_reader(spec, model)
        if spec.split is not None and spec.split.by.of_images
        else part_reader(spec, model)
    )
    return lambda name: partial(read, name)


def _image_part_reader(spec: Input, model: Model | None) -> PartReader:
    try:
        from headrace_worker.formats.imageparts import image_part_reader  # noqa: PLC0415 - only here a plan needs to decode anything
    except ModuleNotFoundError as error:
        message = (
            f"input.split needs the Python package {error.name}: install it, as with `pip install headrace[worker]`"
        )
        raise JobFailed("PackageNotInstalled", message) from error
    return image_part_reader(spec, model)
