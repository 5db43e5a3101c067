"""Prefill in pieces: how much of which prompt one forward pass computes.

A long prompt is cut where the tokens of a step end, and goes on in the next one. So it takes as many steps as it needs, in each of which
all other sequences get their next token: nobody waits for it. At most one prompt is in the midst of that, and it goes first.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace_worker.engines.transformers.prefixes import Shared
from headrace_worker.engines.transformers.sequences import Sequence

LEAST_TOKENS = 16
"""So much of a prompt is computed in a step at least, however many sequences run: else a prompt might take for ever."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """What one step computes of a sequence that has no token of its answer yet, or was put back."""

    sequence: Sequence
    known: Shared
    """What is cached before: its own, or what it takes from another row."""
    end: int
    """The first token that is left for a later step; the length of the sequence when none is."""

    @property
    def tokens(self) -> int:
        """How many are computed."""
        return self.end - self.known.length

    @property
    def complete(self) -> bool:
        """Whether the sequence has its next token after this step."""
        return self.end == len(self.sequence.tokens)


def prefill_room(max_tokens: int, decoding: int) -> int:
    """Tokens of prompts in a step in which so many sequences get their next token."""
    return max(min(max_tokens, LEAST_TOKENS), max_tokens - decoding)


def piece(sequence: Sequence, known: Shared, room: int) -> Prefill:
    """As much of a sequence as there is room for, which is something."""
    return Prefill(sequence, known, min(len(sequence.tokens), known.length + room))
