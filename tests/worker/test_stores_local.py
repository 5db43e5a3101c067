"""The store of files: what is seen by whom and when, and what it says when the machine says no."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace_worker.stores.base import AlreadyExists, NoSpace, NotFound, NotWritable, StoreError
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


def test_put_makes_folders_and_replaces(tmp_path: Path) -> None:
    uri = f"{tmp_path.as_uri()}/a/b/c.json"
    STORE.put(uri, b"old")
    STORE.put(uri, b"new")
    assert STORE.read(uri) == b"new"
    assert names(tmp_path) == ["a/b/c.json"]


def test_put_if_absent_does_not_replace(tmp_path: Path) -> None:
    uri = f"{tmp_path.as_uri()}/owner.json"
    STORE.put(uri, b"first", if_absent=True)
    with pytest.raises(AlreadyExists, match=r"owner\.json"):
        STORE.put(uri, b"second", if_absent=True)
    assert STORE.read(uri) == b"first"
    assert names(tmp_path) == ["owner.json"]


def test_put_if_absent_at_the_same_moment_has_one_winner(tmp_path: Path) -> None:
    uri = f"{tmp_path.as_uri()}/new/owner.json"
    callers = 16
    barrier = threading.Barrier(callers)

    def claim(caller: int) -> int | None:
        barrier.wait()
        try:
            STORE.put(uri, str(caller).encode() * 10_000, if_absent=True)
        except AlreadyExists:
            return None
        return caller

    with ThreadPoolExecutor(callers) as pool:
        winners = [caller for caller in pool.map(claim, range(callers)) if caller is not None]
    assert len(winners) == 1
    assert STORE.read(uri) == str(winners[0]).encode() * 10_000
    assert names(tmp_path) == ["new/owner.json"]


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


def test_writer_shows_nothing_before_its_end(tmp_path: Path) -> None:
    uri = f"{tmp_path.as_uri()}/results/0.jsonl"
    with STORE.writer(uri) as stream:
        stream.write(b"x" * 1_000_000)
        assert list(STORE.list(f"{tmp_path.as_uri()}/results/")) == []
        assert not (tmp_path / "results/0.jsonl").exists()
    assert STORE.read(uri) == b"x" * 1_000_000


def test_writer_that_fails_leaves_nothing_and_keeps_the_old(tmp_path: Path) -> None:
    uri = f"{tmp_path.as_uri()}/0.jsonl"
    STORE.put(uri, b"old")

    def fail() -> None:
        with STORE.writer(uri) as stream:
            stream.write(b"x" * 1_000_000)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert STORE.read(uri) == b"old"
    assert names(tmp_path) == ["0.jsonl"]


def test_writer_leaves_an_error_of_its_block_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), STORE.writer(f"{tmp_path.as_uri()}/0.jsonl"):
        (tmp_path / "another").read_bytes()


def test_append_goes_on_where_it_stopped(tmp_path: Path) -> None:
    uri = f"{tmp_path.as_uri()}/shards/a1.journal"
    with STORE.append(uri) as log:
        log.append(b"one\n")
        log.sync()
        assert STORE.read(uri) == b"one\n"
    with STORE.append(uri) as log:
        log.append(b"two\n")
    assert STORE.read(uri) == b"one\ntwo\n"


def test_open_starts_in_the_middle(tmp_path: Path) -> None:
    write_files(tmp_path, {"a": b"0123456789"})
    with STORE.open(f"{tmp_path.as_uri()}/a", start=7) as stream:
        assert stream.read() == b"789"


def test_delete_of_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    write_files(tmp_path, {"a": b""})
    for name in ("a", "a", "no/such/folder"):
        STORE.delete(f"{tmp_path.as_uri()}/{name}")
    assert names(tmp_path) == []


FILES = {
    "a.jsonl": b"1",
    "b.txt": b"22",
    "de/a.jsonl": b"333",
    "de/deep/c.jsonl": b"4444",
    "with space/ü*.jsonl": b"55555",
    ".hidden": b"x",
    "de/.hidden.tmp": b"x",
    ".git/config": b"x",
}


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        pytest.param("a.jsonl", ["a.jsonl"], id="one file"),
        pytest.param(".hidden", [".hidden"], id="a hidden file that is asked for by its name"),
        pytest.param("missing", [], id="nothing there"),
        pytest.param("a.jsonl/b", [], id="below a file"),
        pytest.param("de", ["de/a.jsonl", "de/deep/c.jsonl"], id="a folder with what is below it"),
        pytest.param("de/", ["de/a.jsonl", "de/deep/c.jsonl"], id="a folder with a slash"),
        pytest.param("*.jsonl", ["a.jsonl"], id="a star stays in its folder"),
        pytest.param("*", ["a.jsonl", "b.txt"], id="a star matches no hidden file"),
        pytest.param("?.*", ["a.jsonl", "b.txt"], id="a question mark is one character"),
        pytest.param("*/*.jsonl", ["de/a.jsonl", "with%20space/%C3%BC%2A.jsonl"], id="a star for a folder"),
        pytest.param(
            "**/*.jsonl",
            ["a.jsonl", "de/a.jsonl", "de/deep/c.jsonl", "with%20space/%C3%BC%2A.jsonl"],
            id="two stars for any folders or none",
        ),
        pytest.param("de/**", ["de/a.jsonl", "de/deep/c.jsonl"], id="two stars for everything below"),
        pytest.param("with space/*%2A.jsonl", ["with space/%C3%BC%2A.jsonl"], id="an escaped star is a star"),
        pytest.param("missing/*.jsonl", [], id="a glob in a folder that is not there"),
    ],
)
def test_list_of_a_pattern(tmp_path: Path, pattern: str, found: list[str]) -> None:
    write_files(tmp_path, FILES)
    root = tmp_path.as_uri()
    assert [item.uri for item in STORE.list(f"{root}/{pattern}")] == [f"{root}/{name}" for name in found]


def test_list_says_sizes_and_its_uris_can_be_opened(tmp_path: Path) -> None:
    write_files(tmp_path, FILES)
    for item in STORE.list(tmp_path.as_uri()):
        assert len(STORE.read(item.uri)) == item.size
    assert sum(item.size for item in STORE.list(tmp_path.as_uri())) == 15


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


def test_open_of_nothing_names_it_and_the_next_step(tmp_path: Path) -> None:
    for name in ("missing", "file/below"):
        write_files(tmp_path, {"file": b""})
        with pytest.raises(NotFound, match=f"{name} is not there: check its path"):
            STORE.open(f"{tmp_path.as_uri()}/{name}")


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
