"""What the schema cannot know: whether a spec can be acted on at the place where it is."""

from __future__ import annotations

from urllib.parse import urlsplit

from headrace.api.base import FieldError, InvalidSpec
from headrace.api.engines import Engine
from headrace.api.expected import clashing_labels
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.model import Model, ModelSource
from headrace.api.prompts import check_template
from headrace.api.routing import check_when
from headrace.core.observed import Installation
from headrace.core.volumes import output_uri


def spec_problems(batch: InferenceBatch, place: Installation) -> tuple[FieldError, ...]:
    """All that is wrong with the spec at that place; empty when it can be acted on."""
    return (
        *model_problems(batch.spec.model, batch.spec.engine, place),
        *_uri_problems(batch, place),
        *_prompt_problems(batch),
        *_routing_problems(batch),
        *_parameter_problems(batch),
        *_evaluation_problems(batch, place),
    )


def model_problems(model: Model, engine: Engine, place: Installation, at: str = "spec") -> list[FieldError]:
    """That an engine cannot run at that place, or that a model's weights cannot be had there."""
    refused = place.unsupported_engines
    problems = [FieldError(f"{at}.engine.name", refused[engine.name])] if engine.name in refused else []
    scheme = urlsplit(_source_uri(model.source) or "").scheme
    if scheme in place.unsupported_schemes:
        problems.append(FieldError(f"{at}.model.source", place.unsupported_schemes[scheme]))
    return problems


def _uri_problems(batch: InferenceBatch, place: Installation) -> list[FieldError]:
    spec = batch.spec
    output = output_uri(batch, place)
    missing = [] if output else [FieldError("spec.output.uri", "must be set: this installation has no default output")]
    named = {
        "spec.input.uri": spec.input.uri,
        "spec.output.uri": output,
        "spec.resumeFrom.uri": spec.resume_from.uri if spec.resume_from is not None else None,
        "spec.dedup.cacheUri": spec.dedup.cache_uri,
    }
    schemes = ((field, urlsplit(uri).scheme) for field, uri in named.items() if uri)
    refused = place.unsupported_schemes
    return missing + [FieldError(field, refused[scheme]) for field, scheme in schemes if scheme in refused]


def _source_uri(source: ModelSource | None) -> str | None:
    if source is None:
        return None
    if source.claim is not None:
        return f"claim://{source.claim.name}"
    return f"oci://{source.oci_image.reference}" if source.oci_image is not None else source.uri


def _prompt_problems(batch: InferenceBatch) -> list[FieldError]:
    if batch.spec.input.prompt is None:
        return []
    try:
        check_template(batch.spec.input.prompt)
    except InvalidSpec as error:
        return list(error.errors)
    return []


def _routing_problems(batch: InferenceBatch) -> list[FieldError]:
    if batch.spec.input.when is None:
        return []
    try:
        check_when(batch.spec.input.when, "spec.input.when")
    except InvalidSpec as error:
        return list(error.errors)
    return []


def _evaluation_problems(batch: InferenceBatch, place: Installation) -> list[FieldError]:
    evaluation = batch.spec.evaluation
    if evaluation is None:
        return []
    problems: list[FieldError] = []
    clash = clashing_labels(evaluation.labels)
    if clash is not None:
        message = (
            f"{clash[0]} and {clash[1]} must differ by more than case and punctuation: no answer can tell them apart"
        )
        problems.append(FieldError("spec.evaluation.labels", message))
    scheme = urlsplit(evaluation.reference or "").scheme
    if scheme in place.unsupported_schemes:
        problems.append(FieldError("spec.evaluation.reference", place.unsupported_schemes[scheme]))
    if evaluation.embedding is not None:
        use = evaluation.embedding
        problems += model_problems(use.model, use.engine, place, "spec.evaluation.embedding")
    return problems


def _parameter_problems(batch: InferenceBatch) -> list[FieldError]:
    """`n: 2` without quotes, which `kubectl apply` has read as `false: 2`; the API server cannot know what was meant."""
    message = "YAML reads an unquoted n, no or off as false, and y, yes or on as true: put the name in quotes"
    return [
        FieldError(f"spec.parameters.{name}", message) for name in ("false", "true") if name in batch.spec.parameters
    ]
