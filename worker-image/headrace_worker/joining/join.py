"""The role `join`: go through the input once more, and make one line of what the branches have answered to each record.

Memory is constant: one line of each branch at a time, or a window of them where models of the join look at the answers. Everything
follows from the input, the branches' commits and the settings, so joining twice gives the same bytes. What is written counts once
`commit.json` names it; it is the commit of the only shard, so whoever reads the output of a batch can read this one too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import orjson

from headrace.api.aggregation import AggregationType, Reduce
from headrace.api.batchstatus import RecordCounts, Usage
from headrace.api.output import MANIFEST_FILE, JoinManifest, ShardOutput
from headrace.api.worker import FanOutConfig, JoinReport, ManifestHeader, WorkerConfig
from headrace_worker.commit import ShardCommit, commit_bytes, read_commit, same_batch
from headrace_worker.config import bad_config
from headrace_worker.errors import Drained
from headrace_worker.failures import input_failures, output_failures
from headrace_worker.joining.aggregators import aggregator
from headrace_worker.joining.branches import BranchOutput
from headrace_worker.joining.cases import Case
from headrace_worker.joining.lines import Joiner
from headrace_worker.joining.program import ProgramAnswers
from headrace_worker.joining.rating import Rating, forget
from headrace_worker.joining.reading import nothing_left, open_branches, records
from headrace_worker.joining.reduction import reduced_lines
from headrace_worker.layout import ShardFolder
from headrace_worker.manifest import read_header
from headrace_worker.outputfiles import FileKind, OutputWriter
from headrace_worker.owner import claim_output
from headrace_worker.stores import join as join_uri
from headrace_worker.stores import open_store
from headrace_worker.stores.base import NotFound, Store

_PROGRESS_RECORDS = 16_384

log = logging.getLogger(__name__)


def join(config: WorkerConfig, progress: Callable[[JoinReport], None]) -> JoinReport:
    """Join the branches; returns the sums. Raises `JobFailed`: `InputChanged`, `BranchOutputDamaged`, and what `plan` raises."""
    if config.fan_out is None:
        raise bad_config("fanOut must be set for the role join")
    plans, output = open_store(config.plan_uri), open_store(config.output_uri)
    with input_failures():
        header = read_header(plans, config.plan_uri)
    same_batch(header.batch, config.batch, config.plan_uri)
    folder = ShardFolder(config.output_uri, 0)
    with output_failures():
        claim_output(output, config.output_uri, config.batch)
        commit = _known(output, folder, config.fan_out.round)
        if commit is None:
            commit = _Join(config, config.fan_out, header, progress).run(output, folder)
            output.put(folder.commit, commit_bytes(commit))
        _publish(output, config, header, commit)
        _sweep(output, folder, commit)
        forget(output, config.output_uri)
    return JoinReport(records=commit.records)


def _known(store: Store, folder: ShardFolder, round_: int) -> ShardCommit | None:
    """What an earlier run of this round has committed."""
    commit = read_commit(store, folder)
    if commit is not None and commit.attempt > round_ + 1:
        raise Drained(f"round {commit.attempt - 1} was joined already, this is round {round_}")
    return commit if commit is not None and commit.attempt == round_ + 1 else None


class _Join:
    """One pass over the input and the outputs of all branches."""

    def __init__(
        self,
        config: WorkerConfig,
        fan_out: FanOutConfig,
        header: ManifestHeader,
        progress: Callable[[JoinReport], None],
    ) -> None:
        self._config, self._fan_out, self._header, self._progress = config, fan_out, header, progress
        self._join = Joiner(aggregator(fan_out.aggregation), fan_out.branches, fan_out.min_answers)
        self._succeeded = self._failed = 0

    def run(self, store: Store, folder: ShardFolder) -> ShardCommit:
        attempt = self._fan_out.round + 1
        with ExitStack() as stack:
            branches = open_branches(store, self._config.output_uri, self._fan_out.branches, stack)
            usage = sum((branch.manifest.usage for branch in branches.values()), Usage())
            kind = FileKind.of(self._config)
            paths = folder.outputs(attempt, kind.ending)
            results, errors = (OutputWriter(store, folder.uri(path), path, stack, kind) for path in paths)
            rating = Rating(self._config, self._fan_out, self._header.created, store)
            program = self._program(stack)
            for line, failed in self._lines(branches, rating, replace(self._join, program=program)):
                (errors if failed else results).write(line)
            if program is not None:
                program.nothing_left()
        log.info("%d records joined, %d without an answer", self._succeeded, self._failed)
        return ShardCommit(
            batch=self._config.batch,
            shard=0,
            attempt=attempt,
            results=results.file(),
            errors=errors.file(),
            records=self._counts,
            usage=usage,
            batches=0,
            batched_records=0,
            reprocessed=0,
        )

    def _program(self, stack: ExitStack) -> ProgramAnswers | None:
        """What a program of the user's has made of the answers, if one was to."""
        if self._fan_out.aggregation.type != AggregationType.IMAGE:
            return None
        if self._fan_out.exchange is None:
            raise bad_config("fanOut.exchange must be set for the aggregation image")
        return ProgramAnswers(Path(self._fan_out.exchange), stack)

    def _lines(
        self, branches: Mapping[str, BranchOutput], rating: Rating, joiner: Joiner
    ) -> Iterator[tuple[bytes, bool]]:
        """Each record's line, and whether it is an error."""
        cases = (joiner.gather(case, branches) for case in records(self._config, self._fan_out.aggregation))
        for line, failed in self._joined(rating.rated(cases), joiner):
            yield line, failed
            self._failed += failed
            self._succeeded += not failed
            if (self._succeeded + self._failed) % _PROGRESS_RECORDS == 0:
                self._progress(JoinReport(records=self._counts))
        nothing_left(branches)

    def _joined(self, cases: Iterator[Case], joiner: Joiner) -> Iterator[tuple[bytes, bool]]:
        spec = self._fan_out.aggregation
        if spec.type == AggregationType.REDUCE:
            return reduced_lines(cases, spec.reduce or Reduce(), joiner)
        return map(joiner.line, cases)

    @property
    def _counts(self) -> RecordCounts:
        done = self._succeeded + self._failed
        reduced = self._fan_out.aggregation.type == AggregationType.REDUCE
        total = (self._header.parents if reduced else None) or self._header.records
        return RecordCounts(total=total, succeeded=self._succeeded, failed=self._failed, pending=total - done)


def _publish(store: Store, config: WorkerConfig, header: ManifestHeader, commit: ShardCommit) -> None:
    assert config.fan_out is not None
    manifest = JoinManifest(
        batch=header.batch,
        created=header.created,
        input=config.input,
        aggregation=config.fan_out.aggregation,
        branches=config.fan_out.branches,
        round=config.fan_out.round,
        records=commit.records,
        usage=commit.usage,
        shards=(ShardOutput(index=0, attempt=commit.attempt, results=commit.results, errors=commit.errors),),
    )
    data = orjson.dumps(manifest.to_object(), option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_INDENT_2)
    store.put(join_uri(config.output_uri, MANIFEST_FILE), data)


def _sweep(store: Store, folder: ShardFolder, commit: ShardCommit) -> None:
    """Delete what earlier rounds have left."""
    kept = {folder.uri(commit.results.path), folder.uri(commit.errors.path)}
    for pattern in folder.output_patterns:
        with suppress(NotFound):
            for found in list(store.list(pattern)):
                if found.uri not in kept:
                    store.delete(found.uri)
