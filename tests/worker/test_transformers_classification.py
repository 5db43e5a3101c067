"""Classification of images and sounds: answers do not depend on batch mates, and one bad record harms no other."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from torch import Tensor

from headrace.api.records import ErrorCode, RecordError, Request
from headrace.api.worker import Env, ExitCode, Role, ShardReport
from headrace_worker import engines
from headrace_worker.engines.base import Engine, Outcome
from headrace_worker.engines.transformers import classification
from headrace_worker.engines.transformers.classifiers import HubClassifier
from headrace_worker.errors import JobFailed
from headrace_worker.media.library import MediaLibrary
from media_files import bomb, data_url, image_part, picture, recording, sound_part, tone
from tiny_models import drive, save_ast, save_bert, save_vit, save_wav2vec2, worker_config
from web_server import WebServer, page, redirect, web_server
from worker_rig import Folder, WorkerProcess

COLOURS = ("red", "green", "blue", "white", "black", "orange", "purple", "teal")
IMAGES, SOUNDS = "image-classification", "audio-classification"


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.THREADS, "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier of images."""
    return save_vit(tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def server() -> Iterator[WebServer]:
    with web_server() as started:
        yield started


def an_engine(folder: Path, task: str = IMAGES, media: dict[str, Any] | None = None, **batching: int) -> Engine:
    """An engine for this task; `batching` in camelCase."""
    model = {"name": "tiny", "task": task, "source": {"path": str(folder)}}
    spec = {"uri": "file:///nowhere/in.jsonl", "media": media or {}}
    return engines.create(worker_config(model, batching=batching, input=spec), 0)


def photo(name: str, *urls: str, **body: Any) -> Request:
    return Request(name, {"input": [image_part(url) for url in urls], **body})


def colours() -> list[Request]:
    """Photos of one colour each."""
    return [photo(colour, data_url(picture(colour))) for colour in COLOURS]


def sounds(lengths: Sequence[float]) -> list[Request]:
    """Tones of these lengths in seconds."""
    urls = [data_url(recording(tone(s, 200 + 100 * i)), "audio/wav") for i, s in enumerate(lengths)]
    return [Request(f"s{i}", {"input": [sound_part(url)]}) for i, url in enumerate(urls)]


def scores(outcome: Outcome, index: int = 0) -> dict[str, float]:
    """The labels of an answer with their scores, from the greatest."""
    assert outcome.body is not None, outcome.error
    return {one["label"]: one["score"] for one in outcome.body["data"][index]["labels"]}


def assert_same(found: Outcome, expected: Outcome) -> None:
    """The same labels in the same order, and the same scores but for the last digits of a float32."""
    assert list(scores(found)) == list(scores(expected))
    assert scores(found) == pytest.approx(scores(expected), abs=1e-5)


def test_step_answer_is_a_list_of_labels_with_their_scores(vit: Path) -> None:
    outcome = drive(an_engine(vit), [photo("a", data_url(picture("red")), data_url(picture("blue")))])["a"]
    assert outcome.body is not None
    assert (outcome.body["object"], outcome.body["model"]) == ("list", "tiny")
    assert [(one["object"], one["index"]) for one in outcome.body["data"]] == [("classification", i) for i in (0, 1)]
    found = scores(outcome)
    assert set(found) == {"cat", "dog", "bird"}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    assert scores(outcome, 0) != scores(outcome, 1)


def test_step_top_k_says_how_many_labels(vit: Path) -> None:
    outcomes = drive(an_engine(vit), [photo(f"{k}", data_url(picture()), top_k=k) for k in (1, 2, 99)])
    assert {name: len(scores(outcome)) for name, outcome in outcomes.items()} == {"1": 1, "2": 2, "99": 3}


@pytest.mark.parametrize("size", [3, 8])
def test_step_images_in_a_batch_are_answered_as_each_alone(vit: Path, size: int) -> None:
    together = drive(an_engine(vit, maxBatchSize=size), colours())
    alone = drive(an_engine(vit, maxBatchSize=1), colours())
    assert len({tuple(scores(outcome).values()) for outcome in alone.values()}) == len(COLOURS)
    for name, outcome in together.items():
        assert_same(outcome, alone[name])


@pytest.mark.parametrize("save", [save_ast, save_wav2vec2])
def test_step_sounds_in_a_batch_are_answered_as_each_alone(tmp_path: Path, save: Any) -> None:
    folder, requests = save(tmp_path), sounds([0.3, 1.0, 0.3, 0.5, 1.0, 0.3])
    together = drive(an_engine(folder, SOUNDS), requests)
    alone = drive(an_engine(folder, SOUNDS, maxBatchSize=1), requests)
    assert len(together) == len(requests)
    for name, outcome in together.items():
        assert_same(outcome, alone[name])


def test_step_several_labels_at_once_have_scores_of_their_own(tmp_path: Path) -> None:
    found = scores(drive(an_engine(save_ast(tmp_path), SOUNDS), sounds([0.4]))["s0"])
    assert sum(found.values()) != pytest.approx(1, abs=1e-3)


def test_step_of_a_chat_takes_the_images_of_its_messages(vit: Path) -> None:
    parts = [{"type": "text", "text": "What is this?"}, image_part(data_url(picture("red")))]
    chat = Request("chat", {"messages": [{"role": "user", "content": parts}]})
    outcomes = drive(an_engine(vit), [chat, photo("plain", data_url(picture("red")))])
    assert_same(outcomes["chat"], outcomes["plain"])


def test_step_batches_are_full_and_never_larger_than_they_may_be(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    classify = HubClassifier.classify

    def seen(classifier: HubClassifier, batch: Sequence[Tensor]) -> Tensor:
        sizes.append(len(batch))
        return classify(classifier, batch)

    monkeypatch.setattr(HubClassifier, "classify", seen)
    engine = an_engine(vit, maxBatchSize=4, maxWaitMilliseconds=60_000)
    drive(engine, [photo(f"r{i}", data_url(picture())) for i in range(18)])
    assert sizes[:4] == [4] * 4
    assert sum(sizes) == engine.stats.batched_records == 18
    assert engine.stats.batches == len(sizes)


def test_step_fetches_no_more_than_it_has_room_for(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded images are large: what is ready, and what is on its way, is bounded by files and by bytes."""
    monkeypatch.setattr(classification, "READY_BYTES", 5 * 32 * 32 * 3 * 4)
    most, sizes = 0, []
    classify = HubClassifier.classify

    def seen(classifier: HubClassifier, batch: Sequence[Tensor]) -> Tensor:
        nonlocal most
        sizes.append(len(batch))
        most = max(most, len(engine._ready))  # type: ignore[attr-defined]
        return classify(classifier, batch)

    monkeypatch.setattr(HubClassifier, "classify", seen)
    engine = an_engine(vit, maxBatchSize=64)
    outcomes = drive(engine, [photo(f"r{i}", *[data_url(picture())] * 20) for i in range(6)])
    assert all(outcome.body is not None for outcome in outcomes.values())
    assert sum(sizes) == 120
    assert max(sizes) <= 5
    assert most <= 5 + classification.FILES_ON_THEIR_WAY


BAD = {
    "truncated": (data_url(picture("red", (300, 300), "JPEG")[:-400]), ErrorCode.INVALID_MEDIA),
    "a sound": (data_url(recording(tone(0.1))), ErrorCode.INVALID_MEDIA),
    "a bomb": (data_url(bomb()), ErrorCode.MEDIA_TOO_LARGE),
    "too many bytes": (data_url(b"x" * 100_001), ErrorCode.MEDIA_TOO_LARGE),
    "nowhere": ("no/such/file.png", ErrorCode.MEDIA_UNREACHABLE),
    "another place": ("s3://private/a.png", ErrorCode.MEDIA_NOT_ALLOWED),
    "a private address": ("http://192.168.7.7/a.png", ErrorCode.MEDIA_NOT_ALLOWED),
    "the metadata service": ("http://169.254.169.254/latest/meta-data/", ErrorCode.MEDIA_NOT_ALLOWED),
}


@pytest.mark.parametrize("bad", list(BAD))
def test_step_bad_image_is_an_error_of_its_record_alone(vit: Path, bad: str) -> None:
    url, code = BAD[bad]
    alone = drive(an_engine(vit), colours())
    requests = [*colours()[:4], photo("bad", data_url(picture()), url, data_url(b"worse")), *colours()[4:]]
    outcomes = drive(an_engine(vit, media={"maxBytes": 100_000}), requests)
    error = outcomes.pop("bad").error
    assert error is not None
    worse = "body.input[2].image_url.url"
    assert (error.code, error.param) in [
        (code, "body.input[1].image_url.url"), (ErrorCode.INVALID_MEDIA, worse)
    ], "whichever of the two was read first"  # fmt: skip
    assert error.message.startswith(f"{error.param} ")
    assert set(outcomes) == set(COLOURS)
    for name, outcome in outcomes.items():
        assert_same(outcome, alone[name])


def test_step_remote_images_are_fetched_and_bad_ones_name_what_is_wrong(vit: Path, server: WebServer) -> None:
    server.pages |= {
        "/red.png": page(picture("red")),
        "/moved.png": redirect("/red.png"),
        "/inside.png": redirect("http://10.0.0.1/secret.png"),
        "/busy.png": page(b"", 503),
        "/page.png": page(b"<html>"),
    }
    paths = {
        name: server.url(f"/{name}.png", "127.0.0.1") for name in ("red", "moved", "inside", "busy", "page", "gone")
    }
    requests = [photo(name, url) for name, url in paths.items()]
    outcomes = drive(an_engine(vit, media={"allowedNetworks": ["127.0.0.0/8"]}), requests)
    assert_same(outcomes["moved"], outcomes["red"])
    errors = {name: (it.error.code, it.retriable) for name, it in outcomes.items() if it.error is not None}
    assert errors == {
        "inside": (ErrorCode.MEDIA_NOT_ALLOWED, False),
        "busy": (ErrorCode.MEDIA_UNREACHABLE, True),
        "page": (ErrorCode.INVALID_MEDIA, False),
        "gone": (ErrorCode.MEDIA_UNREACHABLE, False),
    }


def test_step_sound_of_silence_is_answered(tmp_path: Path) -> None:
    silence = data_url(recording(np.zeros(8000, np.float32)), "audio/wav")
    folder = save_wav2vec2(tmp_path)
    found = scores(drive(an_engine(folder, SOUNDS), [Request("s", {"input": [sound_part(silence)]})])["s"])
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)


def test_give_up_lets_go_of_a_record_whose_image_never_comes(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that comes later is thrown away."""
    comes = Event()

    def read(_: MediaLibrary, url: str) -> bytes:
        if url == "late.png":
            comes.wait()
        return picture()

    monkeypatch.setattr(MediaLibrary, "read", read)
    engine = an_engine(vit, maxBatchSize=2)
    engine.load()
    engine.submit([engine.prepare(n, photo(f"r{n}", url)) for n, url in enumerate(["late.png", "a.png"])])
    outcomes: list[Outcome] = []
    while not outcomes:
        outcomes = engine.step()
    assert [outcome.work.position for outcome in outcomes] == [1]
    assert [work.position for work in engine.give_up([0, 1])] == [0]
    assert engine.running == 0
    comes.set()
    assert engine.step() == []
    engine.close()


def test_step_scores_that_are_no_numbers_are_an_error(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HubClassifier, "classify", lambda _, batch: torch.full((len(batch), 3), float("nan")))
    error = drive(an_engine(vit), [photo("a", data_url(picture()))])["a"].error
    assert error is not None
    assert error.code == ErrorCode.ENGINE_ERROR


def test_step_out_of_memory_halves_the_batch_and_fails_only_what_does_not_fit_alone(
    vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classify, white = HubClassifier.classify, drive(an_engine(vit), colours())

    def scarce(classifier: HubClassifier, batch: Sequence[Tensor]) -> Tensor:
        if len(batch) > 2 or any(float(one.min()) > 0.9 for one in batch):
            raise torch.OutOfMemoryError("no memory")
        return classify(classifier, batch)

    monkeypatch.setattr(HubClassifier, "classify", scarce)
    outcomes = drive(an_engine(vit), colours())
    error = outcomes.pop("white").error
    assert error is not None
    assert error.code == ErrorCode.OUT_OF_MEMORY
    assert len(outcomes) == len(COLOURS) - 1
    for name, outcome in outcomes.items():
        assert_same(outcome, white[name])


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "5", True])
def test_prepare_refuses_a_number_of_labels_that_is_none(vit: Path, top_k: Any) -> None:
    with pytest.raises(RecordError, match="top_k must be a whole number of at least 1"):
        an_engine(vit).prepare(0, photo("a", "a.png", top_k=top_k))


def test_create_model_that_is_not_there_fails_the_job(tmp_path: Path) -> None:
    for path in ("nothing", "weights.pth"):
        with pytest.raises(JobFailed) as caught:
            an_engine(tmp_path / path)
        assert caught.value.failure.reason == "ModelNotFound"


def test_load_model_of_another_kind_fails_the_job(tmp_path: Path) -> None:
    with pytest.raises(JobFailed) as caught:
        an_engine(save_bert(tmp_path)).load()
    assert caught.value.failure.reason == "ModelNotUsable"


@pytest.mark.parametrize("content", [b"no weights", b""])
def test_load_bare_weights_that_are_none_fail_the_job(tmp_path: Path, content: bytes) -> None:
    for name in ("weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(JobFailed) as caught:
            an_engine(tmp_path / name).load()
        assert caught.value.failure.reason == "ModelNotUsable"


def test_load_bare_weights_with_code_in_them_run_none_of_it(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"_conv_stem.weight": Trap()}, tmp_path / "weights.pth")
    with pytest.raises(JobFailed) as caught:
        an_engine(tmp_path / "weights.pth").load()
    assert caught.value.failure.reason == "ModelNotUsable"
    assert not (tmp_path / "sprung").exists()


RECORDS = 240


def photos(path: Path, model: Path) -> Folder:
    """A planned batch of photos, some of which are broken."""
    told = {"name": "tiny", "task": IMAGES, "source": {"path": str(model)}}
    folder = Folder(path, {"model": told, "engine": {"name": "transformers"}, "batching": {"maxBatchSize": 8}})
    folder.fields["input"] = {"uri": f"{path.as_uri()}/input.jsonl", "format": "jsonl"}
    (path / "photos").mkdir(parents=True)
    for number, colour in enumerate(COLOURS):
        (path / "photos" / f"{number}.png").write_bytes(picture(colour) if number else b"broken")
    parts = [[image_part(f"photos/{number % len(COLOURS)}.png")] for number in range(RECORDS)]
    rows = [{"custom_id": f"r{number}", "content": content} for number, content in enumerate(parts)]
    folder.write_input(*(orjson.dumps(row) + b"\n" for row in rows))
    assert WorkerProcess(folder, Role.PLAN).wait() == ExitCode.DONE
    return folder


def killed_somewhere(folder: Folder, rng: random.Random) -> int:
    """The exit code of a worker that is killed in the middle of its work, unless it was done before."""
    before, growth = folder.journal_bytes(), rng.randrange(1, 12_000)
    worker = WorkerProcess(folder, Role.RUN)
    while folder.journal_bytes() <= before + growth and not worker.ended():
        time.sleep(0.001)
    worker.kill()
    return worker.wait()


def test_every_image_is_answered_once_although_the_worker_is_killed_again_and_again(tmp_path: Path, vit: Path) -> None:
    rng = random.Random(7)
    for number in range(5):
        folder = photos(tmp_path / f"{number}", vit)
        ends = [killed_somewhere(folder, rng) for _ in range(3)]
        if -signal.SIGKILL in ends:
            break
    assert -signal.SIGKILL in ends
    last = WorkerProcess(folder, Role.RUN)
    assert last.wait() == ExitCode.DONE, last.log
    lines = folder.lines("results") + folder.lines("errors")
    assert Counter(line["custom_id"] for line in lines) == Counter(f"r{number}" for number in range(RECORDS))
    assert {line["error"]["code"] for line in folder.lines("errors")} == {"invalid_media"}
    assert len(folder.lines("errors")) == RECORDS // len(COLOURS)
    by_colour: dict[int, set[str]] = {}
    for line in folder.lines("results"):
        top = line["response"]["body"]["data"][0]["labels"][0]["label"]
        by_colour.setdefault(int(line["custom_id"][1:]) % len(COLOURS), set()).add(top)
    assert all(len(tops) == 1 for tops in by_colour.values())
    assert isinstance(last.report, ShardReport)
