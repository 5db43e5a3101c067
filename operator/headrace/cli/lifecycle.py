"""`headrace cancel`, `suspend`, `resume`, `retry` and `delete`.

The wish is written down first. If somebody else works on the batch they take the wish up within a second; if nobody does, this
process sees to it itself, for on one machine there is no operator that would.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.api.kinds import OurObject, OurStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.cli.driving import drive, show, signals_for, stopped
from headrace.cli.options import JsonOutput, Where
from headrace.cli.outcome import exit_code
from headrace.cli.place import named_batch, open_target
from headrace.cli.target import Ref, Target
from headrace.cli.text import say, say_json
from headrace.core import edits


def cancel(where: Where, name: str, output: JsonOutput, *, quiet: bool) -> int:
    """End a batch now; 0 when it ended because of that."""
    with open_target(where) as target:
        ref = named_batch(target, name)
        target.edit(ref, edits.cancel)
        if _left_to_runner(target, ref, "ends", output):
            return 0
        batch = _see_to_it(target, ref, quiet=quiet)
        show(target, batch, output)
    failed = batch.status.condition(ConditionType.FAILED)
    return 0 if failed is not None and failed.reason == Reason.CANCELLED else exit_code(batch)


def suspend(where: Where, name: str, output: JsonOutput, *, quiet: bool) -> int:
    """Put the work of a batch away."""
    with open_target(where) as target:
        ref = named_batch(target, name)
        target.edit(ref, edits.suspend)
        if not _left_to_runner(target, ref, "puts its work away", output):
            batch = _see_to_it(target, ref, quiet=quiet, until=lambda s: s.is_true(ConditionType.SUSPENDED))
            go_on = target.manner.command("resume", ref)
            _show_short(batch, f"{ref.name} is suspended; go on with: {go_on}", output)
    return 0


def resume(where: Where, name: str, output: JsonOutput, *, quiet: bool) -> int:
    """Go on with a suspended batch; the exit code is that of `run`."""
    with open_target(where) as target:
        ref = named_batch(target, name)
        target.edit(ref, edits.resume)
        return _go_on(target, ref, output, quiet=quiet)


def retry(where: Where, name: str, output: JsonOutput, *, quiet: bool) -> int:
    """Try once more what has failed of a batch; the exit code is that of `run`."""
    with open_target(where) as target:
        ref = named_batch(target, name)
        target.edit(ref, edits.retry)
        return _go_on(target, ref, output, quiet=quiet)


def delete(where: Where, name: str, output: JsonOutput) -> int:
    """Delete a batch."""
    with open_target(where) as target:
        ref = named_batch(target, name)
        gone = target.delete(ref)
    if output == JsonOutput.JSON:
        kept = {} if gone.output_kept is None else {"outputKept": gone.output_kept}
        say_json({"deleted": ref.name, "namespace": ref.namespace, "outputDeleted": gone.output_deleted, **kept})
    else:
        kept_at = f"; its output stays at {gone.output_kept}" if gone.output_kept is not None else ""
        say(f"{ref.name} is deleted{', with its output' if gone.output_deleted else ''}{kept_at}")
    return 0


def _go_on(target: Target, ref: Ref, output: JsonOutput, *, quiet: bool) -> int:
    if _left_to_runner(target, ref, "goes on", output):
        return 0
    batch = _see_to_it(target, ref, quiet=quiet)
    show(target, batch, output)
    return exit_code(batch)


def _left_to_runner(target: Target, ref: Ref, doing: str, output: JsonOutput) -> bool:
    """Whether somebody else works on the batch, and so will take the wish up."""
    runner = target.runner(ref)
    if runner is None:
        return False
    _show_short(target.find(ref).batch, f"{ref.name} {doing}: {runner}", output)
    return True


def _see_to_it(
    target: Target,
    ref: Ref,
    *,
    quiet: bool,
    until: Callable[[OurStatus], bool] | None = None,
) -> OurObject:
    with signals_for(target, quiet=quiet) as signals, target.holding(ref):
        batch = drive(target, ref, signals, quiet=quiet, until=until)
    if signals.requested:
        raise stopped(target, [ref], signals)
    return batch


def _show_short(batch: OurObject, text: str, output: JsonOutput) -> None:
    if output == JsonOutput.JSON:
        say_json(batch.to_object())
    else:
        say(text)
