"""The worker's front door: one role, one exit code and one termination message, whatever happens."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn

from headrace.api.worker import (
    ExitCode,
    Failure,
    FinalizeReport,
    JoinReport,
    ListReport,
    PlanReport,
    Report,
    Role,
    SelectReport,
    ServeReport,
    ShardReport,
    WorkerConfig,
    termination_message,
)
from headrace_worker import engines, results
from headrace_worker.config import Surface, bad_config, load_config, load_surface, shard_index, termination_log
from headrace_worker.drain import drain_on_end_of_input
from headrace_worker.errors import CRASHED, WorkerError
from headrace_worker.failures import input_failures, output_failures
from headrace_worker.finalize import finalize
from headrace_worker.joining.join import join
from headrace_worker.joining.program import collect
from headrace_worker.joining.select import select
from headrace_worker.listing import list_objects
from headrace_worker.manifest import read_header, read_shard_entry, write_batch_manifest_if_complete
from headrace_worker.metrics import MetricsServer, write_port
from headrace_worker.owner import claim_output
from headrace_worker.planning.plan import plan
from headrace_worker.profile import open_profile
from headrace_worker.progress import Live
from headrace_worker.recorder import Surroundings
from headrace_worker.serving import serve
from headrace_worker.shard import run_shard
from headrace_worker.stores import open_store
from headrace_worker.stores.base import Unreachable
from headrace_worker.traces import Playing, open_traces

log = logging.getLogger("headrace_worker")


def main(argv: Sequence[str] | None = None) -> int:
    """Play the role that the command line names; all else is told by the environment. Returns the exit code.

    `results` and `hold` are no roles: somebody reads what a batch has left, and no Job is involved.
    """
    word, *rest = [*(sys.argv[1:] if argv is None else argv), ""]
    if word == "results":
        return results.main(rest[:-1])
    if word == "hold":
        return results.hold()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    around = Surroundings(Live(PlanReport()), traces=open_traces(os.environ))
    exit_code, failure = _guarded(lambda: _play(argv, os.environ, around))
    report = around.live.report
    _say_last_word(report if failure is None else report.model_copy(update={"failure": failure}), os.environ)
    around.traces.close(around.playing, report, failure)
    return exit_code


def _guarded(play: Callable[[], None]) -> tuple[int, Failure | None]:
    """Play, and turn whatever is raised into an exit code and what to tell the user."""
    try:
        play()
    except WorkerError as error:
        log.info("%s", error)
        return error.exit_code, None if error.exit_code == ExitCode.DRAINED else error.failure
    except Unreachable as error:
        log.info("%s", error)
        return CRASHED, Failure(reason="StoreUnreachable", message=str(error))
    except Exception as error:  # noqa: BLE001 - nobody else is left to tell of it
        traceback.print_exc()
        return CRASHED, Failure(reason="WorkerCrashed", message=f"{type(error).__name__}: {error}")
    return ExitCode.DONE, None


def _say_last_word(report: Report, env: Mapping[str, str]) -> None:
    """Write the termination message. In a pod the file is there already; it is never made at its default place."""
    path, made = termination_log(env)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | (os.O_CREAT if made else 0), 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(termination_message(report))
    except OSError as error:
        log.warning("the report cannot be written to %s (%s): %s", path, error.strerror, report.to_object())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise bad_config(f"command line: {message}")


def _role(argv: Sequence[str] | None) -> Role:
    parser = _Parser("headrace_worker", description="Works for one Headrace batch, as its environment says.")
    parser.add_argument("role", choices=[role.value for role in Role])
    return Role(parser.parse_args(argv).role)


def _play(argv: Sequence[str] | None, env: Mapping[str, str], around: Surroundings) -> None:
    role = _role(argv)
    around.live.report = _FIRST_REPORTS[role]
    around.drain.install()
    config, surface = load_config(env), load_surface(env)
    around.playing = Playing(role, config.batch)
    if surface.drain_on_eof and role != Role.SERVE:  # which reads it
        drain_on_end_of_input()
    with _shown(surface, around):
        if role == Role.RUN:
            _run(config, env, around)
        elif role == Role.SERVE:
            serve(config, around, env)
        else:
            with around.drain.interrupting():
                _ALONE[role](config, around.live)


_FIRST_REPORTS: Mapping[Role, Report] = {
    Role.PLAN: PlanReport(),
    Role.RUN: ShardReport(shard=0),
    Role.FINALIZE: FinalizeReport(),
    Role.JOIN: JoinReport(),
    Role.COLLECT: JoinReport(),
    Role.SELECT: SelectReport(),
    Role.LIST: ListReport(),
    Role.SERVE: ServeReport(),
}


@contextmanager
def _shown(surface: Surface, around: Surroundings) -> Iterator[None]:
    """Serve metrics and progress while the block runs, if that is wanted."""
    if surface.metrics_port is None:
        yield
        return
    server = MetricsServer(surface.metrics_port, around.metrics, lambda: around.live.report)
    try:
        if surface.metrics_port_file is not None:
            write_port(surface.metrics_port_file, server.port)
        yield
    finally:
        server.close()


def _plan(config: WorkerConfig, live: Live) -> None:
    checker = engines.request_checker(config) if config.fan_out is None else None

    def progress(report: PlanReport) -> None:
        live.report = report

    live.report = plan(
        config,
        check=checker.check if checker else None,
        now=int(time.time()),
        progress=progress,
        context_tokens=checker.context_tokens if checker else None,
    )


def _run(config: WorkerConfig, env: Mapping[str, str], around: Surroundings) -> None:
    index = shard_index(env, config.retried_shards)
    around.live.report = ShardReport(shard=index)
    with input_failures():
        plans = open_store(config.plan_uri)
        header = read_header(plans, config.plan_uri)
        shard = read_shard_entry(plans, config.plan_uri, index)
    with output_failures():
        output = open_store(config.output_uri)
        # Inline records were planned without a look at the folder.
        claim_output(output, config.output_uri, config.batch)
        around.profile = open_profile(env, index)
        try:
            around.live.report = run_shard(config, header, shard, around)
        finally:
            if around.profile is not None:
                around.profile.close()
        write_batch_manifest_if_complete(output, config)


def _finalize(config: WorkerConfig, live: Live) -> None:
    live.report = finalize(config)


def _join(config: WorkerConfig, live: Live) -> None:
    def progress(report: JoinReport) -> None:
        live.report = report

    live.report = join(config, progress)


def _collect(config: WorkerConfig, live: Live) -> None:
    live.report = collect(config)


def _select(config: WorkerConfig, live: Live) -> None:
    def progress(report: SelectReport) -> None:
        live.report = report

    live.report = select(config, progress)


def _list(config: WorkerConfig, live: Live) -> None:
    live.report = list_objects(config)


_ALONE: Mapping[Role, Callable[[WorkerConfig, Live], None]] = {
    Role.PLAN: _plan,
    Role.FINALIZE: _finalize,
    Role.JOIN: _join,
    Role.COLLECT: _collect,
    Role.SELECT: _select,
    Role.LIST: _list,
}
"""Roles that may be interrupted anywhere: what they write appears whole or not at all."""
