"""Generation: batched answers are those of the model alone, however the batch is put together and whatever happens to memory."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MptConfig, MptForCausalLM

from headrace.api.records import ErrorCode, Request
from headrace.api.worker import Env
from headrace_worker.engines.transformers import TransformersEngine, limits, native
from headrace_worker.engines.transformers.decoder import PackedDecoder
from headrace_worker.engines.transformers.prefill import prefill_room
from headrace_worker.engines.transformers.prefixes import Shared, common_length, longest_shared
from headrace_worker.errors import JobFailed
from tiny_models import (
    VOCABULARY,
    drive,
    save_gpt2,
    save_llama,
    save_mistral,
    text,
    words,
    worker_config,
)

RECORDS = 60
Ids = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Known:
    """A model with records and the tokens that it generates for each of them alone."""

    folder: Path
    requests: list[Request]
    answers: dict[str, list[int]]

    def engine(self, **batching: int) -> TransformersEngine:
        """An engine for the model."""
        return completions(self.folder, **batching)

    def shuffled(self, seed: int) -> list[Request]:
        """The records in another order."""
        return random.Random(seed).sample(self.requests, len(self.requests))


def completions(folder: Path, **batching: int) -> TransformersEngine:
    """An engine for prompts; `batching` in camelCase."""
    model = {"name": "tiny", "task": "completion", "source": {"path": str(folder)}}
    return TransformersEngine(worker_config(model, batching=batching), created=1_768_478_400)


def a_request(name: str, prompt: Sequence[int], max_tokens: int, **body: Any) -> Request:
    """A greedy completion of token ids."""
    return Request(name, {"prompt": list(prompt), "max_tokens": max_tokens, "temperature": 0, **body})


def alone(model: Any, request: Request) -> list[int]:
    """What Hugging Face's own `generate` answers to one record by itself."""
    ids = torch.tensor([request.body["prompt"]])
    longest = request.body["max_tokens"]
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=longest, do_sample=False)
    tokens: list[int] = output[0, ids.shape[1] :].tolist()
    return tokens


def known(folder: Path) -> Known:
    """Records of mixed lengths, with a rare long one, and their answers."""
    rng = random.Random(11)
    requests = [
        a_request(
            f"r{number}",
            [rng.randrange(VOCABULARY) for _ in range(120 if number % 16 == 5 else rng.randint(1, 50))],
            rng.randint(1, 24),
        )
        for number in range(RECORDS)
    ]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    return Known(folder, requests, {request.custom_id: alone(model, request) for request in requests})


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.THREADS, "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Rotary positions, grouped query heads."""
    torch.set_num_threads(1)
    return known(save_llama(tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Learned positions: the one model that notices when a position is wrong by a constant."""
    torch.set_num_threads(1)
    return known(save_gpt2(tmp_path_factory.mktemp("gpt2")))


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """A window that is shorter than most prompts."""
    torch.set_num_threads(1)
    return known(save_mistral(tmp_path_factory.mktemp("mistral"), sliding_window=12))


@pytest.mark.parametrize("max_batch_size", [1, 7, 32])
@pytest.mark.parametrize("model", ["llama", "gpt2", "mistral"])
def test_step_greedy_gives_the_tokens_of_the_model_alone(
    model: str, max_batch_size: int, request: pytest.FixtureRequest
) -> None:
    it: Known = request.getfixturevalue(model)
    outcomes = drive(it.engine(maxBatchSize=max_batch_size), it.shuffled(seed=max_batch_size))
    assert {name: text(outcome) for name, outcome in outcomes.items()} == {
        name: f" {words(tokens)}" for name, tokens in it.answers.items()
    }


@pytest.mark.parametrize("model", ["llama", "gpt2", "mistral"])
def test_known_answers_are_varied_enough_to_show_a_mistake(model: str, request: pytest.FixtureRequest) -> None:
    it: Known = request.getfixturevalue(model)
    distinct = sum(len(set(tokens)) for tokens in it.answers.values())
    assert distinct / sum(map(len, it.answers.values())) > 0.7


def test_step_model_without_a_pad_token_needs_none(llama: Known, tmp_path: Path) -> None:
    folder = save_llama(tmp_path, pad_token_id=None)
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert model.config.pad_token_id is None
    some = llama.requests[:10]
    outcomes = drive(completions(folder, maxBatchSize=4), some)
    assert {name: text(outcome) for name, outcome in outcomes.items()} == {
        one.custom_id: f" {words(alone(model, one))}" for one in some
    }


def test_step_response_has_the_form_of_openai(llama: Known) -> None:
    outcome = drive(llama.engine(), [llama.requests[0]])["r0"]
    length = len(llama.requests[0].body["prompt"])
    generated = llama.requests[0].body["max_tokens"]
    body = outcome.body
    assert body is not None
    assert body.pop("id").startswith("cmpl-")
    assert body == {
        "object": "text_completion",
        "created": 1_768_478_400,
        "model": "tiny",
        "choices": [
            {"index": 0, "text": f" {words(llama.answers['r0'])}", "logprobs": None, "finish_reason": "length"}
        ],
        "usage": {"prompt_tokens": length, "completion_tokens": generated, "total_tokens": length + generated},
    }
    assert (outcome.prompt_tokens, outcome.completion_tokens) == (length, generated)


def test_step_chat_uses_the_template_and_gives_the_same_bytes_again(llama: Known) -> None:
    request = Request("hello", {"messages": [{"role": "user", "content": "t5 t6"}], "max_tokens": 4, "temperature": 0})
    config = worker_config({"name": "tiny", "task": "chat", "source": {"path": str(llama.folder)}})
    first, second = (drive(TransformersEngine(config, created=7), [request])["hello"] for _ in range(2))
    expected = alone(AutoModelForCausalLM.from_pretrained(llama.folder), a_request("x", [5, 6], 4))
    assert first.body == second.body
    assert first.body is not None
    assert first.body["object"] == "chat.completion"
    assert first.body["choices"][0]["message"] == {"role": "assistant", "content": words(expected), "refusal": None}


def test_stats_count_steps_and_the_sequences_in_them(llama: Known) -> None:
    engine = llama.engine(maxBatchSize=8)
    outcomes = drive(engine, [a_request(f"s{i}", [i + 1], 5) for i in range(8)])
    assert (engine.stats.batches, engine.stats.batched_records) == (5, 40)
    assert engine.stats.batched_tokens == 40, "a prompt of one token, and four tokens one by one"
    assert len({outcome.first_token for outcome in outcomes.values()}) == 1, "all got their first in the same step"


def test_step_hands_a_short_answer_back_while_a_long_one_goes_on(llama: Known) -> None:
    engine = llama.engine(maxBatchSize=2)
    works = [engine.prepare(0, a_request("long", [1], 20)), engine.prepare(1, a_request("short", [2], 2))]
    engine.load()
    engine.submit(works)
    assert (engine.room, engine.running) == (0, 2)
    assert engine.step() == []
    assert [outcome.work.request.custom_id for outcome in engine.step()] == ["short"]
    assert (engine.room, engine.running) == (1, 1)


@pytest.mark.parametrize("task", ["chat", "completion"])
def test_unfinished_answers_are_the_beginnings_of_those_that_come(llama: Known, task: str) -> None:
    model = {"name": "tiny", "task": task, "source": {"path": str(llama.folder)}}
    engine = TransformersEngine(worker_config(model), created=7)
    body = {"messages": [{"role": "user", "content": "t5 t6"}]} if task == "chat" else {"prompt": [1, 5, 9]}
    work = engine.prepare(0, Request("r", {**body, "max_tokens": 12, "temperature": 0, "ignore_eos": True}))
    engine.load()
    assert engine.unfinished() == []
    engine.submit([work])
    said, outcomes = [], engine.step()
    while not outcomes:
        (one,) = engine.unfinished()
        said.append((one.text, one.tokens))
        outcomes = engine.step()
    assert outcomes[0].body is not None
    choice = outcomes[0].body["choices"][0]
    whole = choice["text"] if task == "completion" else choice["message"]["content"]
    assert [tokens for _, tokens in said] == [*range(1, 12)]
    assert all(whole.startswith(text) for text, _ in said)
    assert engine.unfinished() == []


# Sampling


def sampled(name: str, **body: Any) -> Request:
    """A drawn answer of twelve tokens."""
    return Request(name, {"prompt": [3, 4, 5], "max_tokens": 12, **body})


@pytest.mark.parametrize(
    "body",
    [{"temperature": 0.9}, {"temperature": 1.2, "top_p": 0.8, "seed": 5}, {"top_k": 20}],
    ids=["temperature", "nucleus with a seed", "likeliest twenty"],
)
def test_sampling_does_not_depend_on_batch_mates(llama: Known, body: dict[str, Any]) -> None:
    request = sampled("drawn", **body)
    by_itself = drive(llama.engine(), [request])
    in_company = drive(llama.engine(maxBatchSize=16), [*llama.shuffled(1)[:20], request, *llama.shuffled(2)[:20]])
    assert text(in_company["drawn"]) == text(by_itself["drawn"])


def test_sampling_without_a_seed_differs_from_record_to_record(llama: Known) -> None:
    outcomes = drive(llama.engine(), [sampled("a"), sampled("b")])
    assert text(outcomes["a"]) != text(outcomes["b"])


def test_sampling_with_one_seed_is_the_same_for_every_record(llama: Known) -> None:
    outcomes = drive(llama.engine(), [sampled("a", seed=3), sampled("b", seed=3), sampled("c", seed=4)])
    assert text(outcomes["a"]) == text(outcomes["b"]) != text(outcomes["c"])


# Ends of answers


def longest(it: Known) -> tuple[Request, list[int]]:
    """The record with the longest answer."""
    request = max(it.requests, key=lambda one: len(it.answers[one.custom_id]))
    return request, it.answers[request.custom_id]


def test_stop_text_ends_an_answer_before_it(llama: Known) -> None:
    request, tokens = longest(llama)
    stop = words(tokens[5:7])
    stopped = Request("stopped", {**request.body, "stop": ["no such text", stop]})
    outcome = drive(llama.engine(), [stopped, *llama.requests[:9]])["stopped"]
    assert text(outcome) == f" {words(tokens[:5])} "
    assert outcome.completion_tokens == 7
    assert outcome.body is not None
    assert outcome.body["choices"][0]["finish_reason"] == "stop"


def test_stop_text_that_never_comes_changes_nothing(llama: Known) -> None:
    request, tokens = longest(llama)
    outcome = drive(llama.engine(), [Request("r", {**request.body, "stop": "no such text"})])["r"]
    assert text(outcome) == f" {words(tokens)}"


def test_end_token_of_the_model_ends_an_answer(llama: Known, tmp_path: Path) -> None:
    request, tokens = longest(llama)
    end = next(token for token in tokens[4:] if token not in tokens[:4])
    outcome = drive(completions(save_llama(tmp_path, eos_token_id=end)), [request])[request.custom_id]
    before = tokens[: tokens.index(end)]
    assert text(outcome) == f" {words(before)}"
    assert outcome.completion_tokens == len(before) + 1
    assert outcome.body is not None
    assert outcome.body["choices"][0]["finish_reason"] == "stop"


def test_ignore_eos_goes_on_to_max_tokens(llama: Known, tmp_path: Path) -> None:
    request, tokens = longest(llama)
    engine = completions(save_llama(tmp_path, eos_token_id=tokens[4]))
    outcome = drive(engine, [Request("on", {**request.body, "ignore_eos": True})])["on"]
    assert text(outcome) == f" {words(tokens)}"


# Prompts that begin alike


@pytest.mark.parametrize("with_kernels", [True, False], ids=["kernels", "torch"])
@pytest.mark.parametrize("model", ["llama", "gpt2", "mistral"])
def test_common_beginning_is_computed_once_and_changes_no_answer(
    model: str, with_kernels: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    it: Known = request.getfixturevalue(model)
    if not with_kernels:
        monkeypatch.setattr(native, "LIBRARY", None)
    rng = random.Random(3)
    system = [rng.randrange(VOCABULARY) for _ in range(40)]
    alike = [
        a_request(f"a{i}", [*system, *(rng.randrange(VOCABULARY) for _ in range(1 + i % 20))], 1 + i % 9)
        for i in range(30)
    ]
    alike.append(a_request("same", alike[-1].body["prompt"], 5))
    reference = AutoModelForCausalLM.from_pretrained(it.folder).eval()
    spy = Spy(monkeypatch, lambda _decoding, _prompts: False)
    outcomes = drive(it.engine(maxBatchSize=16), [*alike[:20], *it.requests[:10], *alike[20:]])
    for one in alike:
        assert text(outcomes[one.custom_id]) == f" {words(alone(reference, one))}"
    assert all(text(outcomes[one.custom_id]) == f" {words(it.answers[one.custom_id])}" for one in it.requests[:10])
    assert sum(length >= len(system) for length in spy.shared) >= len(alike) - 3


def test_longest_shared_leaves_a_token_to_compute_and_takes_what_is_cached() -> None:
    twenty = list(range(20))
    assert longest_shared([*twenty, 7, 8], [[1] * 30, [*twenty, 1], [*twenty, 7]]) == Shared(1, 20)
    assert longest_shared(twenty, [twenty]) == Shared(0, 19)
    assert longest_shared(twenty, [[*twenty[:15], 99, 99]]).length == 0
    assert longest_shared([1, 2], [[1, 2, 3]]).length == 0
    assert common_length(twenty, [*twenty[:17], 0, 0, 0], 19) == 17


# Memory


class Spy:
    """Stands before the forward pass: sees what goes in, and may say that there is no memory for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, too_much: Callable[[Ids, Ids], bool]) -> None:
        self.prompts: list[list[int]] = []
        self.sizes: list[int] = []
        self.refused: list[int] = []
        self.shared: list[int] = []
        self.tokens: list[int] = []
        """New ones, of each step."""
        pack = PackedDecoder.pack

        def scarce(decoder: PackedDecoder, decoding: Ids, prompts: Ids, shared: Sequence[Shared] = ()) -> Any:
            size = len(decoding) + len(prompts)
            if too_much(decoding, prompts):
                self.refused.append(size)
                raise torch.OutOfMemoryError("no memory")
            self.sizes.append(size)
            self.prompts += map(list, prompts)
            self.shared += [prefix.length for prefix in shared]
            self.tokens.append(size - len(prompts) + sum(map(len, prompts)) - sum(prefix.length for prefix in shared))
            return pack(decoder, decoding, prompts, shared)

        monkeypatch.setattr(PackedDecoder, "pack", scarce)

    def recomputed(self, requests: Sequence[Request]) -> int:
        """How often a sequence was put back in the midst of its answer."""
        originals = [request.body["prompt"] for request in requests]
        return sum(any(one[: len(o)] == o and len(one) > len(o) for o in originals) for one in self.prompts)


def test_step_out_of_memory_halves_the_batch_and_loses_nothing(llama: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch, lambda decoding, prompts: len(decoding) + len(prompts) > 5)
    outcomes = drive(llama.engine(maxBatchSize=32), llama.requests)
    first, second, *_ = spy.refused
    assert first > 10, "so many that one halving is not enough"
    assert second <= first // 2
    assert max(spy.sizes) <= 5
    assert {name: text(outcome) for name, outcome in outcomes.items()} == {
        name: f" {words(tokens)}" for name, tokens in llama.answers.items()
    }


def test_step_out_of_memory_in_the_midst_of_answers_changes_none(llama: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(10_000))
    spy = Spy(monkeypatch, lambda decoding, _prompts: next(calls) % 12 == 11 and len(decoding) > 1)
    outcomes = drive(llama.engine(maxBatchSize=16), llama.shuffled(4))
    assert len(spy.refused) > 2
    assert spy.recomputed(llama.requests) > 0
    assert {name: text(outcome) for name, outcome in outcomes.items()} == {
        name: f" {words(tokens)}" for name, tokens in llama.answers.items()
    }


def test_step_out_of_memory_for_one_sequence_is_an_error_of_its_record(
    llama: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    Spy(monkeypatch, lambda decoding, prompts: any(len(ids) > 100 for ids in [*decoding, *prompts]))
    outcomes = drive(llama.engine(maxBatchSize=16), llama.requests)
    failed = {name: outcome.error for name, outcome in outcomes.items() if outcome.error is not None}
    assert set(failed) == {one.custom_id for one in llama.requests if len(one.body["prompt"]) > 100}
    assert {error.code for error in failed.values()} == {ErrorCode.OUT_OF_MEMORY}
    assert len(outcomes) == RECORDS
    assert all(
        text(outcome) == f" {words(llama.answers[name])}" for name, outcome in outcomes.items() if name not in failed
    )


def test_step_other_errors_of_the_model_are_not_swallowed(llama: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = llama.engine()
    work = engine.prepare(0, llama.requests[0])
    engine.load()
    engine.submit([work])

    def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(PackedDecoder, "pack", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        engine.step()


BYTES_PER_TOKEN = 3 * 2 * 2 * 16 * 4
"""Layers, keys and values, heads, head size, float32."""


def test_step_with_a_small_cache_puts_sequences_back_and_changes_no_answer(
    llama: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four short sequences fit, or two that are longer than 128 tokens."""
    monkeypatch.setattr(limits, "cache_budget", lambda _: 4 * 128 * BYTES_PER_TOKEN)
    spy = Spy(monkeypatch, lambda _decoding, _prompts: False)
    outcomes = drive(llama.engine(maxBatchSize=32), llama.requests)
    assert max(spy.sizes) == 4
    assert spy.recomputed(llama.requests) > 0
    assert {name: text(outcome) for name, outcome in outcomes.items()} == {
        name: f" {words(tokens)}" for name, tokens in llama.answers.items()
    }


def test_step_sequence_larger_than_the_cache_is_an_error_of_its_record(
    llama: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "cache_budget", lambda _: 128 * BYTES_PER_TOKEN)
    requests = [a_request("prompt", [1] * 200, 1), a_request("answer", [1] * 100, 60), a_request("fits", [1] * 90, 30)]
    outcomes = drive(llama.engine(), requests)
    assert {name: outcome.error.code for name, outcome in outcomes.items() if outcome.error} == {
        "prompt": ErrorCode.OUT_OF_MEMORY,
        "answer": ErrorCode.OUT_OF_MEMORY,
    }
    assert "200 tokens" in str(outcomes["prompt"].error)


# Prompts in pieces


def test_step_computes_no_more_tokens_than_it_may(llama: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch, lambda _decoding, _prompts: False)
    outcomes = drive(llama.engine(maxBatchSize=8, maxBatchTokens=30), llama.requests)
    assert max(spy.tokens) == 30
    assert {name: text(outcome) for name, outcome in outcomes.items()} == {
        name: f" {words(tokens)}" for name, tokens in llama.answers.items()
    }


def test_step_long_prompt_holds_up_no_answer(llama: Known) -> None:
    """A prompt of 120 tokens takes three steps of 50; meanwhile the other answer gets a token in each."""
    engine = llama.engine(maxBatchSize=2, maxBatchTokens=50)
    long = next(one for one in llama.requests if len(one.body["prompt"]) == 120)
    works = [engine.prepare(0, a_request("short", [1], 3)), engine.prepare(1, long)]
    engine.load()
    engine.submit(works)
    assert engine.step() == engine.step() == []
    assert [outcome.work.request.custom_id for outcome in engine.step()] == ["short"]
    assert engine.running == 1
    outcomes = [outcome for _ in range(30) for outcome in engine.step()]
    assert [text(outcome) for outcome in outcomes] == [f" {words(llama.answers[long.custom_id])}"]


@pytest.mark.parametrize("with_kernels", [True, False], ids=["kernels", "torch"])
@pytest.mark.parametrize("model", ["llama", "gpt2", "mistral"])
def test_step_prompts_in_pieces_change_no_answer_whatever_happens_to_memory(
    model: str, with_kernels: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    it: Known = request.getfixturevalue(model)
    if not with_kernels:
        monkeypatch.setattr(native, "LIBRARY", None)
    calls = iter(range(10_000))
    cut = False

    def too_much(decoding: Ids, prompts: Ids) -> bool:
        nonlocal cut
        cut = cut or any(list(ids) not in [one.body["prompt"] for one in it.requests] for ids in prompts)
        return next(calls) % 25 == 24 and len(decoding) + len(prompts) > 1

    spy = Spy(monkeypatch, too_much)
    outcomes = drive(it.engine(maxBatchSize=8, maxBatchTokens=24), it.shuffled(9))
    assert cut
    assert spy.refused
    assert {name: text(outcome) for name, outcome in outcomes.items()} == {
        name: f" {words(tokens)}" for name, tokens in it.answers.items()
    }


def test_step_puts_a_prompt_back_that_has_begun_when_the_cache_is_full(
    llama: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four sequences of up to 128 tokens fit, two that are longer. What grows pushes out what came last."""
    monkeypatch.setattr(limits, "cache_budget", lambda _: 2 * 256 * BYTES_PER_TOKEN)
    spy = Spy(monkeypatch, lambda _decoding, _prompts: False)
    requests = [a_request("grows", [1, 2, 3], 150), *llama.requests]
    model = AutoModelForCausalLM.from_pretrained(llama.folder).eval()
    outcomes = drive(llama.engine(maxBatchSize=8, maxBatchTokens=20), requests)
    assert max(spy.tokens) == 20
    assert text(outcomes.pop("grows")) == f" {words(alone(model, requests[0]))}"
    assert {name: text(outcome) for name, outcome in outcomes.items()} == {
        name: f" {words(tokens)}" for name, tokens in llama.answers.items()
    }


@pytest.mark.parametrize(("max_tokens", "decoding", "room"), [(512, 0, 512), (512, 64, 448), (30, 30, 16), (8, 30, 8)])
def test_prefill_room_is_what_decoding_leaves_and_never_nothing(max_tokens: int, decoding: int, room: int) -> None:
    assert prefill_room(max_tokens, decoding) == room


# Records that are given up


def test_give_up_frees_a_place_in_the_cache_and_changes_no_other_answer(llama: Known) -> None:
    """Of sequences that decode, one whose prompt has begun and one that waits, in the midst of everything."""
    engine = llama.engine(maxBatchSize=6, maxBatchTokens=40)
    works = [engine.prepare(n, one) for n, one in enumerate(llama.shuffled(6))]
    rng, waiting, outcomes, gone = random.Random(6), deque(works), [], set()
    engine.load()
    while waiting or engine.running:
        room = engine.room
        engine.submit([waiting.popleft() for _ in range(min(room, len(waiting)))])
        outcomes += engine.step()
        if rng.random() < 0.2:
            known = {outcome.work.position for outcome in outcomes}
            chosen = {rng.randrange(len(works)) for _ in range(5)}
            given_up = {work.position for work in engine.give_up(chosen)}
            assert given_up <= chosen - known
            gone |= given_up
    assert len(gone) > 5
    assert len(gone) + len(outcomes) == RECORDS
    for outcome in outcomes:
        assert text(outcome) == f" {words(llama.answers[outcome.work.request.custom_id])}"


# Weights that are no numbers


def damaged(it: Known, folder: Path, token: int) -> TransformersEngine:
    """An engine for the model with weights that make no number of whatever follows a token."""
    model = AutoModelForCausalLM.from_pretrained(it.folder)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = float("nan")
    model.save_pretrained(folder)
    for file in it.folder.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return completions(folder, maxBatchSize=4)


@pytest.mark.parametrize(
    ("model", "with_kernels"),
    [("llama", True), ("llama", False), ("gpt2", True), ("gpt2", False), ("mistral", True)],
)
def test_step_logits_that_are_no_numbers_are_an_error_of_their_record_alone(
    model: str, with_kernels: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also of whoever has their place in the cache next."""
    it: Known = request.getfixturevalue(model)
    if not with_kernels:
        monkeypatch.setattr(native, "LIBRARY", None)
    drawn = [sampled(f"d{i}", seed=i, logprobs=2) for i in range(4)]
    middle, tokens = longest(it)
    mates = [*[one for one in it.requests if one is not middle][:12], *drawn]
    expected = drive(it.engine(maxBatchSize=4), mates)
    seen = {token for one in mates for token in one.body["prompt"]} | {997 * (i + 1) % VOCABULARY for i in range(12)}
    seen |= {int(word[1:]) for outcome in expected.values() for word in text(outcome).split()}
    bad = next(token for i, token in enumerate(tokens) if i > 1 and token not in {*seen, *middle.body["prompt"]})
    ways: list[dict[str, Any]] = [
        {}, {"temperature": 1}, {"temperature": 1, "top_p": 0.9}, {"temperature": 1, "top_k": 5, "logprobs": 3}, {"logprobs": 1},
    ]  # fmt: skip
    failing = [a_request(f"bad{i}", [*[1] * 60, bad, 2, 3], 9, **body) for i, body in enumerate(ways)]
    mixed = [one for pair in zip(mates, [*failing, middle], strict=False) for one in pair]
    outcomes = drive(damaged(it, tmp_path, bad), [*failing, *mixed[2:], *mates[:2], *mates[6:]])
    errors = {name: outcomes.pop(name).error for name in [one.custom_id for one in [*failing, middle]]}
    assert {error.code for error in errors.values() if error is not None} == {ErrorCode.ENGINE_ERROR}
    assert None not in errors.values()
    at = len(middle.body["prompt"]) + tokens.index(bad) + 1
    assert f"no finite scores for the token after the first {at}: " in str(errors[middle.custom_id])
    assert {name: outcome.body for name, outcome in outcomes.items()} == {
        name: outcome.body for name, outcome in expected.items()
    }


def test_load_model_that_makes_no_numbers_at_all_is_refused(llama: Known, tmp_path: Path) -> None:
    engine = damaged(llama, tmp_path, 997 % VOCABULARY)
    with pytest.raises(JobFailed, match="packed sequences give other results"):
        engine.load()


# Models that cannot be batched


def test_load_model_that_cannot_be_packed_is_refused(llama: Known, tmp_path: Path) -> None:
    """Its attention takes positions from the shape of its input, which a packed row does not have."""
    config = MptConfig(vocab_size=VOCABULARY, d_model=64, n_heads=4, n_layers=2, max_seq_len=256)
    for file in llama.folder.glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    MptForCausalLM(config).save_pretrained(tmp_path)
    model = {"name": "mpt", "task": "completion", "contextTokens": 256, "source": {"path": str(tmp_path)}}
    engine = TransformersEngine(worker_config(model), created=0)
    with pytest.raises(JobFailed, match="cannot batch a MptForCausalLM") as caught:
        engine.load()
    assert caught.value.failure.reason == "ModelNotSupported"
