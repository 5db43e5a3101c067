"""Files that clients have uploaded, below one folder: `<id>/content.jsonl`, and `<id>/file.json` beside it once it is whole."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Self
from urllib.parse import quote

from pydantic import ValidationError

from headrace.api.gateway import UploadedFile
from headrace.shells.local.files import sync_folder, write_atomically
from headrace.shells.local.state import StateError

_CONTENT, _ABOUT = "content.jsonl", "file.json"


class Draft:
    """An upload that is under way; it is nobody's file until it is kept."""

    def __init__(self, folder: Path) -> None:
        """Begin one in a folder that is not there yet."""
        folder.mkdir(parents=True)
        self._folder = folder
        self._stream: BinaryIO = (folder / _CONTENT).open("xb")
        self.bytes = 0

    def write(self, data: bytes) -> None:
        """Add to it. Raises `OSError` when there is no room."""
        self._stream.write(data)
        self.bytes += len(data)

    def keep(self, filename: str, purpose: str, now: datetime) -> UploadedFile:
        """Make it a file, durably."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        file = UploadedFile(
            id=self._folder.name,
            bytes=self.bytes,
            created_at=int(now.timestamp()),
            filename=filename,
            purpose=purpose,
        )
        write_atomically(self._folder / _ABOUT, file.model_dump_json().encode())
        sync_folder(self._folder.parent)
        return file

    def discard(self) -> None:
        """Leave nothing of it."""
        self._stream.close()
        shutil.rmtree(self._folder)


class Uploads:
    """The uploaded files of one folder."""

    def __init__(self, folder: Path, clock: Callable[[], datetime]) -> None:
        self._folder, self._clock = folder, clock

    def clean(self, seconds: float = 0) -> Self:
        """Remove what uploads have left that were cut off by the end of a process, and have not been written to for so long."""
        for path in self._folder.glob("file-*"):
            if not (path / _ABOUT).exists() and (not seconds or _age(path, self._clock()) >= seconds):
                shutil.rmtree(path, ignore_errors=True)  # another process may be at it too
        return self

    def begin(self) -> Draft:
        """A new upload, under a new id."""
        return Draft(self._folder / f"file-{secrets.token_hex(12)}")

    def keep(self, draft: Draft, filename: str, purpose: str) -> UploadedFile:
        """Make an upload a file."""
        return draft.keep(filename, purpose, self._clock())

    def all(self) -> list[UploadedFile]:
        """All files, the newest first."""
        found = (self.find(path.parent.name) for path in self._folder.glob(f"*/{_ABOUT}"))
        return sorted(filter(None, found), key=lambda file: (-file.created_at, file.id))

    def find(self, file_id: str) -> UploadedFile | None:
        """The file of that id, which is one of an upload; None when there is none. Raises `StateError`."""
        path = self._folder / file_id / _ABOUT
        try:
            return UploadedFile.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValidationError as error:
            raise StateError(
                "StateDamaged", f"{path} is not the record of a file: {error.errors()[0]['msg']}"
            ) from error

    def path(self, file_id: str) -> Path:
        """Where the content of a file is."""
        return self._folder / file_id / _CONTENT

    def relative(self, file_id: str) -> str:
        """The same, as seen from the folder."""
        return f"{file_id}/{_CONTENT}"

    def uri(self, file_id: str) -> str:
        """The same, for an input."""
        return f"file://{quote(str(self.path(file_id).absolute()))}"

    def delete(self, file_id: str) -> bool:
        """Delete a file; says whether it was there. Its record goes first: half a file is none."""
        folder = self._folder / file_id
        try:
            (folder / _ABOUT).unlink()
        except FileNotFoundError:
            return False
        shutil.rmtree(folder)
        return True


def _age(folder: Path, now: datetime) -> float:
    """Seconds since an upload was written to; none where it has gone meanwhile."""
    try:
        return now.timestamp() - (folder / _CONTENT).stat().st_mtime
    except FileNotFoundError:
        return 0.0
