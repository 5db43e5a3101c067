"""What files hold records and answers in, beside lines of JSON."""

from __future__ import annotations

from enum import StrEnum


class OutputFormat(StrEnum):
    """In which form results and errors are written."""

    JSONL = "jsonl"
    """One JSON object a line, in the form of OpenAI's batch output."""
    PARQUET = "parquet"
    """One row a record: its `id`, `custom_id` and `attempts`, and its `response` and `error` as JSON."""


class Compression(StrEnum):
    """How files are made smaller."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


_COMPRESSIONS = {
    ".gz": Compression.GZIP,
    ".gzip": Compression.GZIP,
    ".zst": Compression.ZSTD,
    ".zstd": Compression.ZSTD,
}
_ENDINGS = {Compression.NONE: "", Compression.GZIP: ".gz", Compression.ZSTD: ".zst"}


def compression_of(name: str) -> Compression:
    """What the name of a file says of its compression.

    >>> compression_of("s3://in/reviews.jsonl.gz").value, compression_of("reviews.csv").value
    ('gzip', 'none')
    """
    return _COMPRESSIONS.get(name[name.rfind(".") :].lower(), Compression.NONE)


def ending(form: OutputFormat, compression: Compression) -> str:
    """What the names of such files end with. A Parquet file is compressed inside.

    >>> ending(OutputFormat.JSONL, Compression.ZSTD), ending(OutputFormat.PARQUET, Compression.ZSTD)
    ('.jsonl.zst', '.parquet')
    """
    return ".parquet" if form == OutputFormat.PARQUET else f".jsonl{_ENDINGS[compression]}"
