"""Uploads, wherever they are kept: whole or not there, found again, and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import obstore
import pytest

from headrace.api.records import MAX_RECORD_BYTES
from headrace.core.openai.files import PURPOSE
from headrace.gateway.cluster import Settings, check_settings
from headrace.gateway.places.bucketfiles import PART_BYTES, BucketFiles
from headrace.gateway.places.buckets import address
from headrace.gateway.places.filestore import FileStore, first_line
from headrace.gateway.places.folderfiles import FolderFiles
from headrace.gateway.places.place import PlaceAway
from headrace.shells.local.state import StateError
from headrace.shells.local.uploads import Uploads
from object_store import S3, s3_server

LATE = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "bucket"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> FileStore:
    if request.param == "folder":
        return FolderFiles(Uploads(tmp_path, lambda: LATE), "claim://data/uploads")
    return BucketFiles(request.getfixturevalue("s3").folder(), lambda: LATE)


async def read(pieces: AsyncGenerator[bytes, None]) -> bytes:
    async with aclosing(pieces):
        return b"".join([piece async for piece in pieces])


async def upload(files: FileStore, *pieces: bytes) -> str:
    draft = await files.begin()
    for piece in pieces:
        await draft.write(piece)
    return (await draft.keep("in.jsonl", PURPOSE)).id


@pytest.mark.parametrize("pieces", [(b"",), (b"a\n", b"b\n"), (b"x" * PART_BYTES, b"y" * PART_BYTES, b"z")])
def test_what_was_kept_is_found_listed_and_read_until_it_is_deleted(files: FileStore, pieces: tuple[bytes]) -> None:
    async def story() -> None:
        file_id = await upload(files, *pieces)
        assert await read(files.content(file_id)) == b"".join(pieces)
        found = await files.find(file_id)
        assert found is not None
        assert (found.bytes, found.filename, found.created_at) == (
            len(b"".join(pieces)),
            "in.jsonl",
            int(LATE.timestamp()),
        )
        assert await files.all() == [found]
        assert files.uri(file_id).endswith(f"/{file_id}/content.jsonl")
        assert await files.delete(file_id)
        assert not await files.delete(file_id)
        assert await files.find(file_id) is None
        assert await files.all() == []
        with pytest.raises(FileNotFoundError):
            await read(files.content(file_id))

    asyncio.run(story())


@pytest.mark.parametrize("size", [10, 3 * PART_BYTES], ids=["in one piece", "in parts"])
def test_of_an_upload_that_is_given_up_nothing_is_left(files: FileStore, size: int) -> None:
    async def story() -> None:
        draft = await files.begin()
        await draft.write(b"x" * size)
        await draft.discard()
        assert await files.all() == []
        if isinstance(files, BucketFiles):
            bucket, key = address(files.uri("").rpartition("//")[0])
            assert [some async for some in obstore.list(bucket, key)] == []

    asyncio.run(story())


def test_a_store_that_refuses_and_one_that_is_away_are_told_apart(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(bucket: str) -> None:
        await BucketFiles(f"s3://{bucket}/uploads", lambda: LATE).find("file-" + "0" * 24)

    with pytest.raises(StateError, match="credentials do not open s3://forbidden/uploads"):
        asyncio.run(find("forbidden"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(PlaceAway):
        asyncio.run(find("headrace"))


@pytest.mark.parametrize(
    ("pieces", "line"),
    [
        ((), b""),
        ((b"\n \n", b"fi", b"rst\nsecond"), b"first"),
        ((b"only",), b"only"),
        ((b"\xef\xbb", b"\xbffirst\r\nsecond"), b"first\r"),
        ((b"\xef\xbb\xbf\n", b"\xef\xbb\xbf"), b""),
        ((b"x" * MAX_RECORD_BYTES, b"xx", b"never read\n"), b"x" * (MAX_RECORD_BYTES + 2)),
    ],
    ids=["of nothing", "after blank ones", "without an end", "marked", "marks alone", "too long"],
)
def test_first_line(pieces: tuple[bytes, ...], line: bytes) -> None:
    async def given() -> AsyncGenerator[bytes, None]:
        for piece in pieces:
            yield piece

    assert asyncio.run(first_line(given())) == line


def test_what_an_earlier_gateway_has_left_goes_once_no_other_can_be_at_it(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, lambda: datetime.now(UTC))
    uploads.begin()
    assert list(uploads.clean(3600)._folder.iterdir())
    assert not list(uploads.clean()._folder.iterdir())


@pytest.mark.parametrize("uri", ["file:///uploads", "claim://other/uploads", "s3://bucket/a//b", "uploads"])
def test_files_must_have_a_place_that_pods_see_too(uri: str, tmp_path: Path) -> None:
    with pytest.raises(StateError):
        check_settings(Settings("here", uri, {"data": tmp_path}))
