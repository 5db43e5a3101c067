"""A line in which nobody waits behind another's flood: keys belong to flows, and flows take turns.

Next goes the flow that has the fewest keys in hand; among equals, the one that has waited longest since it was served. Within a flow the
first comes first. So a flow with one key waits at most for one key of each other flow, however many they have in line, and a flow whose
work is slow does not take up all workers. That is max-min fairness over workers, as the API server's own Priority and Fairness has it over
its seats. All operations take constant time.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class FairLine(Generic[K]):
    """Keys that wait, in the order in which they will be taken as things are, and keys in hand."""

    def __init__(self, flow_of: Callable[[K], Hashable]) -> None:
        self._flow_of = flow_of
        """Asked when a key comes into line."""
        self._waiting: dict[Hashable, deque[K]] = {}
        self._ready: defaultdict[int, dict[Hashable, None]] = defaultdict(dict)
        """Flows that have keys in line, by the number of keys that they have in hand; those that have waited longest come first."""
        self._in_hand: dict[K, Hashable] = {}
        self._hands: Counter[Hashable] = Counter()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[K]:
        """All that wait, flow by flow."""
        return (key for keys in self._waiting.values() for key in keys)

    def append(self, key: K) -> None:
        """One more waits. It must not be in line or in hand."""
        flow = self._flow_of(key)
        if flow not in self._waiting:
            self._waiting[flow] = deque()
            self._ready[self._hands[flow]][flow] = None
        self._waiting[flow].append(key)
        self._length += 1

    def popleft(self) -> K:
        """Take the next in hand; `release` must follow. Raises `IndexError` when nobody waits."""
        if not self._length:
            raise IndexError("nobody waits")
        hands = min(number for number, flows in self._ready.items() if flows)
        flow = next(iter(self._ready[hands]))
        key = self._waiting[flow].popleft()
        self._length -= 1
        self._in_hand[key] = flow
        self._hold(flow, 1)
        return key

    def release(self, key: K) -> None:
        """The key is in hand no longer."""
        self._hold(self._in_hand.pop(key), -1)

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
