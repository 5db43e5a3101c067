"""Seeing a batch to its end: with progress for whoever looks on, and with what came of it at last."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.api.kinds import OurObject, OurStatus
from headrace.cli.exits import CliError
from headrace.cli.options import JsonOutput
from headrace.cli.outcome import outcome_text, refusal, was_refused
from headrace.cli.signals import Signals
from headrace.cli.target import Ref, Target
from headrace.cli.text import say, say_json
from headrace.cli.watch import watching


def signals_for(target: Target, *, quiet: bool) -> Signals:
    """An ear that says what stopping means there."""
    return Signals("" if quiet else target.manner.stopping)


def drive(
    target: Target,
    ref: Ref,
    signals: Signals,
    *,
    quiet: bool,
    until: Callable[[OurStatus], bool] | None = None,
) -> OurObject:
    """See a batch to its end, until `until` holds, or until a signal comes. Hold it (`Target.holding`)."""
    with watching(ref.name, quiet=quiet) as watcher:
        return target.drive(ref, watcher, signals, until)


def stopped(target: Target, refs: Sequence[Ref], signals: Signals) -> CliError:
    """The error of a command that a signal has ended."""
    return CliError("Interrupted", target.stopped(refs), signals.exit_code)


def show(target: Target, batch: OurObject, output: JsonOutput) -> None:
    """Show what a batch has come to. Raises `CliError` when it was refused."""
    if was_refused(batch):
        raise refusal(batch)
    if output == JsonOutput.JSON:
        say_json(batch.to_object())
    else:
        say(outcome_text(batch, target.manner, target.log(Ref.of(batch))))
