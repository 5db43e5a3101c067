"""A look at what is new on this machine: the worker's own `list` role, as the Job of a cluster would start it."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.window import DataWindow
from headrace.api.worker import ListReport, parse_report
from headrace.core.observed import Installation
from headrace.core.schedule.listing import listing_job
from headrace.shells.local.containers import WORKER, command_line, container_of, environment, start
from headrace.shells.local.converge import Interrupt

_NAP_SECONDS = 0.1


def list_objects(
    schedule: ScheduledGeneration, place: Installation, window: DataWindow, interrupt: Interrupt
) -> ListReport | str:
    """What is new in a window, or why that cannot be known; who interrupts hears that."""
    job = listing_job(schedule, place, window)
    with tempfile.TemporaryDirectory(prefix="headrace-") as scratch, tempfile.TemporaryFile() as log:
        folder = Path(scratch)
        with start(command_line(container_of(job), WORKER), environment(job, 0, folder), log) as process:
            _wait(process, interrupt)
        with suppress(FileNotFoundError):  # it has died without a word
            report = parse_report((folder / "termination").read_bytes())
            if isinstance(report, ListReport) and process.returncode == 0:
                return report
            if report is not None and report.failure is not None:
                return f"{report.failure.reason}: {report.failure.message}"
        if interrupt.requested:
            return "it was interrupted"
        log.seek(0)
        return log.read().decode(errors="replace").strip() or f"its worker has ended with {process.returncode}"


def _wait(process: subprocess.Popen[bytes], interrupt: Interrupt) -> None:
    while process.poll() is None:
        if interrupt.requested:
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_NAP_SECONDS)
