"""How much one endpoint is asked at once, and how fast; and how quick it is: found out by trying. Pure; the caller says what time it is.

`AdaptiveLimit` bounds the requests in flight by additive increase and multiplicative decrease, as TCP does. `Pace` bounds requests a second
for an endpoint that has said that there are too many: what it has let through between two such words is what it allows.

Either is this pod's part of what the endpoint bears from all pods of the batch: `whole` is that, and `share` takes the part anew when
they have agreed on it, see `sharing`. Together they grow and shrink as one pod alone would.
"""

from __future__ import annotations

from math import exp
from typing import NamedTuple

FIRST_LIMIT = 8
"""Requests in flight at first; doubled with each round of answers until the endpoint is congested for the first time."""
GROWTH_A_SECOND = 0.02
"""By so much of itself a pace grows each second, for a limit may have been raised."""
SLOWEST = 1 / 60
"""Requests a second: below this nothing could be found out any more."""
CUT, MOST_CUT = 0.9, 0.25
"""To how much of itself one refusal brings a pace at most; the latter where hardly half of it has passed.

Less may have passed because there was little to do, or because others use the limit up: going ever slower would mend nothing."""
TELLING_REQUESTS = 5
"""That hardly half of a pace has passed says something only where so many requests were due."""
BURST_SECONDS = 0.1
"""What was not sent in time may be made up for, so far back."""
AVERAGED_SECONDS = 10.0
"""Response times that were seen so long ago weigh a third of those that are seen now;"""
MOST_KEPT = 0.9
"""but each new one a tenth, however soon it comes after the last;"""
FORGOTTEN_SECONDS = 60.0
"""and when none was seen for so long, nothing is known any more: who was slow is tried again."""


class Agreed(NamedTuple):
    """What the pods have agreed that an endpoint bears from all of them."""

    mean: float | None
    """Of what each of them has told; None where nobody knows."""
    told: float | None
    """What this pod has told."""

    def whole(self, now: float) -> float | None:
        """The same at this moment: what this pod has found out since it told, it keeps. `now`: what it would tell now."""
        return self.mean if self.mean is None or self.told is None else self.mean * now / self.told


class AdaptiveLimit:
    """Requests in flight to one endpoint."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(min(FIRST_LIMIT, most))
        self._doubling = True
        self._cut_at = float("-inf")
        self._sharers, self._is_used = 1, False

    @property
    def value(self) -> int:
        """How many there may be; at least 1."""
        return int(self._limit)

    def succeeded(self, in_flight: int) -> None:
        """A request was answered while so many were in flight. A limit that is not made use of does not grow."""
        if 2 * in_flight >= self._limit:
            growth = 1.0 if self._doubling else 1.0 / (self._limit * self._sharers)
            self._limit, self._is_used = min(float(self._most), self._limit + growth), True

    def congested(self, sent_at: float, now: float) -> None:
        """The endpoint had too much to do. What was sent before the limit was cut for it says nothing new."""
        if sent_at >= self._cut_at:
            self._cut_at, self._doubling, self._is_used = now, False, True
            self._limit = max(1.0, self._limit / 2)

    def whole(self) -> float | None:
        """What all pods together may have in flight, as this one sees it; None when it has not come near that since it was last asked."""
        is_known, self._is_used = self._is_used and not self._doubling, False
        return self._limit * self._sharers if is_known else None

    def share(self, agreed: Agreed, sharers: int) -> None:
        """Take one part of so many; of an endpoint that has never had too much to do, as much as before."""
        whole = agreed.whole(self._limit * self._sharers)
        self._sharers = sharers
        if whole is not None:
            self._limit, self._doubling = min(float(self._most), max(1.0, whole / sharers)), False


class Pace:
    """Requests a second to one endpoint; any number until it has refused some."""

    def __init__(self, now: float) -> None:
        self._rate: float | None = None
        self._next = now
        self._grown_at = now
        self._since, self._sent = now, 0
        self._sharers = 1

    def ready_at(self) -> float:
        """From when on the next request may be sent."""
        return self._next

    def send(self, now: float) -> None:
        """A request is sent."""
        self._sent += 1
        if self._rate is not None:
            self._rate *= 1 + GROWTH_A_SECOND * (now - self._grown_at)
            self._grown_at = now
            self._next = max(self._next, now - BURST_SECONDS) + 1 / self._rate

    def refused(self, sent_at: float, now: float) -> None:
        """There are too many. What was sent before the last such word says nothing new."""
        if sent_at < self._since:
            return
        measured = max(SLOWEST, max(1, self._sent - 1) / max(now - self._since, 1e-3))
        if self._rate is None:
            self._rate = measured
        else:
            is_far_off = measured < self._rate / 2 and self._rate * (now - self._since) > TELLING_REQUESTS
            cut = MOST_CUT if is_far_off else CUT
            self._rate = min(self._rate, max(measured, self._rate * cut))
        self._since, self._sent, self._grown_at = now, 0, now

    def whole(self) -> float | None:
        """Requests a second of all pods together, as this one sees it; None where nothing was refused yet."""
        return None if self._rate is None else self._rate * self._sharers

    def share(self, agreed: Agreed, sharers: int, now: float) -> None:
        """Take one part of so many."""
        whole = agreed.whole(self.whole() or 0.0)
        self._sharers = sharers
        if whole is not None:
            self._grown_at = now if self._rate is None else self._grown_at
            self._rate = max(SLOWEST, whole / sharers)


class ResponseTime:
    """The moving average of an endpoint's response times, in which each weighs the less the longer ago it was (EWMA)."""

    def __init__(self) -> None:
        self._average: float | None = None
        self._seen_at = float("-inf")

    def average(self, now: float) -> float | None:
        """In seconds; None where nothing is known, or not lately."""
        return self._average if now - self._seen_at < FORGOTTEN_SECONDS else None

    def answered(self, seconds: float, now: float) -> None:
        """A request was answered after so long."""
        known = self.average(now)
        kept = exp((self._seen_at - now) / AVERAGED_SECONDS) if known is not None else 0.0
        # Of many that end in one moment each counts, though no time has passed.
        self._average = seconds + min(kept, MOST_KEPT) * ((known or 0.0) - seconds)
        self._seen_at = now

    def failed(self, seconds: float, now: float) -> None:
        """One failed after so long: that it was quick about it is no merit."""
        self.answered(max(seconds, self.average(now) or 0.0), now)
