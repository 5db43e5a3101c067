"""Running many batches of one state folder in one process: so many at a time, each by its own loop in a thread of its own.

Which of them go next is the core's answer. What was begun by an earlier process is taken up like anything else that is not over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self, TypeAlias

from headrace.api.fanoutjob import FanOutJob
from headrace.api.kinds import OurObject, OurStatus
from headrace.api.reasons import ConditionType
from headrace.core.plan import Event
from headrace.core.turns import Waiting, next_turns
from headrace.shells.local.containers import WORKER, Programs
from headrace.shells.local.converge import Converger, Drive, Interrupt, utc_now
from headrace.shells.local.fanout import FanOutConverger
from headrace.shells.local.place import installation
from headrace.shells.local.state import BatchFolder, StateDir, StateError

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often those that wait are looked at: deadlines pass, and other processes let go of batches."""
AFTER_FAILURE = timedelta(seconds=10)
"""How long a batch is left alone that could not be run for a reason that may pass, such as a full disk."""


BatchKey: TypeAlias = tuple[str, str]
"""Namespace and name."""


class Runs:
    """The batches that this process runs, while its block lasts. At its end all have put their work away."""

    def __init__(
        self,
        state: StateDir,
        interrupt: Interrupt,
        most: int,
        programs: Programs = WORKER,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """`most` batches at a time. When the interrupt is requested all stop; when it is twice, their pods are killed."""
        self._state, self._interrupt = state, interrupt
        self._most, self._programs, self._clock = most, programs, clock
        self._changed = threading.Condition()
        self._waiting: dict[BatchKey, Waiting] = {}
        self._threads: dict[BatchKey, tuple[threading.Thread, bool]] = {}
        """Those at work; and whether a batch is only to end."""
        self._not_before: dict[BatchKey, datetime] = {}
        self._closing = False
        self._supervisor = threading.Thread(target=self._supervise, name="turns")

    @property
    def requested(self) -> int:
        """How urgently the runs are to stop; they ask."""
        return max(self._interrupt.requested, int(self._closing))

    def __enter__(self) -> Self:
        self._supervisor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._supervisor.join()
        for thread, _ in [*self._threads.values()]:
            thread.join()

    def take_up(self, batch: OurObject) -> None:
        """See to a batch when its turn comes, or take note of what has changed about it."""
        with self._changed:
            self._waiting[batch.metadata.namespace, batch.metadata.name] = Waiting.of(batch, self._clock())
            self._changed.notify()

    def _supervise(self) -> None:
        with self._changed:
            while not self._closing:
                try:
                    self._begin()
                except Exception:  # such as too many open files: whatever it is, it must not be the end of all turns
                    logger.exception("batches cannot be begun now; it is tried again")
                self._changed.wait(LOOK_SECONDS if self._waiting else None)

    def _begin(self) -> None:
        """Start those whose turn it is."""
        for one in [*self._waiting.values()]:
            if one.at_rest:
                self._look_again(_key(one))
        free = [one for key, one in self._waiting.items() if key not in self._threads and self._is_free(key)]
        working = [namespace for (namespace, _), (_, to_end) in self._threads.items() if not to_end]
        ending = [namespace for (namespace, _), (_, to_end) in self._threads.items() if to_end]
        for one, to_end in next_turns(free, working, ending, self._most, self._clock()):
            thread = threading.Thread(target=self._run, args=[_key(one)], name=one.name)
            thread.start()
            self._threads[_key(one)] = (thread, to_end)
            del self._waiting[_key(one)]

    def _look_again(self, key: BatchKey) -> None:
        """Read anew what is known of a batch; one that is over or gone does not wait any more."""
        found = self._unfinished(key)
        if found is None:
            self._waiting.pop(key, None)
        else:
            self._waiting[key] = Waiting.of(found, self._clock())

    def _is_free(self, key: BatchKey) -> bool:
        """Whether nobody else works on it, and it has not just failed to be worked on."""
        if key in self._not_before and self._clock() < self._not_before[key]:
            return False
        self._not_before.pop(key, None)
        return self._state.runner(self._folder(key)) is None

    def _run(self, key: BatchKey) -> None:
        try:
            self._see_to_it(key)
        except StateError as error:  # damaged, or taken by another process a moment ago
            self._hold_back(key)
            logger.warning("%s: %s", "/".join(key), error.message)
        except Exception:
            self._hold_back(key)
            logger.exception("%s: cannot be run now; it is tried again", "/".join(key))
        finally:
            with self._changed:
                del self._threads[key]
                self._look_again(key)
                self._changed.notify()

    def _hold_back(self, key: BatchKey) -> None:
        self._not_before[key] = self._clock() + AFTER_FAILURE

    def _see_to_it(self, key: BatchKey) -> None:
        folder = self._folder(key)
        with self._state.running(folder):
            if not folder.exists:
                return
            self._drive(folder).run(_Log(), self, until=_at_rest)

    def _drive(self, folder: BatchFolder) -> Drive:
        if isinstance(folder.load(), FanOutJob):
            return FanOutConverger(self._state, folder, self._programs, self._clock)
        place = installation(self._state, folder)
        return Converger(self._state, folder, place, self._programs, self._clock, companions=self._most)

    def _unfinished(self, key: BatchKey) -> OurObject | None:
        try:
            batch = self._folder(key).load()
        except StateError as error:
            if error.reason != "NotFound":
                logger.warning("%s: is left alone: %s", "/".join(key), error.message)
            return None
        return batch if not batch.status.finished or batch.retry_asked else None

    def _folder(self, key: BatchKey) -> BatchFolder:
        return self._state.batch(*key)


def _key(one: Waiting) -> BatchKey:
    return one.namespace, one.name


def _at_rest(status: OurStatus) -> bool:
    return status.is_true(ConditionType.SUSPENDED)


class _Log:
    """Writes down what happens to batches."""

    def progress(self, batch: OurObject) -> None:
        """Nothing: the status has it."""

    def event(self, batch: OurObject, event: Event) -> None:
        """One line."""
        logger.info("%s: %s: %s", batch.metadata.name, event.reason, event.message)
