"""Looking at a run that is done: its input and its output are read once more, side by side, each as a stream.

Nothing was kept while the records were worked on, so whatever was killed, retried or found again by then, each record counts once. To
look twice gives the same bytes. It takes some 100 s for a million records, on a CPU.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import orjson

from headrace.api.base import JsonObject
from headrace.api.evaluation import EVALUATION_FILE, Evaluation, Feature
from headrace.api.expected import expected_answer
from headrace.api.input import InputFormat
from headrace.api.records import record_fields
from headrace.api.results import Wanted
from headrace.api.worker import Compared, EvaluationReport, ManifestHeader, WorkerConfig
from headrace_worker.errors import JobFailed
from headrace_worker.evaluation.distributions import Difference, by_kind, by_rank, difference
from headrace_worker.evaluation.document import EmbeddingSpace, EvaluationDocument, LabelCounts, read_reference
from headrace_worker.evaluation.observing import Observer
from headrace_worker.evaluation.scores import decimal, of_labels
from headrace_worker.evaluation.texts import language_detector
from headrace_worker.formats.shards import Source, read_sources
from headrace_worker.joining.models import Asked
from headrace_worker.manifest import iter_shards
from headrace_worker.results import records
from headrace_worker.revisions import committed_folders
from headrace_worker.stores import join, open_store

log = logging.getLogger(__name__)


def evaluate(config: WorkerConfig, evaluation: Evaluation, header: ManifestHeader) -> EvaluationReport:
    """Look at the run, and write down what was found. What stands in the way is in the report: the results are complete all the same.

    Raises `StoreError` when it cannot be written down, and what passes, so that another try is made.
    """
    try:
        seen = _observed(config, evaluation, header)
    except JobFailed as failed:
        return EvaluationReport(failure=failed.failure)
    document = _document(config, evaluation, header, seen)
    report = _compared(config, evaluation, document, seen)
    _write(config, document.model_copy(update={"reference": evaluation.reference, "compared": report.compared}))
    return report


def _compared(
    config: WorkerConfig, evaluation: Evaluation, document: EvaluationDocument, seen: Observer
) -> EvaluationReport:
    """What is reported of the run, compared with its reference if it has one."""
    if evaluation.reference is None:
        return EvaluationReport(scores=document.scores)
    try:
        reference = read_reference(evaluation.reference, config.model.task)
    except JobFailed as failed:
        return EvaluationReport(scores=document.scores, incomparable=failed.failure)
    compared = compare(reference, document, seen)
    known = {one.feature for one in compared}
    either = {*reference.distributions, *document.distributions}
    missing = tuple(feature for feature in Feature if feature in either - known)
    return EvaluationReport(scores=document.scores, compared=compared, missing=missing)


def _observed(config: WorkerConfig, evaluation: Evaluation, header: ManifestHeader) -> Observer:
    use = evaluation.embedding
    model = Asked(config, use, header.created) if use is not None else None
    observer = Observer(evaluation, config.input.prompt, header.records, language_detector(), model)
    for source, answer in _answered(config):
        question = source.question if isinstance(source.question, dict) else {}
        observer.see(source.custom_id, question, answer, _expected(config, evaluation, source))
    observer.finish()
    return observer


def _answered(config: WorkerConfig) -> Iterator[tuple[Source, JsonObject | None]]:
    """Each record of the input with the body of its answer, or None where it has failed. Raises `JobFailed`."""
    output = open_store(config.output_uri)
    folders = committed_folders(output, config.output_uri)
    lines = records(output, config.output_uri, folders.values(), Wanted.ALL)
    for shard in iter_shards(open_store(config.plan_uri), config.plan_uri):
        store = open_store(shard.segments[0].uri)
        for source in read_sources(store, shard, config.records, config.model):
            row = orjson.loads(next(lines, b"{}"))
            if row.get("custom_id") != source.custom_id:
                message = f"the output has no line of the record {source.custom_id} at its place: since the plan one of both was changed"
                raise JobFailed("InputChanged", message)
            yield source, row["response"]["body"] if row["response"] is not None else None


def _expected(config: WorkerConfig, evaluation: Evaluation, source: Source) -> str | None:
    """What the record says that its answer should be. The answer to a part of a record is not the answer to the record."""
    spec = config.input
    if spec.split is not None or spec.format == InputFormat.TEXT or b'"expected"' not in source.raw:
        return None
    return expected_answer(record_fields(source.raw), evaluation, config.model.task)


def _document(
    config: WorkerConfig, evaluation: Evaluation, header: ManifestHeader, seen: Observer
) -> EvaluationDocument:
    distributions = {feature: dict(sorted(counts.items())) for feature, counts in seen.counts.items() if counts}
    space = _space(config, evaluation, seen)
    if space is not None:
        buckets = seen.projections.buckets(space.medians)
        distributions[Feature.EMBEDDING_BUCKET] = dict(sorted(buckets.items()))
    return EvaluationDocument(
        batch=config.batch,
        task=config.model.task,
        records=header.records,
        scores=seen.scorer.scores,
        labels={name: LabelCounts.parse(counts) for name, counts in of_labels(seen.scorer.labels).items()},
        distributions=distributions,
        embedding=space,
    )


def _space(config: WorkerConfig, evaluation: Evaluation, seen: Observer) -> EmbeddingSpace | None:
    if not seen.projections.values:
        return None
    model = evaluation.embedding.model if evaluation.embedding is not None else config.model
    return EmbeddingSpace(model=model.name, dimensions=seen.projections.dimensions, medians=seen.projections.medians)


def compare(before: EvaluationDocument, now: EvaluationDocument, seen: Observer) -> tuple[Compared, ...]:
    """By how much a run differs from its reference, in each feature that both have."""
    found = ((feature, _difference(feature, before, now, seen)) for feature in Feature)
    return tuple(
        Compared(feature=feature, psi=decimal(one.psi), chance=decimal(one.chance))
        for feature, one in found
        if one is not None
    )


def _difference(
    feature: Feature, before: EvaluationDocument, now: EvaluationDocument, seen: Observer
) -> Difference | None:
    was, is_ = before.distributions.get(feature, {}), now.distributions.get(feature, {})
    if feature == Feature.PROMPT_LENGTH:
        return difference(by_rank(was, is_))
    if feature == Feature.EMBEDDING_BUCKET:
        if before.embedding is None or now.embedding is None or not _same_space(before.embedding, now.embedding):
            return None
        is_ = dict(seen.projections.buckets(before.embedding.medians))
    return difference(by_kind(was, is_))


def _same_space(one: EmbeddingSpace, other: EmbeddingSpace) -> bool:
    return (one.model, one.dimensions) == (other.model, other.dimensions)


def _write(config: WorkerConfig, document: EvaluationDocument) -> None:
    data = orjson.dumps(document.to_object(), option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_INDENT_2)
    open_store(config.output_uri).put(join(config.output_uri, EVALUATION_FILE), data)
