"""How endpoints are chosen, how much each is asked, and when none is: the pure parts of the engine openai."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint_server import engine_settings
from headrace.api.engines import LoadBalancing, OpenAIEngine
from headrace_worker.engines.openai.adaptive import (
    FIRST_LIMIT,
    FORGOTTEN_SECONDS,
    AdaptiveLimit,
    Pace,
    ResponseTime,
)
from headrace_worker.engines.openai.balancing import Balancer, Standing, balancer
from headrace_worker.engines.openai.breaker import FEWEST, LONGEST_REST_SECONDS, REST_SECONDS, Breaker, State
from headrace_worker.engines.openai.endpoint import EndpointState
from headrace_worker.engines.openai.endpoints import PATIENCE_SECONDS, Fleet
from headrace_worker.engines.openai.verdicts import Kind, Unusable, Verdict

ANSWERED, FAILED = Verdict(Kind.ANSWERED, body={}), Verdict(Kind.FAILED, "it broke")
UNREACHED, UNUSABLE = Verdict(Kind.UNREACHED, "nobody there"), Verdict(Kind.UNUSABLE, "no such model")
KEY_REFUSED = Verdict(Kind.UNUSABLE, "the key is refused", reason=Unusable.KEY_REFUSED)


def busy(seconds: float | None = None) -> Verdict:
    return Verdict(Kind.BUSY, "too many", pause_seconds=seconds, congested=True)


def standings(*in_flight: int, weights: tuple[int, ...] = (), near: tuple[int, ...] = ()) -> list[Standing]:
    """As many endpoints as there are numbers."""
    return [
        Standing(f"e{order}", order, count, weight=weights[order] if weights else 1, is_near=order in near)
        for order, count in enumerate(in_flight)
    ]


def choices(policy: LoadBalancing, among: list[Standing], count: int) -> list[str]:
    """What is chosen so many times in a row, while answers take for ever."""
    chosen: list[str] = []
    chooser = balancer(policy)
    for _ in range(count):
        found = chooser.choose(among)
        chosen.append(found.name)
        among = [replace(it, sent=it.sent + 1) if it is found else it for it in among]
    return chosen


def test_round_robin_takes_each_in_turn_and_skips_who_cannot() -> None:
    chooser = balancer(LoadBalancing.ROUND_ROBIN)
    all_three = standings(0, 0, 0)
    assert [chooser.choose(all_three).name for _ in range(4)] == ["e0", "e1", "e2", "e0"]
    assert chooser.choose([all_three[0], all_three[2]]).name == "e2"
    assert chooser.choose(all_three).name == "e0"


def test_least_requests_takes_the_idlest_and_of_equals_who_has_had_fewer() -> None:
    assert choices(LoadBalancing.LEAST_REQUESTS, standings(3, 1, 2), 1) == ["e1"]
    assert choices(LoadBalancing.LEAST_REQUESTS, standings(0, 0), 4) == ["e0", "e1", "e0", "e1"]


@given(st.lists(st.integers(0, 7), min_size=1, max_size=5).filter(any), st.integers(1, 3))
def test_weighted_gives_each_its_share_in_every_round(weights: list[int], rounds: int) -> None:
    among = standings(*[0] * len(weights), weights=tuple(weights))
    counts = Counter(choices(LoadBalancing.WEIGHTED, among, rounds * sum(weights)))
    assert [counts[it.name] for it in among] == [rounds * weight for weight in weights]


def test_weighted_spreads_a_share_and_does_not_bunch_it() -> None:
    assert choices(LoadBalancing.WEIGHTED, standings(0, 0, weights=(3, 1)), 4) == ["e0", "e0", "e1", "e0"]


def test_weighted_of_weights_of_nothing_takes_each_in_turn() -> None:
    assert choices(LoadBalancing.WEIGHTED, standings(0, 0, weights=(0, 0)), 2) == ["e0", "e1"]


def test_locality_takes_the_idlest_near_one_and_others_when_none_is_there() -> None:
    among = standings(0, 5, 4, near=(1, 2))
    assert choices(LoadBalancing.LOCALITY, among, 1) == ["e2"]
    assert choices(LoadBalancing.LOCALITY, among[:1], 1) == ["e0"]


@pytest.mark.parametrize(
    ("seconds", "in_flight", "chosen"),
    [
        pytest.param((0.2, 0.9), (0, 0), "e0", id="the quicker one"),
        pytest.param((0.2, 0.9), (3, 0), "e0", id="four times two tenths are less than nine"),
        pytest.param((0.2, 0.9), (5, 0), "e1", id="the slower one while the quicker has much to do"),
        pytest.param((0.2, None), (1, 0), "e1", id="one of which nothing is known is taken to be as quick as the quickest"),
        pytest.param((None, None), (1, 0), "e1", id="the idlest while nothing is known of any"),
    ],
)  # fmt: skip
def test_ewma_takes_who_should_answer_soonest(
    seconds: tuple[float | None, ...], in_flight: tuple[int, ...], chosen: str
) -> None:
    among = [replace(it, seconds=time) for it, time in zip(standings(*in_flight), seconds, strict=True)]
    assert choices(LoadBalancing.EWMA, among, 1) == [chosen]


def test_ewma_gives_each_endpoint_a_share_by_its_speed_and_finds_out_when_one_has_become_quick() -> None:
    two = fleet({}, {}, loadBalancing="EWMA", most=8)
    slow, quick, now = 0.4, 0.1, 0.0
    shares = []
    for first_takes in (slow, quick / 4):
        counts: Counter[str] = Counter()
        coming: list[tuple[float, int, EndpointState, Any]] = []
        while sum(counts.values()) < 3000:
            while (chosen := two.choose(0, None, now)) is not None:
                takes = first_takes if chosen.spec.name == "e0" else quick
                counts[chosen.spec.name] += 1
                heapq.heappush(coming, (now + takes, sum(counts.values()), chosen, chosen.send(now)))
            now, _, endpoint, ticket = heapq.heappop(coming)
            endpoint.settle(ticket, ANSWERED, now)
        for at, _, endpoint, ticket in coming:
            endpoint.settle(ticket, ANSWERED, at)
        shares.append(counts["e0"] / 3000)
    assert 0.01 < shares[0] < 0.2, "a quarter as quick, and with its share of a queue"
    assert 0.6 < shares[1] < 0.99


def test_response_time_forgets_what_was_long_ago() -> None:
    time = ResponseTime()
    assert time.average(0.0) is None
    time.answered(2.0, 0.0)
    assert (time.average(0.0), time.average(FORGOTTEN_SECONDS)) == (2.0, None)
    time.answered(1.0, 1000.0)
    assert time.average(1000.0) == 1.0
    time.failed(0.001, 1000.0)
    assert time.average(1000.0) == 1.0, "that it was quick to fail is no merit"
    time.failed(11.0, 1000.0)
    assert time.average(1000.0) == pytest.approx(2.0), "but that it was slow about it counts: a tenth"


@given(
    policy=st.sampled_from(list(LoadBalancing)),
    rounds=st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=1, max_size=20),
)
def test_choose_is_one_of_those_that_are_there(policy: LoadBalancing, rounds: list[set[int]]) -> None:
    chooser: Balancer = balancer(policy)
    everybody = standings(0, 1, 2, 1, 0, weights=(1, 0, 2, 5, 1), near=(3,))
    for there in rounds:
        among = [everybody[order] for order in sorted(there)]
        assert chooser.choose(among) in among


def test_limit_doubles_until_it_is_cut_and_then_grows_by_one_a_round() -> None:
    limit = AdaptiveLimit(64)
    assert limit.value == FIRST_LIMIT
    for _ in range(FIRST_LIMIT):
        limit.succeeded(in_flight=FIRST_LIMIT)
    assert limit.value == 2 * FIRST_LIMIT
    limit.congested(sent_at=1.0, now=2.0)
    assert limit.value == FIRST_LIMIT
    for _ in range(FIRST_LIMIT + 1):
        limit.succeeded(in_flight=FIRST_LIMIT)
    assert limit.value == FIRST_LIMIT + 1


def test_limit_is_cut_once_for_requests_that_were_under_way_together() -> None:
    limit = AdaptiveLimit(64)
    for _ in range(8):
        limit.congested(sent_at=1.0, now=2.0)
    assert limit.value == FIRST_LIMIT // 2


def test_limit_that_is_not_made_use_of_does_not_grow() -> None:
    limit = AdaptiveLimit(64)
    for _ in range(100):
        limit.succeeded(in_flight=1)
    assert limit.value == FIRST_LIMIT


@given(st.integers(1, 40), st.lists(st.booleans(), max_size=200))
def test_limit_stays_between_one_and_the_most(most: int, history: list[bool]) -> None:
    limit = AdaptiveLimit(most)
    for now, good in enumerate(history):
        if good:
            limit.succeeded(limit.value)
        else:
            limit.congested(now, now + 0.5)
        assert 1 <= limit.value <= most


def test_breaker_opens_when_most_fail_and_closes_when_its_probe_is_answered() -> None:
    breaker = Breaker()
    for _ in range(FEWEST):
        assert breaker.lets_through(0.0)
        assert breaker.send(0.0) is False
        breaker.failed(0.0, probe=False)
    assert breaker.state(0.0) == State.OPEN
    assert not breaker.lets_through(REST_SECONDS - 0.1)
    assert breaker.state(REST_SECONDS) == State.HALF_OPEN
    assert breaker.send(REST_SECONDS) is True
    assert not breaker.lets_through(REST_SECONDS), "one probe at a time"
    breaker.succeeded(probe=True)
    assert breaker.state(REST_SECONDS) == State.CLOSED


def test_breaker_rests_longer_each_time_its_probe_fails() -> None:
    breaker, now = Breaker(), 0.0
    for _ in range(FEWEST):
        breaker.failed(now, probe=breaker.send(now))
    rests = []
    for _ in range(9):
        assert breaker.retry_at is not None
        rests.append(breaker.retry_at - now)
        now = breaker.retry_at
        breaker.failed(now, probe=breaker.send(now))
    assert rests == [1, 2, 4, 8, 16, 32, LONGEST_REST_SECONDS, LONGEST_REST_SECONDS, LONGEST_REST_SECONDS]


def test_breaker_hears_nothing_from_stragglers_and_lets_a_probe_be_released() -> None:
    breaker = Breaker()
    for _ in range(FEWEST):
        breaker.failed(0.0, probe=False)
    breaker.succeeded(probe=False)
    breaker.failed(0.5, probe=False)
    assert breaker.retry_at == REST_SECONDS
    assert breaker.send(REST_SECONDS)
    breaker.released(probe=False)
    assert not breaker.lets_through(REST_SECONDS)
    breaker.released(probe=True)
    assert breaker.lets_through(REST_SECONDS)


def test_breaker_of_an_endpoint_where_less_than_half_fails_stays_closed() -> None:
    breaker = Breaker()
    for number in range(300):
        breaker.failed(0.0, probe=False) if number % 3 == 2 else breaker.succeeded(probe=False)
    assert breaker.state(0.0) == State.CLOSED


@given(st.lists(st.sampled_from(["answer", "fail", "release", "wait"]), max_size=120))
def test_breaker_never_lets_two_probes_through_and_always_lets_one_in_the_end(history: list[str]) -> None:
    breaker, now, probes = Breaker(), 0.0, 0
    for event in history:
        if event == "wait":
            now += 10.0
        elif breaker.lets_through(now):
            probe = breaker.send(now)
            probes += probe
            assert probes <= 1
            if event == "answer":
                breaker.succeeded(probe=probe)
            elif event == "fail":
                breaker.failed(now, probe=probe)
            else:
                breaker.released(probe=probe)
            probes = 0
    assert breaker.lets_through(now + LONGEST_REST_SECONDS)


def test_pace_is_any_until_something_is_refused() -> None:
    pace = Pace(0.0)
    for _ in range(100):
        assert pace.ready_at() <= 0.0
        pace.send(0.0)


def test_pace_is_what_was_let_through_between_two_refusals() -> None:
    pace = Pace(0.0)
    for _ in range(11):  # the last of which is refused
        pace.send(0.5)
    pace.refused(sent_at=0.5, now=1.0)
    moments = []
    for _ in range(12):
        moments.append(pace.ready_at())
        pace.send(max(1.0, pace.ready_at()))
    assert all(later - earlier == pytest.approx(0.1, rel=0.03) for earlier, later in pairwise(moments[2:]))
    pace.refused(sent_at=0.9, now=1.1)  # was sent before the last refusal
    assert pace.ready_at() == pytest.approx(moments[-1] + 0.1, rel=0.03)


def fleet(*endpoints: dict[str, Any], most: int = 64, zone: str | None = None, **settings: Any) -> Fleet:
    """Endpoints e0, e1 and so on with these fields."""
    listed = [{"name": f"e{n}", "url": f"http://e{n}.example", **fields} for n, fields in enumerate(endpoints)]
    spec = OpenAIEngine.parse(engine_settings(*listed, **settings)["openai"])
    return Fleet(spec, most, now=0.0, zone=zone)


def name_of(endpoint: EndpointState | None) -> str | None:
    return None if endpoint is None else endpoint.spec.name


def break_down(endpoint: EndpointState, now: float) -> None:
    """Let it fail until its breaker opens."""
    while not endpoint.is_open(now):
        endpoint.settle(endpoint.send(now), FAILED, now)


def test_choose_sends_no_more_to_an_endpoint_than_it_may_have() -> None:
    one = fleet({"maxConcurrentRequests": 2})
    for _ in range(2):
        chosen = one.choose(0, None, 0.0)
        assert chosen is not None
        chosen.send(0.0)
    assert one.choose(0, None, 0.0) is None
    assert one.next_moment(0.0) is None, "only an answer makes room"


def test_choose_leaves_a_busy_endpoint_alone_as_long_as_it_says() -> None:
    two = fleet({}, {})
    first = two.endpoints[0]
    first.settle(first.send(0.0), busy(3.0), 0.0)
    assert {name_of(two.choose(0, None, 2.9)) for _ in range(3)} == {"e1"}
    assert first.available_at() == 3.0
    assert first.available(3.0 + 1 / 8)


def test_choose_takes_no_endpoint_of_a_higher_tier_because_one_is_busy() -> None:
    two = fleet({}, {"tier": 1})
    first = two.endpoints[0]
    first.settle(first.send(0.0), busy(3.0), 0.0)
    assert two.choose(0, None, 1.0) is None
    assert two.next_moment(1.0) == 3.0


def test_choose_falls_back_while_a_breaker_is_open_and_comes_back_with_one_probe() -> None:
    two = fleet({}, {"tier": 1})
    first = two.endpoints[0]
    break_down(first, 0.0)
    assert name_of(two.choose(0, None, 0.5)) == "e1"
    probe = two.choose(0, None, REST_SECONDS)
    assert name_of(probe) == "e0"
    assert probe is not None
    ticket = probe.send(REST_SECONDS)
    assert ticket.probe
    assert name_of(two.choose(0, None, REST_SECONDS)) == "e1", "nobody waits for the probe"
    probe.settle(ticket, ANSWERED, REST_SECONDS)
    assert name_of(two.choose(0, None, REST_SECONDS)) == "e0"


def test_choose_for_a_record_that_has_had_its_tries_is_above() -> None:
    two = fleet({}, {"tier": 3})
    assert (name_of(two.choose(1, None, 0.0)), two.next_tier(0), two.next_tier(3)) == ("e1", 3, None)


def test_choose_avoids_where_a_record_has_failed_if_there_is_another() -> None:
    two = fleet({}, {})
    assert name_of(two.choose(0, "e0", 0.0)) == "e1"
    break_down(two.endpoints[1], 0.0)
    assert name_of(two.choose(0, "e0", 0.0)) == "e0"


def test_choose_by_locality_takes_the_zone_of_the_worker() -> None:
    two = fleet({"zone": "a"}, {"zone": "b"}, zone="b", loadBalancing="Locality")
    assert name_of(two.choose(0, None, 0.0)) == "e1"


def test_weigh_changes_shares_while_it_runs() -> None:
    two = fleet({"weight": 1}, {"weight": 1}, loadBalancing="Weighted")
    two.weigh({"e0": 0, "nobody": 7})
    assert {name_of(two.choose(0, None, 0.0)) for _ in range(5)} == {"e1"}
    two.weigh({})
    assert {name_of(two.choose(0, None, 0.0)) for _ in range(5)} == {"e0", "e1"}


def test_capacity_is_what_the_endpoints_bear_and_never_nothing() -> None:
    two = fleet({"maxConcurrentRequests": 3}, {}, most=10)
    assert two.capacity(0.0) == 10
    for endpoint in two.endpoints:
        break_down(endpoint, 0.0)
    assert two.capacity(0.0) == 1


def test_settle_what_somebody_must_mend_counts_as_an_outage_once_it_has_worked() -> None:
    (endpoint,) = fleet({}).endpoints
    assert endpoint.settle(endpoint.send(0.0), ANSWERED, 0.0).kind == Kind.ANSWERED
    assert endpoint.settle(endpoint.send(0.0), UNUSABLE, 0.0).kind == Kind.FAILED
    assert endpoint.settle(endpoint.send(0.0), KEY_REFUSED, 0.0).kind == Kind.UNUSABLE
    assert endpoint.unusable == KEY_REFUSED
    assert endpoint.stats.outcomes == {"answered": 1, "failed": 1, "unusable": 1}


def test_settle_pauses_longer_each_time_for_who_does_not_say_how_long() -> None:
    (endpoint,) = fleet({}).endpoints
    now, pauses = 0.0, []
    for _ in range(8):
        sent = [endpoint.send(now), endpoint.send(now)]
        for ticket in sent:
            endpoint.settle(ticket, Verdict(Kind.BUSY), now)
        until = endpoint.available_at()
        assert until is not None
        pauses.append(until - now)
        now = until
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize(("settings", "pause"), [({}, 300.0), ({"maxRetryAfterSeconds": 7}, 7.0)])
def test_settle_does_not_pause_for_ever_whatever_a_server_says(settings: dict[str, Any], pause: float) -> None:
    (endpoint,) = fleet({}, **settings).endpoints
    endpoint.settle(endpoint.send(0.0), busy(86_400.0), 0.0)
    assert endpoint.available_at() == pause


def test_hopeless_when_no_endpoint_can_be_used_or_none_has_answered_for_long() -> None:
    two = fleet({}, {"tier": 1})
    first, second = two.endpoints
    first.settle(first.send(0.0), KEY_REFUSED, 0.0)
    assert two.hopeless(0.0) is None
    second.settle(second.send(0.0), UNUSABLE, 0.0)
    assert two.hopeless(0.0) == ("KeyRefused", "the key is refused; no such model")
    (silent := fleet({})).alive(100.0)
    assert silent.hopeless(100.0 + PATIENCE_SECONDS) is None
    assert silent.hopeless(101.0 + PATIENCE_SECONDS) == (
        "EndpointsUnreachable",
        "no endpoint has answered for 30 minutes",
    )
    (patient := fleet({}, parkAfterSeconds=3600)).alive(100.0)
    assert patient.hopeless(101.0 + PATIENCE_SECONDS) is None, "whoever wants to wait so long is put away first"


def test_beware_sends_one_probe_before_anything_else() -> None:
    """A pod that comes after others that did not get through begins with what they have found out."""
    two = fleet({}, {})
    two.beware({"e0", "who is not there any more"}, 0.0)
    assert two.shut == ["e0"]
    assert {name_of(two.choose(0, None, 0.5)) for _ in range(4)} == {"e1"}
    first, now = two.endpoints[0], REST_SECONDS
    assert first.available(now)
    probe = first.send(now)
    assert (probe.probe, first.available(now), two.shut) == (True, False, ["e0"])
    first.settle(probe, ANSWERED, now)
    assert (first.available(now), two.shut) == (True, [])


def test_stats_show_the_state_of_the_breaker_as_time_passes() -> None:
    one = fleet({})
    (endpoint,), states = one.endpoints, []
    break_down(endpoint, 0.0)
    for now in (0.0, REST_SECONDS):
        one.show(now)
        states.append((endpoint.stats.state.value, endpoint.stats.open))
    endpoint.settle(endpoint.send(REST_SECONDS), ANSWERED, REST_SECONDS)
    states.append((endpoint.stats.state.value, endpoint.stats.open))
    assert states == [("Open", True), ("HalfOpen", True), ("Closed", False)]
    endpoint.settle(endpoint.send(2.0), KEY_REFUSED, 2.0)
    report = endpoint.stats.report("e0")
    assert (report.state, report.reason, report.answered, one.shut) == ("Open", "KeyRefused", 1, [])


def test_degraded_answers_are_not_asked_for_where_they_are_not_wanted() -> None:
    """A higher tier is not asked, and neither breakers nor failed tries lead there: records wait for the lowest."""
    two = fleet({"tier": 1}, {"tier": 2}, allowDegraded=False)
    assert [it.spec.name for it in two.endpoints] == ["e0"]
    assert (two.lowest_tier, two.next_tier(1)) == (1, None)
    break_down(two.endpoints[0], 0.0)
    assert two.choose(0, None, 0.0) is None


def test_an_endpoint_of_ten_requests_a_second_is_asked_about_ten_times_a_second() -> None:
    """A server with a token bucket that says `Retry-After: 1`, simulated: what it lets through is hardly less than it would."""
    for latency in (0.01, 0.1, 0.2):
        (endpoint,) = fleet({}).endpoints
        passed, refused = simulate(endpoint, rate=10.0, latency=latency, seconds=120.0)
        assert passed >= 0.9 * 10 * 120
        assert refused <= 0.1 * passed


def simulate(endpoint: EndpointState, rate: float, latency: float, seconds: float) -> tuple[int, int]:
    """Ask as much as the endpoint takes; requests that were let through, and that were refused."""
    now, level, filled_at = 0.0, rate, 0.0
    under_way: list[tuple[float, int, Any, Verdict]] = []
    counts: Counter[Kind] = Counter()
    while now < seconds:
        while endpoint.available(now):
            level, filled_at = min(rate, level + rate * (now - filled_at)), now
            lets = level >= 1
            level -= lets
            ticket, number = endpoint.send(now), endpoint.stats.sent
            heapq.heappush(under_way, (now + latency, number, ticket, ANSWERED if lets else busy(1.0)))
        alone = endpoint.available_at()
        moments = [*([under_way[0][0]] if under_way else []), *([alone] if alone is not None else [])]
        now = max(min(moments), now + 1e-6)
        while under_way and under_way[0][0] <= now:
            _, _, ticket, verdict = heapq.heappop(under_way)
            counts[endpoint.settle(ticket, verdict, now).kind] += 1
    return counts[Kind.ANSWERED], counts[Kind.BUSY]
