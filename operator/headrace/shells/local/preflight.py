"""Reading an input without running anything: the worker's own `plan` role in a state folder that is thrown away."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from headrace.api.inferencebatch import InferenceBatch
from headrace.api.input import Output
from headrace.api.kinds import OurStatus
from headrace.api.reasons import ConditionType
from headrace.api.worker import PlanReport
from headrace.shells.local.converge import Converger, Interrupt, Watcher, utc_now
from headrace.shells.local.objects import submit
from headrace.shells.local.place import installation
from headrace.shells.local.state import StateDir
from headrace.shells.manifests import ConfigMap


def read_input(
    batch: InferenceBatch, config_maps: Iterable[ConfigMap], watcher: Watcher, interrupt: Interrupt
) -> PlanReport | str:
    """What is in the input of a batch, or why it could not be read. Nothing is written to its output."""
    spec = batch.spec.model_copy(update={"output": Output(), "suspend": False, "cancel": False})
    with tempfile.TemporaryDirectory(prefix="headrace-") as scratch:
        state = StateDir(Path(scratch))
        for config_map in config_maps:
            state.write_config_map(config_map)
        folder = state.batch(batch.metadata.namespace, batch.metadata.name)
        submit(state, batch.model_copy(update={"spec": spec}), utc_now(), replace=False)
        converger = Converger(state, folder, installation(state, folder))
        ended = converger.run(watcher, interrupt, until=_has_read)
        said = (report.report for report in converger.cluster.reports() if report.exit_code == 0)
        found = next((report for report in said if isinstance(report, PlanReport)), None)
    failed = ended.status.condition(ConditionType.FAILED)
    return found or (failed.message if failed is not None else "the reading of the input was interrupted")


def _has_read(status: OurStatus) -> bool:
    return status.is_true(ConditionType.INPUT_VALIDATED)
