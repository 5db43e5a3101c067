"""`evaluation.json`: what an evaluation has found, and the distributions with which a later run can be compared."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, ValidationError

from headrace.api.base import ApiModel, Count
from headrace.api.evaluation import EVALUATION_FILE, Feature, Scores
from headrace.api.model import Task
from headrace.api.worker import BatchIdentity, Compared
from headrace_worker.errors import JobFailed
from headrace_worker.stores import join, open_store
from headrace_worker.stores.base import NotFound, StoreError

VERSION = 1


class LabelCounts(ApiModel):
    """Of the records whose answer was to be a label."""

    expected: Count
    """Those of which it was expected."""
    answered: Count
    """Those whose answer names it."""
    correct: Count
    """Those of which both is true."""


class EmbeddingSpace(ApiModel):
    """In which vectors the regions are."""

    model: str
    dimensions: Count
    medians: tuple[float, ...]
    """The middle of the run in each direction."""


class EvaluationDocument(ApiModel):
    """The whole file."""

    version: Literal[1] = 1
    kind: Literal["Evaluation"] = "Evaluation"
    batch: BatchIdentity
    task: Task
    records: Count
    scores: Scores | None = None
    labels: dict[str, LabelCounts] = Field(default_factory=dict)
    """For the match Label."""
    distributions: dict[Feature, dict[Annotated[str, Field(max_length=64)], Count]]
    """Records by bin of each feature. Of the language and of the region of a vector, those of a sample."""
    embedding: EmbeddingSpace | None = None
    reference: str | None = None
    compared: tuple[Compared, ...] = ()


def read_reference(uri: str, task: Task) -> EvaluationDocument:
    """The evaluation in the output folder of an earlier run of the same task.

    Raises `JobFailed`: `ReferenceNotFound`, `ReferenceUnreadable`, `ReferenceMismatch`.
    """
    name = join(uri, EVALUATION_FILE)
    try:
        data = orjson.loads(open_store(name).read(name))
    except NotFound as error:
        raise _not_found(uri) from error
    except StoreError as error:
        raise JobFailed("ReferenceUnreadable", f"evaluation.reference: {error}") from error
    except orjson.JSONDecodeError as error:
        raise _mismatch(name, f"is no JSON: {error.msg}") from error
    document = _parsed(name, data)
    if document.task != task:
        raise _mismatch(name, f"is of a run of the task {document.task}, and this one is of {task}")
    return document


def _parsed(name: str, data: Any) -> EvaluationDocument:
    version = data.get("version") if isinstance(data, dict) else None
    if not isinstance(data, dict) or data.get("kind") != "Evaluation":
        raise _mismatch(name, "is not the evaluation of a run")
    if version != VERSION:
        raise _mismatch(name, f"is of the version {version}, and this Headrace reads version {VERSION}")
    try:
        return EvaluationDocument.model_validate_json(orjson.dumps(data))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _mismatch(name, f"is not as Headrace writes it: {place}: {first['msg']}") from error


def _not_found(uri: str) -> JobFailed:
    return JobFailed(
        "ReferenceNotFound",
        f"there is no {EVALUATION_FILE} in {uri}: evaluation.reference must be the output folder of a run that is complete, and that was "
        "evaluated itself",
    )


def _mismatch(name: str, what: str) -> JobFailed:
    return JobFailed("ReferenceMismatch", f"{name} {what}: evaluation.reference must name another run")
