"""Prompts that begin alike: keys and values of what they share are computed once, and copied for all others.

A new sequence takes the beginning of one that is running, so nothing is kept for later and nothing has to be thrown away: where all
prompts begin with the same instructions, some sequence with that beginning is always running.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

LEAST_TOKENS = 16
"""A shorter beginning is computed as fast as it is copied."""


class Shared(NamedTuple):
    """What a new sequence takes from a running one."""

    row: int
    """The running sequence's row of the cache."""
    length: int
    """So many tokens; 0: nothing."""


NOTHING = Shared(0, 0)


def longest_shared(prompt: Sequence[int], running: Iterable[Sequence[int]]) -> Shared:
    """The running sequence that begins most like the prompt. All but its last token is cached; of the prompt one is left to compute."""
    best = NOTHING
    if len(prompt) <= LEAST_TOKENS:
        return best
    head = prompt[:LEAST_TOKENS]
    for row, tokens in enumerate(running):
        if tokens[:LEAST_TOKENS] == head:
            length = common_length(prompt, tokens, min(len(prompt), len(tokens)) - 1)
            if length > best.length:
                best = Shared(row, length)
    return best


def common_length(first: Sequence[int], second: Sequence[int], most: int) -> int:
    """How many tokens two sequences have in common at their beginning, counted up to `most`; 0 when they are too few."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low if low >= LEAST_TOKENS else 0
