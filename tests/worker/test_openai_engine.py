"""The engine openai against real servers on this machine, which answer well, badly, late or not at all."""

from __future__ import annotations

import shutil
import ssl
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from cluster.pki import Authority
from endpoint_server import (
    Answer,
    Asked,
    EndpointServer,
    chat_body,
    echoes,
    endpoint_server,
    engine_settings,
    fails,
    free_port,
    resets,
    says,
)
from headrace.api.records import ErrorCode, RecordError, Request
from headrace.api.worker import Env, PlanReport
from headrace_worker import engines
from headrace_worker.engines.base import Outcome
from headrace_worker.engines.openai import EndpointsEngine, client
from headrace_worker.errors import JobFailed
from headrace_worker.manifest import read_header, read_shard_entry
from headrace_worker.planning.plan import plan
from headrace_worker.progress import Live
from headrace_worker.recorder import Surroundings
from headrace_worker.shard import run_shard
from headrace_worker.stores.local import LocalStore
from worker_builders import a_config
from worker_rig import CREATED, Folder, chat_line

KEY = {"name": "openai", "key": "api-key"}


@pytest.fixture
def server() -> Iterator[EndpointServer]:
    with endpoint_server() as started:
        yield started


@contextmanager
def an_engine(
    *endpoints: dict[str, Any] | EndpointServer,
    env: dict[str, str] | None = None,
    settings: dict[str, Any] | None = None,
    **fields: Any,
) -> Iterator[EndpointsEngine]:
    """The engine with these endpoints, loaded; `fields` are those of the configuration."""
    usual = {"model": {"name": "m"}, "retries": {"limit": 2}, **fields}
    config = a_config(Path("/nowhere"), engine=engine_settings(*endpoints, **(settings or {})), **usual)
    engine = EndpointsEngine(config, env=env or {})
    try:
        engine.load()
        yield engine
    finally:
        engine.close()


def chat(text: str = "hello", **body: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **body}


def ask(engine: EndpointsEngine, *bodies: dict[str, Any]) -> list[Outcome]:
    """What becomes of each request, in their order."""
    found: dict[int, Outcome] = {}
    works = [engine.prepare(position, Request(f"r{position}", body)) for position, body in enumerate(bodies)]
    waiting = works
    while len(found) < len(works):
        room = engine.room
        engine.submit(waiting[:room])
        waiting = waiting[room:]
        assert engine.running
        found |= {outcome.work.position: outcome for outcome in engine.step()}
    assert engine.running == 0
    return [found[position] for position in range(len(works))]


def in_turn(*answers: Answer) -> Answer:
    """One answer after the other; the last one from then on."""
    number = count()

    def answer(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        answers[min(next(number), len(answers) - 1)](handler, asked)

    return answer


def gibberish(handler: BaseHTTPRequestHandler, _: Asked) -> None:
    handler.wfile.write(b"hello\r\n\r\n")


def error_of(outcome: Outcome) -> tuple[ErrorCode, bool, str]:
    assert outcome.error is not None
    return outcome.error.code, outcome.retriable, outcome.error.message


def test_step_answers_a_chat_with_the_body_of_the_server(server: EndpointServer) -> None:
    with an_engine(server) as engine:
        (outcome,) = ask(engine, chat("how are you?", temperature=0))
    assert outcome.body == chat_body("how are you?")
    assert (outcome.prompt_tokens, outcome.completion_tokens, outcome.about) == (7, 3, {"endpoint": "e0"})
    assert server.asked[0].path == "/v1/chat/completions"
    assert server.asked[0].body == {**chat("how are you?", temperature=0), "model": "m"}
    assert server.asked[0].key is None


@pytest.mark.parametrize(
    ("task", "path", "answer"),
    [
        ("completion", "/v1/completions", {"model": "m", "choices": [{"text": "so"}]}),
        ("embedding", "/v1/embeddings", {"model": "m", "data": [{"index": 0, "embedding": [0.5]}]}),
    ],
)
def test_step_asks_the_url_of_the_task(server: EndpointServer, task: str, path: str, answer: dict[str, Any]) -> None:
    server.answer = says(answer)
    endpoint = {"name": "a", "url": f"{server.url}/v1/"}
    with an_engine(endpoint, model={"name": "m", "task": task}) as engine:
        (outcome,) = ask(engine, {"prompt": "x", "input": "x"})
    assert outcome.body == answer
    assert server.asked[0].path == path


def test_create_refuses_a_task_that_no_endpoint_has() -> None:
    fields: dict[str, Any] = {
        "engine": engine_settings({"name": "a", "url": "http://a"}),
        "model": {"name": "m", "task": "image-classification"},
    }
    with pytest.raises(JobFailed, match=r"TaskNotSupported: model\.task must be one of chat, completion, embedding"):
        engines.create(a_config(Path("/nowhere"), **fields), CREATED)


def test_likelihood_of_endpoints_is_refused() -> None:
    config = a_config(Path("/nowhere"), engine=engine_settings({"name": "a", "url": "http://a"}))
    with pytest.raises(JobFailed, match="EngineNotSuitable"):
        engines.likelihood(config)


def test_prepare_refuses_a_stream() -> None:
    config = a_config(Path("/nowhere"), engine=engine_settings({"name": "a", "url": "http://a"}))
    checker = engines.request_checker(config)
    assert checker is not None
    assert checker.check(Request("r", chat("12345678"))) == 2
    with pytest.raises(RecordError, match="stream must be false") as caught:
        checker.check(Request("r", chat(stream=True)))
    assert caught.value.param == "body.stream"


def test_step_calls_the_model_by_the_name_that_the_endpoint_knows(server: EndpointServer) -> None:
    server.answer = says(chat_body(model="gpt-4o-mini"))
    endpoint = {"name": "a", "url": server.url, "model": "deployment", "responseModel": "gpt-4o"}
    with an_engine(endpoint) as engine:
        (outcome,) = ask(engine, chat())
    assert server.asked[0].body["model"] == "deployment"
    assert outcome.body == chat_body(model="gpt-4o-mini")


def test_step_keeps_as_many_requests_under_way_as_a_batch_has(server: EndpointServer) -> None:
    four = Barrier(4, timeout=180)

    def together(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        four.wait()
        echoes(handler, asked)

    server.answer = together
    with an_engine(server, batching={"maxBatchSize": 4}) as engine:
        outcomes = ask(engine, *(chat(str(number)) for number in range(60)))
    texts = [(outcome.body or {})["choices"][0]["message"]["content"] for outcome in outcomes]
    assert texts == [str(number) for number in range(60)]
    assert server.most_at_once == 4
    assert engine.stats.endpoints["e0"].outcomes == {"answered": 60}


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        pytest.param(fails(500, "a bug"), ErrorCode.ENDPOINT_ERROR, "answers 500: a bug", id="an internal error"),
        pytest.param(resets, ErrorCode.ENDPOINT_DISCONNECTED, "has broken off", id="a reset"),
        pytest.param(says(b"<html>Sign in"), ErrorCode.INVALID_RESPONSE, "an HTML page", id="an HTML page"),
        pytest.param(says(b'{"choices": ['), ErrorCode.INVALID_RESPONSE, "no JSON object", id="half a JSON"),
        pytest.param(says(b"{}", content_length="90"), ErrorCode.ENDPOINT_DISCONNECTED, "has broken off", id="half a body"),
        pytest.param(gibberish, ErrorCode.ENDPOINT_DISCONNECTED, "has broken off", id="no HTTP"),
        pytest.param(fails(200, "overloaded"), ErrorCode.ENDPOINT_ERROR, "with an error inside: overloaded", id="an error in a 200"),
    ],
)  # fmt: skip
def test_step_failure_of_an_endpoint_is_one_try_that_may_be_repeated(
    server: EndpointServer, answer: Answer, code: ErrorCode, words: str
) -> None:
    def badly(handler: Any, asked: Any) -> None:
        handler.close_connection = True
        answer(handler, asked)

    server.answer = badly
    with an_engine(server) as engine:
        found, retriable, message = error_of(ask(engine, chat())[0])
    assert (found, retriable, len(server.asked)) == (code, True, 1)
    assert words in message


def test_step_request_that_hangs_has_its_time_and_no_more(server: EndpointServer) -> None:
    server.answer = server.hangs
    with an_engine(server, settings={"requestTimeoutSeconds": 1}) as engine:
        code, retriable, message = error_of(ask(engine, chat())[0])
    assert (code, retriable) == (ErrorCode.ENDPOINT_TIMEOUT, True)
    assert message == "the endpoint e0 has not answered in full within 1 s (requestTimeoutSeconds)"


def test_step_record_that_is_refused_is_not_tried_again(server: EndpointServer) -> None:
    server.answer = fails(400, "max_tokens is too large")
    with an_engine(server) as engine:
        code, retriable, message = error_of(ask(engine, chat())[0])
    assert (code, retriable) == (ErrorCode.INVALID_REQUEST, False)
    assert message == "the endpoint e0 answers 400: max_tokens is too large"


def test_step_too_many_requests_cost_no_try(server: EndpointServer) -> None:
    server.answer = in_turn(*[fails(429, retry_after_ms="20")] * 9, echoes)
    with an_engine(server) as engine:
        outcomes = ask(engine, *(chat(str(number)) for number in range(5)))
    assert [(outcome.work.attempt, outcome.error) for outcome in outcomes] == [(1, None)] * 5
    assert len(server.asked) == 9 + 5


def test_step_endpoint_that_is_not_there_yet_costs_no_try() -> None:
    port = free_port()
    with an_engine({"name": "late", "url": f"http://127.0.0.1:{port}"}) as engine:
        engine.submit([engine.prepare(0, Request("r0", chat()))])
        assert engine.step() == []
        with endpoint_server(port=port):
            while not (outcomes := engine.step()):
                pass
    assert [(outcome.work.attempt, outcome.error) for outcome in outcomes] == [(1, None)]


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        pytest.param(fails(401, "bad key sk-old"), "KeyRefused", r"answers 401: bad key \*\*\*$", id="a wrong key"),
        pytest.param(fails(404, "no model m"), "EndpointNotUsable", "answers 404: no model m", id="no such model"),
        pytest.param(says(b"", 307, location="/x"), "EndpointNotUsable", "answers 307", id="a redirect"),
        pytest.param(
            says(chat_body(model="other")), "WrongModel", "the model other, and not with m", id="another model"
        ),
        pytest.param(
            fails(429, "pay", "insufficient_quota"), "QuotaExhausted", "answers 429: pay", id="a quota that is used up"
        ),
    ],
)
def test_step_what_nobody_would_be_answered_by_ends_the_job(
    server: EndpointServer, answer: Answer, reason: str, words: str
) -> None:
    server.answer = answer
    endpoint = {"name": "a", "url": server.url, "apiKeySecretRef": KEY}
    with an_engine(endpoint, env={"API_KEY": "sk-old"}) as engine, pytest.raises(JobFailed, match=words) as caught:
        ask(engine, chat())
    assert caught.value.failure.reason == reason
    assert server.asked[0].key == "sk-old"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["as it stands in the URL", "as a name has it"])
def test_step_address_of_the_node_is_never_asked(
    server: EndpointServer, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """The check is made for each connection, so that no name leads past it; here this machine stands for such an address."""
    monkeypatch.setattr(client, "is_of_the_node", lambda _: True)
    endpoint = {"name": "a", "url": server.url.replace("127.0.0.1", host)}
    with an_engine(endpoint) as engine, pytest.raises(JobFailed, match="address that is never asked: a link-local"):
        ask(engine, chat())
    assert server.asked == []


def test_step_server_without_a_certificate_is_not_trusted(server: EndpointServer) -> None:
    endpoint = {"name": "a", "url": server.url.replace("http:", "https:")}
    with (
        an_engine(endpoint) as engine,
        pytest.raises(JobFailed, match="EndpointNotTrusted: the endpoint a cannot be trusted"),
    ):
        ask(engine, chat())


def test_step_certificate_of_a_stranger_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    authority = Authority(tmp_path)
    authority.create()
    pair = authority.server("endpoint", ["IP:127.0.0.1"])
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(pair.certificate, pair.key)
    with endpoint_server(tls=theirs) as server:
        with an_engine(server) as engine, pytest.raises(JobFailed, match="EndpointNotTrusted"):
            ask(engine, chat())
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.root.certificate))
        with an_engine(server) as engine:
            (outcome,) = ask(engine, chat())
    assert outcome.error is None
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "the environment variable API_KEY must hold an API key"),
        ({"API_KEY": "two words"}, "the environment variable API_KEY must hold an API key"),
        ({Env.SECRETS.value: "/nowhere"}, "the Secret openai, key api-key cannot be read"),
    ],
)
def test_load_says_where_a_key_is_missing(env: dict[str, str], words: str) -> None:
    with (
        pytest.raises(JobFailed, match=words),
        an_engine({"name": "a", "url": "http://a", "apiKeySecretRef": KEY}, env=env),
    ):
        pass


def mounted(folder: Path, key: str) -> dict[str, str]:
    """A Secret as the kubelet mounts it, and the environment that leads to it."""
    path = folder / "openai" / "api-key"
    path.parent.mkdir(exist_ok=True)
    partial = folder / "partial"
    partial.write_text(f"{key}\n")
    partial.replace(path)
    return {Env.SECRETS.value: str(folder)}


def lets_in(*keys: str) -> Answer:
    """Answers whoever has one of these keys."""
    return lambda handler, asked: (echoes if asked.key in keys else fails(401, "expired"))(handler, asked)


def test_step_key_that_was_replaced_is_read_again(server: EndpointServer, tmp_path: Path) -> None:
    env = mounted(tmp_path, "sk-1")
    server.answer = lets_in("sk-1")
    with an_engine({"name": "a", "url": server.url, "apiKeySecretRef": KEY}, env=env) as engine:
        assert ask(engine, chat())[0].error is None
        server.answer = lets_in("sk-2")
        engine.submit([engine.prepare(0, Request("r0", chat()))])
        assert engine.step() == [], "the old key is refused, and a new one may be on its way"
        mounted(tmp_path, "sk-2")
        while not (outcomes := engine.step()):
            pass
    assert [(outcome.work.attempt, outcome.error) for outcome in outcomes] == [(1, None)]
    assert server.asked[-1].key == "sk-2"


def test_step_falls_back_after_all_tries_and_says_who_has_answered(server: EndpointServer) -> None:
    server.answer = fails(500)
    with endpoint_server() as other:
        endpoints: list[dict[str, Any]] = [
            {"name": "a", "url": server.url},
            {"name": "b", "url": other.url, "tier": 1, "model": "small"},
        ]
        with an_engine(*endpoints, retries={"limit": 1}) as engine:
            (first,) = ask(engine, chat())
            assert first.retriable
            engine.submit([first.work._replace(attempt=2)])
            while not (outcomes := engine.step()):
                pass
    (second,) = outcomes
    assert (second.error, second.about, second.work.attempt) == (None, {"endpoint": "b", "degraded": True}, 3)
    assert (len(server.asked), len(other.asked)) == (2, 1)
    assert other.asked[0].body["model"] == "small"


def test_step_falls_back_to_nobody_where_degraded_answers_are_not_wanted(server: EndpointServer) -> None:
    server.answer = fails(500, "it broke")
    with endpoint_server() as other:
        endpoints: list[dict[str, Any]] = [
            {"name": "a", "url": server.url},
            {"name": "b", "url": other.url, "tier": 1},
        ]
        with an_engine(*endpoints, settings={"allowDegraded": False}, retries={"limit": 0}) as engine:
            (outcome,) = ask(engine, chat())
    assert error_of(outcome)[::2] == (ErrorCode.ENDPOINT_ERROR, "the endpoint a answers 500: it broke")
    assert (len(server.asked), len(other.asked)) == (1, 0)


def test_step_goes_elsewhere_when_an_endpoint_cannot_be_used(server: EndpointServer) -> None:
    server.answer = fails(404)
    with endpoint_server() as other, an_engine(server, other) as engine:
        outcomes = ask(engine, *(chat(str(number)) for number in range(20)))
    assert {(outcome.work.attempt, str(outcome.about)) for outcome in outcomes} == {(1, "{'endpoint': 'e1'}")}
    assert engine.stats.endpoints["e0"].open


def test_give_up_breaks_off_a_request_that_hangs_and_frees_its_place(server: EndpointServer) -> None:
    server.answer = server.hangs
    with an_engine(server, batching={"maxBatchSize": 2}, recordDeadlineSeconds=1) as engine:
        works = [engine.prepare(n, Request(f"r{n}", chat())) for n in range(3)]
        engine.submit(works[:2])
        while len(server.asked) < 2:
            assert engine.step() == []
        assert engine.room == 0
        assert [work.position for work in engine.give_up([0, 1, 2])] == [0, 1]
        assert (engine.room, engine.running, engine.stats.endpoints["e0"].in_flight) == (1, 0, 0), "the limit is halved"
        server.answer = echoes
        engine.submit(works[2:])
        outcomes: list[Outcome] = []
        while not outcomes:
            outcomes = engine.step()
        assert [outcome.work.position for outcome in outcomes] == [2]


def test_step_that_can_ask_nobody_is_stalled() -> None:
    with an_engine({"name": "gone", "url": f"http://127.0.0.1:{free_port()}"}) as engine:
        engine.submit([engine.prepare(0, Request("r0", chat()))])
        while not engine.stats.stalled:
            assert engine.step() == []
        assert engine.stats.endpoints["gone"].open
        assert [work.position for work in engine.give_up([0])] == [0], "also one that waits for an endpoint"
        assert engine.running == 0


def test_close_breaks_off_what_is_under_way(server: EndpointServer) -> None:
    server.answer = server.hangs
    with an_engine(server) as engine:
        engine.submit([engine.prepare(0, Request("r0", chat()))])
        assert engine.step() == []
    assert engine.stats.endpoints["e0"].sent == 1


# A whole shard: input, journal, retries and commit around the engine


def a_folder(path: Path, server: EndpointServer, records: int, **fields: Any) -> Folder:
    """A planned batch."""
    usual = {"model": {"name": "m"}, "retries": {"limit": 2, "backoff": {"baseSeconds": 0, "capSeconds": 0}}}
    endpoint = {"name": "a", "url": server.url, "apiKeySecretRef": KEY}
    folder = Folder(path, {"engine": engine_settings(endpoint), **usual, **fields})
    folder.write_input(*(chat_line(number, f"text {number}") for number in range(records)))
    checker = engines.request_checker(folder.config())
    assert checker is not None
    assert plan(folder.config(), checker.check, CREATED, lambda _: None).error_count == 0
    return folder


def run(folder: Folder) -> Surroundings:
    """Do the one shard."""
    config, around = folder.config(), Surroundings(Live(PlanReport()))
    header, shard = read_header(LocalStore(), config.plan_uri), read_shard_entry(LocalStore(), config.plan_uri, 0)
    around.live.report = run_shard(config, header, shard, around)
    return around


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("API_KEY", "sk-canary")
    return "sk-canary"


def texts(lines: Sequence[dict[str, Any]]) -> list[str]:
    return [line["response"]["body"]["choices"][0]["message"]["content"] for line in lines]


def at_first(answer: Answer) -> Answer:
    """Answers the first request about each record whose number ends in 7 like that, and all others well."""
    seen: set[str] = set()

    def sometimes(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        is_bad = asked.text.endswith("7") and asked.text not in seen
        seen.add(asked.text)
        (answer if is_bad else echoes)(handler, asked)

    return sometimes


FAULTS = {
    "500": fails(500),
    "reset": resets,
    "429": fails(429, retry_after_ms="1"),
    "HTML": says(b"<html>"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_run_shard_over_a_faulty_endpoint_answers_every_record_once(
    server: EndpointServer, tmp_path: Path, key: str, fault: Answer
) -> None:
    server.answer = at_first(fault)
    folder = a_folder(tmp_path, server, 200)
    around = run(folder)
    lines = folder.lines("results")
    assert texts(lines) == [f"text {number}" for number in range(200)]
    assert {str(line["headrace"]) for line in lines} == {"{'endpoint': 'a'}"}
    assert folder.commit()["usage"]["promptTokens"] == 200 * 7
    answered = around.metrics.registry.get_sample_value(
        "headrace_worker_endpoint_requests_total", {"endpoint": "a", "outcome": "answered"}
    )
    assert answered == 200
    assert len(server.asked) == 220


def test_run_shard_whose_key_is_revoked_keeps_its_records_for_a_later_run(
    server: EndpointServer, tmp_path: Path, key: str
) -> None:
    number = count(1)
    server.answer = lambda handler, asked: (echoes if next(number) <= 50 else fails(401, f"{asked.key} expired"))(
        handler, asked
    )
    folder = a_folder(tmp_path, server, 200, batching={"maxBatchSize": 8})
    with pytest.raises(JobFailed, match=r"KeyRefused: the endpoint a answers 401: \*\*\* expired"):
        run(folder)
    assert folder.lines("results") == folder.lines("errors") == []
    before, server.answer = len(server.asked), echoes
    run(folder)
    assert texts(folder.lines("results")) == [f"text {number}" for number in range(200)]
    assert folder.lines("errors") == []
    again = len(server.asked) - before - 150
    assert 0 <= again < 8, (
        "what was answered is not asked for again, but for what was under way when the key was refused"
    )
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [str(path) for path in files if key.encode() in path.read_bytes()] == []


def test_run_shard_gives_up_a_record_after_its_time(server: EndpointServer, tmp_path: Path, key: str) -> None:
    def tarpit(handler: Any, asked: Any) -> None:
        (server.hangs if asked.text == "text 3" else echoes)(handler, asked)

    server.answer = tarpit
    folder = a_folder(tmp_path, server, 60, recordDeadlineSeconds=2)
    run(folder)
    (line,) = folder.lines("errors")
    assert (line["custom_id"], line["error"]["code"]) == ("r3", "deadline_exceeded")
    assert len(folder.lines("results")) == 59


def test_run_shard_gives_up_a_record_after_its_tries(server: EndpointServer, tmp_path: Path, key: str) -> None:
    def poisoned(handler: Any, asked: Any) -> None:
        (fails(500, "it chokes") if asked.text == "text 3" else echoes)(handler, asked)

    server.answer = poisoned
    folder = a_folder(tmp_path, server, 60)
    run(folder)
    (line,) = folder.lines("errors")
    assert (line["custom_id"], line["error"]["code"], line["attempts"]) == ("r3", "endpoint_error", 3)
    assert sum(asked.text == "text 3" for asked in server.asked) == 3
    assert len(folder.lines("results")) == 59


def test_run_shard_makes_no_more_calls_than_records_have_tries(
    server: EndpointServer, tmp_path: Path, key: str
) -> None:
    """One layer of retries: of calls that are worked on there are (retries + 1) a record at most, whatever goes wrong."""
    faults = [
        fails(500),
        echoes,
        resets,
        echoes,
        fails(429, retry_after_ms="1"),
        echoes,
        says(b"<html>"),
        echoes,
        echoes,
    ]
    number = count()

    def badly(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        is_poison = asked.text.endswith(" 3")
        (fails(500) if is_poison else faults[next(number) % len(faults)])(handler, asked)

    server.answer = badly
    records, retries = 200, 3
    backoff = {"baseSeconds": 0, "capSeconds": 0}
    folder = a_folder(tmp_path, server, records, retries={"limit": retries, "backoff": backoff})
    around = run(folder)
    tries = Counter(asked.text for asked in server.asked)
    stats = sum(
        sample.value
        for family in around.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "headrace_worker_endpoint_requests_total" and sample.labels["outcome"] != "busy"
    )
    assert len(folder.lines("results")) + len(folder.lines("errors")) == len(tries) == records
    assert stats <= (retries + 1) * records
    worked_on = sum(asked.text == "text 3" for asked in server.asked)
    assert [(line["custom_id"], line["attempts"]) for line in folder.lines("errors") if line["custom_id"] == "r3"] == [
        ("r3", worked_on)
    ]
    assert worked_on == retries + 1
