"""Embeddings: a text's vector does not depend on its batch mates, and records keep their inputs in order."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from headrace.api.records import ErrorCode, RecordError, Request
from headrace.api.worker import Env
from headrace_worker.engines.base import Outcome
from headrace_worker.engines.transformers import TransformersEngine
from headrace_worker.engines.transformers.embedding import Encoder
from headrace_worker.engines.transformers.pooling import Pooling, read_pooling
from headrace_worker.engines.transformers.source import ModelFiles
from headrace_worker.errors import JobFailed
from tiny_models import VOCABULARY, drive, save_bert, worker_config

MODES = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens", "last": "lasttoken"}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.THREADS, "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder that says nothing about pooling."""
    return save_bert(tmp_path_factory.mktemp("bert"))


def ask_for(folder: Path, modules: list[str], pooling: dict[str, Any] | None = None) -> None:
    """Write what sentence-transformers keeps beside a model."""
    entries = [
        {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    if pooling is not None:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def an_engine(folder: Path, **batching: int) -> TransformersEngine:
    """An engine for embeddings; `batching` in camelCase."""
    model = {"name": "tiny", "task": "embedding", "source": {"path": str(folder)}}
    return TransformersEngine(worker_config(model, batching=batching), created=0)


def vectors(outcome: Outcome) -> Tensor:
    """The vectors of a record."""
    assert outcome.body is not None, outcome.error
    return torch.tensor([one["embedding"] for one in outcome.body["data"]])


def texts(count: int, longest: int = 60) -> list[list[int]]:
    """Random token ids of mixed lengths."""
    rng = random.Random(5)
    return [[rng.randrange(VOCABULARY) for _ in range(rng.randint(1, longest))] for _ in range(count)]


@torch.inference_mode()
def alone(folder: Path, ids: list[int], mode: str, *, normalize: bool) -> Tensor:
    """The vector of one text by itself, with no padding: written out once more, without the engine's own pooling."""
    hidden: Tensor = AutoModel.from_pretrained(folder)(input_ids=torch.tensor([ids])).last_hidden_state[0]
    pooled = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0).values, "last": hidden[-1]}[mode]
    return pooled / pooled.norm() if normalize else pooled


@pytest.mark.parametrize("max_batch_size", [1, 16])
@pytest.mark.parametrize("mode", list(MODES))
def test_step_vectors_are_those_of_each_text_alone(tmp_path: Path, mode: str, max_batch_size: int) -> None:
    folder = save_bert(tmp_path)
    ask_for(folder, ["Transformer", "Pooling", "Normalize"], {f"pooling_mode_{MODES[mode]}": True})
    inputs = texts(24)
    requests = [Request(f"r{i}", {"input": ids}) for i, ids in enumerate(inputs)]
    outcomes = drive(an_engine(folder, maxBatchSize=max_batch_size), requests)
    for i, ids in enumerate(inputs):
        torch.testing.assert_close(
            vectors(outcomes[f"r{i}"])[0], alone(folder, ids, mode, normalize=True), atol=1e-5, rtol=0
        )


def test_step_model_that_says_nothing_gives_the_mean_as_it_is(bert: Path) -> None:
    ids = texts(1)[0]
    found = vectors(drive(an_engine(bert), [Request("r", {"input": ids})])["r"])[0]
    torch.testing.assert_close(found, alone(bert, ids, "mean", normalize=False), atol=1e-5, rtol=0)


def test_step_record_with_many_inputs_keeps_their_order_over_several_batches(bert: Path) -> None:
    inputs = texts(20)
    together = drive(an_engine(bert, maxBatchSize=6, maxBatchTokens=120), [Request("all", {"input": inputs})])["all"]
    single = drive(an_engine(bert), [Request(f"r{i}", {"input": ids}) for i, ids in enumerate(inputs)])
    expected = torch.cat([vectors(single[f"r{i}"]) for i in range(20)])
    torch.testing.assert_close(vectors(together), expected, atol=1e-5, rtol=0)
    assert together.body is not None
    assert [one["index"] for one in together.body["data"]] == list(range(20))
    total = sum(map(len, inputs))
    assert together.body["usage"] == {"prompt_tokens": total, "total_tokens": total}
    assert together.prompt_tokens == total


def test_step_puts_texts_of_similar_length_together_within_the_token_limit(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, int, int]] = []
    encode = Encoder.encode

    def seen(encoder: Encoder, batch: list[list[int]]) -> Tensor:
        lengths = [len(one) for one in batch]
        shapes.append((len(batch), min(lengths), max(lengths)))
        return encode(encoder, batch)

    monkeypatch.setattr(Encoder, "encode", seen)
    drive(
        an_engine(bert, maxBatchSize=64, maxBatchTokens=200),
        [Request(f"r{i}", {"input": ids}) for i, ids in enumerate(texts(50))],
    )
    assert all(rows * longest <= 200 for rows, _, longest in shapes)
    assert [longest for _, _, longest in shapes] == sorted((longest for _, _, longest in shapes), reverse=True)
    assert sum(rows for rows, _, _ in shapes) == 50


def test_step_text_and_token_ids_give_the_same_vector(bert: Path) -> None:
    requests = [
        Request("text", {"input": "t5 t6 t7"}),
        Request("ids", {"input": [5, 6, 7]}),
        Request("list", {"input": ["t5 t6 t7"]}),
    ]
    outcomes = drive(an_engine(bert), requests)
    assert torch.equal(vectors(outcomes["text"]), vectors(outcomes["ids"]))
    assert torch.equal(vectors(outcomes["text"]), vectors(outcomes["list"]))


def test_give_up_takes_a_record_out_with_all_of_its_texts(bert: Path) -> None:
    engine = an_engine(bert, maxBatchSize=4, maxBatchTokens=1)
    inputs = [[[1] * 9, [2]], [3, 4], [[5] * 8, [6] * 3]]
    works = [engine.prepare(i, Request(f"r{i}", {"input": ids})) for i, ids in enumerate(inputs)]
    engine.load()
    engine.submit(works)
    assert engine.step() == [], "the first of its two texts"
    assert [work.position for work in engine.give_up([0, 9])] == [0]
    assert engine.running == 2
    assert [outcome.work.position for _ in range(3) for outcome in engine.step()] == [2, 1]
    assert engine.running == 0


def test_step_base64_holds_the_same_numbers(bert: Path) -> None:
    requests = [Request("plain", {"input": "t5"}), Request("packed", {"input": "t5", "encoding_format": "base64"})]
    outcomes = drive(an_engine(bert), requests)
    body = outcomes["packed"].body
    assert body is not None
    raw = base64.b64decode(body["data"][0]["embedding"])
    assert torch.equal(torch.frombuffer(bytearray(raw), dtype=torch.float32), vectors(outcomes["plain"])[0])


def test_step_out_of_memory_halves_the_batch_and_fails_only_what_does_not_fit_alone(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Encoder.encode

    def scarce(encoder: Encoder, batch: list[list[int]]) -> Tensor:
        if len(batch) > 3 or any(len(one) > 80 for one in batch):
            raise torch.OutOfMemoryError("no memory")
        return encode(encoder, batch)

    inputs = texts(20)
    expected = drive(an_engine(bert), [Request(f"r{i}", {"input": ids}) for i, ids in enumerate(inputs)])
    monkeypatch.setattr(Encoder, "encode", scarce)
    requests = [Request(f"r{i}", {"input": ids}) for i, ids in enumerate(inputs)]
    outcomes = drive(an_engine(bert), [*requests, Request("long", {"input": [[1], [1] * 100, [2]]})])
    error = outcomes.pop("long").error
    assert error is not None
    assert (error.code, "100 tokens" in error.message) == (ErrorCode.OUT_OF_MEMORY, True)
    for name, outcome in outcomes.items():
        torch.testing.assert_close(vectors(outcome), vectors(expected[name]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ({"input": "t1 " * 257}, ErrorCode.CONTEXT_LENGTH_EXCEEDED, "257 tokens, the context of the model has 256"),
        ({"input": ["t1", ""]}, ErrorCode.INVALID_REQUEST, "input[1] must not be empty"),
        (
            {"input": ["t1", {"text": "t2"}]},
            ErrorCode.INVALID_REQUEST,
            "input[1] must be a text or a list of token ids",
        ),
        (
            {"input": "t1", "encoding_format": "int8"},
            ErrorCode.INVALID_REQUEST,
            "encoding_format must be float or base64",
        ),
        ({"input": "t1", "dimensions": 8}, ErrorCode.INVALID_REQUEST, "dimensions must be absent"),
    ],
)
def test_prepare_refuses_what_it_cannot_embed(bert: Path, body: dict[str, Any], code: ErrorCode, says: str) -> None:
    with pytest.raises(RecordError) as caught:
        an_engine(bert).prepare(0, Request("r", body))
    assert caught.value.code == code
    assert says in caught.value.message


def test_prepare_longest_input_is_what_the_model_is_meant_for(tmp_path: Path) -> None:
    folder = save_bert(tmp_path)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 10}')
    assert an_engine(folder).prepare(0, Request("r", {"input": [1] * 10})).tokens == 10
    with pytest.raises(RecordError, match="context of the model has 10"):
        an_engine(folder).prepare(0, Request("r", {"input": [1] * 11}))


@pytest.mark.parametrize(
    ("modules", "pooling", "says"),
    [
        (["Transformer", "Pooling", "Dense"], {"pooling_mode_mean_tokens": True}, "the module Dense"),
        (["Transformer", "Pooling"], {"pooling_mode_weightedmean_tokens": True}, "pooling_mode_weightedmean_tokens"),
        (
            ["Transformer", "Pooling"],
            {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
            "pooling_mode_mean_tokens with pooling_mode_max_tokens",
        ),
    ],
    ids=["a dense layer", "weighted mean", "two modes at once"],
)
def test_load_pooling_that_it_cannot_do_fails_the_job(
    tmp_path: Path, modules: list[str], pooling: dict[str, Any], says: str
) -> None:
    folder = save_bert(tmp_path)
    ask_for(folder, modules, pooling)
    with pytest.raises(JobFailed, match=f"cannot make embeddings with {says}"):
        an_engine(folder).load()


@pytest.mark.parametrize(("name", "mode"), [("mean", "mean"), ("cls", "cls"), ("lasttoken", "last")])
def test_read_pooling_takes_the_new_form_too(tmp_path: Path, name: str, mode: str) -> None:
    ask_for(tmp_path, ["Transformer", "Pooling"], {"embedding_dimension": 64, "pooling_mode": name})
    assert read_pooling(ModelFiles(str(tmp_path))) == Pooling(mode, normalize=False)


def test_step_vectors_that_are_no_numbers_are_an_error_of_their_record_alone(bert: Path, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(bert)
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = float("nan")
    model.save_pretrained(tmp_path)
    for file in bert.glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    good = [Request(f"g{i}", {"input": [f"t{i + 10} t3", "t5"]}) for i in range(4)]
    bad = Request("bad", {"input": ["t5", "t1 t2 t7"], "encoding_format": "base64"})
    outcomes = drive(an_engine(tmp_path), [*good[:2], bad, *good[2:]])
    error = outcomes.pop("bad").error
    assert error is not None
    assert (error.code, str(error)) == (ErrorCode.ENGINE_ERROR, "the model has no finite vector for input[1]")
    expected = drive(an_engine(bert), good)
    for name, outcome in outcomes.items():
        torch.testing.assert_close(vectors(outcome), vectors(expected[name]))
