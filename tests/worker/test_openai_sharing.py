"""What the pods of a batch tell each other about its endpoints, and what they make of it."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint_server import EndpointServer, Gate, endpoint_server, engine_settings, fails
from headrace.api.engines import OpenAIEngine
from headrace.api.records import Request
from headrace.api.worker import Env, WorkerConfig
from headrace_worker.engines.openai import EndpointsEngine
from headrace_worker.engines.openai.adaptive import AdaptiveLimit, Agreed, Pace
from headrace_worker.engines.openai.board import LOOK_SECONDS, SILENT_LOOKS, Board, Peers
from headrace_worker.engines.openai.breaker import FEWEST
from headrace_worker.engines.openai.endpoint import EndpointState
from headrace_worker.engines.openai.endpoints import Fleet
from headrace_worker.engines.openai.parked import Parked
from headrace_worker.engines.openai.sharing import Sight, agree
from headrace_worker.engines.openai.verdicts import Kind, Verdict
from headrace_worker.stores.base import StoreError
from headrace_worker.stores.local import LocalStore
from worker_builders import a_config

ANSWERED, FAILED = Verdict(Kind.ANSWERED), Verdict(Kind.FAILED)
BUSY = Verdict(Kind.BUSY, pause_seconds=1.0, congested=True)


def a_fleet(most: int = 64) -> Fleet:
    return Fleet(OpenAIEngine.parse({"endpoints": [{"name": "a", "url": "http://a"}]}), most, 0.0)


def test_agree_takes_the_mean_of_those_who_know() -> None:
    agreed = agree("0", {"0": Sight(limit=30), "1": Sight(limit=50, rate=4), "2": Sight()}, turn=0)
    assert (agreed.sharers, agreed.limit, agreed.rate) == (3, Agreed(40, 30), Agreed(4, None))


def test_agree_of_those_who_know_nothing_is_nothing() -> None:
    assert agree("0", {"0": Sight(), "1": Sight()}, turn=0).limit.whole(now=16.0) is None


@given(st.dictionaries(st.text("0123456789", min_size=5, max_size=5), st.booleans(), min_size=1), st.integers(0, 2**40))
def test_agree_lets_one_of_those_probe_who_find_it_open(found: dict[str, bool], turn: int) -> None:
    sights = {name: Sight(open=is_open) for name, is_open in found.items()}
    probing = [name for name, is_open in found.items() if is_open and agree(name, sights, turn).may_probe]
    assert len(probing) == min(1, sum(found.values()))


def test_agree_gives_everyone_a_turn_and_needs_none_when_somebody_is_answered() -> None:
    down = {name: Sight(open=True) for name in "abc"}
    assert {name for turn in range(3) for name in down if agree(name, down, turn).may_probe} == {"a", "b", "c"}
    up = down | {"d": Sight(works=True)}
    assert all(agree(name, up, turn=0).may_probe for name in up)


def test_agree_says_that_it_is_down_when_others_find_so_and_nobody_is_answered() -> None:
    assert agree("0", {"0": Sight(), "1": Sight(open=True)}, 0).is_down
    assert not agree("0", {"0": Sight(open=True)}, 0).is_down
    assert not agree("0", {"0": Sight(), "1": Sight(open=True), "2": Sight(works=True)}, 0).is_down


def test_limit_is_one_part_of_what_all_have_and_what_was_found_out_since_is_kept() -> None:
    limit = AdaptiveLimit(64)
    limit.congested(0.0, 1.0)
    told = limit.whole()
    assert (limit.value, told) == (4, 4)
    limit.congested(2.0, 3.0)
    limit.share(Agreed(40.0, told), sharers=4)
    assert limit.value == 5, "half of its part, for it was cut since it told"
    assert limit.whole() == 20


def test_limit_that_was_not_reached_lately_is_not_told() -> None:
    limit = AdaptiveLimit(64)
    limit.congested(0.0, 1.0)
    limit.whole()
    limit.succeeded(in_flight=1)
    assert limit.whole() is None
    limit.succeeded(in_flight=2)
    assert limit.whole() is not None


@pytest.mark.parametrize("sharers", [1, 4])
def test_limits_of_all_pods_together_grow_by_one_a_round(sharers: int) -> None:
    limits = [AdaptiveLimit(1000) for _ in range(sharers)]
    for limit in limits:
        limit.congested(0.0, 1.0)
        limit.share(Agreed(200.0, None), sharers)
        for _ in range(limit.value):
            limit.succeeded(limit.value)
    wholes = [limit.whole() or 0 for limit in limits]
    assert wholes == pytest.approx([201] * sharers, abs=0.1)


def test_pace_of_a_pod_that_comes_later_is_its_part_of_what_the_others_know() -> None:
    pace = Pace(0.0)
    pace.share(Agreed(10.0, None), sharers=4, now=0.0)
    pace.send(0.0)
    assert pace.ready_at() == pytest.approx(1 / 2.5)
    assert pace.whole() == 10


def test_heed_begins_with_what_the_others_know_and_asks_nobody_who_is_down() -> None:
    fleet = a_fleet()
    fleet.heed("9", {"0": {"a": Sight(limit=12, works=True)}, "1": {"a": Sight(limit=12)}}, 0, 0.0)
    assert fleet.capacity(0.0) == 4
    other = a_fleet()
    other.heed("9", {"0": {"a": Sight(open=True)}}, 0, 0.0)
    assert other.choose(0, None, 0.0) is None


def test_breaker_that_opens_waits_for_its_turn_to_probe() -> None:
    fleet = a_fleet()
    (endpoint,) = fleet.endpoints
    fleet.heed("1", {"1": {}, "0": {"a": Sight()}}, 0, 0.0)
    for _ in range(FEWEST):
        endpoint.settle(endpoint.send(0.0), FAILED, 0.0)
    assert fleet.choose(0, None, 60.0) is None, "the others do not know it yet"
    sights = {"0": {"a": Sight(open=True)}, "1": fleet.sights(60.0, waits=True)}
    fleet.heed("1", sights, 0, 60.0)
    assert fleet.choose(0, None, 60.0) is None, "it is the turn of the other one"
    fleet.heed("1", sights, 1, 60.0)
    assert fleet.choose(0, None, 60.0) is endpoint


def test_sight_of_an_endpoint_that_is_not_asked_any_more_is_none() -> None:
    fleet = a_fleet()
    (endpoint,) = fleet.endpoints
    endpoint.settle(endpoint.send(0.0), ANSWERED, 1.0)
    assert fleet.sights(2.0, waits=False)["a"] == Sight(works=True)
    assert fleet.sights(100.0, waits=False) == {}


def test_choose_keeps_a_place_for_an_endpoint_that_must_be_asked_slowly() -> None:
    spec = {"endpoints": [{"name": name, "url": "http://a"} for name in ("slow", "fast")]}
    fleet = Fleet(OpenAIEngine.parse(spec), 16, 0.0)
    slow, fast = fleet.endpoints
    fast.heed(agree("0", {"0": Sight(), "1": Sight(limit=100)}, 0), 0.0)
    slow.settle(slow.send(0.0), BUSY, 0.0)
    sent = 0
    while (chosen := fleet.choose(0, None, 0.5)) is not None:
        chosen.send(0.5)
        sent += 1
    assert (sent, fast.stats.in_flight) == (15, 15)
    assert fleet.choose(0, None, 2.0) is slow


@pytest.mark.parametrize("pods", [1, 4])
def test_pods_that_share_an_endpoint_of_ten_requests_a_second_ask_it_about_ten_times_a_second(pods: int) -> None:
    answered = simulate([a_fleet().endpoints[0] for _ in range(pods)], rate=10.0, seconds=120.0)
    assert sum(answered.values()) >= 0.9 * 10 * 120
    assert min(answered[pod] for pod in range(pods)) >= 0.7 * sum(answered.values()) / pods


def simulate(pods: list[EndpointState], rate: float, seconds: float) -> Counter[int]:
    """Each asks as much as it takes; how many requests of each a bucket of tokens has let through."""
    now, level, filled_at, numbers = 0.0, rate, 0.0, count()
    coming: list[tuple[float, int, Callable[[float], Any]]] = []
    told: dict[str, Sight] = {}
    answered: Counter[int] = Counter()

    def ask(pod: int) -> None:
        nonlocal level, filled_at
        level, filled_at = min(rate, level + rate * (now - filled_at)), now
        lets = level >= 1
        level -= lets
        ticket = pods[pod].send(now)
        answered[pod] += lets
        verdict = ANSWERED if lets else BUSY
        heapq.heappush(coming, (now + 0.1, next(numbers), lambda at: pods[pod].settle(ticket, verdict, at)))

    def look(pod: int, at: float) -> None:
        sight = pods[pod].sight(at, waits=True)
        told[str(pod)] = sight or Sight()
        pods[pod].heed(agree(str(pod), told, 0), at)
        heapq.heappush(coming, (at + LOOK_SECONDS, next(numbers), lambda then: look(pod, then)))

    for pod in range(len(pods)):
        look(pod, 0.1 * pod)
    while now < seconds:
        for pod, endpoint in enumerate(pods):
            while endpoint.available(now):
                ask(pod)
        moments = [at for it in pods if (at := it.available_at()) is not None]
        now = max(min([coming[0][0], *moments]), now + 1e-6)
        while coming[0][0] <= now:
            heapq.heappop(coming)[2](now)
    return answered


class Clock:
    """Time that a test lets pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def look(self, board: Board, tell: Mapping[str, Sight]) -> Peers:
        """One look of a board, from beginning to end."""
        self.now += 1000.0
        board.look(lambda: tell, self.now)
        board.wait()
        found = board.look(lambda: tell, self.now)
        assert found is not None
        return found


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[Callable[[str], Board]]:
    made: list[Board] = []

    def make(name: str) -> Board:
        made.append(Board(LocalStore(), f"{tmp_path.as_uri()}/endpoints", name))
        return made[-1]

    yield make
    for board in made:
        board.close()


def test_look_finds_what_the_others_have_told(boards: Callable[[str], Board]) -> None:
    clock, first, second = Clock(), boards("00000"), boards("00001")
    sight = Sight(limit=12.5, rate=3.25, open=True, works=True)
    assert clock.look(first, {"a": sight}) == {}
    assert clock.look(second, {}) == {"00000": {"a": sight}}
    assert boards("00002").begin() == {"00000": {"a": sight}, "00001": {}}
    first.close()
    assert clock.look(second, {}) == {}


def test_look_is_not_due_before_its_time(boards: Callable[[str], Board]) -> None:
    clock, board = Clock(), boards("00000")
    clock.look(board, {})
    assert board.look(lambda: pytest.fail("nobody is told again so soon"), clock.now + LOOK_SECONDS / 2) is None


def test_look_reckons_no_longer_with_a_pod_that_tells_nothing_new(boards: Callable[[str], Board]) -> None:
    clock, killed, board = Clock(), boards("00000"), boards("00001")
    clock.look(killed, {})
    found = [bool(clock.look(board, {})) for _ in range(SILENT_LOOKS + 2)]
    assert found == [True] * SILENT_LOOKS + [False] * 2
    clock.look(killed, {})
    assert clock.look(board, {}) == {"00000": {}}


def test_look_leaves_out_what_no_worker_has_written(
    boards: Callable[[str], Board], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "endpoints").mkdir()
    (tmp_path / "endpoints" / "rubbish.json").write_text('{"beat": -1')
    assert Clock().look(boards("00000"), {}) == {}
    assert "rubbish.json is not what a worker tells about endpoints" in caplog.text


def test_look_goes_on_with_what_it_knows_when_nothing_can_be_read(
    boards: Callable[[str], Board], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, first, second = Clock(), boards("00000"), boards("00001")
    clock.look(first, {"a": Sight(limit=3)})
    known = clock.look(second, {})

    def broken(*_: Any, **__: Any) -> Any:
        raise StoreError("file:///out cannot be read")

    with monkeypatch.context() as failing:
        failing.setattr(LocalStore, "list", broken)
        failing.setattr(LocalStore, "put", broken)
        assert clock.look(second, {}) == clock.look(second, {}) == known
    assert caplog.text.count("the other workers are not heard: file:///out cannot be read") == 1
    assert clock.look(second, {}) == known


@pytest.mark.parametrize(
    ("shards", "env"), [(1, {Env.SHARD: "0"}), (2, {})], ids=["a batch of one pod", "a worker that plans"]
)
def test_board_of_who_has_nobody_to_tell_is_none(tmp_path: Path, shards: int, env: dict[str, str]) -> None:
    assert Board.of(a_config(tmp_path, shards=shards), env) is None


@pytest.fixture
def server() -> Iterator[EndpointServer]:
    with endpoint_server() as started:
        yield started


def test_engine_of_a_second_pod_begins_with_its_part(server: EndpointServer, tmp_path: Path) -> None:
    """The limit that one pod has found out is in the output folder for the next one, and gone when both have ended."""
    config = a_config(tmp_path, engine=engine_settings(server), model={"name": "m"}, shards=2)
    board = Board.of(config, {Env.SHARD: "0"})
    assert board is not None
    Clock().look(board, {server_name(config): Sight(limit=6, works=True)})
    second = EndpointsEngine(config, env={Env.SHARD: "1"})
    second.load()
    assert second.room == 3
    chat = {"messages": [{"role": "user", "content": "hello"}]}
    second.submit([second.prepare(0, Request("r0", chat))])
    while not (outcomes := second.step()):
        pass
    assert outcomes[0].error is None
    second.close()
    board.close()
    assert list((tmp_path / "out/_headrace/endpoints").iterdir()) == []


def server_name(config: Any) -> str:
    """Of the only endpoint of a configuration."""
    (endpoint,) = config.engine.openai.endpoints
    return str(endpoint.name)


def test_engine_after_one_that_got_through_to_nobody_sends_one_probe_first(
    server: EndpointServer, tmp_path: Path
) -> None:
    """As the pod does that is let go to see whether endpoints answer again: of many records one is sent, and then all."""
    config = a_config(tmp_path, engine=engine_settings(server), model={"name": "m"})
    note = tmp_path / "out/_headrace/endpoints-open.json"
    server.answer = fails(500)
    first = pod(config)
    give(first, FEWEST)
    while len(server.asked) < FEWEST:
        first.step()
    first.close()
    assert json.loads(note.read_text()) == {"endpoints": [server_name(config)]}
    gate, before = Gate(), len(server.asked)
    server.answer = gate.answer
    second = pod(config)
    assert second.room == 1
    give(second, 1)
    while len(server.asked) == before:
        second.step()
    assert (second.room, len(server.asked)) == (0, before + 1)
    gate.open()
    while not (outcomes := second.step()):
        pass
    assert outcomes[0].error is None
    assert second.room > 1
    second.close()
    assert not note.exists()


def pod(config: WorkerConfig) -> EndpointsEngine:
    """The engine of the only pod of a batch."""
    engine = EndpointsEngine(config, env={Env.SHARD: "0"})
    engine.load()
    return engine


def give(engine: EndpointsEngine, records: int) -> None:
    """So many records."""
    chat = {"messages": [{"role": "user", "content": "hello"}]}
    engine.submit([engine.prepare(number, Request(f"r{number}", chat)) for number in range(records)])


@pytest.mark.parametrize("written", [None, "{", "a folder"])
def test_parked_without_a_note_that_can_be_read_bewares_of_nothing(tmp_path: Path, written: str | None) -> None:
    note = tmp_path / "out/_headrace/endpoints-open.json"
    note.parent.mkdir(parents=True)
    if written == "a folder":
        note.mkdir()
    elif written is not None:
        note.write_text(written)
    parked = Parked.of(a_config(tmp_path), {Env.SHARD: "0"})
    assert parked is not None
    assert parked.read() == ()
    parked.write(())
    assert Parked.of(a_config(tmp_path), {}) is None
