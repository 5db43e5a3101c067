"""Working on a batch in this process: with progress for whoever looks on, and an ear for Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from headrace.api.inferencebatch import InferenceBatch, InferenceBatchStatus
from headrace.cli.app import JsonOutput
from headrace.cli.exits import CliError
from headrace.cli.outcome import outcome_text, refusal, was_refused
from headrace.cli.text import remark, say, say_json
from headrace.cli.watch import watching
from headrace.shells.local.converge import Converger
from headrace.shells.local.place import installation
from headrace.shells.local.podrecord import last_failure
from headrace.shells.local.state import BatchFolder, StateDir

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Counts the requests to stop while its block lasts: the first one drains the workers, the second one kills them."""

    def __init__(self, *, quiet: bool) -> None:
        self.requested = 0
        self._quiet, self._last = quiet, signal.SIGINT
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal has ended."""
        return 128 + self._last

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.requested += 1
        self._last = signal.Signals(number)
        if self.requested == 1 and not self._quiet:
            remark("stopping: the workers put their work away; once more kills them")


def drive(
    state: StateDir,
    folder: BatchFolder,
    signals: Signals,
    *,
    quiet: bool,
    until: Callable[[InferenceBatchStatus], bool] | None = None,
) -> InferenceBatch:
    """Work on a batch until it is finished, `until` holds, or a signal comes. Hold `StateDir.running`."""
    with watching(folder.name, quiet=quiet) as watcher:
        return Converger(state, folder, installation(state, folder)).run(watcher, signals, until)


def stopped(signals: Signals) -> CliError:
    """The error of a run that a signal has ended."""
    return CliError("Interrupted", "stopped; run the same command again to go on", signals.exit_code)


def show(folder: BatchFolder, batch: InferenceBatch, output: JsonOutput) -> None:
    """Show what a batch has come to. Raises `CliError` when it was refused."""
    if was_refused(batch):
        raise refusal(batch)
    if output == JsonOutput.JSON:
        say_json(batch.to_object())
    else:
        log = last_failure(folder.pods)
        say(outcome_text(batch, str(log) if log is not None else None))
