"""A line in which nobody waits behind another's flood: keys belong to flows, and flows take turns.

Next goes the flow that has the fewest keys in hand; among equals, the one that has waited longest since it was served. So a flow with one
key waits at most for one key of each other flow, however many they have in line, and a flow whose work is slow does not take up all
workers. That is max-min fairness over workers, as the API server's own Priority and Fairness has it over its seats. But who is in hand
works beside all others that are. So while more than one flow is served, none has more than its share in hand, also when there are workers
to spare. Within a flow the more urgent comes first, and then whoever came first. All operations take constant time.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator
from enum import IntEnum
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
LATELY = 64
"""A flow is served as long as it is among the last so many that were."""


class Urgency(IntEnum):
    """Why a key is in line; the smaller goes first."""

    NOW = 0
    """It holds something, or something was decided about it: until it is looked at, something may lie idle."""
    SOON = 1
    """It is new, or was changed."""
    WHENEVER = 2
    """Its status is to say anew where it stands in a line, for people."""


class _Flow(Generic[K]):
    """The keys of one flow that wait."""

    def __init__(self) -> None:
        self._lines: tuple[OrderedDict[K, None], ...] = tuple(OrderedDict() for _ in Urgency)

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def __iter__(self) -> Iterator[K]:
        return (key for line in self._lines for key in line)

    def append(self, key: K, urgency: Urgency) -> None:
        self._lines[urgency][key] = None

    def hurry(self, key: K, urgency: Urgency) -> None:
        for line in self._lines[urgency + 1 :]:
            if key in line:
                del line[key]
                self._lines[urgency][key] = None

    def popleft(self) -> K:
        return next(line for line in self._lines if line).popitem(last=False)[0]


class FairLine(Generic[K]):
    """Keys that wait, in the order in which they will be taken as things are, and keys in hand."""

    def __init__(self, flow_of: Callable[[K], Hashable], at_most: int = sys.maxsize) -> None:
        """`flow_of` is asked when a key comes into line; of one flow beside others, at most so many are in hand at once."""
        self._flow_of, self._at_most = flow_of, at_most
        self._waiting: dict[Hashable, _Flow[K]] = {}
        self._ready: defaultdict[int, OrderedDict[Hashable, None]] = defaultdict(OrderedDict)
        """Flows that have keys in line, by the number of keys that they have in hand; those that have waited longest come first."""
        self._flows: dict[K, Hashable] = {}
        """Of each key in line or in hand."""
        self._hands: Counter[Hashable] = Counter()
        self._served: deque[Hashable] = deque()
        self._lately: Counter[Hashable] = Counter()
        """How often each flow is among those that were served last."""
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[K]:
        """All that wait, flow by flow."""
        return (key for keys in self._waiting.values() for key in keys)

    @property
    def next_hands(self) -> int | None:
        """How many keys the flow has in hand that is next; None when no flow may be taken from."""
        fewest = min((hands for hands, flows in self._ready.items() if flows), default=None)
        if fewest is None or fewest < self._at_most:
            return fewest
        alone = len(self._lately) <= 1 and len(self._waiting) == 1
        return fewest if alone else None

    def append(self, key: K, urgency: Urgency = Urgency.SOON) -> None:
        """One more waits. It must not be in line or in hand."""
        flow = self._flows[key] = self._flow_of(key)
        if flow not in self._waiting:
            self._waiting[flow] = _Flow()
            self._ready[self._hands[flow]][flow] = None
        self._waiting[flow].append(key, urgency)
        self._length += 1

    def hurry(self, key: K, urgency: Urgency) -> None:
        """One that waits already turns out to be so urgent, if it was not before."""
        self._waiting[self._flows[key]].hurry(key, urgency)

    def popleft(self) -> K:
        """Take the next in hand; `release` must follow. Raises `IndexError` when nobody may be taken."""
        hands = self.next_hands
        if hands is None:
            raise IndexError("nobody waits who may be taken")
        flow = next(iter(self._ready[hands]))
        key = self._waiting[flow].popleft()
        self._length -= 1
        self._hold(flow, 1)
        self._serve(flow)
        return key

    def release(self, key: K) -> None:
        """The key is in hand no longer."""
        self._hold(self._flows.pop(key), -1)

    def _serve(self, flow: Hashable) -> None:
        self._served.append(flow)
        self._lately[flow] += 1
        if len(self._served) > LATELY:
            first = self._served.popleft()
            self._lately[first] -= 1
            if not self._lately[first]:
                del self._lately[first]

    def _hold(self, flow: Hashable, more: int) -> None:
        """The flow has so many keys more in hand: it goes to the end of those that have as many."""
        self._ready[self._hands[flow]].pop(flow, None)
        self._hands[flow] += more
        if self._waiting.get(flow):
            self._ready[self._hands[flow]][flow] = None
        else:
            self._waiting.pop(flow, None)
        if not self._hands[flow]:
            del self._hands[flow]
