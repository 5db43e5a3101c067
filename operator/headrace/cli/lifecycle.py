"""`headrace cancel`, `suspend`, `resume`, `retry` and `delete`.

The wish is written down first. If some process runs the batch it takes the wish up within a second; if none does, this one sees
to it itself, for on one machine there is no operator that would.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.api.inferencebatch import InferenceBatch, InferenceBatchStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.cli.app import JsonOutput, Where
from headrace.cli.driving import Signals, drive, show, stopped
from headrace.cli.outcome import exit_code
from headrace.cli.place import find_batch
from headrace.cli.text import say, say_json
from headrace.shells.local.objects import ask_retry, change_spec
from headrace.shells.local.objects import delete as delete_batch
from headrace.shells.local.state import BatchFolder, StateDir


def cancel(where: Where, name: str, output: JsonOutput, *, quiet: bool) -> int:
    """End a batch now; 0 when it ended because of that."""
    state, folder = find_batch(where, name)
    change_spec(state, folder, cancel=True)
    if _left_to_runner(state, folder, "ends", output):
        return 0
    batch = _see_to_it(state, folder, quiet=quiet)
    show(folder, batch, output)
    failed = batch.status.condition(ConditionType.FAILED)
    return 0 if failed is not None and failed.reason == Reason.CANCELLED else exit_code(batch)


def suspend(where: Where, name: str, output: JsonOutput, *, quiet: bool) -> int:
    """Put the work of a batch away."""
    state, folder = find_batch(where, name)
    change_spec(state, folder, suspend=True)
    if not _left_to_runner(state, folder, "puts its work away", output):
        batch = _see_to_it(state, folder, quiet=quiet, until=lambda s: s.is_true(ConditionType.SUSPENDED))
        _show_short(batch, f"{folder.name} is suspended; go on with: headrace resume {folder.name}", output)
    return 0


def resume(where: Where, name: str, output: JsonOutput, *, quiet: bool) -> int:
    """Go on with a suspended batch; the exit code is that of `run`."""
    state, folder = find_batch(where, name)
    change_spec(state, folder, suspend=False)
    return _go_on(state, folder, output, quiet=quiet)


def retry(where: Where, name: str, output: JsonOutput, *, quiet: bool) -> int:
    """Try a failed batch once more; the exit code is that of `run`."""
    state, folder = find_batch(where, name)
    ask_retry(state, folder)
    return _go_on(state, folder, output, quiet=quiet)


def delete(where: Where, name: str, output: JsonOutput) -> int:
    """Delete a batch."""
    state, folder = find_batch(where, name)
    with_output = delete_batch(state, folder)
    if output == JsonOutput.JSON:
        say_json({"deleted": folder.name, "namespace": folder.namespace, "outputDeleted": with_output})
    else:
        say(f"{folder.name} is deleted{', with its output' if with_output else ''}")
    return 0


def _go_on(state: StateDir, folder: BatchFolder, output: JsonOutput, *, quiet: bool) -> int:
    if _left_to_runner(state, folder, "goes on", output):
        return 0
    batch = _see_to_it(state, folder, quiet=quiet)
    show(folder, batch, output)
    return exit_code(batch)


def _left_to_runner(state: StateDir, folder: BatchFolder, doing: str, output: JsonOutput) -> bool:
    """Whether another process runs the batch, and so will take the wish up."""
    runner = state.runner(folder)
    if runner is None:
        return False
    _show_short(folder.load(), f"{folder.name} {doing}: it is {runner}", output)
    return True


def _see_to_it(
    state: StateDir,
    folder: BatchFolder,
    *,
    quiet: bool,
    until: Callable[[InferenceBatchStatus], bool] | None = None,
) -> InferenceBatch:
    with Signals(quiet=quiet) as signals, state.running(folder):
        batch = drive(state, folder, signals, quiet=quiet, until=until)
    if signals.requested:
        raise stopped(signals)
    return batch


def _show_short(batch: InferenceBatch, text: str, output: JsonOutput) -> None:
    if output == JsonOutput.JSON:
        say_json(batch.to_object())
    else:
        say(text)
