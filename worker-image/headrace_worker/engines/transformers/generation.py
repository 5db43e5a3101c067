"""Iteration-level (continuous) batching: which sequences run in each forward pass.

Every step is one forward pass: one token of each running sequence, and prompts of sequences that have just been let in, as far as the
tokens of a step go; what is left of a prompt comes in the next steps (chunked prefill). A sequence that is finished leaves at once and its
place is taken in the next step. So short answers never wait for long ones, and no answer waits for a long prompt.

Sequences are let in while `max_sequences`, the tokens of a step and the KV cache allow. Memory is not set aside for the longest answer
that might come: when the cache is full, the sequence that came last is put back (preempted) and computed again later, prompt and
answer so far in one go. That costs time and changes no answer. Running out of memory puts all of them back and halves both limits.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Iterable
from time import monotonic

from headrace.api.records import ErrorCode, RecordError
from headrace_worker.engines.base import EngineStats, Outcome, Unfinished, Work
from headrace_worker.engines.transformers import logprobs
from headrace_worker.engines.transformers.answers import Answers
from headrace_worker.engines.transformers.decoder import PackedDecoder
from headrace_worker.engines.transformers.memory import is_out_of_memory, release_memory
from headrace_worker.engines.transformers.prefill import Prefill, piece, prefill_room
from headrace_worker.engines.transformers.prefixes import Shared, longest_shared
from headrace_worker.engines.transformers.sampling import as_tokens, next_tokens
from headrace_worker.engines.transformers.sequences import Sequence
from headrace_worker.engines.transformers.sizing import StepLimits

RECOVERY_STEPS = 128
"""After so many steps without running out of memory, limits that were halved are doubled; after twice as many each further time."""
_MIB = 1024 * 1024

log = logging.getLogger(__name__)


class Generation:
    """Runs sequences until they are finished."""

    def __init__(self, decoder: PackedDecoder, answers: Answers, limits: StepLimits, stats: EngineStats) -> None:
        self._decoder = decoder
        self._answers = answers
        self._most = self._limits = limits
        self._stats = stats
        self._good_steps, self._patience = 0, RECOVERY_STEPS // 2
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        """Row i of the cache belongs to the i-th; all but its last token is there."""
        self._begun: Prefill | None = None
        """A sequence whose prompt is cached up to there, in the row after those of the running ones."""

    @property
    def room(self) -> int:
        """How many more records may be submitted."""
        return self._most.max_sequences - self.running

    @property
    def running(self) -> int:
        """Records that are not finished."""
        return len(self._waiting) + len(self._running) + (self._begun is not None)

    def submit(self, batch: Iterable[Work]) -> None:
        """Take prepared records; they are let in in this order."""
        self._waiting.extend(map(Sequence.of, batch))

    def step(self) -> list[Outcome]:
        """One forward pass; the outcomes of the sequences that it finished."""
        outcomes = self._make_room()
        prefills = self._admit()
        if not self._running and not prefills:
            return outcomes
        tokens = self._forward(prefills)
        if tokens is None:
            return outcomes + self._back_off(prefills)
        self._stats.batches += 1
        self._stats.batched_records += len(tokens)
        self._stats.batched_tokens += len(self._running) + sum(one.tokens for one in prefills)
        self._recover()
        self._running += [one.sequence for one in prefills if one.complete]
        self._begun = next((one for one in prefills if not one.complete), None)
        return outcomes + self._advance(tokens)

    def unfinished(self) -> list[Unfinished]:
        """The answers of the sequences that run."""
        begun = (one for one in self._running if one.generated)
        return [Unfinished(one.work, self._answers.so_far(one), one.generated) for one in begun]

    def give_up(self, positions: Collection[int]) -> list[Work]:
        """Take records out, wherever they are; their rows of the cache are free."""
        given_up = [one.work for one in self._waiting if one.work.position in positions]
        self._waiting = deque(one for one in self._waiting if one.work.position not in positions)
        before = len(self._running)
        for row in reversed(range(before)):
            if self._running[row].work.position in positions:
                given_up.append(self._running[row].work)
                self._leave(row)
        if self._begun is not None and self._begun.sequence.work.position in positions:
            given_up.append(self._begun.sequence.work)
            self._begun = None
        self._follow(before)
        return given_up

    def _make_room(self) -> list[Outcome]:
        """Preempt the youngest sequences until the cache can hold the others; fail one that does not fit even alone."""
        if self._begun is not None and not self._fits([*self._running, self._begun.sequence]):
            self._waiting.appendleft(self._begun.sequence)
            self._begun = None
        while len(self._running) > 1 and not self._fits(self._running):
            self._waiting.appendleft(self._running.pop())
        if self._running and not self._fits(self._running):
            return [self._too_large(self._running.pop())]
        if not self._running and self._waiting and not self._fits([self._waiting[0]]):
            return [self._too_large(self._waiting.popleft())]
        return []

    def _admit(self) -> list[Prefill]:
        """The prompt that has begun, then those that wait, in their order, while they fit; the last of them as far as there is room."""
        room = prefill_room(self._limits.max_tokens, len(self._running))
        admitted: list[Prefill] = []
        if self._begun is not None:
            known = Shared(len(self._running), self._begun.end)
            admitted.append(piece(self._begun.sequence, known, room))
            room -= admitted[0].tokens
        while self._waiting and room > 0 and len(self._running) + len(admitted) < self._limits.max_sequences:
            sequence = self._waiting[0]
            known = longest_shared(sequence.tokens, (one.tokens for one in self._running))
            mates = [one.sequence for one in admitted]
            # One that begins like another of this step waits for it: in the next step that beginning is there.
            if longest_shared(sequence.tokens, (one.tokens for one in mates)).length > known.length:
                break
            if not self._fits([*self._running, *mates, sequence]):
                break
            admitted.append(piece(self._waiting.popleft(), known, room))
            room -= admitted[-1].tokens
        return admitted

    def _fits(self, sequences: list[Sequence]) -> bool:
        return self._decoder.cache.fits(len(sequences), max(len(one.tokens) for one in sequences))

    def _forward(self, prefills: list[Prefill]) -> list[int | None] | None:
        """The next token of every sequence, if it has one, those of prompts last; None when there is no memory for it.

        Memory can be given back only after this has returned: until then the error holds on to all that the step had made.
        """
        began = monotonic()
        try:
            sequences = [*self._running, *(one.sequence for one in prefills)]
            # All of a prompt, also where only its beginning is computed now: so the cache grows once.
            self._decoder.cache.reserve(len(sequences), max(len(one.tokens) for one in sequences))
            prompts = [one.sequence.tokens[: one.end] for one in prefills]
            decoding = [one.tokens for one in self._running]
            known = [one.known for one in prefills]
            if not any(one.wants_logits for one in sequences):
                return as_tokens(self._decoder.likeliest(decoding, prompts, known))
            logits = self._decoder.forward(decoding, prompts, known)
            tokens = next_tokens(logits, sequences)
            ready = len(sequences) - any(not one.complete for one in prefills)
            logprobs.note(logits[:ready], tokens[:ready], sequences[:ready])
            return tokens
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        finally:
            self._stats.compute_seconds += monotonic() - began

    def _advance(self, tokens: list[int | None]) -> list[Outcome]:
        """Give each sequence its token, and take out those that are finished or have none; that of a prompt that goes on is for nothing."""
        outcomes: list[Outcome] = []
        now = monotonic()
        before = len(self._running)
        if self._begun is not None and tokens[-1] is None:
            outcomes.append(_without_numbers(self._begun.sequence))
            self._decoder.cache.wipe(before)
            self._begun = None
        for row in reversed(range(len(self._running))):
            sequence, token = self._running[row], tokens[row]
            if token is None:
                outcome: Outcome | None = _without_numbers(sequence)
                self._decoder.cache.wipe(row)
            else:
                sequence.tokens.append(token)
                sequence.first_token = sequence.first_token or now
                outcome = self._answers.outcome(sequence)
            if outcome is not None:
                outcomes.append(outcome)
                self._leave(row)
        self._follow(before)
        return outcomes

    def _leave(self, row: int) -> None:
        """Take a sequence out; the last one moves into its row, so that the rows in use stay together."""
        last = self._running.pop()
        if row < len(self._running):
            self._running[row] = last
            self._move(len(self._running), row, len(last.tokens) - 1)

    def _follow(self, before: int) -> None:
        """The prompt that has begun stays in the row after those of the running sequences, of which there were so many."""
        if self._begun is not None:
            self._move(before, len(self._running), self._begun.end)

    def _move(self, source: int, target: int, length: int) -> None:
        if source != target:
            began = monotonic()
            self._decoder.cache.move(source, target, length)
            self._stats.compute_seconds += monotonic() - began

    def _back_off(self, prefills: list[Prefill]) -> list[Outcome]:
        """Out of memory: put all sequences back and halve the limits; one that is alone has failed."""
        victims = [*self._running, *(one.sequence for one in prefills)]
        self._running, self._begun = [], None
        self._good_steps = 0
        self._decoder.cache.release()
        release_memory()
        if len(victims) == 1:
            self._limits = self._most
            return [self._too_large(victims[0])]
        self._limits = self._limits.halved(len(victims))
        self._patience *= 2
        log.warning(
            "out of memory with %d sequences: at most %d of them, and %d tokens in a step, for the next %d steps",
            len(victims), self._limits.max_sequences, self._limits.max_tokens, self._patience,
        )  # fmt: skip
        self._waiting.extendleft(reversed(victims))
        return []

    def _recover(self) -> None:
        self._good_steps += 1
        if self._good_steps >= self._patience and self._limits != self._most:
            self._limits = self._limits.doubled(self._most)
            self._good_steps = 0

    def _too_large(self, sequence: Sequence) -> Outcome:
        cache, length = self._decoder.cache, len(sequence.tokens)
        message = (
            f"a sequence of {length} tokens does not fit into memory: its keys and values take "
            f"{cache.bytes_for(1, length) // _MIB} MiB, and those of all sequences may take {cache.budget // _MIB} MiB. "
            "Shorten the prompt, lower max_tokens, or give the worker more memory"
        )
        return Outcome(sequence.work, error=RecordError(ErrorCode.OUT_OF_MEMORY, message))


def _without_numbers(sequence: Sequence) -> Outcome:
    message = (
        f"the model has no finite scores for the token after the first {len(sequence.tokens)}: "
        "its weights are damaged, or engine.transformers.dtype is too narrow for it"
    )
    return Outcome(sequence.work, error=RecordError(ErrorCode.ENGINE_ERROR, message))
