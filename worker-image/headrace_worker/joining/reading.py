"""What goes into a join: the records of the input, and what the branches have left of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from headrace.api.aggregation import Aggregation
from headrace.api.worker import JoinBranch, WorkerConfig
from headrace_worker.errors import JobFailed
from headrace_worker.formats.shards import read_sources
from headrace_worker.joining.branches import BranchOutput, branch_uri
from headrace_worker.joining.cases import Case
from headrace_worker.layout import record_id
from headrace_worker.manifest import iter_shards
from headrace_worker.stores import open_store
from headrace_worker.stores.base import Store


def records(config: WorkerConfig, aggregation: Aggregation) -> Iterator[Case]:
    """Each record, in the order of the input, with the proof that it is the input that was planned; its question if it is asked for."""
    spec = config.records.model_copy(update={"prompt": aggregation.prompt or config.input.prompt})
    model = config.model if aggregation.asks else None
    for shard in iter_shards(open_store(config.plan_uri), config.plan_uri):
        for found in read_sources(open_store(shard.segments[0].uri), shard, spec, model):
            name = record_id(shard, found.position)
            yield Case(name, found.custom_id, found.raw, found.part, found.question)


def open_branches(
    store: Store, output_uri: str, branches: Sequence[JoinBranch], stack: ExitStack
) -> dict[str, BranchOutput]:
    """The outputs of those branches that have left one, by name."""
    return {
        branch.name: stack.enter_context(BranchOutput(store, branch_uri(output_uri, branch.name)))
        for branch in branches
        if branch.joined
    }


def nothing_left(branches: Mapping[str, BranchOutput]) -> None:
    """Raise `JobFailed` (`InputChanged`) when a branch has a line that no record of the input has come for."""
    for branch, output in branches.items():
        stranger = output.left_over()
        if stranger is not None:
            raise JobFailed(
                "InputChanged",
                f"the branch {branch} has a line of the record {stranger}, which the input does not have at that place: "
                "the input was changed between the plans of two branches; make a new FanOutJob",
            )
