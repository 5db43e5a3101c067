"""Reading a shard again: the same records as when it was planned, or a failure that names the object."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.api.worker import Shard, WorkerConfig
from headrace_worker.errors import JobFailed
from headrace_worker.formats.shards import read_shard, verify_shard
from headrace_worker.manifest import iter_shards
from headrace_worker.planning.plan import plan
from headrace_worker.stores.local import LocalStore
from worker_builders import NOW, a_chat, a_config, no_progress, write_files

STORE = LocalStore()


def planned(config: WorkerConfig) -> list[Shard]:
    assert plan(config, None, NOW, no_progress).error_count == 0
    return list(iter_shards(STORE, config.plan_uri))


def ids(config: WorkerConfig, shard: Shard) -> list[tuple[int, str]]:
    records = read_shard(STORE, shard, config.input, config.model)
    return [(position, request.custom_id) for position, request in records]


def test_read_shard_spans_files(tmp_path: Path) -> None:
    write_files(tmp_path / "in", {"a.jsonl": [a_chat("1"), a_chat("2")], "b.jsonl": [a_chat("3"), a_chat("4")]})
    config = a_config(tmp_path, source="in")
    (shard,) = planned(config)
    assert ids(config, shard) == [(0, "1"), (1, "2"), (2, "3"), (3, "4")]
    verify_shard(STORE, shard, config.input)


def test_read_shard_makes_requests_of_text_files(tmp_path: Path) -> None:
    write_files(tmp_path / "in", {"de/a b.txt": b"Hallo", "en.txt": b"Hello", "none.txt": b""})
    spec = {"format": "text", "prompt": {"template": "Say: {{ text }}"}}
    config = a_config(tmp_path, source="in", input=spec, shards=3)
    found = [list(read_shard(STORE, shard, config.input, config.model)) for shard in planned(config)]
    requests = [request for shard in found for _, request in shard]
    assert [request.custom_id for request in requests] == ["de/a b.txt", "en.txt", "none.txt"]
    assert [request.body["messages"][0]["content"] for request in requests] == ["Say: Hallo", "Say: Hello", "Say: "]


def test_read_shard_of_one_text_file_has_its_name(tmp_path: Path) -> None:
    write_files(tmp_path, {"note.txt": b"Hello"})
    config = a_config(tmp_path, source="note.txt", input={"format": "text"})
    (shard,) = planned(config)
    assert ids(config, shard) == [(0, "note.txt")]


def test_read_shard_reads_package_data(tmp_path: Path) -> None:
    config = a_config(tmp_path, input={"format": "text", "uri": "package://pydoc_data.topics:topics/wh*"})
    (shard,) = planned(config)
    assert [segment.custom_id for segment in shard.segments] == ["while"]


def rewrite(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(Path.unlink, id="it is gone"),
        pytest.param(
            rewrite(lambda data: data.replace(b"hello", b"hallo")), id="a record is another, of the same length"
        ),
        pytest.param(rewrite(lambda data: data[:-20]), id="it was cut off"),
        pytest.param(rewrite(lambda _: b""), id="it was emptied"),
        pytest.param(rewrite(lambda data: a_chat("0") + data), id="a record was put in front"),
        pytest.param(rewrite(lambda data: data.rstrip() + b"   "), id="the end of its last line is another"),
        pytest.param(rewrite(lambda data: data.replace(b'"hello"}', b'"hello"\n')), id="there are more lines"),
        pytest.param(rewrite(lambda data: data.replace(b"\n", b" ", 1)), id="there are fewer lines"),
    ],
)
@pytest.mark.parametrize("read", [ids, lambda config, shard: verify_shard(STORE, shard, config.input)])
def test_read_shard_of_an_input_that_has_changed(
    tmp_path: Path, change: Callable[[Path], object], read: Callable[[WorkerConfig, Shard], object]
) -> None:
    write_files(tmp_path, {"in.jsonl": [a_chat("1"), a_chat("2", "hello"), a_chat("3")]})
    config = a_config(tmp_path)
    (shard,) = planned(config)
    change(tmp_path / "in.jsonl")
    with pytest.raises(
        JobFailed, match=r"in\.jsonl .* since the input was planned; put the old content back"
    ) as raised:
        read(config, shard)
    assert raised.value.failure.reason == "InputChanged"


def test_read_shard_of_a_file_that_only_grew(tmp_path: Path) -> None:
    write_files(tmp_path, {"in.jsonl": [a_chat("1"), a_chat("2")]})
    config = a_config(tmp_path)
    (shard,) = planned(config)
    with (tmp_path / "in.jsonl").open("ab") as file:
        file.write(a_chat("3"))
    assert ids(config, shard) == [(0, "1"), (1, "2")]


def test_read_shard_that_may_not_be_read(tmp_path: Path) -> None:
    write_files(tmp_path, {"in.jsonl": a_chat("1")})
    config = a_config(tmp_path)
    (shard,) = planned(config)
    (tmp_path / "in.jsonl").unlink()
    (tmp_path / "in.jsonl").mkdir()
    with pytest.raises(JobFailed, match="cannot be read") as raised:
        ids(config, shard)
    assert raised.value.failure.reason == "InputUnreadable"
