"""What every store that is written to promises: one suite, for files and for objects."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace_worker.stores.base import AlreadyExists, NotFound, Store
from headrace_worker.stores.local import LocalStore
from headrace_worker.stores.objects import BucketStore
from headrace_worker.stores.uploads import PART_BYTES


@dataclass(frozen=True)
class Place:
    """An empty folder in some store."""

    root: str
    store: Store

    def uri(self, name: str) -> str:
        """The URI of what lies below."""
        return f"{self.root}/{name}"

    def names(self) -> list[str]:
        """All that lies below."""
        return [found.uri.removeprefix(f"{self.root}/") for found in self.store.list(self.root)]

    def write(self, files: Mapping[str, bytes]) -> None:
        """Put objects there, by their escaped names."""
        for name, content in files.items():
            self.store.put(self.uri(name), content)


@pytest.fixture(params=["files", "objects"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place in each kind of store."""
    if request.param == "files":
        return Place(tmp_path.as_uri(), LocalStore())
    return Place(request.getfixturevalue("s3").folder(), BucketStore())


def test_put_makes_folders_and_replaces(place: Place) -> None:
    place.write({"a/b/c.json": b"old"})
    place.write({"a/b/c.json": b"new"})
    assert place.store.read(place.uri("a/b/c.json")) == b"new"
    assert place.names() == ["a/b/c.json"]


def test_put_if_absent_does_not_replace(place: Place) -> None:
    uri = place.uri("owner.json")
    place.store.put(uri, b"first", if_absent=True)
    with pytest.raises(AlreadyExists, match=r"owner\.json is there already"):
        place.store.put(uri, b"second", if_absent=True)
    assert place.store.read(uri) == b"first"
    assert place.names() == ["owner.json"]


def test_put_if_absent_at_the_same_moment_has_one_winner(place: Place) -> None:
    uri, callers = place.uri("new/owner.json"), 16
    barrier = threading.Barrier(callers)

    def claim(caller: int) -> int | None:
        barrier.wait()
        try:
            place.store.put(uri, str(caller).encode() * 10_000, if_absent=True)
        except AlreadyExists:
            return None
        return caller

    with ThreadPoolExecutor(callers) as pool:
        winners = [caller for caller in pool.map(claim, range(callers)) if caller is not None]
    assert len(winners) == 1
    assert place.store.read(uri) == str(winners[0]).encode() * 10_000
    assert place.names() == ["new/owner.json"]


SIZES = pytest.mark.parametrize(
    "size",
    [
        pytest.param(0, id="nothing"),
        pytest.param(1_000_000, id="less than a part"),
        pytest.param(PART_BYTES, id="one part"),
        pytest.param(3 * PART_BYTES + 1, id="several parts"),
    ],
)


@SIZES
def test_writer_shows_nothing_before_its_end(place: Place, size: int) -> None:
    uri = place.uri("results/0.jsonl")
    content = bytes(range(256)) * (size // 256 + 1)
    with place.store.writer(uri) as stream:
        stream.write(content[: size // 3])
        stream.write(content[size // 3 : size])
        assert place.names() == []
        assert not place.store.exists(uri)
    assert place.store.read(uri) == content[:size]


@SIZES
def test_writer_that_fails_leaves_nothing_and_keeps_the_old(place: Place, size: int) -> None:
    place.write({"0.jsonl": b"old"})

    def fail() -> None:
        with place.store.writer(place.uri("0.jsonl")) as stream:
            stream.write(b"x" * size)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert place.store.read(place.uri("0.jsonl")) == b"old"
    assert place.names() == ["0.jsonl"]


def test_writer_leaves_an_error_of_its_block_as_it_is(place: Place) -> None:
    with pytest.raises(FileNotFoundError), place.store.writer(place.uri("0.jsonl")):
        Path("/no/such/file").read_bytes()


def log_of(place: Place, uri: str) -> bytes:
    """All of a log."""
    with place.store.read_log(uri) as stream:
        return stream.read()


def test_append_goes_on_where_it_stopped(place: Place) -> None:
    uri = place.uri("shards/a1.journal")
    with place.store.append(uri) as log:
        log.append(b"one\n")
        log.append(b"two\n")
        log.sync()
        assert log_of(place, uri) == b"one\ntwo\n"
        log.sync()
    with place.store.append(uri) as log:
        log.append(b"three\n")
    assert log_of(place, uri) == b"one\ntwo\nthree\n"


def test_append_goes_on_after_what_was_put(place: Place) -> None:
    uri = place.uri("a b/a1.journal")
    place.store.put(uri, b"head\n", if_absent=True)
    with place.store.append(uri) as log:
        log.append(b"one\n")
    with place.store.open(uri) as stream:
        assert stream.readline() == b"head\n"
    assert log_of(place, uri) == b"head\none\n"


def test_append_of_very_much_is_readable_before_any_sync(place: Place) -> None:
    uri, line = place.uri("a1.journal"), b"x" * 999_999 + b"\n"
    with place.store.append(uri) as log:
        for _ in range(20):
            log.append(line)
        assert len(log_of(place, uri)) >= 10 * len(line)
    assert log_of(place, uri) == 20 * line


def test_read_log_as_one_stream_in_any_order(place: Place) -> None:
    uri, lines = place.uri("a1.journal"), [b"line %d\n" % number for number in range(100)]
    with place.store.append(uri) as log:
        for line in lines:
            log.append(line)
            log.sync()
    starts = [sum(map(len, lines[:number])) for number in range(100)]
    with place.store.read_log(uri) as stream:
        assert list(stream) == lines
        for number in (99, 0, 50, 51, 49):
            stream.seek(starts[number])
            assert stream.tell() == starts[number]
            assert stream.readline() == lines[number]
        assert stream.read() == b"".join(lines[50:])
        assert stream.read() == b""


def test_read_log_of_nothing(place: Place) -> None:
    with pytest.raises(NotFound, match=r"a1\.journal is not there"), place.store.read_log(place.uri("a1.journal")):
        pass


def test_read_log_of_what_begins_alike_is_left_out(place: Place) -> None:
    for name in ("a1.journal", "a11.journal", "a1.journal2"):
        with place.store.append(place.uri(name)) as log:
            log.append(name.encode())
    assert log_of(place, place.uri("a1.journal")) == b"a1.journal"


def test_delete_of_a_log_by_its_listing(place: Place) -> None:
    with place.store.append(place.uri("a1.journal")) as log:
        for _ in range(3):
            log.append(b"x")
            log.sync()
    place.store.delete(*(found.uri for found in place.store.list(place.root)))
    assert place.names() == []
    assert not place.store.exists(place.uri("a1.journal"))


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        pytest.param(0, b"0123456789", id="at the beginning"),
        pytest.param(7, b"789", id="in the middle"),
        pytest.param(10, b"", id="at the end"),
        pytest.param(11, b"", id="behind the end"),
    ],
)
def test_open_starts_anywhere(place: Place, start: int, rest: bytes) -> None:
    place.write({"a": b"0123456789"})
    with place.store.open(place.uri("a"), start=start) as stream:
        assert stream.read() == rest


def test_open_of_an_empty_object(place: Place) -> None:
    place.write({"a": b""})
    with place.store.open(place.uri("a")) as stream:
        assert stream.readline() == b""


def test_open_reads_lines_across_what_is_fetched_at_once(place: Place) -> None:
    lines = [b"%d " % number * 70_000 + b"\n" for number in range(100)]
    place.write({"a": b"".join(lines)})
    with place.store.open(place.uri("a")) as stream:
        assert list(stream) == lines


def test_reading_nothing_names_it_and_the_next_step(place: Place) -> None:
    place.write({"file": b""})
    for read in (place.store.read, place.store.open):
        for name in ("missing", "file/below"):
            with pytest.raises(NotFound, match=f"{name} is not there: check its "):
                read(place.uri(name))


def test_exists_of_objects_and_of_folders(place: Place) -> None:
    place.write({"de/a": b""})
    assert {name: place.store.exists(place.uri(name)) for name in ("de/a", "de", "de/b", "x/y")} == {
        "de/a": True,
        "de": False,
        "de/b": False,
        "x/y": False,
    }


def test_delete_of_what_is_not_there_is_no_error(place: Place) -> None:
    place.write({"a": b"", "b": b"", "c": b""})
    place.store.delete()
    place.store.delete(place.uri("a"), place.uri("a"), place.uri("no/such/folder"), place.uri("b"))
    place.store.delete(place.uri("a"))
    assert place.names() == ["c"]


FILES = {
    "a.jsonl": b"1",
    "b.txt": b"22",
    "de/a.jsonl": b"333",
    "de/deep/c.jsonl": b"4444",
    "with%20space/%C3%BC%2A.jsonl": b"55555",
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
        pytest.param("a.js", [], id="the beginning of a name"),
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
def test_list_of_a_pattern(place: Place, pattern: str, found: list[str]) -> None:
    place.write(FILES)
    assert [item.uri for item in place.store.list(place.uri(pattern))] == [place.uri(name) for name in found]


def test_list_says_sizes_and_its_uris_can_be_opened(place: Place) -> None:
    place.write(FILES)
    found = list(place.store.list(place.root))
    assert [len(place.store.read(item.uri)) for item in found] == [item.size for item in found]
    assert sum(item.size for item in found) == 15


@pytest.mark.parametrize("pattern", ["", "/a", "/**/*.txt", "/a/1.txt", "/nothing"])
def test_scan_tells_of_the_same_objects_as_list(place: Place, pattern: str) -> None:
    place.write({"a/1.txt": b"1", "a/b/2.txt": b"22", "a/.hidden": b"", "c.json": b"{}"})
    uri = f"{place.root}{pattern}"
    assert sorted(place.store.scan(uri), key=lambda found: found.uri) == list(place.store.list(uri))
