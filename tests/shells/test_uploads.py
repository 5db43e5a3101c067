"""Files of clients on the disk: whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import NOON
from headrace.shells.local.state import StateError
from headrace.shells.local.uploads import Uploads


@pytest.fixture
def files(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "up loads", lambda: NOON)


def kept(files: Uploads, content: bytes = b"hello") -> str:
    draft = files.begin()
    draft.write(content)
    return files.keep(draft, "in.jsonl", "batch").id


def test_file_that_is_kept_is_there(files: Uploads) -> None:
    file_id = kept(files)
    found = files.find(file_id)
    assert found is not None
    assert (found.bytes, found.filename, found.created_at) == (5, "in.jsonl", int(NOON.timestamp()))
    assert files.path(file_id).read_bytes() == b"hello"
    assert files.uri(file_id) == f"file://{files.path(file_id)}".replace(" ", "%20")
    assert files.all() == [found]


def test_draft_is_nobodys_file(files: Uploads) -> None:
    files.begin().write(b"half")
    assert files.all() == []


def test_draft_that_is_discarded_leaves_nothing(files: Uploads, tmp_path: Path) -> None:
    files.begin().discard()
    assert list((tmp_path / "up loads").iterdir()) == []


def test_clean_removes_what_was_cut_off_and_nothing_else(files: Uploads, tmp_path: Path) -> None:
    files.begin()
    file_id = kept(files)
    files.clean()
    assert [path.name for path in (tmp_path / "up loads").iterdir()] == [file_id]


def test_delete_says_whether_there_was_one(files: Uploads) -> None:
    file_id = kept(files)
    assert files.delete(file_id)
    assert not files.delete(file_id)
    assert files.find(file_id) is None


def test_file_whose_record_is_damaged_is_told_of(files: Uploads) -> None:
    file_id = kept(files)
    files.path(file_id).with_name("file.json").write_text("{}")
    with pytest.raises(StateError, match="is not the record of a file"):
        files.find(file_id)
