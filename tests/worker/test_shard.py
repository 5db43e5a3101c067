"""The shard loop with an engine that does as it is told, real files, and a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from headrace.api.batchstatus import BatchLimits
from headrace.api.records import ErrorCode, RecordError, Request
from headrace.api.worker import PlanReport, Segment, ShardReport
from headrace_worker import engines
from headrace_worker.commit import ShardCommit
from headrace_worker.drain import Drain
from headrace_worker.engines.base import EngineStats, Outcome, Work
from headrace_worker.errors import Drained, EngineDied, JobFailed
from headrace_worker.journal import ShardJournal
from headrace_worker.ledger import Entry
from headrace_worker.manifest import read_header, read_shard_entry
from headrace_worker.planning.plan import plan
from headrace_worker.progress import Live, Speed
from headrace_worker.recorder import Surroundings, committed_report
from headrace_worker.shard import FENCE_SECONDS, MOST_WAITING_BYTES, ShardRun, look_ahead, run_shard
from headrace_worker.stores.local import LocalStore
from worker_rig import CREATED, Folder, a_shard, chat_line

Answer = Callable[[Work], Outcome]


def succeed(work: Work) -> Outcome:
    return Outcome(work, {"answer_to": work.request.custom_id}, prompt_tokens=work.tokens, completion_tokens=2)


def fail(work: Work, *, retriable: bool = False) -> Outcome:
    return Outcome(work, error=RecordError(ErrorCode.ENGINE_ERROR, "it broke"), retriable=retriable)


@dataclass
class Clock:
    """Seconds that pass only when somebody waits, or when an engine works."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class PatientDrain(Drain):
    """Waiting costs the test nothing."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, seconds: float, *_: int) -> bool:
        self._clock.now += max(seconds, 1e-3)
        return self.requested


@dataclass
class ScriptedEngine:
    """Answers each record as `answer` says, `per_step` records a step; a step takes a second."""

    clock: Clock
    answer: Answer = succeed
    slots: int = 4
    per_step: int = 4
    before_step: Callable[[], None] = lambda: None
    refuses: frozenset[str] = frozenset()
    hangs: frozenset[str] = frozenset()
    """Records that it never hands back."""
    loads: int = 0
    seen: list[Request] = field(default_factory=list)
    submitted: list[list[Work]] = field(default_factory=list)
    stats: EngineStats = field(default_factory=EngineStats)
    _running: list[Work] = field(default_factory=list)

    def prepare(self, position: int, request: Request) -> Work:
        self.seen.append(request)
        if request.custom_id in self.refuses:
            raise RecordError(ErrorCode.INVALID_REQUEST, "not like this", "body.n")
        return Work(position, request, tokens=10)

    def load(self) -> None:
        self.loads += 1

    @property
    def room(self) -> int:
        return self.slots - len(self._running)

    @property
    def running(self) -> int:
        return len(self._running)

    def submit(self, batch: Sequence[Work]) -> None:
        assert self.loads == 1
        self.submitted.append(list(batch))
        self._running += batch
        assert len(self._running) <= self.slots

    def step(self) -> list[Outcome]:
        self.before_step()
        self.clock.now += 1.0
        self.stats.batches += 1
        self.stats.batched_records += len(self._running)
        self.stats.batched_tokens += sum(work.tokens for work in self._running)
        done = [work for work in self._running if work.request.custom_id not in self.hangs][: self.per_step]
        self._running = [work for work in self._running if work not in done]
        return [self.answer(work) for work in done]

    def give_up(self, positions: Collection[int]) -> list[Work]:
        given_up = [work for work in self._running if work.position in positions]
        self._running = [work for work in self._running if work.position not in positions]
        return given_up

    def close(self) -> None:
        self._running.clear()


@dataclass
class Scene:
    """A planned batch of one shard."""

    folder: Folder
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.around = Surroundings(
            Live(PlanReport()),
            PatientDrain(self.clock),
            clock=self.clock,
            started=self.clock.now,
            wall=lambda: datetime.fromtimestamp(CREATED + self.clock.now, UTC),
        )
        report = plan(self.folder.config(), None, CREATED, lambda _: None)
        assert report.error_count == 0

    def engine(self, answer: Answer = succeed, **settings: object) -> ScriptedEngine:
        engine = ScriptedEngine(self.clock, answer)
        for name, value in settings.items():
            setattr(engine, name, value)
        return engine

    def claim(self) -> ShardJournal:
        config = self.folder.config()
        header, shard = read_header(LocalStore(), config.plan_uri), read_shard_entry(LocalStore(), config.plan_uri, 0)
        claimed = ShardJournal.claim(LocalStore(), config.output_uri, shard, header)
        assert isinstance(claimed, ShardJournal)
        return claimed

    def work(self, engine: ScriptedEngine) -> ShardCommit:
        config = self.folder.config()
        shard = read_shard_entry(LocalStore(), config.plan_uri, 0)
        with self.claim() as journal:
            return ShardRun(config, shard, journal, engine, self.around).run()

    @property
    def report(self) -> ShardReport:
        report = self.around.live.report
        assert isinstance(report, ShardReport)
        return report

    def metric(self, name: str, **labels: str) -> float | None:
        return self.around.metrics.registry.get_sample_value(name, labels)


def a_scene(path: Path, records: int = 10, **fields: object) -> Scene:
    """So many records, batches of four, and no waiting between tries."""
    usual = {
        "batching": {"maxBatchSize": 4, "maxWaitMilliseconds": 500, "orderBy": "none"},
        "retries": {"limit": 2, "backoff": {"baseSeconds": 5, "capSeconds": 5}},
    }
    folder = Folder(path, {**usual, **fields})
    folder.write_input(*(chat_line(number) for number in range(records)))
    return Scene(folder)


def test_run_answers_every_record_in_the_order_of_the_input(tmp_path: Path) -> None:
    scene = a_scene(tmp_path)
    commit = scene.work(scene.engine())
    lines = scene.folder.lines("results")
    assert [line["custom_id"] for line in lines] == [f"r{i}" for i in range(10)]
    assert [line["response"]["body"]["answer_to"] for line in lines] == [f"r{i}" for i in range(10)]
    assert lines[3]["id"] == "batch_req_000000000003"
    assert {line["attempts"] for line in lines} == {1}
    assert (commit.batches, commit.batched_records, commit.usage.prompt_tokens) == (3, 10, 100)


def test_run_merges_the_batchs_parameters_under_each_request(tmp_path: Path) -> None:
    folder = Folder(tmp_path, {"parameters": {"temperature": 0, "max_tokens": 7}})
    folder.write_input(chat_line(0), chat_line(1, max_tokens=99))
    scene = Scene(folder)
    engine = scene.engine()
    scene.work(engine)
    asked = [(request.body["temperature"], request.body["max_tokens"]) for request in engine.seen]
    assert asked == [(0, 7), (0, 99)]


def test_run_of_a_continuous_engine_keeps_its_slots_full(tmp_path: Path) -> None:
    scene = a_scene(tmp_path)
    engine = scene.engine(per_step=1)
    scene.work(engine)
    assert [len(batch) for batch in engine.submitted] == [4, 1, 1, 1, 1, 1, 1]


def test_run_refuses_what_the_engine_cannot_do_and_loads_no_model_for_it(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, 2)
    engine = scene.engine(refuses=frozenset({"r0", "r1"}))
    scene.work(engine)
    assert engine.loads == 0
    assert scene.folder.lines("results") == []
    assert [(line["error"]["code"], line["attempts"]) for line in scene.folder.lines("errors")] == [
        ("invalid_request", 0)
    ] * 2
    assert scene.metric("headrace_worker_errors_total", code="invalid_request") == 2


def test_run_tries_a_record_again_after_its_backoff(tmp_path: Path) -> None:
    scene = a_scene(tmp_path)
    moments: list[float] = []

    def answer(work: Work) -> Outcome:
        if work.position != 3:
            return succeed(work)
        moments.append(scene.clock.now)
        return succeed(work) if work.attempt == 3 else fail(work, retriable=True)

    scene.work(scene.engine(answer))
    lines = scene.folder.lines("results")
    assert [line["attempts"] for line in lines] == [1, 1, 1, 3, 1, 1, 1, 1, 1, 1]
    assert all(1.0 <= later - earlier <= 7.0 for earlier, later in pairwise(moments))
    assert scene.metric("headrace_worker_record_retries_total") == 2


def test_run_gives_up_a_record_after_its_last_try(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, 2)
    scene.work(scene.engine(lambda work: fail(work, retriable=True)))
    errors = scene.folder.lines("errors")
    assert [(line["error"]["code"], line["attempts"]) for line in errors] == [("engine_error", 3)] * 2


def test_run_gives_up_records_that_hang_and_the_others_go_on(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, 40, recordDeadlineSeconds=30)
    hanging = frozenset({"r0", "r1", "r2", "r3", "r20"})
    engine = scene.engine(hangs=hanging)
    scene.work(engine)
    errors = scene.folder.lines("errors")
    assert {line["custom_id"] for line in errors} == hanging, "four of them had all places"
    assert {(line["error"]["code"], line["attempts"]) for line in errors} == {("deadline_exceeded", 1)}
    assert len(scene.folder.lines("results")) == 35
    assert scene.metric("headrace_worker_errors_total", code="deadline_exceeded") == 5


def test_run_deadline_goes_on_through_further_tries(tmp_path: Path) -> None:
    """The waits between tries are up to an hour: the record is not kept longer than its time lasts."""
    backoff = {"limit": 9, "backoff": {"baseSeconds": 3600, "capSeconds": 3600}}
    scene = a_scene(tmp_path, 4, recordDeadlineSeconds=60, retries=backoff)
    began = scene.clock.now
    scene.work(scene.engine(lambda work: fail(work, retriable=True) if work.position == 2 else succeed(work)))
    (line,) = scene.folder.lines("errors")
    assert (line["custom_id"], line["error"]["code"]) == ("r2", "deadline_exceeded")
    assert scene.clock.now - began < 120


def test_run_time_in_which_nothing_can_be_asked_is_not_held_against_a_record(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, 4, recordDeadlineSeconds=5)
    engine = scene.engine(hangs=frozenset({"r1"}))
    engine.stats.stalled = True

    def recovers() -> None:
        engine.stats.stalled = scene.clock.now < 1100
        if scene.clock.now > 1101:
            engine.hangs = frozenset()

    engine.before_step = recovers
    scene.work(engine)
    assert scene.folder.lines("errors") == []


def test_run_does_not_try_again_what_no_try_would_mend(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, 2)
    scene.work(scene.engine(fail))
    assert [line["attempts"] for line in scene.folder.lines("errors")] == [1, 1]


def test_run_stops_when_too_many_records_have_failed(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, 100, maxFailedRecords=5)
    engine = scene.engine(fail)
    with pytest.raises(JobFailed, match=r"TooManyFailedRecords: 8 of the 100 records of shard 0 .* tolerates 5"):
        scene.work(engine)
    assert len(engine.submitted) == 2
    assert (scene.report.records.failed, scene.report.records.pending) == (8, 92)
    with pytest.raises(JobFailed, match="TooManyFailedRecords"):
        scene.work(again := scene.engine())
    assert again.loads == 0


def test_run_that_has_just_as_many_failures_as_are_tolerated_commits(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, 8, maxFailedRecords=8)
    assert scene.work(scene.engine(fail)).records.failed == 8


def test_run_that_is_told_to_stop_puts_its_work_away(tmp_path: Path) -> None:
    scene = a_scene(tmp_path)
    engine = scene.engine(per_step=2)
    engine.before_step = lambda: scene.around.drain.request() if engine.stats.batches == 2 else None
    with pytest.raises(Drained, match="told to stop with 6 of 10 records of shard 0 done"):
        scene.work(engine)
    assert scene.report.records.succeeded == 6
    later = Scene(scene.folder)
    second = later.engine()
    commit = later.work(second)
    assert [len(batch) for batch in second.submitted] == [4]
    assert (commit.attempt, commit.reprocessed, commit.records.succeeded) == (2, 2, 10)
    assert [line["attempts"] for line in scene.folder.lines("results")] == [1] * 6 + [2] * 2 + [1] * 2


def test_run_that_is_told_to_stop_while_the_model_loads_ends_at_once(tmp_path: Path) -> None:
    scene = a_scene(tmp_path)

    class SlowToLoad(ScriptedEngine):
        def load(self) -> None:
            scene.around.drain.request()
            pytest.fail("loading went on after the request")

    with pytest.raises(Drained):
        scene.work(SlowToLoad(scene.clock))


@pytest.mark.parametrize("dies", ["step", "submit"])
def test_run_whose_engine_dies_keeps_what_is_done(tmp_path: Path, dies: str) -> None:
    scene = a_scene(tmp_path)
    engine = scene.engine(per_step=2)
    goes_on: Callable[..., object] = getattr(engine, dies)

    def once_too_often(*given: object) -> object:
        if engine.stats.batches == 2:
            raise EngineDied("out of memory")
        return goes_on(*given)

    setattr(engine, dies, once_too_often)
    with pytest.raises(EngineDied):
        scene.work(engine)
    assert scene.report.records.succeeded == 4
    later = Scene(scene.folder)
    commit = later.work(later.engine())
    assert (commit.attempt, commit.records.succeeded) == (2, 10)


def test_run_ends_when_a_newer_attempt_has_taken_the_shard(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, 100)
    engine = scene.engine()
    engine.before_step = lambda: scene.claim().__exit__(None, None, None) if engine.stats.batches == 1 else None
    began = scene.clock.now
    with pytest.raises(Drained, match="a newer attempt works on shard 0"):
        scene.work(engine)
    assert scene.clock.now - began <= FENCE_SECONDS + 2


def test_run_ends_with_the_commit_of_whoever_was_faster(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, 100)
    other = Scene(scene.folder)
    engine, commits = scene.engine(), list[ShardCommit]()
    engine.before_step = lambda: commits.append(other.work(other.engine())) if engine.stats.batches == 1 else None
    assert scene.work(engine) == commits[0]
    assert commits[0].attempt == 2


def test_run_holds_only_so_many_records_in_memory(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, 200)
    engine = scene.engine(slots=1)
    ahead: list[int] = []
    engine.before_step = lambda: ahead.append(len(engine.seen) - engine.stats.batches)
    scene.work(engine)
    assert max(ahead) == 16 * 4


def test_run_counts_gpu_seconds_over_all_attempts(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, 10, gpus=2)
    engine = scene.engine()
    engine.before_step = lambda: scene.around.drain.request() if engine.stats.batches == 1 else None
    with pytest.raises(Drained):
        scene.work(engine)
    assert (scene.report.usage.gpu_seconds, scene.report.seconds) == (4, 2)
    later = Scene(scene.folder)
    assert later.work(later.engine()).usage.gpu_seconds == 6


def test_run_reports_only_what_is_durable(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, 40)
    reported: list[int] = []
    engine = scene.engine(per_step=1)
    engine.before_step = lambda: reported.append(scene.report.records.succeeded)
    scene.work(engine)
    assert reported == sorted(reported)
    assert reported[-1] < 40
    assert scene.report.records.succeeded == 40


def test_run_reports_what_the_engine_takes_at_once(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, batching={"orderBy": "none"})
    engine = scene.engine(slots=3)
    engine.stats.max_num_seqs, engine.stats.max_num_batched_tokens = 3, 90
    scene.work(engine)
    assert max(map(len, engine.submitted)) == 3
    assert scene.report.batch_limits == BatchLimits(max_batch_size=3, max_batch_tokens=90)
    assert scene.metric("headrace_worker_batch_fill_ratio_bucket", le="0.95") == 1, "the last, of one record of ten"


def test_run_counts_what_it_does(tmp_path: Path) -> None:
    scene = a_scene(tmp_path)
    scene.work(scene.engine(lambda work: fail(work) if work.position < 2 else succeed(work)))
    assert scene.metric("headrace_worker_records_total", outcome="succeeded") == 8
    assert scene.metric("headrace_worker_records_total", outcome="failed") == 2
    assert scene.metric("headrace_worker_completion_tokens_total") == 16
    assert scene.metric("headrace_worker_batch_fill_ratio_count") == 3
    assert scene.metric("headrace_worker_batch_fill_ratio_sum") == 2.5
    assert scene.metric("headrace_worker_record_latency_seconds_count") == 10
    assert scene.metric("headrace_worker_batch_token_fill_ratio_sum") == pytest.approx(100 / 16384)
    assert scene.metric("headrace_worker_queue_depth") == 0


def test_run_says_what_its_gpus_were_held_for(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, gpus=2)

    class SlowToLoad(ScriptedEngine):
        def load(self) -> None:
            super().load()
            self.clock.now += 30.0

    def activities(of: Scene) -> dict[str, float | None]:
        names = ("work", "load", "reload", "wait")
        return {name: of.metric("headrace_worker_gpu_seconds_total", activity=name) for name in names}

    engine = SlowToLoad(scene.clock, lambda work: fail(work, retriable=True) if work.attempt == 1 else succeed(work))
    engine.before_step = lambda: scene.around.drain.request() if engine.stats.batches == 4 else None
    with pytest.raises(Drained):
        scene.work(engine)
    waited = activities(scene)["wait"]
    assert waited, "for the second tries"
    assert activities(scene) == {"work": 2 * 5, "load": 2 * 30, "reload": None, "wait": waited}
    later = Scene(scene.folder)
    commit = later.work(SlowToLoad(later.clock))
    assert activities(later)["reload"] == 2 * 30
    assert activities(later)["load"] is None
    held = [sample.value for of in (scene, later) for it in of.around.metrics.registry.collect() for sample in it.samples
            if sample.name == "headrace_worker_gpu_seconds_total"]  # fmt: skip
    assert commit.usage.gpu_seconds == pytest.approx(sum(held), abs=1)


def test_run_tells_when_its_first_record_was_begun(tmp_path: Path) -> None:
    """A record is begun when the model is loaded, and not before."""
    scene = a_scene(tmp_path)

    class SlowToLoad(ScriptedEngine):
        def load(self) -> None:
            super().load()
            assert scene.report.first_record_time is None
            self.clock.now += 30.0

    loaded = datetime.fromtimestamp(CREATED + scene.clock.now + 30.0, UTC)
    commit = scene.work(SlowToLoad(scene.clock))
    assert scene.report.first_record_time == loaded
    assert committed_report(commit, scene.around).first_record_time == loaded
    assert committed_report(commit).first_record_time is None, "a worker that finds the shard done has begun nothing"


def test_run_measures_the_time_to_the_first_token_where_the_engine_tells_it(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, 8)
    scene.work(scene.engine(lambda work: replace(succeed(work), first_token=scene.clock.now - 0.25)))
    assert scene.metric("headrace_worker_time_to_first_token_seconds_count") == 8
    assert scene.metric("headrace_worker_time_to_first_token_seconds_sum") == pytest.approx(8 * 0.75)


def test_run_of_a_shard_that_is_all_done_only_commits(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, 3)
    with scene.claim() as journal:
        journal.append([Entry(position, b"{}\n") for position in range(3)])
    idle = scene.engine()
    assert scene.work(idle).records.succeeded == 3
    assert (idle.loads, idle.seen) == (0, [])


def test_run_that_is_told_to_stop_with_the_last_record_commits_all_the_same(tmp_path: Path) -> None:
    scene = a_scene(tmp_path, 4)
    engine = scene.engine()
    engine.before_step = scene.around.drain.request
    assert scene.work(engine).records.succeeded == 4


def test_run_shard_that_is_committed_asks_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = a_scene(tmp_path)
    commit = scene.work(scene.engine())
    monkeypatch.setattr(engines, "create", lambda *_: pytest.fail("an engine was made"))
    config = scene.folder.config()
    header, shard = read_header(LocalStore(), config.plan_uri), read_shard_entry(LocalStore(), config.plan_uri, 0)
    report = run_shard(config, header, shard, scene.around)
    assert report.committed
    assert report.records == commit.records


def test_run_of_an_input_that_has_changed_does_nothing(tmp_path: Path) -> None:
    scene = a_scene(tmp_path)
    lines = (tmp_path / "input.jsonl").read_bytes().splitlines(keepends=True)
    scene.folder.write_input(*lines[:-1], lines[-1].replace(b"How", b"Who"))
    engine = scene.engine()
    with pytest.raises(JobFailed, match="InputChanged"):
        scene.work(engine)
    assert engine.loads == 0
    assert not (scene.folder.private() / "commit.json").exists()


def test_speed_is_that_of_the_last_half_minute() -> None:
    speed = Speed(0.0, 0)
    assert speed.measure(0.0, 0) == 0.0
    assert speed.measure(10.0, 100) == 10.0
    assert speed.measure(20.0, 100) == 5.0
    assert speed.measure(45.0, 100) == 0.0


@pytest.mark.parametrize(
    ("record_bytes", "batch_size", "waiting"),
    [
        pytest.param(200, 64, 1024, id="ordinary records"),
        pytest.param(200, 10_000, 20_000, id="large batches"),
        pytest.param(1024 * 1024, 64, 256, id="records with an image in them"),
        pytest.param(16 * 1024 * 1024, 64, 128, id="the largest records"),
        pytest.param(0, 1, 16, id="records of nothing"),
    ],
)
def test_look_ahead_is_bounded_in_records_and_in_bytes(record_bytes: int, batch_size: int, waiting: int) -> None:
    segments = (Segment(uri="file:///in", start=7, end=7 + 500 * record_bytes),)
    shard = a_shard(500).model_copy(update={"segments": segments})
    assert look_ahead(shard, batch_size) == waiting
    assert waiting * record_bytes <= max(MOST_WAITING_BYTES, 2 * batch_size * record_bytes)
