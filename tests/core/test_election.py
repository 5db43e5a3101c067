"""Who acts: what one candidate does about the Lease, look by look."""

from __future__ import annotations

import pytest

from headrace.core.election import Action, Candidacy, Lease, LeaseTerms

ME = Candidacy("me")
TERMS = LeaseTerms()
THEIRS = Lease("other", "7")


def test_look_without_a_lease_makes_one() -> None:
    assert ME.look(None, 0.0)[1] == Action.CREATE


def test_look_at_a_lease_that_was_given_back_takes_it() -> None:
    assert ME.look(Lease("", "7"), 0.0)[1] == Action.TAKE


def test_look_at_my_own_lease_renews_it() -> None:
    """Also after a restart under the same name: whoever had it is dead."""
    assert ME.look(Lease("me", "7"), 0.0)[1] == Action.RENEW


def test_look_at_a_lease_of_another_waits_its_whole_length_by_my_own_clock() -> None:
    seen, action = ME.look(THEIRS, 100.0)
    assert action == Action.WAIT
    assert seen.look(THEIRS, 100.0 + TERMS.lease_seconds - 0.1)[1] == Action.WAIT
    assert seen.look(THEIRS, 100.0 + TERMS.lease_seconds)[1] == Action.TAKE


def test_look_at_a_lease_that_was_renewed_waits_anew() -> None:
    seen, _ = ME.look(THEIRS, 100.0)
    seen, action = seen.look(Lease("other", "8"), 110.0)
    assert action == Action.WAIT
    assert seen.look(Lease("other", "8"), 100.0 + TERMS.lease_seconds)[1] == Action.WAIT
    assert seen.look(Lease("other", "8"), 110.0 + TERMS.lease_seconds)[1] == Action.TAKE


def test_may_act_for_shrinks_until_the_lease_is_renewed() -> None:
    leader = ME.wrote("7", 100.0)
    assert leader.may_act_for(100.0) == TERMS.give_up_seconds
    assert leader.may_act_for(100.0 + TERMS.give_up_seconds - 1) == pytest.approx(1.0)
    assert leader.may_act_for(100.0 + TERMS.give_up_seconds) == 0.0
    assert leader.wrote("8", 105.0).may_act_for(100.0 + TERMS.give_up_seconds) == pytest.approx(5.0)


@pytest.mark.parametrize("lease", [THEIRS, Lease("", "8"), None], ids=["another's", "given back", "gone"])
def test_may_act_for_is_nothing_once_the_lease_is_not_mine(lease: Lease | None) -> None:
    leader = ME.wrote("7", 100.0)
    assert leader.look(lease, 101.0)[0].may_act_for(101.0) == 0.0


def test_a_leader_gives_up_before_another_may_take_over() -> None:
    """Both saw the same write, the follower at the earliest when it was made; their clocks need not agree."""
    leader = ME.wrote("7", 100.0)
    follower, _ = Candidacy("other").look(Lease("me", "7"), 5000.0)
    for second in range(40):
        takes = follower.look(Lease("me", "7"), 5000.0 + second)[1] == Action.TAKE
        assert not (takes and leader.may_act_for(100.0 + second) > 0)


def test_look_again_after_is_soon_and_at_the_latest_when_the_lease_runs_out() -> None:
    seen, _ = ME.look(THEIRS, 100.0)
    assert seen.look_again_after(100.0) == TERMS.renew_seconds
    assert seen.look_again_after(100.0 + TERMS.lease_seconds - 0.5) == pytest.approx(0.5)
    assert seen.look_again_after(100.0 + TERMS.lease_seconds) == TERMS.renew_seconds
    assert ME.look_again_after(0.0) == TERMS.renew_seconds


def test_a_dead_leader_is_replaced_within_twenty_seconds() -> None:
    """It dies right after it has renewed, and the follower has just looked."""
    follower, now, died = ME, 0.0, 0.1
    while True:
        lease = Lease("other", "before") if now < died else Lease("other", "after")
        follower, action = follower.look(lease, now)
        if action == Action.TAKE:
            break
        now += follower.look_again_after(now)
    assert now - died < 20.0


def test_look_waits_for_as_long_as_the_terms_say() -> None:
    patient, _ = Candidacy("me", LeaseTerms(60, 45, 2)).look(THEIRS, 100.0)
    assert patient.look(THEIRS, 100.0 + 59)[1] == Action.WAIT
    assert patient.look(THEIRS, 100.0 + 60)[1] == Action.TAKE
    assert patient.wrote("8", 200.0).may_act_for(200.0) == 45


@pytest.mark.parametrize("seconds", [(10, 10, 2), (15, 2, 2), (15, 16, 2), (15, 10, 0)])
def test_terms_by_which_there_could_be_two_leaders_are_refused(seconds: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="each must be longer than the next"):
        LeaseTerms(*seconds)
