"""How a run is shown while it goes: a bar on a terminal, a line every few seconds in a log, nothing when it is to be quiet."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from headrace.api.batchstatus import InferenceBatchStatus
from headrace.api.fanoutstatus import FanOutJobStatus
from headrace.api.kinds import OurObject
from headrace.cli.text import duration, number, plain, remark
from headrace.core.plan import Event
from headrace.shells.local.converge import Watcher

LINE_INTERVAL_SECONDS = 5.0
_SPEED_WINDOW_SECONDS = 10.0
_BAR_WIDTH = 20


@contextmanager
def watching(batch_name: str, *, quiet: bool) -> Iterator[Watcher]:
    """Something that shows progress on standard error, in the form that it can take."""
    if quiet:
        yield Silent()
    elif sys.stderr.isatty():
        with Bar(batch_name) as bar:
            yield bar
    else:
        yield Lines()


class Silent:
    """Shows nothing."""

    def progress(self, batch: OurObject) -> None:
        """Nothing."""

    def event(self, batch: OurObject, event: Event) -> None:
        """Nothing."""


class TokenSpeed:
    """Tokens a second, over the last seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def measure(self, batch: OurObject) -> float | None:
        """Take one look; None before there is anything to tell."""
        now, usage = self._clock(), batch.status.usage
        self._seen.append((now, usage.prompt_tokens + usage.completion_tokens))
        while len(self._seen) > 2 and now - self._seen[0][0] > _SPEED_WINDOW_SECONDS:
            self._seen.popleft()
        began, tokens = self._seen[0]
        return (self._seen[-1][1] - tokens) / (now - began) if now > began and self._seen[-1][1] > tokens else None


def facts(batch: OurObject, tokens_per_second: float | None) -> list[str]:
    """What is worth knowing besides how many records are done, as far as it is known."""
    status = batch.status
    if isinstance(status, FanOutJobStatus):
        speed = f"{number(tokens_per_second)} tokens/s" if tokens_per_second is not None else None
        ended = status.branch_counts.succeeded + status.branch_counts.failed
        return [f"{ended}/{status.branch_counts.total} branches", *([speed] if speed else [])]
    return _batch_facts(status, tokens_per_second)


def _batch_facts(status: InferenceBatchStatus, tokens_per_second: float | None) -> list[str]:
    speed, eta = status.records_per_second, status.estimated_completion_time
    known = (
        f"{status.records.failed:,} failed" if status.records.failed else None,
        f"{number(float(speed))} rec/s" if speed is not None else None,
        f"{number(tokens_per_second)} tokens/s" if tokens_per_second is not None else None,
        f"fill {status.batch_fill_percent}%" if status.batch_fill_percent is not None else None,
        f"ETA {duration(eta - datetime.now(UTC))}" if eta is not None else None,
    )
    return [fact for fact in known if fact is not None]


def done_of(batch: OurObject) -> tuple[int, int]:
    """Records done, and all of them; of a fan-out, over its branches."""
    status = batch.status
    if isinstance(status, FanOutJobStatus):
        routed = [branch.records for branch in status.branches]
        return sum(r.succeeded + r.failed for r in routed), sum(r.total or status.records.total for r in routed)
    return status.records.succeeded + status.records.failed, status.records.total


class Lines:
    """A plain line for every event, and one every few seconds for the progress."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._said_at, self._said = clock, clock(), ""
        self._speed = TokenSpeed(clock)

    def progress(self, batch: OurObject) -> None:
        """Say how far it is, if that is news and the last line is some seconds old."""
        speed, (done, total) = self._speed.measure(batch), done_of(batch)
        if not total or batch.status.finished or self._clock() - self._said_at < LINE_INTERVAL_SECONDS:
            return
        count = f"{done:,}/{total:,} records"
        line = ", ".join([f"{batch.metadata.name}: {batch.status.summary.state}", count, *facts(batch, speed)])
        if line != self._said:
            remark(line)
            self._said, self._said_at = line, self._clock()

    def event(self, batch: OurObject, event: Event) -> None:
        """Say what has happened."""
        remark(event_line(batch, event))


class Bar:
    """A bar that moves, with the events scrolling by above it."""

    def __init__(self, name: str, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=_BAR_WIDTH),
            TextColumn("{task.fields[facts]}", markup=False),
        )
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task(name, total=None, facts="")
        self._speed = TokenSpeed()

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def progress(self, batch: OurObject) -> None:
        """Move the bar."""
        done, total = done_of(batch)
        description = f"{batch.metadata.name} {batch.status.summary.state}"
        count = [f"{done:,}/{total:,}"] if total else []
        shown = " · ".join([*count, *facts(batch, self._speed.measure(batch))])
        room = self._console.width - len(description) - _BAR_WIDTH - 2
        self._progress.update(
            self._task,
            description=description,
            total=total or None,
            completed=done,
            facts=plain(shown, max(room, 10)),
        )

    def event(self, batch: OurObject, event: Event) -> None:
        """Let the event scroll by."""
        self._progress.console.print(event_line(batch, event), markup=False, highlight=False)


def event_line(batch: OurObject, event: Event) -> str:
    """An event in one line."""
    return f"{batch.metadata.name}: {event.reason}: {event.message}"
