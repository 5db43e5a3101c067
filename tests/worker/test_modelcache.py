"""Weights in an object store: fetched once, whoever asks, and never seen half."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from headrace.api.records import Request
from headrace_worker.engines.transformers import TransformersEngine
from headrace_worker.errors import JobFailed
from headrace_worker.modelcache import find_remote
from headrace_worker.stores.base import Unreachable
from headrace_worker.stores.objects import BucketStore
from object_store import S3
from tiny_models import drive, save_llama, text, worker_config

FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"[]",
    "model-1.safetensors": b"1" * 1000,
    "model-2.safetensors": b"2" * 1000,
    "model.bin": b"the same again",
    "onnx/model.onnx": b"and again",
    "1_Pooling/config.json": b"{1}",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "headrace" / "models"


@pytest.fixture
def model(s3: S3) -> str:
    """The URI of a model."""
    uri = f"{s3.folder()}/tiny model"
    for name, content in FILES.items():
        BucketStore().put(f"{uri}/{name}", content)
    return uri


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each object was read."""
    counted: Counter[str] = Counter()
    real = BucketStore.open

    @contextmanager
    def counting(store: BucketStore, uri: str, start: int = 0) -> Iterator[BinaryIO]:
        counted[uri.rpartition("/")[2]] += 1
        with real(store, uri, start) as stream:
            yield stream

    monkeypatch.setattr(BucketStore, "open", counting)
    return counted


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_remote_model_fetches_weights_only_when_they_are_asked_for(model: str) -> None:
    remote = find_remote(model)
    assert remote.fetch_small() == remote.folder
    small = {name: FILES[name] for name in ("config.json", "tokenizer.json", "1_Pooling/config.json")}
    assert files_in(remote.folder) == {**small, ".lock": b""}
    remote.fetch_weights()
    weights = {name: FILES[name] for name in ("model-1.safetensors", "model-2.safetensors")}
    assert files_in(remote.folder) == {**small, **weights, ".lock": b""}


def test_remote_model_without_safetensors_takes_the_other_form(model: str) -> None:
    BucketStore().delete(f"{model}/model-1.safetensors", f"{model}/model-2.safetensors")
    remote = find_remote(model)
    remote.fetch_weights()
    assert files_in(remote.folder) == {"model.bin": b"the same again", ".lock": b""}


def test_remote_model_is_fetched_once_however_many_ask(model: str, cache: Path, fetched: Counter[str]) -> None:
    def fetch(_: int) -> Path:
        remote = find_remote(model)
        remote.fetch_weights()
        return remote.fetch_small()

    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(fetch, range(8)))
    assert fetched == {"config.json": 2, "tokenizer.json": 1, "model-1.safetensors": 1, "model-2.safetensors": 1}
    assert folders == set(cache.iterdir())


def test_remote_model_that_has_changed_is_fetched_again(model: str) -> None:
    before = find_remote(model).folder
    assert find_remote(f"{model}/").folder.name.startswith("tiny-model-")
    BucketStore().put(f"{model}/model-1.safetensors", b"3" * 1000)
    after = find_remote(model)
    after.fetch_weights()
    assert after.folder != before
    assert (after.folder / "model-1.safetensors").read_bytes() == b"3" * 1000


def test_remote_model_whose_fetching_was_killed_is_fetched_by_the_next(model: str) -> None:
    remote = find_remote(model)
    torn = remote.folder / ".part-123" / "model-1.safetensors"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"1")
    remote.fetch_weights()
    assert files_in(remote.folder) == {name: FILES[name] for name in FILES if name.endswith("tensors")} | {".lock": b""}


def test_remote_model_that_cannot_be_fetched_to_its_end_is_not_there(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = find_remote(model)
    with monkeypatch.context() as patch:

        def fail(store: BucketStore, uri: str, start: int = 0) -> BinaryIO:
            raise Unreachable(uri)

        patch.setattr(BucketStore, "open", fail)
        with pytest.raises(Unreachable):
            remote.fetch_weights()
    assert files_in(remote.folder) == {".lock": b""}
    remote.fetch_weights()
    assert "model-2.safetensors" in files_in(remote.folder)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param([], "holds neither a config.json nor a .gguf file", id="nothing"),
        pytest.param(["README.md"], "holds neither a config.json nor a .gguf file", id="something else"),
        pytest.param(["a.gguf", "b.gguf"], "holds several models, name one of them: a.gguf, b.gguf", id="two models"),
    ],
)
def test_find_remote_of_what_is_no_model(s3: S3, names: list[str], message: str) -> None:
    uri = s3.folder()
    for name in names:
        BucketStore().put(f"{uri}/{name}", b"x")
    with pytest.raises(JobFailed) as caught:
        find_remote(uri)
    assert (caught.value.failure.reason, caught.value.failure.message) == (
        "ModelNotFound",
        f"model.source.uri: {uri} {message}",
    )


@pytest.mark.usefixtures("s3")
def test_find_remote_in_no_bucket() -> None:
    with pytest.raises(JobFailed, match=r"model\.source\.uri: .* there is no bucket s3://no-such-bucket"):
        find_remote("s3://no-such-bucket/model")


def test_gguf_file_is_fetched_whole(s3: S3) -> None:
    uri = s3.folder()
    BucketStore().put(f"{uri}/tiny.gguf", b"x" * 1000)
    for named in (uri, f"{uri}/tiny.gguf"):
        path = find_remote(named).fetch_small()
        assert (path.name, path.read_bytes()) == ("tiny.gguf", b"x" * 1000)


def test_engine_answers_as_it_does_from_a_folder(s3: S3, tmp_path: Path) -> None:
    folder, uri = save_llama(tmp_path / "model"), s3.folder()
    for path in folder.iterdir():
        BucketStore().put(f"{uri}/{path.name}", path.read_bytes())
    request = Request("r", {"prompt": [5, 6, 7], "max_tokens": 8, "temperature": 0})
    answers = [
        text(
            drive(
                TransformersEngine(worker_config({"name": "m", "task": "completion", "source": source}), 0), [request]
            )["r"]
        )
        for source in ({"path": str(folder)}, {"uri": uri})
    ]
    assert answers[0] == answers[1] != ""
