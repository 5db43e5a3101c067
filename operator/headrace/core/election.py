"""Who acts: the decision of one candidate for a Lease. Pure; the shell reads and writes the Lease and keeps the time.

A candidate never compares its clock with another machine's. It notes when it saw the Lease change last, by its own clock, and takes over
only when nothing has changed for the whole lease duration since.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long a Lease holds; all replicas must have the same. Raises `ValueError` where there would be two leaders, or none.

    By default a dead leader is replaced after 17 seconds at the latest. Where an API server is slow at times, longer terms may be better.
    """

    lease_seconds: int = 15
    """How long a silent leader stays leader."""
    give_up_seconds: float = 10
    """A leader that could not renew for so long stops acting: well before anybody else may start."""
    renew_seconds: float = 2
    """How often a leader says that it is there, and a candidate looks."""

    def __post_init__(self) -> None:
        """Look at them."""
        if not 0 < self.renew_seconds < self.give_up_seconds < self.lease_seconds:
            raise ValueError(
                f"the Lease holds {self.lease_seconds} s, its leader gives up after {self.give_up_seconds} s and renews it every "
                f"{self.renew_seconds} s: each must be longer than the next, and none may be 0"
            )


class Action(StrEnum):
    """What a candidate should do with the Lease."""

    WAIT = "wait"
    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"


@dataclass(frozen=True, slots=True)
class Lease:
    """What the Lease says. `version` changes with every write to it."""

    holder: str
    version: str


@dataclass(frozen=True, slots=True)
class Candidacy:
    """What one candidate knows; times are seconds of its own monotonic clock."""

    identity: str
    terms: LeaseTerms = LeaseTerms()
    seen_version: str | None = None
    seen_at: float = 0.0
    renewed_at: float | None = None
    """When it last wrote the Lease as its leader; None for a follower."""

    def look(self, lease: Lease | None, now: float) -> tuple[Candidacy, Action]:
        """What to do after a look at the Lease (None: there is none)."""
        if lease is None:
            return replace(self, seen_version=None, seen_at=now, renewed_at=None), Action.CREATE
        if lease.holder == self.identity:
            return self, Action.RENEW
        mine = replace(self, renewed_at=None)
        if not lease.holder:
            return mine, Action.TAKE
        if lease.version != self.seen_version:
            return replace(mine, seen_version=lease.version, seen_at=now), Action.WAIT
        return mine, Action.TAKE if now >= self.seen_at + self.terms.lease_seconds else Action.WAIT

    def wrote(self, version: str, now: float) -> Candidacy:
        """It has written the Lease: it leads. `now` is when the request was sent, not when the answer came."""
        return replace(self, seen_version=version, seen_at=now, renewed_at=now)

    def may_act_for(self, now: float) -> float:
        """For how many seconds it may still act, should it never renew again; 0 for a follower."""
        return 0.0 if self.renewed_at is None else max(0.0, self.renewed_at + self.terms.give_up_seconds - now)

    def look_again_after(self, now: float) -> float:
        """In how many seconds to look again: soon, or at the very moment when the Lease runs out."""
        runs_out, soon = self.seen_at + self.terms.lease_seconds - now, self.terms.renew_seconds
        return min(soon, runs_out) if self.seen_version is not None and runs_out > 0 else soon
