"""The role `select`: write down the records that the stages of a cascade so far have not settled, as the input of the next stage.

A part of a record that was split is a line of its own there. It reads what the join reads, aggregates what there is as the join does,
and looks at how clear the winner is. The file depends on the input, the branches' commits and the settings alone; it appears whole, and
one that is there is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import orjson

from headrace.api.cascade import Cascade
from headrace.api.input import InputFormat
from headrace.api.records import RecordError
from headrace.api.worker import FanOutConfig, SelectReport, WorkerConfig, stage_uri
from headrace_worker.commit import same_batch
from headrace_worker.config import bad_config
from headrace_worker.errors import JobFailed
from headrace_worker.failures import input_failures, output_failures
from headrace_worker.joining.aggregators import aggregator
from headrace_worker.joining.answers import Joined
from headrace_worker.joining.cases import Case
from headrace_worker.joining.lines import Joiner
from headrace_worker.joining.rating import Rating
from headrace_worker.joining.reading import nothing_left, open_branches, records
from headrace_worker.manifest import read_header
from headrace_worker.owner import claim_output
from headrace_worker.stores import open_store
from headrace_worker.stores.base import Store

_PROGRESS_RECORDS = 16_384


def select(config: WorkerConfig, progress: Callable[[SelectReport], None]) -> SelectReport:
    """Select the records of a stage; returns how many they are. Raises `JobFailed` like `join`."""
    if config.fan_out is None or config.fan_out.cascade is None:
        raise bad_config("fanOut.cascade must be set for the role select")
    plans, output = open_store(config.plan_uri), open_store(config.output_uri)
    with input_failures():
        header = read_header(plans, config.plan_uri)
    same_batch(header.batch, config.batch, config.plan_uri)
    with output_failures():
        claim_output(output, config.output_uri, config.batch)
        uri = stage_uri(config.output_uri, config.fan_out.stage)
        selection = _Selection(config, config.fan_out, config.fan_out.cascade, progress)
        if output.exists(uri):
            return selection.known(output, uri, header.records)
        with output.writer(uri) as file:
            for line in selection.lines(output, header.created):
                file.write(line)
        return selection.report


class _Selection:
    """One pass over the input and the outputs of the branches so far."""

    def __init__(
        self,
        config: WorkerConfig,
        fan_out: FanOutConfig,
        cascade: Cascade,
        progress: Callable[[SelectReport], None],
    ) -> None:
        self._config, self._fan_out, self._cascade, self._progress = config, fan_out, cascade, progress
        self._join = Joiner(aggregator(fan_out.aggregation), fan_out.branches, fan_out.min_answers)
        self._weights = {branch.name: branch.weight for branch in fan_out.branches}
        self._records = self._spared = 0

    @property
    def report(self) -> SelectReport:
        return SelectReport(stage=self._fan_out.stage, records=self._records, spared=self._spared)

    def known(self, store: Store, uri: str, total: int) -> SelectReport:
        """What an earlier run has selected."""
        with store.open(uri) as file:
            self._records = sum(1 for _ in file)
        self._spared = total - self._records
        return self.report

    def lines(self, store: Store, created: int) -> Iterator[bytes]:
        """The lines of the records that go on, in the order of the input."""
        with ExitStack() as stack:
            branches = open_branches(store, self._config.output_uri, self._fan_out.branches, stack)
            rating = Rating(self._config, self._fan_out, created, store)
            cases = (self._join.gather(case, branches) for case in records(self._config, self._fan_out.aggregation))
            for case in rating.rated(cases):
                settled = self._is_settled(case)
                self._spared += settled
                self._records += not settled
                if not settled:
                    yield self._line(case)
                if (self._records + self._spared) % _PROGRESS_RECORDS == 0:
                    self._progress(self.report)
            nothing_left(branches)

    def _is_settled(self, case: Case) -> bool:
        with suppress(RecordError):
            return is_settled(self._cascade, self._join.joined(case), self._weights)
        return False

    def _line(self, case: Case) -> bytes:
        if case.part is not None:
            return orjson.dumps(case.part, option=orjson.OPT_APPEND_NEWLINE)
        if self._config.input.format != InputFormat.TEXT:
            return case.raw.rstrip(b"\r\n") + b"\n"
        try:
            record = {"custom_id": case.custom_id, "text": case.raw.decode()}
        except UnicodeDecodeError as error:
            raise JobFailed("InputInvalid", f"{case.custom_id}: byte {error.start} is not UTF-8") from error
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def is_settled(cascade: Cascade, joined: Joined, weights: dict[str, int]) -> bool:
    """Whether the answers so far are good enough: enough weight stands behind the winner of a vote, or the best one scores enough."""
    assert joined.winner is not None, "votes and scorers have a winner"
    score = joined.scores[joined.winner]
    if cascade.min_score is not None:
        return bool(score[0] >= cascade.min_score)
    assert cascade.min_agreement_percent is not None
    total = sum(weights[branch] for branch in joined.contributing)
    return bool(total and 100 * score >= cascade.min_agreement_percent * total)
