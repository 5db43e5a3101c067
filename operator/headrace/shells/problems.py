"""What is wrong with what the user has written, and where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with what the user has written, and where."""

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    object: str | None = None
    """Kind and name of the object."""
    field: str | None = None
    """Path of the field in the object, for example `spec.input.uri`."""

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return ": ".join(part for part in (place, self.object, self.field, self.message) if part)


class ManifestError(ValueError):
    """Files that cannot be used as they are; `problems` says all that is known to be wrong."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))
