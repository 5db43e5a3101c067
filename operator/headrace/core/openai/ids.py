"""The ids of batches and files, from which the objects behind them follow: nothing is kept to look them up in.

A batch is called `batch_NAME` after its InferenceBatch, whoever has made that. Its files are `file-output-NAME` and `file-errors-NAME`,
and, of a batch whose input was not uploaded, `file-input-NAME`. An uploaded file is `file-` and 24 digits.
"""

from __future__ import annotations

import re
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

_BATCH = re.compile(r"batch_([a-z0-9](?:[-a-z0-9]{0,50}[a-z0-9])?)")
_UPLOADED = re.compile(r"file-[0-9a-f]{24}")
_OF_A_BATCH = re.compile(r"file-(input|output|errors)-([a-z0-9](?:[-a-z0-9]{0,50}[a-z0-9])?)")
NAME_DIGITS = 24


class Part(StrEnum):
    """Which file of a batch."""

    INPUT = "input"
    OUTPUT = "output"
    ERRORS = "errors"


class BatchFile(NamedTuple):
    """A file that belongs to a batch."""

    part: Part
    batch: str
    """Name of the InferenceBatch."""

    @property
    def id(self) -> str:
        """Its id."""
        return f"file-{self.part}-{self.batch}"


def batch_id(name: str) -> str:
    """The id of an InferenceBatch."""
    return f"batch_{name}"


def batch_name(wanted: str) -> str | None:
    """The name of the InferenceBatch that an id means; None when it can be none."""
    found = _BATCH.fullmatch(wanted)
    return found[1] if found is not None else None


def is_uploaded(wanted: str) -> bool:
    """Whether an id is that of an uploaded file."""
    return _UPLOADED.fullmatch(wanted) is not None


def batch_file(wanted: str) -> BatchFile | None:
    """The file of a batch that an id means; None when it is no such id."""
    found = _OF_A_BATCH.fullmatch(wanted)
    return BatchFile(Part(found[1]), found[2]) if found is not None else None


def name_for_key(key: str) -> str:
    """The name of the batch that a request with this Idempotency-Key makes, however often it is sent."""
    return sha256(key.encode()).hexdigest()[:NAME_DIGITS]
