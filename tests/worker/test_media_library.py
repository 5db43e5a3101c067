"""Media in the record itself, beside the input, and in stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.api.input import Input
from headrace.api.records import ErrorCode
from headrace_worker.media.errors import MediaError
from headrace_worker.media.library import MediaLibrary, folder_of
from headrace_worker.stores.objects import BucketStore
from media_files import data_url
from object_store import S3


def a_library(folder: Path, name: str = "in.jsonl", **media: Any) -> MediaLibrary:
    return MediaLibrary(Input.parse({"uri": f"{folder.as_uri()}/{name}", "media": media}))


def refusal(library: MediaLibrary, url: str) -> MediaError:
    with pytest.raises(MediaError) as caught:
        library.read(url)
    return caught.value


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("s3://in/2026/events.jsonl", "s3://in/2026"),
        ("s3://in/2026/", "s3://in/2026"),
        ("s3://in/2026/*/a?.jsonl", "s3://in/2026"),
        ("file:///data/in.jsonl", "file:///data"),
    ],
)
def test_folder_of_an_input(uri: str, folder: str) -> None:
    assert folder_of(uri) == folder


def test_read_data_of_the_record_itself(tmp_path: Path) -> None:
    assert a_library(tmp_path).read(data_url(b"abc")) == b"abc"
    assert refusal(a_library(tmp_path, maxBytes=2), data_url(b"abc")).code == ErrorCode.MEDIA_TOO_LARGE


@pytest.mark.parametrize("name", ["in.jsonl", "", "*.jsonl"])
def test_read_path_is_relative_to_the_folder_of_the_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "cat.jpg").write_bytes(b"cat")
    library = a_library(tmp_path, name, maxBytes=3)
    assert library.read("a%20b/cat.jpg") == b"cat"
    (tmp_path / "dog.jpg").write_bytes(b"dogs")
    assert refusal(library, "dog.jpg").code == ErrorCode.MEDIA_TOO_LARGE
    for nothing in ("no.jpg", "a%20b"):
        error = refusal(library, nothing)
        assert (error.code, error.retriable) == (ErrorCode.MEDIA_UNREACHABLE, False)


def test_read_elsewhere_only_what_is_allowed(tmp_path: Path) -> None:
    error = refusal(a_library(tmp_path), "package://pydoc_data/topics.py")
    assert (error.code, error.retriable) == (ErrorCode.MEDIA_NOT_ALLOWED, False)
    assert "input.media.allowedUris" in error.message
    library = a_library(tmp_path, allowedUris=["package://pydoc_data/"])
    assert library.read("package://pydoc_data/topics.py").startswith(b"#")
    for outside in ("package://email/mime/audio.py", "package://pydoc_data/../email/errors.py"):
        assert refusal(library, outside).code == ErrorCode.MEDIA_NOT_ALLOWED


def test_read_from_the_object_store_of_the_input(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    ours, private = s3.folder(), s3.folder()
    for folder in (ours, private):
        BucketStore().put(f"{folder}/photos/cat.jpg", b"cat")
    library = MediaLibrary(Input(uri=f"{ours}/events.jsonl"))
    assert library.read("photos/cat.jpg") == b"cat"
    assert library.read(f"{ours}/photos/cat.jpg") == b"cat"
    assert refusal(library, "photos/dog.jpg").code == ErrorCode.MEDIA_UNREACHABLE
    assert refusal(library, f"{private}/photos/cat.jpg").code == ErrorCode.MEDIA_NOT_ALLOWED
