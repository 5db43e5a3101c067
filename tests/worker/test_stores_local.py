"""The store of files: how it keeps the promises of every store, and what it says when the machine says no."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace_worker.stores.base import NoSpace, NotFound, NotWritable, StoreError
from headrace_worker.stores.local import LocalStore, file_uri, local_path
from worker_builders import write_files

STORE = LocalStore()


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        pytest.param("file:///data/in.jsonl", "/data/in.jsonl", id="a plain path"),
        pytest.param("file:///a%20b/%C3%BC%2A.txt", "/a b/ü*.txt", id="escaped characters are decoded"),
        pytest.param("file:///a b/ü?.txt", "/a b/ü?.txt", id="unescaped characters are taken as they are"),
        pytest.param("file://localhost/data", "/data", id="the host localhost is this machine"),
    ],
)
def test_local_path_of_a_uri(uri: str, path: str) -> None:
    assert local_path(uri) == path


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("file://data/in.jsonl", id="a relative path looks like a host"),
        pytest.param("file:data", id="no slashes"),
        pytest.param("file:///a%00b", id="a zero byte"),
        pytest.param("s3://bucket/key", id="another scheme"),
    ],
)
def test_local_path_of_what_is_no_absolute_path(uri: str) -> None:
    with pytest.raises(StoreError, match="must be file:// and an absolute path"):
        local_path(uri)


def test_file_uri_of_any_name_leads_back_to_it() -> None:
    for path in ("/a b/ü*?[x]%20#.txt", "/undecodable-\udcff"):
        assert local_path(file_uri(path)) == path


@pytest.mark.parametrize(("if_absent", "publish"), [(False, "replace"), (True, "link")])
def test_put_syncs_the_file_before_it_shows_it_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, publish: str, *, if_absent: bool
) -> None:
    events: list[str] = []
    real_fsync, real_publish = os.fsync, getattr(os, publish)

    def fsync(descriptor: int) -> None:
        events.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        real_fsync(descriptor)

    def publish_it(source: str, target: str) -> None:
        assert Path(source).read_bytes() == b"data"
        events.append("publish")
        real_publish(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, publish, publish_it)
    STORE.put(f"{tmp_path.as_uri()}/x", b"data", if_absent=if_absent)
    assert events == ["sync file", "publish", "sync folder"]


def test_list_follows_the_links_of_a_mounted_config_map(tmp_path: Path) -> None:
    write_files(tmp_path, {"..2026_01/a.jsonl": b"1", "..2026_01/sub/b.jsonl": b"2"})
    (tmp_path / "..data").symlink_to("..2026_01")
    (tmp_path / "a.jsonl").symlink_to("..data/a.jsonl")
    (tmp_path / "sub").symlink_to("..data/sub")
    root = tmp_path.as_uri()
    assert [item.uri for item in STORE.list(f"{root}/")] == [f"{root}/a.jsonl", f"{root}/sub/b.jsonl"]


def test_list_does_not_go_round_in_circles(tmp_path: Path) -> None:
    write_files(tmp_path, {"a": b"1", "de/b": b"2"})
    (tmp_path / "de/up").symlink_to("..")
    assert [Path(local_path(item.uri)).name for item in STORE.list(tmp_path.as_uri())] == ["a", "b"]


def test_list_refuses_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    with pytest.raises(NotFound, match="gone is a link to nothing"):
        list(STORE.list(tmp_path.as_uri()))


def test_open_of_a_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="make it a file that the worker may read"):
        STORE.open(tmp_path.as_uri())


def put(uri: str) -> None:
    STORE.put(uri, b"x" * 1_000_000)


def put_if_absent(uri: str) -> None:
    STORE.put(uri, b"x" * 1_000_000, if_absent=True)


def write(uri: str) -> None:
    with STORE.writer(uri) as stream:
        for _ in range(1000):
            stream.write(b"x" * 1000)


def append(uri: str) -> None:
    with STORE.append(uri) as log:
        log.append(b"x" * 1_000_000)


each_way_to_write = pytest.mark.parametrize("change", [put, put_if_absent, write, append])


@each_way_to_write
@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("file:///sys/kernel/headrace/x", id="where not even root may make a folder"),
        pytest.param("file:///proc/headrace/x", id="where no folder can be made"),
        pytest.param("file:///dev/null/x", id="a file where a folder must be"),
        pytest.param(f"file:///tmp/{'x' * 300}", id="a name that is too long"),
    ],
)
def test_writing_where_it_is_not_possible(change: Callable[[str], None], uri: str) -> None:
    with pytest.raises(NotWritable, match=r"make output\.uri a folder that the worker may write to"):
        change(uri)


def test_put_onto_a_folder_is_not_possible(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotWritable, match="folder cannot be written"):
        STORE.put(f"{tmp_path.as_uri()}/folder", b"")
    assert names(tmp_path) == []


@contextmanager
def a_disk_of_64_kib(folder: Path) -> Iterator[None]:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def a_limit_of_64_kib() -> Iterator[None]:
    """On the size of a file that this process may write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@each_way_to_write
def test_writing_to_a_full_disk(change: Callable[[str], None], tmp_path: Path) -> None:
    with a_disk_of_64_kib(tmp_path):
        with pytest.raises(NoSpace, match=r"big cannot be written \(No space left on device\): make room there"):
            change(f"{tmp_path.as_uri()}/big")
        assert [name for name in names(tmp_path) if change is not append] == []


@each_way_to_write
def test_writing_more_than_a_file_may_have(change: Callable[[str], None], tmp_path: Path) -> None:
    with a_limit_of_64_kib(), pytest.raises(NoSpace, match="big cannot be written"):
        change(f"{tmp_path.as_uri()}/big")
    assert [name for name in names(tmp_path) if change is not append] == []
